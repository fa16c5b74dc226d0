//! Files that do not belong here, and those that nobody may touch.

use tidelog_engine::checkpoint::LogState;
use tidelog_engine::log::LogError;
use tidelog_engine::sim_disk::{Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::Offset;

use super::{
    Rows, bases, crashed, pieces, read_around, refuse, refused, reopen, rewrite, rewrite_footer,
    rewrite_header,
};
use crate::world::{append, log_files, read_file, segment_path};

/// A file and a directory that no engine made: moved away whole, and named.
pub(super) fn unknown_name() -> Rows {
    let (disk, state) = crashed(5, 5);
    let storage = disk.storage();
    storage.open(&segment_path(0).with_file_name("notes.txt"), OpenMode::CreateNew).unwrap();
    let dir = segment_path(0).with_file_name("old");
    storage.create_dir(&dir).unwrap();
    storage.open(&dir.join("inside"), OpenMode::CreateNew).unwrap();
    let log = reopen(&disk, &state);
    assert_eq!(log.recovery.set_aside.len(), 2);
    assert_eq!(bases(&disk), [0]);
    assert_eq!(read_around(&log.reader()).0.len(), 10);
    log.rows()
}

/// A copy of another segment under a name that is not its own.
pub(super) fn misplaced() -> Rows {
    let (disk, state) = crashed(3, 60);
    let first = read_file(&disk, &segment_path(0));
    rewrite(&disk, &segment_path(bases(&disk)[1]), |bytes| *bytes = first);
    let mut log = reopen(&disk, &state);
    assert_eq!(bases(&disk), [0]);
    append(&mut log.writer, 4..=60);
    assert_eq!(read_around(&log.reader()).0.len(), 120);
    log.rows()
}

/// Somebody left copies of a segment under names that lie within it. The offsets behind them are not lost,
/// and a trim to between them unlinks no segment that holds what is kept.
pub(super) fn covered() -> Rows {
    let strays = |disk: &SimDisk| {
        let first = read_file(disk, &segment_path(0));
        for base in [3, 5] {
            let copy = disk.storage().open(&segment_path(base), OpenMode::CreateNew).unwrap();
            copy.write_at(Position::ZERO, &[&first]).unwrap();
        }
    };
    let (disk, state) = crashed(60, 60);
    strays(&disk);
    let log = reopen(&disk, &state);
    let (offsets, errors) = read_around(&log.reader());
    assert_eq!((offsets.len(), errors.len(), pieces(&disk)), (120, 0, 2));
    let rows = log.rows();

    // The log start lies behind both names, and the first segment holds it.
    for start in [Offset(0), Offset(6)] {
        let (disk, state) = crashed(60, 60);
        strays(&disk);
        let mut log = reopen(&disk, &LogState { start, ..state });
        log.writer.set_log_start(Offset(6)).unwrap();
        let (offsets, errors) = read_around(&log.reader());
        assert_eq!((offsets.len(), errors.len()), (114, 0));
    }
    rows
}

/// What a newer release wrote, be it header, frame or footer, is neither read nor cut nor written over.
pub(super) fn newer_format() -> Rows {
    let (disk, state) = crashed(5, 5);
    rewrite_header(&disk, &segment_path(0), |header| header[8] = 2);
    let before = log_files(&disk);
    let (error, rows) = refused(&disk, &state);
    assert!(matches!(error, LogError::UnknownFormat { found: 2, .. }), "{error}");
    assert_eq!(log_files(&disk), before);

    let (disk, state) = crashed(3, 60);
    let second = segment_path(bases(&disk)[1]);
    rewrite_footer(&disk, &second, |footer| footer[8] = 2);
    let before = log_files(&disk);
    let (error, _) = refused(&disk, &state);
    assert!(matches!(error, LogError::UnknownFormat { found: 2, .. }), "{error}");
    assert_eq!(log_files(&disk), before);
    rows
}

pub(super) fn foreign_cluster() -> Rows {
    let (disk, state) = crashed(5, 5);
    rewrite_header(&disk, &segment_path(0), |header| header[16] ^= 0xff);
    let before = log_files(&disk);
    let (error, rows) = refused(&disk, &state);
    assert!(matches!(error, LogError::ForeignCluster { .. }), "{error}");
    assert_eq!(log_files(&disk), before);
    rows
}

/// Without its directory nothing is known of the log, so nothing is done to it.
pub(super) fn unlisted() -> Rows {
    let (disk, state) = crashed(5, 5);
    let before = log_files(&disk);
    let engine = crate::world::engine(&disk);
    refuse(&disk, Operation::List, "logs/7/3");
    let error = engine.open_log(crate::world::LOG, crate::world::CONFIG, Some(&state)).unwrap_err();
    assert!(matches!(error, LogError::Io { .. }), "{error}");
    disk.clear_faults();
    assert_eq!(log_files(&disk), before);
    super::all_rows(&engine)
}
