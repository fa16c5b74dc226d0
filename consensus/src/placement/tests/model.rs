//! A cluster without bytes: a catalogue, and of each group who its members are and who leads.

use std::collections::BTreeMap;

use tidelog_engine::checkpoint::Members;
use tidelog_wire::ids::{BootEpoch, Incarnation, RaftIndex, ReplicaId, Term};

use super::super::*;
use crate::apply::APPLY_VERSION;
use crate::apply::group_placement::Replica;
use crate::core::{EntryId, GroupStatus, MemberChange, PeerStatus, Role, SnapshotPhase};
use crate::entry::{MetaCommand, NodeRecord};
use crate::outcome::Outcome;

/// More steps than any cluster here needs.
const STEPS_MAX: usize = 20_000;

pub(super) struct Model {
    pub(super) catalogue: Catalogue,
    pub(super) alive: BTreeSet<NodeId>,
    groups: BTreeMap<GroupId, Group>,
    /// Where each replica was placed, and in which directory, for ever.
    placed: BTreeMap<ReplicaId, Vec<(NodeId, Incarnation)>>,
    /// Replicas that halted by evidence.
    lost: BTreeSet<(GroupId, ReplicaId)>,
    incarnations: BTreeMap<NodeId, Incarnation>,
    drawn: u128,
    random: u64,
    /// Of any group after the first change.
    pub(super) fewest_voters: usize,
}

struct Group {
    members: Members,
    leader: Option<ReplicaId>,
    index: u64,
    caught_up: BTreeSet<ReplicaId>,
}

pub(super) fn nodes<const N: usize>(nodes: [u64; N]) -> BTreeSet<NodeId> {
    nodes.into_iter().map(NodeId).collect()
}

impl Model {
    pub(super) fn new(size: u64, groups: u64, seed: u64) -> Self {
        let genesis: Vec<NodeId> = (0..size).map(NodeId).collect();
        let data: Vec<GroupId> = (1..=groups).map(GroupId).collect();
        let mut model = Self {
            catalogue: Catalogue::genesis(&data, &genesis),
            alive: genesis.iter().copied().collect(),
            groups: BTreeMap::new(),
            placed: BTreeMap::new(),
            lost: BTreeSet::new(),
            incarnations: BTreeMap::new(),
            drawn: 100,
            random: seed | 1,
            fewest_voters: usize::MAX,
        };
        for node in genesis {
            let record = model.record(node);
            assert_eq!(model.catalogue.apply(MetaCommand::RegisterNode(record)), Outcome::NodeRegistered);
        }
        for group in data.into_iter().chain([GroupId::META]) {
            model.begin(group);
        }
        model
    }

    fn begin(&mut self, group: GroupId) {
        let genesis = self.catalogue.group(group).unwrap().genesis.clone();
        let members = Members::of_voters(genesis);
        let caught_up = members.voters.iter().copied().collect();
        self.groups.insert(group, Group { members, leader: None, index: 1, caught_up });
    }

    fn record(&mut self, node: NodeId) -> NodeRecord {
        self.drawn += 1;
        let incarnation = Incarnation(self.drawn);
        self.incarnations.insert(node, incarnation);
        let at = || "127.0.0.1:1".to_owned();
        NodeRecord {
            node,
            incarnation,
            boot_epoch: BootEpoch(1),
            session: 9,
            native: at(),
            kafka: None,
            admin: at(),
            peer: at(),
            version: at(),
            apply_version_max: APPLY_VERSION,
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % u64::try_from(below.max(1)).unwrap()).unwrap()
    }

    pub(super) fn apply(&mut self, command: MetaCommand) {
        let before = self.catalogue.clone();
        let said = format!("{command:?}");
        let outcome = self.catalogue.apply(command);
        if matches!(outcome, Outcome::Refused(_)) {
            assert_eq!(self.catalogue, before, "{said}: {outcome:?}");
        }
        assert_eq!(Catalogue::decode(&self.catalogue.encode()), Ok(self.catalogue.clone()));
    }

    pub(super) fn create_group(&mut self, command: MetaCommand) {
        let Outcome::GroupCreated { group } = self.catalogue.apply(command) else { panic!("refused") };
        self.begin(group);
    }

    pub(super) fn join(&mut self, node: NodeId) {
        if self.catalogue.node_state(node).is_none_or(|state| state == NodeState::Removed) {
            let record = self.record(node);
            self.apply(MetaCommand::JoinNode(record));
            self.alive.insert(node);
        }
    }

    /// The node's directory is lost, and it joins anew at once.
    pub(super) fn wipe(&mut self, node: NodeId) {
        let record = self.record(node);
        self.apply(MetaCommand::JoinNode(record));
        self.alive.insert(node);
    }

    pub(super) fn wipe_if_safe(&mut self, node: NodeId) {
        let known = self.catalogue.node_state(node).is_some_and(|state| state != NodeState::Removed);
        if known && self.all_have_quorum_without(|_, _, at| at == node) {
            self.wipe(node);
        }
    }

    pub(super) fn kill_if_safe(&mut self, node: NodeId) {
        if self.all_have_quorum_without(|_, _, at| at == node) {
            self.alive.remove(&node);
        }
    }

    pub(super) fn revive(&mut self, node: NodeId) {
        if self.catalogue.node_state(node).is_some_and(|state| state != NodeState::Removed) {
            self.alive.insert(node);
        }
    }

    pub(super) fn revive_all(&mut self) {
        let all: Vec<NodeId> = self.catalogue.members().map(|(node, _)| node).collect();
        all.into_iter().for_each(|node| self.revive(node));
    }

    pub(super) fn drain_if_safe(&mut self, node: NodeId) {
        if refuse_removal(&self.catalogue, node, &self.alive).is_none() {
            self.apply(MetaCommand::DrainNode { node });
        }
    }

    pub(super) fn lose_memory_if_safe(&mut self, group: GroupId, node: NodeId) {
        let Some(of) = self.groups.get(&group) else { return };
        let Some(lost) = of.members.replica_on(node) else { return };
        if self.all_have_quorum_without(|at, replica, _| (at, replica) == (group, lost)) {
            self.lost.insert((group, lost));
            self.apply(MetaCommand::ReplaceReplica { group, lost });
        }
    }

    fn runs(&self, group: GroupId, replica: ReplicaId, node: NodeId) -> bool {
        let own = self.incarnations.get(&node);
        let bound = self.placed.get(&replica).into_iter().flatten();
        self.alive.contains(&node)
            && !self.lost.contains(&(group, replica))
            && bound.clone().any(|(at, incarnation)| *at == node && Some(incarnation) == own)
    }

    fn remember_places(&mut self) {
        for (_, placement) in self.catalogue.groups() {
            for (id, Replica { node, incarnation, .. }) in &placement.replicas {
                let places = self.placed.entry(*id).or_default();
                if !places.contains(&(*node, *incarnation)) {
                    places.push((*node, *incarnation));
                }
            }
        }
    }

    fn all_have_quorum_without(&mut self, without: impl Fn(GroupId, ReplicaId, NodeId) -> bool) -> bool {
        self.remember_places();
        self.groups.iter().all(|(group, of)| {
            [&of.members.voters, &of.members.outgoing].into_iter().all(|voters| {
                let runs = |id: &&ReplicaId| {
                    let node = of.members.node_of(**id).unwrap();
                    self.runs(*group, **id, node) && !without(*group, **id, node)
                };
                voters.is_empty() || voters.iter().filter(runs).count() * 2 > voters.len()
            })
        })
    }

    /// Somebody takes a step: the meta group's leader, or a group's.
    pub(super) fn step(&mut self) {
        let choice = self.draw(self.groups.len() + 1);
        match self.groups.keys().copied().nth(choice) {
            Some(group) => self.step_group(group),
            None => self.step_plan(),
        }
    }

    /// The meta leader proposes, and may die after any of its proposals.
    fn step_plan(&mut self) {
        let commands = plan(&self.catalogue, &self.alive);
        let heard = self.draw(commands.len() + 1);
        for command in commands.into_iter().take(heard.max(1)) {
            self.demand_hearing(&command);
            self.apply(command);
        }
    }

    /// A node that leaves hears of the catalogue until no other group has a replica on it.
    fn demand_hearing(&self, command: &MetaCommand) {
        let MetaCommand::RetireReplica { group: GroupId::META, replica } = command else { return };
        let node = self.catalogue.group(GroupId::META).unwrap().replicas[replica].node;
        let mut others = self.catalogue.replicas_of(node).filter(|(group, _, _)| *group != GroupId::META);
        assert_eq!(others.next().map(|(group, _, _)| group), None, "{node} leaves the meta group before");
    }

    /// The group's leader, which may be another than before, takes one step.
    pub(super) fn step_group(&mut self, group: GroupId) {
        if self.draw(8) == 0 {
            self.groups.get_mut(&group).unwrap().leader = None;
        }
        let Some(status) = self.status(group) else { return };
        // What is sent arrives, some time.
        let all: Vec<ReplicaId> = status.members.all().collect();
        let lucky = all[self.draw(all.len())];
        let step = next_step(&self.catalogue, &status);
        let of = self.groups.get_mut(&group).unwrap();
        of.caught_up.insert(lucky);
        of.index += 1;
        match step {
            Step::Change(change) => self.change(group, &change),
            Step::HandOver(node) => {
                let to = of.members.replica_on(node).filter(|to| of.members.voters.contains(to));
                of.leader = Some(to.expect("only a voter can lead"));
            }
            Step::Report(report) => self.apply(report),
            Step::Wait | Step::Settled => {}
        }
    }

    fn change(&mut self, group: GroupId, change: &MemberChange) {
        let of = self.groups.get_mut(&group).unwrap();
        let members = &mut of.members;
        if change.is_empty() {
            assert!(members.is_joint(), "there is nothing to leave");
            members.outgoing.clear();
            members.learners.append(&mut members.learners_next);
        } else {
            assert!(!members.is_joint(), "one change at a time");
            let before = members.voters.clone();
            for (replica, node) in &change.add {
                assert!(!members.contains(*replica));
                members.learners.push(*replica);
                members.replicas.push((*replica, *node));
                of.caught_up.remove(replica);
            }
            for replica in &change.promote {
                assert!(members.learners.contains(replica) && of.caught_up.contains(replica));
                members.learners.retain(|learner| learner != replica);
                members.voters.push(*replica);
            }
            let leader = of.leader.unwrap();
            for replica in change.demote.iter().chain(&change.remove) {
                assert_ne!(*replica, leader, "a leader hands over first");
                members.voters.retain(|voter| voter != replica);
                members.learners.retain(|learner| learner != replica);
            }
            members.learners_next = change.demote.clone();
            members.voters.sort_unstable();
            if members.voters != before {
                members.outgoing = before;
            } else {
                members.learners.append(&mut members.learners_next);
            }
        }
        members.learners.sort_unstable();
        let left: BTreeSet<ReplicaId> = members.all().collect();
        members.replicas.retain(|(replica, _)| left.contains(replica));
        self.fewest_voters = self.fewest_voters.min(members.voters.len());
        assert!(self.all_have_quorum_without(|_, _, _| false), "group {group} lost its quorum by {change:?}");
    }

    /// What the group's leader sees; `None` if nobody can lead.
    pub(super) fn status(&mut self, group: GroupId) -> Option<GroupStatus> {
        self.remember_places();
        let of = self.groups.get(&group).unwrap();
        let members = of.members.clone();
        let runs = |id: ReplicaId| self.runs(group, id, members.node_of(id).unwrap());
        let able: Vec<ReplicaId> = members.voters.iter().copied().filter(|id| runs(*id)).collect();
        let mut leader = of.leader.filter(|leader| able.contains(leader));
        if leader.is_none() && !able.is_empty() {
            let of = self.draw(able.len());
            leader = Some(able[of]);
        }
        let of = self.groups.get_mut(&group).unwrap();
        of.leader = leader;
        let (replica, index) = (leader?, RaftIndex(of.index));
        let of = &self.groups[&group];
        let peers = members.replicas.iter().filter(|(id, _)| *id != replica).map(|(id, node)| PeerStatus {
            replica: *id,
            node: *node,
            matched: RaftIndex(0),
            active: self.runs(group, *id, *node),
            in_snapshot: false,
            learner: members.learners.contains(id),
            caught_up: of.caught_up.contains(id) && self.runs(group, *id, *node),
        });
        Some(GroupStatus {
            group,
            replica,
            role: Role::Leader,
            term: Term(1),
            leader: members.node_of(replica),
            first: RaftIndex(1),
            last: index,
            durable: EntryId::default(),
            committed: index,
            applied: index,
            serves: true,
            tail_bytes: 0,
            snapshot: SnapshotPhase::None,
            peers: peers.collect(),
            members: members.clone(),
            quiet: false,
            halted: None,
        })
    }

    /// Steps until nobody has anything to do.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..STEPS_MAX {
            let before = self.catalogue.clone();
            let facts = self.facts();
            self.step();
            quiet = if facts == self.facts() && before == self.catalogue { quiet + 1 } else { 0 };
            if quiet > 200 && self.all_caught_up() && plan(&self.catalogue, &self.alive).is_empty() {
                return;
            }
        }
        panic!("not settled: {:#?}", plan(&self.catalogue, &self.alive));
    }

    /// Members of each group, and who of them has caught up.
    fn facts(&self) -> Vec<(Members, BTreeSet<ReplicaId>)> {
        self.groups.values().map(|of| (of.members.clone(), of.caught_up.clone())).collect()
    }

    /// Whether everything that was sent to replicas that run has arrived.
    fn all_caught_up(&self) -> bool {
        self.groups.iter().all(|(group, of)| {
            let mut running =
                of.members.replicas.iter().filter(|(replica, node)| self.runs(*group, *replica, *node));
            running.all(|(replica, _)| of.caught_up.contains(replica))
        })
    }

    pub(super) fn check_settled(&self) {
        let active = self.catalogue.members().filter(|(_, node)| node.state == NodeState::Active).count();
        for (group, placement) in self.catalogue.groups() {
            assert!(is_settled(placement), "group {group}: {placement:#?}");
            let of = &self.groups[&group].members;
            assert!(!of.is_joint());
            let want = target(group, placement.replication, active);
            assert_eq!((of.voters.len(), of.learners.len()), (want.voters, want.learners), "group {group}");
            let on: BTreeSet<NodeId> = of.replicas.iter().map(|(_, node)| *node).collect();
            assert_eq!(on.len(), of.replicas.len(), "group {group}: two replicas on one node: {of:?}");
        }
        let states = self.catalogue.members().map(|(_, node)| node.state);
        assert!(states.into_iter().all(|state| matches!(state, NodeState::Active | NodeState::Removed)));
        let spread = self.spread();
        if active > 2 {
            assert!(spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1, "{spread:?}");
        }
    }

    /// Data replicas on each active node.
    pub(super) fn spread(&self) -> Vec<usize> {
        let active = self.catalogue.members().filter(|(_, node)| node.state == NodeState::Active);
        active
            .map(|(id, _)| {
                self.catalogue.replicas_of(id).filter(|(group, _, _)| *group != GroupId::META).count()
            })
            .collect()
    }

    pub(super) fn members(&self, group: GroupId) -> &Members {
        &self.groups[&group].members
    }

    pub(super) fn voters(&self, group: GroupId) -> BTreeSet<NodeId> {
        let members = self.members(group);
        members.voters.iter().filter_map(|id| members.node_of(*id)).collect()
    }

    pub(super) fn learners(&self, group: GroupId) -> BTreeSet<NodeId> {
        let members = self.members(group);
        members.learners.iter().filter_map(|id| members.node_of(*id)).collect()
    }
}
