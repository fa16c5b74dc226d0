//! A data group's machine: its logs, their producers, and the generations it has closed.
//!
//! For each entry it does one thing, decided by its own logs and state alone:
//! - An append names a log that must be open. The producer table tells a retry from a new batch. A new
//!   one gets the next offsets, the leader epoch (`epoch_base` plus the entry's term), and a time
//!   that never falls within the log; its frame is written without a sync, since the raft log is the
//!   durable copy until the next checkpoint.
//! - A cursor is a named position of a log; it goes with the log.
//! - Opening, closing, trimming, expiring and setting cursors change nothing if they are repeated.
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

use super::channel::check_name;
use super::closed::ClosedGenerations;
use super::cursors::{CURSORS_PER_GROUP_MAX, CURSORS_PER_LOG_MAX, Cursors};
use super::data_bytes::DataState;
use super::error::ApplyError;
use super::expiry::{Expiry, expire_before};
use super::readers::LogReaders;
use crate::entry::{Command, MalformedField, OpenLog};
use crate::outcome::{Outcome, Refusal};

/// Most logs that a group carries.
pub const LOGS_PER_GROUP_MAX: u32 = 50_000;

/// The apply version from which on a group keeps cursors.
const CURSORS_SINCE: u16 = 2;
/// More than any task that counts as quick may write to one log.
const SMALL_TASK_BYTES: u64 = 1 << 20;

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
    /// All cursors of all logs.
    cursors: u32,
    /// Logs with producers that are due to be forgotten.
    expiring: BTreeSet<LogId>,
}

#[derive(Debug)]
struct OpenedLog {
    writer: LogWriter,
    config: LogConfig,
    producers: ProducerTable,
    expiry: Expiry,
    cursors: Cursors,
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
        let DataState { closed, mut cursors } = DataState::decode(state).map_err(RestoreError::State)?;
        let mut machine = Self {
            group,
            engine,
            readers,
            logs: BTreeMap::new(),
            closed,
            leaving: BTreeSet::new(),
            cursors: 0,
            expiring: BTreeSet::new(),
        };
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
            let cursors = Cursors::of(cursors.remove(&log.log).unwrap_or_default());
            machine.admit(log.log, writer, log.config, (log.producers, log.state.append_time), cursors);
        }
        if cursors.is_empty() {
            Ok(machine)
        } else {
            let problem = "of a log that is not open";
            Err(RestoreError::State(MalformedField { field: "cursors", problem }))
        }
    }

    fn admit(
        &mut self,
        log: LogId,
        writer: LogWriter,
        config: LogConfig,
        (producers, append_time): (ProducerTable, TimestampMs),
        cursors: Cursors,
    ) {
        self.readers.insert(log, writer.reader(), cursors.clone());
        self.cursors = self.cursors.saturating_add(count(&cursors));
        let mut expiry = Expiry::of(&producers);
        if expiry.is_due(&producers, append_time) {
            self.expiring.insert(log);
        }
        self.logs.insert(log, OpenedLog { writer, config, producers, expiry, cursors, append_time });
    }

    /// Whether the log is open.
    pub(super) fn is_open(&self, log: LogId) -> bool {
        self.logs.contains_key(&log)
    }

    /// Whether the log is open, and its active segment has room for so many bytes and many small batches more.
    pub(super) fn has_room(&self, log: LogId, bytes: u64) -> bool {
        self.logs
            .get(&log)
            .is_some_and(|opened| opened.writer.has_room(bytes.saturating_add(SMALL_TASK_BYTES)))
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

    /// Does what `command` of the entry `at` says, by the rules of `version`.
    ///
    /// # Errors
    /// This replica cannot write. The entry is not applied.
    pub(super) fn apply(
        &mut self,
        at: EntryId,
        version: u16,
        command: Command,
    ) -> Result<Outcome, ApplyError> {
        match command {
            Command::Append { log, append_time, batch } => self.append(at, log, append_time, batch),
            Command::OpenLogs { logs } => self.open_logs(&logs),
            Command::CloseLogs { generations } => Ok(self.close_logs(at, &generations)),
            Command::SetLogStart { log, start } => self.set_log_start(log, start),
            Command::ExpireProducers { log, before } => Ok(match self.logs.get_mut(&log) {
                Some(opened) => {
                    opened.producers.expire(before);
                    opened.expiry = Expiry::of(&opened.producers);
                    self.expiring.remove(&log);
                    Outcome::ProducersExpired
                }
                None => self.not_open(log),
            }),
            Command::SetCursor { .. } | Command::DeleteCursor { .. } if version < CURSORS_SINCE => {
                let (current, needed) = (version, CURSORS_SINCE);
                Ok(Outcome::Refused(Refusal::ApplyVersionTooLow { group: self.group, current, needed }))
            }
            Command::SetCursor { log, name, offset } => Ok(self.set_cursor(log, name, offset)),
            Command::DeleteCursor { log, name } => Ok(self.delete_cursor(log, &name)),
            Command::RaiseApplyVersion { .. } => Ok(Outcome::ApplyVersionRaised { version }),
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
            if opened.expiry.is_due(&opened.producers, append_time) {
                self.expiring.insert(log);
            }
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
            self.admit(log, writer, config, (ProducerTable::new(), TimestampMs(0)), Cursors::default());
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
                    self.cursors = self.cursors.saturating_sub(count(&opened.cursors));
                    self.expiring.remove(&log);
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

    fn set_cursor(&mut self, log: LogId, name: String, offset: Offset) -> Outcome {
        let not_open = self.not_open(log);
        let Some(opened) = self.logs.get(&log) else { return not_open };
        if let Err(reason) = check_name(&name) {
            return Outcome::Refused(Refusal::InvalidName { reason });
        }
        let state = opened.writer.state();
        if offset > state.end {
            let (asked, start, end) = (offset, state.start, state.end);
            return Outcome::Refused(Refusal::OffsetOutOfRange { log, asked, start, end });
        }
        if opened.cursors.find(&name).is_none() {
            let max = CURSORS_PER_LOG_MAX;
            if count(&opened.cursors) >= max || self.cursors >= CURSORS_PER_GROUP_MAX {
                return Outcome::Refused(Refusal::TooManyCursors { log, max });
            }
            self.cursors = self.cursors.saturating_add(1);
        }
        opened.cursors.set(name, offset);
        Outcome::CursorSet { offset }
    }

    fn delete_cursor(&mut self, log: LogId, name: &str) -> Outcome {
        let not_open = self.not_open(log);
        let Some(opened) = self.logs.get(&log) else { return not_open };
        if opened.cursors.remove(name) {
            self.cursors = self.cursors.saturating_sub(1);
        }
        Outcome::CursorDeleted
    }

    /// What to propose so that producers that were silent too long are forgotten.
    pub(super) fn expirations(&self, max: usize) -> Vec<Command> {
        let due = self.expiring.iter().filter_map(|log| self.logs.get(log).map(|opened| (*log, opened)));
        due.map(|(log, opened)| Command::ExpireProducers { log, before: expire_before(opened.append_time) })
            .take(max)
            .collect()
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
    pub(super) fn encode(&self) -> Vec<u8> {
        let with_any = self.logs.iter().filter(|(_, opened)| opened.cursors.len() > 0);
        let cursors = with_any.map(|(log, opened)| (*log, opened.cursors.all())).collect();
        DataState { closed: self.closed.clone(), cursors }.encode()
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

fn count(cursors: &Cursors) -> u32 {
    u32::try_from(cursors.len()).unwrap_or(u32::MAX)
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
