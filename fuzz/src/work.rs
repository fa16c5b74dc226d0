//! Makes a data directory by the engine itself, and keeps a model of what went into it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint, Members};
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{AppendStamp, Appended, LogWriter};
use tidelog_engine::producers::ProducerTable;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::{Engine, Mode};
use tidelog_wire::batch::{Batch, Codec};
use tidelog_wire::ids::{Chain, GroupId, LeaderEpoch, LogId, Offset, RaftIndex, Term, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use crate::{CONFIG, LOGS, open};

/// Steps taken of a case.
const STEPS_MAX: usize = 40;
/// The group whose logs these are under consensus.
pub const GROUP: GroupId = GroupId(1);

/// One step of making a directory.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// Appends a batch.
    Append { log: bool, records: u8, bytes: u16 },
    /// Makes what was appended durable (embedded), or takes a checkpoint (consensus).
    Save { log: bool },
    /// Says that nothing came for a while (embedded).
    Idle { log: bool },
    /// Raises the log start by so many of the records that are there.
    Trim { log: bool, by: u8 },
    /// The process dies and starts again.
    Restart,
}

/// How the work ends.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Ending {
    /// The process dies.
    Killed,
    /// The power is cut.
    PowerCut(u8),
}

impl From<Ending> for Crash {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Killed => Self::ProcessOnly,
            Ending::PowerCut(seed) => Self::PowerCut { seed: u64::from(seed) },
        }
    }
}

/// An entry that a raft log would hold.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Append a batch.
    Append(LogId, Batch, AppendStamp),
    /// Raise the log start.
    Start(LogId, Offset),
}

/// What was said while the directory was made.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Every batch that was ever written at an offset, as it lies on disk. After a lost tail there are several.
    pub batches: BTreeMap<(LogId, Offset), BTreeSet<Bytes>>,
    /// Every chain that ever stood at an offset.
    pub chains: BTreeMap<(LogId, Offset), BTreeSet<Chain>>,
    /// What was promised: each log's offsets from 0 up to here, less what was trimmed (embedded).
    pub durable: BTreeMap<LogId, Offset>,
    /// Highest start that a trim was asked for.
    pub start: BTreeMap<LogId, Offset>,
    /// The raft log, from index 1 (consensus).
    pub entries: Vec<Entry>,
    number: u64,
}

impl Model {
    /// A batch that says which it is.
    pub fn batch(&mut self, records: u8, bytes: u16) -> Batch {
        self.number += 1;
        let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
        for record in 0..=records % 4 {
            let mut value = format!("{}.{record}", self.number).into_bytes();
            value.resize(value.len() + usize::from(bytes % 1500), b'x');
            let time = TimestampMs(1_000 + self.number as i64);
            let pushed = builder.push(time, None, Some(&value), &[]);
            assert_eq!(pushed, Ok(Pushed::Taken), "a small record");
        }
        builder.build(None).expect("a batch of records")
    }

    /// Takes in what an append came to.
    pub fn appended(&mut self, log: LogId, batch: &Batch, stamp: AppendStamp, appended: Appended) {
        let bytes = batch.stamped_bytes(appended.base_offset, stamp.leader_epoch);
        self.batches.entry((log, appended.base_offset)).or_default().insert(bytes);
        let end = appended.last_offset.plus(1);
        self.chains.entry((log, end)).or_default().insert(appended.chain);
    }

    /// The highest start that a trim was asked for, and so where a log begins that was not harmed.
    #[must_use]
    pub fn start_of(&self, log: LogId) -> Offset {
        self.start.get(&log).copied().unwrap_or(Offset::ZERO)
    }

    /// Where a log ends once every entry is applied (consensus).
    #[must_use]
    pub fn end_of_entries(&self, log: LogId) -> Offset {
        let records = self.entries.iter().map(|entry| match entry {
            Entry::Append(of, batch, _) if *of == log => u64::from(batch.count()),
            Entry::Append(..) | Entry::Start(..) => 0,
        });
        Offset(records.sum())
    }
}

/// The stamp of the entry with this index.
pub fn stamp(index: u64) -> AppendStamp {
    let append_time = TimestampMs(index as i64);
    AppendStamp { raft_index: RaftIndex(index), append_time, leader_epoch: LeaderEpoch(2) }
}

/// What embedded logs stamp.
pub fn stamp_embedded() -> AppendStamp {
    AppendStamp { raft_index: RaftIndex::ZERO, append_time: TimestampMs(0), leader_epoch: LeaderEpoch::ZERO }
}

/// Makes a directory and leaves it as `ending` does.
pub fn make(disk: &SimDisk, mode: Mode, steps: &[Step], ending: Ending) -> Model {
    let mut model = Model::default();
    let steps: Vec<Step> = steps.iter().copied().take(STEPS_MAX).collect();
    for run in steps.split(|step| matches!(step, Step::Restart)) {
        disk.crash(Crash::ProcessOnly);
        match mode {
            Mode::Embedded => embedded(disk, run, &mut model),
            Mode::Consensus => consensus(disk, run, &mut model),
        }
    }
    disk.crash(ending.into());
    model
}

fn embedded(disk: &SimDisk, steps: &[Step], model: &mut Model) {
    let engine = open(disk, Mode::Embedded).expect("a sound directory");
    let logs = shared(&engine);
    let of = |log: bool| &logs[usize::from(log)];
    for step in steps {
        match *step {
            Step::Append { log, records, bytes } => {
                let batch = model.batch(records, bytes);
                let now = TimestampMs(model.number as i64);
                let appended = of(log).append(&batch, now).expect("a sound disk");
                model.appended(LOGS[usize::from(log)], &batch, stamp_embedded(), appended);
            }
            Step::Save { log } => of(log).sync().expect("a sound disk"),
            Step::Idle { log } => of(log).idle().expect("a sound disk"),
            Step::Trim { log, by } => {
                let (reader, id) = (of(log).reader(), LOGS[usize::from(log)]);
                of(log).sync().expect("a sound disk");
                let to = Offset((reader.start().get() + u64::from(by)).min(reader.end().get()));
                of(log).trim(to).expect("an offset in the log");
                model.start.insert(id, to);
            }
            Step::Restart => {}
        }
    }
    for (log, id) in logs.iter().zip(LOGS) {
        model.durable.insert(id, log.reader().durable_end());
    }
}

/// Opens the embedded logs.
pub fn shared(engine: &Arc<Engine>) -> Vec<SharedLog> {
    LOGS.iter().map(|log| engine.open_shared(*log, CONFIG).expect("a sound directory").0).collect()
}

fn consensus(disk: &SimDisk, steps: &[Step], model: &mut Model) {
    let engine = open(disk, Mode::Consensus).expect("a sound directory");
    let mut writers = replayed(&engine, model).expect("a sound directory");
    for step in steps {
        match *step {
            Step::Append { log, records, bytes } => {
                let batch = model.batch(records, bytes);
                let stamp = stamp(model.entries.len() as u64 + 1);
                model.entries.push(Entry::Append(LOGS[usize::from(log)], batch.clone(), stamp));
                let appended = writers[usize::from(log)].append(&batch, stamp).expect("a sound disk");
                model.appended(LOGS[usize::from(log)], &batch, stamp, appended);
            }
            Step::Trim { log, by } => {
                let writer = &mut writers[usize::from(log)];
                let state = writer.state();
                let to = Offset((state.start.get() + u64::from(by)).min(state.end.get()));
                model.entries.push(Entry::Start(writer.log(), to));
                writer.set_log_start(to).expect("an offset in the log");
                model.start.insert(LOGS[usize::from(log)], to);
            }
            Step::Save { .. } => checkpoint(&engine, &writers, model.entries.len() as u64),
            Step::Idle { .. } | Step::Restart => {}
        }
    }
}

/// Opens the logs at the newest checkpoint and applies the entries above it again, as a restart does. `None`: the
/// checkpoints or a log cannot be opened.
pub fn replayed(engine: &Arc<Engine>, model: &Model) -> Option<Vec<LogWriter>> {
    let loaded = engine.load_checkpoint(GROUP).ok()?.map(|loaded| loaded.newest);
    let applied = loaded.as_ref().map_or(0, |newest| newest.applied.index.get());
    let mut writers = Vec::new();
    for id in LOGS {
        let known = loaded.as_ref().and_then(|newest| newest.logs.iter().find(|log| log.log == id));
        let (writer, _) = engine.open_log(id, CONFIG, known.map(|log| &log.state)).ok()?;
        if let Some(known) = known {
            writer.restore_damage(&known.damage);
        }
        writers.push(writer);
    }
    for entry in model.entries.iter().skip(usize::try_from(applied).unwrap_or(usize::MAX)) {
        let of = |log: LogId| usize::from(log == LOGS[1]);
        match entry {
            Entry::Append(log, batch, stamp) => {
                writers[of(*log)].append(batch, *stamp).expect("an entry of the raft log is applied again");
            }
            Entry::Start(log, to) => {
                writers[of(*log)].set_log_start(*to).expect("an entry of the raft log is applied again");
            }
        }
    }
    Some(writers)
}

/// Syncs the logs and writes a checkpoint at the entry `index`.
pub fn checkpoint(engine: &Engine, writers: &[LogWriter], index: u64) {
    let logs = writers
        .iter()
        .map(|writer| {
            let (state, job) = (writer.state(), writer.sync_target());
            job.run().expect("a sound disk");
            LogCheckpoint {
                log: writer.log(),
                config: writer.config(),
                state,
                producers: ProducerTable::new(),
                damage: writer.damage(),
                closed: false,
            }
        })
        .collect();
    let entry = EntryId { index: RaftIndex(index), term: Term(1) };
    let checkpoint = Checkpoint {
        group: GROUP,
        applied: entry,
        last_durable: entry,
        apply_version: 1,
        members: Members::default(),
        logs,
        state: Bytes::new(),
    };
    engine.write_checkpoint(&checkpoint).expect("a sound disk");
}
