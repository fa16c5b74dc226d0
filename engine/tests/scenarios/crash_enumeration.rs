//! Every point at which a machine can stop, and many of the states that each can leave.
//!
//! A workload runs on a simulated disk that stops after its n-th change, for every n. What is left then
//! is crashed in several ways, recovered, and the workload goes on to its end. The promises:
//! a checkpoint that was reported written is there; nothing below it is damaged; and the log ends in the
//! very bytes that a run without any crash leaves.

use std::collections::BTreeSet;

use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::{Engine, NewIdentity};
use tidelog_wire::ids::{BootEpoch, ClusterId, Incarnation, NodeId, Offset};

use crate::world::{CONFIG, GROUP, LOG, checkpoint, data, entry, formatted, log_files, options, read_all};

/// Entries of the workload: three segments, sealed and rolled twice.
const LAST: u64 = 30;
const CHECKPOINT_EVERY: u64 = 7;

/// What the workload was told is durable.
#[derive(Clone, Copy, Debug, Default)]
struct Promised {
    boot_epoch: BootEpoch,
    checkpoint: u64,
}

/// Opens, recovers, applies what is missing up to `last`, and checkpoints now and then. `None` once
/// the machine has stopped; whatever fails on a running machine fails the test.
fn live(disk: &SimDisk, promised: &mut Promised, last: u64) -> Option<()> {
    let going = |failed: &dyn std::fmt::Display| assert!(disk.is_stopped(), "{failed}");
    let engine = Engine::open(disk.storage(), data(), options()).inspect_err(|e| going(e)).ok()?;
    let boot_epoch = engine.identity().boot_epoch;
    assert!(boot_epoch > promised.boot_epoch, "boot epoch {boot_epoch} after {promised:?}");
    promised.boot_epoch = boot_epoch;
    let loaded = engine.load_checkpoint(GROUP).inspect_err(|e| going(e)).ok()?.map(|loaded| loaded.newest);
    let applied = loaded.as_ref().map_or(0, |newest| newest.applied.index.get());
    assert!(applied >= promised.checkpoint, "checkpoint {applied} after {promised:?}");
    let state = loaded.map(|newest| newest.logs[0].state.clone());
    let opened = engine.open_log(LOG, CONFIG, state.as_ref()).inspect_err(|e| going(e)).ok()?;
    let (mut writer, recovery) = opened;
    assert!(disk.is_stopped() || recovery.damage.is_empty(), "{recovery:?}");
    for index in applied + 1..=last {
        let (batch, stamp) = entry(index);
        writer.append(&batch, stamp).inspect_err(|e| going(e)).ok()?;
        if index.is_multiple_of(CHECKPOINT_EVERY) {
            let checkpoint = checkpoint(index, &writer);
            writer.sync_target().run().inspect_err(|e| going(e)).ok()?;
            engine.write_checkpoint(&checkpoint).inspect_err(|e| going(e)).ok()?;
            promised.checkpoint = index;
        }
    }
    let batches = read_all(&writer.reader(), Offset(0)).inspect_err(|e| going(e)).ok()?;
    assert_eq!(batches.len(), usize::try_from(last).unwrap());
    (!disk.is_stopped()).then_some(())
}

/// A disk on which the workload was stopped after `changes`, and what it had been promised.
fn stopped_after(clean: &SimDisk, changes: u64) -> Option<(SimDisk, Promised)> {
    let disk = clean.fork();
    disk.stop_at(clean.changes() + changes);
    let mut promised = Promised::default();
    live(&disk, &mut promised, LAST).is_none().then_some((disk, promised))
}

fn crashes(point: u64) -> [Crash; 8] {
    let cut = |seed| Crash::PowerCut { seed: point * 1_000 + seed };
    [Crash::ProcessOnly, Crash::LoseUnsynced, cut(1), cut(2), cut(3), cut(4), cut(5), cut(6)]
}

#[test]
fn a_crash_at_any_point_leaves_what_was_promised_and_ends_in_the_same_bytes() {
    let clean = formatted(1);
    let undisturbed = clean.fork();
    live(&undisturbed, &mut Promised::default(), LAST).unwrap();
    let expected = log_files(&undisturbed);
    let mut images = BTreeSet::new();
    let mut points = 0;
    while let Some((stopped, promised)) = stopped_after(&clean, points) {
        for crash in crashes(points) {
            let disk = stopped.fork();
            disk.crash(crash);
            images.insert(disk.fingerprint());
            let mut promised = promised;
            assert!(live(&disk, &mut promised, LAST).is_some(), "point {points}, {crash:?}");
            assert!(log_files(&disk) == expected, "point {points}, {crash:?}: other bytes");
        }
        points += 1;
    }
    assert!(points > 60, "{points} points");
    assert!(images.len() > 150, "{} distinct images", images.len());
}

/// The process dies, the cache is kept, recovery builds on it and makes promises; then the power is cut.
#[test]
fn what_is_promised_on_top_of_a_kept_cache_survives_the_power_cut_that_follows() {
    let clean = formatted(1);
    let mut points = 0;
    while let Some((stopped, promised)) = stopped_after(&clean, points) {
        for seed in 0..3 {
            let disk = stopped.fork();
            let mut promised = promised;
            disk.crash(Crash::ProcessOnly);
            // Goes on until some checkpoint, and dies with the power.
            let until = (promised.checkpoint + CHECKPOINT_EVERY).min(LAST);
            assert!(live(&disk, &mut promised, until).is_some(), "point {points}, seed {seed}");
            disk.crash(Crash::PowerCut { seed });
            assert!(live(&disk, &mut promised, LAST).is_some(), "point {points}, seed {seed}");
        }
        points += 1;
    }
}

/// A crash during recovery from a crash, at any point of it.
#[test]
fn recovery_that_is_cut_short_anywhere_is_recovered_from() {
    let clean = formatted(1);
    let (torn, promised) = stopped_after(&clean, 55).unwrap();
    torn.crash(Crash::PowerCut { seed: 4 });
    let mut points = 0;
    loop {
        let disk = torn.fork();
        disk.stop_at(torn.changes() + points);
        let mut seen = promised;
        if live(&disk, &mut seen, LAST).is_some() {
            break;
        }
        for crash in crashes(points) {
            let disk = disk.fork();
            disk.crash(crash);
            let mut seen = seen;
            assert!(live(&disk, &mut seen, LAST).is_some(), "point {points}, {crash:?}");
        }
        points += 1;
    }
    assert!(points > 20, "{points} points");
}

/// Formatting is all or nothing for whoever starts next: the directory opens, or is formatted again.
#[test]
fn formatting_that_is_cut_short_anywhere_can_be_repeated() {
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
    let mut points = 0;
    loop {
        let stopped = SimDisk::new(1);
        stopped.stop_at(points);
        let done = Engine::format(&stopped.storage(), data(), new).is_ok();
        for crash in crashes(points) {
            let disk = stopped.fork();
            disk.crash(crash);
            let opened = Engine::open(disk.storage(), data(), options());
            if let Err(error) = opened {
                assert!(!done, "point {points}, {crash:?}: formatted, then {error}");
                let again = Engine::format(&disk.storage(), data(), new);
                assert!(again.is_ok(), "point {points}, {crash:?}: {error}, then {again:?}");
                Engine::open(disk.storage(), data(), options()).unwrap();
            }
        }
        if done {
            break;
        }
        points += 1;
    }
    assert!(points > 5, "{points} points");
}
