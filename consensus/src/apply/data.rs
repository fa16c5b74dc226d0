//! A data group's machine: its logs, their producers, and the generations it has closed.
//!
//! For each entry it does one thing, decided by its own logs and state alone:
//! - An append names a log that must be open. The producer table tells a retry from a new batch. A new
//!   one gets the next offsets, the leader epoch (`epoch_base` plus the entry's term), and a time
//!   that never falls within the log; its frame is written without a sync, since the raft log is the
//!   durable copy until the next checkpoint.
//! - Opening, closing, trimming and expiring change nothing if they are repeated.
//!
//! After a restart entries above the checkpoint are applied again. The engine finds their frames in
//! the files, compares, and writes only what is missing: same entries, same bytes.
//!
//! Not here: when a closed log's files go ([`super::Machines::checkpoint_done`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::checkpoint::{EntryId, LogCheckpoint, LogConfig};
use tidelog_engine::log::{AppendStamp, LogError, LogWriter, SyncJob};
use tidelog_engine::producers::{ProducerStamp, ProducerTable, Verdict};
use tidelog_engine::{Engine, LogToOpen};
use tidelog_wire::batch::{Batch, BatchError, BatchLimits};
use tidelog_wire::ids::{Generation, GroupId, LeaderEpoch, LogId, Offset, Partition, TimestampMs};

use super::catalogue_bytes::STATE_VERSION;
use super::closed::ClosedGenerations;
use super::error::ApplyError;
use super::readers::LogReaders;
use crate::entry::{Command, FieldReader, FieldWriter, MalformedField, OpenLog};
use crate::outcome::{Outcome, Refusal};

/// Most logs that a group carries.
pub const LOGS_PER_GROUP_MAX: u32 = 50_000;

/// The apply version from which on a group keeps cursors.
const CURSORS_SINCE: u16 = 2;

/// Says in a checkpoint that the state is a data machine's.
const KIND_DATA: u8 = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct DataMachine {
    group: GroupId,
    engine: Arc<Engine>,
    readers: LogReaders,
    logs: BTreeMap<LogId, OpenedLog>,
    closed: ClosedGenerations,
    /// Closed since the last checkpoint was taken, and still in it.
    leaving: BTreeSet<LogId>,
}

#[derive(Debug)]
struct OpenedLog {
    writer: LogWriter,
    config: LogConfig,
    producers: ProducerTable,
    /// Of the last batch; never falls.
    append_time: TimestampMs,
}

impl DataMachine {
    /// A machine with the logs and the state of a checkpoint.
    pub(super) fn restore(
        group: GroupId,
        engine: Arc<Engine>,
        readers: LogReaders,
        logs: Vec<LogCheckpoint>,
        state: &[u8],
    ) -> Result<Self, RestoreError> {
        let closed = decode(state).map_err(RestoreError::State)?;
        let leaving = BTreeSet::new();
        let mut machine = Self { group, engine, readers, logs: BTreeMap::new(), closed, leaving };
        let (leaving, logs): (Vec<_>, Vec<_>) = logs.into_iter().partition(|log| log.closed);
        machine.leaving.extend(leaving.iter().map(|log| log.log));
        let wanted: Vec<LogToOpen<'_>> = logs
            .iter()
            .map(|log| LogToOpen { log: log.log, config: log.config, state: Some(&log.state) })
            .collect();
        let opened = machine.engine.open_logs(&wanted);
        for (log, opened) in logs.into_iter().zip(opened) {
            let (writer, _) = opened
                .map_err(|source| RestoreError::Apply(machine.cannot(log.log, "open the log", source)))?;
            writer.restore_damage(&log.damage);
            machine.admit(log.log, writer, log.config, log.producers, log.state.append_time);
        }
        Ok(machine)
    }

    fn admit(
        &mut self,
        log: LogId,
        writer: LogWriter,
        config: LogConfig,
        producers: ProducerTable,
        append_time: TimestampMs,
    ) {
        self.readers.insert(log, writer.reader());
        self.logs.insert(log, OpenedLog { writer, config, producers, append_time });
    }

    /// Whether the log is open.
    pub(super) fn is_open(&self, log: LogId) -> bool {
        self.logs.contains_key(&log)
    }

    /// The generation's last leader epoch, if it is closed here for ever.
    pub(super) fn closed(&self, generation: Generation) -> Option<LeaderEpoch> {
        if self.logs_of(generation).next().is_some() { None } else { self.closed.last_epoch(generation) }
    }

    fn logs_of(&self, generation: Generation) -> impl Iterator<Item = LogId> {
        let first = LogId { generation, partition: Partition(0) };
        let last = LogId { generation, partition: Partition(u32::MAX) };
        self.logs.range(first..=last).map(|(log, _)| *log)
    }

    /// Does what `command` of the entry `at` says.
    ///
    /// # Errors
    /// This replica cannot write. The entry is not applied.
    pub(super) fn apply(&mut self, at: EntryId, command: Command) -> Result<Outcome, ApplyError> {
        match command {
            Command::Append { log, append_time, batch } => self.append(at, log, append_time, batch),
            Command::OpenLogs { logs } => self.open_logs(&logs),
            Command::CloseLogs { generations } => Ok(self.close_logs(at, &generations)),
            Command::SetLogStart { log, start } => self.set_log_start(log, start),
            Command::ExpireProducers { log, before } => Ok(match self.logs.get_mut(&log) {
                Some(opened) => {
                    opened.producers.expire(before);
                    Outcome::ProducersExpired
                }
                None => self.not_open(log),
            }),
            Command::SetCursor { .. } | Command::DeleteCursor { .. } | Command::RaiseApplyVersion { .. } => {
                let (current, needed) = (super::APPLY_VERSION, CURSORS_SINCE);
                Ok(Outcome::Refused(Refusal::ApplyVersionTooLow { group: self.group, current, needed }))
            }
            Command::Meta(_) => Ok(Outcome::Refused(Refusal::WrongGroup { group: self.group })),
        }
    }

    fn append(
        &mut self,
        at: EntryId,
        log: LogId,
        append_time: TimestampMs,
        batch: Bytes,
    ) -> Result<Outcome, ApplyError> {
        #[cfg(feature = "defects")]
        let log = self.any_generation(log);
        let not_open = self.not_open(log);
        let Some(opened) = self.logs.get_mut(&log) else { return Ok(not_open) };
        let batch = match Batch::parse(batch, BatchLimits::CAP) {
            Ok(batch) => batch,
            Err(error) => return self.unusable_batch(at, log, error),
        };
        let Some(leader_epoch) = leader_epoch(opened.config, at) else {
            return Ok(Outcome::Refused(Refusal::EpochExhausted { log }));
        };
        let producer = producer(&batch);
        if let Some(answer) = producer.and_then(|stamp| opened.known(&stamp)) {
            return Ok(answer);
        }
        let append_time = append_time.max(opened.append_time);
        let stamp = AppendStamp { raft_index: at.index, append_time, leader_epoch };
        let appended = opened.writer.append(&batch, stamp).map_err(|source| ApplyError::CannotWrite {
            group: self.group,
            log,
            index: at.index,
            source,
        })?;
        opened.append_time = append_time;
        if let Some(stamp) = producer {
            opened.producers.record(&stamp, appended.base_offset, appended.chain, append_time);
        }
        Ok(Outcome::Appended {
            base_offset: appended.base_offset,
            last_offset: appended.last_offset,
            chain: appended.chain,
            append_time,
            duplicate: false,
        })
    }

    /// The newest log of the same partition, if this one is closed.
    #[cfg(feature = "defects")]
    fn any_generation(&self, log: LogId) -> LogId {
        use crate::defects::{Defect, plays};
        let ignored = plays(Defect::IgnoreGeneration) && !self.is_open(log);
        let newest = self.logs.keys().rev().find(|open| ignored && open.partition == log.partition);
        newest.copied().unwrap_or(log)
    }

    /// A batch whose checksum holds and that breaks a rule is refused: it reads the same everywhere. One
    /// that is damaged may be damaged **here only**: to refuse it would make this replica differ from the
    /// others, so it stops the group here. Proposers check batches before they propose them.
    fn unusable_batch(&self, at: EntryId, log: LogId, error: BatchError) -> Result<Outcome, ApplyError> {
        match error {
            BatchError::Codec { .. }
            | BatchError::Attributes { .. }
            | BatchError::Count { .. }
            | BatchError::Producer { .. } => {
                Ok(Outcome::Refused(Refusal::InvalidBatch { reason: error.to_string() }))
            }
            BatchError::Truncated { .. }
            | BatchError::Trailing { .. }
            | BatchError::Length { .. }
            | BatchError::TooLarge { .. }
            | BatchError::Magic { .. }
            | BatchError::Crc { .. } => {
                Err(ApplyError::DamagedBatch { group: self.group, log, index: at.index, source: error })
            }
        }
    }

    fn open_logs(&mut self, logs: &[OpenLog]) -> Result<Outcome, ApplyError> {
        let new: BTreeMap<LogId, &OpenLog> = logs
            .iter()
            .filter(|open| !self.is_open(open.log) && self.closed.last_epoch(open.log.generation).is_none())
            .map(|open| (open.log, open))
            .collect();
        let all = self.logs.len().saturating_add(new.len());
        if u32::try_from(all).is_ok_and(|all| all > LOGS_PER_GROUP_MAX) {
            return Ok(Outcome::Refused(Refusal::TooManyLogs { max: LOGS_PER_GROUP_MAX }));
        }
        for (log, open) in new {
            let config = LogConfig { segment_bytes: open.segment_bytes, epoch_base: open.epoch_base };
            let (writer, _) = self
                .engine
                .open_log(log, config, None)
                .map_err(|source| self.cannot(log, "open the log", source))?;
            self.admit(log, writer, config, ProducerTable::new(), TimestampMs(0));
        }
        Ok(Outcome::LogsOpened)
    }

    /// The last epoch that a closed log can have stamped is that of the closing entry itself: terms only
    /// rise along a raft log.
    fn close_logs(&mut self, at: EntryId, generations: &[Generation]) -> Outcome {
        for generation in generations {
            let logs: Vec<LogId> = self.logs_of(*generation).collect();
            let mut last_epoch = LeaderEpoch(0);
            for log in logs {
                self.readers.remove(log);
                if let Some(opened) = self.logs.remove(&log) {
                    let epoch = leader_epoch(opened.config, at).unwrap_or(LeaderEpoch(i32::MAX));
                    last_epoch = last_epoch.max(epoch);
                    self.leaving.insert(log);
                }
            }
            self.closed.close(*generation, last_epoch);
        }
        Outcome::LogsClosed
    }

    fn set_log_start(&mut self, log: LogId, start: Offset) -> Result<Outcome, ApplyError> {
        let not_open = self.not_open(log);
        let group = self.group;
        let Some(opened) = self.logs.get_mut(&log) else { return Ok(not_open) };
        let state = opened.writer.state();
        if start > state.end {
            let (asked, start, end) = (start, state.start, state.end);
            return Ok(Outcome::Refused(Refusal::OffsetOutOfRange { log, asked, start, end }));
        }
        if start <= state.start {
            return Ok(Outcome::LogStartSet { start: state.start });
        }
        let action = "set the log's start";
        opened.writer.set_log_start(start).map_err(|source| ApplyError::CannotChange {
            group,
            log,
            action,
            source,
        })?;
        Ok(Outcome::LogStartSet { start })
    }

    fn not_open(&self, log: LogId) -> Outcome {
        Outcome::Refused(match self.closed.last_epoch(log.generation) {
            Some(_) => Refusal::LogClosed { log },
            None => Refusal::LogUnknown { log },
        })
    }

    fn cannot(&self, log: LogId, action: &'static str, source: LogError) -> ApplyError {
        ApplyError::CannotChange { group: self.group, log, action, source }
    }

    /// The machine's own state for a checkpoint: what is not in its logs.
    ///
    /// | field             | size | meaning                                                    |
    /// |-------------------|-----:|------------------------------------------------------------|
    /// | `version`         |    2 | 1; a reader refuses every value it does not know           |
    /// | `kind`            |    1 | 2, a data machine                                          |
    /// | reserved          |    1 | zero, enforced                                             |
    /// | `forgotten_to`    |    8 | generations up to here are closed unless their logs are open |
    /// | `forgotten_epoch` |    4 | highest last leader epoch among them                       |
    /// | `closed`          | list | generation (8), last leader epoch (4), ascending           |
    pub(super) fn encode(&self) -> Vec<u8> {
        encode(&self.closed)
    }

    /// The logs as a checkpoint keeps them, and what must be synced before it may be written.
    pub(super) fn checkpoint(&self) -> (Vec<LogCheckpoint>, Vec<(LogId, SyncJob)>) {
        let logs = self.logs.iter().map(|(log, opened)| LogCheckpoint {
            log: *log,
            config: opened.config,
            state: opened.writer.state(),
            producers: opened.producers.clone(),
            damage: opened.writer.damage(),
            closed: false,
        });
        let syncs = self.logs.iter().map(|(log, opened)| (*log, opened.writer.sync_target()));
        (logs.collect(), syncs.collect())
    }

    /// All logs whose files may be here: open ones, and those that are leaving.
    pub(super) fn all_logs(&self) -> BTreeSet<LogId> {
        self.logs.keys().chain(&self.leaving).copied().collect()
    }

    /// Lets go the files of those logs that are not open here.
    pub(super) fn remove_missing(&mut self, logs: &BTreeSet<LogId>) -> Result<(), ApplyError> {
        self.leaving.extend(logs.iter().filter(|log| !self.logs.contains_key(log)));
        self.remove_closed()
    }

    /// Lets the files of closed logs go. The engine unlinks each once no kept checkpoint names it.
    pub(super) fn remove_closed(&mut self) -> Result<(), ApplyError> {
        while let Some(log) = self.leaving.first().copied() {
            self.engine
                .remove_log(log)
                .map_err(|source| self.cannot(log, "remove the closed log", source))?;
            self.leaving.remove(&log);
        }
        Ok(())
    }
}

impl Drop for DataMachine {
    fn drop(&mut self) {
        for log in self.logs.keys() {
            self.readers.remove(*log);
        }
    }
}

impl OpenedLog {
    /// The answer to a batch that is not to be appended.
    fn known(&self, stamp: &ProducerStamp) -> Option<Outcome> {
        match self.producers.check(stamp) {
            Verdict::Append => None,
            Verdict::Duplicate(batch) => Some(Outcome::Appended {
                base_offset: batch.base_offset,
                last_offset: batch.last_offset,
                chain: batch.chain,
                append_time: batch.append_time,
                duplicate: true,
            }),
            Verdict::OutOfOrder { expected } => Some(Outcome::Refused(Refusal::OutOfOrderSequence {
                producer: stamp.id,
                expected,
                found: stamp.first_sequence,
            })),
            Verdict::Fenced { current } => Some(Outcome::Refused(Refusal::ProducerFenced {
                producer: stamp.id,
                current,
                found: stamp.epoch,
            })),
        }
    }
}

/// Why a machine cannot be restored.
pub(super) enum RestoreError {
    /// Its state does not decode.
    State(MalformedField),
    /// A log does not open.
    Apply(ApplyError),
}

/// The state of a data machine that has done nothing yet.
pub(super) fn genesis_state() -> Vec<u8> {
    encode(&ClosedGenerations::new())
}

pub(super) fn encode(closed: &ClosedGenerations) -> Vec<u8> {
    let mut out = FieldWriter::new();
    out.u16(STATE_VERSION).u8(KIND_DATA).u8(0);
    closed.write(&mut out);
    out.into_bytes()
}

pub(super) fn decode(state: &[u8]) -> Result<ClosedGenerations, MalformedField> {
    let mut from = FieldReader::new(state);
    if from.u16("version")? != STATE_VERSION {
        return Err(MalformedField { field: "version", problem: "not one that this release reads" });
    }
    if from.u8("kind")? != KIND_DATA {
        return Err(MalformedField { field: "kind", problem: "not a data machine" });
    }
    from.zero("reserved")?;
    let closed = ClosedGenerations::read(&mut from)?;
    from.end()?;
    Ok(closed)
}

fn leader_epoch(config: LogConfig, at: EntryId) -> Option<LeaderEpoch> {
    let term = i32::try_from(at.term.get()).ok()?;
    config.epoch_base.checked_add(term).map(LeaderEpoch)
}

fn producer(batch: &Batch) -> Option<ProducerStamp> {
    let stamp = batch.producer()?;
    let count = batch.count();
    Some(ProducerStamp { id: stamp.id, epoch: stamp.epoch, first_sequence: stamp.first_sequence, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_1_data_machine_bytes_never_change() {
        let golden = include_bytes!("../../testdata/format-1/data-machine.bin");
        let mut closed = ClosedGenerations::new();
        closed.close(Generation(3), LeaderEpoch(17));
        closed.close(Generation(9), LeaderEpoch(0));
        assert_eq!(decode(golden), Ok(closed.clone()));
        assert_eq!(encode(&closed), golden);
    }

    /// Another version, another kind, a reserved byte, a byte too many or too few: refused by name.
    #[test]
    fn data_machine_bytes_that_are_not_ours_are_refused() {
        let golden = encode(&ClosedGenerations::new());
        for at in 0..4 {
            let mut bytes = golden.clone();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = 7;
            }
            assert!(decode(&bytes).is_err(), "byte {at}");
        }
        assert!(decode(&[golden.as_slice(), &[0]].concat()).is_err());
        assert!(decode(golden.split_last().map_or(&[], |(_, rest)| rest)).is_err());
    }
}
