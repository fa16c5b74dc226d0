//! Who belongs to a group, and how that changes.

use std::collections::BTreeMap;

use raft::eraftpb::ConfState;
use tidelog_engine::checkpoint::Members;
use tidelog_wire::ids::{NodeId, ReplicaId};

/// Who comes and who goes. Empty: leave the joint configuration that a change before began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// New replicas, as learners, with the node that each is on.
    pub add: Vec<(ReplicaId, NodeId)>,
    /// Learners that shall count.
    pub promote: Vec<ReplicaId>,
    /// Voters that shall count no more, and stay as learners.
    pub demote: Vec<ReplicaId>,
    /// Replicas that shall go.
    pub remove: Vec<ReplicaId>,
}

impl MemberChange {
    /// Whether it leaves the joint configuration.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.promote, &self.demote, &self.remove].iter().all(|replicas| replicas.is_empty())
            && self.add.is_empty()
    }
}

/// Why members do not change. Nothing was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// An earlier change is not applied yet, or its joint configuration not left.
    #[error("a change of its members is under way: try again when it is done")]
    UnderWay,
    /// There is no joint configuration to leave.
    #[error("no change of its members is under way that could be finished")]
    NotJoint,
    /// It names a replica that is no member, or no learner where only learners can be meant.
    #[error("replica {0} is no member that this can be done to")]
    Unknown(ReplicaId),
    /// It adds a replica that is a member, or names one twice.
    #[error("replica {0} is a member already, or is named twice")]
    Twice(ReplicaId),
    /// Nobody would be left to vote.
    #[error("nobody would be left who votes")]
    LastVoter,
    /// More members than a group may have.
    #[error("a group has at most 64 members")]
    TooMany,
    /// A learner that would count lacks entries that are committed: the group could stand still.
    #[error("replica {0} has not caught up yet")]
    NotCaughtUp(ReplicaId),
}

/// Our form of raft's members. `nodes` may know more replicas than there are members.
pub(super) fn members_of(conf: &ConfState, nodes: &BTreeMap<ReplicaId, NodeId>) -> Members {
    let sorted = |ids: &[u64]| {
        let mut ids: Vec<_> = ids.iter().copied().map(ReplicaId).collect();
        ids.sort_unstable();
        ids
    };
    let mut members = Members {
        voters: sorted(&conf.voters),
        outgoing: sorted(&conf.voters_outgoing),
        learners: sorted(&conf.learners),
        learners_next: sorted(&conf.learners_next),
        replicas: Vec::new(),
    };
    members.replicas = nodes
        .iter()
        .filter(|(replica, _)| members.contains(**replica))
        .map(|(replica, node)| (*replica, *node))
        .collect();
    members
}
