use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::locks::Arc;
use crate::storage::{create_dir_durably, read_whole, replace_file};

const FILE: &str = "/data/log";

/// A disk with one durable, empty file in a durable directory.
fn disk_with_file() -> (SimDisk, Arc<dyn File>) {
    let disk = SimDisk::new(7);
    create_dir_durably(&disk, Path::new("/"), Path::new("/data")).unwrap();
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew).unwrap();
    disk.sync_dir(Path::new("/data")).unwrap();
    (disk, file)
}

fn contents(disk: &SimDisk) -> Vec<u8> {
    read_whole(disk, Path::new(FILE), 1 << 20).unwrap()
}

#[test]
fn a_power_cut_keeps_what_was_synced_whatever_the_seed() {
    for seed in 0..300 {
        let (disk, file) = disk_with_file();
        file.write_at(Position(0), &[&[1; 3000]]).unwrap();
        file.sync().unwrap();
        file.write_at(Position(3000), &[&[2; 3000]]).unwrap();
        disk.crash(Crash::PowerCut { seed });
        let left = contents(&disk);
        assert!(left.len() >= 3000, "seed {seed} shortened the file to {}", left.len());
        assert!(left[..3000].iter().all(|byte| *byte == 1), "seed {seed} changed synced bytes");
        assert!(left[3000..].iter().all(|byte| *byte == 2 || *byte == 0));
    }
}

/// The states that recovery must survive all occur, or crash tests would prove little.
#[test]
fn power_cuts_lose_tear_reorder_and_lengthen_without_data() {
    let (mut lost, mut kept, mut torn, mut reordered, mut size_only, mut ragged) = (0, 0, 0, 0, 0, 0);
    let (disk, file) = disk_with_file();
    file.write_at(Position(0), &[&[1; 2048]]).unwrap();
    file.write_at(Position(2048), &[&[2; 2048]]).unwrap();
    for seed in 0..500 {
        let disk = disk.fork();
        disk.crash(Crash::PowerCut { seed });
        let left = contents(&disk);
        let has = |at: usize, byte: u8| left.get(at) == Some(&byte);
        let first = [0, 512, 1024, 1536].map(|at| has(at, 1));
        let second = [2048, 2560, 3072, 3584].map(|at| has(at, 2));
        lost += u32::from(left.is_empty());
        kept += u32::from(left.len() == 4096 && first == [true; 4] && second == [true; 4]);
        torn += u32::from(second.contains(&true) && second.contains(&false));
        reordered += u32::from(first == [false; 4] && second == [true; 4]);
        size_only += u32::from(left.len() == 4096 && first == [false; 4] && second == [false; 4]);
        ragged += u32::from(!left.len().is_multiple_of(2048));
    }
    let seen = [lost, kept, torn, reordered, size_only, ragged];
    assert!(seen.iter().all(|times| *times > 3), "{seen:?}");
}

#[test]
fn two_writes_to_one_sector_never_leave_the_later_without_the_earlier() {
    let (disk, file) = disk_with_file();
    file.write_at(Position(0), &[&[1; 100]]).unwrap();
    file.write_at(Position(100), &[&[2; 100]]).unwrap();
    for seed in 0..200 {
        let disk = disk.fork();
        disk.crash(Crash::PowerCut { seed });
        let left = contents(&disk);
        if left.get(150) == Some(&2) {
            assert!(left[..100].iter().all(|byte| *byte == 1), "seed {seed}");
        }
    }
}

#[test]
fn names_survive_a_power_cut_only_after_their_directory_is_synced() {
    let (mut seen_old, mut seen_new) = (false, false);
    for seed in 0..100 {
        let (disk, file) = disk_with_file();
        file.write_at(Position(0), &[b"old"]).unwrap();
        file.sync().unwrap();
        let new = disk.open(Path::new("/data/new"), OpenMode::CreateNew).unwrap();
        new.write_at(Position(0), &[b"new"]).unwrap();
        new.sync().unwrap();
        disk.rename(Path::new("/data/new"), Path::new(FILE)).unwrap();
        disk.crash(Crash::PowerCut { seed });
        match contents(&disk).as_slice() {
            b"old" => seen_old = true,
            b"new" => seen_new = true,
            other => panic!("seed {seed} left {other:?}"),
        }
    }
    assert!(seen_old && seen_new);
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_at_every_point_of_a_power_cut() {
    let (clean, file) = disk_with_file();
    file.write_at(Position(0), &[b"old"]).unwrap();
    file.sync().unwrap();
    let before = clean.changes();
    replace_file(&clean.fork(), Path::new(FILE), b"newer").unwrap();
    for stop in 0..8 {
        for seed in 0..50 {
            let disk = clean.fork();
            disk.stop_at(before + stop);
            let done = replace_file(&disk, Path::new(FILE), b"newer").is_ok();
            disk.crash(Crash::PowerCut { seed });
            let left = contents(&disk);
            assert!(left == b"old" || left == b"newer", "stop {stop} seed {seed} left {left:?}");
            assert!(!done || left == b"newer", "stop {stop} seed {seed} lost a durable replacement");
            replace_file(&disk, Path::new(FILE), b"again").unwrap();
        }
    }
}

#[test]
fn a_dead_process_loses_nothing_it_wrote_but_its_handles_and_locks() {
    let (disk, file) = disk_with_file();
    let old_lock = disk.lock(Path::new("/data/lock")).unwrap();
    file.write_at(Position(0), &[b"cached"]).unwrap();
    disk.crash(Crash::ProcessOnly);
    assert_eq!(file.write_at(Position(0), &[b"ghost"]).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(contents(&disk), b"cached");
    let _new_lock = disk.lock(Path::new("/data/lock")).unwrap();
    drop(old_lock);
    let error = disk.lock(Path::new("/data/lock")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "the old guard released the new process's lock");
    // The cache is not the disk: a power cut still takes it.
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&disk), b"");
}

#[test]
fn after_a_failed_sync_a_second_one_lies() {
    let (disk, file) = disk_with_file();
    file.write_at(Position(0), &[b"data"]).unwrap();
    disk.inject(Fault::next(Operation::Sync, Failure::Io).on_path("log"));
    assert!(file.sync().is_err());
    file.sync().unwrap();
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&disk), b"");
}

/// The kernel has marked the pages clean, and the next process finds them in the cache: only what it
/// writes again can reach the disk.
#[test]
fn a_failed_sync_lies_to_the_next_process_too() {
    for written_again in [false, true] {
        let (disk, file) = disk_with_file();
        file.write_at(Position(0), &[b"data"]).unwrap();
        disk.inject(Fault::next(Operation::Sync, Failure::Io));
        assert!(file.sync().is_err());
        disk.crash(Crash::ProcessOnly);
        assert_eq!(contents(&disk), b"data");
        let file = disk.open(Path::new(FILE), OpenMode::ReadWrite).unwrap();
        if written_again {
            file.write_at(Position(0), &[b"data"]).unwrap();
        }
        file.sync().unwrap();
        disk.crash(Crash::LoseUnsynced);
        assert_eq!(contents(&disk), if written_again { b"data".as_slice() } else { b"" });
    }
}

#[test]
fn a_lost_write_shows_until_the_cache_is_dropped() {
    let (disk, file) = disk_with_file();
    file.write_at(Position(0), &[b"old!"]).unwrap();
    file.sync().unwrap();
    disk.inject(Fault::next(Operation::Write, Failure::Lost));
    file.write_at(Position(0), &[b"new!"]).unwrap();
    file.sync().unwrap();
    assert_eq!(contents(&disk), b"new!");
    disk.drop_caches();
    assert_eq!(contents(&disk), b"old!");
}

#[test]
fn a_misdirected_write_lands_elsewhere_and_lengthens_nothing() {
    let (disk, file) = disk_with_file();
    let other = disk.open(Path::new("/data/other"), OpenMode::CreateNew).unwrap();
    other.write_at(Position(0), &[b"victim"]).unwrap();
    other.sync().unwrap();
    let path = PathBuf::from("/data/other");
    let failure = Failure::Misdirected { path: path.clone(), position: Position(4) };
    disk.inject(Fault::next(Operation::Write, failure).on_path("log"));
    file.write_at(Position(0), &[b"astray"]).unwrap();
    file.sync().unwrap();
    assert_eq!(read_whole(&disk, &path, 100).unwrap(), b"victas");
    disk.sync_dir(Path::new("/data")).unwrap();
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&disk), b"");
    assert_eq!(read_whole(&disk, &path, 100).unwrap(), b"victas");
}

#[test]
fn spoiled_bytes_are_refused_until_they_are_written_anew() {
    let (disk, file) = disk_with_file();
    file.write_at(Position(0), &[&[1; 2000]]).unwrap();
    disk.spoil(Path::new(FILE), 512..1024).unwrap();
    let mut bytes = [0; 100];
    file.read_at(Position(412), &mut bytes).unwrap();
    file.read_at(Position(1024), &mut bytes).unwrap();
    assert_eq!(file.read_at(Position(450), &mut bytes).unwrap_err().raw_os_error(), Some(5));
    file.write_at(Position(512), &[&[2; 512]]).unwrap();
    file.read_at(Position(450), &mut bytes).unwrap();
}

#[test]
fn a_failing_write_has_written_as_much_as_was_ordered() {
    for (written, len) in [(Written::Nothing, 0), (Written::Half, 2), (Written::All, 4)] {
        let (disk, file) = disk_with_file();
        disk.inject(Fault { written, ..Fault::next(Operation::Write, Failure::NoSpace) });
        let error = file.write_at(Position(0), &[b"data"]).unwrap_err();
        assert_eq!((error.kind(), contents(&disk).len()), (ErrorKind::StorageFull, len));
    }
}

#[test]
fn calls_are_noted_with_their_range() {
    let (disk, file) = disk_with_file();
    disk.note_calls();
    file.write_at(Position(7), &[b"da", b"ta"]).unwrap();
    file.sync().unwrap();
    let call = |operation, position, bytes| Call {
        operation,
        path: PathBuf::from(FILE),
        position: Position(position),
        bytes,
    };
    assert_eq!(disk.calls(), [call(Operation::Write, 7, 4), call(Operation::Sync, 0, 0)]);
}

#[test]
fn faults_strike_their_operation_path_and_turn() {
    let (disk, file) = disk_with_file();
    let mut fault = Fault::next(Operation::Write, Failure::NoSpace).on_path("log");
    fault.after = 1;
    fault.lasting = Lasting::Always;
    disk.inject(fault);
    let other = disk.open(Path::new("/data/other"), OpenMode::CreateNew).unwrap();
    other.write_at(Position(0), &[b"x"]).unwrap();
    file.write_at(Position(0), &[b"first"]).unwrap();
    for _ in 0..2 {
        let error = file.write_at(Position(5), &[b"second"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
    }
    disk.clear_faults();
    file.write_at(Position(5), &[b"second"]).unwrap();
    disk.inject(Fault::next(Operation::Rename, Failure::Io));
    assert!(disk.rename(Path::new(FILE), Path::new("/data/moved")).is_err());
    assert_eq!(contents(&disk), b"firstsecond");
}

#[test]
fn a_full_disk_refuses_growth_until_space_comes_back() {
    let (disk, file) = disk_with_file();
    disk.set_free_bytes(1000);
    file.write_at(Position(0), &[&[1; 900]]).unwrap();
    let error = file.write_at(Position(900), &[&[1; 200]]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    file.write_at(Position(0), &[&[2; 900]]).unwrap();
    file.truncate(100).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 900);
    drop(file);
    disk.remove(Path::new(FILE)).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 1000);
}

#[test]
fn a_flipped_bit_is_read_and_survives_a_crash() {
    let (disk, file) = disk_with_file();
    file.write_at(Position(0), &[&[0; 600]]).unwrap();
    file.sync().unwrap();
    disk.flip_bit(Path::new(FILE), Position(513), 3).unwrap();
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&disk)[513], 8);
    let beyond = disk.flip_bit(Path::new(FILE), Position(600), 0).unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn equal_calls_leave_equal_traces_and_images() {
    let run = |seed| {
        let (disk, file) = disk_with_file();
        for step in 0..50_u64 {
            file.write_at(Position(step * 300), &[&step.to_le_bytes(), &[5; 292]]).unwrap();
            if step % 7 == 1 {
                file.sync().unwrap();
            }
        }
        disk.crash(Crash::PowerCut { seed });
        (disk.trace(), disk.fingerprint())
    };
    assert_eq!(run(3), run(3));
    let images: BTreeSet<u64> = (0..40).map(|seed| run(seed).1).collect();
    assert!(images.len() > 5, "seeds barely matter: {}", images.len());
}

#[test]
fn a_fork_goes_its_own_way() {
    let (disk, file) = disk_with_file();
    file.write_at(Position(0), &[b"shared"]).unwrap();
    let other = disk.fork();
    file.write_at(Position(0), &[b"SHARED"]).unwrap();
    assert_eq!(contents(&other), b"shared");
    assert_eq!(other.files(), [Path::new(FILE)]);
    other.crash(Crash::LoseUnsynced);
    assert_eq!(contents(&disk), b"SHARED");
    assert_eq!(disk.unsynced(Path::new(FILE)).unwrap(), 2);
}

/// A file made and moved away, both unsynced: syncing the new directory and then the old one must
/// not bring the old name back.
#[test]
fn a_file_moved_before_its_making_was_synced_has_one_name() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    for dir in ["/from", "/to"] {
        storage.create_dir(Path::new(dir)).unwrap();
    }
    storage.sync_dir(Path::new("/")).unwrap();
    storage.open(Path::new("/from/a"), OpenMode::CreateNew).unwrap();
    storage.rename(Path::new("/from/a"), Path::new("/to/a")).unwrap();
    storage.sync_dir(Path::new("/to")).unwrap();
    storage.sync_dir(Path::new("/from")).unwrap();
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(disk.files(), [Path::new("/to/a")]);
}

/// Every state of one file that was made and written, over two sectors, and never synced: no name at all,
/// or the name with each length and each of the four ways its sectors may fare.
#[test]
fn all_that_a_crash_may_leave_can_be_gone_through() {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    storage.create_dir(Path::new("/d")).unwrap();
    storage.sync_dir(Path::new("/")).unwrap();
    let file = storage.open(Path::new("/d/f"), OpenMode::CreateNew).unwrap();
    file.write_at(Position::ZERO, &[&[7; 1024]]).unwrap();
    let (mut images, mut tried, mut path) = (BTreeSet::new(), 0, Some(Vec::new()));
    while let Some(told) = path {
        let crashed = disk.fork();
        let taken = crashed.crash_choosing(&told);
        images.insert(crashed.fingerprint());
        tried += 1;
        path = next_path(&taken);
    }
    // Without a name; without a length, whatever the data; with it: nothing, each half, all.
    assert_eq!(images.len(), 1 + 1 + 4);
    assert_eq!(tried, 1 + 2 * 4);
    let kept = disk.fork();
    drop(kept.crash_choosing(&[]));
    assert_eq!(kept.fingerprint(), disk.fingerprint(), "the first path keeps everything");
}
