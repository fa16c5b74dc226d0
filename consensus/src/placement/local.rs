//! Which replicas a node should run: what to start, and what to stop.
//!
//! A replica is started **as genesis** if it is one of the group's first members: its first checkpoint is
//! known, the same on every node and day. Any other is started **blank**: it gets a snapshot, always.
//!
//! A replica that should go runs on until the catalogue has forgotten it, because until then its group may
//! need its vote. One that the catalogue does not know (any more) is stopped.

use std::collections::BTreeMap;

use tidelog_wire::ids::{GroupId, Incarnation, NodeId, ReplicaId};

use crate::apply::Catalogue;

/// What a new replica begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAs {
    /// The group's first checkpoint.
    Genesis,
    /// Nothing.
    Blank,
}

/// What to start and stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalChanges {
    /// In place of the group's earlier replica here, if there is one.
    pub start: Vec<(GroupId, ReplicaId, StartAs)>,
    /// Groups of which this node has no replica any more.
    pub stop: Vec<GroupId>,
}

/// What `node`, in its data directory `incarnation`, should start and stop, where `running` are its replicas,
/// halted ones among them.
#[must_use]
pub fn local(
    catalogue: &Catalogue,
    node: NodeId,
    incarnation: Incarnation,
    running: &BTreeMap<GroupId, ReplicaId>,
) -> LocalChanges {
    let mut changes = LocalChanges::default();
    for (group, placement) in catalogue.groups() {
        let Some(replica) = catalogue.replica_on(group, node, incarnation) else { continue };
        if running.get(&group).is_none_or(|running| *running < replica) {
            let genesis = placement.genesis.contains(&(replica, node));
            let start_as = if genesis { StartAs::Genesis } else { StartAs::Blank };
            changes.start.push((group, replica, start_as));
        }
    }
    let known = |group: GroupId, replica: ReplicaId| {
        catalogue.group(group).is_some_and(|placement| placement.replicas.contains_key(&replica))
    };
    for (group, replica) in running {
        let starts = changes.start.iter().any(|(starting, _, _)| starting == group);
        // One that was minted after what is applied of the catalogue here is not forgotten by it.
        if !starts && !known(*group, *replica) && catalogue.was_replica_minted(*replica) {
            changes.stop.push(*group);
        }
    }
    changes
}
