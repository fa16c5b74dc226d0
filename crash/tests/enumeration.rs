//! The enumeration itself: that it finds what is broken on purpose, and that a run is the same every time.

#![expect(clippy::unwrap_used, reason = "a test may fail by it, in what several tests share too")]

use std::num::NonZeroUsize;

use tidelog_crash::recorder::LeftOut;
use tidelog_crash::run::{Outcome, Plan};
use tidelog_crash::states::Effort;
use tidelog_crash::workloads::{replay, run_named};

fn plan(threads: usize) -> Plan {
    Plan {
        first: Effort { exhaustive: 32, systematic: 4, seeds: 4 },
        again_one_in: 50,
        again: Effort { exhaustive: 4, systematic: 2, seeds: 1 },
        again_points: 4,
        threads: NonZeroUsize::new(threads).unwrap(),
        left_out: LeftOut::Nothing,
    }
}

fn run(workload: &str, plan: &Plan) -> Outcome {
    run_named(workload, plan, false, &|_, _| ()).unwrap().unwrap()
}

/// Whatever the threads do, the same states are tried and the same recoveries found.
#[test]
fn the_sums_do_not_depend_on_the_threads() {
    let (one, three) = (run("first", &plan(1)), run("first", &plan(3)));
    assert_eq!(one.tally.violations, []);
    assert_eq!(one.tally.tried, three.tally.tried);
    assert_eq!(one.tally.images, three.tally.images);
    assert_eq!(one.tally.images_again, three.tally.images_again);
    assert_eq!(one.tally.recoveries, three.tally.recoveries);
    assert!(one.tally.images.len() > 50, "{} images", one.tally.images.len());
    assert!(one.tally.images_again.len() > 50, "{} after a second crash", one.tally.images_again.len());
    assert!(one.tally.exhausted > 20, "{} points of which every state was tried", one.tally.exhausted);
}

/// Every point of a workload, and at each only the process dies.
fn kills(workload: &str) -> Outcome {
    let none = Effort { exhaustive: 0, systematic: 1, seeds: 0 };
    let plan = Plan { first: none, again_one_in: u64::MAX, again: none, again_points: 30, ..plan(2) };
    run(workload, &plan)
}

/// The story: raft-engine had made its next file and was killed before the directory was synced. The next
/// start found the file, in the cache, and wrote entries into it that it synced and acknowledged; nobody
/// ever synced the name. A power cut took the file, and the entries with it.
#[test]
fn a_raft_log_file_known_by_the_cache_only_is_not_relied_on() {
    for workload in ["raft", "recycled"] {
        assert_eq!(kills(workload).tally.violations, []);
    }
}

/// The story: a batch of entries was not synced, the next one was being written, and the power went with a
/// sector of the first one lost. Opening, raft-engine looks at the entries of the last batch only: it took
/// the torn ones for good, and the group did not load.
#[test]
fn torn_entries_are_never_followed_by_a_batch_that_verifies() {
    for workload in ["raft", "recycled"] {
        assert_eq!(run(workload, &Plan { again_one_in: 0, ..plan(2) }).tally.violations, []);
    }
}

/// The story: a staged segment had been renamed into its log, and the process was killed before the
/// directory was synced. The next start saw it in place, wrote the checkpoint that names it and was done. A
/// power cut then put it back into staging, and its records were called damaged.
#[test]
fn a_segment_adopted_in_the_cache_only_is_not_relied_on() {
    assert_eq!(kills("install").tally.violations, []);
}

/// A disk that does not sync files loses what was acknowledged, be it the identity itself; each violation is
/// seen again when its state is made again.
#[test]
fn syncs_that_do_nothing_are_found() {
    let plan = Plan { left_out: LeftOut::FileSyncs, ..plan(2) };
    let found = run("first", &plan).tally.violations;
    let first = found.first().expect("what was acknowledged is lost");
    let again = replay(&first.state, LeftOut::FileSyncs, false).unwrap().unwrap();
    assert_eq!(again.broken.as_ref(), Some(&first.broken));
    assert!(!again.operations.is_empty());
    let kept = replay(&first.state, LeftOut::Nothing, false).unwrap().unwrap();
    assert_eq!(kept.broken, None, "the same point of the workload that syncs");
}

/// The same for directories: a whole file goes.
#[test]
fn directory_syncs_that_do_nothing_are_found() {
    let plan = Plan { left_out: LeftOut::DirectorySyncs, ..plan(2) };
    assert!(!run("first", &plan).tally.violations.is_empty());
}

/// The raft log's syncs count as much.
#[test]
fn a_raft_log_whose_syncs_do_nothing_is_found() {
    let plan = Plan { left_out: LeftOut::FileSyncs, again_one_in: 0, ..plan(2) };
    assert!(!run("raft", &plan).tally.violations.is_empty());
}

/// The process dies, recovery reads the cache, shows it, and the power is cut: what was shown must not go.
#[cfg(feature = "defects")]
#[test]
fn recovery_that_does_not_sync_what_it_keeps_is_found() {
    let found = run_named("first", &plan(2), true, &|_, _| ()).unwrap().unwrap().tally.violations;
    assert!(!found.is_empty());
}
