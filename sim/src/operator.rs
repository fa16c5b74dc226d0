//! The operator: what people, and disks that break for good, do to a cluster. Nodes join and leave, directories are wiped
//! and raft logs lost.
//!
//! Whatever takes a replica's memory away is done only where the cluster can bear it, as a person would wait with the
//! second broken disk: of each group that the node votes in, a majority of the others must be whole. Without
//! that rule acknowledged records would be gone, and rightly so.

use std::io::ErrorKind;
use std::path::Path;

use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::apply::node_state::NodeState;
use tidelog_consensus::core::GroupStatus;
use tidelog_consensus::entry::MetaCommand;
use tidelog_consensus::placement::refuse_removal;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_wire::ids::{GroupId, Incarnation, NodeId};

use crate::coverage::Seen;
use crate::node::{NodeError, SimNode};
use crate::oracle::Violation;
use crate::settings::OperatorKind;
use crate::world::{Event, World};

/// Most nodes that a cluster here has.
pub(crate) const NODES_MAX: u64 = 7;
/// Where the simulated raft log lies.
const RAFT_LOG: &str = "/data/raft/sim.log";

impl World {
    /// The operator does something.
    pub(crate) fn operate(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let delay = self.chance.duration(self.settings.operator_micros);
        self.schedule.after(delay, Event::Operate);
        let kinds = self.settings.operator.clone();
        let Some(kind) = self.chance.pick(&kinds) else { return Ok(()) };
        self.switch_off_removed();
        match kind {
            OperatorKind::AddNode => self.add_node(),
            OperatorKind::RemoveNode => {
                self.remove_node();
                Ok(())
            }
            OperatorKind::Wipe => self.wipe(),
            OperatorKind::LoseRaftLog => self.lose_raft_log(),
        }
    }

    /// What the leader of the meta group knows, and who it is.
    fn best_catalogue(&self) -> Option<(NodeId, std::sync::Arc<Catalogue>)> {
        let leads = |status: GroupStatus| status.serves;
        self.nodes.iter().find_map(|(id, state)| {
            let life = state.life.as_ref()?;
            life.core.status(GroupId::META).is_some_and(leads).then(|| (*id, life.machines.catalogue()))
        })
    }

    /// A new machine asks to join.
    fn add_node(&mut self) -> Result<(), Violation> {
        let count = u64::try_from(self.nodes.len()).unwrap_or(u64::MAX);
        let number = self.nodes.keys().next_back().map_or(0, |last| last.get().saturating_add(1));
        let number = number.max(self.next_node);
        if count >= NODES_MAX || self.best_catalogue().is_none() {
            return Ok(());
        }
        let node = NodeId(number);
        self.next_node = number.saturating_add(1);
        let disk = SimDisk::new(self.chance.draw());
        self.coverage.note(Seen::NodeAdded);
        self.trace.note(self.schedule.now(), "add_node", &[("node", number)]);
        self.begin_node(node, disk)
    }

    /// Formats a disk to join with, and starts the node on it.
    fn begin_node(&mut self, node: NodeId, disk: SimDisk) -> Result<(), Violation> {
        self.incarnations = self.incarnations.saturating_add(1);
        let incarnation = Incarnation(self.incarnations);
        let formatted = SimNode::format_to_join(node, incarnation, disk);
        let mut state = formatted
            .map_err(|error| Violation::of("nodes start on new disks", format!("node {node}: {error}")))?;
        state.tick_micros = self.chance.between(22_500, 27_500);
        if let Some(before) = self.nodes.get(&node) {
            state.lives = before.lives;
        }
        self.nodes.insert(node, state);
        self.restart(node)
    }

    /// A node is to leave, if nothing speaks against it.
    fn remove_node(&mut self) {
        let Some((leader, catalogue)) = self.best_catalogue() else { return };
        let active: Vec<NodeId> = catalogue
            .members()
            .filter(|(_, node)| node.state == NodeState::Active)
            .map(|(id, _)| id)
            .collect();
        let Some(node) = self.chance.pick(&active) else { return };
        if refuse_removal(&catalogue, node, &self.heard_by(leader)).is_some() {
            self.coverage.note(Seen::RemovalRefused);
            return;
        }
        self.coverage.note(Seen::NodeDrained);
        self.trace.note(self.schedule.now(), "drain", &[("node", node.get())]);
        self.ask(leader, MetaCommand::DrainNode { node });
    }

    /// Nodes that have left are taken away.
    pub(crate) fn switch_off_removed(&mut self) {
        let Some((_, catalogue)) = self.best_catalogue() else { return };
        for node in self.node_ids() {
            if catalogue.node_state(node) == Some(NodeState::Removed) {
                self.trace.note(self.schedule.now(), "switch_off", &[("node", node.get())]);
                self.coverage.note(Seen::NodeLeft);
                self.nodes.remove(&node);
                self.doomed.remove(&node);
                self.oracles.raft_logs.lost(node);
                self.oracles.amnesia.lost(node);
            }
        }
    }

    /// Whether the cluster can bear that everything on a node is lost.
    fn can_lose(&self, node: NodeId) -> bool {
        let Some((_, catalogue)) = self.best_catalogue() else { return false };
        catalogue.groups().all(|(group, _)| {
            let leader = self.nodes.values().filter_map(|state| state.life.as_ref()?.core.status(group));
            let Some(status) = leader.filter(|status| status.serves).max_by_key(|status| status.term) else {
                return false;
            };
            let members = &status.members;
            let whole = |replica| {
                let on = members.node_of(replica)?;
                self.oracles.raft_logs.of(on, group).filter(|held| held.replica == replica)
            };
            let votes_here = members.voters.iter().any(|voter| members.node_of(*voter) == Some(node));
            !members.is_joint()
                && members.voters.iter().all(|voter| whole(*voter).is_some())
                && (!votes_here || members.voters.len() >= 3)
        })
    }

    fn victim(&mut self) -> Option<NodeId> {
        let able: Vec<NodeId> = self.node_ids().into_iter().filter(|node| self.can_lose(*node)).collect();
        self.chance.pick(&able)
    }

    /// A node's disk is replaced by an empty one; the node asks to join under its old number.
    fn wipe(&mut self) -> Result<(), Violation> {
        let Some(node) = self.victim() else { return Ok(()) };
        self.trace.note(self.schedule.now(), "wipe", &[("node", node.get())]);
        self.coverage.note(Seen::Wiped);
        self.crash(node, Crash::LoseUnsynced);
        self.oracles.amnesia.lost(node);
        self.oracles.raft_logs.lost(node);
        let disk = SimDisk::new(self.chance.draw());
        self.begin_node(node, disk)
    }

    /// A node's raft log is gone; segments, checkpoints and votes are there.
    fn lose_raft_log(&mut self) -> Result<(), Violation> {
        let Some(node) = self.victim() else { return Ok(()) };
        self.trace.note(self.schedule.now(), "lose_raft_log", &[("node", node.get())]);
        self.coverage.note(Seen::RaftLogLost);
        self.crash(node, Crash::LoseUnsynced);
        let forgot = self.oracles.raft_logs.replicas_on(node);
        let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
        let path = Path::new(RAFT_LOG);
        let storage = state.disk.storage();
        // It may have died before there was one.
        let removed = match storage.remove(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| storage.sync_dir(Path::new("/data/raft"))),
        };
        state.forgot.extend(forgot);
        if let Err(error) = removed {
            let error = NodeError::Disk(error);
            self.disk_failed(node, &error);
        }
        // One that has nothing yet has promised nothing yet, and may begin once more.
        for (group, replica) in self.oracles.raft_logs.replicas_on(node) {
            let held = self.oracles.raft_logs.of(node, group);
            if held.is_some_and(|held| held.last() > 0 || held.durable_vote.1 != 0) {
                self.oracles.amnesia.lost_one(group, replica);
            }
        }
        self.oracles.raft_logs.lost(node);
        Ok(())
    }
}
