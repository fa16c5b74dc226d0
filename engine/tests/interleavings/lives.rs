//! A log is closed, removed, opened again, while others hold what belongs to its earlier life.

use std::sync::Arc;

use shuttle::thread;
use tidelog_engine::Engine;
use tidelog_engine::embedded::EmbeddedError;
use tidelog_engine::log::{LogError, ReadError};
use tidelog_wire::ids::{Generation, LogId, Offset, TimestampMs};

use crate::stage::{NOW, Sent, TINY, disk, shared_log, small, tail};
use crate::world::{self, LOG, append, read_all};

const NEXT_LIFE: LogId = LogId { generation: Generation(8), ..LOG };

/// A channel is deleted and made again under its name while it is read. Those who read the first life read
/// nothing else, and in the end each is told that it is gone, also those who wait for more.
pub(crate) fn removed_while_read() {
    let disk = disk();
    let (engine, log) = shared_log(&disk);
    let sent = Arc::new(Sent::default());
    for number in 0..3 {
        let batch = small(number);
        sent.note(&log.append_durable(&batch, NOW).unwrap(), &batch);
    }
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let reader = log.reader();
            thread::spawn(move || tail(&reader, Offset(u64::MAX)))
        })
        .collect();
    drop(log);
    engine.remove_log(LOG).unwrap();
    let (next, _) = engine.open_shared(NEXT_LIFE, TINY).unwrap();
    next.append_durable(&small(77), NOW).unwrap();
    for reader in readers {
        let (read, removed) = reader.join().unwrap();
        assert!(removed);
        sent.check(&read);
    }
    assert_eq!(read_all(&next.reader(), Offset::ZERO).unwrap().len(), 1);
}

/// A log is closed and opened again while a sync job of its earlier writer is under way and a reader reads.
pub(crate) fn closed_and_reopened() {
    let disk = disk();
    let engine = Engine::open(disk.storage(), world::data(), world::options()).unwrap();
    let (mut writer, _) = engine.open_log(LOG, TINY, None).unwrap();
    append(&mut writer, 1..=3);
    let (reader, job, state) = (writer.reader(), writer.sync_target(), writer.state());
    let syncing = thread::spawn(move || job.run().unwrap());
    let reading = thread::spawn(move || {
        match read_all(&reader, Offset::ZERO) {
            Ok(read) => assert_eq!(read.len(), 3),
            Err(error) => assert!(matches!(error, ReadError::Reopened { .. }), "{error}"),
        }
        reader.damage()
    });
    drop(writer);
    let (mut writer, recovery) = engine.open_log(LOG, TINY, Some(&state)).unwrap();
    assert_eq!(recovery.damage, []);
    append(&mut writer, 4..=5);
    assert_eq!(reading.join().unwrap(), []);
    syncing.join().unwrap();
    writer.sync_target().run().unwrap();
    assert_eq!(read_all(&writer.reader(), Offset::ZERO).unwrap().len(), 5);
}

/// Two open the same log: one after the other, or one of them is told. Never both at once.
pub(crate) fn two_open_at_once() {
    let disk = disk();
    let (engine, log) = shared_log(&disk);
    log.append_durable(&small(0), NOW).unwrap();
    drop(log);
    let threads: Vec<_> = (1..=2)
        .map(|number| {
            let engine = Arc::clone(&engine);
            thread::spawn(move || match engine.open_shared(LOG, TINY) {
                Ok((log, recovery)) => {
                    assert_eq!(recovery.damage, []);
                    log.append_durable(&small(number), NOW).unwrap();
                    1
                }
                Err(EmbeddedError::Log(LogError::AlreadyOpen { .. })) => 0,
                Err(error) => panic!("{error}"),
            })
        })
        .collect();
    let opened: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(opened > 0);
    let (log, _) = engine.open_shared(LOG, TINY).unwrap();
    assert_eq!(read_all(&log.reader(), Offset::ZERO).unwrap().len(), 1 + opened);
    let reader = log.reader();
    assert!(matches!(reader.read(Offset(9), 1), Err(ReadError::OutOfRange { .. })));
}

/// One opens a log while another removes it: either he gets it whole, or finds nothing, or the other is told.
/// Never does a writer stand on files that go under him.
pub(crate) fn removed_while_opened() {
    let disk = disk();
    let (engine, log) = shared_log(&disk);
    log.append_durable(&small(0), NOW).unwrap();
    drop(log);
    let opener = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            let Ok((log, recovery)) = engine.open_shared(LOG, TINY) else { return };
            assert_eq!(recovery.damage, []);
            let Ok(appended) = log.append_durable(&small(1), NOW) else { return };
            let base = if appended.base_offset == Offset::ZERO { 0 } else { 1 };
            assert_eq!(appended.base_offset, Offset(base), "whole or empty");
            // Acknowledged, so it is there unless the log was removed since.
            let there = read_all(&log.reader(), Offset::ZERO);
            match there {
                Ok(all) => assert_eq!(Offset(u64::try_from(all.len()).unwrap()), Offset(base + 1)),
                Err(error) => assert!(matches!(error, ReadError::Removed { .. }), "{error}"),
            }
            if log.append_durable(&small(2), NOW).is_ok() {
                let path = disk.files().into_iter().find(|path| path.starts_with("/data/logs"));
                assert!(path.is_some() || log.append(&small(3), NOW).is_err(), "a writer without a file");
            }
        })
    };
    let removed = engine.remove_log(LOG);
    assert!(matches!(removed, Ok(()) | Err(LogError::AlreadyOpen { .. })), "{removed:?}");
    opener.join().unwrap();
}

/// A log is removed while its start is raised. Whoever comes first, nothing names it afterwards.
pub(crate) fn removed_while_trimmed() {
    let disk = disk();
    let (engine, log) = shared_log(&disk);
    for number in 0..4 {
        log.append(&small(number), NOW).unwrap();
    }
    log.sync().unwrap();
    let trimmer = {
        let log = log.clone();
        thread::spawn(move || {
            for to in [1, 3] {
                match log.trim(Offset(to)) {
                    Ok(()) | Err(EmbeddedError::Log(LogError::Removed { .. })) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    };
    drop(log);
    engine.remove_log(LOG).unwrap();
    trimmer.join().unwrap();
    assert_eq!(engine.checkpoints_naming(LOG), []);
    assert_eq!(world::log_files(&disk), []);
}

/// One waits to open a log whose last writer raises its start and leaves. Whenever he gets it, it begins where that
/// writer was told it does: the start is asked for once the log is his, not before.
pub(crate) fn opened_while_trimmed() {
    const TRIES: usize = 30;
    let disk = disk();
    let (engine, log) = shared_log(&disk);
    for number in 0..4 {
        log.append(&small(number), NOW).unwrap();
    }
    log.sync().unwrap();
    let opener = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            for _ in 0..TRIES {
                match engine.open_shared(LOG, TINY) {
                    Ok((log, _)) => return assert_eq!(log.reader().start(), Offset(3)),
                    Err(EmbeddedError::Log(LogError::AlreadyOpen { .. })) => thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        })
    };
    log.trim(Offset(3)).unwrap();
    drop(log);
    opener.join().unwrap();
}

/// After a start nobody has looked at the sealed segments yet. Readers look first, and mend what a crash left
/// undone, while the writer goes on and the start is raised over them.
pub(crate) fn first_looks_and_trims() {
    let disk = disk();
    {
        let (_engine, log) = shared_log(&disk);
        for number in 0..6 {
            log.append_durable(&small(number), NOW).unwrap();
        }
        log.idle().unwrap();
    }
    // Index and footer are missing: the first look writes them again.
    let second = world::segment_path(2);
    let whole = world::read_file(&disk, &second);
    let file = disk.storage().open(&second, tidelog_engine::storage::OpenMode::ReadWrite).unwrap();
    file.truncate(u64::try_from(whole.len() - 24 - 64).unwrap()).unwrap();
    drop(file);
    let (engine, log) = shared_log(&disk);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let reader = log.reader();
            thread::spawn(move || tail(&reader, Offset(7)).0.len())
        })
        .collect();
    let asking = {
        let reader = log.reader();
        thread::spawn(move || reader.offset_at_time(TimestampMs(3_000)).unwrap())
    };
    log.append_durable(&small(6), NOW).unwrap();
    for to in [2, 3, 4, 5] {
        log.trim(Offset(to)).unwrap();
    }
    asking.join().unwrap();
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    assert_eq!(log.reader().damage(), []);
    let aside = disk.files().into_iter().any(|path| path.starts_with("/data/quarantine"));
    assert!(!aside, "there was nothing that is not ours");
    drop((log, engine));
}
