//! Finding the frame of an offset: the sparse index, then a short walk over frame headers.

use std::collections::VecDeque;
use std::io;

use tidelog_wire::ids::{Offset, TimestampMs};

use super::damage::Hole;
use super::error::ReadError;
use super::shared::{LogShared, Segment};
use crate::fields::{narrow, wide};
use crate::locks::{Arc, Mutex, PoisonError};
use crate::segment::LogTag;
use crate::segment::footer::{FOOTER_BYTES, Footer, FooterFault, IndexEntry};
use crate::segment::salvage::Salvage;
use crate::segment::state::SegmentState;
use crate::segment::stored::StoredBatch;
use crate::segment::summary::{FIRST_FRAME, Summary, entry_for_offset, entry_for_time};
use crate::segment::walk::{Depth, Expected, Step, Walk, Walked};
use crate::storage::open_files::OpenSegment;
use crate::storage::{File, Position};

/// How often a reader that sums up a segment tries to catch up with its writer. More than once: the writer
/// itself, whom nobody outruns, has then all of it.
const CATCH_UP_ROUNDS: usize = 4;

/// Places that sequential readers are about to read.
const HINTS_MAX: usize = 16;

/// A frame that begins at a known offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) offset: Offset,
    pub(crate) base: Offset,
    pub(crate) position: Position,
}

/// The last places where reads ended, so that reading on needs no search.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    recent: Mutex<VecDeque<Hint>>,
}

impl Hints {
    pub(crate) fn take(&self, offset: Offset, base: Offset) -> Option<Position> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.iter().position(|hint| hint.offset == offset && hint.base == base)?;
        recent.remove(at).map(|hint| hint.position)
    }

    pub(crate) fn put(&self, hint: Hint) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= HINTS_MAX {
            recent.pop_front();
        }
        recent.push_back(hint);
    }
}

/// What was found at or behind an offset.
pub(crate) enum Located {
    /// The frame whose batch holds the offset.
    Frame(Walked),
    /// Damage, up to the next good batch (or the end of the segment).
    Damaged(Hole),
}

impl LogShared {
    pub(crate) fn open_segment(&self, segment: &Segment) -> Result<Arc<OpenSegment>, ReadError> {
        let key = (self.id, segment.base);
        let opened = self.core.open_files.open(self.core.storage.as_ref(), key, self.life, &segment.path());
        if let Err(gone) = self.still_there(segment) {
            // Whoever unlinked it may have closed it before it was opened here.
            self.core.open_files.close(key);
            return Err(gone);
        }
        opened.map_err(|source| read_failed(segment, "open the segment", source))
    }

    /// Whether the log, and in it `segment`, is what the caller took it for a moment ago.
    fn still_there(&self, segment: &Segment) -> Result<(), ReadError> {
        let view = self.view();
        self.not_ended(&view)?;
        if view.segments.contains(segment.base) {
            return Ok(());
        }
        Err(ReadError::OutOfRange { log: self.id, asked: segment.base, start: view.start, end: view.end })
    }

    /// The index entry to begin the search for `offset` at.
    fn entry_for(
        &self,
        segment: &Segment,
        open: &OpenSegment,
        key: Key,
    ) -> Result<Option<IndexEntry>, ReadError> {
        let pick = |index: &[IndexEntry]| match key {
            Key::Offset(offset) => entry_for_offset(index, offset),
            Key::Time(time) => entry_for_time(index, time),
        };
        let (state, end, end_position) = {
            let facts = segment.facts();
            if let Some(summary) = &facts.summary {
                return Ok(pick(&summary.index));
            }
            (facts.state, facts.end, facts.end_position)
        };
        match state {
            SegmentState::Sealed => {
                if let Some(index) = open.index.get() {
                    return Ok(pick(index));
                }
                let loaded = match load_index(open.file.as_ref(), self.tag) {
                    Ok(Ok(index)) => index,
                    Ok(Err(_)) => {
                        let file = open.file.as_ref();
                        self.summarize(segment, file, None, end, end_position)?.index
                    }
                    Err(source) => return Err(read_failed(segment, "read the index", source)),
                };
                Ok(pick(open.index.get_or_init(|| loaded)))
            }
            SegmentState::Active | SegmentState::Sealing | SegmentState::Fenced => {
                self.with_summary(segment, open.file.as_ref(), |summary| pick(&summary.index))
            }
        }
    }

    /// Looks at the summary of a segment that is not sealed. If it has none its frame headers are walked
    /// first, with no lock held. A writer that goes on meanwhile is caught up with; when it cannot be, what
    /// was summed up by then serves this caller, who asked for no later frame, and the next one tries again.
    /// What was summed up around bytes that the disk refused serves this caller only, too.
    fn with_summary<T>(
        &self,
        segment: &Segment,
        file: &Salvage,
        look: impl Fn(&Summary) -> T,
    ) -> Result<T, ReadError> {
        let mut known: Option<Summary> = None;
        let mut rounds = 0_usize;
        loop {
            let refused = file.refused(0..u64::MAX).is_some();
            let (end, end_position) = {
                let mut facts = segment.facts();
                if let Some(summary) = &facts.summary {
                    return Ok(look(summary));
                }
                let now = facts.end_position;
                if let Some(partial) = known.take_if(|_| refused) {
                    return Ok(look(&partial));
                }
                if let Some(whole) = known.take_if(|known| known.end_position == now) {
                    let answer = look(&whole);
                    if !facts.state.is_immutable() {
                        facts.summary = Some(Box::new(whole));
                    }
                    return Ok(answer);
                }
                (facts.end, now)
            };
            let summary = self.summarize(segment, file, known, end, end_position)?;
            rounds = rounds.saturating_add(1);
            if rounds >= CATCH_UP_ROUNDS {
                return Ok(look(&summary));
            }
            known = Some(summary);
        }
    }

    /// Sums up the frames of a segment up to `end`, which lies at `end_position`, by walking their
    /// headers behind what `known` has already; damaged ones are marked and skipped. To find one's way only:
    /// times and counts that stand in a batch were not verified.
    fn summarize(
        &self,
        segment: &Segment,
        file: &Salvage,
        known: Option<Summary>,
        end: Offset,
        end_position: Position,
    ) -> Result<Summary, ReadError> {
        let failed = |source| read_failed(segment, "walk the segment", source);
        let mut summary = match known {
            Some(known) => known,
            None => {
                let header = crate::segment::read_header(file).map_err(failed)?;
                Summary::new(segment.base, header.map(|header| header.chain_start).unwrap_or_default())
            }
        };
        summary.verified = false;
        let from = summary.end_position;
        let mut walk = Walk::new(file, self.tag, Depth::Headers, from, end_position.get(), None);
        let mark = |from, to| {
            let hole = Hole::between(from, to);
            self.mark_hole(&hole, file.refused(hole.bytes.clone()).as_deref());
        };
        while let Some(walked) = next_good(&mut walk).map_err(failed)? {
            let begins =
                walked.batch.map_or(Offset(walked.header.raft_index.get()), |batch| batch.base_offset);
            if summary.end < begins {
                mark((summary.end, summary.end_position), (begins, walked.position));
            }
            take_in(&mut summary, &walked);
        }
        if summary.end < end {
            mark((summary.end, summary.end_position), (end, end_position));
        }
        summary.end_position = end_position;
        Ok(summary)
    }

    /// The frame of `segment` whose batch holds `offset`.
    pub(crate) fn locate(
        &self,
        segment: &Segment,
        open: &OpenSegment,
        offset: Offset,
    ) -> Result<Located, ReadError> {
        let entry = self.entry_for(segment, open, Key::Offset(offset))?;
        let mut good = entry.map_or((segment.base, FIRST_FRAME), |entry| (entry.offset, entry.position));
        let (segment_end, limit) = {
            let facts = segment.facts();
            (facts.end, facts.end_position)
        };
        let failed = |source| read_failed(segment, "find an offset in the segment", source);
        let file = open.file.as_ref();
        let verifies = |at: Position| {
            let mut whole = Walk::new(file, self.tag, Depth::Full, at, limit.get(), None);
            whole.step().map(|step| matches!(step, Step::Frame(_)))
        };
        let mut walk = Walk::new(file, self.tag, Depth::Headers, good.1, limit.get(), None);
        // The batch before `good`: its count of records, unverified, says where it ends.
        let mut passed: Option<(Offset, Position)> = None;
        let next_begins = loop {
            let Some(walked) = next_good(&mut walk).map_err(failed)? else { break (segment_end, limit) };
            let Some(batch) = walked.batch else { continue };
            let begins = (batch.base_offset, walked.position);
            if batch.base_offset > offset {
                break begins;
            }
            if batch.end() <= offset {
                passed = Some(begins);
                good = (batch.end(), walked.end());
                continue;
            }
            // Its count of records is under the batch's own checksum, which decides whether that is so.
            if verifies(walked.position).map_err(failed)? {
                return Ok(Located::Frame(walked));
            }
            let to = self.damage_end(segment, file, walked.position)?;
            let hole = Hole::between(begins, to);
            if to.0 > offset {
                return Ok(Located::Damaged(hole));
            }
            self.mark_hole(&hole, open.file.refused(hole.bytes.clone()).as_deref());
            (passed, good) = (None, to);
            walk = Walk::new(file, self.tag, Depth::Headers, walked.end(), limit.get(), None);
        };
        // A batch that says too few records is itself where the damage begins.
        if let Some(last) = passed
            && !verifies(last.1).map_err(failed)?
        {
            good = last;
        }
        Ok(Located::Damaged(Hole::between(good, next_begins)))
    }

    /// The batches of `segment` whose newest record is at or after `time`, in order.
    pub(crate) fn batches_at_time<'a>(
        &self,
        segment: &'a Segment,
        open: &'a OpenSegment,
        time: TimestampMs,
    ) -> Result<NewerBatches<'a>, ReadError> {
        let from =
            self.entry_for(segment, open, Key::Time(time))?.map_or(FIRST_FRAME, |entry| entry.position);
        let limit = segment.facts().end_position.get();
        let walk = Walk::new(open.file.as_ref(), self.tag, Depth::Headers, from, limit, None);
        Ok(NewerBatches { segment, walk, time })
    }

    /// Where the next good batch behind the damaged frame at `position` begins, or the segment ends: offset and position.
    pub(crate) fn damage_end(
        &self,
        segment: &Segment,
        file: &dyn File,
        position: Position,
    ) -> Result<(Offset, Position), ReadError> {
        let (segment_end, limit) = {
            let facts = segment.facts();
            (facts.end, facts.end_position)
        };
        let failed = |source| read_failed(segment, "look behind damage", source);
        // How many records the damaged batch says it has is under its own checksum, so it is not asked.
        let mut walk = Walk::new(file, self.tag, Depth::Full, position, limit.get(), None);
        let mut next = walk.resync().map_err(failed)?;
        while let Some(walked) = next {
            if let Some(batch) = walked.batch {
                return Ok((batch.base_offset, walked.position));
            }
            // A mark: the frame behind it is the next to be looked at, not one of those behind that.
            next = next_good(&mut walk).map_err(failed)?;
        }
        Ok((segment_end, limit))
    }
}

/// A walk that stops at batches which may hold a record at or after a time.
pub(crate) struct NewerBatches<'a> {
    segment: &'a Segment,
    walk: Walk<'a>,
    time: TimestampMs,
}

impl NewerBatches<'_> {
    pub(crate) fn next(&mut self) -> Result<Option<StoredBatch>, ReadError> {
        let failed = |source| read_failed(self.segment, "find a time in the segment", source);
        loop {
            let Some(walked) = next_good(&mut self.walk).map_err(failed)? else { return Ok(None) };
            if let Some(batch) = walked.batch.filter(|batch| batch.max_timestamp >= self.time) {
                return Ok(Some(batch));
            }
        }
    }
}

/// The next frame that verifies. Zeros where a frame should be are damage like any other bytes that do not:
/// the walk is bounded by where the frames are known to end.
fn next_good(walk: &mut Walk<'_>) -> io::Result<Option<Walked>> {
    match walk.step()? {
        Step::Frame(walked) => Ok(Some(walked)),
        Step::End | Step::Fault(_) => walk.resync(),
    }
}

#[derive(Clone, Copy)]
enum Key {
    Offset(Offset),
    Time(TimestampMs),
}

pub(crate) fn take_in(summary: &mut Summary, walked: &Walked) {
    match &walked.batch {
        Some(batch) => summary.add(walked.position, walked.end(), batch, walked.header.chain),
        None => {
            summary.add_mark(walked.end(), Offset(walked.header.raft_index.get()), walked.header.chain);
        }
    }
}

/// The footer of a file, if it ends in one that fits; the index is not checked.
pub(crate) fn load_footer(file: &dyn File, tag: LogTag) -> io::Result<Result<Footer, FooterFault>> {
    let len = file.len()?;
    let Some(at) = len.checked_sub(wide(FOOTER_BYTES)) else { return Ok(Err(FooterFault::Absent)) };
    let mut bytes = [0; FOOTER_BYTES];
    file.read_at(Position(at), &mut bytes)?;
    Ok(match Footer::decode(&bytes, len, tag) {
        // A flipped bit is no newer release.
        Err(FooterFault::UnknownFormat { .. }) if !checksum_holds(file, &bytes, len)? => {
            Err(FooterFault::Bad)
        }
        decoded => decoded,
    })
}

/// Whether the checksum of a footer of any format holds: it covers what lies from the index on, and both
/// stand where they stand in format 1.
fn checksum_holds(file: &dyn File, footer: &[u8; FOOTER_BYTES], len: u64) -> io::Result<bool> {
    const STEP: u64 = 64 << 10;
    let Some((covered, crc)) = footer.split_last_chunk::<4>() else { return Ok(false) };
    let index_position = covered.get(48..56).and_then(|bytes| bytes.first_chunk::<8>());
    let mut at = index_position.map_or(len, |bytes| u64::from_le_bytes(*bytes));
    let end = len.saturating_sub(4);
    let mut sum = 0;
    while at < end {
        let mut bytes = vec![0; narrow(end.saturating_sub(at).min(STEP))];
        file.read_at(Position(at), &mut bytes)?;
        sum = crc32c::crc32c_append(sum, &bytes);
        at = at.saturating_add(wide(bytes.len()));
    }
    Ok(at == end && sum == u32::from_le_bytes(*crc))
}

/// The footer and the index of a sealed file, both checked.
pub(crate) fn load_sealed(
    file: &dyn File,
    tag: LogTag,
) -> io::Result<Result<(Footer, Vec<IndexEntry>), FooterFault>> {
    let footer = match load_footer(file, tag)? {
        Ok(footer) => footer,
        Err(fault) => return Ok(Err(fault)),
    };
    // The footer says so itself, and it fits the file: whatever the file became meanwhile, no more is taken.
    let len = footer.index_bytes().saturating_add(wide(FOOTER_BYTES));
    let mut bytes = vec![0; narrow(len)];
    file.read_at(footer.index_position, &mut bytes)?;
    Ok(footer.decode_index(&bytes).map(|index| (footer, index)))
}

fn load_index(file: &dyn File, tag: LogTag) -> io::Result<Result<Vec<IndexEntry>, FooterFault>> {
    Ok(load_sealed(file, tag)?.map(|(_, index)| index))
}

/// Sums up, with everything verified, what lies from the first frame on up to the first fault.
pub(crate) fn verified_summary(
    file: &dyn File,
    tag: LogTag,
    expected: Expected,
    limit: u64,
) -> io::Result<(Summary, Step)> {
    let mut summary = Summary::new(expected.offset, expected.chain);
    let mut walk = Walk::new(file, tag, Depth::Full, FIRST_FRAME, limit, Some(expected));
    loop {
        match walk.step()? {
            Step::Frame(walked) => take_in(&mut summary, &walked),
            Step::End => return Ok((summary, Step::End)),
            Step::Fault(fault) => return Ok((summary, Step::Fault(fault))),
        }
    }
}

pub(crate) fn read_failed(segment: &Segment, action: &'static str, source: io::Error) -> ReadError {
    ReadError::Io { path: segment.path(), action, source }
}
