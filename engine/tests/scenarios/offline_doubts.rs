//! Where a repair cannot know, it leaves things as they are and says so.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tidelog_engine::offline::repair::{Action, Plan, plan, repair};
use tidelog_engine::offline::{self, Dumped, Finding, NotJudged, Why};
use tidelog_engine::sim_disk::{Failure, Fault, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{LogId, Offset, Partition, TimestampMs};

use crate::harm::{Harm, harm, inflict};
use crate::offline_repair::{bases, copy_tree, frames, other, replace, stopped};
use crate::world::{
    CONFIG, LOG, append, batch, checkpoint, data, engine, formatted, make_checkpoint, open, read_file,
    segment_path, shared,
};

pub(crate) fn embedded() -> SimDisk {
    let disk = formatted(1);
    let (log, _) = shared(&disk);
    for number in 1..=30 {
        log.append_durable(&batch(number, 2, 100), TimestampMs(1)).unwrap();
    }
    drop(log);
    copy_tree(&disk);
    disk
}

fn remove_all(disk: &SimDisk, below: &Path) {
    for path in disk.files().into_iter().filter(|path| path.starts_with(below)) {
        disk.storage().remove(&path).unwrap();
    }
}

/// The log's files of `disk` in a directory that says nothing of them.
fn bare(disk: &SimDisk) -> PathBuf {
    let copy = PathBuf::from("/bare");
    disk.storage().create_dir(&copy).unwrap();
    for base in bases(disk) {
        let path = segment_path(base);
        let file = disk.storage().open(&copy.join(path.file_name().unwrap()), OpenMode::CreateNew).unwrap();
        file.write_at(Position(0), &[&read_file(disk, &path)]).unwrap();
        file.sync().unwrap();
    }
    copy
}

fn last(disk: &SimDisk) -> PathBuf {
    segment_path(*bases(disk).last().unwrap())
}

pub(crate) fn verify(disk: &SimDisk, path: &Path) -> Vec<Finding> {
    let target = offline::find(disk.storage().as_ref(), path).unwrap();
    offline::verify(disk.storage().as_ref(), &target, &mut |_| {}).damage
}

fn planned(disk: &SimDisk, path: &Path, from: Option<&Path>) -> Plan {
    let storage = disk.storage();
    let target = offline::find(storage.as_ref(), path).unwrap();
    let from = from.map(|from| offline::find(storage.as_ref(), from).unwrap());
    plan(storage.as_ref(), &target, from.as_ref(), &mut |_| {})
}

pub(crate) fn mend(disk: &SimDisk, path: &Path, from: Option<&Path>) -> Plan {
    repair(disk.storage().as_ref(), path, from, TimestampMs(2_000), &mut |_| {}).unwrap().plan
}

#[track_caller]
fn assert_left_alone(disk: &SimDisk, path: &Path) -> Vec<Finding> {
    let before = disk.fingerprint_of(&|path| !path.ends_with("lock"));
    let done = mend(disk, path, None);
    assert!(done.steps.is_empty() && !done.left.is_empty(), "{done:#?}");
    assert_eq!(disk.fingerprint_of(&|path| !path.ends_with("lock")), before);
    done.left
}

/// Without a readable checkpoint all damage looked like a torn tail: verifying called the directory sound, and a repair cut
/// each segment at its first bad byte, with every intact frame behind it.
#[test]
fn without_a_checkpoint_no_tail_is_cut_that_has_intact_frames_in_it() {
    let disk = stopped();
    let frame = frames(&disk, &last(&disk))[0].clone();
    disk.flip_bit(&last(&disk), Position(frame.start + 70), 2).unwrap();

    disk.inject(Fault {
        lasting: tidelog_engine::sim_disk::Lasting::Always,
        ..Fault::next(Operation::List, Failure::Io).on_path("checkpoints")
    });
    let damage = verify(&disk, data());
    assert!(damage.iter().any(|one| matches!(one.why, Why::Unreadable { .. })), "{damage:#?}");
    assert_left_alone(&disk, data());
    disk.clear_faults();

    remove_all(&disk, &data().join("checkpoints"));
    let left = assert_left_alone(&disk, data());
    assert!(matches!(left[..], [Finding { why: Why::FramesBehind { .. }, .. }]), "{left:#?}");
}

/// A repair cut a torn tail to the end of the file, with the intact frames in it, and did not look at the healthy copy that
/// it had been given: damage in the last acknowledged group cost the group.
#[test]
fn a_torn_tail_is_filled_from_the_copy_before_it_is_cut() {
    // Frames of a log under consensus witness nothing: in a bare copy of it every hole of the last file is a torn tail.
    for at in [70, 10] {
        let disk = formatted(1);
        let engine = engine(&disk);
        let (mut writer, _) = open(&engine, None);
        append(&mut writer, 1..=56);
        drop((writer, engine));
        copy_tree(&disk);
        let path = bare(&disk).join(last(&disk).file_name().unwrap());
        let healthy = read_file(&disk, &path);
        let all = frames(&disk, &path);
        disk.flip_bit(&path, Position(all[all.len() - 3].start + at), 2).unwrap();
        let left = assert_left_alone(&disk, Path::new("/bare"));
        assert!(matches!(left[..], [Finding { why: Why::FramesBehind { .. }, .. }]), "{left:#?}");
        let done = mend(&disk, Path::new("/bare"), Some(&other().join("logs/7/3")));
        assert!(done.left.is_empty(), "{done:#?}");
        assert!(read_file(&disk, &path) == healthy, "{done:#?}");
    }
    let disk = embedded();
    let path = last(&disk);
    let healthy = read_file(&disk, &path);
    let bad = frames(&disk, &path).last().unwrap().clone();
    disk.flip_bit(&path, Position(bad.start + 70), 2).unwrap();
    let done = mend(&disk, data(), Some(other()));
    assert!(done.left.is_empty(), "{done:#?}");
    assert!(read_file(&disk, &path) == healthy, "{done:#?}");
}

/// Nothing says of the last frame, of which even the header is bad, that the copy's is the same: it may be another history.
#[test]
fn a_tail_that_the_copy_may_have_is_neither_filled_nor_cut() {
    let disk = embedded();
    let path = last(&disk);
    let bad = frames(&disk, &path).last().unwrap().clone();
    disk.flip_bit(&path, Position(bad.start + 10), 2).unwrap();
    let done = mend(&disk, data(), Some(other()));
    assert!(done.steps.is_empty(), "{done:#?}");
    assert!(matches!(done.left[..], [Finding { why: Why::CopyGoesOn { .. }, .. }]), "{done:#?}");
    let cut = mend(&disk, data(), None);
    assert!(matches!(cut.steps[0].action, Action::CutTail { offsets: None, .. }), "{cut:#?}");
}

/// What a raft log has may be cut, and the plan says which intact records go with it.
#[test]
fn a_tail_that_a_raft_log_has_is_cut_and_its_offsets_are_told() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=3);
    make_checkpoint(&engine, 3, &writer);
    append(&mut writer, 4..=7);
    drop((writer, engine));
    let path = segment_path(0);
    disk.flip_bit(&path, Position(frames(&disk, &path)[4].start + 70), 1).unwrap();
    let done = mend(&disk, data(), None);
    assert!(done.left.is_empty(), "{done:#?}");
    let cut: Vec<&Action> = done.steps.iter().map(|step| &step.action).collect();
    let records = Some(Offset(10)..Offset(14));
    assert!(matches!(cut[..], [Action::CutTail { offsets, .. }] if *offsets == records), "{cut:#?}");
}

/// In a copy without a data directory the first header decided whose log it is. With another channel's segment over the
/// first one, every right segment was foreign, and a repair moved all of them away.
#[test]
fn the_owner_of_a_bare_copy_is_not_decided_by_its_first_file() {
    let disk = stopped();
    let bare = bare(&disk);
    let engine = engine(&disk);
    let (mut writer, _) = engine.open_log(LogId { partition: Partition(4), ..LOG }, CONFIG, None).unwrap();
    append(&mut writer, 1..=50);
    let name = segment_path(0).file_name().unwrap().to_owned();
    let foreign = read_file(&disk, &data().join("logs/7/4").join(&name));
    drop((writer, engine));
    let healthy = read_file(&disk, &bare.join(&name));
    replace(&disk, &bare.join(&name), &foreign);
    let damage = verify(&disk, &bare);
    assert!(matches!(&damage[..], [one] if one.path == bare.join(&name)), "{damage:#?}");
    let left = assert_left_alone(&disk, &bare);
    assert!(matches!(left[..], [Finding { why: Why::OtherSegment { .. }, .. }]), "{left:#?}");
    let done = mend(&disk, &bare, Some(&other().join("logs/7/3")));
    assert!(done.left.is_empty(), "{done:#?}");
    assert!(read_file(&disk, &bare.join(&name)) == healthy);
}

/// In a data directory with the identity of another cluster every segment was moved away.
#[test]
fn segments_of_another_cluster_than_the_identity_are_left() {
    let disk = stopped();
    let strange = SimDisk::new(2);
    let new = tidelog_engine::NewIdentity {
        cluster: tidelog_wire::ids::ClusterId(9),
        node: tidelog_wire::ids::NodeId(0),
        incarnation: tidelog_wire::ids::Incarnation(2),
    };
    tidelog_engine::Engine::format(&strange.storage(), data(), new).unwrap();
    for path in strange.files().into_iter().filter(|path| path.starts_with(data().join("identity"))) {
        replace(&disk, &path, &read_file(&strange, &path));
    }
    let left = assert_left_alone(&disk, data());
    assert!(left.iter().all(|one| matches!(one.why, Why::OtherSegment { .. })), "{left:#?}");
}

/// A footer of a newer release was taken for a damaged one, and a repair wrote a footer of this release over it.
#[test]
fn what_a_newer_release_wrote_is_not_touched() {
    let newer = |bytes: &mut Vec<u8>, from: usize, format: usize| {
        bytes[format] = 2;
        let end = bytes.len() - 4;
        let sum = crc32c::crc32c(&bytes[from..end]);
        bytes[end..].copy_from_slice(&sum.to_le_bytes());
    };
    let disk = stopped();
    let path = segment_path(0);
    let mut bytes = read_file(&disk, &path);
    let footer = bytes.len() - 64;
    let frames_end = usize::try_from(frames(&disk, &path).last().unwrap().end).unwrap();
    newer(&mut bytes, frames_end, footer + 8);
    replace(&disk, &path, &bytes);
    // Elsewhere something is damaged that could be mended.
    disk.flip_bit(&segment_path(bases(&disk)[1]), Position(33), 2).unwrap();
    let left = assert_left_alone(&disk, data());
    assert!(left.iter().any(|one| matches!(one.why, Why::Footer(_))), "{left:#?}");

    let disk = stopped();
    let newest = disk.files().into_iter().rfind(|path| path.starts_with(data().join("checkpoints"))).unwrap();
    let mut bytes = read_file(&disk, &newest);
    newer(&mut bytes, 0, 8);
    replace(&disk, &newest, &bytes);
    disk.flip_bit(&segment_path(0), Position(33), 2).unwrap();
    let left = assert_left_alone(&disk, data());
    assert!(left.iter().any(|one| one.why.is_newer()), "{left:#?}");
}

/// One sector that the disk refuses made the whole segment damaged, and nothing could mend it.
#[test]
fn a_refused_sector_costs_what_it_holds_and_can_be_filled() {
    let disk = stopped();
    let path = segment_path(0);
    let healthy = read_file(&disk, &path);
    let at = frames(&disk, &path)[3].start + 70;
    disk.spoil(&path, at..at + 1).unwrap();
    let damage = verify(&disk, data());
    assert!(damage.iter().any(|one| one.path == path), "{damage:#?}");
    let told = |one: &Finding| matches!(&one.why, Why::Unreadable { error } if error.contains("os error 5"));
    assert!(damage.iter().any(told), "{damage:#?}");
    let done = mend(&disk, data(), Some(other()));
    assert!(done.left.is_empty(), "{done:#?}");
    assert!(read_file(&disk, &path) == healthy, "{done:#?}");
}

/// A lone segment with a bad header was dumped as nothing at all, without a word.
#[test]
fn a_lone_segment_with_a_bad_header_is_dumped_with_its_damage() {
    let disk = stopped();
    let copy = PathBuf::from("/copy.seg");
    let file = disk.storage().open(&copy, OpenMode::CreateNew).unwrap();
    file.write_at(Position(0), &[&read_file(&disk, &segment_path(0))]).unwrap();
    file.sync().unwrap();
    disk.flip_bit(&copy, Position(33), 2).unwrap();
    let target = offline::find(disk.storage().as_ref(), &copy).unwrap();
    let (mut batches, mut damage) = (0, 0);
    let all = Offset(0)..Offset(u64::MAX);
    offline::dump(disk.storage().as_ref(), &target.logs[0], &all, &mut |_| {}, &mut |dumped| {
        match dumped {
            Dumped::Batch { .. } => batches += 1,
            Dumped::Damage(_) => damage += 1,
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((batches, damage), (frames(&disk, &segment_path(0)).len(), 1));
}

/// A dump of the first records read the whole log before it wrote one of them.
#[test]
fn a_dump_reads_a_segment_when_its_turn_comes() {
    let disk = stopped();
    let target = offline::find(disk.storage().as_ref(), data()).unwrap();
    let mut read = 0;
    let all = Offset(0)..Offset(u64::MAX);
    let out = &mut |_: Dumped<'_>| ControlFlow::Break(());
    offline::dump(disk.storage().as_ref(), &target.logs[0], &all, &mut |bytes| read += bytes, out).unwrap();
    assert_eq!(read, 0);
}

/// Segments below the start of the log were not read: explaining such a file printed nothing, verifying it said sound.
#[test]
fn a_segment_below_the_start_of_the_log_is_looked_at_and_told_apart() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=50);
    make_checkpoint(&engine, 50, &writer);
    let mut trimmed = checkpoint(51, &writer);
    trimmed.logs[0].state.start = Offset(60);
    engine.write_checkpoint(&trimmed).unwrap();
    drop((writer, engine));
    let path = segment_path(0);
    disk.flip_bit(&path, Position(frames(&disk, &path)[3].start + 70), 2).unwrap();
    for asked in [data(), &path] {
        let target = offline::find(disk.storage().as_ref(), asked).unwrap();
        let verified = offline::verify(disk.storage().as_ref(), &target, &mut |_| {});
        assert!(verified.damage.is_empty() && verified.below_start.len() == 1, "{verified:#?}");
    }
    let target = offline::find(disk.storage().as_ref(), &path).unwrap();
    let verdict =
        offline::verify_log(disk.storage().as_ref(), &target.logs[0], offline::Detail::Runs, &mut |_| {});
    assert_eq!(verdict.maps.len(), 1);
    assert!(mend(&disk, data(), None).steps.is_empty());
}

/// A log whose files were all lost was missed when the `logs` directory was named instead of the one above; and nobody looked
/// at the copies of the identity.
#[test]
fn a_lost_log_and_a_bad_identity_are_findings() {
    let disk = stopped();
    remove_all(&disk, &data().join("logs/7/3"));
    for asked in [data().to_path_buf(), data().join("logs")] {
        let damage = verify(&disk, &asked);
        assert!(matches!(damage[..], [Finding { why: Why::Missing, .. }]), "{damage:#?}");
    }
    let disk = stopped();
    let identity = disk.files().into_iter().find(|path| path.starts_with(data().join("identity"))).unwrap();
    disk.flip_bit(&identity, Position(10), 1).unwrap();
    let damage = verify(&disk, data());
    assert!(matches!(&damage[..], [one] if one.path == identity), "{damage:#?}");
}

/// All files of the copy were opened at once, whether they were needed or not, and one that could not be opened was passed
/// over without a word.
#[test]
fn a_copy_that_cannot_be_opened_is_told_and_one_that_is_not_needed_is_not_read() {
    let disk = stopped();
    let path = segment_path(0);
    let fault = Fault::next(Operation::Open, Failure::Io).on_path("other/logs/7/3/00000000000000000000.seg");
    disk.inject(Fault { lasting: tidelog_engine::sim_disk::Lasting::Always, ..fault });
    assert_eq!(planned(&disk, data(), Some(other())), Plan::default());
    disk.flip_bit(&path, Position(frames(&disk, &path)[3].start + 70), 2).unwrap();
    let done = planned(&disk, data(), Some(other()));
    let copy = other().join(path.strip_prefix(data()).unwrap());
    assert!(done.left.iter().any(|one| one.path == copy), "{done:#?}");
}

/// A header of another history checks itself as well as the right one does, and was taken from the copy where neither it nor
/// the first frame was good.
#[test]
fn a_header_is_taken_from_the_copy_only_with_proof() {
    let disk = stopped();
    let alien = formatted(9);
    let engine = engine(&alien);
    let (mut writer, _) = open(&engine, None);
    for index in 1..=50 {
        let (_, stamp) = crate::world::entry(index);
        writer.append(&batch(index + 1_000, 2, 100), stamp).unwrap();
    }
    drop((writer, engine));
    let base = bases(&disk)[2];
    let path = segment_path(base);
    assert!(bases(&alien).contains(&base));
    // The segment before ends with nothing either.
    disk.storage().remove(&segment_path(bases(&disk)[1])).unwrap();
    disk.flip_bit(&path, Position(50), 2).unwrap();
    disk.flip_bit(&path, Position(150), 2).unwrap();
    let copy = other().join(path.strip_prefix(data()).unwrap());
    let healthy = read_file(&disk, &copy);
    replace(&disk, &copy, &read_file(&alien, &path));
    let done = planned(&disk, data(), Some(other()));
    assert!(!done.steps.iter().any(|step| matches!(step.action, Action::Header { .. })), "{done:#?}");
    replace(&disk, &copy, &healthy);
    let done = mend(&disk, data(), Some(other()));
    assert!(done.left.is_empty(), "{done:#?}");
    assert!(read_file(&disk, &path) == healthy);
}

/// A directory to harm, and where its log's files lie.
fn directory(which: usize) -> (SimDisk, PathBuf, PathBuf) {
    let in_data = data().join("logs/7/3");
    match which {
        0 => (stopped(), data().to_path_buf(), in_data),
        1 => (embedded(), data().to_path_buf(), in_data),
        2 => {
            let disk = stopped();
            remove_all(&disk, &data().join("checkpoints"));
            (disk, data().to_path_buf(), in_data)
        }
        _ => {
            let disk = if which == 3 { stopped() } else { embedded() };
            let bare = bare(&disk);
            (disk, bare.clone(), bare)
        }
    }
}

fn harms() -> impl Strategy<Value = Vec<(usize, Harm)>> {
    proptest::collection::vec((0..16_usize, harm()), 1..6)
}

fn bytes_of(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Without a copy nothing that verifies is lost, and nothing comes that was not there: in a directory with a checkpoint, an
    /// embedded one, one whose checkpoints are gone, and in bare copies. A file that was moved away is looked for in quarantine,
    /// and may be there only if its frames are in the right place as well.
    #[test]
    fn no_intact_frame_is_touched_without_a_copy(which in 0..5_usize, harms in harms()) {
        let (disk, asked, dir) = directory(which);
        let paths: Vec<PathBuf> = bases(&disk).iter().map(|base| dir.join(segment_path(*base).file_name().unwrap())).collect();
        let pristine: Vec<(Vec<Range<u64>>, Vec<u8>)> =
            paths.iter().map(|path| (frames(&disk, path), read_file(&disk, path))).collect();
        for (at, harm) in &harms {
            let path = &paths[at % paths.len()];
            let mut bytes = read_file(&disk, path);
            inflict(&mut bytes, harm);
            replace(&disk, path, &bytes);
        }
        let before: Vec<Vec<u8>> = paths.iter().map(|path| read_file(&disk, path)).collect();
        let done = mend(&disk, &asked, None);
        for ((path, (frames, original)), before) in paths.iter().zip(&pristine).zip(before) {
            let intact = frames.iter().map(bytes_of).filter(|range| before.get(range.clone()) == original.get(range.clone()));
            let intact: Vec<Range<usize>> = intact.collect();
            if !disk.files().contains(path) {
                prop_assert!(intact.is_empty(), "{path:?} was moved away: {done:#?}");
                let aside = |found: &PathBuf| found.components().any(|part| part.as_os_str() == "quarantine") && read_file(&disk, found) == before;
                prop_assert!(disk.files().iter().any(aside), "{path:?} is in no quarantine");
                continue;
            }
            let after = read_file(&disk, path);
            for range in intact {
                prop_assert_eq!(after.get(range.clone()), original.get(range.clone()), "{} {:?}: {:#?}", which, range, done);
            }
        }
    }
}

/// The story: a copy without the checkpoints of its node was called sound, its last segments missing and its tail cut short, and
/// scripts went on by exit code 0.
#[test]
fn what_only_a_checkpoint_says_is_named_where_there_is_none() {
    let not_judged = |disk: &SimDisk, path: &Path| {
        let target = offline::find(disk.storage().as_ref(), path).unwrap();
        let verified = offline::verify(disk.storage().as_ref(), &target, &mut |_| {});
        assert_eq!(verified.damage, []);
        verified.not_judged.into_iter().map(|one| (one.path, one.what)).collect::<Vec<_>>()
    };
    let disk = stopped();
    let copy = bare(&disk);
    assert_eq!(not_judged(&disk, data()), []);
    let lone = |base: u64| copy.join(segment_path(base).file_name().unwrap());
    let (first, open) = (lone(bases(&disk)[0]), lone(*bases(&disk).last().unwrap()));
    assert_eq!(not_judged(&disk, &first), [], "a footer says all there is to say of one file");
    assert_eq!(not_judged(&disk, &open), [(open.clone(), NotJudged::Tail)]);
    disk.storage().remove(&open).unwrap();
    assert_eq!(not_judged(&disk, &copy), [(copy.clone(), NotJudged::Ends)]);
    remove_all(&disk, &data().join("checkpoints"));
    assert_eq!(not_judged(&disk, data()), [(segment_path(0).parent().unwrap().into(), NotJudged::Ends)]);

    let disk = embedded();
    let copy = bare(&disk);
    assert_eq!(not_judged(&disk, data()), []);
    assert_eq!(not_judged(&disk, &copy), [], "its frames witness how far it was durable");
    disk.storage().remove(&copy.join(segment_path(0).file_name().unwrap())).unwrap();
    let start = NotJudged::Start { first: Offset(bases(&disk)[1]) };
    assert_eq!(not_judged(&disk, &copy), [(copy.clone(), start)]);
}

/// The story: a header or footer that the disk did not give was called one that does not verify, without a word of the system's error.
#[test]
fn a_header_or_footer_that_the_disk_refuses_is_named_with_the_systems_error() {
    let told = |disk: &SimDisk, path: &Path| {
        let damage = verify(disk, data());
        let of_file = damage.iter().filter(|one| one.path == path).map(|one| one.why.to_string());
        of_file.collect::<Vec<_>>()
    };
    let disk = stopped();
    let path = segment_path(bases(&disk)[1]);
    let healthy = read_file(&disk, &path);
    disk.spoil(&path, 0..1).unwrap();
    let damage = told(&disk, &path);
    assert!(damage[0].contains("header cannot be read") && damage[0].contains("os error 5"), "{damage:#?}");
    let done = mend(&disk, data(), Some(other()));
    assert!(done.left.is_empty(), "{done:#?}");
    assert!(read_file(&disk, &path) == healthy, "{done:#?}");

    let disk = stopped();
    let len = u64::try_from(healthy.len()).unwrap();
    disk.spoil(&path, len - 1..len).unwrap();
    let damage = told(&disk, &path);
    assert!(!damage.is_empty() && damage.iter().all(|why| why.contains("os error 5")), "{damage:#?}");
    let done = mend(&disk, data(), Some(other()));
    assert!(done.left.is_empty(), "{done:#?}");
    assert!(read_file(&disk, &path) == healthy, "{done:#?}");
}
