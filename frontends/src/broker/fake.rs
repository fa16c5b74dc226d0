//! Consensus played in memory, for tests of everything above it: one node, logs in vectors, everything committed at
//! once, unless a test says otherwise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::core::{EntryId, GroupStatus, Members, PeerStatus, Role, SnapshotPhase};
use tidelog_consensus::entry::{Command, MetaCommand, NewChannel, NodeRecord};
use tidelog_consensus::outcome::{Outcome, Refusal};
use tidelog_wire::ids::{
    BootEpoch, Chain, ClusterId, Generation, GroupId, Incarnation, LogId, NodeId, Offset, ProducerId,
    RaftIndex, ReplicaId, Term, TimestampMs,
};
use tokio::sync::watch;

use super::consensus::*;

/// The data group of every log.
pub(crate) const GROUP: GroupId = GroupId(1);

#[derive(Debug)]
struct State {
    leaders: BTreeMap<GroupId, NodeId>,
    channels: Vec<ChannelView>,
    logs: BTreeMap<LogId, Arc<FakeLog>>,
    submitted: Vec<Command>,
    errors: VecDeque<SubmitError>,
    unsettled: bool,
    next: u64,
}

/// Consensus in memory.
#[derive(Debug)]
pub(crate) struct FakeConsensus {
    node: NodeId,
    state: Arc<Mutex<State>>,
    changes: watch::Sender<u64>,
}

impl FakeConsensus {
    pub(crate) fn new(node: NodeId) -> Arc<Self> {
        let leaders = [(GroupId::META, node), (GROUP, node)].into();
        let state = State {
            leaders,
            channels: Vec::new(),
            logs: BTreeMap::new(),
            submitted: Vec::new(),
            errors: VecDeque::new(),
            unsettled: false,
            next: 1,
        };
        Arc::new(Self { node, state: Arc::new(Mutex::new(state)), changes: watch::Sender::new(0) })
    }

    /// From now on `leader` leads the group, or nobody.
    pub(crate) fn set_leader(&self, group: GroupId, leader: Option<NodeId>) {
        let mut state = self.state.lock().unwrap();
        match leader {
            Some(leader) => state.leaders.insert(group, leader),
            None => state.leaders.remove(&group),
        };
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Whether leaders here are so new that they do not know yet what was acknowledged before.
    pub(crate) fn set_unsettled(&self, unsettled: bool) {
        self.state.lock().unwrap().unsettled = unsettled;
    }

    /// The next command is not applied, but fails so.
    pub(crate) fn fail_next(&self, error: SubmitError) {
        self.state.lock().unwrap().errors.push_back(error);
    }

    /// Every command so far, in the order of its submission.
    pub(crate) fn submitted(&self) -> Vec<Command> {
        self.state.lock().unwrap().submitted.clone()
    }

    /// The log in memory, to damage or to fill.
    pub(crate) fn fake_log(&self, log: LogId) -> Arc<FakeLog> {
        Arc::clone(&self.state.lock().unwrap().logs[&log])
    }

    fn apply(&self, command: Command) -> Outcome {
        let mut state = self.state.lock().unwrap();
        match command {
            Command::Append { log, append_time, batch } => match state.logs.get(&log) {
                Some(log) => log.append(append_time, batch),
                None => Outcome::Refused(Refusal::LogUnknown { log }),
            },
            Command::SetLogStart { log, start } => state.logs[&log].trim(log, start),
            Command::Meta(command) => {
                let outcome = state.apply_meta(command);
                drop(state);
                self.changes.send_modify(|number| *number += 1);
                outcome
            }
            Command::OpenLogs { .. }
            | Command::CloseLogs { .. }
            | Command::ExpireProducers { .. }
            | Command::SetCursor { .. }
            | Command::DeleteCursor { .. }
            | Command::RaiseApplyVersion { .. } => {
                panic!("the broker never proposes this")
            }
        }
    }
}

impl State {
    fn apply_meta(&mut self, command: MetaCommand) -> Outcome {
        match command {
            MetaCommand::CreateChannels(channels) => {
                Outcome::ChannelsCreated(channels.into_iter().map(|new| self.create(new)).collect())
            }
            MetaCommand::DeleteChannels(generations) => {
                self.channels.retain(|channel| !generations.contains(&channel.generation));
                self.logs.retain(|log, _| !generations.contains(&log.generation));
                Outcome::ChannelsDeleted(vec![Ok(()); generations.len()])
            }
            MetaCommand::MintProducer => {
                self.next += 1;
                Outcome::ProducerMinted(ProducerId(i64::try_from(self.next).unwrap()))
            }
            MetaCommand::RegisterNode(_)
            | MetaCommand::JoinNode(_)
            | MetaCommand::DrainNode { .. }
            | MetaCommand::ForgetNode { .. }
            | MetaCommand::CreateGroup { .. }
            | MetaCommand::PlaceReplica { .. }
            | MetaCommand::RetireReplica { .. }
            | MetaCommand::ReplaceReplica { .. }
            | MetaCommand::ReportMembers { .. }
            | MetaCommand::ReportLogs { .. } => panic!("the broker never proposes this"),
        }
    }

    fn create(&mut self, new: NewChannel) -> Result<Generation, Refusal> {
        let NewChannel { name, uuid, partitions, replicas, segment_bytes } = new;
        if let Some(channel) = self.channels.iter().find(|channel| channel.name == name) {
            return Err(Refusal::ChannelExists { generation: channel.generation });
        }
        let generation = Generation(self.next);
        self.next += 1;
        let channel = ChannelView {
            name,
            generation,
            uuid,
            stage: ChannelStage::Active,
            replicas: replicas.unwrap_or(1),
            segment_bytes,
            groups: (0..partitions).map(|_| GROUP).collect(),
        };
        self.logs.extend(channel.partitions().map(|(log, _)| (log, Arc::default())));
        self.channels.push(channel);
        Ok(generation)
    }
}

impl Consensus for FakeConsensus {
    fn identity(&self) -> NodeIdentity {
        NodeIdentity {
            cluster: ClusterId(7),
            node: self.node,
            incarnation: Incarnation(8),
            boot_epoch: BootEpoch(1),
        }
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.state.lock().unwrap().leaders.get(&group).copied()
    }

    fn serves(&self, group: GroupId) -> bool {
        self.leader(group) == Some(self.node) && !self.state.lock().unwrap().unsettled
    }

    fn leader_change(&self, group: GroupId) -> Later<()> {
        let mut changes = self.changes.subscribe();
        let before = self.leader(group);
        let state = Arc::clone(&self.state);
        Box::pin(async move {
            let led = changes.wait_for(|_| {
                let leader = state.lock().unwrap().leaders.get(&group).copied();
                leader.is_some() && leader != before
            });
            drop(led.await);
        })
    }

    fn members(&self, _: GroupId) -> Vec<NodeId> {
        vec![self.node]
    }

    fn submit(&self, _: GroupId, command: Command, _: Duration) -> Later<Result<Outcome, SubmitError>> {
        let error = {
            let mut state = self.state.lock().unwrap();
            state.submitted.push(command.clone());
            state.errors.pop_front()
        };
        let result = error.map_or_else(|| Ok(self.apply(command)), Err);
        Box::pin(async move { result })
    }

    fn read_barrier(&self, group: GroupId, _: Duration) -> Later<Result<(), SubmitError>> {
        let leads = self.leader(group) == Some(self.node);
        let answer = if leads { Ok(()) } else { Err(SubmitError::NotLeader { leader: self.leader(group) }) };
        Box::pin(async move { answer })
    }

    fn place(&self, log: LogId) -> Place {
        let state = self.state.lock().unwrap();
        let Some(channel) = state.channels.iter().find(|channel| channel.generation == log.generation) else {
            let current =
                state.channels.iter().map(|channel| channel.generation).find(|own| *own > log.generation);
            return Place::Gone { current };
        };
        match channel.partitions().find(|(own, _)| *own == log) {
            Some((_, group)) => Place::Group(group),
            None => Place::NoPartition { partitions: u32::try_from(channel.groups.len()).unwrap() },
        }
    }

    fn channel(&self, name: &str) -> Option<ChannelView> {
        self.state.lock().unwrap().channels.iter().find(|channel| channel.name == name).cloned()
    }

    fn channels(&self) -> Vec<ChannelView> {
        self.state.lock().unwrap().channels.clone()
    }

    fn nodes(&self) -> Vec<NodeRecord> {
        vec![NodeRecord {
            node: self.node,
            incarnation: Incarnation(8),
            boot_epoch: BootEpoch(1),
            session: 1,
            native: "127.0.0.1:7400".to_owned(),
            kafka: None,
            admin: "127.0.0.1:7403".to_owned(),
            peer: "127.0.0.1:7401".to_owned(),
            version: "0.1.0".to_owned(),
            apply_version_max: 1,
        }]
    }

    fn alive(&self) -> BTreeSet<NodeId> {
        [self.node].into()
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::new(Catalogue::genesis(&[GROUP], &[self.node, NodeId(9)]))
    }

    fn catalogue_change(&self) -> Later<()> {
        let mut changes = self.changes.subscribe();
        Box::pin(async move { changes.changed().await.unwrap() })
    }

    fn log(&self, log: LogId) -> Option<Arc<dyn LogView>> {
        let log = self.state.lock().unwrap().logs.get(&log).cloned()?;
        Some(log)
    }

    fn cursors(&self, log: LogId) -> Option<BTreeMap<String, Offset>> {
        self.log(log).map(|_| [("reader".to_owned(), Offset(7)), ("writer".to_owned(), Offset(9))].into())
    }

    fn groups(&self) -> Vec<GroupStatus> {
        [GroupId::META, GROUP]
            .map(|group| GroupStatus {
                group,
                replica: ReplicaId(self.node.get() + 1),
                role: if self.leader(group) == Some(self.node) { Role::Leader } else { Role::Follower },
                term: Term(3),
                leader: self.leader(group),
                first: RaftIndex(1),
                last: RaftIndex(12),
                durable: EntryId { index: RaftIndex(12), term: Term(3) },
                committed: RaftIndex(12),
                applied: RaftIndex(11),
                serves: true,
                tail_bytes: 0,
                snapshot: SnapshotPhase::None,
                members: Members::default(),
                peers: vec![PeerStatus {
                    replica: ReplicaId(9),
                    node: NodeId(8),
                    matched: RaftIndex(10),
                    active: true,
                    in_snapshot: false,
                    learner: false,
                    caught_up: true,
                }],
                quiet: false,
                halted: None,
            })
            .into()
    }

    fn transfer(&self, group: GroupId, to: NodeId, _: Duration) -> Later<Result<(), SubmitError>> {
        self.set_leader(group, Some(to));
        Box::pin(async { Ok(()) })
    }

    fn echo(&self, peer: NodeId, _: Bytes, _: Duration) -> Later<Result<Duration, String>> {
        let answer =
            if peer == NodeId(8) { Ok(Duration::from_micros(90)) } else { Err("no peer".to_owned()) };
        Box::pin(async move { answer })
    }

    fn recovery_notes(&self) -> Vec<String> {
        vec!["a torn tail was cut".to_owned()]
    }
}

/// A log in memory.
#[derive(Debug)]
pub(crate) struct FakeLog {
    batches: Mutex<Vec<(Offset, TimestampMs, Bytes)>>,
    bounds: watch::Sender<(Offset, Offset)>,
    failing: Mutex<Vec<(Range<Offset>, ReadFailure)>>,
    /// How reads fail since the log has ended.
    ended: watch::Sender<Option<ReadFailure>>,
}

impl Default for FakeLog {
    fn default() -> Self {
        Self {
            batches: Mutex::default(),
            bounds: watch::Sender::new((Offset::ZERO, Offset::ZERO)),
            failing: Mutex::default(),
            ended: watch::Sender::new(None),
        }
    }
}

impl FakeLog {
    fn append(&self, append_time: TimestampMs, batch: Bytes) -> Outcome {
        let count = u64::from(u32::from_be_bytes(batch[23..27].try_into().unwrap())) + 1;
        let base_offset = self.high_watermark();
        self.batches.lock().unwrap().push((base_offset, append_time, batch));
        self.bounds.send_modify(|(_, end)| *end = end.plus(count));
        Outcome::Appended {
            base_offset,
            last_offset: base_offset.plus(count - 1),
            chain: Chain(base_offset.get() + count),
            append_time,
            duplicate: false,
        }
    }

    fn trim(&self, log: LogId, to: Offset) -> Outcome {
        let (start, end) = *self.bounds.borrow();
        if to > end {
            return Outcome::Refused(Refusal::OffsetOutOfRange { log, asked: to, start, end });
        }
        self.bounds.send_modify(|(start, _)| *start = to.max(*start));
        Outcome::LogStartSet { start: self.start() }
    }

    /// This range can no longer be read.
    pub(crate) fn damage(&self, range: Range<Offset>) {
        self.fail(range.clone(), ReadFailure::Damaged { range });
    }

    /// Reads of this range fail so.
    pub(crate) fn fail(&self, range: Range<Offset>, how: ReadFailure) {
        self.failing.lock().unwrap().push((range, how));
    }

    /// The log has ended for everybody who has this view of it: whoever waits is woken, and reads fail so.
    pub(crate) fn end(&self, how: ReadFailure) {
        self.ended.send_replace(Some(how));
    }
}

impl LogView for FakeLog {
    fn start(&self) -> Offset {
        self.bounds.borrow().0
    }

    fn high_watermark(&self) -> Offset {
        self.bounds.borrow().1
    }

    fn read(&self, from: Offset, bytes_max: usize) -> Result<ReadBatches, ReadFailure> {
        if let Some(how) = &*self.ended.borrow() {
            return Err(how.clone());
        }
        let failing = self.failing.lock().unwrap();
        let batches = self.batches.lock().unwrap();
        let first = batches.partition_point(|(base, ..)| *base <= from).saturating_sub(1);
        let mut read = ReadBatches { batches: Vec::new(), next: from };
        let mut bytes = 0;
        for (place, (base, _, batch)) in batches.iter().enumerate().skip(first) {
            if let Some((_, how)) = failing.iter().find(|(range, _)| range.contains(base)) {
                return if read.batches.is_empty() { Err(how.clone()) } else { Ok(read) };
            }
            bytes += batch.len();
            if !read.batches.is_empty() && bytes > bytes_max {
                break;
            }
            read.batches.push(batch.clone());
            read.next = batches.get(place + 1).map_or(self.high_watermark(), |(base, ..)| *base);
        }
        Ok(read)
    }

    fn offset_at(&self, time: TimestampMs) -> Result<Offset, ReadFailure> {
        let batches = self.batches.lock().unwrap();
        let found = batches.iter().find(|(_, own, _)| *own >= time).map(|(base, ..)| *base);
        Ok(found.unwrap_or(self.high_watermark()))
    }

    fn chain_at(&self, offset: Offset) -> Result<Chain, ReadFailure> {
        let (start, end) = *self.bounds.borrow();
        if offset < start || offset > end {
            return Err(ReadFailure::OutOfRange { start, end });
        }
        Ok(Chain(offset.get()))
    }

    fn end_and_chain(&self) -> (Offset, Chain) {
        let end = self.high_watermark();
        (end, Chain(end.get()))
    }

    fn damaged(&self) -> Vec<Range<Offset>> {
        let damaged = |(_, how): &(Range<Offset>, ReadFailure)| match how {
            ReadFailure::Damaged { range } => Some(range.clone()),
            ReadFailure::OutOfRange { .. }
            | ReadFailure::Unreadable { .. }
            | ReadFailure::Reopened
            | ReadFailure::InsideBatch { .. }
            | ReadFailure::Closed
            | ReadFailure::Failed(_) => None,
        };
        self.failing.lock().unwrap().iter().filter_map(damaged).collect()
    }

    fn past(&self, offset: Offset) -> Later<()> {
        let (mut bounds, mut ended) = (self.bounds.subscribe(), self.ended.subscribe());
        Box::pin(async move {
            tokio::select! {
                grown = bounds.wait_for(|(_, end)| *end > offset) => drop(grown),
                gone = ended.wait_for(Option::is_some) => drop(gone),
            }
        })
    }
}
