use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tidelog_engine::offline::{self, Context, Detail, Label, Part, SegmentMap, Target, Verified, Why};
use tidelog_engine::segment::header::HeaderFault;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{LogId, Offset, Partition, TimestampMs};

use crate::harm::{harm, inflict};
use crate::world::{
    CONFIG, LOG, append, batch, data, engine, formatted, make_checkpoint, open, read_file, segment_path,
    shared,
};

/// A node's directory, stopped: sealed segments and an active one, all of it below the checkpoint.
fn stopped() -> SimDisk {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=50);
    make_checkpoint(&engine, 50, &writer);
    disk
}

fn target(disk: &SimDisk) -> Target {
    offline::find(disk.storage().as_ref(), data()).unwrap()
}

fn verify(disk: &SimDisk) -> Verified {
    offline::verify(disk.storage().as_ref(), &target(disk), &mut |_| {})
}

fn map(disk: &SimDisk, path: &Path, detail: Detail) -> SegmentMap {
    let file = disk.storage().open(path, OpenMode::Read).unwrap();
    offline::map(file.as_ref(), &Context { detail, ..Context::default() }).unwrap()
}

fn bases(disk: &SimDisk) -> Vec<u64> {
    let logs = target(disk).logs;
    logs[0].segments.iter().map(|segment| segment.base.get()).collect()
}

/// The frames of a file: bytes and records of each.
fn frames(disk: &SimDisk, path: &Path) -> Vec<(Range<u64>, Range<Offset>)> {
    let parts = map(disk, path, Detail::EachFrame).parts;
    parts
        .into_iter()
        .filter_map(|Part { bytes, label }| match label {
            Label::Frames { records, .. } => Some((bytes, records)),
            Label::Header
            | Label::Padding
            | Label::Index { .. }
            | Label::Footer
            | Label::TornTail { .. }
            | Label::Damage { .. }
            | Label::Foreign { .. } => None,
        })
        .collect()
}

fn write(disk: &SimDisk, path: &Path, at: u64, bytes: &[u8]) {
    let file = disk.storage().open(path, OpenMode::ReadWrite).unwrap();
    file.write_at(Position(at), &[bytes]).unwrap();
    file.sync().unwrap();
}

fn truncate(disk: &SimDisk, path: &Path, len: u64) {
    let file = disk.storage().open(path, OpenMode::ReadWrite).unwrap();
    file.truncate(len).unwrap();
    file.sync().unwrap();
}

#[track_caller]
fn only_damage(disk: &SimDisk) -> (PathBuf, Range<u64>, Option<Range<Offset>>, Why) {
    let mut damage = verify(disk).damage;
    assert_eq!(damage.len(), 1, "{damage:#?}");
    let one = damage.remove(0);
    (one.path, one.bytes, one.offsets, one.why)
}

#[track_caller]
fn assert_tiled(map: &SegmentMap) {
    let mut at = 0;
    for part in &map.parts {
        assert_eq!(part.bytes.start, at, "{map:#?}");
        assert!(part.bytes.end > at, "{map:#?}");
        at = part.bytes.end;
    }
    assert_eq!(at, map.len, "{map:#?}");
}

#[test]
fn a_sound_directory_has_no_findings_and_every_byte_a_label() {
    let disk = stopped();
    let verified = verify(&disk);
    assert!(verified.damage.is_empty() && verified.torn.is_empty(), "{verified:#?}");
    assert_eq!(verified.files, u64::try_from(bases(&disk).len()).unwrap());
    assert!(bases(&disk).len() > 3);
    let names = |base| {
        let map = map(&disk, &segment_path(base), Detail::Runs);
        assert_tiled(&map);
        map.parts.iter().map(|part| part.label.name()).collect::<Vec<_>>()
    };
    assert_eq!(names(0), ["header", "frames", "index", "footer"]);
    assert_eq!(names(*bases(&disk).last().unwrap()), ["header", "frames"]);
}

#[test]
fn a_flipped_bit_in_a_frame_is_named_with_its_frame_and_its_records() {
    let disk = stopped();
    let path = segment_path(0);
    let (bytes, records) = frames(&disk, &path)[2].clone();
    for at in [bytes.start, bytes.start + 20, bytes.start + 48 + 30, bytes.end - 1] {
        disk.flip_bit(&path, Position(at), 3).unwrap();
        let (found, damaged, offsets, _) = only_damage(&disk);
        assert_eq!(
            (found, damaged, offsets),
            (path.clone(), bytes.clone(), Some(records.clone())),
            "byte {at}"
        );
        disk.flip_bit(&path, Position(at), 3).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_header_index_or_footer_is_named_and_costs_no_records() {
    let disk = stopped();
    let path = segment_path(0);
    let len = u64::try_from(read_file(&disk, &path).len()).unwrap();
    for at in [len - 64 - 24, len - 64, len - 30, len - 1] {
        disk.flip_bit(&path, Position(at), 0).unwrap();
        assert_eq!(only_damage(&disk), (path.clone(), at..at + 1, None, Why::Seal));
        disk.flip_bit(&path, Position(at), 0).unwrap();
    }
    disk.flip_bit(&path, Position(50), 0).unwrap();
    let (found, bytes, offsets, why) = only_damage(&disk);
    assert_eq!((found, bytes, offsets), (path, 0..80, None));
    assert!(matches!(why, Why::Header(HeaderFault::Checksum { .. })), "{why:?}");
}

#[test]
fn a_zeroed_sector_is_named_by_the_frames_that_it_touches() {
    let disk = stopped();
    let path = segment_path(0);
    write(&disk, &path, 512, &[0; 512]);
    let pristine = stopped();
    let touched: Vec<_> = frames(&pristine, &path)
        .into_iter()
        .filter(|(bytes, _)| bytes.start < 1024 && bytes.end > 512)
        .collect();
    let (first, last) = (touched.first().unwrap(), touched.last().unwrap());
    let (found, bytes, offsets, _) = only_damage(&disk);
    assert_eq!(found, path);
    assert_eq!(bytes, first.0.start..last.0.end);
    assert_eq!(offsets, Some(first.1.start..last.1.end));
}

#[test]
fn a_cut_tail_is_named_wherever_the_cut_goes_through() {
    let path = segment_path(0);
    let len = u64::try_from(read_file(&stopped(), &path).len()).unwrap();
    let (last, records) = frames(&stopped(), &path).last().unwrap().clone();

    let disk = stopped();
    truncate(&disk, &path, len - 10);
    assert_eq!(only_damage(&disk), (path.clone(), len - 10..len, None, Why::NoFooter));

    let disk = stopped();
    truncate(&disk, &path, last.end);
    assert_eq!(only_damage(&disk), (path.clone(), last.end..len, None, Why::NoFooter));

    let disk = stopped();
    truncate(&disk, &path, last.start);
    assert_eq!(
        only_damage(&disk),
        (path.clone(), last.start..last.start, Some(records.clone()), Why::CutShort)
    );

    let disk = stopped();
    truncate(&disk, &path, last.start + 100);
    let (_, bytes, offsets, _) = only_damage(&disk);
    assert_eq!((bytes, offsets), (last.start..last.start + 100, Some(records)));

    let active = segment_path(*bases(&disk).last().unwrap());
    let disk = stopped();
    let (last, records) = frames(&disk, &active).last().unwrap().clone();
    truncate(&disk, &active, last.start);
    assert_eq!(only_damage(&disk), (active, last.start..last.end, Some(records), Why::CutShort));
}

#[test]
fn swapped_frames_are_told_where_they_belong() {
    let disk = stopped();
    let path = segment_path(0);
    let all = frames(&disk, &path);
    let ((one, _), (other, _)) = (all[1].clone(), all[4].clone());
    assert_eq!(one.end - one.start, other.end - other.start);
    let content = read_file(&disk, &path);
    let slice = |range: &Range<u64>| {
        content[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec()
    };
    write(&disk, &path, one.start, &slice(&other));
    write(&disk, &path, other.start, &slice(&one));
    let damage = verify(&disk).damage;
    let found: Vec<_> = damage.iter().map(|finding| (finding.bytes.clone(), finding.why.clone())).collect();
    let why = |belongs: u64, at: usize| Why::Displaced { belongs, offsets: all[at].1.clone() };
    let belong = [why(other.start, 4), why(one.start, 1)];
    assert_eq!(found, [one, other].into_iter().zip(belong).collect::<Vec<_>>());
}

#[test]
fn a_segment_of_another_log_is_foreign_and_its_place_is_empty() {
    let disk = stopped();
    let engine = engine(&disk);
    let other = LogId { partition: Partition(4), ..LOG };
    let (mut writer, _) = engine.open_log(other, CONFIG, None).unwrap();
    append(&mut writer, 1..=50);
    let copied = read_file(&disk, &data().join("logs/7/4").join(segment_path(0).file_name().unwrap()));
    drop((writer, engine));
    let path = segment_path(0);
    truncate(&disk, &path, 0);
    write(&disk, &path, 0, &copied);
    let mut damage = verify(&disk).damage;
    damage.retain(|finding| finding.log == Some(LOG));
    assert_eq!(damage.len(), 1, "{damage:#?}");
    assert_eq!(damage[0].bytes, 0..u64::try_from(copied.len()).unwrap());
    assert_eq!(damage[0].offsets, Some(Offset(0)..Offset(bases(&disk)[1])));
    assert!(matches!(damage[0].why, Why::OtherSegment { log, .. } if log == other));
}

#[test]
fn missing_and_strange_files_are_named() {
    let disk = stopped();
    let bases = bases(&disk);
    disk.storage().remove(&segment_path(bases[1])).unwrap();
    let damage = only_damage(&disk);
    assert_eq!(
        damage,
        (segment_path(bases[1]), 0..0, Some(Offset(bases[1])..Offset(bases[2])), Why::Missing)
    );

    let disk = stopped();
    let active = *bases.last().unwrap();
    disk.storage().remove(&segment_path(active)).unwrap();
    assert_eq!(
        only_damage(&disk),
        (segment_path(active), 0..0, Some(Offset(active)..Offset(100)), Why::Missing)
    );

    let disk = stopped();
    let stranger = data().join("logs/7/3/notes.txt");
    disk.storage().open(&stranger, OpenMode::CreateNew).unwrap();
    assert_eq!(only_damage(&disk), (stranger, 0..0, None, Why::Name));
}

/// What lies above the checkpoint is in the raft log: whatever it looks like, it is no damage.
#[test]
fn above_the_checkpoint_nothing_is_damage() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=20);
    make_checkpoint(&engine, 20, &writer);
    append(&mut writer, 21..=50);
    drop((writer, engine));
    assert!(verify(&disk).damage.is_empty());
    let bases = bases(&disk);
    for base in &bases[bases.len() - 2..] {
        let (last, _) = frames(&disk, &segment_path(*base)).pop().unwrap();
        disk.flip_bit(&segment_path(*base), Position(last.start + 60), 1).unwrap();
    }
    let verified = verify(&disk);
    assert!(verified.damage.is_empty(), "{:#?}", verified.damage);
    assert_eq!(verified.torn.len(), 2);
}

/// The fuzz target `offline` cut the power of a node: of a log that was made after its group's checkpoint no frame was left,
/// so it was taken for an embedded one, whose segments are durable before they have a successor, and called damaged.
#[test]
fn a_log_that_no_checkpoint_names_yet_may_have_lost_every_frame() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=20);
    make_checkpoint(&engine, 20, &writer);
    let log = LogId { partition: Partition(LOG.partition.get() + 1), ..LOG };
    let (mut younger, _) = engine.open_log(log, CONFIG, None).unwrap();
    append(&mut younger, 21..=50);
    drop((writer, younger, engine));
    let dir = data().join("logs").join(log.generation.to_string()).join(log.partition.to_string());
    let segments: Vec<PathBuf> = disk.files().into_iter().filter(|path| path.starts_with(&dir)).collect();
    assert!(segments.len() > 1, "{segments:?}");
    for segment in segments {
        truncate(&disk, &segment, 80);
    }
    assert_eq!(verify(&disk).damage, Vec::new());
}

/// Embedded, a frame witnesses how far the file was durable: below that it is damage, above it a torn tail.
#[test]
fn an_embedded_log_tells_a_torn_tail_from_damage() {
    let disk = formatted(1);
    let (log, _) = shared(&disk);
    for number in 1..=5 {
        log.append_durable(&batch(number, 2, 100), TimestampMs(1)).unwrap();
    }
    drop(log);
    let path = segment_path(0);
    let parts = map(&disk, &path, Detail::Runs);
    assert_tiled(&parts);
    assert_eq!(parts.parts.last().unwrap().label, Label::Padding);
    let all = frames(&disk, &path);
    disk.flip_bit(&path, Position(all[4].0.start + 60), 1).unwrap();
    let verified = verify(&disk);
    assert!(verified.damage.is_empty(), "{:#?}", verified.damage);
    assert_eq!(verified.torn.len(), 1);
    disk.flip_bit(&path, Position(all[1].0.start + 60), 1).unwrap();
    let (_, bytes, offsets, _) = only_damage(&disk);
    assert_eq!((bytes, offsets), (all[1].0.clone(), Some(all[1].1.clone())));
}

#[test]
fn a_copy_without_its_directory_is_judged_by_itself() {
    let disk = stopped();
    let copy = PathBuf::from("/copy");
    disk.storage().create_dir(&copy).unwrap();
    for base in bases(&disk) {
        let path = segment_path(base);
        let to = copy.join(path.file_name().unwrap());
        disk.storage()
            .open(&to, OpenMode::CreateNew)
            .unwrap()
            .write_at(Position(0), &[&read_file(&disk, &path)])
            .unwrap();
    }
    let first = copy.join(segment_path(0).file_name().unwrap());
    disk.flip_bit(&first, Position(10), 0).unwrap();
    for path in [&copy, &first] {
        let target = offline::find(disk.storage().as_ref(), path).unwrap();
        assert_eq!(target.logs[0].log, if path == &copy { Some(LOG) } else { target.logs[0].log });
        let verified = offline::verify(disk.storage().as_ref(), &target, &mut |_| {});
        assert_eq!(verified.damage.len(), 1, "{verified:#?}");
        assert_eq!(verified.damage[0].bytes, 0..80);
    }
    assert!(offline::find(disk.storage().as_ref(), &PathBuf::from("/data/identity")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Whatever happened to a file, its parts sum to its length, and no frame that is untouched loses its label below the
    /// mark.
    #[test]
    fn every_byte_has_one_label_whatever_happened(
        which in 0..2_usize,
        harms in proptest::collection::vec(harm(), 0..5),
        whole in any::<bool>(),
    ) {
        let disk = stopped();
        let bases = bases(&disk);
        let base = if which == 0 { bases[0] } else { *bases.last().unwrap() };
        let path = segment_path(base);
        let before = read_file(&disk, &path);
        let sound = frames(&disk, &path);
        let mut after = before.clone();
        for harm in &harms {
            inflict(&mut after, harm);
        }
        truncate(&disk, &path, 0);
        write(&disk, &path, 0, &after);
        let promise = if whole { offline::Promise::All } else { offline::Promise::default() };
        let context = Context {
            cluster: Some(tidelog_wire::ids::ClusterId(1)),
            log: Some(LOG),
            base: Some(Offset(base)),
            promise,
            detail: Detail::EachFrame,
            ..Context::default()
        };
        let file = disk.storage().open(&path, OpenMode::Read).unwrap();
        let found = offline::map(file.as_ref(), &context).unwrap();
        assert_tiled(&found);
        if whole {
            for (bytes, records) in sound {
                let range = usize::try_from(bytes.start).unwrap()..usize::try_from(bytes.end).unwrap();
                if after.get(range.clone()) == before.get(range) {
                    let kept = found.parts.iter().any(|part| {
                        part.bytes == bytes
                            && matches!(&part.label, Label::Frames { records: found, .. } if *found == records)
                    });
                    prop_assert!(kept, "intact frame {bytes:?}: {found:#?}");
                }
            }
        }
    }
}
