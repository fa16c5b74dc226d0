//! The simulator itself: a seed is a run, all properties hold, and what once broke stays mended.

use tidelog_sim::coverage::Seen;
use tidelog_sim::run::{play, play_all};

/// Seeds that found something once, in the order in which they did; see docs/found-bugs.md.
const REGRESSIONS: [u64; 0] = [];

#[test]
fn a_seed_played_twice_gives_the_same_trace() {
    for seed in [3, 6, 10] {
        let (one, other) = (play(seed, None, true), play(seed, None, true));
        assert_eq!(one.trace_hash, other.trace_hash, "seed {seed}");
        assert_eq!(one.lines, other.lines, "seed {seed}");
        assert_eq!(one.counts, other.counts, "seed {seed}");
    }
}

/// More seeds are played by the gate.
#[test]
fn in_the_first_seeds_everything_holds() {
    let summary = play_all(&(1..=20), None, 2);
    assert_eq!(summary.violations.into_iter().collect::<Vec<_>>(), []);
    assert_eq!(summary.played, 20);
    let acknowledged = summary.coverage.of(Seen::Acknowledged);
    assert!(acknowledged > 500, "{acknowledged}");
    assert!(summary.crashes > 20, "{}", summary.crashes);
}

#[test]
fn seeds_that_found_something_once_hold_now() {
    for seed in REGRESSIONS {
        assert_eq!(play(seed, None, false).violation, None, "seed {seed}");
    }
}
