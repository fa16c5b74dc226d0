//! Faults: what strikes, whom, and when it ends.

use tidelog_consensus::core::{Input, Role};
use tidelog_engine::sim_disk::Crash;
use tidelog_wire::ids::{GroupId, NodeId};

use crate::oracle::Violation;
use crate::settings::FaultKind;
use crate::world::{Event, World};

/// Something that was begun and has to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultEnd {
    /// All links are joined.
    JoinLinks,
    /// A node that was revived loses its power, while the leader of a group is cut off.
    CutRevived { node: NodeId, leader: NodeId },
}

impl World {
    /// The next fault strikes.
    pub(crate) fn fault(&mut self) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        let delay = self.chance.duration(self.settings.fault_micros);
        self.schedule.after(delay, Event::Fault);
        let all: u64 = self.settings.faults.iter().map(|(_, weight)| *weight).sum();
        let mut at = self.chance.below(all);
        let mut chosen = None;
        for (kind, weight) in &self.settings.faults {
            if at < *weight {
                chosen = Some(*kind);
                break;
            }
            at = at.saturating_sub(*weight);
        }
        let nodes = self.node_ids();
        let (Some(kind), Some(node)) = (chosen, self.chance.pick(&nodes)) else { return Ok(()) };
        self.trace.note(self.schedule.now(), kind.name(), &[("node", node.get())]);
        self.coverage.note(kind.seen());
        self.strike(kind, node)
    }

    fn strike(&mut self, kind: FaultKind, node: NodeId) -> Result<(), Violation> {
        let seed = self.chance.draw();
        match kind {
            FaultKind::CutLink | FaultKind::CutOneWay | FaultKind::Isolate => self.cut_links(kind, node),
            FaultKind::KillProcess => self.crash(node, Crash::ProcessOnly),
            FaultKind::LoseUnsynced => self.crash(node, Crash::LoseUnsynced),
            FaultKind::CutPower => self.crash(node, Crash::PowerCut { seed }),
            FaultKind::DieInOperation => self.doom(node, seed),
            FaultKind::CutAllPower => {
                for node in self.node_ids() {
                    let seed = self.chance.draw();
                    let crash =
                        if self.chance.one_in(3) { Crash::ProcessOnly } else { Crash::PowerCut { seed } };
                    self.crash(node, crash);
                }
            }
            FaultKind::ReviveThenCut => return self.revive(),
            FaultKind::SlowDisk => {
                let until = self.schedule.now().after(self.chance.between(100_000, 2_000_000));
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.slow_until = until;
                }
            }
            FaultKind::Pause => {
                let until = self.schedule.now().after(self.chance.between(100_000, 3_000_000));
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.paused_until = until;
                }
            }
            FaultKind::JumpClock => {
                let ahead = i64::try_from(self.chance.below(40_000)).unwrap_or(0).saturating_sub(20_000);
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.clock_ahead_ms = ahead;
                }
            }
            FaultKind::Transfer => {
                let group = GroupId(self.chance.below(self.settings.data_groups.saturating_add(1)));
                let leader = self.leader(group).unwrap_or(node);
                if leader != node {
                    self.asked_to_lead.insert(group, node);
                }
                return self.step(leader, Input::TransferLeader { group, to: Some(node) });
            }
        }
        Ok(())
    }

    fn cut_links(&mut self, kind: FaultKind, node: NodeId) {
        let others: Vec<NodeId> = self.node_ids().into_iter().filter(|other| *other != node).collect();
        let cut: Vec<NodeId> =
            if kind == FaultKind::Isolate { others } else { self.chance.pick(&others).into_iter().collect() };
        for other in cut {
            self.network.cut(node, other);
            if kind != FaultKind::CutOneWay {
                self.network.cut(other, node);
            }
        }
        let length = self.chance.between(100_000, 2_500_000);
        self.schedule.after(length, Event::FaultEnd(FaultEnd::JoinLinks));
    }

    /// The machine stops in one of the next operations of its disk, which may be one of its start.
    fn doom(&mut self, node: NodeId, seed: u64) {
        let after = self.chance.below(40);
        let Some(state) = self.nodes.get(&node) else { return };
        state.disk.stop_at(state.disk.changes().saturating_add(after));
        let crash = if seed.is_multiple_of(4) { Crash::LoseUnsynced } else { Crash::PowerCut { seed } };
        self.doomed.insert(node, crash);
    }

    /// A follower's process dies with writes not yet synced and comes back at once; what it then vouches for
    /// may be in its cache only. Soon its power is cut, while the leader cannot be heard.
    fn revive(&mut self) -> Result<(), Violation> {
        let busy = |world: &Self, node: &NodeId| {
            world
                .nodes
                .get(node)
                .and_then(|state| state.life.as_ref())
                .is_some_and(|life| !life.persisting.is_empty())
        };
        let group = GroupId(self.chance.between(1, self.settings.data_groups));
        let Some(leader) = self.leader(group) else { return Ok(()) };
        let followers: Vec<NodeId> = self.node_ids().into_iter().filter(|node| *node != leader).collect();
        let node =
            followers.iter().copied().find(|node| busy(self, node)).or_else(|| self.chance.pick(&followers));
        let Some(node) = node else { return Ok(()) };
        // The third node hears nothing for a while: it must not be the witness.
        for other in self.node_ids() {
            if other != node && other != leader {
                self.network.cut(leader, other);
                self.network.cut(other, leader);
            }
        }
        self.crash(node, Crash::ProcessOnly);
        self.restart(node)?;
        let delay = self.chance.between(5_000, 250_000);
        self.schedule.after(delay, Event::FaultEnd(FaultEnd::CutRevived { node, leader }));
        Ok(())
    }

    /// What was begun ends.
    pub(crate) fn fault_ends(&mut self, end: FaultEnd) -> Result<(), Violation> {
        if self.calm {
            return Ok(());
        }
        match end {
            FaultEnd::JoinLinks => self.network.join(),
            FaultEnd::CutRevived { node, leader } => {
                self.network.join();
                for other in self.node_ids() {
                    if other != leader {
                        self.network.cut(leader, other);
                        self.network.cut(other, leader);
                    }
                }
                self.crash(node, Crash::LoseUnsynced);
                let restarted = self.restart(node);
                let length = self.chance.between(500_000, 2_500_000);
                self.schedule.after(length, Event::FaultEnd(FaultEnd::JoinLinks));
                return restarted;
            }
        }
        Ok(())
    }

    /// A node that believes to lead the group, if there is one.
    pub(crate) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.nodes.iter().find_map(|(id, state)| {
            let status = state.life.as_ref()?.core.status(group)?;
            (status.role == Role::Leader).then_some(*id)
        })
    }
}
