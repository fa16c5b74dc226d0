//! The files of a group's checkpoint directory.

use std::path::PathBuf;

use tidelog_engine::Engine;
use tidelog_engine::checkpoint::{CheckpointError, CheckpointVerdict};
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{Offset, TimestampMs};

use super::{Rows, pieces, rewrite};
use crate::world::{
    CONFIG, GROUP, LOG, append, batch, embedded_engine, engine, formatted, make_checkpoint, open, read_file,
    shared,
};

fn file(index: u64) -> PathBuf {
    crate::world::data().join("checkpoints/1").join(format!("{index:020}-{:020}.ckpt", 1))
}

/// Checkpoints at 1..=`last`, of which the two newest are kept.
fn checkpointed(last: u64) -> SimDisk {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    for index in 1..=last {
        append(&mut writer, index..=index);
        make_checkpoint(&engine, index, &writer);
    }
    disk.crash(Crash::ProcessOnly);
    disk
}

fn rows(engine: &Engine) -> Rows {
    engine.report().rows.into_keys().collect()
}

/// The index of the checkpoint that is started from, and of the one kept to fall back to.
fn loaded(engine: &Engine) -> (u64, Option<u64>) {
    let loaded = engine.load_checkpoint(GROUP).unwrap().unwrap();
    (loaded.newest.applied.index.get(), loaded.older.map(|older| older.index.get()))
}

/// The newest is passed over: the older one serves, the other is kept in quarantine.
fn falls_back(disk: &SimDisk) -> Rows {
    let engine = engine(disk);
    assert_eq!(loaded(&engine), (1, None));
    assert!(!disk.files().contains(&file(2)));
    assert_eq!(pieces(disk), 1);
    rows(&engine)
}

pub(super) fn checkpoint_newest() -> Rows {
    let engine = engine(&checkpointed(1));
    assert_eq!(loaded(&engine), (1, None));
    rows(&engine)
}

pub(super) fn checkpoint_older() -> Rows {
    let engine = engine(&checkpointed(3));
    assert_eq!(loaded(&engine), (3, Some(2)));
    rows(&engine)
}

pub(super) fn checkpoint_bad() -> Rows {
    let disk = checkpointed(2);
    disk.flip_bit(&file(2), Position(40), 3).unwrap();
    falls_back(&disk)
}

pub(super) fn checkpoint_unreadable() -> Rows {
    let disk = checkpointed(2);
    disk.spoil(&file(2), 0..1).unwrap();
    falls_back(&disk)
}

pub(super) fn checkpoint_misplaced() -> Rows {
    let disk = checkpointed(2);
    let other = read_file(&disk, &file(1));
    rewrite(&disk, &file(2), |bytes| *bytes = other);
    falls_back(&disk)
}

/// Falling back would undo what the newer release did.
pub(super) fn checkpoint_newer_format() -> Rows {
    let disk = checkpointed(2);
    rewrite(&disk, &file(2), |bytes| {
        bytes[8] = 2;
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
    });
    let engine = engine(&disk);
    assert!(matches!(engine.load_checkpoint(GROUP), Err(CheckpointError::Newer { .. })));
    assert!(disk.files().contains(&file(2)) && disk.files().contains(&file(1)));
    rows(&engine)
}

/// A crash came between the writing of the third and the removal of the first.
pub(super) fn checkpoint_surplus() -> Rows {
    let disk = checkpointed(3);
    disk.storage().open(&file(1), OpenMode::CreateNew).unwrap();
    let engine = engine(&disk);
    let verdict = engine.load_checkpoint(GROUP).unwrap().unwrap().verdict;
    assert_eq!((loaded(&engine), verdict), ((3, Some(2)), CheckpointVerdict::Newest));
    rows(&engine)
}

pub(super) fn checkpoint_unfinished() -> Rows {
    let disk = checkpointed(2);
    let unfinished = file(3).with_extension("ckpt.tmp");
    let half = disk.storage().open(&unfinished, OpenMode::CreateNew).unwrap();
    half.write_at(Position::ZERO, &[b"half"]).unwrap();
    let engine = engine(&disk);
    assert_eq!(loaded(&engine), (2, Some(1)));
    assert!(!disk.files().contains(&unfinished));
    let said = engine.report().findings.first().unwrap().said.clone();
    assert!(said.starts_with("4 bytes"), "{said}");
    rows(&engine)
}

pub(super) fn checkpoint_unknown_name() -> Rows {
    let disk = checkpointed(2);
    disk.storage().open(&file(2).with_file_name("notes.txt"), OpenMode::CreateNew).unwrap();
    let engine = engine(&disk);
    assert_eq!((loaded(&engine), pieces(&disk)), ((2, Some(1)), 1));
    rows(&engine)
}

pub(super) fn checkpoint_done() -> Rows {
    checkpoint_older()
}

pub(super) fn checkpoint_none() -> Rows {
    let disk = formatted(1);
    disk.storage().create_dir(file(1).parent().unwrap()).unwrap();
    let engine = engine(&disk);
    assert_eq!(engine.load_checkpoint(GROUP).unwrap(), None);
    rows(&engine)
}

/// Nothing is guessed and nothing is touched: the replica stays out.
pub(super) fn checkpoint_none_valid() -> Rows {
    let disk = checkpointed(2);
    for index in [1, 2] {
        disk.flip_bit(&file(index), Position(40), 3).unwrap();
    }
    let engine = engine(&disk);
    assert!(matches!(engine.load_checkpoint(GROUP), Err(CheckpointError::AllBad { count: 2, .. })));
    assert!(disk.files().contains(&file(2)) && disk.files().contains(&file(1)));
    rows(&engine)
}

/// Of embedded logs the files tell what must not be mistaken: they open, and it is recorded again.
pub(super) fn checkpoint_starts_lost() -> Rows {
    let disk = formatted(1);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 2, 100), TimestampMs(1)).unwrap();
    log.trim(Offset(2)).unwrap();
    drop(log);
    disk.crash(Crash::ProcessOnly);
    let checkpoints = disk.files().into_iter().filter(|path| path.extension().is_some_and(|it| it == "ckpt"));
    for path in checkpoints {
        disk.flip_bit(&path, Position(40), 3).unwrap();
    }
    let engine = embedded_engine(&disk);
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    assert_eq!((log.reader().start(), log.reader().end()), (Offset(2), Offset(2)));
    assert_eq!(pieces(&disk), 2);
    engine.report().findings.iter().map(|finding| finding.row).collect()
}
