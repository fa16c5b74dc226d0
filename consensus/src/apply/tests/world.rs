//! One node's machines on a simulated disk, with a raft log that is a list.

use std::path::Path;

use bytes::Bytes;
use raft::eraftpb::Entry;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::{NewIdentity, Options};
use tidelog_wire::batch::{BatchHeader, MAGIC};
use tidelog_wire::ids::{BootEpoch, ClusterId, Incarnation, NodeId, Partition, Term, TimestampMs};

use super::super::*;
use crate::entry::{MetaCommand, NodeRecord, OpenLog};

pub(super) const DATA_GROUP: GroupId = GroupId(1);
const GROUPS: [GroupId; 2] = [GroupId::META, DATA_GROUP];

pub(super) struct World {
    pub(super) disk: SimDisk,
    pub(super) machines: Machines,
    pub(super) term: u64,
    /// Committed entries of the data group, from index 2 on.
    raft_log: Vec<Committed>,
    /// What each of them came to, when it was applied last.
    pub(super) outcomes: BTreeMap<RaftIndex, Outcome>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self::of_version(seed, APPLY_VERSION)
    }

    /// One whose groups begin with these rules of apply.
    pub(super) fn of_version(seed: u64, apply_version: u16) -> Self {
        let disk = SimDisk::new(seed);
        let identity = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
        Engine::format(&disk.storage(), Path::new("/data"), identity).unwrap();
        let engine = engine(&disk);
        for group in GROUPS {
            let genesis = genesis_checkpoint(group, &[NodeId(0)], &[DATA_GROUP]);
            engine.write_checkpoint(&Checkpoint { apply_version, ..genesis }).unwrap();
        }
        let machines = Machines::open(engine, &GROUPS).unwrap();
        Self { disk, machines, term: 1, raft_log: Vec::new(), outcomes: BTreeMap::new() }
    }

    pub(super) fn next_task(&self, command: Command) -> ApplyTask {
        self.task(DATA_GROUP, command)
    }

    fn task(&self, group: GroupId, command: Command) -> ApplyTask {
        let index = RaftIndex(self.machines.applied(group).unwrap().index.get() + 1);
        ApplyTask { group, entries: vec![committed(index, Term(self.term), command)] }
    }

    /// Applies a command to the data group.
    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        let task = self.next_task(command);
        self.apply_task(task)
    }

    fn apply_task(&mut self, task: ApplyTask) -> Outcome {
        self.raft_log.extend(task.entries.iter().cloned());
        let mut applied = self.machines.apply(task);
        assert!(applied.stopped.is_none(), "{:?}", applied.stopped);
        let outcome = applied.outcomes.pop().unwrap().1;
        self.outcomes.insert(applied.applied.index, outcome.clone());
        outcome
    }

    /// Applies a new leader's empty entry.
    pub(super) fn apply_nothing(&mut self) {
        let mut task = self.next_task(Command::Meta(MetaCommand::MintProducer));
        task.entries[0].entry.set_context(Bytes::new());
        self.raft_log.extend(task.entries.iter().cloned());
        let applied = self.machines.apply(task);
        assert!(applied.stopped.is_none() && applied.outcomes.is_empty());
    }

    /// Applies a command to the meta group.
    pub(super) fn apply_meta(&mut self, command: Command) -> Outcome {
        let task = self.task(GroupId::META, command);
        self.machines.apply(task).outcomes.pop().unwrap().1
    }

    /// The node says that it knows these rules of apply.
    pub(super) fn register(&mut self, apply_version_max: u16) {
        let at = || "127.0.0.1:1".to_owned();
        let record = NodeRecord {
            node: NodeId(0),
            incarnation: Incarnation(1),
            boot_epoch: BootEpoch(u64::from(apply_version_max)),
            session: 9,
            native: at(),
            kafka: None,
            admin: at(),
            peer: at(),
            version: at(),
            apply_version_max,
        };
        self.apply_meta(Command::Meta(MetaCommand::RegisterNode(record)));
    }

    /// Carries out what reconcile asks for, until it asks for nothing.
    pub(super) fn reconcile(&mut self) {
        for _ in 0..10 {
            let proposals = self.machines.reconcile(&GROUPS.into_iter().collect());
            if proposals.is_empty() {
                return;
            }
            for (group, command) in proposals {
                if group == GroupId::META {
                    self.apply_meta(command)
                } else {
                    self.apply(command)
                };
            }
        }
        panic!("reconcile never ends");
    }

    pub(super) fn checkpoint(&mut self) {
        let durable = self.machines.applied(DATA_GROUP).unwrap();
        let job = self.machines.checkpoint_job(DATA_GROUP, durable).unwrap();
        let done = job.run().unwrap();
        self.machines.checkpoint_done(&done).unwrap();
    }

    /// Crashes, opens everything anew, and applies what follows the checkpoint again.
    pub(super) fn crash_and_replay(&mut self, crash: Crash) {
        self.disk.crash(crash);
        self.machines = Machines::open(engine(&self.disk), &GROUPS).unwrap();
        let from = self.machines.applied(DATA_GROUP).unwrap().index;
        let entries: Vec<_> =
            self.raft_log.iter().filter(|committed| committed.index > from).cloned().collect();
        for committed in entries {
            let index = committed.index;
            let mut applied = self.machines.apply(ApplyTask { group: DATA_GROUP, entries: vec![committed] });
            assert!(applied.stopped.is_none(), "{:?}", applied.stopped);
            if let Some((_, outcome)) = applied.outcomes.pop() {
                self.outcomes.insert(index, outcome);
            }
        }
    }

    /// The checkpoint that would be written now, byte for byte, and all files of logs.
    pub(super) fn state_bytes(&self) -> (Option<Bytes>, Vec<(String, Vec<u8>)>) {
        let job = self.machines.checkpoint_job(DATA_GROUP, EntryId::default());
        let storage = self.disk.storage();
        let files = self.disk.files().into_iter().filter(|path| path.starts_with("/data/logs")).map(|path| {
            let bytes = tidelog_engine::storage::read_whole(storage.as_ref(), &path, 1 << 24).unwrap();
            (path.display().to_string(), bytes)
        });
        (job.map(|job| job.checkpoint().encode()), files.collect())
    }

    pub(super) fn reader(&self, generation: u64) -> LogReader {
        self.machines.reader(log(generation)).unwrap()
    }
}

fn engine(disk: &SimDisk) -> Arc<Engine> {
    let options = Options { reserve_bytes: 0, ..Options::consensus(TimestampMs(0)) };
    Engine::open(disk.storage(), Path::new("/data"), options).unwrap()
}

pub(super) fn committed(index: RaftIndex, term: Term, command: Command) -> Committed {
    let (context, data) = entry::encode(command);
    let mut entry = Entry::default();
    entry.set_index(index.get());
    entry.set_term(term.get());
    entry.set_context(context.into());
    entry.set_data(data);
    Committed { index, term, token: None, members: None, entry }
}

pub(super) fn log(generation: u64) -> LogId {
    LogId { generation: Generation(generation), partition: Partition(0) }
}

pub(super) fn open(generation: u64) -> Command {
    Command::OpenLogs { logs: vec![OpenLog { log: log(generation), segment_bytes: 4096, epoch_base: 0 }] }
}

pub(super) fn close(generation: u64) -> Command {
    Command::CloseLogs { generations: vec![Generation(generation)] }
}

/// A batch of nobody in particular.
pub(super) fn plain(generation: u64, count: i32, time: i64) -> Command {
    let batch = batch_bytes(-1, -1, -1, count);
    Command::Append { log: log(generation), append_time: TimestampMs(time), batch }
}

/// A batch of an idempotent producer.
pub(super) fn append(generation: u64, producer: i64, epoch: i16, sequence: i32, count: i32) -> Command {
    let batch = batch_bytes(producer, epoch, sequence, count);
    Command::Append { log: log(generation), append_time: TimestampMs(5), batch }
}

pub(super) fn batch_bytes(producer: i64, epoch: i16, sequence: i32, count: i32) -> Bytes {
    let body = vec![b'r'; usize::try_from(count).unwrap() * 40];
    let mut header = BatchHeader {
        base_offset: 0,
        length: 49 + i32::try_from(body.len()).unwrap(),
        leader_epoch: -1,
        magic: MAGIC,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 1_000,
        max_timestamp: 1_000,
        producer_id: producer,
        producer_epoch: epoch,
        base_sequence: sequence,
        record_count: count,
    };
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&header.encode()[21..]), &body);
    [&header.encode()[..], &body].concat().into()
}
