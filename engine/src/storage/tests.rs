//! What every storage must do alike, run on the operating system's and on the simulated one.

use std::io::ErrorKind;
use std::path::Path;

use crate::storage::os::OsStorage;
use crate::storage::sim_disk::SimDisk;
use crate::storage::*;

fn on_both(scenario: impl Fn(&dyn Storage, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    scenario(&OsStorage, dir.path());
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("/data")).unwrap();
    scenario(&disk, Path::new("/data"));
}

#[test]
fn gathered_writes_read_back_whole_and_holes_are_zero() {
    on_both(|storage, dir| {
        let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        let big = vec![7; 10_000];
        file.write_at(Position(5000), &[b"head", b"", &big]).unwrap();
        assert_eq!(file.len().unwrap(), 15_004);
        let mut all = vec![1; 15_004];
        file.read_at(Position(0), &mut all).unwrap();
        assert!(all[..5000].iter().all(|byte| *byte == 0));
        assert_eq!(&all[5000..5004], b"head");
        assert_eq!(&all[5004..], &big);
    });
}

#[test]
fn more_parts_than_one_call_takes_are_all_written() {
    on_both(|storage, dir| {
        let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        let parts: Vec<Vec<u8>> = (0..200_u8).map(|part| vec![part; 3]).collect();
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        file.write_at(Position(1), &slices).unwrap();
        let mut all = vec![0; 600];
        file.read_at(Position(1), &mut all).unwrap();
        assert_eq!(all, parts.concat());
    });
}

#[test]
fn a_read_beyond_the_end_fails_as_unexpected_eof() {
    on_both(|storage, dir| {
        let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        file.write_at(Position(0), &[b"abc"]).unwrap();
        let error = file.read_at(Position(1), &mut [0; 3]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn what_a_truncation_cut_stays_zero_when_the_file_grows_again() {
    on_both(|storage, dir| {
        let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        file.write_at(Position(0), &[&[9; 9000]]).unwrap();
        file.truncate(100).unwrap();
        file.truncate(9000).unwrap();
        let mut all = vec![1; 9000];
        file.read_at(Position(0), &mut all).unwrap();
        assert!(all[..100].iter().all(|byte| *byte == 9));
        assert!(all[100..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn errors_have_the_kinds_that_callers_match_on() {
    on_both(|storage, dir| {
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        let missing = dir.join("missing");
        assert_eq!(kind(storage.open(&missing, OpenMode::Read).map(|_| ())), ErrorKind::NotFound);
        assert_eq!(kind(storage.remove(&missing)), ErrorKind::NotFound);
        assert_eq!(kind(storage.list(&missing).map(|_| ())), ErrorKind::NotFound);
        assert_eq!(kind(storage.sync_dir(&missing)), ErrorKind::NotFound);
        let file = dir.join("file");
        drop(storage.open(&file, OpenMode::CreateNew).unwrap());
        assert_eq!(kind(storage.open(&file, OpenMode::CreateNew).map(|_| ())), ErrorKind::AlreadyExists);
        storage.create_dir(&dir.join("full/below")).unwrap();
        assert_eq!(kind(storage.remove_dir(&dir.join("full"))), ErrorKind::DirectoryNotEmpty);
        assert_eq!(
            kind(storage.open(&dir.join("full"), OpenMode::Read).map(|_| ())),
            ErrorKind::IsADirectory
        );
        let read_only = storage.open(&file, OpenMode::Read).unwrap();
        assert!(read_only.write_at(Position(0), &[b"x"]).is_err());
    });
}

#[test]
fn directories_list_what_they_hold_in_order() {
    on_both(|storage, dir| {
        storage.create_dir(&dir.join("b/c")).unwrap();
        storage.create_dir(&dir.join("b/c")).unwrap();
        drop(storage.open(&dir.join("z"), OpenMode::CreateNew).unwrap());
        drop(storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap());
        let names = |entries: Vec<DirEntry>| -> Vec<(String, EntryKind)> {
            entries.into_iter().map(|entry| (entry.name, entry.kind)).collect()
        };
        assert_eq!(
            names(storage.list(dir).unwrap()),
            [
                ("a".to_owned(), EntryKind::File),
                ("b".to_owned(), EntryKind::Directory),
                ("z".to_owned(), EntryKind::File)
            ]
        );
        storage.rename(&dir.join("z"), &dir.join("a")).unwrap();
        storage.rename(&dir.join("b"), &dir.join("d")).unwrap();
        assert_eq!(storage.list(dir).unwrap().len(), 2);
        storage.remove_dir(&dir.join("d/c")).unwrap();
        storage.remove_dir(&dir.join("d")).unwrap();
        storage.remove(&dir.join("a")).unwrap();
        assert!(storage.list(dir).unwrap().is_empty());
    });
}

#[test]
fn a_file_replaced_while_open_reads_on_through_its_handle() {
    on_both(|storage, dir| {
        let old = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        old.write_at(Position(0), &[b"old"]).unwrap();
        replace_file(storage, &dir.join("a"), b"newer").unwrap();
        let mut bytes = [0; 3];
        old.read_at(Position(0), &mut bytes).unwrap();
        assert_eq!(&bytes, b"old");
        assert_eq!(read_whole(storage, &dir.join("a"), 10).unwrap(), b"newer");
        let error = read_whole(storage, &dir.join("a"), 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
    });
}

#[test]
fn a_lock_is_held_by_one_until_it_is_dropped() {
    on_both(|storage, dir| {
        let path = dir.join("lock");
        let held = storage.lock(&path).unwrap();
        assert_eq!(storage.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(held);
        drop(storage.lock(&path).unwrap());
    });
}

#[test]
fn prefill_extends_with_zeros_and_free_bytes_answers() {
    on_both(|storage, dir| {
        let file = storage.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
        file.prefill(Position(10), 200_000).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 200_010);
        assert!(storage.free_bytes(dir).unwrap() > 0);
        create_dir_durably(storage, dir, &dir.join("x/y")).unwrap();
        assert_eq!(storage.list(&dir.join("x")).unwrap().len(), 1);
    });
}
