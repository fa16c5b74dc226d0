//! Embedded logs: many threads append, one sync serves all that wait.
//!
//! 1. An append writes its frame under the log's lock, which is short.
//! 2. Whoever then finds no sync running becomes the leader: it syncs, off the lock, everything
//!    written so far. The others wait; what they wrote meanwhile is covered by the next sync.
//! 3. A failed sync fences the log. Everyone who waits is told, and it is never tried again.
//!
//! There is no clock here: append times come from the caller, and so does the word that the log is
//! idle, upon which a mark is written so that damage to the last group can be told from a torn tail.
//!
//! The log start lies in a checkpoint of group 0, written before anything is unlinked.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{GroupId, LeaderEpoch, LogId, Offset, RaftIndex, Term, TimestampMs};

use crate::checkpoint::store::KEPT;
use crate::checkpoint::{Checkpoint, CheckpointError, EntryId, LogCheckpoint, LogConfig};
use crate::engine::Engine;
use crate::locks::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use crate::log::{
    AppendError, AppendStamp, Appended, LogError, LogReader, LogRecovery, LogWriter, SyncError,
};
use crate::producers::ProducerTable;

/// How many bytes are appended between two looks at the room on the disk.
const LOOK_EVERY_BYTES: usize = 1 << 20;

/// Something of an embedded log failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// The batch was not written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// What was written is not known to be durable; the log is fenced.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The log could not be changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The new log start could not be recorded; nothing was removed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What the embedded logs of an engine have recorded: their starts.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    index: u64,
    logs: BTreeMap<LogId, LogCheckpoint>,
    loaded: bool,
}

#[derive(Debug)]
struct State {
    writer: LogWriter,
    syncing: bool,
    until_look: usize,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    state: Mutex<State>,
    synced: Condvar,
    reader: LogReader,
}

/// An embedded log. Clones are handles to the same one and may be used from any thread.
#[derive(Clone, Debug)]
pub struct SharedLog {
    inner: Arc<Inner>,
}

impl Engine {
    /// Opens an embedded log, creating it if there is none. What it holds is durable on return.
    ///
    /// # Errors
    /// [`EmbeddedError::Log`], [`EmbeddedError::Checkpoint`].
    ///
    /// # Panics
    /// If the engine was opened under consensus.
    pub fn open_shared(
        self: &Arc<Self>,
        log: LogId,
        config: LogConfig,
    ) -> Result<(SharedLog, LogRecovery), EmbeddedError> {
        self.core.tally.asked_for(1);
        self.open_shared_counted(log, config)
    }

    /// The same, of a log that is counted as asked for.
    pub(crate) fn open_shared_counted(
        self: &Arc<Self>,
        log: LogId,
        config: LogConfig,
    ) -> Result<(SharedLog, LogRecovery), EmbeddedError> {
        assert_eq!(self.core.mode, crate::Mode::Embedded, "an embedded log in an engine under consensus");
        let known = {
            let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            self.load_starts(&mut starts).inspect_err(|_| self.core.tally.log_done(0))?;
            starts.logs.get(&log).cloned()
        };
        let (writer, recovery) = self.open_embedded(log, config, known.as_ref().map(|known| &known.state))?;
        if let Some(known) = &known {
            writer.restore_damage(&known.damage);
        }
        let reader = writer.reader();
        let state = Mutex::new(State { writer, syncing: false, until_look: 0 });
        let inner = Inner { engine: Arc::clone(self), state, synced: Condvar::new(), reader };
        Ok((SharedLog { inner: Arc::new(inner) }, recovery))
    }

    fn load_starts(&self, starts: &mut Starts) -> Result<(), CheckpointError> {
        if !starts.loaded {
            if let Some(loaded) = self.load_checkpoint(GroupId::META)? {
                starts.index = loaded.newest.applied.index.get();
                starts.logs = loaded.newest.logs.into_iter().map(|log| (log.log, log)).collect();
            }
            starts.loaded = true;
        }
        Ok(())
    }

    fn record_start(&self, log: LogCheckpoint) -> Result<(), CheckpointError> {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        self.load_starts(&mut starts)?;
        starts.logs.insert(log.log, log);
        self.write_starts(&mut starts)
    }

    /// Records that a log has no start any more, in every checkpoint that is kept: none names its files then.
    ///
    /// If that fails it is said so in the log, and the files stay until starts are recorded again.
    pub(crate) fn forget_start(&self, log: LogId) {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = self.load_starts(&mut starts).and_then(|()| {
            let known = starts.logs.remove(&log).is_some();
            (0..if known { KEPT } else { 0 }).try_for_each(|_| self.write_starts(&mut starts))
        });
        if let Err(error) = forgotten {
            tracing::warn!(%log, %error, "cannot record that a log was removed; its files stay for now");
        }
    }

    fn write_starts(&self, starts: &mut Starts) -> Result<(), CheckpointError> {
        starts.index = starts.index.saturating_add(1);
        let entry = EntryId { index: RaftIndex(starts.index), term: Term::ZERO };
        self.write_checkpoint(&Checkpoint {
            group: GroupId::META,
            applied: entry,
            last_durable: entry,
            apply_version: 1,
            voters: Vec::new(),
            learners: Vec::new(),
            replicas: Vec::new(),
            logs: starts.logs.values().cloned().collect(),
            state: Bytes::new(),
        })
    }
}

impl SharedLog {
    /// Appends `batch` at the time `now` and returns once it is durable. One sync serves all threads
    /// that wait.
    ///
    /// # Errors
    /// - [`EmbeddedError::Append`]: see [`AppendError`]; the batch is not in the log.
    /// - [`EmbeddedError::Sync`]: the batch was written and may or may not be there after the next
    ///   recovery. The log is fenced.
    pub fn append_durable(&self, batch: &Batch, now: TimestampMs) -> Result<Appended, EmbeddedError> {
        let mut state = self.state();
        let appended = self.write(&mut state, batch, now)?;
        self.wait_durable(state, appended.last_offset.plus(1))?;
        Ok(appended)
    }

    /// Appends `batch` without waiting. It is durable, and readers see it, after [`SharedLog::sync`].
    ///
    /// # Errors
    /// [`EmbeddedError::Append`].
    pub fn append(&self, batch: &Batch, now: TimestampMs) -> Result<Appended, EmbeddedError> {
        self.write(&mut self.state(), batch, now)
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// [`EmbeddedError::Sync`]: the log is fenced.
    pub fn sync(&self) -> Result<(), EmbeddedError> {
        let state = self.state();
        let end = state.writer.state().end;
        self.wait_durable(state, end)
    }

    /// To be called when nothing was appended for a while (100 ms, say) and before the log is left:
    /// makes everything durable and writes a mark that witnesses it. Does nothing if that is done.
    ///
    /// # Errors
    /// As [`SharedLog::append_durable`].
    pub fn idle(&self) -> Result<(), EmbeddedError> {
        self.sync()?;
        let mut state = self.state();
        if state.writer.write_mark()? {
            let job = state.writer.sync_target();
            drop(state);
            job.run()?;
        }
        Ok(())
    }

    /// Raises the log start to `to`, durably, and gives the space of whole segments back.
    ///
    /// # Errors
    /// [`EmbeddedError::Log`] if `to` lies outside the log, [`EmbeddedError::Checkpoint`],
    /// [`EmbeddedError::Sync`]. Nothing was removed.
    pub fn trim(&self, to: Offset) -> Result<(), EmbeddedError> {
        self.sync()?;
        let mut state = self.state();
        // What was appended since then would get into the checkpoint, which must not know more than
        // the disk. With the lock held nothing more comes.
        if self.inner.reader.durable_end() < state.writer.state().end {
            state.writer.sync_target().run()?;
        }
        let mut standing = state.writer.state();
        if to > standing.end {
            let (asked, start, end) = (to, standing.start, standing.end);
            return Err(LogError::OutOfRange { log: state.writer.log(), asked, start, end }.into());
        }
        standing.start = standing.start.max(to);
        self.inner.engine.record_start(LogCheckpoint {
            log: state.writer.log(),
            config: state.writer.config(),
            state: standing,
            producers: ProducerTable::new(),
            damage: state.writer.damage(),
            closed: false,
        })?;
        state.writer.set_log_start(to)?;
        Ok(())
    }

    /// A handle for reading what is durable.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.inner.reader.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &mut State, batch: &Batch, now: TimestampMs) -> Result<Appended, EmbeddedError> {
        let bytes = batch.bytes().len();
        match state.until_look.checked_sub(bytes) {
            Some(left) => state.until_look = left,
            None => {
                if self.inner.engine.room().refuses_writes {
                    let path = self.inner.engine.dir().to_path_buf();
                    return Err(AppendError::DiskFull { path }.into());
                }
                state.until_look = LOOK_EVERY_BYTES;
            }
        }
        let stamp =
            AppendStamp { raft_index: RaftIndex::ZERO, append_time: now, leader_epoch: LeaderEpoch::ZERO };
        let appended = state.writer.append(batch, stamp);
        if appended.is_err() {
            state.until_look = 0;
        }
        Ok(appended?)
    }

    /// Waits until everything below `end` is durable, syncing if nobody else does.
    fn wait_durable(&self, state: MutexGuard<'_, State>, end: Offset) -> Result<(), EmbeddedError> {
        let mut state = state;
        loop {
            if self.inner.reader.durable_end() >= end {
                return Ok(());
            }
            if state.syncing {
                state = self.inner.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let job = state.writer.sync_target();
            drop(state);
            let outcome = job.run();
            state = self.state();
            state.syncing = false;
            self.inner.synced.notify_all();
            outcome?;
        }
    }
}
