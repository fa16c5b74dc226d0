//! The one writer of a log.
//!
//! An append plans its frames, gathers those that go into one segment and writes them with one call.
//! Only when the write succeeded does anything change that readers see. If the disk is full the file
//! is cut back to where it was and the same batches may be tried again; any other failure fences.
//!
//! After a restart under consensus the entries above the checkpoint are applied again. Frames that
//! are there already are compared and not written: see `replay`.

use std::io;
use std::ops::Range;
use std::path::Path;

use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{LeaderEpoch, LogId, Offset, TimestampMs};

use super::error::{
    AppendError, AppendManyError, LogError, OutOfHandles, ReadError, is_full, is_out_of_handles,
};
use super::plan::{self, Place, Planned};
use super::reader::{LogReader, Visible};
use super::replay::Replay;
use super::shared::{LogShared, Segment, SegmentFacts};
use super::sync::SyncJob;
use super::{AppendStamp, Appended};
use crate::checkpoint::{LogConfig, LogState};
use crate::core::Mode;
use crate::locks::Arc;
use crate::segment::frame::FRAME_BYTES_MAX;
use crate::segment::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::segment::state::SegmentState;
use crate::segment::summary::{FIRST_FRAME, Summary};
use crate::segment::{self};
use crate::storage::{File, OpenMode, Position, create_dir_durably};

/// Frames for which a writer keeps the room it planned them in.
const PLANNED_KEPT: usize = 16;

/// Bytes read at once where damage is looked at again.
const RESTORE_BYTES: usize = 1 << 20;

/// The segment that takes appends.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) file: Arc<dyn File>,
    /// End of its last frame.
    pub(crate) position: Position,
    /// The header, until it is written together with the first frame.
    pub(crate) header: Option<[u8; SEGMENT_HEADER_BYTES]>,
    /// Zeros were written up to here (embedded).
    pub(crate) prefilled_to: u64,
    /// The last frame is a mark (embedded).
    pub(crate) marked: bool,
}

/// Appends to a log. There is one per log at a time; dropping it closes the log to appends.
#[derive(Debug)]
pub struct LogWriter {
    pub(crate) shared: Arc<LogShared>,
    pub(crate) config: LogConfig,
    pub(crate) active: Option<Active>,
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(crate) append_time: TimestampMs,
    pub(crate) replay: Replay,
    /// The log's directory is there, durably.
    pub(crate) dir_made: bool,
    /// Room for what an append plans and answers, used again so that an append allocates nothing.
    pub(crate) planned: Vec<Planned>,
    pub(crate) done: Vec<Appended>,
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.shared.core.lives.closed(&self.shared);
        if self.shared.is_removed() {
            // Its removal left the directories, in which a writer may be about to make a file.
            self.shared.core.remove_empty_dirs(self.shared.id);
        }
    }
}

impl LogWriter {
    /// Appends `batch` and returns the offsets and the chain it got.
    ///
    /// On return the batch is written and visible to readers, but **not durable**: see
    /// [`LogWriter::sync_target`]. If a frame of an earlier run lies there already and is the same,
    /// nothing is written.
    ///
    /// # Errors
    /// - [`AppendError::Fenced`], [`AppendError::Io`]: reopen and recover first.
    /// - [`AppendError::DiskFull`], [`AppendError::OutOfHandles`]: nothing was written; try the same batch again later.
    /// - [`AppendError::TooLarge`], [`AppendError::Removed`]: nothing was written.
    ///
    /// # Invariants
    /// `start <= durable_end <= end`; `end` never falls.
    pub fn append(&mut self, batch: &Batch, stamp: AppendStamp) -> Result<Appended, AppendError> {
        let mut done = std::mem::take(&mut self.done);
        let outcome = self.append_all(&[(batch, stamp)], &mut done);
        let appended = done.pop();
        self.done = done;
        outcome?;
        // One batch in, one answer out: `append_all` either fails or answers each.
        appended.ok_or(AppendError::Fenced { log: self.shared.id })
    }

    /// Appends several batches, in order, with one write for all that go into the same segment.
    ///
    /// # Errors
    /// As [`LogWriter::append`], for the first batch that was not appended; those before it were.
    pub fn append_many(
        &mut self,
        batches: &[(&Batch, AppendStamp)],
    ) -> Result<Vec<Appended>, AppendManyError> {
        let mut done = Vec::with_capacity(batches.len());
        match self.append_all(batches, &mut done) {
            Ok(()) => Ok(done),
            Err(error) => Err(AppendManyError { done, error }),
        }
    }

    /// Whether an earlier write or sync failed: every append is refused until the log is opened again.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.shared.is_fenced()
    }

    /// Which log.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.shared.id
    }

    /// What was fixed when the log was opened.
    #[must_use]
    pub const fn config(&self) -> LogConfig {
        self.config
    }

    /// Where the log stands: for a checkpoint, together with a [`LogWriter::sync_target`] that was
    /// made at the same moment and has run.
    #[must_use]
    pub fn state(&self) -> LogState {
        let view = self.shared.view();
        let (active_base, active_position) = match &self.active {
            // One of a header only holds nothing that a checkpoint could name.
            Some(active) if active.position > FIRST_FRAME => (active.segment.base, active.position),
            Some(_) | None => (view.end, Position::ZERO),
        };
        LogState {
            start: view.start,
            end: view.end,
            active_base,
            active_position,
            chain: view.chain,
            epochs: self.epochs.clone(),
            append_time: self.append_time,
        }
    }

    /// How many segment files the log has.
    pub(crate) fn segments(&self) -> usize {
        self.shared.view().segments.len()
    }

    /// The ranges known to be damaged on this node.
    #[must_use]
    pub fn damage(&self) -> Vec<Range<Offset>> {
        self.shared.damage()
    }

    /// Marks ranges that a checkpoint says are damaged, but for what reads well now: it may have been mended
    /// while the log was not open. Reads as much as is marked.
    pub fn restore_damage(&self, ranges: &[Range<Offset>]) {
        let reader = LogReader { shared: Arc::clone(&self.shared), visible: Visible::Appended };
        for range in ranges {
            let mut at = range.start.max(reader.start());
            while at < range.end {
                let next = match reader.read(at, RESTORE_BYTES) {
                    Ok(read) => read.next,
                    Err(ReadError::Damaged { range: found, .. }) => {
                        self.shared.mark_damaged(at..found.end.min(range.end));
                        found.end
                    }
                    Err(_) => at,
                };
                if next <= at {
                    self.shared.mark_damaged(at..range.end);
                    break;
                }
                at = next;
            }
        }
    }

    /// A handle for reading. Under consensus it sees everything appended, embedded what is durable.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        let visible = match self.shared.core.mode {
            Mode::Consensus => Visible::Appended,
            Mode::Embedded => Visible::Durable,
        };
        LogReader { shared: Arc::clone(&self.shared), visible }
    }

    /// Frames of an earlier run that have not been compared yet.
    #[must_use]
    pub fn replay_pending(&self) -> usize {
        self.replay.len()
    }

    /// A job that makes durable what has been written until now. It may run on any thread.
    pub fn sync_target(&self) -> SyncJob {
        SyncJob::new(Arc::clone(&self.shared))
    }

    fn append_all(
        &mut self,
        batches: &[(&Batch, AppendStamp)],
        done: &mut Vec<Appended>,
    ) -> Result<(), AppendError> {
        self.shared.takes_writes()?;
        let mut group = std::mem::take(&mut self.planned);
        group.reserve(batches.len());
        let outcome = self.append_planned(batches, &mut group, done);
        group.clear();
        if group.capacity() <= PLANNED_KEPT {
            self.planned = group;
        }
        outcome
    }

    /// Plans each batch into `group`, and writes the group wherever a segment ends.
    fn append_planned(
        &mut self,
        batches: &[(&Batch, AppendStamp)],
        group: &mut Vec<Planned>,
        done: &mut Vec<Appended>,
    ) -> Result<(), AppendError> {
        let mut place = self.place();
        for (batch, stamp) in batches {
            let bytes = plan::frame_bytes(batch);
            if bytes > FRAME_BYTES_MAX {
                self.flush(group, done)?;
                return Err(AppendError::TooLarge { log: self.shared.id, bytes, max: FRAME_BYTES_MAX });
            }
            if place.position > FIRST_FRAME
                && place.position.get().saturating_add(bytes) > self.config.segment_bytes
            {
                self.flush(group, done)?;
                self.roll()?;
                place = self.place();
            }
            if self.active.is_none() {
                self.begin(&place, stamp.append_time.max(place.append_time))?;
                place.position = FIRST_FRAME;
            }
            let planned = plan::frame(&place, batch, stamp);
            place.position = planned.end();
            place.end = planned.batch.end();
            place.chain = planned.header.chain;
            place.append_time = planned.header.append_time;
            group.push(planned);
        }
        self.flush(group, done)
    }

    /// Where the next frame goes; position 0 if there is no active segment.
    pub(crate) fn place(&self) -> Place {
        let view = self.shared.view();
        let position = self.active.as_ref().map_or(Position::ZERO, |active| active.position);
        let synced_to = match (self.shared.core.mode, &self.active) {
            (Mode::Embedded, Some(active)) => active.segment.facts().synced_to.min(active.position),
            // When this node synced is its own affair: the bytes are those of every replica.
            (Mode::Consensus, _) | (Mode::Embedded, None) => Position::ZERO,
        };
        Place {
            position,
            end: view.end,
            chain: view.chain,
            append_time: self.append_time,
            synced_to,
            tag: self.shared.tag,
        }
    }

    /// Begins the segment whose first offset is the log's end.
    pub(super) fn begin(&mut self, place: &Place, append_time: TimestampMs) -> Result<(), AppendError> {
        let base = place.end;
        let path = self.shared.path.join(segment::file_name(base));
        let storage = &self.shared.core.storage;
        let (file, header) = if self.replay.has_file(base) {
            let file = storage.open(&path, OpenMode::ReadWrite).map_err(|e| self.failed(&path, "open", e))?;
            (file, None)
        } else {
            let header = SegmentHeader {
                cluster: self.shared.core.identity.cluster,
                log: self.shared.id,
                base,
                chain_start: place.chain,
                append_time,
            };
            if !self.dir_made {
                let core = &self.shared.core;
                let make = || create_dir_durably(storage.as_ref(), &core.data_dir, &self.shared.path);
                core.with_reserve(make, is_full)
                    .map_err(|e| self.failed(&path, "make the directory of", e))?;
                self.dir_made = true;
            }
            let create = || storage.open(&path, OpenMode::CreateNew);
            let file = self.shared.core.with_reserve(create, is_full);
            let file = file.map_err(|e| self.failed(&path, "create", e))?;
            if self.shared.is_removed() {
                // Whoever removed the log may have listed its files before this one was there.
                if let Err(error) = storage.remove(&path) {
                    tracing::debug!(path = %path.display(), %error, "not unlinked here");
                }
                return Err(AppendError::Removed { log: self.shared.id });
            }
            self.shared.file_created();
            (file, Some(header.encode()))
        };
        let mut facts = SegmentFacts::known(SegmentState::Active, base, FIRST_FRAME, None);
        facts.summary = Some(Box::new(Summary::new(base, place.chain)));
        self.shared.core.open_files.close((self.shared.id, base));
        let segment = self.shared.view().segments.add(base, facts);
        self.active =
            Some(Active { segment, file, position: FIRST_FRAME, header, prefilled_to: 0, marked: false });
        Ok(())
    }

    /// Writes the planned frames and makes them visible.
    fn flush(&mut self, group: &mut Vec<Planned>, done: &mut Vec<Appended>) -> Result<(), AppendError> {
        let planned = group.as_slice();
        let mut known = 0;
        while !self.replay.is_empty() && known < planned.len() {
            let base = self.active.as_ref().map_or(Offset::ZERO, |active| active.segment.base);
            match planned.get(known) {
                Some(next) if self.replay.matches(base, next) => known = known.saturating_add(1),
                Some(next) => self.cut_replay(next.position)?,
                None => break,
            }
        }
        let (there, missing) = planned.split_at_checked(known).unwrap_or((&[], planned));
        self.commit(there, false, done);
        self.replay.settle(&self.shared);
        let written = if missing.is_empty() { Ok(()) } else { self.write(missing) };
        if written.is_ok() {
            self.commit(missing, true, done);
        }
        // Also if that failed: those that were there already can be read now.
        self.publish();
        group.clear();
        written
    }

    /// One gathered write of all frames, which belong into the active segment.
    fn write(&mut self, planned: &[Planned]) -> Result<(), AppendError> {
        let Some(active) = &self.active else { return Err(AppendError::Fenced { log: self.shared.id }) };
        let header = active.header;
        let (at, header) = match &header {
            Some(header) => (Position::ZERO, header.as_slice()),
            None => (active.position, [].as_slice()),
        };
        if let [one] = planned {
            return self.put(at, &[header, &one.head, &one.rest]);
        }
        let mut parts: Vec<&[u8]> = Vec::with_capacity(planned.len().saturating_mul(2).saturating_add(1));
        parts.push(header);
        for frame in planned {
            parts.push(&frame.head);
            parts.push(&frame.rest);
        }
        self.put(at, &parts)
    }

    /// Writes at the end of the active segment. If the disk is full the file is cut back to `at`.
    pub(super) fn put(&mut self, at: Position, parts: &[&[u8]]) -> Result<(), AppendError> {
        let Some(active) = &mut self.active else { return Err(AppendError::Fenced { log: self.shared.id }) };
        let core = &self.shared.core;
        let written = match active.file.ready() {
            Ok(()) => core.with_reserve(|| active.file.write_at(at, parts), is_full),
            Err(error) => {
                let path = active.segment.path();
                return Err(self.failed(&path, "open", error));
            }
        };
        let Err(error) = written else { return Ok(()) };
        let path = active.segment.path();
        if !is_full(&error) {
            return Err(self.fenced(&path, "write", error));
        }
        active.prefilled_to = at.get();
        match active.file.truncate(at.get()) {
            Ok(()) => Err(AppendError::DiskFull { path }),
            Err(error) => Err(self.fenced(&path, "cut back a full file", error)),
        }
    }

    /// Takes the frames into the summary and the view, as written just now or by an earlier run.
    fn commit(&mut self, planned: &[Planned], written: bool, done: &mut Vec<Appended>) {
        let Some(active) = &mut self.active else { return };
        let Some(last) = planned.last() else { return };
        active.position = last.end();
        active.header = None;
        active.marked = false;
        {
            let mut facts = active.segment.facts();
            for frame in planned {
                if let Some(summary) = &mut facts.summary {
                    summary.add(frame.position, frame.end(), &frame.batch, frame.header.chain);
                }
                done.push(frame.appended);
            }
            facts.end = last.batch.end();
            facts.end_position = last.end();
            if written {
                facts.unsynced = Some(Arc::clone(&active.file));
                facts.writes = facts.writes.wrapping_add(1);
            }
        }
        for frame in planned {
            if self.epochs.last().is_none_or(|(epoch, _)| *epoch < frame.batch.leader_epoch) {
                self.epochs.push((frame.batch.leader_epoch, frame.batch.base_offset));
            }
        }
        self.append_time = last.header.append_time;
        let mut view = self.shared.view();
        view.end = last.batch.end();
        view.chain = last.header.chain;
    }

    fn publish(&self) {
        let end = self.shared.view().end;
        self.shared.grown(Visible::Appended, end);
    }

    fn cut_replay(&mut self, position: Position) -> Result<(), AppendError> {
        let active =
            self.active.as_ref().map(|active| (Arc::clone(&active.segment), Arc::clone(&active.file)));
        // Here too, because it syncs a file that a job on another thread may be syncing.
        let syncing = self.shared.syncing();
        if self.shared.is_fenced() {
            return Err(AppendError::Fenced { log: self.shared.id });
        }
        let cut = self.replay.cut(&self.shared, active, position);
        let cut = cut.map_err(|error| match error {
            LogError::Quarantine(error) => AppendError::Quarantine(error),
            LogError::Io { path, action, source } => self.fenced(&path, action, source),
            LogError::OutOfHandles(error) => AppendError::OutOfHandles(error),
            LogError::DiskFull { path } => AppendError::DiskFull { path },
            LogError::UnknownFormat { .. }
            | LogError::ForeignCluster { .. }
            | LogError::AlreadyOpen { .. }
            | LogError::Fenced { .. }
            | LogError::OutOfRange { .. }
            | LogError::Staged { .. }
            | LogError::StagedHeader { .. }
            | LogError::StagedFrame { .. }
            | LogError::CannotServe { .. }
            | LogError::Removed { .. }
            | LogError::SegmentBytes { .. } => AppendError::Fenced { log: self.shared.id },
        });
        drop(syncing);
        cut
    }

    /// What to say of a failure that has changed nothing. One that will pass does not fence.
    pub(super) fn failed(&self, path: &Path, action: &'static str, source: io::Error) -> AppendError {
        if is_full(&source) {
            AppendError::DiskFull { path: path.to_path_buf() }
        } else if is_out_of_handles(&source) {
            AppendError::OutOfHandles(OutOfHandles { path: path.to_path_buf(), source })
        } else {
            self.fenced(path, action, source)
        }
    }

    /// What to say of a directory that was not synced. A sync that failed is not tried again, whatever it says: only if it
    /// was not even begun.
    pub(super) fn not_synced(&self, source: io::Error) -> AppendError {
        let path = &self.shared.path;
        if is_out_of_handles(&source) {
            AppendError::OutOfHandles(OutOfHandles { path: path.to_path_buf(), source })
        } else {
            self.fenced(path, "sync the directory", source)
        }
    }

    pub(crate) fn fenced(&self, path: &Path, action: &'static str, source: io::Error) -> AppendError {
        self.shared.fence();
        AppendError::Io { path: path.to_path_buf(), action, source }
    }
}
