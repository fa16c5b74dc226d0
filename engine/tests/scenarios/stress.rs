//! Real threads and real files, and segments so small that they end all the time: eight threads append and
//! wait, three read along, one raises the start behind them, one checks chains, one makes logs and removes
//! them. The long version of this is `cargo xtask soak-engine`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{Appended, LogReader, ReadError};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{ClusterId, Generation, Incarnation, LogId, NodeId, Offset, TimestampMs};

use crate::world::{LOG, batch, read_all};

const NOW: TimestampMs = TimestampMs(5);
const TINY: LogConfig = LogConfig { segment_bytes: LogConfig::SEGMENT_BYTES_MIN, epoch_base: 0 };
const WRITERS: u64 = 8;
const BATCHES: u64 = 40;
/// What the start is kept behind the end.
const KEPT: u64 = 60;

/// Waits until something at `offset` can be read, or reading it fails for good.
fn wait_for(reader: &LogReader, offset: Offset) {
    let bell = Arc::new((Mutex::new(false), Condvar::new()));
    let rings = Arc::clone(&bell);
    let ring = move || {
        *rings.0.lock().unwrap() = true;
        rings.1.notify_all();
    };
    let subscription = reader.on_advance(offset, Box::new(ring));
    let rung = bell.0.lock().unwrap();
    drop(bell.1.wait_while(rung, |rung| !*rung).unwrap());
    drop(subscription);
}

/// Reads along up to `enough`, from the start wherever that is by then.
fn follow(reader: &LogReader, enough: u64) -> BTreeMap<Offset, bytes::Bytes> {
    let (mut read, mut at) = (BTreeMap::new(), Offset::ZERO);
    while at.get() < enough {
        match reader.read(at, 2_000) {
            Ok(found) if found.batches.is_empty() => wait_for(reader, at),
            Ok(found) => {
                for bytes in found.batches {
                    let batch = Batch::parse(bytes, BatchLimits::CAP).unwrap();
                    assert_eq!(batch.base_offset(), Some(at), "no gap, no overlap");
                    read.insert(at, batch.body());
                    at = batch.last_offset().unwrap().plus(1);
                }
            }
            Err(ReadError::OutOfRange { start, .. }) => {
                assert!(start > at);
                at = start;
            }
            Err(error) => panic!("{error}"),
        }
    }
    read
}

/// Raises the start again and again, a fixed way behind the end.
fn trim_behind(log: &SharedLog, enough: u64) {
    let reader = log.reader();
    for waited_for in (KEPT..enough).step_by(16) {
        wait_for(&reader, Offset(waited_for));
        let to = Offset(reader.end().get() - KEPT);
        log.trim(to).unwrap();
        assert_eq!(reader.start(), to);
        assert!(matches!(reader.read(Offset(0), 1), Err(ReadError::OutOfRange { .. })));
    }
}

/// Holds the chain at the ends of batches against what their appenders were told.
fn check_chains(
    reader: &LogReader,
    sent: &Mutex<BTreeMap<Offset, (Appended, bytes::Bytes)>>,
    done: &AtomicBool,
) {
    while !done.load(Ordering::SeqCst) {
        let some: Vec<Appended> =
            sent.lock().unwrap().values().rev().step_by(7).map(|(one, _)| *one).collect();
        for appended in some {
            match reader.chain_at(appended.last_offset.plus(1)) {
                Ok(chain) => assert_eq!(chain, appended.chain),
                Err(ReadError::OutOfRange { start, .. }) => assert!(start > appended.base_offset),
                Err(error) => panic!("{error}"),
            }
        }
        thread::yield_now();
    }
}

/// Makes logs under one name after the other and removes each while it is read.
fn make_and_remove(engine: &Arc<Engine>, done: &AtomicBool) -> u64 {
    let mut lives = 0;
    while !done.load(Ordering::SeqCst) {
        let id = LogId { generation: Generation(100 + lives), ..LOG };
        let (log, _) = engine.open_shared(id, TINY).unwrap();
        for number in 0..4 {
            log.append(&batch(number, 1, 40), NOW).unwrap();
        }
        log.sync().unwrap();
        let reader = log.reader();
        thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut at = Offset::ZERO;
                loop {
                    match reader.read(at, 1) {
                        Ok(read) if read.batches.is_empty() => wait_for(&reader, at),
                        Ok(read) => at = read.next,
                        Err(error) => return error,
                    }
                }
            });
            drop(log);
            engine.remove_log(id).unwrap();
            let told = reading.join().unwrap();
            assert!(matches!(told, ReadError::Removed { .. }), "{told}");
        });
        lives += 1;
    }
    lives
}

fn append_all(log: &SharedLog, writer: u64, sent: &Mutex<BTreeMap<Offset, (Appended, bytes::Bytes)>>) {
    for number in 0..BATCHES {
        let batch = batch(writer * 1_000 + number, 1, 30 + usize::try_from(number % 5).unwrap() * 40);
        let appended = log.append_durable(&batch, NOW).unwrap();
        assert!(log.reader().durable_end() > appended.last_offset);
        let before = sent.lock().unwrap().insert(appended.base_offset, (appended, batch.body()));
        assert!(before.is_none(), "an offset was given out twice");
    }
}

fn open(dir: &Path) -> Arc<Engine> {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    // Few open files, so that they are closed and opened again all the time.
    let options = Options { reserve_bytes: 0, open_files_max: 8, ..Options::embedded(NOW) };
    Engine::open(storage, dir, options).unwrap()
}

#[test]
fn eight_writers_readers_trims_and_removals_on_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    Engine::format(&storage, &data, new).unwrap();
    let engine = open(&data);
    let (log, _) = engine.open_shared(LOG, TINY).unwrap();
    let (sent, done) = (Mutex::new(BTreeMap::new()), AtomicBool::new(false));
    let enough = WRITERS * BATCHES;
    let read = thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let reader = log.reader();
                scope.spawn(move || follow(&reader, enough))
            })
            .collect();
        let trimmer = scope.spawn(|| trim_behind(&log, enough));
        let checker = scope.spawn(|| check_chains(&log.reader(), &sent, &done));
        let maker = scope.spawn(|| make_and_remove(&engine, &done));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (log, sent) = (&log, &sent);
                scope.spawn(move || append_all(log, writer, sent))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::SeqCst);
        checker.join().unwrap();
        assert!(maker.join().unwrap() > 0);
        trimmer.join().unwrap();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect::<Vec<_>>()
    });
    let sent = sent.into_inner().unwrap();
    for (base, body) in read.iter().flatten() {
        assert_eq!(sent.get(base).map(|(_, sent)| sent), Some(body));
    }
    assert!(engine.open_files() <= 8);
    assert_eq!(log.reader().damage(), []);
    log.idle().unwrap();
    let start = log.reader().start();
    drop((log, engine));

    let engine = open(&data);
    let (log, recovery) = engine.open_shared(LOG, TINY).unwrap();
    assert!(recovery.is_clean(), "{recovery:?}");
    let left = read_all(&log.reader(), start).unwrap();
    assert!(start > Offset(0) && left.len() == sent.range(start..).count());
    let logs = engine.logs_on_disk().unwrap();
    assert!(logs.contains(&LOG) && logs.len() == 1, "nothing is left of those that were removed: {logs:?}");
}
