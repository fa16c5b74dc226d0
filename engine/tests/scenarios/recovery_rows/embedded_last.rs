//! The last segment of an embedded log: nothing else has what is in it.

use tidelog_engine::embedded::{EmbeddedError, SharedLog};
use tidelog_engine::log::AppendError;
use tidelog_engine::sim_disk::{Crash, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{LogId, Offset, Partition, TimestampMs};

use super::{Rows, bases, pieces, read_around, refuse, rewrite, rewrite_header};
use crate::world::{
    CONFIG, LOG, batch, embedded_engine, formatted, log_files, read_file, segment_path, shared,
};

const NOW: TimestampMs = TimestampMs(5);

/// Sixty batches in several segments; the process has died.
fn stopped() -> SimDisk {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..60 {
        log.append_durable(&batch(number, 1, 300), NOW).unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    disk
}

/// The log serves what lies below `end` and hands out no offset.
fn is_read_only(log: &SharedLog, end: u64) {
    assert_eq!(log.reader().end(), Offset(end));
    let (offsets, errors) = read_around(&log.reader());
    assert_eq!((offsets, errors.len()), ((0..end).collect(), 0));
    let refused = log.append_durable(&batch(1, 1, 1), NOW).unwrap_err();
    assert!(matches!(refused, EmbeddedError::Append(AppendError::Fenced { .. })), "{refused}");
}

/// The disk refuses the end of the log, which may have been acknowledged. Nothing is cut, no offset is handed
/// out twice, and as soon as the disk gives it again the log goes on.
pub(super) fn unreadable_above_embedded() -> Rows {
    let disk = stopped();
    let before = log_files(&disk);
    let last = *bases(&disk).last().unwrap();
    let mut rows = Rows::new();
    for operation in [Operation::Open, Operation::Read] {
        refuse(&disk, operation, &format!("/{last:020}.seg"));
        let (log, recovery) = shared(&disk);
        is_read_only(&log, last);
        assert_eq!(recovery.read_only, Some(segment_path(last)));
        rows.extend(recovery.rows.keys());
        drop(log);
        disk.crash(Crash::ProcessOnly);
        assert_eq!((log_files(&disk), pieces(&disk)), (before.clone(), 0));
    }
    let (log, recovery) = shared(&disk);
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(log.append_durable(&batch(60, 1, 1), NOW).unwrap().base_offset, Offset(60));
    rows
}

/// The last segment is valid and belongs to another history than what lies before it, as after a restore
/// from two backups: which is right, a person must say.
pub(super) fn other_history_above_embedded() -> Rows {
    let disk = stopped();
    let last = *bases(&disk).last().unwrap();
    rewrite_header(&disk, &segment_path(last), |header| header[48] ^= 1);
    let before = log_files(&disk);
    let (log, recovery) = shared(&disk);
    is_read_only(&log, last);
    assert_eq!(log_files(&disk), before);
    recovery.rows.into_keys().collect()
}

/// A copy of another segment lies where the last one was, and nothing of that one is left. It was moved to quarantine as
/// misplaced, without a range and without a word, and the offsets of what had been acknowledged in it were handed out again.
pub(super) fn replaced() -> Rows {
    let disk = stopped();
    let first = read_file(&disk, &segment_path(0));
    let last = *bases(&disk).last().unwrap();
    rewrite(&disk, &segment_path(last), |bytes| *bytes = first.clone());
    let before = log_files(&disk);
    let (log, recovery) = shared(&disk);
    is_read_only(&log, last);
    assert_eq!((log_files(&disk), recovery.read_only), (before, Some(segment_path(last))));
    drop(log);
    disk.crash(Crash::ProcessOnly);
    // Where the log cannot have a segment such a copy says nothing.
    let moved = disk.storage();
    moved.remove(&segment_path(last)).unwrap();
    let stray = moved.open(&segment_path(1_000), OpenMode::CreateNew).unwrap();
    stray.write_at(Position::ZERO, &[&first]).unwrap();
    let (log, strayed) = shared(&disk);
    assert_eq!((strayed.read_only, strayed.damage, pieces(&disk)), (None, vec![], 1));
    assert_eq!(log.append_durable(&batch(1, 1, 1), NOW).unwrap().base_offset, Offset(last));
    recovery.rows.into_keys().collect()
}

/// What another log wrote went to the first bytes of the last segment. The whole file was moved away for its header's sake,
/// and the offsets of the acknowledged frames behind it were handed out again.
#[test]
fn a_header_of_another_log_over_the_last_segment_costs_what_it_covers() {
    for covered in [80, 200] {
        let disk = formatted(7);
        let (log, _) = shared(&disk);
        let count = 8;
        // One group, as far as the frames say: no frame witnesses another.
        for number in 0..count {
            log.append(&batch(number, 1, 100), NOW).unwrap();
        }
        log.sync().unwrap();
        drop(log);
        let engine = embedded_engine(&disk);
        let other = LogId { partition: Partition(4), ..LOG };
        let (log, _) = engine.open_shared(other, CONFIG).unwrap();
        log.append_durable(&batch(9, 1, 100), NOW).unwrap();
        drop((log, engine));
        disk.crash(Crash::ProcessOnly);
        let theirs = segment_path(0).to_str().unwrap().replace("/7/3/", "/7/4/");
        let theirs = read_file(&disk, std::path::Path::new(&theirs));
        rewrite(&disk, &segment_path(0), |bytes| bytes[..covered].copy_from_slice(&theirs[..covered]));
        let (log, recovery) = shared(&disk);
        let lost = u64::from(covered > 80);
        assert_eq!(recovery.damage.iter().map(|range| range.end.get()).sum::<u64>(), lost);
        let (offsets, errors) = read_around(&log.reader());
        assert_eq!((offsets, errors.len()), ((lost..count).collect(), recovery.damage.len()));
        assert_eq!(log.append_durable(&batch(10, 1, 1), NOW).unwrap().base_offset, Offset(count));
    }
}
