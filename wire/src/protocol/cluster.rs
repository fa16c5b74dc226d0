//! The cluster's members: what is wanted of them, as the catalogue has it, and what is, as the groups last said.
//!
//! Where the two differ, something is under way, and it goes on by itself: nobody has to look at this for that.

use bincode::{Decode, Encode};

use super::answer::NodeInfo;
use crate::ids::{BootEpoch, ClusterId, GroupId, Incarnation, NodeId, ReplicaId};

/// Nodes and groups, as the answering node's catalogue has them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ClusterInfo {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Whether it holds all that was agreed on before it was asked for. Otherwise the answering node could not reach a
    /// majority of the meta group, or is no member any more, and tells what it knew last.
    pub current: bool,
    /// Every node that ever was a member, by number.
    pub nodes: Vec<MemberNode>,
    /// Every group, by number.
    pub groups: Vec<MemberGroup>,
}

/// A node as a member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberNode {
    /// Who, and where.
    pub info: NodeInfo,
    /// Where other nodes reach it.
    pub peer: String,
    /// Which formatting of its directory.
    pub incarnation: Incarnation,
    /// Which start.
    pub boot_epoch: BootEpoch,
    /// How far its membership is.
    pub state: NodeState,
    /// The newest apply version that its release knows.
    pub apply_version: u16,
}

/// How far a node's membership is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeState {
    /// It was let in, and receives what it is to hold.
    Joining,
    /// A member.
    Active,
    /// A member that hands on what it holds, because it is to leave.
    Draining,
    /// It left. This directory of it is never let in again.
    Removed,
}

/// A group, and which replicas it has and should have.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberGroup {
    /// The group.
    pub group: GroupId,
    /// The node that leads it, as far as the answering node knows.
    pub leader: Option<NodeId>,
    /// What the catalogue wants.
    pub wanted: Vec<WantedReplica>,
    /// Replicas that vote, as the group said last.
    pub voters: Vec<ReplicaId>,
    /// Replicas that only receive, as the group said last.
    pub learners: Vec<ReplicaId>,
}

/// A replica that a group should have, or should lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WantedReplica {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
    /// What it should be.
    pub want: Want,
}

/// What a replica should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Want {
    /// It votes and counts.
    Voter,
    /// It receives only.
    Learner,
    /// No member any more.
    Gone,
}

impl MemberGroup {
    /// Whether the group's members are those that are wanted.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let has = |list: &[ReplicaId], replica: &WantedReplica| list.contains(&replica.replica);
        let wanted = self.wanted.iter().filter(|replica| replica.want != Want::Gone);
        let fits = self.wanted.iter().all(|replica| match replica.want {
            Want::Voter => has(&self.voters, replica),
            Want::Learner => has(&self.learners, replica),
            Want::Gone => !has(&self.voters, replica) && !has(&self.learners, replica),
        });
        fits && wanted.count() == self.voters.len() + self.learners.len()
    }
}
