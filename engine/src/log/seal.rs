//! The end of a segment: zeros ahead of it, a mark behind it, and the seal that closes it.
//!
//! All three are functions of the frames, so each may be repeated after any crash.

use std::io;

use super::error::AppendError;
use super::plan;
use super::reader::Visible;
use super::writer::{LogWriter, is_full};
use crate::core::Mode;
use crate::fields::wide;
use crate::locks::Arc;
use crate::segment::frame::FRAME_HEADER_BYTES;
use crate::segment::state::{SegmentEvent, SegmentState};
use crate::segment::summary::FIRST_FRAME;
use crate::storage::Position;

/// Embedded logs are filled with zeros as far ahead as frames lie behind, within these bounds. The file of
/// a log that is hardly used stays small, and in a busy one few appends pay for the zeros of many.
const PREFILL_BYTES_MIN: u64 = 64 << 10;
const PREFILL_BYTES_MAX: u64 = 8 << 20;

impl LogWriter {
    /// Keeps zeros ahead of the last frame, so that a sync need not write the file's length. To be called
    /// before a sync, which then covers the zeros too if there are new ones: there are if the last append
    /// ran past those that were there, and then that sync has a new length to write in any case.
    pub(crate) fn prefill_ahead(&mut self) -> Result<(), AppendError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let end = active.position.get();
        if active.prefilled_to >= end || active.header.is_some() {
            return Ok(());
        }
        let bytes = end.clamp(PREFILL_BYTES_MIN, PREFILL_BYTES_MAX);
        // What lies beyond the segment's size is cut off by its seal.
        let bytes = bytes.min(self.config.segment_bytes.saturating_sub(end));
        match active.file.prefill(active.position, bytes) {
            Ok(()) => active.prefilled_to = end.saturating_add(bytes),
            // The frames themselves are written; the next append says that the disk is full.
            Err(error) if is_full(&error) => active.prefilled_to = end,
            Err(error) => {
                let path = active.segment.path();
                return Err(self.fenced(&path, "prefill", error));
            }
        }
        Ok(())
    }

    /// Ends the active segment with index and footer. The next append begins another one.
    ///
    /// Under consensus nothing is synced here: the checkpoint's [`SyncJob`](super::sync::SyncJob) does that, and above the
    /// checkpoint recovery believes no footer. Embedded, the frames are durable before the footer is
    /// written and the footer before the successor exists.
    pub(crate) fn roll(&mut self) -> Result<(), AppendError> {
        let Some(active) = &self.active else { return Ok(()) };
        if active.position <= FIRST_FRAME {
            return Ok(());
        }
        let path = active.segment.path();
        let embedded = self.shared.core.mode == Mode::Embedded;
        let syncing = embedded.then(|| self.shared.syncing());
        self.shared.takes_writes()?;
        if embedded {
            active.file.sync().map_err(|error| self.fenced(&path, "sync", error))?;
        }
        let (bytes, sealed_len, newest) = self
            .shared
            .with_summary(&active.segment, active.file.as_ref(), |summary| {
                (summary.seal_bytes(self.shared.tag), summary.sealed_len(), summary.max_timestamp)
            })
            .map_err(|error| self.fenced(&path, "sum up", io::Error::other(error)))?;
        self.put(active, active.position, &[&bytes])?;
        let len = active.file.len().map_err(|error| self.fenced(&path, "size", error))?;
        if len > sealed_len {
            active.file.truncate(sealed_len).map_err(|error| self.fenced(&path, "cut to size", error))?;
        }
        if embedded {
            active.file.sync().map_err(|error| self.fenced(&path, "sync the seal", error))?;
            // Its name too: a successor whose name outlives this one would make it look lost.
            self.shared
                .sync_dir()
                .map_err(|error| self.fenced(&self.shared.path, "sync the directory", error))?;
        }
        let mut facts = active.segment.facts();
        // Under consensus a sync may have failed on another thread since the look above.
        if facts.state == SegmentState::Fenced {
            return Err(AppendError::Fenced { log: self.shared.id });
        }
        facts.max_timestamp = Some(newest);
        facts.apply(SegmentEvent::Filled);
        facts.writes = facts.writes.wrapping_add(1);
        facts.unsynced = Some(Arc::clone(&active.file));
        if embedded {
            facts.apply(SegmentEvent::Synced);
            facts.unsynced = None;
            facts.synced_to = facts.end_position;
            facts.summary = None;
        }
        let end = facts.end;
        drop(facts);
        self.active = None;
        if embedded {
            let mut view = self.shared.view();
            view.durable_end = view.durable_end.max(end);
        }
        drop(syncing);
        if embedded {
            self.shared.watch.advanced(Visible::Durable, end);
        }
        Ok(())
    }

    /// Writes a mark behind the last frame: a witness that everything before it is durable. Says
    /// whether one was written; none is if there is nothing to witness, or something is not durable.
    pub(crate) fn write_mark(&mut self) -> Result<bool, AppendError> {
        self.shared.takes_writes()?;
        let place = self.place();
        let Some(active) = &self.active else { return Ok(false) };
        if active.header.is_some() || active.marked || place.synced_to < active.position {
            return Ok(false);
        }
        self.put(active, active.position, &[&plan::mark(&place).encode()])?;
        let Some(active) = &mut self.active else { return Ok(false) };
        active.position = Position(active.position.get().saturating_add(wide(FRAME_HEADER_BYTES)));
        active.marked = true;
        let mut facts = active.segment.facts();
        facts.end_position = active.position;
        facts.unsynced = Some(Arc::clone(&active.file));
        facts.writes = facts.writes.wrapping_add(1);
        if let Some(summary) = &mut facts.summary {
            summary.add_mark(active.position, place.end, place.chain);
        }
        Ok(true)
    }
}
