//! Election timeouts from a seeded generator of ours: the one file that sets them.
//!
//! raft draws its timeouts from a generator of the thread, anew in each of its resets, so no run
//! could be repeated. Therefore, after **every** step, tick and ready, [`Timeouts::keep`] writes our
//! own value over raft's. A new one is drawn whenever term, role or leader changed.
//!
//! [`Timeouts::hasten`] serves the case that the leader's connection is known to be gone: waiting
//! the whole timeout would be waiting for nothing. The other voters notice it too, and pre-vote asks
//! them before any term rises.

use raft::{Raft, StateRole, Storage};

use super::config::Ticks;

/// A new timeout was drawn for these.
type Situation = (u64, StateRole, u64);

/// Draws and keeps the election timeout of one replica.
#[derive(Clone, Debug)]
pub(super) struct Timeouts {
    state: u64,
    min: usize,
    max: usize,
    current: usize,
    drawn_for: Option<Situation>,
}

/// The most ticks between a lost connection to the leader and a campaign.
const HASTENED_TICKS: u64 = 6;

impl Timeouts {
    /// `salt` tells replicas of one seed apart.
    pub(super) fn new(seed: u64, salt: u64, ticks: &Ticks) -> Self {
        let min = usize::try_from(ticks.election_min).unwrap_or(usize::MAX);
        let max = usize::try_from(ticks.election_max).unwrap_or(usize::MAX);
        let state = seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { state, min, max, current: min, drawn_for: None }
    }

    /// Sets raft's timeout to ours, drawing a new one if the situation changed.
    pub(super) fn keep<S: Storage>(&mut self, raft: &mut Raft<S>) {
        let situation = (raft.term, raft.state, raft.leader_id);
        if self.drawn_for != Some(situation) {
            let span = u64::try_from(self.max.saturating_sub(self.min)).unwrap_or(0).saturating_add(1);
            let extra = usize::try_from(self.draw(span)).unwrap_or(0);
            self.current = self.min.saturating_add(extra);
            self.drawn_for = Some(situation);
        }
        raft.set_randomized_election_timeout(self.current);
    }

    /// Lets a follower whose leader is gone campaign within a few ticks.
    pub(super) fn hasten<S: Storage>(&mut self, raft: &mut Raft<S>) {
        let wait = usize::try_from(1u64.saturating_add(self.draw(HASTENED_TICKS))).unwrap_or(1);
        self.current = self.max;
        raft.set_randomized_election_timeout(self.current);
        // At least the minimal timeout: below it this replica would refuse others its vote.
        let elapsed = self.max.saturating_sub(wait).max(self.min);
        raft.election_elapsed = raft.election_elapsed.max(elapsed);
    }

    /// The next number below `below`: splitmix64.
    fn draw(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).checked_rem(below).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_with_the_seed_and_differ_between_replicas() {
        let ticks = Ticks::default();
        let draws = |seed, salt| {
            let mut timeouts = Timeouts::new(seed, salt, &ticks);
            (0..100).map(|_| timeouts.draw(13)).collect::<Vec<_>>()
        };
        assert_eq!(draws(7, 1), draws(7, 1));
        assert_ne!(draws(7, 1), draws(7, 2));
        assert!(draws(7, 1).iter().all(|drawn| *drawn < 13));
        assert!((0..13).all(|value| draws(7, 1).contains(&value)), "the whole range is used");
    }
}
