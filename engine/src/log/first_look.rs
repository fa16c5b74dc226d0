//! The first look at a segment below the mark, when somebody wants to use it.
//!
//! At a start such a segment costs its directory entry: it was synced and sealed before the mark came to lie
//! behind it, so there is nothing to recover, and 100,000 of them must not keep a log from opening. What
//! recovery would have noticed is noticed here instead, **before any byte of the segment is served**:
//!
//! 1. Header, first frame and footer are read, through the open files. The header must belong here, lead into the
//!    first frame, and the footer into the header of the next segment, by offset and by chain. So every link
//!    of the history is looked at by one segment. That is all: a few small reads, once.
//! 2. Anything else goes the way of recovery, with the same table and the same code: a missing footer is written
//!    again from the frames, a segment of another log is set aside, damage is a range. What was found
//!    joins the recovery report. One thread at a time mends; whoever uses other segments does not wait.
//! 3. What cannot be used now (the disk does not give it, another cluster or a newer release wrote it) fails
//!    the read, changes nothing, and is looked at again by the next one who asks.
//!
//! If two neighbours disagree about the chain between them, it is the segment to which its own predecessor does
//! not lead that is of another history.
//!
//! Not here: the batches. Each is verified whenever it is read.

use std::io::{self, ErrorKind};

use tidelog_wire::ids::{Chain, Offset, TimestampMs};

use super::error::{LogError, ReadError};
use super::locate::load_sealed;
use super::recovery::Recovery;
use super::recovery::files::Listed;
use super::recovery::table::{Place, Seen, Verdict};
use super::shared::{LogShared, Look, Segment, SegmentFacts};
use crate::locks::Arc;
use crate::segment::footer::Footer;
use crate::segment::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::segment::header::SegmentHeader;
use crate::segment::state::SegmentState;
use crate::segment::summary::FIRST_FRAME;
use crate::segment::walk::{Depth, Expected, Step, Walk};
use crate::segment::{self};
use crate::storage::open_files::OpenSegment;
use crate::storage::{File, OpenMode, Position};

/// How far back the segment is looked for that might hold an offset by which another file is named.
const COVERED_MAX: usize = 16;

/// Where a segment lies among the others of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Neighbours {
    before: Option<Offset>,
    /// Where the next segment begins, or the log ends.
    next: Offset,
    next_is_segment: bool,
    /// The log's own chain, if it ends here.
    chain_at_end: Option<Chain>,
}

impl LogShared {
    /// Makes sure that the facts of `segment` are those of its file. Costs nothing but a lock from the second
    /// time on.
    ///
    /// # Errors
    /// - [`ReadError::Io`]: the disk does not give it.
    /// - [`ReadError::Unusable`]: another cluster or a newer release wrote it, or it cannot be set aside.
    /// - [`ReadError::OutOfRange`], [`ReadError::Removed`], [`ReadError::Reopened`]: it was trimmed, or the log
    ///   removed or opened again, meanwhile.
    pub(crate) fn look_at(&self, segment: &Segment) -> Result<(), ReadError> {
        if segment.facts().look == Look::Done {
            return Ok(());
        }
        if let Ok(Some(facts)) = self.glance(segment, self.neighbours(segment)?) {
            *segment.facts() = facts;
            return Ok(());
        }
        let mending = self.mending();
        if segment.facts().look == Look::Done {
            return Ok(());
        }
        self.set_covered_aside(segment.base)?;
        let examined = self.examine(segment, self.neighbours(segment)?);
        drop(mending);
        examined
    }

    /// Looks once more at a segment that its writer could not seal, since its frames did not all read then. Not if it is
    /// not synced yet, or known to be damaged. Says whether it looked.
    pub(crate) fn look_again(&self, base: Offset) -> Result<bool, ReadError> {
        let (segment, next) = {
            let mut view = self.view();
            let end = view.end;
            (view.segments.get(base, end), view.next_base(base))
        };
        let Some(segment) = segment else { return Ok(false) };
        if self.damage().iter().any(|range| range.start < next && base < range.end) {
            return Ok(false);
        }
        {
            let mut facts = segment.facts();
            if facts.state != SegmentState::Sealed || facts.unsynced.is_some() {
                return Ok(false);
            }
            facts.look = Look::Due;
        }
        self.look_at(&segment)?;
        Ok(true)
    }

    /// Looks at every segment that nobody has used yet. Fails as the first that cannot be used now; the others
    /// were looked at all the same.
    pub(crate) fn look_at_all(&self) -> Result<(), ReadError> {
        let mut outcome = Ok(());
        let mut at = self.view().start;
        loop {
            let (segment, next, end) = {
                let mut view = self.view();
                (view.segment_for(at), view.next_base(at), view.end)
            };
            outcome = outcome.and(segment.map_or(Ok(()), |segment| self.look_at(&segment)));
            if next >= end {
                return outcome;
            }
            at = next;
        }
    }

    /// Where it lies; an error if it is not part of the log any more.
    fn neighbours(&self, segment: &Segment) -> Result<Neighbours, ReadError> {
        let view = self.view();
        self.not_ended(&view)?;
        if !view.segments.contains(segment.base) {
            let (asked, start, end) = (segment.base, view.start, view.end);
            return Err(ReadError::OutOfRange { log: self.id, asked, start, end });
        }
        let next = view.segments.next_base(segment.base);
        Ok(Neighbours {
            before: view.segments.base_before(segment.base),
            next: next.unwrap_or(view.end),
            next_is_segment: next.is_some(),
            chain_at_end: if next.is_none() { Some(view.chain) } else { None },
        })
    }

    /// The facts of a segment that is plainly intact; `None` if it has to be looked at more closely.
    fn glance(&self, segment: &Segment, near: Neighbours) -> io::Result<Option<SegmentFacts>> {
        let open = self.open_at(segment.base)?;
        let file = open.file.as_ref();
        let ours = |header: &SegmentHeader| {
            header.cluster == self.core.identity.cluster
                && header.log == self.id
                && header.base == segment.base
        };
        let Some(header) = segment::read_header(file)?.filter(ours) else { return Ok(None) };
        let Ok((footer, index)) = load_sealed(file, self.tag)? else { return Ok(None) };
        let begin = Expected { offset: header.base, chain: header.chain_start };
        let whole = footer.last_offset.plus(1) == near.next
            && self.leads_in(file, begin, footer.index_position)?
            && self.leads_on(footer.chain_end, near);
        if !whole {
            return Ok(None);
        }
        // If somebody was faster, the index is the same.
        open.index.get_or_init(|| index);
        let time = Some(footer.max_timestamp);
        Ok(Some(sealed(near.next, footer.index_position, time)))
    }

    /// Whether the history goes on from `begin` in the first frame.
    fn leads_in(&self, file: &dyn File, begin: Expected, frames_end: Position) -> io::Result<bool> {
        let mut head = [0; FRAME_HEADER_BYTES];
        file.read_at(FIRST_FRAME, &mut head)?;
        let Ok(header) = FrameHeader::decode(&head) else { return Ok(false) };
        // The walk holds the length against the limits before it reads that much.
        let limit = header.end(FIRST_FRAME).min(frames_end).get();
        let mut walk = Walk::new(file, self.tag, Depth::Full, FIRST_FRAME, limit, Some(begin));
        Ok(matches!(walk.step()?, Step::Frame(_)))
    }

    /// Whether the history goes on from `chain_end` in the next segment, or ends there.
    fn leads_on(&self, chain_end: Chain, near: Neighbours) -> bool {
        if !near.next_is_segment {
            return near.chain_at_end == Some(chain_end);
        }
        let header = self.open_at(near.next).and_then(|next| segment::read_header(next.file.as_ref()));
        header.is_ok_and(|header| header.is_some_and(|header| header.chain_start == chain_end))
    }

    /// As recovery would have done: judged by the table, mended where that can be, marked where it cannot.
    fn examine(&self, segment: &Segment, near: Neighbours) -> Result<(), ReadError> {
        let before = near.before.and_then(|base| self.footer_of(base));
        let chain = before.filter(|own| own.last_offset.plus(1) == segment.base).map(|own| own.chain_end);
        let mut recovery = Recovery::new(&self.core, self.id);
        let listed = Listed { base: segment.base, path: segment.path(), place: Place::BelowMark };
        let mut taken = recovery.take_sealed(&listed, near.next, chain).map(|_| ());
        if let Err(LogError::Io { source, .. }) = &taken
            && source.kind() == ErrorKind::NotFound
        {
            // Unless it was trimmed just now, or the log removed.
            self.neighbours(segment)?;
            recovery.lost(&listed.path, segment.base, near.next);
            taken = Ok(());
        }
        // Its bytes or its name may have changed.
        self.core.open_files.close((self.id, segment.base));
        let facts = recovery.segments.last_used().map(|known| known.facts().clone());
        let report = recovery.report();
        for range in &report.damage {
            self.mark_damaged(range.clone());
        }
        if report.unread.contains(&(segment.base..near.next)) {
            let said = report.findings.iter().find_map(|finding| finding.error.clone());
            let source = io::Error::other(said.unwrap_or_default());
            taken = Err(LogError::Io { path: listed.path, action: "read the header or footer of", source });
        }
        let mut known = segment.facts();
        let first = known.look == Look::Due;
        match &taken {
            // Nothing is left of a segment that was set aside or is missing.
            Ok(()) => *known = facts.unwrap_or_else(|| sealed(segment.base, Position::ZERO, None)),
            Err(_) => known.look = Look::Refused,
        }
        drop(known);
        if taken.is_ok() || first {
            self.core.found_late(report);
        }
        taken.map_err(unusable)
    }

    /// Sets aside what bears the name of an offset within another segment: a file that somebody put there. Left
    /// alone it would make the other end where it begins. Only if the footer of the other, whole, leads beyond
    /// it to where a further segment begins, or the log ends.
    pub(super) fn set_covered_aside(&self, base: Offset) -> Result<(), ReadError> {
        let mut holder = Some(base);
        for _ in 0..COVERED_MAX {
            let Some(at) = holder else { return Ok(()) };
            if let Some(end) = self.proven_end(at) {
                let covered: Vec<Offset> = self.view().segments.bases_within(at, end);
                for stranger in covered {
                    self.displace(stranger)?;
                }
                return Ok(());
            }
            holder = self.view().segments.base_before(at);
        }
        Ok(())
    }

    /// Where the segment at `base` ends by its own header and footer, if the log goes on there.
    fn proven_end(&self, base: Offset) -> Option<Offset> {
        // Not through the open files: who asks may not want to read it.
        let open = |base| {
            let path = self.path.join(segment::file_name(base));
            self.core.storage.open(&path, OpenMode::Read)
        };
        let file = open(base).ok()?;
        let header = segment::read_header(file.as_ref()).ok()??;
        let footer = load_sealed(file.as_ref(), self.tag).ok()?.ok()?.0;
        let end = footer.last_offset.plus(1);
        let goes_on = {
            let view = self.view();
            if end == view.end { Some(view.chain) } else { None }
        };
        let goes_on = goes_on.or_else(|| {
            let header = segment::read_header(open(end).ok()?.as_ref()).ok()??;
            (header.log == self.id && header.base == end).then_some(header.chain_start)
        });
        let ours = header.log == self.id && header.base == base;
        (ours && goes_on == Some(footer.chain_end)).then_some(end)
    }

    fn displace(&self, base: Offset) -> Result<(), ReadError> {
        let mut recovery = Recovery::new(&self.core, self.id);
        let path = self.path.join(segment::file_name(base));
        if recovery.judge(&path, Position::ZERO, Place::BelowMark, Seen::Covered) == Verdict::SetAside {
            self.core.open_files.close((self.id, base));
            self.view().segments.remove(base);
            recovery
                .set_aside(&path, "it bears the name of an offset within another segment")
                .map_err(unusable)?;
        }
        self.core.found_late(recovery.report());
        Ok(())
    }

    fn footer_of(&self, base: Offset) -> Option<Footer> {
        let open = self.open_at(base).ok()?;
        load_sealed(open.file.as_ref(), self.tag).ok()?.ok().map(|(footer, _)| footer)
    }

    fn open_at(&self, base: Offset) -> io::Result<Arc<OpenSegment>> {
        let path = self.path.join(segment::file_name(base));
        self.core.open_files.open(self.core.storage.as_ref(), (self.id, base), self.life, &path)
    }
}

const fn sealed(end: Offset, end_position: Position, max_timestamp: Option<TimestampMs>) -> SegmentFacts {
    SegmentFacts::known(SegmentState::Sealed, end, end_position, max_timestamp)
}

fn unusable(error: LogError) -> ReadError {
    if let LogError::Io { path, action, source } = error {
        return ReadError::Io { path, action, source };
    }
    ReadError::Unusable(Box::new(error))
}
