//! Whole segment files of format 1, kept for ever: this release writes the same bytes, and reads them.

use std::path::Path;

use tidelog_engine::log::recovery::table::Verdict;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_wire::ids::{Offset, TimestampMs};

use crate::world::{batch, data, formatted, read_all, read_file, segment_path, shared};

const SEALED: &[u8] = include_bytes!("../../testdata/format-1/sealed-segment.bin");
const ACTIVE: &[u8] = include_bytes!("../../testdata/format-1/active-segment.bin");

/// Three batches with a mark between them fill the first segment; two and a mark stand in the second, and zeros ahead.
fn written() -> SimDisk {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 2, 100), TimestampMs(10)).unwrap();
    log.idle().unwrap();
    log.append_durable(&batch(2, 1, 1_500), TimestampMs(20)).unwrap();
    log.append_durable(&batch(3, 3, 400), TimestampMs(30)).unwrap();
    log.append_durable(&batch(4, 2, 500), TimestampMs(40)).unwrap();
    log.append_durable(&batch(5, 1, 10), TimestampMs(50)).unwrap();
    log.idle().unwrap();
    disk
}

/// The file at `path` up to `len`, and whether only zeros follow.
fn beginning(disk: &SimDisk, path: &Path, len: usize) -> (Vec<u8>, bool) {
    let mut bytes = read_file(disk, path);
    let zeros = bytes.split_off(len.min(bytes.len()));
    (bytes, zeros.iter().all(|byte| *byte == 0))
}

#[test]
fn format_1_segment_files_never_change() {
    let disk = written();
    assert_eq!(read_file(&disk, &segment_path(0)), SEALED, "a sealed segment");
    assert_eq!(beginning(&disk, &segment_path(6), ACTIVE.len()), (ACTIVE.to_vec(), true), "an active one");
    assert_eq!(ACTIVE.last(), Some(&0), "some of the zeros are kept too");
}

#[test]
fn format_1_segment_files_are_read_and_go_on() {
    let before = written();
    let expected = read_all(&shared(&before).0.reader(), Offset(0)).unwrap();
    before.crash(Crash::ProcessOnly);

    let disk = formatted(8);
    disk.create_dir(segment_path(0).parent().unwrap()).unwrap();
    for (base, bytes) in [(0, SEALED), (6, ACTIVE)] {
        let file = disk.open(&segment_path(base), OpenMode::CreateNew).unwrap();
        file.write_at(Position::ZERO, &[bytes]).unwrap();
    }
    let (log, recovery) = shared(&disk);
    assert!(recovery.findings.iter().all(|finding| finding.verdict == Verdict::Intact), "{recovery:?}");
    assert_eq!(read_all(&log.reader(), Offset(0)).unwrap(), expected);
    assert_eq!(log.append_durable(&batch(6, 1, 10), TimestampMs(60)).unwrap().base_offset, Offset(9));
    assert!(disk.files().iter().all(|path| !path.starts_with(data().join("quarantine"))));
}
