use std::path::PathBuf;

use tidelog_engine::Engine;
use tidelog_engine::log::LogError;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_engine::transfer::SegmentFile;
use tidelog_wire::ids::Offset;

use crate::world::{LOG, append, engine, formatted, log_files, make_checkpoint, open, read_all};

fn staging() -> PathBuf {
    PathBuf::from("/data/staging")
}

/// Copies what a manifest names from one engine into the other's staging directory.
fn fetch(from: &Engine, to: &SimDisk, manifest: &[SegmentFile]) {
    let storage = to.storage();
    storage.create_dir(&staging()).unwrap();
    for file in manifest {
        let name = tidelog_engine::segment::file_name(file.base);
        let copy = storage.open(&staging().join(name), OpenMode::CreateNew).unwrap();
        let mut at = 0;
        while at < file.len {
            let want = usize::try_from((file.len - at).min(1_000)).unwrap();
            let bytes = from.read_raw(LOG, file.base, Position(at), want).unwrap();
            copy.write_at(Position(at), &[&bytes]).unwrap();
            at += u64::try_from(bytes.len()).unwrap();
        }
    }
}

/// A replica that copies the files of another one up to a checkpoint goes on in the same bytes.
#[test]
fn a_log_moves_by_copying_its_files() {
    let source_disk = formatted(1);
    let source = engine(&source_disk);
    let (mut writer, _) = open(&source, None);
    append(&mut writer, 1..=50);
    let state = make_checkpoint(&source, 50, &writer);
    append(&mut writer, 51..=70);
    let manifest = source.segment_files(LOG, &state).unwrap();
    let pin = source.pin(manifest.iter().map(|file| (file.log, file.base)).collect());

    let target_disk = formatted(2);
    let target = engine(&target_disk);
    fetch(&source, &target_disk, &manifest);
    for file in &manifest {
        target.verify_staged(&staging().join(tidelog_engine::segment::file_name(file.base)), file).unwrap();
    }
    let adopted = target.adopt(LOG, &manifest, &staging()).unwrap();
    target.adopt(LOG, &manifest, &staging()).map(drop).unwrap();
    let (mut copy, recovery) = open(&target, Some(&state));
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(read_all(&copy.reader(), Offset(0)).unwrap().len(), 50);
    append(&mut copy, 51..=70);
    assert_eq!(log_files(&target_disk), log_files(&source_disk));
    make_checkpoint(&target, 70, &copy);
    drop((pin, adopted, copy));
    target_disk.crash(Crash::LoseUnsynced);
}

/// A staged file that differs in any byte is refused, and a log cannot be replaced while it is open.
#[test]
fn a_staged_file_that_differs_is_refused() {
    let source_disk = formatted(1);
    let source = engine(&source_disk);
    let (mut writer, _) = open(&source, None);
    append(&mut writer, 1..=30);
    let state = make_checkpoint(&source, 30, &writer);
    let manifest = source.segment_files(LOG, &state).unwrap();
    assert!(manifest.len() > 1);
    for file in [manifest[0], *manifest.last().unwrap()] {
        for at in (0..file.len).step_by(97) {
            let target_disk = formatted(2);
            let target = engine(&target_disk);
            fetch(&source, &target_disk, &[file]);
            let path = staging().join(tidelog_engine::segment::file_name(file.base));
            target_disk.flip_bit(&path, Position(at), 5).unwrap();
            assert!(target.verify_staged(&path, &file).is_err(), "byte {at}");
        }
    }
    assert!(matches!(source.adopt(LOG, &manifest, &staging()), Err(LogError::AlreadyOpen { .. })));
}

/// What is damaged here is not handed on.
#[test]
fn a_damaged_log_is_not_served() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=30);
    let state = make_checkpoint(&engine, 30, &writer);
    let (path, bytes) = log_files(&disk).remove(0);
    disk.flip_bit(&path, Position(u64::try_from(bytes.0.len()).unwrap() - 3), 0).unwrap();
    assert!(matches!(engine.segment_files(LOG, &state), Err(LogError::CannotServe { .. })));
}
