use tidelog_engine::checkpoint::{CheckpointError, CheckpointVerdict};
use tidelog_engine::sim_disk::Crash;
use tidelog_engine::storage::Position;
use tidelog_wire::ids::{Offset, RaftIndex};

use crate::world::{
    GROUP, LOG, append, checkpoint, data, engine, formatted, log_files, make_checkpoint, open,
};

fn file(index: u64) -> std::path::PathBuf {
    data().join("checkpoints/1").join(format!("{index:020}-{:020}.ckpt", 1))
}

/// Of three checkpoints the two newest stay; the raft log may go up to the older one.
#[test]
fn the_two_newest_checkpoints_are_kept() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    assert!(engine.load_checkpoint(GROUP).unwrap().is_none());
    for index in 1..=3 {
        append(&mut writer, index..=index);
        make_checkpoint(&engine, index, &writer);
    }
    let loaded = engine.load_checkpoint(GROUP).unwrap().unwrap();
    assert_eq!(loaded.newest, checkpoint(3, &writer));
    assert_eq!(loaded.older.unwrap().index, RaftIndex(2));
    assert_eq!(loaded.verdict, CheckpointVerdict::Newest);
    assert!(!disk.files().contains(&file(1)));
}

/// A damaged newest checkpoint costs a longer replay; two damaged ones are refused, not guessed.
#[test]
fn a_bad_checkpoint_falls_back_to_the_older_one() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    for index in 1..=2 {
        append(&mut writer, index..=index);
        make_checkpoint(&engine, index, &writer);
    }
    disk.flip_bit(&file(2), Position(40), 3).unwrap();
    let loaded = engine.load_checkpoint(GROUP).unwrap().unwrap();
    assert_eq!(loaded.newest.applied.index, RaftIndex(1));
    assert_eq!(loaded.older, None);
    assert!(matches!(loaded.verdict, CheckpointVerdict::FellBack { bad } if bad.len() == 1));
    disk.flip_bit(&file(1), Position(9), 0).unwrap();
    assert!(matches!(engine.load_checkpoint(GROUP), Err(CheckpointError::AllBad { count: 2, .. })));
}

/// Whenever the power is cut while a checkpoint is written, one of the two is there and valid.
#[test]
fn a_power_cut_while_writing_leaves_a_valid_checkpoint() {
    for seed in 0..200 {
        let disk = formatted(seed);
        let first = engine(&disk);
        let (mut writer, _) = open(&first, None);
        append(&mut writer, 1..=3);
        make_checkpoint(&first, 3, &writer);
        append(&mut writer, 4..=6);
        writer.sync_target().run().unwrap();
        disk.stop_at(disk.changes() + seed % 8);
        let written = first.write_checkpoint(&checkpoint(6, &writer));
        disk.crash(Crash::PowerCut { seed });
        drop((writer, first));
        let loaded = engine(&disk).load_checkpoint(GROUP).unwrap().unwrap();
        let index = loaded.newest.applied.index.get();
        assert!(index == 6 || index == 3 && written.is_err(), "seed {seed}: {index}");
    }
}

/// A trimmed segment stays as long as a kept checkpoint could need it.
#[test]
fn nothing_that_a_kept_checkpoint_names_is_unlinked() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=40);
    make_checkpoint(&engine, 40, &writer);
    let files = log_files(&disk).len();
    writer.set_log_start(Offset(60)).unwrap();
    assert_eq!(writer.reader().start(), Offset(60));
    assert_eq!(log_files(&disk).len(), files, "the checkpoint names them");
    make_checkpoint(&engine, 41, &writer);
    assert_eq!(log_files(&disk).len(), files, "the older checkpoint names them");
    let pin = engine.pin(vec![(LOG, Offset(0))]);
    make_checkpoint(&engine, 42, &writer);
    assert!(log_files(&disk).len() < files);
    assert!(disk.files().contains(&crate::world::segment_path(0)), "pinned");
    drop(pin);
    assert!(!disk.files().contains(&crate::world::segment_path(0)));
}

/// A removed log goes with the last checkpoint that names it, also when the node restarts in between.
#[test]
fn a_removed_log_is_unlinked_even_after_a_restart() {
    let disk = formatted(1);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=5);
    make_checkpoint(&first, 5, &writer);
    let mut without = checkpoint(6, &writer);
    without.logs.clear();
    drop(writer);
    first.remove_log(LOG).unwrap();
    first.write_checkpoint(&without).unwrap();
    assert!(!log_files(&disk).is_empty(), "the older checkpoint names it");
    assert_eq!(first.checkpoints_naming(LOG).len(), 1);
    drop(first);
    disk.crash(Crash::LoseUnsynced);
    let second = engine(&disk);
    without.applied.index = RaftIndex(7);
    second.write_checkpoint(&without).unwrap();
    assert!(log_files(&disk).is_empty());
}
