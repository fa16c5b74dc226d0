//! What a torn tail holds, and whether it may go.
//!
//! By the rule of recovery a tail is torn from the first byte above the durable mark that does not verify, whatever lies
//! behind it. A node that starts must decide so; a repair need not. So before a tail is cut it is looked through:
//!
//! 1. Holes in it are filled from the other copy by the same proof as any hole. The last frame of a file has nothing behind
//!    it; if its own header still verifies, that names its chain, and the copy's frame with this very header is the frame.
//! 2. A raft log that stands behind the tail, as a checkpoint says, has all of it: it is cut, and named with its offsets.
//! 3. Else it is cut only if nothing verifies behind its first bytes, the disk gave all of it, and the other copy, if
//!    there is one, does not go on there. What stays is told.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use tidelog_wire::ids::Offset;

use super::Action;
use super::file::{HOLES_MAX, Mending, Other};
use super::patched::Source;
use crate::offline::evidence;
use crate::offline::label::{Label, Part, SegmentMap, Why};
use crate::offline::map::{Context, Promise, map};
use crate::segment::LogTag;

impl Mending<'_> {
    fn torn_tail(&self) -> Option<Range<u64>> {
        let torn = self.map.parts.last().filter(|part| matches!(part.label, Label::TornTail { .. }));
        torn.map(|part| part.bytes.clone())
    }

    /// Whether a raft log has everything above the mark.
    const fn is_covered(&self) -> bool {
        matches!(self.context.promise, Promise::UpTo(_))
    }

    /// How the file is looked at for what lies in its torn tail: as if all of it had been promised.
    const fn laid_open(&self) -> Context {
        Context { promise: Promise::All, end: None, ..*self.context }
    }

    /// Fills holes of the torn tail.
    pub(super) fn fill_torn(&mut self, other: &Other) -> io::Result<()> {
        if self.is_covered() || self.torn_tail().is_none() {
            return Ok(());
        }
        let context = self.laid_open();
        let mut open = Mending {
            context: &context,
            goal: self.goal,
            map: map(&self.patched, &context)?,
            patched: self.patched.clone(),
            actions: Vec::new(),
            refused: None,
            undecided: None,
        };
        open.fill(other)?;
        for _ in 0..HOLES_MAX {
            if !open.last_frame(other)? {
                break;
            }
        }
        let (patched, actions) = (open.patched, open.actions);
        if !actions.is_empty() {
            self.map = map(&patched, self.context)?;
            self.patched = patched;
            self.actions.extend(actions);
        }
        Ok(())
    }

    /// Fills the frame with which the last hole begins, if its own header says that the copy's is the same.
    fn last_frame(&mut self, other: &Other) -> io::Result<bool> {
        let (Some(cluster), Some(log)) = (self.context.cluster, self.context.log) else { return Ok(false) };
        let tag = LogTag::of(cluster, log);
        let Some(hole) = self.map.parts.iter().rfind(|part| part.label.is_bad()) else { return Ok(false) };
        let start = hole.bytes.start;
        if records(&self.map, start).is_some() {
            return Ok(false);
        }
        let own = evidence::frame_header(&self.patched, start, tag)?;
        let theirs = evidence::frame_header(other.file.as_ref(), start, tag)?;
        let Some(header) = own.filter(|_| own == theirs) else { return Ok(false) };
        let bytes = start..start.saturating_add(u64::from(header.frame_len));
        let (patched, map) = self.with(&bytes, Source::Copy(Arc::clone(&other.file)))?;
        if map.end <= self.map.end {
            return Ok(false);
        }
        let offsets = Some(self.map.end..map.end);
        (self.patched, self.map) = (patched, map);
        self.actions.push(Action::Fill { bytes, offsets, from: other.path.clone() });
        Ok(true)
    }

    /// Cuts the torn tail, or says why not.
    pub(super) fn tail(&mut self, other: Option<&Other>) -> io::Result<()> {
        let Some(bytes) = self.torn_tail() else { return Ok(()) };
        if bytes.start == 0 {
            self.actions.push(Action::SetAside);
            return Ok(());
        }
        let laid = map(&self.patched, &self.laid_open())?;
        let behind = records(&laid, bytes.start);
        if self.is_covered() {
            self.actions.push(Action::CutTail { bytes, offsets: behind });
            return Ok(());
        }
        let goes_on = match other {
            Some(other) => self.goes_on(other, &bytes)?,
            None => None,
        };
        let (why, offsets) = match (behind, goes_on, self.refused.take()) {
            (Some(behind), _, _) => (Why::FramesBehind { behind: behind.clone() }, Some(behind)),
            (None, Some(end), _) => (Why::CopyGoesOn { end }, None),
            (None, None, Some(why)) => (why, None),
            (None, None, None) => {
                self.actions.push(Action::CutTail { bytes, offsets: None });
                return Ok(());
            }
        };
        self.undecided = Some(Part { bytes, label: Label::Damage { why, offsets } });
        Ok(())
    }

    /// Where the other copy ends, if its frames follow those before the tail.
    fn goes_on(&self, other: &Other, tail: &Range<u64>) -> io::Result<Option<Offset>> {
        let frames_end = other.frames_end().filter(|end| *end > tail.start);
        let Some(end) = frames_end else { return Ok(None) };
        let mut patched = self.patched.clone();
        patched.put(&(tail.start..end), Source::Copy(Arc::clone(&other.file)));
        let filled = map(&patched, &self.laid_open())?;
        let follows = filled.parts.iter().any(|part| {
            matches!(part.label, Label::Frames { .. })
                && part.bytes.start <= tail.start
                && part.bytes.end > tail.start
        });
        Ok(follows.then_some(filled.end))
    }
}

/// The records of the intact frames behind a position.
fn records(map: &SegmentMap, behind: u64) -> Option<Range<Offset>> {
    let mut found: Option<Range<Offset>> = None;
    for part in map.parts.iter().filter(|part| part.bytes.start > behind) {
        if let Label::Frames { records, .. } = &part.label {
            let start = found.map_or(records.start, |found| found.start);
            found = Some(start..records.end);
        }
    }
    found
}
