//! The simulator itself: a seed is a run, all promises are kept, and a broken build is caught.

use tidelog_sim::run::{play, play_all};

#[test]
fn a_seed_played_twice_gives_the_same_trace() {
    for seed in [3, 6, 10] {
        let (one, other) = (play(seed, None, true), play(seed, None, true));
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
        assert_eq!(one.lines, other.lines, "seed {seed}");
        assert_eq!(one.counts, other.counts, "seed {seed}");
    }
}

/// More seeds are played by the gate, in release.
#[test]
fn the_first_seeds_keep_all_promises() {
    let summary = play_all(&(1..=20), None, 2);
    assert_eq!(summary.violations.into_iter().collect::<Vec<_>>(), []);
    assert_eq!(summary.played, 20);
    assert!(summary.acknowledged > 500, "{}", summary.acknowledged);
    assert!(summary.crashes > 20, "{}", summary.crashes);
}

/// Leaders that take their own disk for a quorum, and a raft log that does not sync what it recovers, are
/// found out.
#[cfg(feature = "defects")]
#[test]
fn deliberate_defects_are_caught() {
    for defect in tidelog_sim::settings::Defect::ALL {
        let summary = play_all(&(1..=500), Some(defect), 2);
        assert!(!summary.violations.is_empty(), "{} was not caught", defect.name());
    }
}
