//! Embedded logs: many threads append, one write and one sync serve all that wait.
//!
//! 1. A durable append joins the queue of `crate::embedded::group_commit`. Whoever leads writes the whole group
//!    with one call under the log's lock, and syncs off the lock.
//! 2. Where the group ran past the zeros ahead of the frames, the leader writes more before it syncs: the
//!    sync that has to write the file's new length anyway covers them, and those to come write data only.
//!    An append that nobody waits for leaves no zeros.
//! 3. A failed sync fences the log. Everyone who waits is told, and it is never tried again.
//!
//! There is no clock here: append times come from the caller, and so does the word that the log is
//! idle, upon which a mark is written so that damage to the last group can be told from a torn tail.
//!
//! Where a log starts lies in checkpoints of group 0: see `starts`.

pub(crate) mod group_commit;
pub(crate) mod starts;

use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{LeaderEpoch, LogId, Offset, RaftIndex, TimestampMs};

use crate::checkpoint::{CheckpointError, LogCheckpoint, LogConfig};
use crate::embedded::group_commit::{Group, Queue, Wish};
use crate::engine::Engine;
use crate::locks::{Arc, Mutex, MutexGuard, PoisonError};
use crate::log::shared::LogShared;
use crate::log::{
    AppendError, AppendManyError, AppendStamp, Appended, LogError, LogReader, LogRecovery, LogWriter,
    SyncError,
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
    /// What was written is not known to be durable. The log is fenced, unless the error says that it will pass.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The log could not be changed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The new log start could not be recorded; nothing was removed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

#[derive(Debug)]
struct State {
    writer: LogWriter,
    until_look: usize,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    state: Mutex<State>,
    queue: Queue,
    reader: LogReader,
    /// Held by a trim. Taken before `state`.
    trimming: Mutex<()>,
}

/// An embedded log. Clones are handles to the same one and may be used from any thread.
#[derive(Clone, Debug)]
pub struct SharedLog {
    inner: Arc<Inner>,
}

/// Fences a log if it is dropped by a panic.
struct FencesOnPanic<'a>(&'a LogShared);

impl Drop for FencesOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fence();
        }
    }
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
        self.starts_are_known().inspect_err(|_| self.core.tally.log_done(0))?;
        // Damage that a checkpoint knows is looked for again: what the disk refused it may give now, and
        // what is broken does not verify.
        let (mut writer, recovery) = self.open_embedded(log, config, || self.known_start(log))?;
        self.witness_known_end(&mut writer, &recovery);
        self.record_damage(&writer, &recovery)?;
        let reader = writer.reader();
        let state = Mutex::new(State { writer, until_look: 0 });
        let queue = Queue::new(log, Arc::clone(&reader.shared.path));
        let inner = Inner { engine: Arc::clone(self), state, queue, reader, trimming: Mutex::default() };
        Ok((SharedLog { inner: Arc::new(inner) }, recovery))
    }
}

impl SharedLog {
    /// Appends `batch` at the time `now` and returns once it is durable. One sync serves all threads
    /// that wait.
    ///
    /// # Errors
    /// - [`EmbeddedError::Append`]: see [`AppendError`]; the batch is not in the log, except after
    ///   [`AppendError::Io`]: then it may or may not be there after the next recovery, and the log is fenced.
    /// - [`EmbeddedError::Sync`]: the batch may have been written and may or may not be there after the next
    ///   recovery. The log is fenced, but after [`SyncError::NotYet`]: then the batch is in the log, and the next sync
    ///   makes it durable. To append it again would make two of it.
    pub fn append_durable(&self, batch: &Batch, now: TimestampMs) -> Result<Appended, EmbeddedError> {
        let log = self.inner.reader.log();
        let outcome = self.inner.queue.wish(Some((batch, now)), |group| self.commit(group));
        self.tell_waiting();
        let outcome = outcome?;
        // A wish with a batch is answered with where it stands, or with an error.
        outcome.ok_or(AppendError::Fenced { log }.into())
    }

    /// Appends `batch` without waiting. It is durable, and readers see it, after [`SharedLog::sync`].
    ///
    /// # Errors
    /// [`EmbeddedError::Append`].
    pub fn append(&self, batch: &Batch, now: TimestampMs) -> Result<Appended, EmbeddedError> {
        let appended = {
            let mut state = self.state();
            let _fencing = self.fences_on_panic();
            self.write(&mut state, batch, now)
        };
        self.tell_waiting();
        appended
    }

    /// Appends several batches in order, with one write for all that go into the same segment, and without
    /// waiting: see [`SharedLog::append`].
    ///
    /// # Errors
    /// As [`LogWriter::append_many`]: for the first batch that was not appended; those before it were.
    pub fn append_many(&self, batches: &[Batch], now: TimestampMs) -> Result<Vec<Appended>, AppendManyError> {
        let appended = self.write_all(batches, now);
        self.tell_waiting();
        appended
    }

    fn write_all(&self, batches: &[Batch], now: TimestampMs) -> Result<Vec<Appended>, AppendManyError> {
        let mut state = self.state();
        let _fencing = self.fences_on_panic();
        let bytes = batches.iter().map(|batch| batch.bytes().len()).sum();
        self.look(&mut state, bytes).map_err(|error| AppendManyError { done: Vec::new(), error })?;
        let stamped: Vec<_> = batches.iter().map(|batch| (batch, stamp(now))).collect();
        let appended = state.writer.append_many(&stamped);
        if appended.is_err() {
            state.until_look = 0;
        }
        appended
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// [`EmbeddedError::Sync`]: the log is fenced, but after [`SyncError::NotYet`]: try again.
    pub fn sync(&self) -> Result<(), EmbeddedError> {
        let synced = self.make_durable();
        self.tell_waiting();
        synced
    }

    fn make_durable(&self) -> Result<(), EmbeddedError> {
        let end = self.inner.reader.end_and_chain().0;
        if self.inner.reader.durable_end() < end {
            self.inner.queue.wish(None, |group| self.commit(group))?;
        }
        Ok(())
    }

    /// To be called when nothing was appended for a while (100 ms, say) and before the log is left:
    /// makes everything durable and writes a mark that witnesses it. Does nothing if that is done.
    ///
    /// # Errors
    /// As [`SharedLog::append_durable`].
    pub fn idle(&self) -> Result<(), EmbeddedError> {
        let marked = self.mark_end();
        self.tell_waiting();
        let core = &self.inner.engine.core;
        core.room.take_back(core);
        marked
    }

    fn mark_end(&self) -> Result<(), EmbeddedError> {
        self.make_durable()?;
        let mut state = self.state();
        let _fencing = self.fences_on_panic();
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
        let trimmed = self.raise_start(to);
        self.tell_waiting();
        let core = &self.inner.engine.core;
        core.unlink_unnamed();
        core.room.take_back(core);
        trimmed
    }

    fn raise_start(&self, to: Offset) -> Result<(), EmbeddedError> {
        // One after the other, or a start that was recorded would be recorded lower again.
        let trimming = self.inner.trimming.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_durable()?;
        // Appends go on while this is recorded, which syncs.
        let known = self.known_with_start(to)?;
        self.inner.engine.record_start(known)?;
        let mut state = self.state();
        let _fencing = self.fences_on_panic();
        state.writer.raise_start(to)?;
        drop((state, trimming));
        Ok(())
    }

    /// What is to be recorded of a log whose start is raised to `to`. Of a purge the next file is there then.
    fn known_with_start(&self, to: Offset) -> Result<LogCheckpoint, EmbeddedError> {
        let mut state = self.state();
        let _fencing = self.fences_on_panic();
        // What was appended since the sync would get into the checkpoint, which must not know more than
        // the disk. With the lock held nothing more comes.
        if self.inner.reader.durable_end() < state.writer.state().end {
            state.writer.sync_target().run()?;
        }
        let mut standing = state.writer.state();
        if to > standing.end {
            let (asked, start, end) = (to, standing.start, standing.end);
            return Err(LogError::OutOfRange { log: state.writer.log(), asked, start, end }.into());
        }
        if to == standing.end && to > standing.start {
            // Now, since it may fail, and a start that was recorded stands.
            let rolled = state.writer.roll().and_then(|()| state.writer.witness_end());
            rolled.map_err(|error| state.writer.as_log_error(error))?;
            standing = state.writer.state();
        }
        standing.start = standing.start.max(to);
        Ok(LogCheckpoint {
            log: state.writer.log(),
            config: state.writer.config(),
            state: standing,
            producers: ProducerTable::new(),
            damage: state.writer.damage(),
            closed: false,
        })
    }

    /// A handle for reading what is durable.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        self.inner.reader.clone()
    }

    /// Tells those who wait for what a call has made visible: its last act, outside all locks.
    fn tell_waiting(&self) {
        self.inner.reader.shared.watch.deliver();
    }

    /// To be held inside the log's lock: what a panic leaves half changed is not written to any more.
    fn fences_on_panic(&self) -> FencesOnPanic<'_> {
        FencesOnPanic(&self.inner.reader.shared)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, state: &mut State, batch: &Batch, now: TimestampMs) -> Result<Appended, EmbeddedError> {
        self.look(state, batch.bytes().len())?;
        let appended = state.writer.append(batch, stamp(now));
        if appended.is_err() {
            state.until_look = 0;
        }
        Ok(appended?)
    }

    /// Looks now and then whether the disk has room for appends; each time if the reserve is not there, which
    /// is not for them. Taking it again is not for them either, if there is room for both.
    fn look(&self, state: &mut State, bytes: usize) -> Result<(), AppendError> {
        let core = &self.inner.engine.core;
        let held = core.room.holds();
        match state.until_look.checked_sub(bytes).filter(|_| held) {
            Some(left) => state.until_look = left,
            None => {
                // A fenced log says that it is, whatever room there is.
                if !state.writer.is_fenced() && core.room.look_for_append(core).refuses_writes {
                    return Err(AppendError::DiskFull { path: self.inner.engine.dir().to_path_buf() });
                }
                state.until_look = LOOK_EVERY_BYTES;
            }
        }
        Ok(())
    }

    /// Makes a group durable, and says to each of it what became of its batch.
    fn commit(&self, group: &mut Group<'_>) {
        let mut state = self.state();
        let _fencing = self.fences_on_panic();
        self.write_group(&mut state, &mut group.wishes);
        let zeros = state.writer.prefill_ahead();
        let job = state.writer.sync_target();
        drop(state);
        let mut failed = match zeros {
            Ok(()) if job.is_empty() => None,
            Ok(()) => job.run().err().map(EmbeddedError::from),
            // The frames were written before.
            Err(AppendError::Io { path, action, source }) => {
                Some(SyncError::Failed { path, action, source }.into())
            }
            Err(_) => Some(self.inner.queue.unknown()),
        };
        let any_failed = failed.is_some();
        let for_others =
            if let Some(EmbeddedError::Sync(error)) = &failed { error.for_another() } else { None };
        for wish in &mut group.wishes {
            if any_failed && wish.outcome.as_ref().is_none_or(Result::is_ok) {
                let for_others =
                    || for_others.as_ref().and_then(SyncError::for_another).map(EmbeddedError::from);
                let told = failed.take().or_else(for_others).unwrap_or_else(|| self.inner.queue.unknown());
                wish.outcome = Some(Err(told));
            }
            wish.outcome.get_or_insert(Ok(None));
        }
    }

    /// Writes the batches of a group in order, with as few calls as there are failures in it and one more.
    fn write_group(&self, state: &mut State, wishes: &mut [Wish]) {
        let bytes =
            wishes.iter().filter_map(|wish| wish.batch.as_ref()).map(|(batch, _)| batch.bytes().len());
        let room = self.look(state, bytes.sum());
        if let (Ok(()), [Wish { batch: Some((batch, now)), outcome, .. }]) = (&room, &mut *wishes) {
            *outcome = Some(state.writer.append(batch, stamp(*now)).map(Some).map_err(EmbeddedError::from));
        } else if let Err(AppendError::DiskFull { path }) = &room {
            for wish in wishes.iter_mut().filter(|wish| wish.batch.is_some()) {
                wish.outcome = Some(Err(AppendError::DiskFull { path: path.clone() }.into()));
            }
        } else {
            write_many(&mut state.writer, wishes, &self.inner.queue);
        }
        if wishes.iter().any(|wish| wish.outcome.as_ref().is_some_and(Result::is_err)) {
            state.until_look = 0;
        }
    }
}

/// Appends what the wishes carry, with one call up to the first that fails, and so on behind it. Behind a write
/// that failed there is no going on: it was one for many, and how much of it is there nobody knows.
fn write_many(writer: &mut LogWriter, wishes: &mut [Wish], queue: &Queue) {
    let mut rest = wishes;
    loop {
        let batches = rest.iter().filter_map(|wish| wish.batch.as_ref());
        let batches: Vec<_> = batches.map(|(batch, now)| (batch, stamp(*now))).collect();
        if batches.is_empty() {
            return;
        }
        let (done, error) = match writer.append_many(&batches) {
            Ok(done) => (done, None),
            Err(AppendManyError { done, error }) => (done, Some(error)),
        };
        let unknown = matches!(error, Some(AppendError::Io { .. }));
        let failed = error.map(|error| Err(EmbeddedError::from(error)));
        let mut outcomes = done.into_iter().map(|appended| Ok(Some(appended))).chain(failed);
        let mut answered = 0_usize;
        for wish in rest.iter_mut() {
            if wish.batch.is_some() {
                wish.outcome = outcomes.next().or_else(|| unknown.then(|| Err(queue.unknown())));
                if wish.outcome.is_none() {
                    break;
                }
            }
            answered = answered.saturating_add(1);
        }
        rest = std::mem::take(&mut rest).get_mut(answered..).unwrap_or_default();
    }
}

fn stamp(now: TimestampMs) -> AppendStamp {
    AppendStamp { raft_index: RaftIndex::ZERO, append_time: now, leader_epoch: LeaderEpoch::ZERO }
}

#[cfg(test)]
mod tests;
