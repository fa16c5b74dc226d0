use std::ops::Range;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tidelog_engine::log::ReadError;
use tidelog_engine::offline::repair::{Action, Plan, RepairError, Repaired, plan, repair};
use tidelog_engine::offline::{self, Detail, Label, Part};
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{Offset, TimestampMs};

use crate::harm::{harm, inflict};
use crate::world::{
    CONFIG, Content, GROUP, LOG, append, batch, data, embedded_engine, engine, entry, formatted, log_files,
    make_checkpoint, open, read_all, read_file, segment_path, shared,
};

pub(crate) fn other() -> &'static Path {
    Path::new("/other")
}

/// A node's directory, stopped, and beside it on the same disk a healthy copy of all of it.
pub(crate) fn stopped() -> SimDisk {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=50);
    make_checkpoint(&engine, 50, &writer);
    drop((writer, engine));
    copy_tree(&disk);
    disk
}

/// Copies everything of the data directory, durably.
pub(crate) fn copy_tree(disk: &SimDisk) {
    let storage = disk.storage();
    for path in disk.files().into_iter().filter(|path| path.starts_with(data())) {
        let to = other().join(path.strip_prefix(data()).unwrap());
        tidelog_engine::storage::create_dir_durably(storage.as_ref(), Path::new("/"), to.parent().unwrap())
            .unwrap();
        let file = storage.open(&to, OpenMode::CreateNew).unwrap();
        file.write_at(Position(0), &[&read_file(disk, &path)]).unwrap();
        file.sync().unwrap();
        storage.sync_dir(to.parent().unwrap()).unwrap();
    }
}

pub(crate) fn bases(disk: &SimDisk) -> Vec<u64> {
    let target = offline::find(disk.storage().as_ref(), data()).unwrap();
    target.logs[0].segments.iter().map(|segment| segment.base.get()).collect()
}

fn damage(disk: &SimDisk) -> usize {
    let target = offline::find(disk.storage().as_ref(), data()).unwrap();
    offline::verify(disk.storage().as_ref(), &target, &mut |_| {}).damage.len()
}

pub(crate) fn frames(disk: &SimDisk, path: &Path) -> Vec<Range<u64>> {
    let file = disk.storage().open(path, OpenMode::Read).unwrap();
    let context = offline::Context { detail: Detail::EachFrame, ..offline::Context::default() };
    let parts = offline::map(file.as_ref(), &context).unwrap().parts;
    let of_frames = |part: &Part| matches!(part.label, Label::Frames { .. });
    parts.into_iter().filter(of_frames).map(|part| part.bytes).collect()
}

/// Puts `bytes` into the place of a file.
pub(crate) fn replace(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.storage().open(path, OpenMode::ReadWrite).unwrap();
    file.truncate(0).unwrap();
    file.write_at(Position(0), &[bytes]).unwrap();
    file.sync().unwrap();
}

fn change(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = read_file(disk, path);
    change(&mut bytes);
    replace(disk, path, &bytes);
}

fn planned(disk: &SimDisk, copy: bool) -> Plan {
    let storage = disk.storage();
    let target = offline::find(storage.as_ref(), data()).unwrap();
    let from = copy.then(|| offline::find(storage.as_ref(), other()).unwrap());
    plan(storage.as_ref(), &target, from.as_ref(), &mut |_| {})
}

fn mend(disk: &SimDisk, copy: bool) -> Result<Repaired, RepairError> {
    repair(disk.storage().as_ref(), data(), copy.then(other), TimestampMs(2_000), &mut |_| {})
}

/// The log's files of the directory.
fn content(disk: &SimDisk) -> Vec<(PathBuf, Content)> {
    log_files(disk)
}

#[track_caller]
fn assert_restored(disk: &SimDisk) {
    assert_eq!(content(disk), content(&stopped()));
    assert_eq!(damage(disk), 0);
}

fn harmed(name: &'static str, harm: &dyn Fn(&SimDisk)) -> (&'static str, SimDisk) {
    let disk = stopped();
    harm(&disk);
    assert!(damage(&disk) > 0, "{name}");
    (name, disk)
}

/// What a disk, or a hand, may do to a directory; each in one of its own.
fn damages() -> Vec<(&'static str, SimDisk)> {
    let path = segment_path(0);
    let at = |at: u64| usize::try_from(at).unwrap();
    let mut all = Vec::new();
    let mut case = |name, harm: &dyn Fn(&SimDisk)| all.push(harmed(name, harm));
    case("a bit in a frame", &|disk| {
        let frame = frames(disk, &path)[3].clone();
        disk.flip_bit(&path, Position(frame.start + 70), 2).unwrap();
    });
    case("a bit in the first and in the last frame", &|disk| {
        let all = frames(disk, &path);
        disk.flip_bit(&path, Position(all[0].start + 70), 2).unwrap();
        disk.flip_bit(&path, Position(all.last().unwrap().start + 70), 2).unwrap();
    });
    case("a bit in the header", &|disk| disk.flip_bit(&path, Position(33), 2).unwrap());
    case("a bit in a later header and in its first frame", &|disk| {
        let path = segment_path(bases(disk)[2]);
        disk.flip_bit(&path, Position(50), 2).unwrap();
        disk.flip_bit(&path, Position(150), 2).unwrap();
    });
    case("a bit in the footer", &|disk| {
        let len = u64::try_from(read_file(disk, &path).len()).unwrap();
        disk.flip_bit(&path, Position(len - 9), 2).unwrap();
    });
    case("a zeroed sector", &|disk| change(disk, &path, |bytes| bytes[512..1024].fill(0)));
    case("the first sector zeroed", &|disk| change(disk, &path, |bytes| bytes[..512].fill(0)));
    case("the last sector zeroed", &|disk| {
        change(disk, &path, |bytes| {
            let from = bytes.len() / 512 * 512;
            bytes[from..].fill(0);
        });
    });
    case("a tail cut in the footer", &|disk| change(disk, &path, |bytes| bytes.truncate(bytes.len() - 10)));
    case("a tail cut in the frames", &|disk| change(disk, &path, |bytes| bytes.truncate(bytes.len() - 900)));
    case("a file cut to nothing", &|disk| change(disk, &path, Vec::clear));
    case("two frames swapped", &|disk| {
        let all = frames(disk, &path);
        change(disk, &path, |bytes| {
            let (one, two) = (all[1].clone(), all[4].clone());
            let first = bytes[at(one.start)..at(one.end)].to_vec();
            let second = bytes[at(two.start)..at(two.end)].to_vec();
            bytes[at(one.start)..at(one.end)].copy_from_slice(&second);
            bytes[at(two.start)..at(two.end)].copy_from_slice(&first);
        });
    });
    all.extend(damages_to_whole_files());
    all
}

/// Those that concern files as a whole.
fn damages_to_whole_files() -> Vec<(&'static str, SimDisk)> {
    let path = segment_path(0);
    let mut all = Vec::new();
    let mut case = |name, harm: &dyn Fn(&SimDisk)| all.push(harmed(name, harm));
    case("a segment of the same log in another's place", &|disk| {
        let bytes = read_file(disk, &segment_path(bases(disk)[1]));
        replace(disk, &path, &bytes);
    });
    case("a segment gone", &|disk| disk.storage().remove(&segment_path(bases(disk)[1])).unwrap());
    case("two segments in a row gone", &|disk| {
        let bases = bases(disk);
        disk.storage().remove(&segment_path(bases[1])).unwrap();
        disk.storage().remove(&segment_path(bases[2])).unwrap();
    });
    case("the first segment gone", &|disk| disk.storage().remove(&path).unwrap());
    case("the active segment gone", &|disk| {
        disk.storage().remove(&segment_path(*bases(disk).last().unwrap())).unwrap();
    });
    case("the active segment cut", &|disk| {
        change(disk, &segment_path(*bases(disk).last().unwrap()), |bytes| bytes.truncate(bytes.len() - 400));
    });
    case("all segments gone", &|disk| {
        for base in bases(disk) {
            disk.storage().remove(&segment_path(base)).unwrap();
        }
    });
    case("a strange file", &|disk| {
        let path = data().join("logs/7/3/core.1234");
        disk.storage().open(&path, OpenMode::CreateNew).unwrap().write_at(Position(0), &[b"x"]).unwrap();
    });
    all
}

#[test]
fn a_healthy_copy_brings_back_the_very_bytes_whatever_was_damaged() {
    for (name, disk) in damages() {
        let before = disk.fingerprint();
        let planned = planned(&disk, true);
        assert!(planned.left.is_empty() && !planned.steps.is_empty(), "{name}: {planned:#?}");
        assert_eq!(disk.fingerprint(), before, "{name}: a plan changes nothing");
        let done = mend(&disk, true).unwrap();
        assert_eq!(done.plan, planned, "{name}");
        assert_eq!(content(&disk), content(&stopped()), "{name}: {done:#?}");
        assert_eq!(damage(&disk), 0, "{name}");
        let mended = disk.fingerprint();
        let again = mend(&disk, true).unwrap();
        assert!(again.plan.steps.is_empty() && again.backups.is_empty(), "{name}: {again:#?}");
        assert_eq!(disk.fingerprint(), mended, "{name}: run twice, it changes nothing");
    }
}

/// Stopped at every change it makes and run again, by a new process or after a power cut, a repair ends the same.
#[test]
fn a_repair_that_was_cut_short_ends_right_when_it_is_run_again() {
    for (name, disk) in damages() {
        for path in disk.files() {
            disk.storage().open(&path, OpenMode::ReadWrite).unwrap().sync().unwrap();
        }
        disk.storage().sync_dir(&data().join("logs/7/3")).unwrap();
        let whole = disk.fork();
        let begin = whole.changes();
        mend(&whole, true).unwrap();
        let steps = whole.changes() - begin;
        for step in 0..=steps {
            for crash in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::PowerCut { seed: step + 100 }] {
                let disk = disk.fork();
                disk.stop_at(disk.changes() + step);
                let first = mend(&disk, true);
                assert!(first.is_err() || step == steps, "{name}: stopped at {step}");
                disk.crash(crash);
                mend(&disk, true).unwrap();
                assert_eq!(content(&disk), content(&stopped()), "{name}: {crash:?} at {step}");
            }
        }
    }
}

#[test]
fn what_is_overwritten_lies_in_quarantine() {
    let disk = stopped();
    let path = segment_path(0);
    let frame = frames(&disk, &path)[3].clone();
    disk.flip_bit(&path, Position(frame.start + 70), 2).unwrap();
    let bad = read_file(&disk, &path);
    let done = mend(&disk, true).unwrap();
    assert_eq!(done.backups.len(), 1);
    let range = usize::try_from(frame.start).unwrap()..usize::try_from(frame.end).unwrap();
    assert_eq!(read_file(&disk, &done.backups[0]), &bad[range]);
    let note = String::from_utf8(read_file(&disk, &done.backups[0].with_extension("note"))).unwrap();
    assert!(note.contains(&format!("bytes {}..{} of {}", frame.start, frame.end, path.display())), "{note}");
}

/// Headers, indexes and footers follow from the frames; records do not follow from anything.
#[test]
fn without_a_copy_only_what_frames_prove_is_made_anew() {
    for (name, disk) in damages() {
        let before = content(&disk);
        let done = mend(&disk, false).unwrap();
        let provable =
            ["a bit in the header", "a bit in the footer", "a tail cut in the footer", "a strange file"];
        if provable.contains(&name) {
            assert_restored(&disk);
        } else {
            assert!(!done.plan.left.is_empty(), "{name}");
            let fills = |action: &Action| matches!(action, Action::Fill { .. } | Action::Place { .. });
            assert!(!done.plan.steps.iter().any(|step| fills(&step.action)), "{name}");
            for ((path, one), (_, other)) in before.iter().zip(&content(&disk)) {
                assert!(one.0.len() == other.0.len() || name.contains("place"), "{name}: {}", path.display());
            }
        }
    }
}

/// A copy that is damaged itself gives what is good of it.
#[test]
fn a_damaged_copy_fills_the_holes_that_it_does_not_have_itself() {
    let disk = stopped();
    let path = segment_path(0);
    let copy = other().join(path.strip_prefix(data()).unwrap());
    let all = frames(&disk, &path);
    for at in [1, 4] {
        disk.flip_bit(&path, Position(all[at].start + 70), 2).unwrap();
    }
    disk.flip_bit(&copy, Position(all[4].start + 80), 2).unwrap();
    let done = mend(&disk, true).unwrap();
    assert_eq!(done.plan.steps.len(), 1, "{:#?}", done.plan);
    assert_eq!(done.plan.left.len(), 1);
    assert_eq!(done.plan.left[0].bytes, all[4]);
    assert_eq!(damage(&disk), 1);
    disk.flip_bit(&copy, Position(all[4].start + 80), 2).unwrap();
    mend(&disk, true).unwrap();
    assert_restored(&disk);
}

/// A log of the same name with another history proves nothing, and is not taken.
#[test]
fn another_history_fills_no_hole() {
    let foreign = formatted(9);
    let engine = engine(&foreign);
    let (mut writer, _) = open(&engine, None);
    for index in 1..=50 {
        let (_, stamp) = entry(index);
        writer.append(&batch(index + 1_000, 2, 98), stamp).unwrap();
    }
    make_checkpoint(&engine, 50, &writer);
    drop((writer, engine));
    for (name, disk) in damages() {
        for (path, bytes) in log_files(&foreign) {
            let path = other().join(path.strip_prefix(data()).unwrap());
            if disk.files().contains(&path) {
                replace(&disk, &path, &bytes.0);
            }
        }
        let planned = planned(&disk, true);
        let fills = planned
            .steps
            .iter()
            .any(|step| matches!(step.action, Action::Fill { .. } | Action::Place { .. }));
        assert!(!fills, "{name}: {planned:#?}");
    }
}

#[test]
fn a_directory_in_use_is_refused_and_not_touched() {
    let disk = stopped();
    disk.flip_bit(&segment_path(0), Position(33), 2).unwrap();
    let engine = engine(&disk);
    let before = disk.fingerprint();
    assert!(matches!(mend(&disk, true), Err(RepairError::Lock(_))));
    assert_eq!(disk.fingerprint(), before);
    drop(engine);
    mend(&disk, true).unwrap();
    assert_restored(&disk);
}

/// A node that had noticed the damage kept it in its checkpoint, and went on refusing offsets whose bytes had been brought
/// back. What reads well when the log is opened again is not damaged any more.
#[test]
fn a_mended_log_is_opened_as_if_nothing_had_been() {
    for (name, disk) in damages() {
        let node = engine(&disk);
        let known = node.load_checkpoint(GROUP).unwrap().unwrap().newest.logs[0].clone();
        let (writer, _) = open(&node, Some(&known.state));
        let mut at = Offset(0);
        while at < Offset(100) {
            at = match writer.reader().read(at, 1_000) {
                Ok(read) => read.next,
                Err(ReadError::Damaged { range, .. }) => range.end,
                Err(error) => panic!("{name}: {error}"),
            };
        }
        make_checkpoint(&node, 51, &writer);
        drop((writer, node));
        mend(&disk, true).unwrap();
        assert_eq!(damage(&disk), 0, "{name}");
        // Without its active segment the node has gone on in another file, and the old one ends with a seal.
        let sealed_early = name.contains("active") || name.contains("all segments");
        assert!(sealed_early || content(&disk) == content(&stopped()), "{name}");
        let node = engine(&disk);
        let known = node.load_checkpoint(GROUP).unwrap().unwrap().newest.logs[0].clone();
        let (writer, recovery) = open(&node, Some(&known.state));
        writer.restore_damage(&known.damage);
        assert!(recovery.damage.is_empty() && writer.damage().is_empty(), "{name}: {recovery:?}");
        assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 50, "{name}");
    }
}

/// What a checkpoint says is damaged, and still is, is refused from the start.
#[test]
fn damage_that_is_still_there_is_marked_again_and_no_more_than_that() {
    let disk = stopped();
    let path = segment_path(0);
    disk.flip_bit(&path, Position(frames(&disk, &path)[3].start + 70), 2).unwrap();
    let node = engine(&disk);
    let state = node.load_checkpoint(GROUP).unwrap().unwrap().newest.logs[0].state.clone();
    let (writer, _) = open(&node, Some(&state));
    writer.restore_damage(std::slice::from_ref(&(Offset(2)..Offset(20))));
    assert_eq!(writer.damage(), std::slice::from_ref(&(Offset(6)..Offset(8))));
}

/// An embedded log whose sealed segment is damaged, and whose last one has a torn tail.
#[test]
fn an_embedded_log_is_mended_from_a_backup() {
    let disk = formatted(1);
    let (log, _) = shared(&disk);
    for number in 1..=30 {
        log.append_durable(&batch(number, 2, 100), TimestampMs(1)).unwrap();
    }
    log.idle().unwrap();
    drop(log);
    copy_tree(&disk);
    let healthy = content(&disk);
    let bases = bases(&disk);
    disk.flip_bit(&segment_path(bases[0]), Position(300), 1).unwrap();
    let last = segment_path(*bases.last().unwrap());
    disk.flip_bit(&last, Position(300), 1).unwrap();
    assert_eq!(damage(&disk), 2);
    mend(&disk, true).unwrap();
    assert_eq!(content(&disk), healthy);
    let end = frames(&disk, &last).last().unwrap().end;
    disk.storage()
        .open(&last, OpenMode::ReadWrite)
        .unwrap()
        .write_at(Position(end + 10), &[b"torn"])
        .unwrap();
    assert_eq!(damage(&disk), 0);
    let done = mend(&disk, true).unwrap();
    assert!(matches!(done.plan.steps[0].action, Action::CutTail { .. }), "{done:?}");
    let (log, recovery) = embedded_engine(&disk).open_shared(LOG, CONFIG).unwrap();
    assert!(recovery.damage.is_empty());
    assert_eq!(read_all(&log.reader(), Offset(0)).unwrap().len(), 30);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever happens to any of the files, a healthy copy brings back the very bytes.
    #[test]
    fn any_harm_is_undone_by_a_healthy_copy(harms in proptest::collection::vec((0..16_usize, harm()), 1..6)) {
        let disk = stopped();
        let bases = bases(&disk);
        for (which, harm) in &harms {
            let path = segment_path(bases[which % bases.len()]);
            change(&disk, &path, |bytes| inflict(bytes, harm));
        }
        let done = mend(&disk, true).unwrap();
        prop_assert_eq!(content(&disk), content(&stopped()), "{:?}: {:#?}", harms, done.plan);
        prop_assert_eq!(damage(&disk), 0);
    }
}
