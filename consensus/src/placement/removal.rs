//! Whether a node may be removed, before anybody begins.

use std::collections::BTreeSet;

use tidelog_wire::ids::{GroupId, NodeId};

use super::target::target;
use crate::apply::Catalogue;
use crate::apply::node_state::NodeState;
use crate::entry::Replication;

/// Why a node must not be removed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalRefusal {
    /// No such node.
    #[error("node {node} is not a member of the cluster")]
    Unknown {
        /// As asked.
        node: NodeId,
    },
    /// It is the only one.
    #[error("node {node} is the only one: there is nowhere to move what is on it")]
    LastNode {
        /// As asked.
        node: NodeId,
    },
    /// Channels ask for more copies than there would be nodes.
    #[error(
        "group {group} is to have {copies} copies and there would be {nodes} nodes: add a node first, or delete \
         the channels that ask for so many"
    )]
    TooFewNodes {
        /// The group.
        group: GroupId,
        /// What it is to have.
        copies: u32,
        /// What would be left.
        nodes: usize,
    },
    /// The members of a group cannot change while most of them are away.
    #[error(
        "group {group}: {alive} of its {voters} voters can be heard, fewer than a majority: bring them back first"
    )]
    NoQuorum {
        /// The group.
        group: GroupId,
        /// That can be heard.
        alive: usize,
        /// That count.
        voters: usize,
    },
    /// Without it too few nodes that are up would be left.
    #[error(
        "group {group} would have {voters} voters without node {node}, and only {alive} nodes that could be \
         among them can be heard: bring nodes back, or add one, first"
    )]
    WouldLoseQuorum {
        /// The group.
        group: GroupId,
        /// As asked.
        node: NodeId,
        /// What it would have.
        voters: usize,
        /// What could be heard.
        alive: usize,
    },
}

/// Why `node` must not be removed now, where `alive` are the nodes that can be heard. `None` if nothing speaks
/// against it; one that is on its way out may always be asked again.
#[must_use]
pub fn refuse_removal(
    catalogue: &Catalogue,
    node: NodeId,
    alive: &BTreeSet<NodeId>,
) -> Option<RemovalRefusal> {
    match catalogue.node_state(node) {
        None => return Some(RemovalRefusal::Unknown { node }),
        Some(NodeState::Draining | NodeState::Removed) => return None,
        Some(NodeState::Joining | NodeState::Active) => {}
    }
    let stays = |(id, state): (NodeId, NodeState)| (id != node && state == NodeState::Active).then_some(id);
    let left: BTreeSet<NodeId> =
        catalogue.members().filter_map(|(id, known)| stays((id, known.state))).collect();
    if left.is_empty() {
        return Some(RemovalRefusal::LastNode { node });
    }
    let left_alive = left.intersection(alive).count();
    for (group, placement) in catalogue.groups() {
        if let Replication::Fixed(copies) = placement.replication
            && usize::try_from(copies).is_ok_and(|copies| copies > left.len())
        {
            return Some(RemovalRefusal::TooFewNodes { group, copies, nodes: left.len() });
        }
        let Some(reported) = placement.reported.as_ref() else { continue };
        if placement.on(node).is_none() {
            continue;
        }
        let node_of = |id| placement.replicas.get(id).map(|replica| replica.node);
        let heard = reported.voters.iter().filter_map(node_of).filter(|node| alive.contains(node)).count();
        let voters = reported.voters.len();
        if heard.saturating_mul(2) <= voters {
            return Some(RemovalRefusal::NoQuorum { group, alive: heard, voters });
        }
        let voters = target(group, placement.replication, left.len()).voters;
        if left_alive.saturating_mul(2) <= voters {
            return Some(RemovalRefusal::WouldLoseQuorum { group, node, voters, alive: left_alive });
        }
    }
    None
}
