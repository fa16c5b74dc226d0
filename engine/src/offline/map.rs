//! Labelling every byte of one segment file.
//!
//! 1. A header that names another log, base offset or cluster makes the whole file foreign; so does a header or footer of a
//!    newer release.
//! 2. The frames are walked with everything verified. What does not verify is a hole up to the next frame that does, or up
//!    to where the frames end; holes are kept apart, so that one costs no more than itself.
//! 3. Index and footer must be those that follow from the frames. If they are not, the bytes that differ are named.
//! 4. The first hole above the durable mark, and everything behind it, is a torn tail; every other hole is damage.
//!
//! The parts touch and their lengths sum to the file's: property-tested over random damage.

use std::io;
use std::ops::Range;

use tidelog_wire::ids::{Chain, ClusterId, LogId, Offset};

use super::evidence;
use super::label::{Label, Part, SegmentMap, Why};
use crate::fields::{narrow, wide};
use crate::log::locate::{load_footer, load_sealed, take_in};
use crate::log::recovery::files::is_zeros;
use crate::segment::footer::{FOOTER_BYTES, Footer, FooterFault};
use crate::segment::frame::FrameFault;
use crate::segment::header::{HeaderFault, SegmentHeader};
use crate::segment::summary::{FIRST_FRAME, Summary};
use crate::segment::walk::{Depth, Expected, Step, Walk, Walked};
use crate::segment::{LogTag, header_of};
use crate::storage::{File, Position};

/// What is known of a file from elsewhere: its name, its neighbours, a checkpoint. All of it may be missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The cluster it should belong to.
    pub cluster: Option<ClusterId>,
    /// The log it should belong to.
    pub log: Option<LogId>,
    /// The first offset that its name states.
    pub base: Option<Offset>,
    /// Chain before `base`, as the segment before it ends; used if the header does not verify.
    pub chain_start: Option<Chain>,
    /// Where its promised records end: the base of the next segment, or the end in the checkpoint.
    pub end: Option<Offset>,
    /// How much of it was promised.
    pub promise: Promise,
    /// A run of frames ends here even if it goes on.
    pub split: Option<Position>,
    /// How fine the labels are.
    pub detail: Detail,
}

/// How far a file was once durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// All of it.
    All,
    /// Up to here and no further, whatever the file says: a checkpoint, above which the raft log has everything.
    UpTo(Position),
    /// At least up to here; a footer or a frame's `synced_to` may witness more.
    Witnessed(Position),
}

impl Default for Promise {
    fn default() -> Self {
        Self::Witnessed(Position::ZERO)
    }
}

/// How fine the labels are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Frames that follow each other are one part.
    #[default]
    Runs,
    /// Each frame is a part of its own.
    EachFrame,
}

/// Labels every byte of `file`.
///
/// # Errors
/// The system's, from reading. Whatever the bytes are, they have labels.
pub fn map(file: &dyn File, context: &Context) -> io::Result<SegmentMap> {
    let len = file.len()?;
    let found = header_of(file)?;
    if let Some(why) = foreign_file(&found, context) {
        return Ok(wholly_foreign(len, found.ok(), why, context));
    }
    let guess = evidence::first_frame(file, len)?;
    let owner = match (context.cluster, context.log, &found) {
        (Some(cluster), Some(log), _) => Some(LogTag::of(cluster, log)),
        (_, _, Ok(header)) => Some(LogTag::of(header.cluster, header.log)),
        (_, _, Err(_)) => guess.map(|(tag, _)| tag),
    };
    let tag = owner.unwrap_or(LogTag(0));
    let header = found.ok();
    let base = context.base.or(header.map(|header| header.base)).or(guess.map(|(_, base)| base));
    let base = base.unwrap_or_default();
    let chain_start = header.map(|header| header.chain_start).or(context.chain_start);
    let outline = match load_footer(file, tag)? {
        Err(fault @ FooterFault::UnknownFormat { .. }) => {
            return Ok(wholly_foreign(len, header, Why::Footer(fault), context));
        }
        outline => outline.ok(),
    };
    let sealed = load_sealed(file, tag)?.ok().map(|(footer, _)| footer);
    let limit = outline.map_or(len, |footer| footer.index_position.get());
    let mut mapping = Mapping {
        file,
        context,
        owner,
        tag,
        len,
        limit,
        sealed,
        header,
        parts: Vec::new(),
        summary: Summary::new(base, chain_start.unwrap_or_default()),
        chain_start,
        whole: true,
        witnessed: Position::ZERO,
        consensus: None,
        lacks: None,
    };
    mapping.header_part(found);
    mapping.frames()?;
    let seal_found = mapping.seal(outline.is_some())?;
    mapping.assign_offsets();
    evidence::name_displaced(file, tag, &mut mapping.parts)?;
    Ok(mapping.finish(seal_found))
}

/// Why the whole file has no place here, if its header says so.
fn foreign_file(found: &Result<SegmentHeader, HeaderFault>, context: &Context) -> Option<Why> {
    match found {
        Ok(header) => {
            let other = context.cluster.is_some_and(|cluster| cluster != header.cluster)
                || context.log.is_some_and(|log| log != header.log)
                || context.base.is_some_and(|base| base != header.base);
            other.then_some(Why::OtherSegment { cluster: header.cluster, log: header.log, base: header.base })
        }
        Err(HeaderFault::UnknownFormat { found }) => {
            Some(Why::Header(HeaderFault::UnknownFormat { found: *found }))
        }
        Err(
            HeaderFault::Short | HeaderFault::Magic | HeaderFault::Checksum { .. } | HeaderFault::Reserved,
        ) => None,
    }
}

fn wholly_foreign(len: u64, header: Option<SegmentHeader>, why: Why, context: &Context) -> SegmentMap {
    let base = context.base.unwrap_or_default();
    let offsets = context.end.filter(|end| *end > base).map(|end| base..end);
    SegmentMap {
        len,
        header,
        footer: None,
        parts: vec![Part { bytes: 0..len, label: Label::Foreign { why, offsets } }],
        lacks: None,
        tag: None,
        end: base,
        chain: None,
        consensus: None,
        whole: None,
    }
}

/// Whether the bytes behind the frames are, or were, index and footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SealFound {
    /// They are, or were before they were damaged.
    Yes,
    /// A beginning of them, and no more.
    Begun,
    /// They are something else.
    No,
}

/// A file being labelled.
pub(super) struct Mapping<'a> {
    pub(super) file: &'a dyn File,
    pub(super) context: &'a Context,
    pub(super) owner: Option<LogTag>,
    /// The same; one that no frame has, if there is none.
    pub(super) tag: LogTag,
    pub(super) len: u64,
    /// Where the frames end at the latest.
    pub(super) limit: u64,
    pub(super) sealed: Option<Footer>,
    pub(super) header: Option<SegmentHeader>,
    pub(super) parts: Vec<Part>,
    pub(super) summary: Summary,
    pub(super) chain_start: Option<Chain>,
    /// No hole before the last frame.
    pub(super) whole: bool,
    /// The highest `synced_to` of all frames.
    pub(super) witnessed: Position,
    pub(super) consensus: Option<bool>,
    pub(super) lacks: Option<Part>,
}

impl Mapping<'_> {
    pub(super) fn push(&mut self, bytes: Range<u64>, label: Label) {
        if bytes.start < bytes.end {
            self.parts.push(Part { bytes, label });
        }
    }

    fn hole(&mut self, bytes: Range<u64>, why: Why) {
        self.push(bytes, Label::Damage { why, offsets: None });
    }

    fn header_part(&mut self, found: Result<SegmentHeader, HeaderFault>) {
        let end = self.len.min(FIRST_FRAME.get());
        match found {
            Ok(_) => self.push(0..end, Label::Header),
            Err(fault) => self.push(0..end, Label::Damage { why: Why::Header(fault), offsets: None }),
        }
    }

    /// Walks everything between the header and where the frames end.
    fn frames(&mut self) -> io::Result<()> {
        let expected = self.chain_start.map(|chain| Expected { offset: self.summary.base, chain });
        let (file, tag, limit) = (self.file, self.tag, self.limit);
        let mut at = FIRST_FRAME.get();
        let mut steps = Walk::new(file, tag, Depth::Full, Position(at), limit, expected);
        while at < limit {
            let why = match steps.step()? {
                Step::Frame(walked) => {
                    at = walked.end().get();
                    take(self, &walked);
                    continue;
                }
                Step::End if limit == self.len && is_zeros(file, Position(at), limit)? => {
                    self.push(at..limit, Label::Padding);
                    return Ok(());
                }
                Step::End => Why::Zeros,
                Step::Fault(FrameFault::Tag { found, .. }) => {
                    let end = evidence::frame_end(file, at, limit)?;
                    self.push(at..end, Label::Foreign { why: Why::OtherFrame { tag: found }, offsets: None });
                    at = end;
                    steps = Walk::new(file, tag, Depth::Full, Position(at), limit, None);
                    continue;
                }
                Step::Fault(fault) => Why::Frame(fault),
            };
            let next = loop {
                match steps.resync()? {
                    Some(walked) if walked.begins() < self.summary.end => {}
                    found => break found,
                }
            };
            let Some(walked) = next else {
                self.hole(at..limit, why);
                return Ok(());
            };
            self.hole(at..walked.position.get(), why);
            at = walked.end().get();
            take(self, &walked);
        }
        Ok(())
    }

    /// Labels what lies behind the frames.
    fn seal(&mut self, outlined: bool) -> io::Result<SealFound> {
        let frames_end = self.summary.end_position.get();
        let holes = |part: &&Part| part.label.is_bad() && part.bytes.start >= FIRST_FRAME.get();
        let has_holes = self.parts.iter().any(|part| holes(&part));
        self.whole = !self.parts.iter().filter(holes).any(|part| part.bytes.start < frames_end);
        if self.whole && self.summary.end > self.summary.base {
            let seal = self.summary.seal_bytes(self.tag);
            let tail_len = self.len.saturating_sub(frames_end);
            let mut tail = vec![0; narrow(tail_len.min(wide(seal.len())))];
            self.file.read_at(Position(frames_end), &mut tail)?;
            let same = tail.iter().zip(&seal).filter(|(one, other)| one == other).count();
            let as_long = tail_len == wide(seal.len());
            if as_long && same.saturating_mul(2) >= seal.len() {
                self.drop_from(frames_end);
                self.seal_parts(frames_end, &tail, &seal);
                return Ok(SealFound::Yes);
            }
            if tail_len > 0 && tail_len < wide(seal.len()) && same == tail.len() {
                self.drop_from(frames_end);
                self.seal_parts(frames_end, &tail, &seal);
                return Ok(SealFound::Begun);
            }
        }
        match self.sealed {
            Some(footer) => {
                // Every frame is whole and the seal is not theirs, or there are holes: then its checksum must do.
                let agrees = has_holes && self.last_frame_agrees(&footer);
                if agrees || self.summary.end == self.summary.base {
                    let index_end = self.len.saturating_sub(wide(FOOTER_BYTES));
                    self.push(self.limit..index_end, Label::Index { entries: footer.index_entries });
                    self.push(index_end..self.len, Label::Footer);
                } else {
                    self.push(self.limit..self.len, Label::Damage { why: Why::Seal, offsets: None });
                }
                Ok(SealFound::Yes)
            }
            None if outlined => {
                self.push(self.limit..self.len, Label::Damage { why: Why::Seal, offsets: None });
                Ok(SealFound::Yes)
            }
            None => Ok(SealFound::No),
        }
    }

    /// If the last frames are behind a hole, whether they come to what the footer says.
    fn last_frame_agrees(&self, footer: &Footer) -> bool {
        match self.parts.last() {
            Some(Part { label: Label::Frames { records, chain, .. }, .. }) => {
                *chain == footer.chain_end && records.end == footer.last_offset.plus(1)
            }
            Some(_) | None => true,
        }
    }

    fn drop_from(&mut self, position: u64) {
        self.parts.retain(|part| part.bytes.start < position);
    }

    /// Index and footer as they are, with the bytes that differ from `seal` as damage.
    fn seal_parts(&mut self, at: u64, tail: &[u8], seal: &[u8]) {
        let entries = u32::try_from(self.summary.index.len()).unwrap_or(u32::MAX);
        let footer_at = at.saturating_add(wide(seal.len().saturating_sub(FOOTER_BYTES)));
        let end = at.saturating_add(wide(tail.len()));
        let differs: Vec<u64> = (at..)
            .zip(tail.iter().zip(seal))
            .filter_map(|(place, (one, other))| (one != other).then_some(place))
            .collect();
        let bad = match (differs.first(), differs.last()) {
            (Some(first), Some(last)) => *first..last.saturating_add(1),
            (_, _) => end..end,
        };
        for good in [at..bad.start, bad.end..end] {
            if good.start == bad.end {
                self.push(bad.clone(), Label::Damage { why: Why::Seal, offsets: None });
            }
            self.push(good.start..good.end.min(footer_at), Label::Index { entries });
            self.push(good.start.max(footer_at)..good.end, Label::Footer);
        }
    }

    /// Says of each hole which records should be in it: those between the frames around it.
    fn assign_offsets(&mut self) {
        let behind_all = match self.sealed {
            Some(footer) => Some(footer.last_offset.plus(1)),
            None => self.context.end,
        };
        let mut next = behind_all;
        let mut begins: Vec<Option<Offset>> = Vec::new();
        for part in self.parts.iter().rev() {
            begins.push(next);
            if let Label::Frames { records, .. } = &part.label {
                next = Some(records.start);
            }
        }
        let mut from = self.summary.base;
        for (part, next) in self.parts.iter_mut().zip(begins.into_iter().rev()) {
            match &mut part.label {
                Label::Frames { records, .. } => from = records.end,
                Label::Damage { why: Why::Header(_) | Why::Seal, .. } => {}
                Label::Damage { offsets, .. } | Label::Foreign { offsets, .. } => {
                    *offsets = next.filter(|next| *next > from).map(|next| from..next);
                }
                Label::Header
                | Label::Padding
                | Label::Index { .. }
                | Label::Footer
                | Label::TornTail { .. } => {}
            }
        }
    }
}

/// Adds a frame that verified to the last run, or begins another one.
fn take(mapping: &mut Mapping<'_>, walked: &Walked) {
    take_in(&mut mapping.summary, walked);
    mapping.witnessed = mapping.witnessed.max(walked.header.synced_to);
    if walked.batch.is_some() {
        mapping.consensus = Some(walked.header.raft_index.get() != 0);
    }
    let (start, end) = (walked.position.get(), walked.end().get());
    let goes_on = mapping.context.detail == Detail::Runs && mapping.context.split != Some(walked.position);
    if let Some(Part { bytes, label: Label::Frames { count, records, chain } }) = mapping.parts.last_mut()
        && goes_on
        && bytes.end == start
    {
        bytes.end = end;
        *count = count.saturating_add(1);
        records.end = mapping.summary.end;
        *chain = walked.header.chain;
        return;
    }
    let label =
        Label::Frames { count: 1, records: walked.begins()..mapping.summary.end, chain: walked.header.chain };
    mapping.push(start..end, label);
}
