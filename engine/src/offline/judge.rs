//! Judging what was labelled: torn or damaged, padding or zeros, and what the file lacks.
//!
//! The rule is recovery's. Above the durable mark the first byte that does not verify begins a torn tail, whatever lies
//! behind it; below the mark every hole is damage, and costs only itself.

use std::ops::Range;

use tidelog_wire::ids::Offset;

use super::label::{Label, Part, SegmentMap, Why};
use super::map::{Mapping, Promise, SealFound};
use crate::segment::summary::FIRST_FRAME;

impl Mapping<'_> {
    pub(super) fn finish(mut self, seal_found: SealFound) -> SegmentMap {
        let mark = match self.context.promise {
            Promise::All => u64::MAX,
            Promise::UpTo(position) => position.get(),
            Promise::Witnessed(_) if seal_found == SealFound::Yes => u64::MAX,
            Promise::Witnessed(position) => position.max(self.witnessed).get(),
        };
        self.tell_torn_from_damaged(mark);
        self.padding_below(mark);
        let standing = self.parts.iter().rev().find_map(|part| part.label.frames());
        let standing = standing.map(|(records, chain)| (records.end, Some(chain)));
        let (end, chain) = standing.unwrap_or((self.summary.base, self.chain_start));
        self.find_lacking(end, seal_found);
        SegmentMap {
            len: self.len,
            header: self.header,
            footer: self.sealed,
            parts: self.parts,
            lacks: self.lacks,
            tag: self.owner,
            end,
            chain,
            consensus: self.consensus,
            whole: self.whole.then_some(self.summary),
        }
    }

    /// The first bad part above the mark, and all behind it, is a torn tail.
    fn tell_torn_from_damaged(&mut self, mark: u64) {
        let is_torn = |part: &Part| {
            let above = part.bytes.start >= mark.max(FIRST_FRAME.get()) && mark < u64::MAX;
            part.label.is_bad() && (above || (mark == 0 && part.bytes.start == 0 && self.tears_header()))
        };
        if let Some(at) = self.parts.iter().position(is_torn) {
            let torn: Vec<Part> = self.parts.drain(at..).collect();
            if let Some(Part { bytes, label: Label::Damage { why, .. } | Label::Foreign { why, .. } }) =
                torn.into_iter().next()
            {
                self.push(bytes.start..self.len, Label::TornTail { why });
            }
            return;
        }
        // A last hole that begins below the mark and ends above it: only what lies below was promised.
        if let Some(part) = self.parts.last_mut()
            && let Label::Damage { why, .. } = &part.label
            && part.bytes.contains(&mark)
            && part.bytes.start < mark
        {
            let (end, why) = (part.bytes.end, why.clone());
            part.bytes.end = mark;
            self.push(mark..end, Label::TornTail { why });
        }
    }

    /// A bad header makes a file worthless that nobody was promised, or that has no frame.
    fn tears_header(&self) -> bool {
        let framed = self.parts.iter().any(|part| matches!(part.label, Label::Frames { .. }));
        matches!(self.context.promise, Promise::UpTo(_)) || !framed
    }

    /// Zeros below the mark are no padding.
    fn padding_below(&mut self, mark: u64) {
        let last = self.parts.iter().rev().find_map(|part| part.label.frames());
        let from = last.map_or(self.summary.base, |(records, _)| records.end);
        let known_end = self.sealed.map(|footer| footer.last_offset.plus(1)).or(self.context.end);
        let offsets = known_end.filter(|end| *end > from).map(|end| from..end);
        let Some(at) = self.parts.iter().position(|part| part.label == Label::Padding) else { return };
        let Some(part) = self.parts.get_mut(at) else { return };
        let promised = match self.context.promise {
            Promise::All => offsets.is_some(),
            Promise::UpTo(_) | Promise::Witnessed(_) => true,
        };
        if !promised || part.bytes.start >= mark {
            return;
        }
        let (bad, rest) = (part.bytes.start..part.bytes.end.min(mark), mark..part.bytes.end);
        let damage = Part { bytes: bad, label: Label::Damage { why: Why::Zeros, offsets } };
        let padding = Part { bytes: rest, label: Label::Padding };
        let replaced = [damage, padding].into_iter().filter(|part| part.bytes.start < part.bytes.end);
        self.parts.splice(at..=at, replaced);
    }

    /// What should be there behind the end of the file.
    fn find_lacking(&mut self, end: Offset, seal_found: SealFound) {
        let mut behind = self.parts.iter().rev().take_while(|part| part.label.frames().is_none());
        let named = behind.any(|part| part.label.bad().is_some_and(|(_, offsets)| offsets.is_some()));
        let lost = self.context.end.filter(|until| *until > end && !named).map(|until| end..until);
        let lack =
            |bytes: Range<u64>, why, offsets| Some(Part { bytes, label: Label::Damage { why, offsets } });
        self.lacks = match self.context.promise {
            Promise::UpTo(position) | Promise::Witnessed(position) if self.len < position.get() => {
                lack(self.len..position.get(), Why::CutShort, lost)
            }
            Promise::UpTo(_) | Promise::Witnessed(_) => None,
            Promise::All if self.sealed.is_none() && lost.is_some() => {
                lack(self.len..self.len, Why::CutShort, lost)
            }
            Promise::All if self.context.end == Some(end) && seal_found != SealFound::Yes => {
                let from = match seal_found {
                    SealFound::Begun => self.len,
                    SealFound::Yes | SealFound::No => self.summary.end_position.get(),
                };
                lack(from..self.summary.sealed_len().max(from), Why::NoFooter, None)
            }
            Promise::All => None,
        };
    }
}
