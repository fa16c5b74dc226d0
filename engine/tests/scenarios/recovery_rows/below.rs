//! What lies below the mark was promised: it costs its range at most, and the log stays up.

use tidelog_engine::log::ReadError;
use tidelog_engine::sim_disk::{Crash, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{Offset, TimestampMs};

use super::{
    Reopened, Rows, bases, crashed, only_range, pieces, read_around, refuse, reopen, rewrite_footer,
    rewrite_header, shift_last_offset,
};
use crate::world::{append, batch, embedded_engine, formatted, log_files, segment_path, shared};

/// Everything but `lost` can be read, and the log takes appends.
fn lost_only(mut log: Reopened, lost: std::ops::Range<u64>) -> Rows {
    append(&mut log.writer, 61..=62);
    let (offsets, errors) = read_around(&log.reader());
    let expected = (0..124).filter(|offset| !lost.contains(offset)).collect();
    assert_eq!(offsets, expected);
    if lost.is_empty() {
        assert!(errors.is_empty(), "{errors:?}");
    } else {
        assert_eq!(only_range(&errors), Offset(lost.start)..Offset(lost.end));
    }
    log.rows()
}

/// Base of the second segment and of its successor: both below the mark.
fn second(disk: &SimDisk) -> (u64, u64) {
    (bases(disk)[1], bases(disk)[2])
}

pub(super) fn end_below() -> Rows {
    let (disk, state) = crashed(60, 60);
    let active = state.active_base.get();
    let file = disk.storage().open(&segment_path(active), OpenMode::ReadWrite).unwrap();
    file.truncate(state.active_position.get() - 10).unwrap();
    lost_only(reopen(&disk, &state), 118..120)
}

/// Embedded, a frame says how far the file was synced before it: what is broken below that was promised.
pub(super) fn broken_below() -> Rows {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..3 {
        log.append_durable(&batch(number, 2, 10), TimestampMs(5)).unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    disk.flip_bit(&segment_path(0), Position(80 + 48 + 70), 2).unwrap();
    let (log, recovery) = shared(&disk);
    let (offsets, errors) = read_around(&log.reader());
    assert_eq!(offsets, (2..6).collect());
    assert_eq!(only_range(&errors), Offset(0)..Offset(2));
    assert_eq!(log.append_durable(&batch(9, 1, 10), TimestampMs(5)).unwrap().base_offset, Offset(6));
    assert_eq!(pieces(&disk), 0, "what was promised is never moved");
    recovery.rows.into_keys().collect()
}

/// The disk refuses a whole file: its range is named with file and error, nothing is changed or marked for
/// good, and as soon as the disk gives it again it is read.
pub(super) fn unreadable_below() -> Rows {
    let (disk, state) = crashed(60, 60);
    let before = log_files(&disk);
    let (base, next) = second(&disk);
    refuse(&disk, Operation::Open, &format!("/{base:020}.seg"));
    let log = reopen(&disk, &state);
    let (offsets, errors) = read_around(&log.reader());
    assert_eq!(offsets.len(), 120 - usize::try_from(next - base).unwrap());
    match errors.as_slice() {
        [ReadError::Unreadable { range, path, .. }] => {
            assert_eq!((range.clone(), path), (Offset(base)..Offset(next), &segment_path(base)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(log.writer.damage(), [], "it may pass");
    let rows = log.rows();
    disk.clear_faults();
    assert_eq!(log_files(&disk), before);
    drop(log);
    lost_only(reopen(&disk, &state), 0..0);
    rows
}

pub(super) fn empty_below() -> Rows {
    let (disk, state) = crashed(60, 60);
    let (base, next) = second(&disk);
    disk.storage().open(&segment_path(base), OpenMode::ReadWrite).unwrap().truncate(0).unwrap();
    lost_only(reopen(&disk, &state), base..next)
}

/// The footer is written again, to the same bytes; what stood there instead is kept.
pub(super) fn no_footer_below() -> Rows {
    let (disk, state) = crashed(60, 60);
    let before = log_files(&disk);
    let len = u64::try_from(before[1].1.0.len()).unwrap();
    disk.flip_bit(&before[1].0, Position(len - 10), 0).unwrap();
    let log = reopen(&disk, &state);
    read_around(&log.reader());
    assert_eq!(log_files(&disk), before);
    assert_eq!(pieces(&disk), 1);
    lost_only(log, 0..0)
}

pub(super) fn footer_contradicts_below() -> Rows {
    let (disk, state) = crashed(60, 60);
    rewrite_footer(&disk, &segment_path(second(&disk).0), |footer| shift_last_offset(footer, 5));
    let before = log_files(&disk);
    let log = reopen(&disk, &state);
    read_around(&log.reader());
    assert_eq!(log_files(&disk), before, "nothing is changed");
    lost_only(log, 0..0)
}

/// A segment in the middle is gone: the one before it ends before the one behind it begins. A footer that
/// says less than is there is the same.
pub(super) fn footer_short() -> Rows {
    let (disk, state) = crashed(60, 60);
    let (base, next) = second(&disk);
    disk.storage().remove(&segment_path(base)).unwrap();
    let rows = lost_only(reopen(&disk, &state), base..next);

    let (disk, state) = crashed(60, 60);
    rewrite_footer(&disk, &segment_path(base), |footer| shift_last_offset(footer, -2));
    let log = reopen(&disk, &state);
    lost_only(log, next - 2..next);
    rows
}

pub(super) fn broken_header_below() -> Rows {
    let (disk, state) = crashed(60, 60);
    disk.flip_bit(&segment_path(second(&disk).0), Position(20), 1).unwrap();
    lost_only(reopen(&disk, &state), 0..0)
}

pub(super) fn other_history_below() -> Rows {
    let (disk, state) = crashed(60, 60);
    let (base, next) = second(&disk);
    rewrite_header(&disk, &segment_path(base), |header| header[48] ^= 1);
    lost_only(reopen(&disk, &state), base..next)
}

/// The first segment is gone, or the one that was active at the checkpoint.
pub(super) fn missing() -> Rows {
    let (disk, state) = crashed(60, 60);
    let (base, _) = second(&disk);
    disk.storage().remove(&segment_path(0)).unwrap();
    lost_only(reopen(&disk, &state), 0..base);

    let (disk, state) = crashed(60, 60);
    disk.storage().remove(&segment_path(state.active_base.get())).unwrap();
    lost_only(reopen(&disk, &state), state.active_base.get()..120)
}

/// A trim that was durable before its segments were unlinked: they go now.
pub(super) fn trimmed() -> Rows {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..60 {
        log.append_durable(&batch(number, 1, 300), TimestampMs(5)).unwrap();
    }
    let kept = disk.fork();
    let to = bases(&disk)[2];
    for _ in 0..2 {
        log.trim(Offset(to)).unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    // The files that the trim unlinked are back, as after a crash that lost the unlinking.
    for base in bases(&kept).into_iter().filter(|base| *base < to) {
        let file = disk.storage().open(&segment_path(base), OpenMode::CreateNew).unwrap();
        file.write_at(Position::ZERO, &[&crate::world::read_file(&kept, &segment_path(base))]).unwrap();
    }
    let engine = embedded_engine(&disk);
    let (log, recovery) = engine.open_shared(crate::world::LOG, crate::world::CONFIG).unwrap();
    assert_eq!(recovery.trimmed, 2);
    assert_eq!(bases(&disk).first(), Some(&to));
    assert_eq!(read_around(&log.reader()).1.len(), 0);
    recovery.rows.into_keys().collect()
}
