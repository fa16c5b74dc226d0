//! Mending one file in thought.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use tidelog_wire::ids::{Chain, Offset};

use super::Action;
use super::patched::{Patched, Source};
use crate::fields::wide;
use crate::offline::label::{Label, Part, SegmentMap, Why};
use crate::offline::map::{Context, Promise, map};
use crate::segment::LogTag;
use crate::segment::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::segment::summary::FIRST_FRAME;
use crate::segment::walk::{Depth, Step, Walk};
use crate::storage::File;

/// Holes of one file that are tried one by one, each for a walk over the file.
pub(super) const HOLES_MAX: usize = 64;

/// The file of the other copy with the same base.
#[derive(Clone, Debug)]
pub(super) struct Other {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) map: SegmentMap,
}

impl Other {
    /// Where its last frame ends.
    pub(super) fn frames_end(&self) -> Option<u64> {
        let frames = |part: &Part| matches!(part.label, Label::Frames { .. });
        self.map.parts.iter().rfind(|part| frames(part)).map(|part| part.bytes.end)
    }
}

/// A file, mended as far as can be proved.
pub(super) struct Mended {
    pub(super) actions: Vec<Action>,
    /// As it would be then.
    pub(super) map: SegmentMap,
    /// A torn tail that stays, and why.
    pub(super) undecided: Option<Part>,
}

pub(super) struct Mending<'a> {
    pub(super) context: &'a Context,
    /// Where the chain must come to, if something behind the file says so.
    pub(super) goal: Option<(Offset, Chain)>,
    pub(super) patched: Patched,
    pub(super) map: SegmentMap,
    pub(super) actions: Vec<Action>,
    /// What the system said when the torn tail was read.
    pub(super) refused: Option<Why>,
    /// A torn tail that may not be cut.
    pub(super) undecided: Option<Part>,
}

/// Mends `file` as far as it goes. `map` is its map under `context`.
pub(super) fn mend(
    file: Arc<dyn File>,
    context: &Context,
    map: &SegmentMap,
    goal: Option<(Offset, Chain)>,
    other: Option<&Other>,
) -> io::Result<Mended> {
    let patched = Patched::new(file, map.len);
    let refused = match map.parts.last() {
        Some(Part { label: Label::TornTail { why: why @ Why::Unreadable { .. } }, .. }) => Some(why.clone()),
        Some(_) | None => None,
    };
    let actions = Vec::new();
    let mut mending = Mending { context, goal, patched, map: map.clone(), actions, refused, undecided: None };
    mending.header(other)?;
    if let Some(other) = other {
        mending.fill(other)?;
        mending.header(Some(other))?;
        mending.fill_torn(other)?;
    }
    mending.seal()?;
    mending.tail(other)?;
    let Mending { actions, map, undecided, .. } = mending;
    Ok(Mended { actions, map, undecided })
}

impl Mending<'_> {
    /// Maps the file with one more patch.
    pub(super) fn with(&self, bytes: &Range<u64>, source: Source) -> io::Result<(Patched, SegmentMap)> {
        let mut patched = self.patched.clone();
        patched.put(bytes, source);
        let map = map(&patched, self.context)?;
        Ok((patched, map))
    }

    fn header(&mut self, other: Option<&Other>) -> io::Result<()> {
        let bad = self.map.parts.first().is_some_and(|part| {
            why_of(part).is_some_and(Why::is_header) && part.bytes.end == FIRST_FRAME.get()
        });
        if !bad {
            return Ok(());
        }
        if let Some(header) = self.header_anew()?
            && self.put_header(&header)?
        {
            return Ok(());
        }
        let Some((other, header)) = other.and_then(|other| Some((other, other.map.header?))) else {
            return Ok(());
        };
        let (patched, map, actions) = (self.patched.clone(), self.map.clone(), self.actions.len());
        if self.put_header(&header)? {
            if !self.begins_with_a_frame() {
                self.fill(other)?;
            }
            // A header of another history checks itself as well as this one: only the first frame's chain tells them apart.
            if !self.begins_with_a_frame() && self.context.chain_start != Some(header.chain_start) {
                (self.patched, self.map) = (patched, map);
                self.actions.truncate(actions);
            }
        }
        Ok(())
    }

    /// Puts a header in its place, if it belongs there and nothing gets worse.
    fn put_header(&mut self, header: &SegmentHeader) -> io::Result<bool> {
        let bytes = header.encode().to_vec();
        let (patched, map) = self.with(&(0..wide(SEGMENT_HEADER_BYTES)), Source::Bytes(bytes.clone()))?;
        let ours = map.parts.first().is_some_and(|part| part.label == Label::Header);
        let better = ours && bad_parts(&map) < bad_parts(&self.map);
        if better {
            (self.patched, self.map) = (patched, map);
            self.actions.push(Action::Header { bytes });
        }
        Ok(better)
    }

    /// Whether the first frame verifies under the header.
    fn begins_with_a_frame(&self) -> bool {
        self.map
            .parts
            .iter()
            .any(|part| part.bytes.start == FIRST_FRAME.get() && matches!(part.label, Label::Frames { .. }))
    }

    /// The header as what lies around it says it was.
    fn header_anew(&self) -> io::Result<Option<SegmentHeader>> {
        let Context {
            cluster: Some(cluster),
            log: Some(log),
            base: Some(base),
            chain_start: Some(chain_start),
            ..
        } = *self.context
        else {
            return Ok(None);
        };
        let tag = LogTag::of(cluster, log);
        let mut walk = Walk::new(&self.patched, tag, Depth::Headers, FIRST_FRAME, self.patched.len()?, None);
        Ok(match walk.step()? {
            Step::Frame(first) => {
                Some(SegmentHeader { cluster, log, base, chain_start, append_time: first.header.append_time })
            }
            Step::End | Step::Fault(_) => None,
        })
    }

    /// Fills holes from the other copy: all at once if that proves itself, else one by one.
    pub(super) fn fill(&mut self, other: &Other) -> io::Result<()> {
        let mut holes: Vec<Part> = self.map.bad().filter_map(|part| self.hole(part, other)).collect();
        // What is missing behind the end is part of a hole that reaches it.
        holes.dedup_by(|behind, before| {
            behind.bytes.start <= before.bytes.end && behind.bytes.end <= before.bytes.end
        });
        if holes.len() > 1 {
            let mut all = self.patched.clone();
            for hole in &holes {
                all.put(&hole.bytes, Source::Copy(Arc::clone(&other.file)));
            }
            let filled = map(&all, self.context)?;
            if self.is_proved(&filled, 0) {
                (self.patched, self.map) = (all, filled);
                self.actions.extend(holes.into_iter().map(|hole| fill(hole, other)));
                return Ok(());
            }
        }
        for hole in holes.into_iter().take(HOLES_MAX) {
            let (patched, map) = self.with(&hole.bytes, Source::Copy(Arc::clone(&other.file)))?;
            if self.is_proved(&map, self.holes(&self.map).saturating_sub(1)) {
                (self.patched, self.map) = (patched, map);
                self.actions.push(fill(hole, other));
            }
        }
        Ok(())
    }

    /// The bytes of the other copy that belong into a bad part, if they are good there.
    fn hole(&self, part: &Part, other: &Other) -> Option<Part> {
        let why = why_of(part)?;
        if why.is_header() || why.is_seal() || why.is_newer() {
            return None;
        }
        let frames_end = other.frames_end()?;
        let most = match self.context.promise {
            Promise::UpTo(position) => frames_end.min(position.get()),
            Promise::All | Promise::Witnessed(_) => frames_end,
        };
        let mut bytes = part.bytes.clone();
        let last = self.map.parts.iter().all(|other| other.bytes.start <= bytes.start);
        if last {
            // It has no end of its own: the frames of the other copy say how far it goes.
            bytes.end = most;
        }
        let overlaps = |part: &&Part| part.bytes.start < bytes.end && part.bytes.end > bytes.start;
        let mut there = other.map.parts.iter().filter(overlaps);
        let good = bytes.end <= most && there.all(|part| matches!(part.label, Label::Frames { .. }));
        (good && bytes.start < bytes.end).then(|| Part { bytes, label: part.label.clone() })
    }

    /// Whether a patched file is proved: no more than `holes` holes are left, which frames behind a hole see to, and if the
    /// log's end in it moved, something behind the file says that the chain comes out right.
    fn is_proved(&self, filled: &SegmentMap, holes: usize) -> bool {
        let seal_was_good = self.map.footer.is_some() && !has_bad_seal(&self.map);
        if self.holes(filled) > holes || (seal_was_good && has_bad_seal(filled)) {
            return false;
        }
        let same_end = (filled.end, filled.chain) == (self.map.end, self.map.chain);
        same_end
            || match self.goal {
                Some((offset, chain)) => comes_to(filled, offset, chain),
                None => seal_was_good,
            }
    }
}

impl Mending<'_> {
    /// Writes index and footer, where the frames are whole and there should be some.
    fn seal(&mut self) -> io::Result<()> {
        let needed = self.map.bad().filter_map(why_of).any(Why::is_seal) || self.is_junk_behind(&self.map);
        let (Some(summary), Some(cluster), Some(log)) =
            (&self.map.whole, self.context.cluster, self.context.log)
        else {
            return Ok(());
        };
        let complete = self.context.end.is_none_or(|end| summary.end == end);
        if !needed || !complete || self.holes(&self.map) > 0 {
            return Ok(());
        }
        let bytes = summary.seal_bytes(LogTag::of(cluster, log));
        let at = summary.end_position.get();
        let mut patched = self.patched.clone();
        patched.cut(at);
        patched.put(&(at..at.saturating_add(wide(bytes.len()))), Source::Bytes(bytes.clone()));
        let sealed = map(&patched, self.context)?;
        if sealed.footer.is_some() && bad_parts(&sealed) < bad_parts(&self.map) {
            (self.patched, self.map) = (patched, sealed);
            self.actions.push(Action::Seal { at, bytes });
        }
        Ok(())
    }

    /// Bytes behind the last promised frame of a segment that has a successor: index and footer once, and no records.
    fn is_junk_behind(&self, map: &SegmentMap) -> bool {
        let promised = self.context.promise == Promise::All && self.context.end == Some(map.end);
        promised
            && map.parts.last().is_some_and(|part| matches!(part.label, Label::Damage { offsets: None, .. }))
    }

    /// Bad parts among the frames.
    fn holes(&self, map: &SegmentMap) -> usize {
        let outside = |why: &&Why| !why.is_header() && !why.is_seal();
        let holes = map.bad().filter_map(why_of).filter(outside).count();
        let behind =
            self.is_junk_behind(map) && map.parts.last().and_then(why_of).is_some_and(|why| outside(&why));
        holes.saturating_sub(usize::from(behind))
    }
}

/// Whether the frames come to a chain at an offset: at their end, or where a run was split at a checkpoint.
fn comes_to(map: &SegmentMap, offset: Offset, chain: Chain) -> bool {
    let mut frames = map.parts.iter().filter_map(|part| part.label.frames());
    frames.any(|(records, found)| records.end == offset && found == chain)
}

fn has_bad_seal(map: &SegmentMap) -> bool {
    map.bad().filter_map(why_of).any(|why| why.is_seal() && *why != Why::NoFooter)
}

fn fill(hole: Part, other: &Other) -> Action {
    let offsets = hole.label.bad().and_then(|(_, offsets)| offsets.cloned());
    Action::Fill { bytes: hole.bytes, offsets, from: other.path.clone() }
}

/// What is wrong with a part, if it is bad.
fn why_of(part: &Part) -> Option<&Why> {
    part.label.bad().map(|(why, _)| why)
}

fn bad_parts(map: &SegmentMap) -> usize {
    map.bad().count()
}
