//! Those who read while others append, end segments, trim and verify.

use std::sync::Arc;

use shuttle::thread;
use tidelog_engine::Engine;
use tidelog_engine::log::{ReadError, Visible};
use tidelog_wire::ids::{Offset, TimestampMs};

use crate::stage::{Bell, NOW, Sent, TINY, Watcher, disk, shared_log, small, tail};
use crate::world::{self, LOG, append, batch, make_checkpoint, read_all};

/// One reader waits for what is appended, another for what is durable. The first is woken without a sync,
/// the second not before it, and neither in vain.
pub(crate) fn tailing_readers() {
    let disk = disk();
    let (_engine, log) = shared_log(&disk);
    let (durable, early) = (log.reader(), log.reader().seeing(Visible::Appended));
    let (sent, seen) = (Arc::new(Sent::default()), Arc::new(Bell::default()));
    let waiting = thread::spawn(move || tail(&durable, Offset(4)).0);
    let hasty = {
        let seen = Arc::clone(&seen);
        thread::spawn(move || {
            let mut all = tail(&early, Offset(2)).0;
            seen.ring();
            all.extend(tail(&early, Offset(4)).0);
            all
        })
    };
    let appender = {
        let sent = Arc::clone(&sent);
        thread::spawn(move || {
            for number in 0..2 {
                let batch = small(number);
                sent.note(&log.append(&batch, NOW).unwrap(), &batch);
            }
            // No sync before the hasty one has read both: it must be woken by the appends alone.
            seen.wait();
            for number in 2..4 {
                let batch = small(number);
                sent.note(&log.append_durable(&batch, NOW).unwrap(), &batch);
            }
        })
    };
    appender.join().unwrap();
    sent.check(&hasty.join().unwrap());
    let read = waiting.join().unwrap();
    assert_eq!(read.len(), 4);
    sent.check(&read);
}

/// A reader follows an appender while the start is raised under it: it is told where the log begins now,
/// never that a file is gone.
pub(crate) fn readers_and_trims() {
    let disk = disk();
    let (_engine, log) = shared_log(&disk);
    let sent = Arc::new(Sent::default());
    for number in 0..4 {
        let batch = small(number);
        sent.note(&log.append(&batch, NOW).unwrap(), &batch);
    }
    log.sync().unwrap();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let reader = log.reader();
            thread::spawn(move || tail(&reader, Offset(6)).0)
        })
        .collect();
    let asking = {
        let reader = log.reader();
        thread::spawn(move || {
            for at in 0..4 {
                let found = reader.offset_at_time(TimestampMs(1_000 * at)).unwrap();
                // Nothing is found when all that is durable was trimmed.
                assert!(found.is_none_or(|(offset, _)| offset.get() >= u64::try_from(at).unwrap()));
                match reader.chain_at(Offset(u64::try_from(at).unwrap())) {
                    Ok(_) | Err(ReadError::OutOfRange { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    };
    let trimmer = {
        let log = log.clone();
        thread::spawn(move || {
            // Each trim writes a checkpoint; the third lets the files of the first go.
            for to in [1, 2, 3, 4] {
                log.trim(Offset(to)).unwrap();
            }
        })
    };
    for number in 4..6 {
        let batch = small(number);
        sent.note(&log.append_durable(&batch, NOW).unwrap(), &batch);
    }
    trimmer.join().unwrap();
    asking.join().unwrap();
    for reader in readers {
        sent.check(&reader.join().unwrap());
    }
    assert_eq!(log.reader().damage(), []);
}

/// A reopened segment has no index in memory. Readers make one while the writer goes on and ends the segment.
pub(crate) fn an_index_while_it_grows() {
    let disk = disk();
    let state = {
        let engine = Engine::open(disk.storage(), world::data(), world::options()).unwrap();
        let (mut writer, _) = world::open(&engine, None);
        append(&mut writer, 1..=3);
        make_checkpoint(&engine, 3, &writer)
    };
    let engine = Engine::open(disk.storage(), world::data(), world::options()).unwrap();
    let (mut writer, _) = engine.open_log(LOG, world::CONFIG, Some(&state)).unwrap();
    let readers: Vec<_> = [3, 1]
        .into_iter()
        .map(|from| {
            let reader = writer.reader();
            thread::spawn(move || {
                let mut watcher = Watcher::default();
                watcher.look(&reader);
                assert!(!reader.read(Offset(from), 1).unwrap().batches.is_empty());
                let time = TimestampMs(i64::try_from(1_000 * from).unwrap());
                assert_eq!(reader.offset_at_time(time).unwrap(), Some((Offset(2 * from - 2), time)));
                watcher.look(&reader);
            })
        })
        .collect();
    // About ten entries fill a segment: the last one goes into the next.
    for index in 4..=6 {
        let (_, stamp) = world::entry(index);
        writer.append(&batch(index, 2, 600), stamp).unwrap();
    }
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(read_all(&writer.reader(), Offset::ZERO).unwrap().len(), 6);
    assert_eq!(writer.damage(), []);
    // The index that came of it gives the same footer as one made in one go.
    let end = writer.state().end;
    writer.set_log_start(Offset(1)).unwrap();
    writer.sync_target().run().unwrap();
    for file in engine.segment_files(LOG, &writer.state()).unwrap() {
        engine.verify_staged(&engine.segment_path(LOG, file.base), &file).unwrap();
    }
    assert_eq!(writer.state().end, end);
}

/// What is pinned is verified, file by file, while the log grows and loses its oldest segments.
pub(crate) fn verification_and_trims() {
    let disk = disk();
    let engine = Engine::open(disk.storage(), world::data(), world::options()).unwrap();
    let (mut writer, _) = engine.open_log(LOG, TINY, None).unwrap();
    append(&mut writer, 1..=3);
    let state = writer.state();
    let checkpoint = world::checkpoint(3, &writer);
    let pin = engine.pin_checkpoint(&checkpoint);
    let verifier = {
        let engine = Arc::clone(&engine);
        thread::spawn(move || {
            let files = engine.segment_files(LOG, &state).unwrap();
            for file in &files {
                engine.verify_staged(&engine.segment_path(LOG, file.base), file).unwrap();
            }
            drop(pin);
            files.len()
        })
    };
    for index in 4..=6 {
        append(&mut writer, [index]);
        writer.set_log_start(Offset(2 * index - 2)).unwrap();
    }
    assert!(verifier.join().unwrap() > 0);
    assert_eq!(world::log_files(&disk).len(), 1, "the pin was the last that held the others");
}
