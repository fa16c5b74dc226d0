//! The segments of an open log, by base.
//!
//! A segment below the mark that nobody has used yet is its base and nothing else: its name follows from it, and
//! it ends where the next one begins. Whoever wants to use one is given a [`Segment`], whose facts are
//! found out by the first look at the file (`super::first_look`) and kept from then on.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tidelog_wire::ids::Offset;

use super::shared::{Segment, SegmentFacts};
use crate::locks::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct Segments {
    /// The log's directory.
    dir: Arc<PathBuf>,
    /// `None`: nobody has used it.
    by_base: BTreeMap<Offset, Option<Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir: Arc::new(dir), by_base: BTreeMap::new() }
    }

    pub(crate) const fn dir(&self) -> &Arc<PathBuf> {
        &self.dir
    }

    /// Takes in a segment whose facts are known.
    pub(crate) fn add(&mut self, base: Offset, facts: SegmentFacts) -> Arc<Segment> {
        let segment = Arc::new(Segment::new(base, &self.dir, facts));
        self.by_base.insert(base, Some(Arc::clone(&segment)));
        segment
    }

    /// Takes in a segment below the mark, to be looked at when it is used.
    pub(crate) fn defer(&mut self, base: Offset) {
        self.by_base.insert(base, None);
    }

    pub(crate) fn remove(&mut self, base: Offset) {
        self.by_base.remove(&base);
    }

    pub(crate) fn len(&self) -> usize {
        self.by_base.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_base.is_empty()
    }

    /// The base of the first segment above `offset`.
    pub(crate) fn next_base(&self, offset: Offset) -> Option<Offset> {
        self.by_base.range(offset.plus(1)..).next().map(|(base, _)| *base)
    }

    /// The base of the last segment below `offset`.
    pub(crate) fn base_before(&self, offset: Offset) -> Option<Offset> {
        self.by_base.range(..offset).next_back().map(|(base, _)| *base)
    }

    /// The bases of those that begin between two offsets.
    pub(crate) fn bases_within(&self, from: Offset, to: Offset) -> Vec<Offset> {
        let behind = from.plus(1);
        if behind >= to {
            Vec::new()
        } else {
            self.by_base.range(behind..to).map(|(base, _)| *base).collect()
        }
    }

    pub(crate) fn contains(&self, base: Offset) -> bool {
        self.by_base.contains_key(&base)
    }

    /// The last segment that begins at or below `offset`; `log_end` is where the last of the log ends.
    pub(crate) fn at_or_below(&mut self, offset: Offset, log_end: Offset) -> Option<Arc<Segment>> {
        let base = self.by_base.range(..=offset).next_back().map(|(base, _)| *base)?;
        self.get(base, log_end)
    }

    /// The segment that begins at `base`.
    pub(crate) fn get(&mut self, base: Offset, log_end: Offset) -> Option<Arc<Segment>> {
        let end = self.next_base(base).unwrap_or(log_end);
        let (slot, dir) = (self.by_base.get_mut(&base)?, &self.dir);
        let unseen = || Arc::new(Segment::new(base, dir, SegmentFacts::unseen(end)));
        Some(Arc::clone(slot.get_or_insert_with(unseen)))
    }

    /// The segments that somebody has used, newest first, up to the first that nobody has.
    pub(crate) fn used_newest_first(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.by_base.values().rev().map_while(Option::as_ref)
    }

    /// The last segment, if it has been used.
    pub(crate) fn last_used(&self) -> Option<&Arc<Segment>> {
        self.used_newest_first().next()
    }

    /// Base and end of the segments that end at or below `offset`.
    pub(crate) fn ended_by(&self, offset: Offset, log_end: Offset) -> Vec<(Offset, Offset)> {
        let mut ended = Vec::new();
        let mut rest = self.by_base.iter().peekable();
        while let Some((base, segment)) = rest.next() {
            let next = rest.peek().map_or(log_end, |(next, _)| **next);
            let end = segment.as_ref().map_or(next, |segment| segment.facts().end);
            if *base > offset {
                break;
            }
            if end <= offset {
                ended.push((*base, end));
            }
        }
        ended
    }
}
