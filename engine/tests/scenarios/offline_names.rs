//! Segments that a person or a file system renamed.

use std::path::{Path, PathBuf};

use tidelog_engine::offline::Why;
use tidelog_engine::offline::repair::{Action, Step};
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{Offset, TimestampMs};

use crate::offline_doubts::{embedded, mend, verify};
use crate::offline_repair::{bases, frames, other, stopped};
use crate::world::{
    append, batch, data, engine, formatted, make_checkpoint, open, read_file, segment_path, shared,
};

/// The story: a segment under the name of another one, whose own place is empty, is the only copy of its records. It was left where it
/// was, and a file whose name no segment has was even set aside; both have their name in their header.
#[test]
fn a_renamed_segment_gets_its_name_back() {
    let stranger = |disk: &SimDisk, name: &str| segment_path(bases(disk)[1]).with_file_name(name);
    let number = bases(&stopped())[1];
    for name in
        [format!("{:020}.seg", number + 1), format!("{number:020}.seg.bak"), "copy of 5.seg".to_owned()]
    {
        for at in [0, 1, bases(&stopped()).len() - 1] {
            let disk = stopped();
            let (own, strange) = (segment_path(bases(&disk)[at]), stranger(&disk, &name));
            let healthy = disk.fingerprint_of(&|path| path.starts_with(data().join("logs")));
            disk.storage().rename(&own, &strange).unwrap();
            let done = mend(&disk, data(), None);
            assert_eq!(done.left, [], "{name}");
            let renamed =
                |step: &Step| step.path == strange && step.action == Action::Rename { to: own.clone() };
            assert!(matches!(&done.steps[..], [step] if renamed(step)), "{name}: {done:#?}");
            assert_eq!(disk.fingerprint_of(&|path| path.starts_with(data().join("logs"))), healthy, "{name}");
            assert!(verify(&disk, data()).is_empty() && mend(&disk, data(), None).steps.is_empty());
        }
    }
}

/// All names shifted by one, and the last segment harmed inside as well: one repair mends it all.
#[test]
fn renamed_segments_make_room_for_each_other_and_are_mended_too() {
    let disk = stopped();
    let bases = bases(&disk);
    let strange = segment_path(*bases.last().unwrap() + 1);
    let healthy = disk.fingerprint_of(&|path| path.starts_with(data().join("logs")));
    let names: Vec<PathBuf> = bases.iter().map(|base| segment_path(*base)).chain([strange]).collect();
    for pair in names.windows(2).rev() {
        disk.storage().rename(&pair[0], &pair[1]).unwrap();
    }
    disk.flip_bit(names.last().unwrap(), Position(120), 2).unwrap();
    disk.flip_bit(&names[1], Position(120), 2).unwrap();
    let done = mend(&disk, data(), Some(other()));
    assert_eq!(done.left, [], "{done:#?}");
    assert_eq!(disk.fingerprint_of(&|path| path.starts_with(data().join("logs"))), healthy, "{done:#?}");
    assert!(mend(&disk, data(), Some(other())).steps.is_empty());
}

/// An old copy of a segment is not put into the place of one that is there, nor where its neighbours contradict.
#[test]
fn a_file_that_does_not_fit_its_place_does_not_get_the_name() {
    let disk = stopped();
    let path = segment_path(bases(&disk)[1]);
    let copy = path.with_file_name("old.seg");
    let file = disk.storage().open(&copy, OpenMode::CreateNew).unwrap();
    file.write_at(Position(0), &[&read_file(&disk, &path)]).unwrap();
    file.sync().unwrap();
    let done = mend(&disk, data(), None);
    assert!(matches!(&done.steps[..], [Step { action: Action::SetAside, .. }]), "{done:#?}");

    // The same place in another history.
    let disk = stopped();
    let stranger = formatted(1);
    let engine = engine(&stranger);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 7..=60);
    make_checkpoint(&engine, 60, &writer);
    drop((writer, engine));
    assert_eq!(bases(&stranger)[1], bases(&disk)[1]);
    let foreign = read_file(&stranger, &path);
    disk.storage().remove(&path).unwrap();
    let file = disk.storage().open(&copy, OpenMode::CreateNew).unwrap();
    file.write_at(Position(0), &[&foreign]).unwrap();
    file.sync().unwrap();
    let done = mend(&disk, data(), None);
    let renamed = |step: &Step| matches!(step.action, Action::Rename { .. });
    assert!(!done.steps.iter().any(renamed), "{done:#?}");
}

fn put(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.storage().open(path, OpenMode::CreateNew).unwrap();
    file.write_at(Position(0), &[bytes]).unwrap();
    file.sync().unwrap();
}

/// The story: of two files that claimed one place the first by name got it, here a stale copy of the last segment, which nothing
/// contradicts. The full one went to quarantine, the log ended too early and handed out offsets again.
#[test]
fn of_two_files_that_claim_one_place_neither_gets_it() {
    for (stale, full) in [("a", "b"), ("b", "a")] {
        let disk = embedded();
        let own = segment_path(*bases(&disk).last().unwrap());
        let bytes = read_file(&disk, &own);
        let first = frames(&disk, &own)[0].clone();
        let (stale, full) = (own.with_extension(stale), own.with_extension(full));
        put(&disk, &stale, &bytes[..usize::try_from(first.end).unwrap()]);
        disk.storage().rename(&own, &full).unwrap();
        for _ in 0..2 {
            let done = mend(&disk, data(), None);
            assert_eq!(done.steps, [], "{done:#?}");
            for path in [&stale, &full] {
                let is_named = done.left.iter().any(|left| left.path == *path && left.why == Why::Name);
                assert!(is_named && disk.files().contains(path), "{done:#?}");
            }
        }
        // Once a person has decided it is put back.
        disk.storage().remove(&stale).unwrap();
        let done = mend(&disk, data(), None);
        assert!(done.left.is_empty() && read_file(&disk, &own) == bytes, "{done:#?}");
    }
}

/// Two claimants, and a copy that fills the place: then neither of them is needed, and one repair is enough.
#[test]
fn files_that_claim_a_place_which_the_copy_fills_are_set_aside() {
    let disk = stopped();
    let own = segment_path(bases(&disk)[1]);
    let healthy = disk.fingerprint_of(&|path| path.starts_with(data().join("logs")));
    put(&disk, &own.with_extension("a"), &read_file(&disk, &own));
    disk.storage().rename(&own, &own.with_extension("b")).unwrap();
    let done = mend(&disk, data(), Some(other()));
    assert_eq!(done.left, [], "{done:#?}");
    assert_eq!(disk.fingerprint_of(&|path| path.starts_with(data().join("logs"))), healthy, "{done:#?}");
    assert!(mend(&disk, data(), Some(other())).steps.is_empty());
}

/// The story: a copy of a trimmed segment got its name back, since its place was empty, and the next start unlinked it.
#[test]
fn a_copy_of_a_trimmed_segment_does_not_get_its_name_back() {
    let disk = embedded();
    let (first, second) = (segment_path(0), bases(&disk)[1]);
    let bytes = read_file(&disk, &first);
    let (log, _) = shared(&disk);
    for number in 0..2 {
        log.trim(Offset(second)).unwrap();
        log.append_durable(&batch(100 + number, 1, 10), TimestampMs(1)).unwrap();
    }
    drop(log);
    assert!(!disk.files().contains(&first));
    put(&disk, &first.with_extension("seg.bak"), &bytes);
    let done = mend(&disk, data(), None);
    assert!(matches!(&done.steps[..], [Step { action: Action::SetAside, .. }]), "{done:#?}");
    assert!(done.left.is_empty() && verify(&disk, data()).is_empty());
}

/// The story: of two segments with each other's names each stood in the other's place, so both were set aside as if there were
/// better ones. They are left, until one of them is out of the way.
#[test]
fn segments_with_each_others_names_are_left() {
    let disk = stopped();
    let (one, two) = (segment_path(bases(&disk)[0]), segment_path(bases(&disk)[1]));
    let healthy = disk.fingerprint_of(&|path| path.starts_with(data().join("logs")));
    let aside = one.with_extension("x");
    for (from, to) in [(&one, &aside), (&two, &one), (&aside, &two)] {
        disk.storage().rename(from, to).unwrap();
    }
    let done = mend(&disk, data(), None);
    assert_eq!(done.steps, [], "{done:#?}");
    for path in [&one, &two] {
        assert!(done.left.iter().any(|left| left.path == *path), "{done:#?}");
    }
    disk.storage().rename(&one, &aside).unwrap();
    assert_eq!(mend(&disk, data(), None).left, []);
    assert_eq!(disk.fingerprint_of(&|path| path.starts_with(data().join("logs"))), healthy);
}
