//! A name lives several times. Whoever holds something of an earlier life is refused by type; what lies
//! around from it is refused by its header and its tag. Nothing of it is ever taken for the present one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidelog_engine::Engine;
use tidelog_engine::embedded::EmbeddedError;
use tidelog_engine::log::recovery::table::Seen;
use tidelog_engine::log::{AppendError, LogError, LogReader, LogRecovery, LogWriter, ReadError};
use tidelog_engine::segment;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{Generation, LogId, Offset, RaftIndex, TimestampMs};

use crate::world::{
    CONFIG, GROUP, LOG, append, batch, checkpoint, data, embedded_engine, engine, entry, formatted,
    log_files, make_checkpoint, open, read_all, read_file, segment_path, shared,
};

const NEXT_LIFE: LogId = LogId { generation: Generation(8), ..LOG };

fn bell() -> (Arc<AtomicUsize>, Box<dyn FnOnce() + Send>) {
    let rung = Arc::new(AtomicUsize::new(0));
    let rings = Arc::clone(&rung);
    let ring = move || {
        rings.fetch_add(1, Ordering::SeqCst);
    };
    (rung, Box::new(ring))
}

fn next_life(engine: &Engine) -> LogWriter {
    engine.open_log(NEXT_LIFE, CONFIG, None).unwrap().0
}

fn assert_removed(reader: &LogReader) {
    assert!(matches!(reader.read(Offset(0), 1), Err(ReadError::Removed { .. })));
    assert!(matches!(reader.read(reader.end(), 1), Err(ReadError::Removed { .. })));
    assert!(matches!(reader.chain_at(Offset(2)), Err(ReadError::Removed { .. })));
    assert!(matches!(reader.offset_at_time(TimestampMs(0)), Err(ReadError::Removed { .. })));
}

/// A log is closed before it is removed, and with its writer everything that knew it used to be forgotten:
/// its readers were never told, those that waited for more waited for ever, and the others were told that
/// the disk had lost a file.
#[test]
fn readers_of_a_removed_log_are_told_also_when_its_writer_went_first() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=30);
    let reader = writer.reader();
    let (rung, callback) = bell();
    let _waiting = reader.on_advance(reader.end(), callback);
    drop(writer);
    assert_eq!(read_all(&reader, Offset(0)).unwrap().len(), 30, "closed is not removed");
    engine.remove_log(LOG).unwrap();
    assert_eq!(rung.load(Ordering::SeqCst), 1);
    assert_removed(&reader);
    let mut next = next_life(&engine);
    append(&mut next, 1..=3);
    assert_removed(&reader);
    assert_eq!(read_all(&next.reader(), Offset(0)).unwrap().len(), 3);
    let (rung, callback) = bell();
    let _late = reader.on_advance(Offset(99), callback);
    assert_eq!(rung.load(Ordering::SeqCst), 1, "nothing comes any more");
}

/// A writer went on appending to a log that had been removed under it, into files without a name.
#[test]
fn a_writer_of_a_removed_log_is_refused() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=3);
    engine.remove_log(LOG).unwrap();
    let (batch, stamp) = entry(4);
    assert!(matches!(writer.append(&batch, stamp), Err(AppendError::Removed { log: LOG })));
    assert!(matches!(writer.set_log_start(Offset(2)), Err(LogError::Removed { log: LOG })));
    let again = engine.open_log(LOG, CONFIG, None);
    assert!(matches!(again, Err(LogError::AlreadyOpen { .. })), "while the old writer is held");
    let mut next = next_life(&engine);
    append(&mut next, 1..=1);
    assert!(matches!(writer.append(&batch, stamp), Err(AppendError::Removed { log: LOG })));
    assert_eq!(read_all(&next.reader(), Offset(0)).unwrap().len(), 1);
}

#[test]
fn handles_of_a_removed_embedded_log_are_refused() {
    let disk = formatted(1);
    let engine = embedded_engine(&disk);
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    log.append_durable(&batch(1, 1, 10), TimestampMs(1)).unwrap();
    engine.remove_log(LOG).unwrap();
    let refused = log.append_durable(&batch(2, 1, 10), TimestampMs(1));
    assert!(matches!(refused, Err(EmbeddedError::Append(AppendError::Removed { .. }))));
    assert_removed(&log.reader());
    assert!(log_files(&disk).is_empty());
}

/// A sync job waited for its turn while its log was removed and the directory went with the files. It then
/// reported a failed disk, upon which a node stops.
#[test]
fn a_sync_job_of_a_removed_log_has_nothing_to_fail_at() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=30);
    let job = writer.sync_target();
    drop(writer);
    engine.remove_log(LOG).unwrap();
    assert!(log_files(&disk).is_empty());
    let mut next = next_life(&engine);
    append(&mut next, 1..=1);
    job.run().unwrap();
    assert_eq!(next.reader().durable_end(), Offset(0), "it made nothing of the next life durable");
}

/// Handles of an earlier opening of the same life: the files may have been cut or exchanged since.
#[test]
fn handles_of_an_earlier_opening_are_refused() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=3);
    let (reader, job) = (writer.reader(), writer.sync_target());
    let (rung, callback) = bell();
    let _waiting = reader.on_advance(reader.end(), callback);
    let state = make_checkpoint(&engine, 3, &writer);
    drop(writer);
    let (mut writer, _) = open(&engine, Some(&state));
    assert_eq!(rung.load(Ordering::SeqCst), 1);
    assert!(matches!(reader.read(Offset(0), 1), Err(ReadError::Reopened { log: LOG })));
    append(&mut writer, 4..=5);
    job.run().unwrap();
    assert_eq!(writer.reader().durable_end(), state.end, "the old job speaks for the old opening only");
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 5);
}

fn copy(disk: &SimDisk, bytes: &[u8], to: &std::path::Path) {
    let file = disk.storage().open(to, OpenMode::CreateNew).unwrap();
    file.write_at(Position::ZERO, &[bytes]).unwrap();
    file.sync().unwrap();
    disk.storage().sync_dir(to.parent().unwrap()).unwrap();
}

/// A file of the earlier life lies in the directory of the next, under a name that fits: its header says
/// whose it is. Embedded nothing but the file could tell that no segment of the log's own was there: it stays for a
/// person to look at, and no offset is handed out before.
#[test]
fn a_file_of_an_earlier_life_is_set_aside() {
    let disk = formatted(1);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=5);
    drop((writer, first));
    let dir = data().join("logs/8/3");
    disk.storage().create_dir(&dir).unwrap();
    copy(&disk, &read_file(&disk, &segment_path(0)), &dir.join(segment::file_name(Offset(0))));
    let seen = |recovery: &LogRecovery| recovery.findings.iter().map(|one| one.seen).collect::<Vec<_>>();
    {
        let disk = disk.fork();
        let (next, recovery) = embedded_engine(&disk).open_shared(NEXT_LIFE, CONFIG).unwrap();
        assert_eq!(seen(&recovery), [Seen::Replaced]);
        assert_eq!(recovery.read_only, Some(dir.join(segment::file_name(Offset(0)))));
        let refused = next.append(&batch(1, 1, 1), TimestampMs(1));
        assert!(matches!(refused, Err(EmbeddedError::Append(AppendError::Fenced { .. }))));
        assert_eq!((next.reader().start(), next.reader().end()), (Offset(0), Offset(0)));
    }
    let (next, recovery) = engine(&disk).open_log(NEXT_LIFE, CONFIG, None).unwrap();
    assert_eq!((seen(&recovery), next.replay_pending()), (vec![Seen::Misplaced], 0));
    assert_eq!((next.reader().start(), next.reader().end()), (Offset(0), Offset(0)));
    assert!(disk.files().iter().all(|path| !path.starts_with(&dir)));
    assert!(disk.files().iter().any(|path| path.starts_with(data().join("quarantine"))));
}

/// Frames of the earlier life lie behind those of the next one: their tag says whose they are.
#[test]
fn frames_of_an_earlier_life_are_cut() {
    let disk = formatted(1);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=5);
    let mut next = next_life(&first);
    append(&mut next, 1..=3);
    let old = read_file(&disk, &segment_path(0));
    let state = make_checkpoint(&first, 3, &next);
    drop((writer, next, first));
    let path = data().join("logs/8/3").join(segment::file_name(Offset(0)));
    let before = read_file(&disk, &path);
    // Where the fourth frame would go lies the fourth of the earlier life, whole and at its own place.
    let file = disk.storage().open(&path, OpenMode::ReadWrite).unwrap();
    file.write_at(Position(file.len().unwrap()), &[&old[before.len()..]]).unwrap();
    let second = engine(&disk);
    let (next, recovery) = second.open_log(NEXT_LIFE, CONFIG, Some(&state)).unwrap();
    assert_eq!(recovery.findings.iter().map(|one| one.seen).collect::<Vec<_>>(), [Seen::Broken]);
    assert_eq!(next.replay_pending(), 0);
    assert_eq!(read_all(&next.reader(), Offset(0)).unwrap().len(), 3);
    assert_eq!(read_file(&disk, &path), before);
}

/// A pin and a kept checkpoint that name the earlier life keep its files, and nothing else; with them it
/// can be gone back to.
#[test]
fn what_names_an_earlier_life_keeps_that_one_only() {
    let disk = formatted(1);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=30);
    make_checkpoint(&first, 30, &writer);
    let pin = first.pin(vec![(LOG, Offset(0))]);
    drop(writer);
    first.remove_log(LOG).unwrap();
    let mut next = next_life(&first);
    append(&mut next, 1..=5);
    next.sync_target().run().unwrap();
    let mut of_next = checkpoint(35, &next);
    of_next.logs.first_mut().unwrap().log = NEXT_LIFE;
    first.write_checkpoint(&of_next).unwrap();
    drop((next, first, pin));

    // The newest checkpoint is bad: the one before it names the earlier life, all of which is there.
    let fork = disk.fork();
    let newest = fork.files().into_iter().rfind(|path| path.starts_with(data().join("checkpoints"))).unwrap();
    fork.flip_bit(&newest, Position(30), 1).unwrap();
    let second = engine(&fork);
    let older = second.load_checkpoint(GROUP).unwrap().unwrap().newest;
    let (writer, recovery) = second.open_log(LOG, CONFIG, Some(&older.logs[0].state)).unwrap();
    assert_eq!(recovery.damage, []);
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 30);

    // Else it goes with the last checkpoint that names it.
    let second = engine(&disk);
    of_next.applied.index = RaftIndex(36);
    let next = second.open_log(NEXT_LIFE, CONFIG, Some(&of_next.logs[0].state)).unwrap().0;
    second.write_checkpoint(&of_next).unwrap();
    assert!(log_files(&disk).iter().all(|(path, _)| path.starts_with(data().join("logs/8"))));
    assert_eq!(read_all(&next.reader(), Offset(0)).unwrap().len(), 5);
}

/// The start rises into the middle of a segment, and of a batch, under open readers.
#[test]
fn a_trim_inside_a_segment_refuses_what_is_below_and_serves_the_rest() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=5);
    let reader = writer.reader();
    assert_eq!(reader.read(Offset(2), 1).unwrap().next, Offset(4), "leaves a hint behind");
    writer.set_log_start(Offset(5)).unwrap();
    assert_eq!(log_files(&disk).len(), 1, "the segment holds more");
    for below in [0, 4] {
        let refused = reader.read(Offset(below), 1);
        assert!(matches!(refused, Err(ReadError::OutOfRange { start: Offset(5), .. })));
    }
    let read = reader.read(Offset(5), 1).unwrap();
    assert_eq!((read.batches.len(), read.next), (1, Offset(6)), "the whole batch that holds it");
    assert_eq!(reader.offset_at_time(TimestampMs(0)).unwrap(), Some((Offset(5), TimestampMs(3_000))));
    assert_eq!(reader.offset_until_time(TimestampMs(2_999)).unwrap(), None);
}

/// A purge takes every file; offsets, chain and readers go on.
#[test]
fn a_purged_log_goes_on_under_its_readers() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    let last = append(&mut writer, 1..=5).pop().unwrap();
    let reader = writer.reader();
    let (rung, callback) = bell();
    let _waiting = reader.on_advance(Offset(10), callback);
    writer.set_log_start(Offset(10)).unwrap();
    assert!(log_files(&disk).is_empty());
    assert_eq!(reader.read(Offset(10), 1).unwrap().batches.len(), 0);
    assert_eq!(reader.end_and_chain(), (Offset(10), last.chain));
    assert_eq!(rung.load(Ordering::SeqCst), 0, "nothing came");
    let next = append(&mut writer, [6]).pop().unwrap();
    assert_eq!(rung.load(Ordering::SeqCst), 1);
    assert_eq!(next.base_offset, Offset(10));
    assert_eq!(reader.chain_at(Offset(10)).unwrap(), last.chain, "the new segment begins with it");
    assert_eq!(read_all(&reader, Offset(10)).unwrap().len(), 1);
    drop(reader);
    let (state, job) = (writer.state(), writer.sync_target());
    job.run().unwrap();
    drop((writer, engine));
    disk.crash(Crash::LoseUnsynced);
    let second = crate::world::engine(&disk);
    let (writer, recovery) = open(&second, Some(&state));
    assert_eq!(recovery.damage, []);
    assert_eq!(writer.reader().end_and_chain(), (Offset(12), next.chain));
}

/// An embedded log that nobody holds any more may be opened again at once.
#[test]
fn a_log_is_free_when_its_last_handle_is_dropped() {
    let disk = formatted(1);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 1, 10), TimestampMs(1)).unwrap();
    drop(log);
    let engine = embedded_engine(&disk);
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    let reader = log.reader();
    assert!(matches!(engine.open_shared(LOG, CONFIG), Err(EmbeddedError::Log(LogError::AlreadyOpen { .. }))));
    drop(log);
    let (_log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    assert!(matches!(reader.read(Offset(0), 1), Err(ReadError::Reopened { .. })));
}
