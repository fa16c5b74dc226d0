//! A start is fast and bounded: what lies below the mark is not opened, many logs open at once, and one can watch.

use std::sync::Mutex;

use tidelog_engine::checkpoint::LogState;
use tidelog_engine::embedded::EmbeddedError;
use tidelog_engine::log::recovery::table::Seen;
use tidelog_engine::log::{AppendError, LogError, ReadError, SyncError};
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Lasting, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_engine::{Engine, LogToOpen, OpenProgress, Options, Progress};
use tidelog_wire::ids::{LogId, Offset, Partition, TimestampMs};

use crate::world::{
    CONFIG, LOG, append, batch, data, embedded_engine, engine, entry, formatted, found_late, log_files,
    make_checkpoint, open, options, read_all, read_file, segment_path, shared,
};

const NOW: TimestampMs = TimestampMs(5);

/// A log of entries 1..=60 in several segments, checkpointed, closed.
fn checkpointed() -> (SimDisk, LogState) {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=60);
    let state = make_checkpoint(&engine, 60, &writer);
    (disk, state)
}

fn bases(disk: &SimDisk) -> Vec<u64> {
    let name = |path: &std::path::Path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    log_files(disk).iter().map(|(path, _)| name(path)).collect()
}

fn refuse_sealed(disk: &SimDisk, bases: &[u64]) {
    for base in bases {
        let fault = Fault::next(Operation::Open, Failure::Io).on_path(&format!("/{base:020}.seg"));
        disk.inject(Fault { lasting: Lasting::Always, ..fault });
    }
}

/// The story: every file of a log was opened and read at a start, so a log of 100,000 segments took minutes,
/// needed 100,000 descriptors, and one segment that could not be read kept all of it from being served.
#[test]
fn below_the_checkpoint_nothing_is_opened_at_a_start() {
    let (disk, state) = checkpointed();
    let (active, sealed) = bases(&disk).split_last().map(|(last, rest)| (*last, rest.to_vec())).unwrap();
    refuse_sealed(&disk, &sealed);
    let engine = engine(&disk);
    let (mut writer, recovery) = open(&engine, Some(&state));
    assert!(recovery.is_clean());
    append(&mut writer, 61..=62);
    assert_eq!(
        read_all(&writer.reader(), Offset(active)).unwrap().len(),
        62 - usize::try_from(active / 2).unwrap()
    );
    assert!(matches!(writer.reader().read(Offset(0), 10), Err(ReadError::Unreadable { .. })));
}

/// Embedded the active segment and the one before it are read, whose chain it continues; of the others the
/// name is enough.
#[test]
fn embedded_only_the_last_two_segments_are_opened_at_a_start() {
    let disk = formatted(1);
    let (log, _) = embedded_engine(&disk).open_shared(LOG, CONFIG).unwrap();
    for number in 0..60 {
        log.append_durable(&batch(number, 1, 300), TimestampMs(5)).unwrap();
    }
    drop(log);
    let all = bases(&disk);
    refuse_sealed(&disk, &all[..all.len() - 2]);
    let (log, recovery) = embedded_engine(&disk).open_shared(LOG, CONFIG).unwrap();
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(log.append_durable(&batch(60, 1, 300), TimestampMs(5)).unwrap().base_offset, Offset(60));
}

/// A log that nothing is appended to holds no descriptor.
#[test]
fn an_idle_log_holds_no_file_open() {
    let (disk, state) = checkpointed();
    let idle = engine(&disk);
    let (mut writer, _) = open(&idle, Some(&state));
    refuse_sealed(&disk, &bases(&disk));
    let (batch, stamp) = entry(61);
    assert!(writer.append(&batch, stamp).is_err(), "its file was opened for the first time by this append");
}

/// A segment of another cluster below the checkpoint: nothing of it is served or changed, the rest is read.
#[test]
fn a_foreign_segment_is_refused_before_a_byte_of_it_is_served() {
    let (disk, state) = checkpointed();
    let (base, next) = (bases(&disk)[1], bases(&disk)[2]);
    let file = disk.storage().open(&segment_path(base), OpenMode::ReadWrite).unwrap();
    let mut header = read_file(&disk, &segment_path(base))[..80].to_vec();
    header[16] ^= 1;
    let crc = crc32c::crc32c(&header[..76]);
    header[76..].copy_from_slice(&crc.to_le_bytes());
    file.write_at(Position::ZERO, &[&header]).unwrap();
    let before = log_files(&disk);
    let engine = engine(&disk);
    let (writer, _) = open(&engine, Some(&state));
    for _ in 0..2 {
        let error = writer.reader().read(Offset(base), 10).unwrap_err();
        assert!(matches!(error, ReadError::Unusable(_)) && error.to_string().starts_with("E0104"), "{error}");
    }
    assert_eq!(found_late(&engine).findings.len(), 1, "told once");
    assert_eq!(
        read_all(&writer.reader(), Offset(next)).unwrap().len(),
        60 - usize::try_from(next / 2).unwrap()
    );
    assert_eq!(log_files(&disk), before);
}

/// A segment of the same log and place, from a history that went another way: only its own range is lost.
#[test]
fn of_two_histories_the_one_that_leads_nowhere_is_not_served() {
    let (disk, state) = checkpointed();
    let (base, next) = (bases(&disk)[1], bases(&disk)[2]);
    let other = formatted(1);
    let elsewhere = engine(&other);
    let (mut writer, _) = open(&elsewhere, None);
    for index in 1..=60 {
        let (_, stamp) = entry(index);
        writer.append(&batch(index + 1_000, 2, 97), stamp).unwrap();
    }
    make_checkpoint(&elsewhere, 60, &writer);
    assert_eq!(bases(&other), bases(&disk), "the same offsets, other records");
    let file = disk.storage().open(&segment_path(base), OpenMode::ReadWrite).unwrap();
    file.truncate(0).unwrap();
    file.write_at(Position::ZERO, &[&read_file(&other, &segment_path(base))]).unwrap();

    let engine = engine(&disk);
    let (writer, _) = open(&engine, Some(&state));
    writer.reader().look_at_all().unwrap();
    assert_eq!(writer.damage(), [Offset(base)..Offset(next)]);
    assert!(found_late(&engine).findings.iter().all(|one| one.seen == Seen::OtherHistory));
}

/// A segment that vanished after the log was opened costs its range; one that was trimmed costs nothing.
#[test]
fn a_segment_that_vanishes_later_costs_its_range() {
    let (disk, state) = checkpointed();
    let (first, second, third) = (bases(&disk)[0], bases(&disk)[1], bases(&disk)[2]);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, Some(&state));
    disk.storage().remove(&segment_path(second)).unwrap();
    writer.reader().look_at_all().unwrap();
    assert_eq!(writer.damage(), [Offset(second)..Offset(third)]);
    assert!(!writer.reader().read(Offset(first), 10).unwrap().batches.is_empty());
    writer.set_log_start(Offset(third)).unwrap();
    assert!(matches!(writer.reader().read(Offset(second), 10), Err(ReadError::OutOfRange { .. })));
    assert_eq!(writer.damage(), []);
}

fn log(number: u32) -> LogId {
    LogId { generation: LOG.generation, partition: Partition(number) }
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<OpenProgress>>);

impl Progress for Told {
    fn opening(&self, at: OpenProgress) {
        self.0.lock().unwrap().push(at);
    }
}

/// Many logs open several at once to what they are one by one, each answered in its place, and whoever
/// watches sees the last of them done.
#[test]
fn logs_open_several_at_once_and_are_told_of() {
    let disk = formatted(1);
    let first = engine(&disk);
    let mut states = Vec::new();
    for number in 0..40 {
        let (mut writer, _) = first.open_log(log(number), CONFIG, None).unwrap();
        append(&mut writer, 1..=u64::from(number) + 1);
        writer.sync_target().run().unwrap();
        states.push(writer.state());
    }
    drop(first);
    for open_threads in [1, 4] {
        let told = std::sync::Arc::new(Told::default());
        let disk = disk.fork();
        disk.crash(Crash::ProcessOnly);
        let options = Options { open_threads, progress: Some(told.clone()), ..options() };
        let engine = Engine::open(disk.storage(), data(), options).unwrap();
        let taken = engine.open_log(log(7), CONFIG, Some(&states[7])).unwrap();
        let wanted: Vec<LogToOpen<'_>> = states
            .iter()
            .zip(0..)
            .map(|(state, number)| LogToOpen { log: log(number), config: CONFIG, state: Some(state) })
            .collect();
        let opened = engine.open_logs(&wanted);
        for (number, (opened, state)) in opened.iter().zip(&states).enumerate() {
            match opened {
                Ok((writer, _)) => assert_eq!(&writer.state(), state),
                Err(error) => assert_eq!((number, error.to_string().contains("E0105")), (7, true), "{error}"),
            }
        }
        let done = engine.open_progress();
        assert_eq!((done.logs_done, done.logs), (41, 41));
        let told = told.0.lock().unwrap();
        assert_eq!(told.len(), 41, "once for each log");
        assert!(told.contains(&done));
        drop(taken);
    }
}

/// The first append to an idle log opens its file. With no descriptor left that was taken for a failed write:
/// the log was fenced until a restart, and one after the other all of them, though nothing had been written.
#[test]
fn without_a_handle_an_append_is_refused_and_done_when_there_is_one() {
    let (disk, state) = checkpointed();
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, Some(&state));
    let none_left = Fault::next(Operation::Open, Failure::NoHandles).on_path(".seg");
    disk.inject(Fault { lasting: Lasting::Always, ..none_left });
    let (batch, stamp) = entry(61);
    for _ in 0..2 {
        let refused = writer.append(&batch, stamp).unwrap_err();
        assert!(matches!(refused, AppendError::OutOfHandles(_)), "{refused}");
    }
    disk.clear_faults();
    // The same where the next segment is made.
    disk.inject(Fault::next(Operation::Create, Failure::NoHandles).on_path(".seg"));
    let mut refused = 0;
    for index in 61..=120 {
        let (batch, stamp) = entry(index);
        if writer.append(&batch, stamp).is_err() {
            refused += 1;
            writer.append(&batch, stamp).unwrap();
        }
    }
    assert_eq!((refused, writer.is_fenced()), (1, false));
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 120);
}

/// The first sync of a new segment opens the log's directory to make the file's name durable. With no descriptor left that
/// was taken for a failed sync: the log was fenced though nothing that was written had failed.
#[test]
fn without_a_handle_a_sync_of_the_directory_is_put_off_and_fences_nothing() {
    let none_left = || Fault::next(Operation::SyncDir, Failure::NoHandles).on_path("logs/7/3");
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=3);
    disk.inject(none_left());
    let put_off = writer.sync_target().run().unwrap_err();
    assert!(put_off.will_pass() && put_off.to_string().starts_with("E0134"), "{put_off}");
    assert_eq!((writer.is_fenced(), writer.reader().durable_end()), (false, Offset(0)));
    append(&mut writer, 4..=5);
    writer.sync_target().run().unwrap();
    assert_eq!(writer.reader().durable_end(), Offset(10));
    // Embedded: an append that is answered so, the end of a segment, and a purge.
    let disk = formatted(1);
    let (log, _) = shared(&disk);
    disk.inject(none_left());
    let put_off = log.append_durable(&batch(1, 1, 2_000), NOW).unwrap_err();
    assert!(matches!(put_off, EmbeddedError::Sync(SyncError::NotYet { .. })), "{put_off}");
    log.append(&batch(2, 1, 1_000), NOW).unwrap();
    disk.inject(none_left());
    let refused = log.append_durable(&batch(3, 1, 3_000), NOW).unwrap_err();
    assert!(matches!(refused, EmbeddedError::Append(AppendError::OutOfHandles(_))), "{refused}");
    assert_eq!(log.append_durable(&batch(3, 1, 3_000), NOW).unwrap().base_offset, Offset(2));
    disk.inject(none_left());
    let refused = log.trim(Offset(3)).unwrap_err();
    assert!(matches!(refused, EmbeddedError::Log(LogError::OutOfHandles(_))), "{refused}");
    assert_eq!(log.reader().start(), Offset(0));
    log.trim(Offset(3)).unwrap();
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let (log, recovery) = shared(&disk);
    assert_eq!((log.reader().start(), log.reader().end(), recovery.damage), (Offset(3), Offset(3), vec![]));
}
