use std::path::PathBuf;

use tidelog_engine::Engine;
use tidelog_engine::log::LogError;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_engine::transfer::SegmentFile;
use tidelog_wire::ids::{GroupId, Offset};

use crate::world::{
    LOG, append, checkpoint, data, engine, formatted, log_files, make_checkpoint, open, read_all, read_file,
    segment_path,
};

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
    let (path, whole) = log_files(&disk).remove(0);
    // Index and footer follow from the frames: they are written again first.
    disk.flip_bit(&path, Position(u64::try_from(whole.0.len()).unwrap() - 3), 0).unwrap();
    let files = engine.segment_files(LOG, &state).unwrap();
    engine.verify_staged(&path, &files[0]).unwrap();
    assert_eq!(log_files(&disk)[0], (path.clone(), whole));
    disk.flip_bit(&path, Position(20), 0).unwrap();
    assert!(matches!(engine.segment_files(LOG, &state), Err(LogError::CannotServe { .. })));
}

/// A snapshot's file was renamed over a local one of the same name, and what only that one held was gone without
/// a copy. What the new one begins with needs none.
#[test]
fn a_file_that_a_snapshot_replaces_is_set_aside_unless_it_holds_nothing_else() {
    let source_disk = formatted(1);
    let source = engine(&source_disk);
    let (mut writer, _) = open(&source, None);
    append(&mut writer, 1..=6);
    let state = make_checkpoint(&source, 6, &writer);
    let manifest = source.segment_files(LOG, &state).unwrap();
    let pieces = |disk: &SimDisk| -> Vec<PathBuf> {
        let aside = disk.files().into_iter().filter(|path| path.starts_with(data().join("quarantine")));
        aside.filter(|path| path.extension().is_some_and(|it| it == "piece")).collect()
    };
    // The replica fell behind; or it went on by itself; or its disk has rotted.
    for (entries, harm) in [(3, None), (60, None), (3, Some(Position(150)))] {
        for one_by_one in [false, true] {
            let disk = formatted(2);
            let replica = engine(&disk);
            let (mut own, _) = open(&replica, None);
            append(&mut own, 1..=entries);
            own.sync_target().run().unwrap();
            drop(own);
            if let Some(at) = harm {
                disk.flip_bit(&segment_path(0), at, 1).unwrap();
            }
            let before = read_file(&disk, &segment_path(0));
            fetch(&source, &disk, &manifest);
            if one_by_one {
                for file in &manifest {
                    let staged = staging().join(tidelog_engine::segment::file_name(file.base));
                    disk.storage().open(&staged, OpenMode::ReadWrite).unwrap().sync().unwrap();
                    replica.adopt_segment(LOG, file.base, &staged).unwrap();
                }
            } else {
                drop(replica.adopt(LOG, &manifest, &staging()).unwrap());
            }
            disk.crash(Crash::LoseUnsynced);
            let kept = pieces(&disk);
            let kept = kept.iter().any(|piece| read_file(&disk, piece) == before);
            assert_ne!(read_file(&disk, &segment_path(0)), before, "replaced");
            let needed = entries > 6 || harm.is_some();
            assert_eq!(kept, needed, "{entries} entries, harm at {harm:?}, one by one: {one_by_one}");
        }
    }
}

/// The directory of a log was there at a start, and nothing named it. An installation then moved files into it,
/// and before its checkpoint was written, that of another group took the log for one that nobody knows, and
/// unlinked them.
#[test]
fn files_that_an_installation_puts_in_place_stay_when_another_group_checkpoints() {
    let source_disk = formatted(1);
    let source = engine(&source_disk);
    let (mut writer, _) = open(&source, None);
    append(&mut writer, 1..=50);
    let state = make_checkpoint(&source, 50, &writer);
    let manifest = source.segment_files(LOG, &state).unwrap();
    let mut of_another = checkpoint(50, &writer);
    of_another.group = GroupId(9);
    of_another.logs.clear();

    let disk = formatted(2);
    disk.storage().create_dir(segment_path(0).parent().unwrap()).unwrap();
    let target = engine(&disk);
    fetch(&source, &disk, &manifest);
    for file in &manifest {
        let staged = staging().join(tidelog_engine::segment::file_name(file.base));
        target.adopt_segment(LOG, file.base, &staged).unwrap();
    }
    target.write_checkpoint(&of_another).unwrap();
    let (copy, _) = open(&target, Some(&state));
    assert_eq!(read_all(&copy.reader(), Offset(0)).unwrap().len(), 50);
}
