//! Three cores, their disks, and the messages between them, moved only by the test.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::super::*;
use super::mem_log::MemLog;
use crate::raft_log::{GroupWrite, RaftLog};
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

/// One node: its core if it runs, what is on its disk, what it has done.
pub(super) struct Machine {
    pub(super) core: Option<NodeCore>,
    pub(super) log: MemLog,
    pub(super) votes: BTreeMap<GroupId, Vote>,
    pub(super) checkpoint: CheckpointFacts,
    boot: u64,
    pub(super) persists: VecDeque<Persist>,
    pub(super) applied: BTreeMap<u64, (u64, Bytes)>,
    pub(super) effects: Effects,
}

impl Machine {
    /// What a start of node number `node` finds on its disk.
    pub(super) fn found(&self, node: usize) -> ReplicaStart {
        ReplicaStart {
            group: GROUP,
            replica: ReplicaId(u64::try_from(node).unwrap() + 1),
            checkpoint: self.checkpoint.clone(),
            log: self.log.load(GROUP).unwrap(),
            vote: self.votes.get(&GROUP).copied(),
        }
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
        let machine = |_| Machine {
            core: None,
            log: MemLog::default(),
            votes: BTreeMap::new(),
            checkpoint: genesis(nodes),
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

    /// Starts a node from what is on its disk.
    pub(super) fn start(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.boot += 1;
        machine.applied.clear();
        let start = machine.found(node);
        let config = CoreConfig {
            node: NodeId(u64::try_from(node).unwrap()),
            boot: BootEpoch(machine.boot),
            groups: vec![start],
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
    }

    pub(super) fn input(&mut self, node: usize, input: Input) {
        self.drive(node, |core, effects| core.step(input, effects));
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
        if let Some(token) = committed.token {
            let durable = self
                .machines
                .iter()
                .filter(|machine| {
                    machine.log.term_at(GROUP, index) == Some(committed.term.get())
                        || machine.checkpoint.applied.index.get() >= index
                })
                .count();
            assert!(durable * 2 > self.machines.len(), "{token:?} acknowledged on {durable} disks only");
            assert_eq!(self.acked.insert(token, (index, value.1)), None, "{token:?} was answered twice");
        }
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

    /// Finishes a snapshot switch on `node`: a new checkpoint, an empty log.
    pub(super) fn install(&mut self, node: usize) {
        let install = self.machines[node].effects.installs.pop().unwrap();
        let applied = EntryId { index: install.mark.index, term: install.mark.term };
        let machine = &mut self.machines[node];
        machine.checkpoint.applied = applied;
        machine.checkpoint.last_durable = applied;
        machine.applied.clear();
        let write = GroupWrite {
            clear: true,
            hard_state: Some(install.hard_state),
            ..GroupWrite::new(install.group)
        };
        machine.log.write(&[write], true).unwrap();
        self.input(node, Input::SnapshotInstalled { group: install.group, snapshot: applied });
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

    /// A leader that has applied an entry of its own term and is the newest one.
    pub(super) fn leader(&self) -> Option<usize> {
        let running = (0..self.machines.len()).filter(|node| self.machines[*node].core.is_some());
        running.filter(|node| self.status(*node).serves).max_by_key(|node| self.status(*node).term)
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
