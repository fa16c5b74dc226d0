//! What a node's core is started with: its replicas, its timing, its limits.
//!
//! Not here: where these facts come from. The runtime reads checkpoints, raft log and votes.

use tidelog_engine::checkpoint::{EntryId, Members};
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, ReplicaId};

use crate::raft_log::GroupLog;
use crate::votes::Vote;

/// Everything that a [`NodeCore`](super::NodeCore) is built from.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This node.
    pub node: NodeId,
    /// This start of it. Rounds of read-index of earlier lives are told apart by it.
    pub boot: BootEpoch,
    /// Its replicas, one a group.
    pub groups: Vec<ReplicaStart>,
    /// Timing in ticks.
    pub ticks: Ticks,
    /// Bounds of memory, messages and queues.
    pub limits: CoreLimits,
    /// From it all election timeouts are drawn: the same seed and inputs give the same run.
    pub seed: u64,
}

/// One replica, as its files describe it.
///
/// A **blank** one has nothing yet: its checkpoint facts are the default ones, at entry 0 without members,
/// whatever checkpoint files of an older replica lie there. It gets a snapshot, always, and neither votes
/// nor campaigns before. Log and votes are its own all the same, in case it was blank at an earlier start.
#[derive(Clone, Debug)]
pub struct ReplicaStart {
    /// The group.
    pub group: GroupId,
    /// This node's member of it.
    pub replica: ReplicaId,
    /// From the newest usable checkpoint. Without one there is no replica to start.
    pub checkpoint: CheckpointFacts,
    /// What the raft log holds, read and checked to its end.
    pub log: GroupLog,
    /// From the votes file; `None` if the group is not in it.
    pub vote: Option<Vote>,
}

impl ReplicaStart {
    /// A replica that has nothing yet.
    #[must_use]
    pub fn blank(group: GroupId, replica: ReplicaId) -> Self {
        let log = GroupLog { replica: Some(replica), ..GroupLog::default() };
        Self { group, replica, checkpoint: CheckpointFacts::default(), log, vote: None }
    }

    /// Whether it has nothing yet.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.checkpoint == CheckpointFacts::default()
    }
}

/// What the core needs to know of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Everything up to this entry is in it.
    pub applied: EntryId,
    /// The last entry that was durable in the raft log when it was written.
    pub last_durable: EntryId,
    /// Who belonged to the group at that entry.
    pub members: Members,
}

/// Timing, counted in [`Input::Tick`](super::Input::Tick)s. A tick is 25 ms in a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// A leader sends heartbeats this often.
    pub heartbeat: u32,
    /// A follower waits at least this long for its leader.
    pub election_min: u32,
    /// And at most this long.
    pub election_max: u32,
    /// A leader offers a snapshot again if the follower has not caught up by then.
    pub snapshot_retry: u32,
    /// A leader that has nothing to do for so long lets its group sleep.
    pub quiet: u32,
    /// A leader whose disk has not finished a write for so long, while others have, hands over.
    pub slow_disk: u32,
}

impl Default for Ticks {
    fn default() -> Self {
        Self {
            heartbeat: 2,
            election_min: 12,
            election_max: 24,
            snapshot_retry: 120,
            quiet: 40,
            slow_disk: 20,
        }
    }
}

/// Bounds. Each is enforced by the core; what does not fit is answered or dropped, never queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoreLimits {
    /// Context and data of one entry.
    pub entry_bytes_max: u64,
    /// Entries of one append message, unless a single one is larger.
    pub message_bytes_max: u64,
    /// Append messages on their way to one follower.
    pub inflight_max: usize,
    /// Proposed and not yet committed, per group.
    pub uncommitted_bytes_max: u64,
    /// Handed to apply by one ready.
    pub committed_bytes_per_ready_max: u64,
    /// Handed to apply and not reported applied, per group; beyond it one entry at a time.
    pub applying_bytes_max: u64,
    /// Entries in memory that may not be evicted yet, per group.
    pub tail_bytes_max: u64,
    /// Entries kept in memory for followers that lag, per group.
    pub tail_bytes_kept: u64,
    /// Read from the raft log for lagging followers in one step, per group.
    pub read_bytes_per_step_max: u64,
    /// Proposals of unknown fate, per group.
    pub tokens_max: usize,
    /// Read-index rounds without an answer, per group.
    pub reads_max: usize,
}

impl Default for CoreLimits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            entry_bytes_max: 16 * MIB + 64 * 1024,
            message_bytes_max: MIB,
            inflight_max: 256,
            uncommitted_bytes_max: 64 * MIB,
            committed_bytes_per_ready_max: 8 * MIB,
            applying_bytes_max: 32 * MIB,
            tail_bytes_max: 160 * MIB,
            tail_bytes_kept: 16 * MIB,
            read_bytes_per_step_max: 4 * MIB,
            tokens_max: 65_536,
            reads_max: 1_024,
        }
    }
}
