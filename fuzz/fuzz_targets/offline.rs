//! The offline tools over a data directory that was harmed, and over bytes that nobody ever wrote.
//!
//! Whatever they are given, nothing panics and looking changes nothing. Labels tile each file without gap or overlap. What
//! a dump hands out was written, unless checksums were forged. A repair touches no frame that verifies: its plan says so,
//! and what could be read before it is done can be read after, at the same place in its log.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tidelog_engine::Mode;
use tidelog_engine::offline::repair::{Action, RepairError, Step as Mending, plan, repair};
use tidelog_engine::offline::{
    Context, Detail, Dumped, Label, OfflineError, Promise, SegmentMap, Target, compare, dump, find, map,
    outline, verify, verify_log,
};
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_fuzz::check::Trust;
use tidelog_fuzz::damage::Damage;
use tidelog_fuzz::work::{Ending, Model, Step, make};
use tidelog_fuzz::{CLUSTER, LOGS, data, formatted, read, settle, write};
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LogId, Offset, TimestampMs};

/// Acts of damage taken of a case.
const DAMAGE_MAX: usize = 8;
/// Every offset.
const ALL: std::ops::Range<Offset> = Offset::ZERO..Offset(u64::MAX);

#[derive(Arbitrary, Debug)]
struct Case {
    embedded: bool,
    with_copy: bool,
    ending: Ending,
    known: Known,
    damage: Vec<Damage>,
    steps: Vec<Step>,
    file: Vec<u8>,
}

/// What the map of a single file is told about it.
#[derive(Arbitrary, Debug)]
struct Known {
    owner: bool,
    base: Option<u16>,
    end: Option<u16>,
    promise: Option<(bool, u16)>,
    split: Option<u16>,
}

fuzz_target!(|case: Case| {
    single_file(&case.known, &case.file);
    let mode = if case.embedded { Mode::Embedded } else { Mode::Consensus };
    let disk = formatted();
    let model = make(&disk, mode, &case.steps, case.ending);
    let copy = case.with_copy.then(|| copied(&disk));
    let damage = case.damage.get(..DAMAGE_MAX.min(case.damage.len())).unwrap_or_default();
    for act in damage {
        act.strike(&disk);
    }
    settle(&disk);
    let trust = match damage {
        [] => Trust::Sound,
        acts if acts.iter().any(Damage::forges) => Trust::Itself,
        _ => Trust::Model,
    };
    let before = disk.fingerprint();
    // Without a segment there is nothing to look at.
    let Ok(target) = find(&disk, data()) else { return };
    let other = copy.as_deref().and_then(|copy| find(&disk, copy).ok());
    look(&disk, &target, other.as_ref(), trust, case.embedded);
    let readable = dumped(&disk, &target, &model, trust);
    assert_eq!(disk.fingerprint(), before, "looking changes nothing");

    mended(&disk, other.and(copy).as_deref());
    let Ok(target) = find(&disk, data()) else {
        assert!(readable.is_empty(), "a repair moved everything away");
        return;
    };
    let again = dumped(&disk, &target, &model, trust);
    assert!(again.is_superset(&readable), "what could be read before a repair can be read after it");
});

/// A file of any bytes, with anything known about it.
fn single_file(known: &Known, bytes: &[u8]) {
    let disk = SimDisk::new(1);
    write(&disk, Path::new("/file"), bytes);
    let file = disk.open(Path::new("/file"), OpenMode::Read).expect("it was written");
    let offset = |number: u16| Offset(u64::from(number));
    let position = |number: u16| Position(u64::from(number));
    for detail in [Detail::Runs, Detail::EachFrame] {
        let context = Context {
            cluster: known.owner.then_some(CLUSTER),
            log: known.owner.then_some(LOGS[0]),
            base: known.base.map(offset),
            chain_start: None,
            end: known.end.map(offset),
            promise: match known.promise {
                None => Promise::All,
                Some((true, at)) => Promise::UpTo(position(at)),
                Some((false, at)) => Promise::Witnessed(position(at)),
            },
            split: known.split.map(position),
            detail,
        };
        tiles(&map(file.as_ref(), &context).expect("a sound disk"), bytes.len() as u64);
    }
}

/// Labels follow each other from the first byte to the last.
fn tiles(map: &SegmentMap, len: u64) {
    assert_eq!(map.len, len, "the length of the file");
    let mut at = 0;
    for part in &map.parts {
        assert_eq!(part.bytes.start, at, "labels tile the file: {:?}", map.parts);
        assert!(part.bytes.end > at, "no label is empty: {:?}", map.parts);
        at = part.bytes.end;
    }
    assert_eq!(at, len, "labels reach the end: {:?}", map.parts);
}

/// The same files again, below another directory.
fn copied(disk: &SimDisk) -> PathBuf {
    let copy = PathBuf::from("/copy");
    for path in disk.files() {
        if let (Ok(below), Some(bytes)) = (path.strip_prefix(data()), read(disk, &path)) {
            write(disk, &copy.join(below), &bytes);
        }
    }
    copy
}

/// Everything that only looks.
fn look(disk: &SimDisk, target: &Target, other: Option<&Target>, trust: Trust, embedded: bool) {
    let verified = verify(disk, target, &mut |_| {});
    // A server writes a checkpoint before the first record. Where there is none, somebody may have removed it.
    let sound = trust == Trust::Sound && (embedded || !target.checkpoints.is_empty());
    assert!(!sound || verified.damage.is_empty(), "nothing was harmed: {verified:?}");
    let mut intact: BTreeMap<PathBuf, Vec<std::ops::Range<u64>>> = BTreeMap::new();
    for files in &target.logs {
        for (segment, _, map) in verify_log(disk, files, Detail::EachFrame, &mut |_| {}).maps {
            tiles(&map, segment.len);
            let frames = map.parts.into_iter().filter(|part| matches!(part.label, Label::Frames { .. }));
            intact.insert(segment.path, frames.map(|part| part.bytes).collect());
        }
        for segment in &files.segments {
            let _ = outline(disk, files, segment);
        }
        let copy = other.and_then(|other| other.logs.iter().find(|copy| copy.log == files.log));
        if let Some(Ok(compared)) = copy.map(|copy| compare(disk, files, copy)) {
            assert!(trust != Trust::Sound || compared.difference.is_none(), "a copy: {compared:?}");
        }
    }
    for from in [None, other] {
        for step in plan(disk, target, from, &mut |_| {}).steps {
            spares(&step, intact.get(&step.path).map_or(&[], Vec::as_slice));
        }
    }
}

/// A step of a repair leaves every intact frame of its file as it is.
fn spares(step: &Mending, intact: &[std::ops::Range<u64>]) {
    let beside = |from: u64, end: u64| intact.iter().all(|frame| frame.end <= from || end <= frame.start);
    let spared = match &step.action {
        Action::Header { bytes } => beside(0, bytes.len() as u64),
        Action::Fill { bytes, .. } | Action::CutTail { bytes, .. } => beside(bytes.start, bytes.end),
        Action::Seal { at, .. } => beside(*at, u64::MAX),
        // Another's file may be set aside, and one of which no frame is left may be replaced.
        Action::Rename { .. } => true,
        Action::SetAside | Action::Place { .. } => intact.is_empty(),
    };
    assert!(spared, "{step:?} touches one of {intact:?}");
}

/// Every batch that can be read, and where in its log.
fn dumped(disk: &SimDisk, target: &Target, model: &Model, trust: Trust) -> BTreeSet<(LogId, Bytes)> {
    let mut found = BTreeSet::new();
    for files in &target.logs {
        dump(disk, files, &ALL, &mut |_| {}, &mut |dumped| {
            if let (Dumped::Batch { bytes, path, position }, Some(log)) = (dumped, files.log) {
                let batch = match Batch::parse(bytes.clone(), BatchLimits::default()) {
                    Ok(batch) => batch,
                    // With forged checksums a batch may say anything of its records.
                    Err(_) if trust == Trust::Itself => return ControlFlow::Continue(()),
                    Err(error) => panic!("{}, {position}: {error}", path.display()),
                };
                let base = batch.base_offset().expect("a stored batch has its offset");
                let known = model.batches.get(&(log, base)).is_some_and(|known| known.contains(&bytes));
                assert!(known || trust == Trust::Itself, "a batch at {base} of {log} that nobody wrote");
                found.insert((log, bytes));
            }
            ControlFlow::Continue(())
        })
        .expect("a sound disk");
    }
    found
}

/// Repairs until a repair has nothing to do, which is soon.
fn mended(disk: &SimDisk, copy: Option<&Path>) {
    for _ in 0..4 {
        match repair(disk, data(), copy, TimestampMs(9), &mut |_| {}) {
            Ok(done) if done.plan.steps.is_empty() => return,
            Ok(_) => {}
            Err(RepairError::Offline(OfflineError::NothingHere { .. })) => return,
            Err(error) => panic!("a sound disk: {error}"),
        }
    }
    panic!("a repair that never ends");
}
