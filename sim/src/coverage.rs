//! What should happen in a large enough run, each thing counted: every fault, and every path that only a fault opens.
//!
//! A simulation that never drives the code into a corner proves nothing about the corner. So each corner has a
//! counter, the counters are summed over all seeds, and a full run in which one of them is 0 has failed, as
//! surely as one in which a property was broken.

use std::collections::BTreeMap;

/// Defines what is counted: name, text on the screen, meaning.
macro_rules! counted {
    ($($name:ident $text:literal $meaning:literal,)*) => {
        /// Something that should happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Seen {
            $(#[doc = $meaning] $name,)*
        }

        impl Seen {
            /// All of it.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name on the screen.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

counted! {
    CutLink "fault.cut_link" "A link was cut, both ways.",
    CutOneWay "fault.cut_one_way" "A link was cut, one way.",
    Isolate "fault.isolate" "A node was cut off from all others.",
    KillProcess "fault.kill_process" "A process died, the cache lived.",
    LoseUnsynced "fault.lose_unsynced" "A machine died and everything unsynced was lost.",
    CutPower "fault.cut_power" "A machine died and what was not synced was lost, torn or kept by chance.",
    DieInOperation "fault.die_in_operation" "A machine died in the middle of an operation of its disk.",
    CutAllPower "fault.cut_all_power" "All machines died at once.",
    ReviveThenCut "fault.revive_then_cut" "A process came back, answered, and lost its power.",
    SlowDisk "fault.slow_disk" "A disk was slow for a while.",
    Pause "fault.pause" "A process was stopped for a while, and went on.",
    JumpClock "fault.jump_clock" "A clock jumped.",
    NodeAdded "operator.node_added" "A new machine asked to join.",
    NodeDrained "operator.node_drained" "A node was to leave.",
    RemovalRefused "operator.removal_refused" "A node was not let go, with a reason.",
    NodeLeft "operator.node_left" "A node had left, and was switched off.",
    Wiped "operator.wiped" "A node lost its disk, and joined anew.",
    BeganAnew "operator.began_anew" "A node that had forgotten replicas gave up the rest, and joined anew.",
    RaftLogLost "operator.raft_log_lost" "A node lost its raft log.",
    StrangerIgnored "network.stranger_ignored" "A message of a life that the catalogue does not know was dropped.",
    MemberAdded "members.added" "A leader wanted a replica to come.",
    MemberPromoted "members.promoted" "A leader wanted a learner to count.",
    MemberDemoted "members.demoted" "A leader wanted a voter to stay as a learner.",
    MemberRemoved "members.removed" "A leader wanted a replica to go.",
    JointEntered "members.joint" "A group had two sets of voters.",
    JointLeft "members.joint_left" "A leader left a joint configuration.",
    HandOverToLeave "members.hand_over_to_leave" "A leader handed over because it is to go.",
    HandOverToPreferred "members.hand_over_to_preferred" "A leader handed over to the node that should lead.",
    ReplicaPlaced "plan.replica_placed" "The catalogue was told to want a replica.",
    ReplicaRetired "plan.replica_retired" "The catalogue was told to want a replica no more.",
    NodeForgotten "plan.node_forgotten" "An empty node was forgotten.",
    ReplicaHalted "core.halted" "A replica found that it had forgotten something, and stopped.",
    ReplicaStopped "core.replica_stopped" "A node stopped a replica that nobody wants.",
    Transfer "fault.transfer" "A leader was asked to hand over.",
    MessageLost "network.lost" "A message was lost by the weather.",
    MessageRepeated "network.repeated" "A message arrived twice.",
    ConnectionLost "network.connection_lost" "A node missed another one.",
    FellQuiet "core.fell_quiet" "The clocks of a group stopped, since nothing happened.",
    Woke "core.woke" "The clocks of a quiet group went on.",
    MessageRefused "core.message_refused" "A core refused a message.",
    Elected "core.elected" "A leader was elected.",
    HandedOver "core.handed_over" "A leader handed over as it was asked.",
    ReadIndexServed "core.read_index" "A current read was answered.",
    ProposalSuperseded "core.superseded" "Another entry was committed in a proposal's place.",
    ProposalNotLeader "core.not_leader" "A proposal met a node that does not lead.",
    ProposalMayHaveCommitted "core.may_have_committed" "A proposal's fate was lost with the log that a snapshot replaced.",
    LogTruncated "raft_log.truncated" "A follower's entries were overwritten.",
    LogCompacted "raft_log.compacted" "A raft log forgot a prefix.",
    CheckpointWritten "checkpoint.written" "A checkpoint was written.",
    CheckpointUnfinished "checkpoint.unfinished" "A start found a checkpoint that was being written.",
    SnapshotExported "snapshot.exported" "A checkpoint was offered as a snapshot.",
    SnapshotTooOld "snapshot.too_old" "A newer checkpoint was taken, since the newest did not name the follower.",
    SnapshotFetched "snapshot.fetch_begun" "An offered snapshot was asked for.",
    SnapshotFromOther "snapshot.from_other" "Bytes of a snapshot came from another node than the one that offered it.",
    SnapshotInterrupted "snapshot.interrupted" "A transfer broke off.",
    SnapshotStaged "snapshot.staged" "A snapshot lay in staging, whole.",
    SnapshotReused "snapshot.reused_files" "Files that were there already were used where they lay.",
    SnapshotGivenUp "snapshot.given_up" "A transfer was given up.",
    SnapshotInstalled "snapshot.installed" "A replica switched to a snapshot.",
    SnapshotFinished "snapshot.finished_at_start" "A start finished a switch that a crash had interrupted.",
    StartWhole "start.log_whole" "A replica started on a raft log that goes on where its checkpoint ends.",
    StartBlank "start.blank" "A replica began with nothing.",
    StartGenesis "start.genesis" "A replica of a new group began with its first checkpoint.",
    StartEmpty "start.log_empty" "A replica started without entries.",
    RecoveryKept "recovery.frames_kept" "A start kept frames above the checkpoint.",
    RecoveryReplayed "recovery.frames_confirmed" "Entries applied again confirmed frames that were kept.",
    RecoveryCut "recovery.torn_tail_cut" "A start cut a torn tail.",
    RecoverySealedAgain "recovery.sealed_again" "A start sealed a segment again.",
    SegmentSealed "segment.sealed" "A segment was sealed.",
    Acknowledged "client.acknowledged" "A batch was acknowledged.",
    Duplicate "client.duplicate" "A retry was told from a new batch.",
    OutOfOrder "client.out_of_order" "A batch came before the one that it follows.",
    ClosedRefused "client.log_closed" "A batch for a generation that is gone was refused.",
    Created "channel.created" "A channel was created.",
    Deleted "channel.deleted" "A channel was deleted.",
    Recreated "channel.recreated" "A name was given to a channel again.",
    Trimmed "channel.trimmed" "A log's start was raised.",
    Purged "channel.purged" "A log's start was raised to its end.",
}

/// How often each thing happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<Seen, u64>,
}

impl Coverage {
    /// It happened.
    pub fn note(&mut self, what: Seen) {
        self.add(what, 1);
    }

    /// It happened so often.
    pub fn add(&mut self, what: Seen, times: u64) {
        if times > 0 {
            let count = self.counts.entry(what).or_insert(0);
            *count = count.saturating_add(times);
        }
    }

    /// All that `other` counted happened too.
    pub fn merge(&mut self, other: &Self) {
        for (what, times) in &other.counts {
            self.add(*what, *times);
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn of(&self, what: Seen) -> u64 {
        self.counts.get(&what).copied().unwrap_or(0)
    }

    /// Each name with its count, those that never happened too.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        Seen::ALL.iter().map(|what| (what.name(), self.of(*what))).collect()
    }

    /// What never happened.
    #[must_use]
    pub fn never(&self) -> Vec<&'static str> {
        Seen::ALL.iter().filter(|what| self.of(**what) == 0).map(|what| what.name()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_never_happened_is_named() {
        let mut coverage = Coverage::default();
        for what in Seen::ALL.iter().filter(|what| **what != Seen::Purged) {
            coverage.note(*what);
        }
        assert_eq!(coverage.never(), [Seen::Purged.name()]);
        let mut sum = Coverage::default();
        sum.add(Seen::Purged, 2);
        sum.merge(&coverage);
        assert!(sum.never().is_empty());
        assert_eq!(sum.of(Seen::Purged), 2);
    }

    #[test]
    fn no_two_things_share_a_name() {
        let names: BTreeSet<_> = Seen::ALL.iter().map(|what| what.name()).collect();
        assert_eq!(names.len(), Seen::ALL.len());
    }
}
