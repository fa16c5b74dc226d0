//! What lies above the mark: nobody was promised it, and under consensus the raft log writes it again.

use tidelog_engine::sim_disk::{Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};

use super::{
    Reopened, Rows, bases, crashed, pieces, read_around, refuse, reopen, rewrite_footer, rewrite_header,
    shift_last_offset,
};
use crate::world::{append, log_files, segment_path};

/// After the entries are applied again the files are those of a log that was never touched.
fn heals(mut log: Reopened, disk: &SimDisk, from: u64, last: u64) -> Rows {
    append(&mut log.writer, from..=last);
    let (untouched, _) = crashed(last, last);
    assert_eq!(log_files(disk), log_files(&untouched));
    let (offsets, errors) = read_around(&log.reader());
    assert_eq!((offsets.len(), errors.len()), (usize::try_from(2 * last).unwrap(), 0));
    log.rows()
}

pub(super) fn valid() -> Rows {
    let (disk, state) = crashed(3, 60);
    let log = reopen(&disk, &state);
    assert_eq!((log.recovery.kept_frames, pieces(&disk)), (57, 0));
    heals(log, &disk, 4, 60)
}

pub(super) fn end_above() -> Rows {
    let (disk, state) = crashed(3, 5);
    let log = reopen(&disk, &state);
    assert_eq!((log.recovery.kept_frames, log.recovery.cut_bytes), (2, 0));
    heals(log, &disk, 4, 5)
}

pub(super) fn no_footer_above() -> Rows {
    let (disk, state) = crashed(3, 5);
    heals(reopen(&disk, &state), &disk, 4, 5)
}

pub(super) fn broken_above() -> Rows {
    let (disk, state) = crashed(3, 8);
    disk.flip_bit(&segment_path(0), Position(state.active_position.get() + 400), 1).unwrap();
    let log = reopen(&disk, &state);
    assert_eq!((log.recovery.kept_frames, pieces(&disk)), (1, 1));
    assert_eq!(log.recovery.cut_bytes, log.recovery.set_aside_bytes);
    heals(log, &disk, 4, 8)
}

/// A bad sector in the tail is cut like any torn byte, the copy filled where it was. A file that does not
/// even open is moved as a whole, unread.
pub(super) fn unreadable_above_consensus() -> Rows {
    let (disk, state) = crashed(3, 8);
    let from = state.active_position.get() + 400;
    disk.spoil(&segment_path(0), from..from + 1).unwrap();
    let log = reopen(&disk, &state);
    assert_eq!(pieces(&disk), 1);
    let finding = log.recovery.findings.first().unwrap();
    assert!(finding.error.is_some(), "{finding:?}");
    heals(log, &disk, 4, 8);

    let (disk, state) = crashed(3, 60);
    let second = bases(&disk)[1];
    refuse(&disk, Operation::Open, &format!("/{second:020}.seg"));
    let log = reopen(&disk, &state);
    assert!(!disk.files().contains(&segment_path(second)));
    disk.clear_faults();
    heals(log, &disk, 4, 60)
}

pub(super) fn empty_above() -> Rows {
    let (disk, state) = crashed(3, 60);
    disk.storage().open(&segment_path(bases(&disk)[1]), OpenMode::ReadWrite).unwrap().truncate(0).unwrap();
    let log = reopen(&disk, &state);
    assert_eq!(bases(&disk), [0]);
    heals(log, &disk, 4, 60)
}

pub(super) fn footer_contradicts_above() -> Rows {
    let (disk, state) = crashed(3, 60);
    rewrite_footer(&disk, &segment_path(bases(&disk)[1]), |footer| shift_last_offset(footer, 5));
    let log = reopen(&disk, &state);
    assert_eq!(bases(&disk).len(), 2, "what lies behind the cut is set aside");
    heals(log, &disk, 4, 60)
}

pub(super) fn broken_header_above() -> Rows {
    let (disk, state) = crashed(3, 60);
    disk.flip_bit(&segment_path(bases(&disk)[1]), Position(20), 1).unwrap();
    let log = reopen(&disk, &state);
    assert_eq!(bases(&disk), [0]);
    heals(log, &disk, 4, 60)
}

pub(super) fn other_history_above_consensus() -> Rows {
    let (disk, state) = crashed(3, 60);
    rewrite_header(&disk, &segment_path(bases(&disk)[1]), |header| header[48] ^= 1);
    let log = reopen(&disk, &state);
    assert_eq!(bases(&disk), [0]);
    heals(log, &disk, 4, 60)
}

pub(super) fn beyond_cut() -> Rows {
    let (disk, state) = crashed(3, 60);
    let files = bases(&disk).len();
    disk.flip_bit(&segment_path(0), Position(state.active_position.get() + 400), 1).unwrap();
    let log = reopen(&disk, &state);
    assert_eq!(bases(&disk), [0]);
    assert_eq!(pieces(&disk), files, "each file behind, and the tail that was cut");
    heals(log, &disk, 4, 60)
}
