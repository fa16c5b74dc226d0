//! How many copies a group should have, by the size of the cluster.
//!
//! Two voters are worse than one: both are needed. So with two nodes one votes and the other receives.

use tidelog_wire::ids::GroupId;

use crate::apply::Catalogue;
use crate::apply::catalogue::AUTO_COPIES;
use crate::apply::node_state::NodeState;
use crate::entry::Replication;

/// How many replicas of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// That count.
    pub voters: usize,
    /// That receive only.
    pub learners: usize,
}

/// What a group should have in a cluster of this many active nodes, those among them that are down or slow.
#[must_use]
pub fn target(group: GroupId, replication: Replication, nodes: usize) -> Target {
    let auto = usize::try_from(AUTO_COPIES).unwrap_or(usize::MAX);
    let voters = match (group, nodes) {
        (_, 0) => 0,
        (_, 1 | 2) => 1,
        (GroupId::META, 3 | 4) => 3,
        (GroupId::META, _) => 5,
        (_, _) => auto,
    };
    match replication {
        Replication::Auto if group == GroupId::META => {
            Target { voters, learners: nodes.saturating_sub(voters) }
        }
        Replication::Auto => Target { voters, learners: nodes.min(auto).saturating_sub(voters) },
        Replication::Fixed(copies) => {
            Target { voters: usize::try_from(copies).unwrap_or(usize::MAX).min(nodes), learners: 0 }
        }
    }
}

/// How many nodes take part.
pub(super) fn active_nodes(catalogue: &Catalogue) -> usize {
    catalogue.members().filter(|(_, node)| node.state == NodeState::Active).count()
}
