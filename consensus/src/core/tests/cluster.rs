//! Three cores, their disks, and the messages between them, moved only by the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::HardState;
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::super::*;
use super::mem_log::MemLog;
use crate::raft_log::{GroupWrite, InstallMark, RaftLog};
use crate::votes::Vote;

pub(super) const GROUP: GroupId = GroupId(3);

/// Every replica's genesis: one entry applied, which is in no log.
pub(super) fn genesis(nodes: u64) -> CheckpointFacts {
    let replicas = (0..nodes).map(|node| (ReplicaId(node + 1), NodeId(node)));
    CheckpointFacts {
        applied: entry(1, 1),
        last_durable: entry(1, 1),
        members: Members::of_voters(replicas.collect()),
    }
}

pub(super) fn entry(index: u64, term: u64) -> EntryId {
    EntryId { index: RaftIndex(index), term: Term(term) }
}

pub(super) fn proposal(text: &str) -> Proposal {
    Proposal { context: Bytes::from_static(b"log"), data: Bytes::copy_from_slice(text.as_bytes()) }
}

/// What was applied: term and data, by index.
type State = BTreeMap<u64, (u64, Bytes)>;

/// One node: its core if it runs, what is on its disk, what it has done.
pub(super) struct Machine {
    pub(super) core: Option<NodeCore>,
    pub(super) log: MemLog,
    pub(super) votes: BTreeMap<GroupId, Vote>,
    pub(super) checkpoint: CheckpointFacts,
    /// The replica that it plays, if any.
    pub(super) replica: Option<ReplicaId>,
    /// By the entries applied.
    pub(super) members: Members,
    /// Before the last change of members.
    pub(super) before_change: Members,
    /// What was applied at the checkpoint.
    saved: State,
    boot: u64,
    pub(super) persists: VecDeque<Persist>,
    pub(super) applied: BTreeMap<u64, (u64, Bytes)>,
    pub(super) effects: Effects,
}

impl Machine {
    /// What a start of node number `node` finds on its disk.
    pub(super) fn found(&self, node: usize) -> Option<ReplicaStart> {
        let log = self.log.load(GROUP).unwrap();
        let named = self.checkpoint.members.replica_on(NodeId(u64::try_from(node).unwrap()));
        let genesis = log.span.map(|_| ReplicaId(u64::try_from(node).unwrap() + 1));
        let replica = self.replica.or(log.replica).or(named).or(genesis)?;
        let vote = self.votes.get(&GROUP).copied();
        // A checkpoint that does not name this replica is that of another one.
        if log.replica.is_some() && log.span.is_none() && !self.checkpoint.members.contains(replica) {
            return Some(ReplicaStart { log, vote, ..ReplicaStart::blank(GROUP, replica) });
        }
        Some(ReplicaStart { group: GROUP, replica, checkpoint: self.checkpoint.clone(), log, vote })
    }

    /// The term on disk.
    pub(super) fn log_term(&self) -> u64 {
        self.log.load(GROUP).unwrap().hard_state.term
    }
}

/// All of it.
pub(super) struct Cluster {
    pub(super) machines: Vec<Machine>,
    pub(super) wire: VecDeque<(NodeId, Outgoing)>,
    /// Links that carry nothing.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    /// Whether persists are carried out as soon as they are asked for.
    pub(super) auto_persist: bool,
    /// Whether snapshots are made, fetched and installed as soon as they are asked for.
    pub(super) auto_snapshots: bool,
    /// What was offered: members and state, by digest.
    pub(super) snapshots: BTreeMap<u64, (CheckpointFacts, State)>,
    pub(super) limits: CoreLimits,
    /// What was answered, by token.
    pub(super) acked: BTreeMap<Token, (u64, Bytes)>,
    pub(super) replies: BTreeMap<Token, Answer>,
    pub(super) halts: Vec<Halt>,
    pub(super) refusals: Vec<Refusal>,
    /// What was committed, by anyone's account.
    truth: BTreeMap<u64, (u64, Bytes)>,
    seed: u64,
}

impl Cluster {
    pub(super) fn new(nodes: u64, seed: u64) -> Self {
        Self::of_voters(nodes, nodes, seed)
    }

    /// Nodes of which the first `voters` have a replica.
    pub(super) fn of_voters(nodes: u64, voters: u64, seed: u64) -> Self {
        let machine = |_| Machine {
            core: None,
            log: MemLog::default(),
            votes: BTreeMap::new(),
            checkpoint: genesis(voters),
            replica: None,
            members: genesis(voters).members,
            before_change: Members::default(),
            saved: BTreeMap::new(),
            boot: 0,
            persists: VecDeque::new(),
            applied: BTreeMap::new(),
            effects: Effects::default(),
        };
        let mut cluster = Self {
            machines: (0..nodes).map(machine).collect(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            auto_persist: true,
            auto_snapshots: false,
            snapshots: BTreeMap::new(),
            limits: CoreLimits::default(),
            acked: BTreeMap::new(),
            replies: BTreeMap::new(),
            halts: Vec::new(),
            refusals: Vec::new(),
            truth: BTreeMap::new(),
            seed,
        };
        for node in 0..cluster.machines.len() {
            cluster.start(node);
        }
        cluster
    }

    /// Starts a node from what is on its disk; where switches are carried out, one that a crash cut off is finished first.
    pub(super) fn start(&mut self, node: usize) {
        let log = self.machines[node].log.load(GROUP).unwrap();
        if let Some(mark) = log.install.filter(|_| self.auto_snapshots) {
            self.switch(node, mark, log.hard_state);
        }
        let machine = &mut self.machines[node];
        machine.boot += 1;
        machine.applied = machine.saved.clone();
        machine.members = machine.checkpoint.members.clone();
        machine.before_change = Members::default();
        let start = machine.found(node);
        let config = CoreConfig {
            node: NodeId(u64::try_from(node).unwrap()),
            boot: BootEpoch(machine.boot),
            groups: start.into_iter().collect(),
            ticks: Ticks::default(),
            limits: self.limits,
            seed: self.seed + machine.boot * 100,
        };
        let log: Arc<dyn RaftLog> = Arc::new(machine.log.clone());
        machine.core = Some(NodeCore::new(config, &log).unwrap());
        self.drive(node, |core, effects| core.collect(effects));
    }

    /// Everything in memory is gone; what was not persisted too.
    pub(super) fn crash(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.core = None;
        machine.persists.clear();
        machine.applied.clear();
        machine.effects = Effects::default();
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        self.drive(node, |core, effects| core.step(input, effects));
    }

    /// Takes several inputs before anything that they ask for is carried out, as a busy node does.
    pub(super) fn round(&mut self, node: usize, inputs: Vec<Input>) {
        self.drive(node, |core, effects| {
            inputs.into_iter().for_each(|input| core.feed(input, effects));
            core.collect(effects);
        });
    }

    fn drive(&mut self, node: usize, act: impl FnOnce(&mut NodeCore, &mut Effects)) {
        let Some(mut core) = self.machines[node].core.take() else { return };
        let mut effects = Effects::default();
        act(&mut core, &mut effects);
        self.machines[node].core = Some(core);
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: usize, effects: Effects) {
        let from = NodeId(u64::try_from(node).unwrap());
        self.wire.extend(effects.sends.into_iter().map(|outgoing| (from, outgoing)));
        self.replies.extend(effects.replies.into_iter().map(|reply| (reply.token, reply.answer)));
        self.halts.extend(effects.halts);
        self.refusals.extend(effects.refusals);
        for compaction in effects.compactions {
            self.machines[node].log.compact(compaction.group, compaction.first_kept).unwrap();
        }
        self.machines[node].persists.extend(effects.persists);
        let seen = &mut self.machines[node].effects;
        seen.leadership.extend(effects.leadership);
        seen.fetches.extend(effects.fetches);
        seen.abandoned.extend(effects.abandoned);
        seen.installs.extend(effects.installs);
        seen.exports.extend(effects.exports);
        let last = effects.applies.last().and_then(|task| task.entries.last()).map(|entry| entry.index);
        for committed in effects.applies.into_iter().flat_map(|task| task.entries) {
            self.apply(node, &committed);
        }
        if let Some(index) = last {
            self.input(node, Input::Applied { group: GROUP, index });
        }
        while self.auto_persist && self.persist(node) {}
        if self.auto_snapshots {
            self.carry_snapshots(node);
        }
    }

    /// Makes, fetches and installs what was asked for.
    fn carry_snapshots(&mut self, node: usize) {
        for export in std::mem::take(&mut self.machines[node].effects.exports) {
            self.export(node, export);
        }
        for fetch in std::mem::take(&mut self.machines[node].effects.fetches) {
            let (snapshot, result) = (fetch.snapshot, Staged::Ready);
            self.input(node, Input::SnapshotStaged { group: GROUP, snapshot, result });
        }
        // The mark is durable first.
        if self.machines[node].persists.is_empty() && !self.machines[node].effects.installs.is_empty() {
            self.install(node);
        }
    }

    /// Takes a checkpoint that has applied all that `node` has, and offers it.
    pub(super) fn export(&mut self, node: usize, export: ExportRequest) {
        self.checkpoint(node);
        let machine = &self.machines[node];
        let facts = machine.checkpoint.clone();
        assert!(facts.applied.index >= export.at_least, "what is asked for is applied");
        let digest = facts.applied.index.get() << 16 | facts.applied.term.get();
        self.snapshots.insert(digest, (facts.clone(), machine.saved.clone()));
        let (snapshot, members) = (facts.applied, facts.members);
        let offer = SnapshotOffer { snapshot, digest, manifest_bytes: 1, members };
        self.input(node, Input::SnapshotExported { group: GROUP, offer });
    }

    /// Takes a checkpoint of all that is applied on `node`.
    pub(super) fn checkpoint(&mut self, node: usize) {
        let durable = self.status(node).durable;
        let machine = &mut self.machines[node];
        let Some((index, (term, _))) = machine.applied.last_key_value() else { return };
        let older = machine.checkpoint.applied.index;
        let newest = entry(*index, *term);
        machine.saved = machine.applied.clone();
        let members = machine.members.clone();
        machine.checkpoint = CheckpointFacts { applied: newest, last_durable: durable.max(newest), members };
        self.input(node, Input::Checkpointed { group: GROUP, newest, compact_to: older });
    }

    /// Applies one entry, and checks that nobody ever saw another one committed there.
    fn apply(&mut self, node: usize, committed: &Committed) {
        let index = committed.index.get();
        let value = (committed.term.get(), committed.entry.data.clone());
        let truth = self.truth.entry(index).or_insert_with(|| value.clone());
        assert_eq!(*truth, value, "entry {index} was committed twice, differently");
        let before = self.machines[node].applied.keys().last().copied();
        let first = self.machines[node].checkpoint.applied.index.get() + 1;
        assert_eq!(before.map_or(first, |last| last + 1), index, "entries are applied without gaps");
        self.machines[node].applied.insert(index, value.clone());
        let machine = &mut self.machines[node];
        let before = machine.members.clone();
        if let Some(members) = &committed.members {
            machine.before_change = std::mem::replace(&mut machine.members, members.clone());
        }
        if let Some(token) = committed.token {
            // What was committed in one go with a change before it was committed by those before the change.
            let counted = [&before, &self.machines[node].before_change];
            let settled = counted.iter().any(|members| self.has_quorum(members, index, committed.term.get()));
            assert!(settled, "{token:?} acknowledged before a quorum of {before:?} had it on disk");
            assert_eq!(self.acked.insert(token, (index, value.1)), None, "{token:?} was answered twice");
        }
    }

    /// Whether all sets of voters have the entry on a majority of their disks.
    fn has_quorum(&self, members: &Members, index: u64, term: u64) -> bool {
        let plays = |(node, machine): &(usize, &Machine)| {
            machine.replica.unwrap_or(ReplicaId(u64::try_from(*node).unwrap() + 1))
        };
        let has = |replica: &&ReplicaId| {
            let machine = self.machines.iter().enumerate().find(|machine| plays(machine) == **replica);
            machine.is_some_and(|(_, machine)| {
                machine.log.term_at(GROUP, index) == Some(term)
                    || machine.checkpoint.applied.index.get() >= index
            })
        };
        let agrees = |voters: &Vec<ReplicaId>| {
            voters.is_empty() || voters.iter().filter(has).count() * 2 > voters.len()
        };
        !members.voters.is_empty() && agrees(&members.voters) && agrees(&members.outgoing)
    }

    /// Carries out the oldest persist of a node. `false` if there was none.
    pub(super) fn persist(&mut self, node: usize) -> bool {
        let machine = &mut self.machines[node];
        let Some(persist) = machine.persists.pop_front() else { return false };
        machine.log.write(&persist.writes, persist.sync).unwrap();
        for vote in &persist.votes {
            machine.votes.insert(vote.group, *vote);
        }
        self.input(node, Input::Persisted { number: persist.number });
        true
    }

    /// Switches `node` to the snapshot that its core asks for.
    pub(super) fn install(&mut self, node: usize) {
        let install = self.machines[node].effects.installs.pop().unwrap();
        let snapshot = self.switch(node, install.mark, install.hard_state);
        self.input(node, Input::SnapshotInstalled { group: install.group, snapshot });
    }

    /// A snapshot takes the place of what a node has: a new checkpoint, an empty log.
    fn switch(&mut self, node: usize, mark: InstallMark, hard_state: HardState) -> EntryId {
        let applied = EntryId { index: mark.index, term: mark.term };
        let machine = &mut self.machines[node];
        machine.checkpoint.applied = applied;
        machine.checkpoint.last_durable = applied;
        machine.applied.clear();
        if let Some((facts, state)) = self.snapshots.get(&mark.digest) {
            machine.checkpoint.members = facts.members.clone();
            machine.members = facts.members.clone();
            machine.saved = state.clone();
            machine.applied = state.clone();
        }
        let write = GroupWrite { clear: true, hard_state: Some(hard_state), ..GroupWrite::new(GROUP) };
        machine.log.write(&[write], true).unwrap();
        applied
    }

    /// Delivers the message at `at`, if its link is up.
    pub(super) fn deliver(&mut self, at: usize) {
        let Some((from, outgoing)) = self.wire.remove(at) else { return };
        self.hand_over(from, outgoing);
    }

    pub(super) fn hand_over(&mut self, from: NodeId, outgoing: Outgoing) {
        if self.cut.contains(&(from, outgoing.to)) || self.cut.contains(&(outgoing.to, from)) {
            return;
        }
        let to = usize::try_from(outgoing.to.get()).unwrap();
        let message = Box::new(outgoing.message);
        self.input(to, Input::Message { from, group: outgoing.group, message });
    }

    /// Delivers in order until nothing moves.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.wire.is_empty() {
                return;
            }
            self.deliver(0);
        }
        panic!("messages never end");
    }

    pub(super) fn tick_all(&mut self) {
        for node in 0..self.machines.len() {
            self.input(node, Input::Tick);
        }
    }

    /// Lets time pass until `done`, at most for so many ticks.
    pub(super) fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..2_000 {
            if done(self) {
                return;
            }
            self.tick_all();
            self.settle();
        }
        panic!(
            "never: {what}; {:#?}",
            self.machines
                .iter()
                .map(|machine| machine.core.as_ref().map(NodeCore::statuses))
                .collect::<Vec<_>>()
        );
    }

    pub(super) fn status(&self, node: usize) -> GroupStatus {
        self.machines[node].core.as_ref().unwrap().status(GROUP).unwrap()
    }

    /// From now on `node` plays `replica`, which begins with nothing.
    pub(super) fn replace(&mut self, node: usize, replica: ReplicaId) {
        let machine = &mut self.machines[node];
        let write = GroupWrite { clear: true, replica: Some(replica), ..GroupWrite::new(GROUP) };
        machine.log.write(&[write], true).unwrap();
        machine.replica = Some(replica);
        machine.applied.clear();
        machine.saved.clear();
        machine.effects = Effects::default();
        machine.persists.clear();
        if machine.core.is_some() {
            let start = machine.found(node).unwrap();
            assert!(start.is_blank());
            self.input(node, Input::Start(Box::new(start)));
        }
    }

    pub(super) fn change(&mut self, node: usize, token: u64, change: MemberChange) {
        self.input(node, Input::ChangeMembers { group: GROUP, token: Token(token), change });
    }

    /// A leader that has applied an entry of its own term and is the newest one.
    pub(super) fn leader(&self) -> Option<usize> {
        let group = |node: &usize| self.machines[*node].core.as_ref()?.status(GROUP);
        let nodes = 0..self.machines.len();
        nodes
            .filter(|node| group(node).is_some_and(|status| status.serves))
            .max_by_key(|node| self.status(*node).term)
    }

    /// Whether `leader` says that `replica` has caught up.
    pub(super) fn is_caught_up(&self, leader: usize, replica: ReplicaId) -> bool {
        self.status(leader).peers.iter().any(|peer| peer.replica == replica && peer.caught_up)
    }

    pub(super) fn elect(&mut self) -> usize {
        self.run_until("a leader", |cluster| cluster.leader().is_some());
        self.leader().unwrap()
    }

    pub(super) fn propose(&mut self, node: usize, token: u64, text: &str) {
        let (token, entry) = (Token(token), proposal(text));
        self.input(node, Input::Propose { group: GROUP, token, entry });
    }

    /// Cuts or mends all links of a node.
    pub(super) fn isolate(&mut self, node: usize, isolated: bool) {
        let this = NodeId(u64::try_from(node).unwrap());
        for other in (0..self.machines.len()).map(|other| NodeId(u64::try_from(other).unwrap())) {
            if isolated {
                self.cut.insert((this, other));
            } else {
                self.cut.retain(|(a, b)| *a != this && *b != this);
            }
        }
    }

    /// Takes back what was believed committed: for tests in which peers lie.
    pub(super) fn forget_truth(&mut self) {
        self.truth.clear();
        self.acked.clear();
    }

    pub(super) fn texts(&self, node: usize) -> Vec<String> {
        let applied = self.machines[node].applied.values();
        applied
            .filter(|(_, data)| !data.is_empty())
            .map(|(_, data)| String::from_utf8(data.to_vec()).unwrap())
            .collect()
    }
}
