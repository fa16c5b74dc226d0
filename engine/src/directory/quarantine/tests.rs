use super::*;
use crate::storage::read_whole;
use crate::storage::sim_disk::{Crash, Failure, Fault, Operation, SimDisk};

const DATA: &str = "/data";
const SEGMENT: &str = "/data/logs/7/0/00000000000000000000.seg";
const DAY: i64 = 24 * 3_600_000;

fn disk() -> SimDisk {
    let disk = SimDisk::new(3);
    create_dir_durably(&disk, Path::new("/"), Path::new("/data/logs/7/0")).unwrap();
    let file = disk.open(Path::new(SEGMENT), OpenMode::CreateNew).unwrap();
    file.write_at(Position(0), &[b"kept, then a torn tail"]).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/data/logs/7/0")).unwrap();
    disk
}

fn quarantine(bytes_max: u64) -> Quarantine {
    Quarantine::new(Path::new(DATA), Limits { bytes_max, age_ms_max: 10 * 24 * 3_600_000 })
}

fn cut_tail(disk: &SimDisk, to: &Quarantine, now: i64) -> SetAside {
    let path = Path::new(SEGMENT);
    to.set_aside_range(disk, path, Position(6), Position(1 << 40), "checksum differs", TimestampMs(now))
        .unwrap()
}

fn text(disk: &SimDisk, path: &Path) -> String {
    String::from_utf8(read_whole(disk, path, 4096).unwrap()).unwrap()
}

#[test]
fn a_range_set_aside_survives_the_power_cut_that_follows_the_cut() {
    for seed in 0..100 {
        let disk = disk();
        let aside = cut_tail(&disk, &quarantine(1000), DAY);
        disk.open(Path::new(SEGMENT), OpenMode::ReadWrite).unwrap().truncate(6).unwrap();
        disk.crash(Crash::PowerCut { seed });
        assert_eq!(text(&disk, &aside.path), "then a torn tail");
        let note = text(&disk, &note_of(&aside.path));
        assert!(note.contains("bytes 6..22 of /data/logs/7/0/00000000000000000000.seg"), "{note}");
        assert!(note.contains("why: checksum differs"), "{note}");
    }
}

/// Names and notes are a format: tools and people find by them what was cut.
#[test]
fn format_1_names_and_notes_never_change() {
    let disk = disk();
    let to = quarantine(1000);
    let cut = cut_tail(&disk, &to, DAY);
    let name = "/data/quarantine/0000000001-00000086400000-logs-7-0-00000000000000000000.seg.piece";
    assert_eq!(cut.path, Path::new(name));
    let note = include_str!("../../../testdata/format-1/quarantine-range.note");
    assert_eq!(text(&disk, &note_of(&cut.path)), note);

    let moved =
        to.set_aside_file(&disk, Path::new(SEGMENT), "its name is not ours", TimestampMs(DAY + 1)).unwrap();
    let name = "/data/quarantine/0000000002-00000086400001-logs-7-0-00000000000000000000.seg.piece";
    assert_eq!(moved.path, Path::new(name));
    let note = include_str!("../../../testdata/format-1/quarantine-file.note");
    assert_eq!(text(&disk, &note_of(&moved.path)), note);
    // And back: what is named like this counts as a piece, oldest first.
    let pieces = to.pieces(&disk).unwrap();
    let found: Vec<_> = pieces.iter().map(|piece| (piece.number, piece.at, piece.path.clone())).collect();
    assert_eq!(found, [(1, DAY, cut.path), (2, DAY + 1, moved.path)]);
}

#[test]
fn a_file_or_a_directory_is_moved_whole_and_durably() {
    for path in [SEGMENT, "/data/logs/7"] {
        let disk = disk();
        let path = Path::new(path);
        let aside = quarantine(1000).set_aside_file(&disk, path, "misplaced", TimestampMs(5)).unwrap();
        disk.crash(Crash::LoseUnsynced);
        assert_eq!(aside.bytes, 22);
        assert_eq!(disk.open(path, OpenMode::Read).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(disk.files().iter().filter(|file| file.starts_with(&aside.path)).count(), 1);
    }
}

#[test]
fn too_many_bytes_evict_the_oldest_and_say_so() {
    let disk = disk();
    let first = cut_tail(&disk, &quarantine(40), 1);
    let second = cut_tail(&disk, &quarantine(40), 2);
    assert_eq!((&first.evicted, &second.evicted), (&vec![], &vec![]));
    let third = cut_tail(&disk, &quarantine(40), 3);
    let gone = Evicted { path: first.path.clone(), bytes: 16, cause: EvictionCause::Bytes };
    assert_eq!(third.evicted, [gone]);
    let left = disk.files();
    assert!(!left.contains(&first.path) && !left.contains(&note_of(&first.path)));
    assert!(left.contains(&second.path) && left.contains(&third.path));
}

#[test]
fn a_piece_larger_than_the_limit_is_kept_alone() {
    let disk = disk();
    let first = cut_tail(&disk, &quarantine(3), 1);
    let second = cut_tail(&disk, &quarantine(3), 2);
    assert_eq!(second.evicted.len(), 1);
    assert_eq!(second.evicted[0].path, first.path);
    assert_eq!(text(&disk, &second.path), "then a torn tail");
}

#[test]
fn age_evicts_directories_too_and_a_clock_set_back_evicts_nothing() {
    let disk = disk();
    let first =
        quarantine(1000).set_aside_file(&disk, Path::new("/data/logs"), "unknown", TimestampMs(20 * DAY));
    let first = first.unwrap();
    let quarantine = quarantine(1000);
    assert_eq!(quarantine.enforce_limits(&disk, TimestampMs(DAY)).unwrap(), []);
    let evicted = quarantine.enforce_limits(&disk, TimestampMs(31 * DAY)).unwrap();
    assert_eq!(evicted, [Evicted { path: first.path, bytes: 22, cause: EvictionCause::Age }]);
    assert!(disk.list(Path::new("/data/quarantine")).unwrap().is_empty());
}

#[test]
fn a_full_disk_is_an_error_before_anything_is_cut() {
    let disk = disk();
    let before = text(&disk, Path::new(SEGMENT));
    disk.inject(Fault::next(Operation::Write, Failure::NoSpace).on_path(".piece"));
    let at = (Position(6), Position(22));
    let error = quarantine(1000)
        .set_aside_range(&disk, Path::new(SEGMENT), at.0, at.1, "torn", TimestampMs(1))
        .unwrap_err();
    assert!(error.to_string().starts_with("E0209 /data/quarantine/"), "{error}");
    assert_eq!(text(&disk, Path::new(SEGMENT)), before);
    assert_eq!(cut_tail(&disk, &quarantine(1000), 2).bytes, 16);
}

#[test]
fn strange_files_in_quarantine_are_left_alone() {
    let disk = disk();
    create_dir_durably(&disk, Path::new(DATA), Path::new("/data/quarantine")).unwrap();
    for name in ["notes of mine", "x-1-2", "0-0", "-"] {
        drop(disk.open(&Path::new("/data/quarantine").join(name), OpenMode::CreateNew).unwrap());
    }
    cut_tail(&disk, &quarantine(1), 1).evicted.is_empty().then_some(()).unwrap();
    assert_eq!(quarantine(1).enforce_limits(&disk, TimestampMs(100 * DAY)).unwrap().len(), 1);
    assert_eq!(disk.list(Path::new("/data/quarantine")).unwrap().len(), 4);
}

/// A dangling link or a pipe among the pieces could not be sized, so nothing was ever set aside again and
/// the logs that needed it did not open. To open the pipe would even have waited for its other end.
#[test]
fn a_piece_that_cannot_be_sized_does_not_keep_others_out() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path();
    let disk = crate::storage::os::OsStorage;
    let dir = data.join("quarantine");
    disk.create_dir(&dir).unwrap();
    rustix::fs::symlink("nowhere", dir.join("0000000001-00000000000001-link.piece")).unwrap();
    let pipe = dir.join("0000000002-00000000000001-pipe.piece");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let file = disk.open(&data.join("torn.seg"), OpenMode::CreateNew).unwrap();
    file.write_at(Position(0), &[b"torn"]).unwrap();
    let quarantine = Quarantine::new(data, Limits { bytes_max: 100, age_ms_max: 10 });
    let set_aside = quarantine.set_aside_file(&disk, &data.join("torn.seg"), "torn", TimestampMs(5)).unwrap();
    assert_eq!((set_aside.bytes, set_aside.evicted.len()), (4, 0));
    let evicted = quarantine.enforce_limits(&disk, TimestampMs(12)).unwrap();
    assert_eq!(evicted.iter().map(|gone| gone.bytes).collect::<Vec<_>>(), [0, 0], "both by their age");
}

/// Once a piece is durable, old pieces that cannot be removed are no reason to say that it is not.
#[test]
fn a_failed_eviction_does_not_fail_what_was_set_aside() {
    let disk = disk();
    let first = cut_tail(&disk, &quarantine(20), 1);
    disk.inject(Fault::next(Operation::Remove, Failure::Io).on_path(".piece"));
    let second = cut_tail(&disk, &quarantine(20), 2);
    assert_eq!(second.evicted, []);
    assert_eq!(text(&disk, &second.path), "then a torn tail");
    assert_eq!(cut_tail(&disk, &quarantine(20), 3).evicted[0].path, first.path);
}

/// A start that set aside more than the cap evicted pieces that it had made seconds before: what had been
/// cut was nowhere any more.
#[test]
fn a_start_keeps_all_that_it_sets_aside_and_the_next_one_enforces_the_limit() {
    let disk = disk();
    let start = quarantine(20);
    let own: Vec<SetAside> = (1..=3).map(|now| cut_tail(&disk, &start, now)).collect();
    assert!(own.iter().all(|aside| aside.evicted.is_empty()));
    assert_eq!(start.enforce_limits(&disk, TimestampMs(100 * DAY)).unwrap(), []);
    assert!(own.iter().all(|aside| text(&disk, &aside.path) == "then a torn tail"));
    let next = cut_tail(&disk, &quarantine(20), 4);
    let gone: Vec<&Path> = next.evicted.iter().map(|evicted| evicted.path.as_path()).collect();
    assert_eq!(gone, own.iter().map(|aside| aside.path.as_path()).collect::<Vec<_>>());
}

/// Logs are opened on several threads. One evicted the piece that another had not finished, which was then
/// synced without a name while its original was cut; and two could be given the same number.
#[cfg(not(feature = "interleave"))]
#[test]
fn threads_that_set_aside_at_once_get_a_piece_each_and_evict_none() {
    let disk = disk();
    let start = quarantine(20);
    let mut pieces: Vec<PathBuf> = std::thread::scope(|scope| {
        let cut = || (0..10).map(|_| cut_tail(&disk, &start, DAY).path).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(cut)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pieces.iter().all(|piece| text(&disk, piece) == "then a torn tail"));
    pieces.sort();
    pieces.dedup();
    assert_eq!(pieces.len(), 80);
}
