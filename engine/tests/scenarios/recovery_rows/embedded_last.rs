//! The last segment of an embedded log: nothing else has what is in it.

use tidelog_engine::embedded::{EmbeddedError, SharedLog};
use tidelog_engine::log::AppendError;
use tidelog_engine::sim_disk::{Crash, Operation, SimDisk};
use tidelog_wire::ids::{Offset, TimestampMs};

use super::{Rows, bases, pieces, read_around, refuse, rewrite_header};
use crate::world::{batch, formatted, log_files, segment_path, shared};

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
