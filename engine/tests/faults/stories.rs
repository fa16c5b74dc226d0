//! What enumerating the call sites found, and faults that need a story of their own.

use std::path::Path;

use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint, Members};
use tidelog_engine::embedded::{EmbeddedError, SharedLog};
use tidelog_engine::log::{AppendError, AppendStamp, LogWriter, ReadError};
use tidelog_engine::producers::ProducerTable;
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Lasting, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_engine::{Engine, Options};
use tidelog_wire::ids::{
    Generation, GroupId, LeaderEpoch, LogId, Offset, Partition, RaftIndex, Term, TimestampMs,
};

use crate::world::{
    CONFIG, NOW, RESERVE_BYTES, VICTIM, batch, data, formatted, log_dir, new_identity, segment_path,
    try_engine,
};

fn shared(disk: &SimDisk) -> SharedLog {
    let engine = try_engine(disk, Options::embedded(NOW)).unwrap();
    engine.open_shared(VICTIM, CONFIG).unwrap().0
}

fn append(log: &SharedLog, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.append_durable(&batch(number), NOW).unwrap();
    }
}

/// How many records can be read, and where what cannot be read begins and ends.
fn readable(log: &SharedLog) -> (u64, Vec<(u64, u64)>) {
    let reader = log.reader();
    let (mut at, mut count, mut lost) = (reader.start(), 0, Vec::new());
    while at < reader.end() {
        match reader.read(at, 2_000) {
            Ok(read) => {
                count += read.next.get() - at.get();
                at = read.next;
            }
            Err(ReadError::Damaged { range, .. } | ReadError::Unreadable { range, .. }) => {
                lost.push((at.get(), range.end.get()));
                at = range.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
    (count, lost)
}

/// A formatting failed when it synced the directory above, and said so. The next start found a whole
/// identity and went on; a power cut took the directory with everything that was acknowledged in it.
#[test]
fn a_start_makes_durable_the_name_that_a_failed_formatting_left() {
    let disk = SimDisk::new(1);
    let mut fault = Fault::next(Operation::SyncDir, Failure::Io);
    fault.after = 4;
    disk.inject(fault);
    assert!(Engine::format(&disk.storage(), data(), new_identity()).is_err());
    let log = shared(&disk);
    append(&log, 0..1);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(readable(&shared(&disk)).0, 1);
}

/// A segment could not be created, so the log was fenced and opened again. Its last segment was sealed,
/// and recovery added the epoch that it ends in although the checkpoint of a trim knew it already. The next
/// trim wrote a checkpoint that no start could read.
#[test]
fn the_start_of_a_log_that_was_opened_again_behind_a_sealed_segment_is_kept() {
    let disk = formatted();
    let log = shared(&disk);
    append(&log, 0..6);
    log.trim(Offset(2)).unwrap();
    disk.inject(Fault::next(Operation::Create, Failure::Io).on_path(".seg"));
    assert!((6..40).any(|number| log.append_durable(&batch(number), NOW).is_err()));
    drop(log);
    let log = shared(&disk);
    log.trim(Offset(7)).unwrap();
    drop(log);
    assert_eq!(shared(&disk).reader().start(), Offset(7));
}

/// A sync of a log's directory failed for want of room while a segment ended, which was told as a full disk and tried again
/// with the next append. A failed sync may have dropped the name of the file it was to keep, and the next one says nothing
/// of that.
#[test]
fn a_directory_sync_that_fails_for_want_of_room_fences() {
    let disk = formatted();
    let log = shared(&disk);
    for number in 0..3 {
        log.append(&batch(number), NOW).unwrap();
    }
    disk.inject(Fault::next(Operation::SyncDir, Failure::NoSpace).on_path("logs"));
    let refused = (3..40).find_map(|number| log.append(&batch(number), NOW).err());
    assert!(matches!(refused, Some(EmbeddedError::Append(AppendError::Io { .. }))), "{refused:?}");
    let after = log.append(&batch(40), NOW).unwrap_err().to_string();
    assert!(after.starts_with("E0107"), "{after}");
}

/// Zeros where a frame should be were taken for the end of the frames, so one zeroed sector cost all that
/// lay behind it in its segment.
#[test]
fn a_zeroed_sector_costs_only_the_batches_in_it() {
    let disk = formatted();
    let log = shared(&disk);
    append(&log, 0..40);
    let whole = readable(&log).0;
    drop(log);
    let file = disk.storage().open(&segment_path(VICTIM, 0), OpenMode::ReadWrite).unwrap();
    file.write_at(Position(512), &[&[0; 512]]).unwrap();
    file.sync().unwrap();
    drop(file);
    let (count, lost) = readable(&shared(&disk));
    let gone: u64 = lost.iter().map(|(from, to)| to - from).sum();
    assert_eq!(count + gone, whole);
    assert!((1..=4).contains(&gone), "{lost:?}");
}

/// The disk refused a segment once. A trim meanwhile recorded its range as damaged, and so it stayed,
/// though the disk gave every byte again.
#[test]
fn what_the_disk_refused_once_is_read_after_it_gives_again() {
    let disk = formatted();
    let log = shared(&disk);
    append(&log, 0..40);
    log.idle().unwrap();
    let whole = readable(&log).0;
    drop(log);
    disk.inject(
        Fault::next(Operation::Open, Failure::Io).on_path(&segment_path(VICTIM, 0).to_string_lossy()),
    );
    let log = shared(&disk);
    log.trim(Offset(1)).unwrap();
    drop(log);
    disk.clear_faults();
    assert_eq!(readable(&shared(&disk)), (whole - 1, vec![]));
}

/// A sector goes bad: exactly the batches in it are refused, their neighbours are read.
#[test]
fn a_bad_sector_costs_only_the_batches_in_it() {
    let disk = formatted();
    let log = shared(&disk);
    append(&log, 0..60);
    let whole = readable(&log).0;
    let path = segment_path(VICTIM, 0);
    disk.spoil(&path, 1_024..1_536).unwrap();
    let (count, lost) = readable(&log);
    assert!(count < whole && lost.len() == 1, "{count} of {whole}, {lost:?}");
    assert!(lost[0].1 - lost[0].0 <= 12, "the block that the sector lies in: {lost:?}");
}

/// A whole group was reported as synced and never reached the disk. Frames behind it say that it was
/// durable, so its range is named; what lies behind it is read.
#[test]
fn a_lost_group_is_named_when_a_later_frame_witnesses_it() {
    let disk = formatted();
    let log = shared(&disk);
    append(&log, 0..2);
    let from = log.reader().end().get();
    disk.inject(Fault::next(Operation::Write, Failure::Lost).on_path(".seg"));
    append(&log, 2..3);
    let to = log.reader().end().get();
    // Else the next write to the same page would bring the lost one along.
    disk.drop_caches();
    append(&log, 3..4);
    let whole = log.reader().end().get();
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(readable(&shared(&disk)), (whole - (to - from), vec![(from, to)]));
}

/// The documented window: the last group before a crash under load has no witness yet, so its loss looks
/// like a torn tail. A mark, written when the log is idle or left, closes it.
#[test]
fn the_last_lost_group_is_named_only_behind_a_mark() {
    for marked in [false, true] {
        let disk = formatted();
        let log = shared(&disk);
        append(&log, 0..2);
        let end = log.reader().end().get();
        disk.inject(Fault::next(Operation::Write, Failure::Lost).on_path(".seg"));
        append(&log, 2..3);
        let lost = (end, log.reader().end().get());
        disk.drop_caches();
        if marked {
            log.idle().unwrap();
        }
        drop(log);
        disk.crash(Crash::LoseUnsynced);
        let found = readable(&shared(&disk));
        assert_eq!(found, (end, if marked { vec![lost] } else { vec![] }), "marked: {marked}");
    }
}

/// Writes of other files land on the header or the footer of a sealed segment: the frames verify by
/// themselves and the seal follows from them, so nothing is lost.
#[test]
fn a_header_or_a_footer_written_over_costs_nothing() {
    for from_end in [None, Some(20), Some(60)] {
        let disk = formatted();
        let log = shared(&disk);
        append(&log, 0..40);
        log.idle().unwrap();
        let whole = readable(&log).0;
        drop(log);
        let path = segment_path(VICTIM, 0);
        let file = disk.storage().open(&path, OpenMode::ReadWrite).unwrap();
        let at = from_end.map_or(0, |bytes| file.len().unwrap() - bytes);
        file.write_at(Position(at), &[&[0x5a; 20]]).unwrap();
        file.sync().unwrap();
        drop(file);
        assert_eq!(readable(&shared(&disk)), (whole, vec![]), "{from_end:?}");
    }
}

fn entry(writer: &mut LogWriter, index: u64) {
    let stamp = AppendStamp {
        raft_index: RaftIndex(index),
        append_time: TimestampMs(5),
        leader_epoch: LeaderEpoch(1),
    };
    writer.append(&batch(index), stamp).unwrap();
}

fn checkpoint(writer: &LogWriter, index: u64) -> Checkpoint {
    let entry = EntryId { index: RaftIndex(index), term: Term(1) };
    let log = LogCheckpoint {
        log: VICTIM,
        config: CONFIG,
        state: writer.state(),
        producers: ProducerTable::new(),
        damage: vec![],
        closed: false,
    };
    Checkpoint {
        group: GroupId(1),
        applied: entry,
        last_durable: entry,
        apply_version: 1,
        members: Members::default(),
        logs: vec![log],
        state: bytes::Bytes::new(),
    }
}

/// A checkpoint had its new name, then the sync of the directory failed. Whoever wrote it let go of what it
/// names, a trim unlinked that, and the next start found the checkpoint and holes where it pointed.
#[test]
fn a_checkpoint_that_failed_behind_its_rename_keeps_what_it_names() {
    let disk = formatted();
    let engine = try_engine(&disk, Options::consensus(NOW)).unwrap();
    let (mut writer, _) = engine.open_log(VICTIM, CONFIG, None).unwrap();
    for index in 1..=30 {
        entry(&mut writer, index);
        if index == 5 || index == 6 {
            writer.sync_target().run().unwrap();
            engine.write_checkpoint(&checkpoint(&writer, index)).unwrap();
        }
    }
    writer.sync_target().run().unwrap();
    let failing = checkpoint(&writer, 30);
    let pin = engine.pin_checkpoint(&failing);
    let mut fault = Fault::next(Operation::SyncDir, Failure::Io).on_path("checkpoints/1");
    fault.after = 0;
    disk.inject(fault);
    assert!(engine.write_checkpoint(&failing).is_err());
    drop(pin);
    writer.set_log_start(writer.state().end).unwrap();
    drop((writer, engine));
    disk.crash(Crash::ProcessOnly);
    let engine = try_engine(&disk, Options::consensus(NOW)).unwrap();
    let newest = engine.load_checkpoint(GroupId(1)).unwrap().unwrap().newest;
    assert_eq!(newest.applied.index, RaftIndex(30), "it got its name");
    let (_, recovery) = engine.open_log(VICTIM, CONFIG, Some(&newest.logs[0].state)).unwrap();
    assert_eq!(recovery.damage, []);
}

/// The directory of a generation was removed when its last file went, while another log of it was about to
/// make its own directory in there.
#[test]
fn the_directory_of_a_generation_stays_while_one_of_its_logs_is_open() {
    let disk = formatted();
    let engine = try_engine(&disk, Options::consensus(NOW)).unwrap();
    let log = |partition| LogId { generation: Generation(7), partition: Partition(partition) };
    let (_waiting, _) = engine.open_log(log(0), CONFIG, None).unwrap();
    let (mut gone, _) = engine.open_log(log(1), CONFIG, None).unwrap();
    entry(&mut gone, 1);
    drop(gone);
    engine.remove_log(log(1)).unwrap();
    assert!(disk.storage().list(&log_dir(log(1))).is_err());
    assert!(disk.storage().list(&data().join("logs/7")).is_ok());
}

fn reserve() -> &'static Path {
    Path::new("/data/reserve")
}

/// A crash left a reserve of the full length that took no room, and it was believed: given away on a full
/// disk, it gave nothing.
#[test]
fn a_reserve_is_believed_only_by_its_mark() {
    let disk = formatted();
    let file = disk.storage().open(reserve(), OpenMode::CreateNew).unwrap();
    file.truncate(RESERVE_BYTES).unwrap();
    drop(file);
    disk.set_free_bytes(RESERVE_BYTES);
    let engine = try_engine(&disk, Options::embedded(NOW)).unwrap();
    assert!(!engine.room().reserve_held && engine.room().refuses_writes);
    disk.set_free_bytes(10 * RESERVE_BYTES);
    assert!(engine.room().reserve_held && !engine.room().refuses_writes);
}

/// Whatever a crash leaves of a reserve that is being taken, the next start takes it whole.
#[test]
fn a_crash_while_the_reserve_is_taken_heals() {
    for stop in 0..24 {
        let disk = formatted();
        disk.stop_at(disk.changes() + stop);
        drop(try_engine(&disk, Options::embedded(NOW)));
        disk.crash(Crash::PowerCut { seed: stop });
        let engine = try_engine(&disk, Options::embedded(NOW)).unwrap();
        assert!(engine.room().reserve_held, "stopped after {stop} changes");
        assert_eq!(disk.storage().open(reserve(), OpenMode::Read).unwrap().len().unwrap(), RESERVE_BYTES);
    }
}

/// The disk is full to the last byte: a checkpoint is written and a segment begun with the room of the
/// reserve, new appends are refused, reads and trims go on, and with room writes resume by themselves.
#[test]
fn a_full_disk_can_be_checkpointed_and_left_again() {
    let disk = formatted();
    let engine = try_engine(&disk, Options::consensus(NOW)).unwrap();
    let (mut writer, _) = engine.open_log(VICTIM, CONFIG, None).unwrap();
    (1..=30).for_each(|index| entry(&mut writer, index));
    writer.sync_target().run().unwrap();
    disk.set_free_bytes(0);
    engine.write_checkpoint(&checkpoint(&writer, 30)).unwrap();
    assert!(engine.room().refuses_writes && !engine.room().reserve_held);
    assert!(!writer.reader().read(Offset::ZERO, 10_000).unwrap().batches.is_empty());
    writer.set_log_start(Offset(20)).unwrap();
    disk.set_free_bytes(1 << 30);
    assert!(engine.room().reserve_held && !engine.room().refuses_writes);
    disk.inject(Fault {
        lasting: Lasting::Once,
        ..Fault::next(Operation::Create, Failure::NoSpace).on_path(".seg")
    });
    (31..=60).for_each(|index| entry(&mut writer, index));
}

/// The disk refused all frames of the last segment, which a checkpoint knew. Since no frame was found the
/// file was taken for one that was begun and never filled: it left the log, and did not come back when the
/// disk gave every byte again.
#[test]
fn a_last_segment_that_is_refused_for_a_while_is_kept() {
    let disk = formatted();
    let log = shared(&disk);
    append(&log, 0..14);
    log.trim(Offset(1)).unwrap();
    append(&log, 14..15);
    log.idle().unwrap();
    let whole = readable(&log);
    drop(log);
    let last = disk.files().into_iter().rfind(|path| path.starts_with(log_dir(VICTIM))).unwrap();
    for after in 0..6 {
        let disk = disk.fork();
        let fault = Fault::next(Operation::Read, Failure::Io).on_path(&last.to_string_lossy());
        disk.inject(Fault { after, lasting: Lasting::Always, ..fault });
        let log = shared(&disk);
        assert!(log.reader().end().get() <= whole.0 + 1);
        drop(log);
        disk.clear_faults();
        let log = shared(&disk);
        assert_eq!(readable(&log), whole, "refused from read {after} on");
        append(&log, 20..21);
    }
}
