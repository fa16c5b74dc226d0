//! The end of a segment: zeros ahead of it, a mark behind it, and the seal that closes it.
//!
//! All three are functions of the frames, so each may be repeated after any crash.
//!
//! A purge of an embedded log takes every frame. So it begins the next segment at once, of a header only: where the
//! log ends is in its own files then, whatever becomes of the checkpoints (`crate::embedded::starts`).

use std::io;

use tidelog_wire::ids::{Offset, TimestampMs};

use super::error::AppendError;
use super::error::is_full;
use super::locate::verified_summary;
use super::plan;
use super::reader::Visible;
use super::writer::{Active, LogWriter};
use crate::core::Mode;
use crate::fields::wide;
use crate::locks::Arc;
use crate::segment;
use crate::segment::frame::FRAME_HEADER_BYTES;
use crate::segment::salvage::is_refusal;
use crate::segment::state::{SegmentEvent, SegmentState};
use crate::segment::summary::{FIRST_FRAME, Summary};
use crate::segment::walk::Expected;
use crate::storage::Position;

/// Embedded logs are filled with zeros as far ahead as frames lie behind, within these bounds. The file of
/// a log that is hardly used stays small, and in a busy one few appends pay for the zeros of many.
const PREFILL_BYTES_MIN: u64 = 64 << 10;
const PREFILL_BYTES_MAX: u64 = 8 << 20;

/// What ends a segment.
struct Seal {
    /// Index and footer.
    bytes: Vec<u8>,
    /// Length of the file with them.
    sealed_len: u64,
    max_timestamp: TimestampMs,
}

impl LogWriter {
    /// Whether frames of so many bytes in all go into the active segment, of which the header is written: then to append them is
    /// to write, and neither makes a file nor syncs one.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.active.as_ref().is_some_and(|active| {
            active.header.is_none()
                && active.position.get().saturating_add(bytes) <= self.config.segment_bytes
        })
    }

    /// Keeps zeros ahead of the last frame, so that a sync need not write the file's length. To be called
    /// before a sync, which then covers the zeros too if there are new ones: there are if the last append
    /// ran past those that were there, and then that sync has a new length to write in any case.
    pub(crate) fn prefill_ahead(&mut self) -> Result<(), AppendError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let end = active.position.get();
        if active.prefilled_to >= end || active.header.is_some() {
            return Ok(());
        }
        // The room of the reserve is for what must go on.
        if !self.shared.core.room.holds() {
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
    /// If its frames do not all read and verify now, it ends without: the first look at it after a start seals it, or
    /// whoever wants its file ([`Engine::segment_files`](crate::Engine::segment_files)), once they do.
    ///
    /// Under consensus nothing is synced here: the checkpoint's [`SyncJob`](super::sync::SyncJob) does that, and above the
    /// checkpoint recovery believes no footer. Embedded, the frames are durable before the footer is
    /// written and the footer before the successor exists.
    pub(crate) fn roll(&mut self) -> Result<(), AppendError> {
        let Some(active) = &self.active else { return Ok(()) };
        if active.position <= FIRST_FRAME {
            return Ok(());
        }
        let (segment, file, position) =
            (Arc::clone(&active.segment), Arc::clone(&active.file), active.position);
        let path = segment.path();
        let embedded = self.shared.core.mode == Mode::Embedded;
        let shared = Arc::clone(&self.shared);
        let syncing = embedded.then(|| shared.syncing());
        self.shared.takes_writes()?;
        file.ready().map_err(|error| self.failed(&path, "open", error))?;
        if embedded {
            file.sync().map_err(|error| self.fenced(&path, "sync", error))?;
            // Its name too: a successor whose name outlives this one would make it look lost. Before the seal, so
            // that nothing has changed if there is no handle for the directory now.
            self.shared.sync_dir().map_err(|error| self.not_synced(error))?;
        }
        let seal = self.seal_of(active).map_err(|error| self.fenced(&path, "sum up", error))?;
        if let Some(seal) = &seal {
            self.put(position, &[&seal.bytes])?;
        }
        let sealed_len = seal.as_ref().map_or(position.get(), |seal| seal.sealed_len);
        let len = file.len().map_err(|error| self.fenced(&path, "size", error))?;
        if len > sealed_len {
            file.truncate(sealed_len).map_err(|error| self.fenced(&path, "cut to size", error))?;
        }
        if embedded {
            file.sync().map_err(|error| self.fenced(&path, "sync the seal", error))?;
        }
        let mut facts = segment.facts();
        // Under consensus a sync may have failed on another thread since the look above.
        if facts.state == SegmentState::Fenced {
            return Err(AppendError::Fenced { log: self.shared.id });
        }
        facts.max_timestamp = seal.map(|seal| seal.max_timestamp);
        facts.apply(SegmentEvent::Filled);
        facts.writes = facts.writes.wrapping_add(1);
        facts.unsynced = Some(file);
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
            self.shared.grown(Visible::Durable, end);
        }
        Ok(())
    }

    /// Whether a checkpoint alone says where the log ends: there is no file any more, or what it lost was the last of it.
    pub(crate) fn lacks_witness(&self) -> bool {
        let view = self.shared.view();
        let Some(last) = view.end.get().checked_sub(1) else { return false };
        self.active.is_none() && (view.segments.is_empty() || self.shared.damage_at(Offset(last)).is_some())
    }

    /// Makes the newest file of a log that has no active segment with frames say where it ends: one is there afterwards,
    /// durably, that begins at the end, if with a header only.
    pub(crate) fn witness_end(&mut self) -> Result<(), AppendError> {
        let shared = Arc::clone(&self.shared);
        let syncing = shared.syncing();
        shared.takes_writes()?;
        if self.active.is_none() {
            let place = self.place();
            self.begin(&place, place.append_time)?;
        }
        let Some(active) = self.active.as_ref().filter(|active| active.position <= FIRST_FRAME) else {
            return Ok(());
        };
        let (file, path, header) = (Arc::clone(&active.file), active.segment.path(), active.header);
        if let Some(header) = header {
            self.put(Position::ZERO, &[&header])?;
        }
        file.sync().map_err(|error| self.fenced(&path, "sync the header of", error))?;
        shared.sync_dir().map_err(|error| self.not_synced(error))?;
        if let Some(active) = &mut self.active {
            active.header = None;
        }
        drop(syncing);
        Ok(())
    }

    /// What seals the active segment. It is a function of verified frames: of a segment that was opened again
    /// they are all read. `None`: one of them does not verify, or the disk does not give it.
    fn seal_of(&self, active: &Active) -> io::Result<Option<Seal>> {
        let tag = self.shared.tag;
        let seal = |summary: &Summary| Seal {
            bytes: summary.seal_bytes(tag),
            sealed_len: summary.sealed_len(),
            max_timestamp: summary.max_timestamp,
        };
        if let Some(known) = active.segment.facts().summary.as_ref().filter(|known| known.verified) {
            return Ok(Some(seal(known)));
        }
        let file = active.file.as_ref();
        let walked = segment::read_header(file).and_then(|header| {
            let begin = header.map(|header| Expected { offset: header.base, chain: header.chain_start });
            begin.map(|begin| verified_summary(file, tag, begin, active.position.get())).transpose()
        });
        let found = match walked {
            Err(error) if !is_refusal(&error) => return Err(error),
            Err(_) => None,
            Ok(found) => found.map(|(summary, _)| summary),
        };
        let place = self.place();
        let whole = found.filter(|found| {
            (found.end_position, found.end, found.chain) == (place.position, place.end, place.chain)
        });
        if whole.is_none() {
            tracing::warn!(log = %self.shared.id, path = %active.segment.path().display(), "not all frames of this segment can be read and verified; it ends without an index, and is sealed when its file is wanted, or by the first look at it after a start");
        }
        Ok(whole.as_ref().map(seal))
    }

    /// Writes a mark behind the last frame: a witness that everything before it is durable. Says
    /// whether one was written; none is if there is nothing to witness, or something is not durable.
    pub(crate) fn write_mark(&mut self) -> Result<bool, AppendError> {
        self.shared.takes_writes()?;
        let place = self.place();
        let Some(active) = &self.active else { return Ok(false) };
        if active.position <= FIRST_FRAME || active.marked || place.synced_to < active.position {
            return Ok(false);
        }
        let at = active.position;
        self.put(at, &[&plan::mark(&place).encode()])?;
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
