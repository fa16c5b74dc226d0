//! What a node does beside its groups' work so that the cluster runs itself: it says who it is, starts and stops the
//! replicas that the catalogue wants, and moves the members of the groups that it leads towards what is intended.
//!
//! Every decision is one of [`tidelog_consensus::placement`]'s pure functions, the same that a server asks; here is only
//! when they are asked, and how an answer travels. Questions to the leader of the meta group travel over links that
//! may be cut, and may get lost: they are asked again with the next round.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_consensus::apply::group_placement::UNBOUND;
use tidelog_consensus::apply::{APPLY_VERSION, Catalogue};
use tidelog_consensus::core::{GroupStatus, Input, MemberChange};
use tidelog_consensus::entry::{Command, MetaCommand, NodeRecord};
use tidelog_consensus::placement::{StartAs, Step, local, next_step, plan, preferred_leader};
use tidelog_consensus::raft_log::{GroupWrite, RaftLog};
use tidelog_engine::sim_disk::Crash;
use tidelog_wire::ids::{GroupId, NodeId, ReplicaId};

use crate::coverage::Seen;
use crate::node::{NodeError, SimNode};
use crate::oracle::Violation;
use crate::schedule::Micros;
use crate::world::{Event, World};

/// A connection that is silent for so long is given up.
const SILENCE_MICROS: u64 = 1_000_000;

impl World {
    /// One round of everything above.
    pub(crate) fn tend(&mut self, node: NodeId) -> Result<(), Violation> {
        self.miss_peers(node)?;
        let Some(life) = self.life(node) else { return Ok(()) };
        let (catalogue, statuses) = (life.machines.catalogue(), life.core.statuses());
        let forgotten = life.forgotten;
        let quiet: BTreeSet<GroupId> =
            statuses.iter().filter(|status| status.quiet).map(|status| status.group).collect();
        let before = std::mem::replace(&mut life.quiet, quiet.clone());
        self.coverage.add(Seen::FellQuiet, u64::try_from(quiet.difference(&before).count()).unwrap_or(0));
        self.coverage.add(Seen::Woke, u64::try_from(before.difference(&quiet).count()).unwrap_or(0));
        self.say_who(node, &catalogue, &statuses);
        if forgotten {
            return Ok(());
        }
        self.run_local(node, &catalogue, &statuses)?;
        for status in &statuses {
            self.tend_group(node, &catalogue, status)?;
        }
        let leads_meta = statuses.iter().any(|status| status.group == GroupId::META && status.serves);
        if leads_meta {
            let alive = self.heard_by(node);
            for command in plan(&catalogue, &alive) {
                self.cover_plan(&command);
                self.propose(node, GroupId::META, Command::Meta(command), None)?;
            }
        }
        Ok(())
    }

    /// The nodes that this one is connected to, and itself.
    pub(crate) fn heard_by(&self, node: NodeId) -> BTreeSet<NodeId> {
        let now = self.schedule.now();
        let up = self.nodes.iter().filter(|(_, state)| state.life.is_some() && state.paused_until <= now);
        let joined = |other: &NodeId| {
            *other == node || !(self.network.is_cut(node, *other) || self.network.is_cut(*other, node))
        };
        up.map(|(id, _)| *id).filter(joined).collect()
    }

    /// Connections break: of a node that was not heard for a second, or that has been started anew.
    fn miss_peers(&mut self, node: NodeId) -> Result<(), Violation> {
        let (now, heard) = (self.schedule.now(), self.heard_by(node));
        let lives: BTreeMap<NodeId, u64> = self.nodes.iter().map(|(id, state)| (*id, state.lives)).collect();
        let Some(life) = self.life(node) else { return Ok(()) };
        let mut missed = Vec::new();
        for other in heard.iter().filter(|other| **other != node) {
            let number = lives.get(other).copied().unwrap_or(0);
            let before = life.peers.insert(*other, (number, now));
            missed.extend(before.filter(|(before, _)| *before != number).map(|_| *other));
        }
        let silent = |(other, (_, at)): &(&NodeId, &(u64, Micros))| {
            !heard.contains(other) && at.after(SILENCE_MICROS) < now
        };
        let gone: Vec<NodeId> = life.peers.iter().filter(silent).map(|(other, _)| *other).collect();
        for other in gone {
            life.peers.remove(&other);
            missed.push(other);
        }
        for other in missed {
            self.coverage.note(Seen::ConnectionLost);
            self.step(node, Input::PeerDown { node: other })?;
        }
        Ok(())
    }

    /// Registers, or joins, until the catalogue knows this start of the node.
    fn say_who(&mut self, node: NodeId, catalogue: &Catalogue, statuses: &[GroupStatus]) {
        let Some(record) = self.record(node) else { return };
        let seated = statuses.iter().any(|status| {
            status.group == GroupId::META && !status.members.is_empty() && status.halted.is_none()
        });
        if self.life(node).is_some_and(|life| life.forgotten) {
            self.begin_anew(node);
            return;
        }
        let known = catalogue.node(node).is_some_and(|known| {
            known.incarnation == record.incarnation && known.boot_epoch >= record.boot_epoch
        });
        if known && seated {
            return;
        }
        let of_here = |member: &tidelog_consensus::apply::catalogue::Node| {
            member.incarnation == record.incarnation || member.incarnation == UNBOUND
        };
        let command = if seated && catalogue.member(node).is_some_and(of_here) {
            MetaCommand::RegisterNode(record)
        } else {
            MetaCommand::JoinNode(record)
        };
        self.ask(node, command);
    }

    /// A node that has forgotten replicas gives up all that it promised, once it sees that a quorum lives, and joins anew.
    fn begin_anew(&mut self, node: NodeId) {
        let heard = self.heard_by(node);
        let leads = |other: &NodeId| {
            let life = self.nodes.get(other).and_then(|state| state.life.as_ref());
            *other != node
                && life
                    .is_some_and(|life| life.core.status(GroupId::META).is_some_and(|status| status.serves))
        };
        if !heard.iter().any(leads) {
            return;
        }
        self.trace.note(self.schedule.now(), "begin_anew", &[("node", node.get())]);
        self.coverage.note(Seen::BeganAnew);
        self.crash(node, Crash::ProcessOnly);
        self.oracles.raft_logs.lost(node);
        self.oracles.amnesia.lost(node);
        let begun = self.nodes.get_mut(&node).map_or(Ok(()), SimNode::begin_anew);
        if let Err(error) = begun {
            self.disk_failed(node, &error);
        }
    }

    /// Who and where a node is.
    fn record(&self, node: NodeId) -> Option<NodeRecord> {
        let identity = self.nodes.get(&node)?.life.as_ref()?.engine.identity();
        let address = format!("127.0.0.1:{}", node.get().saturating_mul(10));
        Some(NodeRecord {
            node,
            incarnation: identity.incarnation,
            boot_epoch: identity.boot_epoch,
            session: identity.boot_epoch.get(),
            native: address.clone(),
            kafka: None,
            admin: address.clone(),
            peer: address,
            version: "0.1.0".to_owned(),
            apply_version_max: APPLY_VERSION,
        })
    }

    /// Sends a command for the meta group on its way to its leader, or to somebody who may know it.
    pub(crate) fn ask(&mut self, from: NodeId, command: MetaCommand) {
        let leader = self.meta_leader_of(from);
        let others: Vec<NodeId> = self.node_ids().into_iter().filter(|other| *other != from).collect();
        let Some(to) = leader.or_else(|| self.chance.pick(&others)) else { return };
        let delay = self.chance.duration(300);
        self.schedule.after(delay, Event::Asked { from, to, passed_on: false, command });
    }

    fn meta_leader_of(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.get(&node)?.life.as_ref()?.core.status(GroupId::META)?.leader
    }

    /// A command for the meta group arrives.
    pub(crate) fn asked(
        &mut self,
        from: NodeId,
        to: NodeId,
        passed_on: bool,
        command: MetaCommand,
    ) -> Result<(), Violation> {
        if from != to && (self.network.is_cut(from, to) || self.network.is_cut(to, from)) {
            return Ok(());
        }
        self.tell_replica(from, to)?;
        let leads = |status: GroupStatus| status.serves;
        let Some(life) = self.life(to) else { return Ok(()) };
        if life.core.status(GroupId::META).is_some_and(leads) {
            return self.propose(to, GroupId::META, Command::Meta(command), None);
        }
        if let Some(leader) = self.meta_leader_of(to).filter(|leader| !passed_on && *leader != to) {
            let delay = self.chance.duration(300);
            self.schedule.after(delay, Event::Asked { from, to: leader, passed_on: true, command });
        }
        Ok(())
    }

    /// A node that has no part in the meta group is told by one that has which replica it is to play.
    fn tell_replica(&mut self, asker: NodeId, told_by: NodeId) -> Result<(), Violation> {
        let Some(life) = self.nodes.get(&asker).and_then(|state| state.life.as_ref()) else { return Ok(()) };
        let incarnation = life.engine.identity().incarnation;
        let mine = life.core.status(GroupId::META);
        let Some(teller) = self.nodes.get(&told_by).and_then(|state| state.life.as_ref()) else {
            return Ok(());
        };
        let replica = teller.machines.catalogue().replica_on(GroupId::META, asker, incarnation);
        match replica.filter(|replica| mine.is_none_or(|mine| mine.replica < *replica)) {
            Some(replica) => self.start_replica(asker, GroupId::META, replica, StartAs::Blank),
            None => Ok(()),
        }
    }

    /// Starts and stops what the catalogue wants here.
    fn run_local(
        &mut self,
        node: NodeId,
        catalogue: &Catalogue,
        statuses: &[GroupStatus],
    ) -> Result<(), Violation> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let incarnation = life.engine.identity().incarnation;
        let running: BTreeMap<GroupId, ReplicaId> =
            statuses.iter().map(|status| (status.group, status.replica)).collect();
        let changes = local(catalogue, node, incarnation, &running);
        for (group, replica, start_as) in changes.start {
            self.start_replica(node, group, replica, start_as)?;
        }
        for group in changes.stop {
            self.stop_replica(node, group)?;
        }
        Ok(())
    }

    /// Begins a replica at run time, in place of an older one.
    fn start_replica(
        &mut self,
        node: NodeId,
        group: GroupId,
        replica: ReplicaId,
        start_as: StartAs,
    ) -> Result<(), Violation> {
        self.step(node, Input::Stop { group })?;
        let Some(life) = self.life(node) else { return Ok(()) };
        life.forget_group(group);
        life.machines.close(group);
        if life.log.load(group).is_ok_and(|log| log.replica == Some(replica)) {
            // It is there already; the next start takes it up from where it is.
            return Ok(());
        }
        let write = GroupWrite { clear: true, replica: Some(replica), ..GroupWrite::new(group) };
        let written = life.log.write(std::slice::from_ref(&write), true).map_err(NodeError::from);
        if let Err(error) = written {
            self.disk_failed(node, &error);
            return Ok(());
        }
        let fields = [("node", node.get()), ("group", group.get()), ("replica", replica.get())];
        self.trace.note(self.schedule.now(), "begin_replica", &fields);
        self.coverage.note(match start_as {
            StartAs::Blank => Seen::StartBlank,
            StartAs::Genesis => Seen::StartGenesis,
        });
        self.oracles.raft_logs.left(node, group);
        let start = match self.life(node).map(|life| life.first_state(group, replica, start_as)) {
            Some(Ok(start)) => start,
            Some(Err(error)) => {
                self.disk_failed(node, &error);
                return Ok(());
            }
            None => return Ok(()),
        };
        self.step(node, Input::Start(Box::new(start)))?;
        self.witness_replica(node, group)
    }

    /// Ends a replica that nobody wants any more.
    fn stop_replica(&mut self, node: NodeId, group: GroupId) -> Result<(), Violation> {
        // Its raft log is cleared, its votes stay: until the files are used anew it halts at every start, and is stopped
        // again.
        let stopped = self.life(node).and_then(|life| life.core.status(group));
        let stopped = stopped.map(|status| (group, status.replica));
        if let Some(state) = self.nodes.get_mut(&node) {
            state.forgot.extend(stopped);
        }
        self.step(node, Input::Stop { group })?;
        let Some(life) = self.life(node) else { return Ok(()) };
        life.forget_group(group);
        life.machines.close(group);
        let logs = life.machines.closed_logs(group);
        let mut done = life.engine.forget_group(group).map_err(NodeError::from);
        for log in logs {
            done = done.and_then(|()| life.engine.remove_log(log).map_err(NodeError::from));
        }
        let write = GroupWrite { clear: true, ..GroupWrite::new(group) };
        done =
            done.and_then(|()| life.log.write(std::slice::from_ref(&write), true).map_err(NodeError::from));
        if let Err(error) = done {
            self.disk_failed(node, &error);
            return Ok(());
        }
        self.trace.note(self.schedule.now(), "end_replica", &[("node", node.get()), ("group", group.get())]);
        self.coverage.note(Seen::ReplicaStopped);
        self.oracles.raft_logs.left(node, group);
        Ok(())
    }

    /// Moves the members of a group that this node leads, or asks for a successor of a replica that forgot.
    fn tend_group(
        &mut self,
        node: NodeId,
        catalogue: &Catalogue,
        status: &GroupStatus,
    ) -> Result<(), Violation> {
        let group = status.group;
        if status.halted.is_some() {
            self.ask(node, MetaCommand::ReplaceReplica { group, lost: status.replica });
            return Ok(());
        }
        match next_step(catalogue, status) {
            Step::Change(change) => {
                self.cover_change(&change);
                let Some(life) = self.life(node) else { return Ok(()) };
                let token = life.token();
                self.step(node, Input::ChangeMembers { group, token, change })
            }
            Step::HandOver(to) => {
                self.coverage.note(Seen::HandOverToLeave);
                self.step(node, Input::TransferLeader { group, to: Some(to) })
            }
            Step::Report(report) => {
                self.ask(node, report);
                Ok(())
            }
            Step::Wait => Ok(()),
            Step::Settled => self.prefer(node, catalogue, status),
        }
    }

    /// Hands a group over to the node that should lead it, once that one is up to date.
    fn prefer(&mut self, node: NodeId, catalogue: &Catalogue, status: &GroupStatus) -> Result<(), Violation> {
        let preferred = preferred_leader(catalogue, status.group).filter(|preferred| *preferred != node);
        let ready = |to: &NodeId| {
            status.peers.iter().any(|peer| peer.node == *to && peer.active && peer.caught_up && !peer.learner)
        };
        match preferred.filter(ready).filter(|_| status.serves && self.chance.one_in(8)) {
            Some(to) => {
                self.coverage.note(Seen::HandOverToPreferred);
                self.step(node, Input::TransferLeader { group: status.group, to: Some(to) })
            }
            None => Ok(()),
        }
    }

    fn cover_change(&mut self, change: &MemberChange) {
        for (seen, happened) in [
            (Seen::MemberAdded, !change.add.is_empty()),
            (Seen::MemberPromoted, !change.promote.is_empty()),
            (Seen::MemberDemoted, !change.demote.is_empty()),
            (Seen::MemberRemoved, !change.remove.is_empty()),
            (Seen::JointLeft, change.is_empty()),
        ] {
            self.coverage.add(seen, u64::from(happened));
        }
    }

    fn cover_plan(&mut self, command: &MetaCommand) {
        match command {
            MetaCommand::PlaceReplica { .. } => self.coverage.note(Seen::ReplicaPlaced),
            MetaCommand::RetireReplica { .. } => self.coverage.note(Seen::ReplicaRetired),
            MetaCommand::ForgetNode { .. } => self.coverage.note(Seen::NodeForgotten),
            MetaCommand::RegisterNode(_)
            | MetaCommand::JoinNode(_)
            | MetaCommand::DrainNode { .. }
            | MetaCommand::CreateGroup { .. }
            | MetaCommand::ReplaceReplica { .. }
            | MetaCommand::ReportMembers { .. }
            | MetaCommand::ReportLogs { .. }
            | MetaCommand::CreateChannels(_)
            | MetaCommand::DeleteChannels(_)
            | MetaCommand::MintProducer => {}
        }
    }
}
