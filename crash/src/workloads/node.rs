//! The seam of raft log, segments and checkpoints: what a node does with one group, without its network.
//!
//! Entries are written to the raft log in synced batches and applied to the segments, which nobody syncs but
//! the checkpoints; a checkpoint lets the raft log be compacted up to the older of the two that are kept,
//! and files be unlinked that neither names. Votes have a file of their own. After any crash checkpoint and
//! raft log together must allow replay without a gap, and replay must end in what the entries say.
//!
//! What an entry says follows from its index alone, and so does what every log holds once it is applied.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use ::raft::eraftpb::{Entry, HardState};
use bytes::Bytes;
use tidelog_consensus::raft_log::{GroupWrite, RaftLog, Span};
use tidelog_consensus::snapshot::Switch;
use tidelog_consensus::votes::{Vote, Votes};
use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint, LogConfig, Members};
use tidelog_engine::log::{AppendStamp, LogWriter};
use tidelog_engine::producers::ProducerTable;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, Options};
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{GroupId, LeaderEpoch, LogId, RaftIndex, ReplicaId, Term, TimestampMs};

use super::embedded::{is_steady, log};
use super::records::{LogPromise, batch};
use super::{install, raft};
use crate::raft_files::{self, RecordedLog};
use crate::scenario::{Broken, Scenario, data, holds};

pub(super) const GROUP: GroupId = GroupId(1);
const CONFIG: LogConfig = LogConfig { segment_bytes: LogConfig::SEGMENT_BYTES_MIN, epoch_base: 0 };
const A: LogId = log(7, 0);
const B: LogId = log(7, 1);
/// The next life of A's name.
const A_AGAIN: LogId = log(9, 0);
/// The entry that ends A; the one after it begins the next life.
const CLOSES: u64 = 19;

/// What an entry says.
enum Says {
    Open(LogId),
    Append(LogId, Box<Batch>, AppendStamp),
    Trim(LogId),
    Close(LogId),
}

pub(super) fn term(index: u64) -> Term {
    Term(index.div_euclid(12).saturating_add(1))
}

fn says(index: u64) -> Result<Says, Broken> {
    let a = if index > CLOSES { A_AGAIN } else { A };
    Ok(match index {
        1 => Says::Open(A),
        2 => Says::Open(B),
        CLOSES => Says::Close(A),
        _ if index == CLOSES.saturating_add(1) => Says::Open(A_AGAIN),
        _ if index.is_multiple_of(9) => Says::Trim(a),
        _ if index.is_multiple_of(14) => Says::Trim(B),
        _ => {
            let bytes = usize::try_from(index.wrapping_mul(937).wrapping_rem(2_300)).unwrap_or(0);
            let batch = batch(index, 1, bytes)?;
            let stamp = AppendStamp {
                raft_index: RaftIndex(index),
                append_time: TimestampMs(i64::try_from(index).unwrap_or(0)),
                leader_epoch: LeaderEpoch(i32::try_from(term(index).get()).unwrap_or(0)),
            };
            Says::Append(if index.is_multiple_of(3) { B } else { a }, Box::new(batch), stamp)
        }
    })
}

/// The entry as the raft log holds it.
fn entry(index: u64) -> Result<Entry, Broken> {
    let data = match says(index)? {
        Says::Append(_, batch, _) => batch.into_bytes(),
        Says::Open(_) | Says::Trim(_) | Says::Close(_) => Bytes::from(format!("entry {index}")),
    };
    Ok(Entry { index, term: term(index).get(), data, ..Entry::default() })
}

/// What the logs hold once the entries up to `applied` are.
fn logs_at(applied: u64) -> Result<BTreeMap<LogId, LogPromise>, Broken> {
    let mut logs: BTreeMap<LogId, LogPromise> = BTreeMap::new();
    for index in 1..=applied {
        match says(index)? {
            Says::Open(log) => drop(logs.insert(log, LogPromise::default())),
            Says::Append(log, batch, stamp) => {
                logs.entry(log).or_default().send(&batch, stamp.leader_epoch);
            }
            Says::Trim(log) => {
                let log = logs.entry(log).or_default();
                log.ask_start(log.middle());
                log.start_raised();
            }
            Says::Close(log) => drop(logs.remove(&log)),
        }
    }
    for log in logs.values_mut() {
        log.all_durable();
    }
    Ok(logs)
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    /// How many batches of entries it writes.
    pub(super) rounds: u64,
    /// After which of them it takes a snapshot over that contains how many entries.
    pub(super) installs: Option<(u64, u64)>,
}

/// How far the node has been acknowledged what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Promise {
    /// Entries that were written, and those of them that were synced.
    asked: u64,
    durable: u64,
    /// The entry of the last checkpoint that was reported written.
    checkpoint: u64,
    vote_asked: u64,
    vote: u64,
    /// The last entry of a snapshot that may have been switched to; 0 for none.
    installed: u64,
}

impl Promise {
    /// A snapshot up to `to` is about to be marked: the next start may find it in place.
    pub(super) fn installing(&mut self, to: u64) {
        self.installed = to;
        self.asked = self.asked.max(to);
    }

    /// It was marked: there is no way back.
    pub(super) fn marked(&mut self, to: u64) {
        self.durable = to;
        self.checkpoint = to;
    }
}

/// A running node.
pub(super) struct Running {
    // Closed before the engine that they belong to.
    writers: BTreeMap<LogId, LogWriter>,
    pub(super) engine: Arc<Engine>,
    pub(super) raft: RecordedLog,
    votes: Votes,
    applied: u64,
    /// Entries of the kept checkpoints, oldest first.
    checkpoints: Vec<u64>,
}

impl Running {
    /// Opens the logs that a checkpoint names, where it says that they stand.
    fn open_logs(&mut self, newest: Option<&Checkpoint>) -> Result<(), Broken> {
        for log in newest.iter().flat_map(|newest| &newest.logs) {
            let opened = self.engine.open_log(log.log, log.config, Some(&log.state));
            let (writer, _) = opened.map_err(Broken::by(&format!("open log {}", log.log)))?;
            self.writers.insert(log.log, writer);
        }
        Ok(())
    }

    /// The same node, standing at its newest checkpoint.
    fn reopened(self) -> Result<Self, Broken> {
        let mut running = self;
        let loaded = running.engine.load_checkpoint(GROUP).map_err(Broken::by("load the checkpoint"))?;
        let newest = loaded.map(|loaded| loaded.newest);
        running.open_logs(newest.as_ref())?;
        running.applied = newest.map_or(0, |newest| newest.applied.index.get());
        running.checkpoints.push(running.applied);
        Ok(running)
    }

    fn apply(&mut self, index: u64) -> Result<(), Broken> {
        let failed = |doing: &str| format!("apply entry {index}: {doing}");
        match says(index)? {
            Says::Open(log) => {
                let (writer, _) =
                    self.engine.open_log(log, CONFIG, None).map_err(Broken::by(&failed("open the log")))?;
                self.writers.insert(log, writer);
            }
            Says::Append(log, batch, stamp) => {
                let writer = self.writer(log)?;
                writer.append(&batch, stamp).map_err(Broken::by(&failed("append")))?;
            }
            Says::Trim(log) => {
                let to = logs_at(index)?.get(&log).map(LogPromise::start).unwrap_or_default();
                self.writer(log)?.set_log_start(to).map_err(Broken::by(&failed("trim")))?;
            }
            Says::Close(log) => {
                self.writers.remove(&log);
                self.engine.remove_log(log).map_err(Broken::by(&failed("remove the log")))?;
            }
        }
        self.applied = index;
        Ok(())
    }

    fn writer(&mut self, log: LogId) -> Result<&mut LogWriter, Broken> {
        self.writers.get_mut(&log).ok_or_else(|| Broken(format!("log {log} is not open")))
    }

    /// Writes the next `count` entries with one sync, and applies them.
    pub(super) fn entries(
        &mut self,
        promise: &mut Promise,
        count: u64,
        tell: &dyn Fn(Promise),
    ) -> Result<(), Broken> {
        let first = self.applied.saturating_add(1);
        let last = self.applied.saturating_add(count);
        promise.asked = promise.asked.max(last);
        tell(*promise);
        let entries = (first..=last).map(entry).collect::<Result<Vec<_>, _>>()?;
        let hard_state =
            HardState { term: term(last).get(), vote: 1, commit: self.applied, ..HardState::default() };
        let write = GroupWrite { entries, hard_state: Some(hard_state), ..GroupWrite::new(GROUP) };
        self.raft.log.write(&[write], true).map_err(Broken::by("write the raft log"))?;
        promise.durable = last;
        tell(*promise);
        (first..=last).try_for_each(|index| self.apply(index))
    }

    fn vote(&mut self, promise: &mut Promise, tell: &dyn Fn(Promise)) -> Result<(), Broken> {
        let now = term(self.applied);
        promise.vote_asked = now.get();
        tell(*promise);
        let vote = Vote { group: GROUP, replica: ReplicaId(1), term: now, vote: Some(ReplicaId(1)) };
        self.votes.record(&[vote]).map_err(Broken::by("record a vote"))?;
        promise.vote = now.get();
        tell(*promise);
        Ok(())
    }

    /// Checkpoints what is applied, and forgets what no kept checkpoint needs.
    pub(super) fn checkpoint(
        &mut self,
        promise: &mut Promise,
        tell: &dyn Fn(Promise),
    ) -> Result<Checkpoint, Broken> {
        let applied = EntryId { index: RaftIndex(self.applied), term: term(self.applied) };
        let logs = self.writers.iter().map(|(log, writer)| LogCheckpoint {
            log: *log,
            config: CONFIG,
            state: writer.state(),
            producers: ProducerTable::new(),
            damage: writer.damage(),
            closed: false,
        });
        let checkpoint = Checkpoint {
            group: GROUP,
            applied,
            last_durable: applied,
            apply_version: 1,
            members: Members::default(),
            logs: logs.collect(),
            state: Bytes::new(),
        };
        for writer in self.writers.values() {
            writer.sync_target().run().map_err(Broken::by("sync the segments"))?;
        }
        self.engine.write_checkpoint(&checkpoint).map_err(Broken::by("write the checkpoint"))?;
        promise.checkpoint = self.applied;
        tell(*promise);
        self.checkpoints.push(self.applied);
        let older = self.checkpoints.len().checked_sub(2).and_then(|at| self.checkpoints.get(at));
        if let Some(older) = older {
            let first_kept = RaftIndex(older.saturating_add(1));
            self.raft.log.compact(GROUP, first_kept).map_err(Broken::by("compact the raft log"))?;
            self.raft.log.purge().map(drop).map_err(Broken::by("give files of the raft log back"))?;
        }
        Ok(checkpoint)
    }

    /// Once no kept checkpoint names a log that was removed, nothing is left of it: what a power cut brought back goes with the
    /// next checkpoint.
    fn check_removed(&self) -> Result<(), Broken> {
        let kept = self.checkpoints.iter().rev().take(2);
        if self.checkpoints.len() < 2 || kept.copied().any(|index| index < CLOSES) {
            return Ok(());
        }
        let dir = data().join(format!("logs/{}/{}", A.generation, A.partition));
        match self.engine.storage().list(&dir) {
            Ok(files) => holds(files.is_empty(), || format!("files of removed log {A} are left: {files:?}")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Broken(format!("list what is left of log {A}: {error}"))),
        }
    }

    /// Holds the raft log beside the checkpoints to the promise; returns its last entry.
    fn check_raft(&self, promise: &Promise, older: Option<u64>) -> Result<u64, Broken> {
        let held = self.raft.log.load(GROUP).map_err(Broken::by("load the raft log"))?;
        let Some(Span { first, last }) = held.span else {
            // The switch to a snapshot forgets all entries; nothing else does.
            holds(self.applied == promise.installed && promise.durable <= self.applied, || {
                format!("the raft log is empty at a checkpoint at {}, after {promise:?}", self.applied)
            })?;
            return Ok(self.applied);
        };
        // A checkpoint from before a switch has no entries behind it.
        let older = older.filter(|older| *older >= promise.installed || self.applied < promise.installed);
        let needed = older.unwrap_or(self.applied).min(self.applied);
        holds(first.get() <= needed.saturating_add(1), || {
            format!(
                "a gap: the kept checkpoints are at {needed} and {}, the raft log begins at {first}",
                self.applied
            )
        })?;
        holds(last.get() >= promise.durable && last.get() <= promise.asked, || {
            format!("the raft log ends at {last}, after {promise:?}")
        })?;
        holds(last.get() >= self.applied, || {
            format!("the checkpoint at {} is ahead of {last}", self.applied)
        })?;
        let end = RaftIndex(last.get().saturating_add(1));
        let entries = self.raft.log.entries(GROUP, first, end, u64::MAX);
        for (found, index) in entries.map_err(Broken::by("read the raft log"))?.iter().zip(first.get()..) {
            holds(*found == entry(index)?, || format!("entry {index} is not the one that was written"))?;
        }
        Ok(last.get())
    }
}

impl Scenario for Node {
    type Promise = Promise;
    type Held = Running;

    fn name(&self) -> &'static str {
        self.name
    }

    fn work(&self, storage: &Arc<dyn Storage>, tell: &dyn Fn(Promise)) -> Result<(), Broken> {
        let mut promise = Promise::default();
        let (mut running, _) = self.open(storage, &promise)?;
        for round in 1..=self.rounds {
            running.entries(&mut promise, round.wrapping_rem(3).saturating_add(1), tell)?;
            if round.is_multiple_of(4) {
                running.vote(&mut promise, tell)?;
            }
            if round.is_multiple_of(3) {
                running.checkpoint(&mut promise, tell)?;
            }
            if let Some((_, to)) = self.installs.filter(|(after, _)| *after == round) {
                let marked = install::fetch_and_mark(&running, storage, &mut promise, to, tell)?;
                running.writers.clear();
                install::switch(storage, &running.engine, &running.raft, &marked)?;
                running = running.reopened()?;
            }
            if round == 8 {
                (running, promise) = self.restart(running, storage, &promise, tell)?;
            }
        }
        Ok(())
    }

    fn open(&self, storage: &Arc<dyn Storage>, promise: &Promise) -> Result<(Running, Promise), Broken> {
        let options = Options { reserve_bytes: 0, ..Options::consensus(TimestampMs(1)) };
        let engine =
            Engine::open(Arc::clone(storage), data(), options).map_err(Broken::by("open the engine"))?;
        let (votes, found) = Votes::open(storage.as_ref(), data()).map_err(Broken::by("open the votes"))?;
        let raft = raft_files::open(storage, raft::dir(), raft::OPTIONS)?;
        let held = raft.log.load(GROUP).map_err(Broken::by("load the raft log"))?;
        if let Some(mark) = held.install {
            let marked = Switch { group: GROUP, mark, hard_state: held.hard_state };
            install::switch(storage, &engine, &raft, &marked)?;
        }
        let loaded = engine.load_checkpoint(GROUP).map_err(Broken::by("load the checkpoint"))?;
        let (newest, older) = loaded.map_or((None, None), |loaded| (Some(loaded.newest), loaded.older));
        let applied = newest.as_ref().map_or(0, |newest| newest.applied.index.get());
        let older = older.map(|entry| entry.index.get());
        holds(applied >= promise.checkpoint, || {
            format!("the newest checkpoint is at {applied}, but one at {} was reported", promise.checkpoint)
        })?;
        let checkpoints = older.into_iter().chain([applied]).filter(|index| *index > 0).collect();
        let mut running = Running { writers: BTreeMap::new(), engine, raft, votes, applied, checkpoints };
        let last = running.check_raft(promise, older)?;
        let vote = found.votes.get(&GROUP).map_or(0, |vote| vote.term.get());
        holds(found.damage.is_empty() && vote >= promise.vote && vote <= promise.vote_asked, || {
            format!("a vote in term {vote}, damage {:?}, after {promise:?}", found.damage)
        })?;
        let known = running.raft.log.load(GROUP).map_err(Broken::by("load the raft log"))?.hard_state.term;
        holds(vote <= known, || format!("a vote in term {vote}; the raft log knows term {known} only"))?;
        running.open_logs(newest.as_ref())?;
        (applied.saturating_add(1)..=last).try_for_each(|index| running.apply(index))?;
        for (log, expected) in logs_at(last)? {
            drop(expected.check(&running.writer(log)?.reader())?);
        }
        let shown =
            Promise { asked: last, durable: last, checkpoint: applied, vote_asked: vote, vote, ..*promise };
        Ok((running, shown))
    }

    fn go_on(
        &self,
        held: &mut Running,
        promise: &Promise,
        tell: &dyn Fn(Promise),
    ) -> Result<Promise, Broken> {
        let mut promise = *promise;
        held.entries(&mut promise, 2, tell)?;
        held.checkpoint(&mut promise, tell).map(drop)?;
        held.check_removed()?;
        held.entries(&mut promise, 1, tell)?;
        Ok(promise)
    }

    /// Replay writes segments again, unsynced: what they must be in the end is what the entries say.
    fn is_steady(&self, path: &Path) -> bool {
        is_steady(path)
    }
}
