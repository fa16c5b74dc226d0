//! Many logs are opened at once, by several who do not know of each other.

use std::sync::{Arc, OnceLock, Weak};

use shuttle::thread;
use tidelog_engine::embedded::EmbeddedError;
use tidelog_engine::log::{LogError, ReadError};
use tidelog_engine::{Engine, OpenProgress, Options, Progress};
use tidelog_wire::ids::{LogId, Offset, Partition};

use crate::stage::{NOW, TINY, disk, embedded, small};
use crate::world::{LOG, data, read_all};

const SHARED: LogId = LogId { partition: Partition(4), ..LOG };
const OTHER: LogId = LogId { partition: Partition(5), ..LOG };

/// Asks the engine back whenever it is told how far opening has come.
#[derive(Debug, Default)]
struct Asks {
    engine: OnceLock<Weak<Engine>>,
}

impl Progress for Asks {
    fn opening(&self, at: OpenProgress) {
        let Some(engine) = self.engine.get().and_then(Weak::upgrade) else { return };
        // Before the other, which may only have risen since.
        let opened = engine.report().logs_opened;
        let now = engine.open_progress();
        assert!(now.logs_done >= at.logs_done && now.logs >= now.logs_done, "{now:?} after {at:?}");
        assert!(opened <= now.logs, "{opened} of {now:?}");
        assert!(engine.logs_on_disk().unwrap().len() <= 3);
        assert_eq!(engine.checkpoints_naming(OTHER), []);
        assert!(!engine.room().refuses_writes);
        engine.remove_log(LogId { partition: Partition(9), ..LOG }).unwrap();
    }
}

/// Two open overlapping sets of logs, two threads each, while a third removes the one that both want. The others open
/// whole; the one in question is opened once at most, whole or empty, and never by both.
pub(crate) fn overlapping_openings() {
    let disk = disk();
    {
        let engine = embedded(&disk);
        for log in [LOG, SHARED, OTHER] {
            let (log, _) = engine.open_shared(log, TINY).unwrap();
            log.append_durable(&small(0), NOW).unwrap();
            log.append_durable(&small(1), NOW).unwrap();
        }
    }
    let asks = Arc::new(Asks::default());
    let listener = Arc::clone(&asks);
    let progress: Arc<dyn Progress> = listener;
    let options =
        Options { reserve_bytes: 0, open_threads: 2, progress: Some(progress), ..Options::embedded(NOW) };
    let engine = Engine::open(disk.storage(), data(), options).unwrap();
    asks.engine.set(Arc::downgrade(&engine)).unwrap();
    let openers: Vec<_> = [LOG, OTHER]
        .into_iter()
        .map(|own| {
            let engine = Arc::clone(&engine);
            thread::spawn(move || {
                let mut opened = engine.open_shared_logs(&[(own, TINY), (SHARED, TINY)]);
                let shared = opened.pop().unwrap();
                let (own, recovery) = opened.pop().unwrap().unwrap();
                assert_eq!(recovery.damage, []);
                assert_eq!(read_all(&own.reader(), Offset::ZERO).unwrap().len(), 2);
                match shared {
                    Ok((log, recovery)) => {
                        assert_eq!(recovery.damage, []);
                        match read_all(&log.reader(), Offset::ZERO) {
                            Ok(read) => assert!([0, 2].contains(&read.len()), "{} batches", read.len()),
                            Err(error) => assert!(matches!(error, ReadError::Removed { .. }), "{error}"),
                        }
                        Some(log)
                    }
                    Err(EmbeddedError::Log(LogError::AlreadyOpen { .. })) => None,
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    let removed = engine.remove_log(SHARED);
    assert!(matches!(removed, Ok(()) | Err(LogError::AlreadyOpen { .. })), "{removed:?}");
    let shared: Vec<_> = openers.into_iter().filter_map(|opener| opener.join().unwrap()).collect();
    assert!(shared.len() <= 1, "two writers of one log");
    drop(shared);
    for (log, batches) in [(LOG, 2), (OTHER, 2), (SHARED, if removed.is_ok() { 0 } else { 2 })] {
        let (log, recovery) = engine.open_shared(log, TINY).unwrap();
        assert_eq!(recovery.damage, []);
        assert_eq!(read_all(&log.reader(), Offset::ZERO).unwrap().len(), batches);
    }
}
