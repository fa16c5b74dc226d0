//! What the catalogue knows of one group: which replicas it should have, and which members it had when its
//! leader last reported.
//!
//! The intent is here, the fact is in the group's own raft log. A replica that should go stays in the
//! catalogue until a report shows that it is a member no more; only then is it forgotten, so that nobody
//! stops a replica whose vote the group still needs.

use std::collections::BTreeMap;

use tidelog_wire::ids::{Incarnation, NodeId, RaftIndex, ReplicaId};

use crate::entry::{Replication, Want};

/// The incarnation of a genesis replica whose node has not registered yet.
pub const UNBOUND: Incarnation = Incarnation(0);

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlacement {
    /// How many copies it shall have. The meta group's follows from the number of nodes.
    pub replication: Replication,
    /// The first members, for ever: what the group's first checkpoint is made of, on whatever node and day.
    pub genesis: Vec<(ReplicaId, NodeId)>,
    /// The rules of apply that it began with.
    pub genesis_version: u16,
    /// Its replicas, those that should go among them.
    pub replicas: BTreeMap<ReplicaId, Replica>,
    /// The newest report of its leader.
    pub reported: Option<ReportedMembers>,
}

/// A replica as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where.
    pub node: NodeId,
    /// In which data directory of the node, or [`UNBOUND`].
    pub incarnation: Incarnation,
    /// What it shall be.
    pub want: Want,
}

/// Members of a group, as its leader had applied them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedMembers {
    /// Up to this entry.
    pub index: RaftIndex,
    /// Members that count, ascending.
    pub voters: Vec<ReplicaId>,
    /// Members that count until the joint state is left, ascending.
    pub outgoing: Vec<ReplicaId>,
    /// Members that receive only, ascending.
    pub learners: Vec<ReplicaId>,
}

impl ReportedMembers {
    /// Whether the replica is a member in any way.
    #[must_use]
    pub fn names(&self, replica: ReplicaId) -> bool {
        [&self.voters, &self.outgoing, &self.learners].into_iter().any(|members| members.contains(&replica))
    }
}

impl GroupPlacement {
    /// The replicas that should stay or come.
    pub fn wanted(&self) -> impl Iterator<Item = (ReplicaId, &Replica)> {
        self.replicas
            .iter()
            .filter(|(_, replica)| replica.want != Want::Gone)
            .map(|(id, replica)| (*id, replica))
    }

    /// The replica that a node should have.
    #[must_use]
    pub fn on(&self, node: NodeId) -> Option<(ReplicaId, &Replica)> {
        self.wanted().find(|(_, replica)| replica.node == node)
    }

    /// How many replicas should count.
    #[must_use]
    pub fn voters(&self) -> usize {
        self.wanted().filter(|(_, replica)| replica.want == Want::Voter).count()
    }

    /// Whether the replica is the only one that should count.
    #[must_use]
    pub fn is_last_voter(&self, replica: ReplicaId) -> bool {
        self.voters() == 1 && self.replicas.get(&replica).is_some_and(|replica| replica.want == Want::Voter)
    }
}
