//! What can be seen of a replica from outside.

use raft::ProgressState;
use tidelog_engine::checkpoint::{EntryId, Members};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::error::HaltReason;
use super::replica::Replica;
use super::start::entry_id;

/// One replica, at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// This node's member.
    pub replica: ReplicaId,
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The node that leads, if known.
    pub leader: Option<NodeId>,
    /// The oldest entry it can still send.
    pub first: RaftIndex,
    /// The newest entry.
    pub last: RaftIndex,
    /// The newest entry durable here.
    pub durable: EntryId,
    /// Known committed.
    pub committed: RaftIndex,
    /// Applied here.
    pub applied: RaftIndex,
    /// Whether it leads **and** has applied an entry of its own term: only then does it know all
    /// that was acknowledged before.
    pub serves: bool,
    /// Bytes of entries in memory.
    pub tail_bytes: u64,
    /// What a snapshot is doing here.
    pub snapshot: SnapshotPhase,
    /// Who belongs to the group, by the entries handed to apply here.
    pub members: Members,
    /// The members as it sees them, if it leads.
    pub peers: Vec<PeerStatus>,
    /// Whether its clock stands still because nothing happens in the group.
    pub quiet: bool,
    /// Why it does not take part, if so.
    pub halted: Option<HaltReason>,
}

impl GroupStatus {
    /// A replica that does not take part: nothing is known of it but why.
    pub(crate) fn halted(group: GroupId, replica: ReplicaId, reason: HaltReason) -> Self {
        Self {
            group,
            replica,
            role: Role::Halted,
            term: Term::ZERO,
            leader: None,
            first: RaftIndex::ZERO,
            last: RaftIndex::ZERO,
            durable: EntryId::default(),
            committed: RaftIndex::ZERO,
            applied: RaftIndex::ZERO,
            serves: false,
            tail_bytes: 0,
            snapshot: SnapshotPhase::None,
            members: Members::default(),
            peers: Vec::new(),
            quiet: false,
            halted: Some(reason),
        }
    }
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Receives what the leader has, and does not count; also a replica that has nothing yet.
    Learner,
    /// Was removed from the group: it takes part no more, and can be stopped.
    Removed,
    /// Does not take part.
    Halted,
}

/// How far a snapshot has come at a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotPhase {
    /// None under way.
    None,
    /// Being brought into staging.
    Fetching,
    /// Being switched to.
    Installing,
}

/// A member as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// Durable there up to here.
    pub matched: RaftIndex,
    /// Whether it was heard of lately.
    pub active: bool,
    /// Whether it is waiting for a snapshot.
    pub in_snapshot: bool,
    /// Whether it receives only.
    pub learner: bool,
    /// Whether all that was committed a moment ago is durable there: then it can be promoted, or lead.
    pub caught_up: bool,
}

impl Replica {
    pub(super) fn status(&self) -> GroupStatus {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        let store = raft.store();
        let durable_term = store.terms.term(log.persisted).unwrap_or_default();
        let peers = self.roll.members.iter().filter(|_| self.is_leader()).filter_map(|(replica, node)| {
            let progress = raft.prs().get(replica.get())?;
            Some(PeerStatus {
                replica: *replica,
                node: *node,
                matched: RaftIndex(progress.matched),
                active: self.heard_lately(*replica) || *replica == self.id,
                in_snapshot: progress.state == ProgressState::Snapshot,
                learner: !raft.prs().conf().voters().contains(replica.get()),
                caught_up: self.is_caught_up(*replica),
            })
        });
        GroupStatus {
            group: self.group,
            replica: self.id,
            role: self.role(),
            term: Term(raft.term),
            leader: self.leader_node(),
            first: RaftIndex(store.terms.base().index.get().saturating_add(1)),
            last: RaftIndex(log.last_index()),
            durable: entry_id(log.persisted, durable_term.get()),
            committed: RaftIndex(log.committed),
            applied: RaftIndex(log.applied),
            serves: self.is_leader() && raft.apply_to_current_term(),
            tail_bytes: store.tail.bytes(),
            snapshot: self.incoming.phase(),
            members: self.members(),
            peers: peers.collect(),
            quiet: self.quiet.is_asleep(),
            halted: None,
        }
    }
}
