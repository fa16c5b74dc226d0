//! How fast the leader's disk and its followers are.
//!
//! A follower's slow disk delays nobody, since a quorum acknowledges without it. A **leader's** delays everybody: it
//! applies, and so answers, nothing that its own disk does not have. So a leader whose oldest write has waited for its disk for [`Ticks::slow_disk`](super::Ticks) ticks, while a quorum
//! of others made entries committed that its own disk does not have, hands over: once, and not again before twenty
//! times as many ticks have passed.
//!
//! Also here: which followers have caught up. What was committed one or two spans of
//! [`Ticks::election_min`](super::Ticks) ago is durable at one that has.

use raft::ProgressState;
use tidelog_wire::ids::ReplicaId;

use super::replica::Replica;

/// Between two hand-overs for a slow disk, as many times the ticks that make it slow.
const PATIENCE: u64 = 20;

/// What is remembered of the time before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Index committed one to two spans ago.
    settled: u64,
    /// Index committed within the last span.
    fresh: u64,
    /// Begin of the span.
    since: u64,
    /// No hand-over before this tick.
    hand_over_from: u64,
}

impl Replica {
    /// Whether a member has all that was committed a moment ago. Only a leader knows.
    pub(super) fn is_caught_up(&self, replica: ReplicaId) -> bool {
        let raft = &self.raw.raft;
        let Some(progress) = raft.prs().get(replica.get()) else { return false };
        let settled = if self.quiet.is_asleep() { raft.raft_log.committed } else { self.pace.settled };
        settled > 0 && progress.matched >= settled && progress.state != ProgressState::Snapshot
    }

    /// A leader's look at the time, once a tick.
    pub(super) fn look_at_pace(&mut self) {
        if self.clock.saturating_sub(self.pace.since) >= u64::from(self.ticks.election_min) {
            self.pace.since = self.clock;
            self.pace.settled = self.pace.fresh;
            self.pace.fresh = self.raw.raft.raft_log.committed;
        }
        if self.is_slowed_by_disk() && self.clock >= self.pace.hand_over_from {
            let patience = u64::from(self.ticks.slow_disk).saturating_mul(PATIENCE);
            self.pace.hand_over_from = self.clock.saturating_add(patience);
            tracing::warn!(group = self.group.get(), "the disk of the leader is slow: it hands over");
            self.transfer(None);
        }
    }

    /// Who does not lead knows nothing of the others.
    pub(super) const fn forget_pace(&mut self) {
        self.pace.settled = 0;
        self.pace.fresh = 0;
    }

    fn is_slowed_by_disk(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        let waits = self.held.front().map_or(0, |oldest| self.clock.saturating_sub(oldest.since));
        waits >= u64::from(self.ticks.slow_disk) && log.committed > log.persisted
    }
}
