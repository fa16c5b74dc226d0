//! Who belongs to a group, and where: a fact of the group's own raft log, kept in its checkpoints.
//!
//! While membership changes by joint consensus, the voters of before are kept as `outgoing`: both sets
//! must agree to everything. Learners receive and do not count; `learners_next` are voters of before that
//! become learners when the joint configuration is left.
//!
//! Not here: how membership changes. The raft log of the group decides, and apply keeps the outcome.

use tidelog_wire::ids::{NodeId, ReplicaId};

use super::codec::CheckpointFault;
use crate::fields::{FieldWriter, Fields};

/// The members of a group. Empty where there is no group: embedded logs, and a replica that has nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Replicas that count.
    pub voters: Vec<ReplicaId>,
    /// While the configuration is joint, the replicas that counted before, and count too until it is left.
    pub outgoing: Vec<ReplicaId>,
    /// Replicas that receive and do not count.
    pub learners: Vec<ReplicaId>,
    /// Of `outgoing`, those that become learners when the joint configuration is left.
    pub learners_next: Vec<ReplicaId>,
    /// Which node each of them is on.
    pub replicas: Vec<(ReplicaId, NodeId)>,
}

impl Members {
    /// A group whose replicas all count.
    #[must_use]
    pub fn of_voters(replicas: Vec<(ReplicaId, NodeId)>) -> Self {
        let voters = replicas.iter().map(|(replica, _)| *replica).collect();
        Self { voters, replicas, ..Self::default() }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.voters.is_empty() && self.replicas.is_empty()
    }

    /// Whether a change is under way: two sets of voters count.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `replica` is one of them, in whatever part.
    #[must_use]
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.all().any(|member| member == replica)
    }

    /// Whether `replica` counts, in either set of voters.
    #[must_use]
    pub fn counts(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// Where `replica` is.
    #[must_use]
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.replicas.iter().find(|(member, _)| *member == replica).map(|(_, node)| *node)
    }

    /// Which member is on `node`. Of several, which only a change under way has, the newest.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        let here = self.replicas.iter().filter(|(_, at)| *at == node);
        here.map(|(replica, _)| *replica).max()
    }

    /// All of them; one that is in two sets of a change under way comes twice.
    pub fn all(&self) -> impl Iterator<Item = ReplicaId> {
        let voters = self.voters.iter().chain(&self.outgoing);
        voters.chain(&self.learners).chain(&self.learners_next).copied()
    }

    pub(super) fn encode(&self, out: &mut FieldWriter) {
        for list in [&self.voters, &self.outgoing, &self.learners, &self.learners_next] {
            out.count(list.len());
            for replica in list {
                out.u64(replica.get());
            }
        }
        out.count(self.replicas.len());
        for (replica, node) in &self.replicas {
            out.u64(replica.get()).u64(node.get());
        }
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<Self, CheckpointFault> {
        let mut members = Self::default();
        for list in
            [&mut members.voters, &mut members.outgoing, &mut members.learners, &mut members.learners_next]
        {
            for _ in 0..fields.count(8)? {
                list.push(ReplicaId(fields.u64()?));
            }
        }
        for _ in 0..fields.count(16)? {
            members.replicas.push((ReplicaId(fields.u64()?), NodeId(fields.u64()?)));
        }
        Ok(members)
    }
}
