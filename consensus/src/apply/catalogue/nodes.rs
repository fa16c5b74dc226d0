//! Nodes: who they are, and how they come and go.
//!
//! **An incarnation is one data directory.** A node plays only replicas of the directory it runs on. One that
//! comes with another has lost what its replicas had promised, so they are given up, and new ones take their
//! places. The old directory is never taken back, whatever becomes of the node.

use tidelog_wire::ids::{GroupId, Incarnation, NodeId, ReplicaId};

use super::{Catalogue, Node, count};
use crate::apply::group_placement::{Replica, UNBOUND};
use crate::apply::node_state::{NodeEvent, NodeState};
use crate::entry::{NodeRecord, Want};
use crate::outcome::{Outcome, Refusal};

/// Most nodes in a cluster, those that were removed among them.
pub const NODES_MAX: u32 = 1024;
/// Most data directories that are given up in the life of a cluster.
pub const INCARNATIONS_RETIRED_MAX: u32 = 65_536;

impl Catalogue {
    /// The record of a node, once it has registered and until it is removed.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&node)?.record.as_ref()
    }

    /// The records of all nodes that have registered and are not removed.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values().filter_map(|node| node.record.as_ref())
    }

    /// All nodes, removed ones too.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// A node, removed or not.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(&node)
    }

    /// Where a node is in its life.
    #[must_use]
    pub fn node_state(&self, node: NodeId) -> Option<NodeState> {
        self.nodes.get(&node).map(|node| node.state)
    }

    /// The first data directory that was entered: tells this cluster from another of the same authority.
    #[must_use]
    pub fn founding(&self) -> Option<Incarnation> {
        self.founding
    }

    /// Whether this data directory was given up.
    #[must_use]
    pub fn is_retired(&self, incarnation: Incarnation) -> bool {
        self.retired.contains(&incarnation)
    }

    /// A record replaces one of an older start of the same data directory, and binds a genesis node to its own.
    pub(super) fn register(&mut self, record: NodeRecord) -> Result<Outcome, Refusal> {
        let (node, found) = (record.node, record.incarnation);
        self.refuse_retired(&record)?;
        let known = self.nodes.get_mut(&node).ok_or(Refusal::UnknownNode { node })?;
        if known.state == NodeState::Removed {
            return Err(Refusal::NodeState { node, state: known.state });
        }
        if known.incarnation != found && known.incarnation != UNBOUND {
            return Err(Refusal::OtherIncarnation { node, found, known: known.incarnation });
        }
        // The same start is one process: another one that claims it runs on a copy of the directory.
        let newer = |known: &&NodeRecord| {
            known.boot_epoch > record.boot_epoch
                || known.boot_epoch == record.boot_epoch && known.session != record.session
        };
        if let Some(newer) = known.record.as_ref().filter(newer) {
            return Err(Refusal::StaleNode { node, found: record.boot_epoch, known: newer.boot_epoch });
        }
        let binds = known.incarnation == UNBOUND;
        known.incarnation = found;
        known.record = Some(record);
        self.founding.get_or_insert(found);
        if binds {
            for placement in self.groups.values_mut() {
                for replica in placement.replicas.values_mut().filter(|replica| replica.node == node) {
                    replica.incarnation = found;
                }
            }
        }
        Ok(Outcome::NodeRegistered)
    }

    fn refuse_retired(&self, record: &NodeRecord) -> Result<(), Refusal> {
        let (node, incarnation) = (record.node, record.incarnation);
        if self.is_retired(incarnation) || incarnation == UNBOUND {
            return Err(Refusal::IncarnationRetired { node, incarnation });
        }
        Ok(())
    }

    /// Takes a node in, or takes it back with another data directory. The same one asked again changes no more
    /// than its record.
    pub(super) fn join(&mut self, record: NodeRecord) -> Result<Outcome, Refusal> {
        self.refuse_retired(&record)?;
        let (node, incarnation) = (record.node, record.incarnation);
        let known = self.nodes.get(&node).map(|known| (known.incarnation, known.state));
        if let Some((before, state)) = known
            && before == incarnation
            && state != NodeState::Removed
        {
            return self.register(record);
        }
        if known.is_none() && count(self.nodes.len()) >= NODES_MAX {
            return Err(Refusal::TooManyNodes { max: NODES_MAX });
        }
        if count(self.retired.len()) >= INCARNATIONS_RETIRED_MAX {
            return Err(Refusal::Exhausted { counter: "data directories that may be given up" });
        }
        let state = known.map_or(NodeState::Removed, |(_, state)| state);
        let state = state.after(NodeEvent::Joined).ok_or(Refusal::NodeState { node, state })?;
        if let Some((before, _)) = known.filter(|(before, _)| *before != UNBOUND) {
            self.retired.insert(before);
        }
        self.founding.get_or_insert(incarnation);
        self.nodes.insert(node, Node { state, incarnation, record: Some(record) });
        self.succeed_replicas(node, incarnation, state)?;
        Ok(Outcome::NodeRegistered)
    }

    /// Gives up all replicas of a node's earlier data directory, and mints one in the new one for each; the meta
    /// group has one on every node.
    fn succeed_replicas(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        state: NodeState,
    ) -> Result<(), Refusal> {
        let mut wanted: Vec<(GroupId, Want)> = Vec::new();
        for (group, placement) in &mut self.groups {
            let mut want = (*group == GroupId::META).then_some(Want::Learner);
            for replica in placement.replicas.values_mut().filter(|replica| replica.node == node) {
                if replica.want != Want::Gone {
                    want = Some(replica.want);
                }
                replica.want = Want::Gone;
            }
            wanted.extend(want.map(|want| (*group, want)));
        }
        if state == NodeState::Draining {
            return Ok(());
        }
        for (group, want) in wanted {
            let id = self.mint_replica()?;
            if let Some(placement) = self.groups.get_mut(&group) {
                placement.replicas.insert(id, Replica { node, incarnation, want });
            }
        }
        Ok(())
    }

    pub(super) fn drain(&mut self, node: NodeId) -> Result<Outcome, Refusal> {
        self.move_node(node, NodeEvent::DrainAsked)
    }

    pub(super) fn forget(&mut self, node: NodeId) -> Result<Outcome, Refusal> {
        let replicas = self.replicas_of(node).count();
        if replicas > 0 {
            return Err(Refusal::NodeNotEmpty { node, replicas: count(replicas) });
        }
        if count(self.retired.len()) >= INCARNATIONS_RETIRED_MAX {
            return Err(Refusal::Exhausted { counter: "data directories that may be given up" });
        }
        let outcome = self.move_node(node, NodeEvent::Forgotten)?;
        if let Some(known) = self.nodes.get_mut(&node) {
            known.record = None;
            if known.incarnation != UNBOUND {
                self.retired.insert(known.incarnation);
            }
        }
        Ok(outcome)
    }

    pub(super) fn move_node(&mut self, node: NodeId, event: NodeEvent) -> Result<Outcome, Refusal> {
        let known = self.nodes.get_mut(&node).ok_or(Refusal::UnknownNode { node })?;
        let state = known.state;
        known.state = state.after(event).ok_or(Refusal::NodeState { node, state })?;
        Ok(Outcome::Noted)
    }

    /// All replicas that are on a node, or should be, or should go from it.
    pub fn replicas_of(&self, node: NodeId) -> impl Iterator<Item = (GroupId, ReplicaId, &Replica)> {
        self.groups.iter().flat_map(move |(group, placement)| {
            let of_node = placement.replicas.iter().filter(move |(_, replica)| replica.node == node);
            of_node.map(|(id, replica)| (*group, *id, replica))
        })
    }
}
