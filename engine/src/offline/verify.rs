//! What is damaged, in every file and between the files of a log.
//!
//! 1. Which segments were promised, and how far, follows from the checkpoint if one names the log; else a segment that has
//!    a successor was promised whole.
//! 2. Each file is mapped; its damaged and foreign parts are findings.
//! 3. The files are held against each other: no offset missing between two, none twice, and each begins with the chain that
//!    the one before it ends with. What the checkpoint says of the log's end must be true of the files.
//!
//! A range that the disk refuses is read around, as the engine does. What lies below the log's start is looked at too and
//! told apart: nobody may ask for it any more.
//!
//! A torn tail is no damage: it is told apart, and the next start sets it aside.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tidelog_wire::ids::{Chain, LogId, Offset};

use super::label::{Label, SegmentMap, Why};
use super::map::{Context, Detail, Promise, map};
use super::target::{Known, LogFiles, NOWHERE, SegmentPath, Target, active_position, finding};
use crate::checkpoint::LogState;
use crate::segment;
use crate::segment::salvage::Salvage;
use crate::storage::{OpenMode, Position, Storage};

/// One damaged range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which file.
    pub path: PathBuf,
    /// Which log it is part of.
    pub log: Option<LogId>,
    /// Which of its bytes. Those that lie behind the end of the file are missing.
    pub bytes: Range<u64>,
    /// The records that are lost with them, if any.
    pub offsets: Option<Range<Offset>>,
    /// What is wrong.
    pub why: Why,
}

/// What nothing at hand says of a log, so that it was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotJudged {
    /// How far a log with a raft log behind it was durable.
    #[error(
        "no checkpoint at hand says how far it was durable: a tail that does not verify counts as torn, and segments that are missing at its beginning or its end do not show"
    )]
    Ends,
    /// The same, of its last segment alone.
    #[error("no checkpoint at hand says how far it was durable: a tail that does not verify counts as torn")]
    Tail,
    /// Where an embedded log starts that does not start with its first record.
    #[error(
        "no checkpoint at hand says that it starts at offset {first}: segments that are missing before do not show"
    )]
    Start {
        /// Where its first segment begins.
        first: Offset,
    },
}

/// A log that could not be judged in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unjudged {
    /// Its directory, or the file that was asked about.
    pub path: PathBuf,
    /// Which log.
    pub log: Option<LogId>,
    /// What was not judged.
    pub what: NotJudged,
}

/// What verifying came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// What is damaged, by file.
    pub damage: Vec<Finding>,
    /// What a crash left above the durable mark: no damage.
    pub torn: Vec<Finding>,
    /// What is wrong in segments below the start of their log: no damage either, they are about to be unlinked.
    pub below_start: Vec<Finding>,
    /// Logs of which not everything could be judged, for want of a checkpoint.
    pub not_judged: Vec<Unjudged>,
    /// Files looked at.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One log, looked through.
#[derive(Clone, Debug, Default)]
pub struct LogVerdict {
    /// What is damaged.
    pub damage: Vec<Finding>,
    /// Torn tails.
    pub torn: Vec<Finding>,
    /// What is wrong below the log's start: no damage, since nobody may ask for it any more.
    pub below_start: Vec<Finding>,
    /// What of it could not be judged.
    pub not_judged: Option<Unjudged>,
    /// The segments that were looked at, each with what was known of it and its map.
    pub maps: Vec<(SegmentPath, Context, SegmentMap)>,
}

/// Looks through everything at a target. `progress` is told the bytes of each file that is done.
pub fn verify(storage: &dyn Storage, target: &Target, progress: &mut dyn FnMut(u64)) -> Verified {
    let mut verified = Verified { damage: target.findings.clone(), ..Verified::default() };
    for files in &target.logs {
        let verdict = verify_log(storage, files, Detail::Runs, progress);
        verified.damage.extend(verdict.damage);
        verified.torn.extend(verdict.torn);
        verified.below_start.extend(verdict.below_start);
        verified.not_judged.extend(verdict.not_judged);
    }
    verified.files = target.files();
    verified.bytes = target.bytes();
    verified
}

/// Looks through the files of one log.
pub fn verify_log(
    storage: &dyn Storage,
    files: &LogFiles,
    detail: Detail,
    progress: &mut dyn FnMut(u64),
) -> LogVerdict {
    let mut look = Look::new(files);
    for (at, found) in files.segments.iter().enumerate() {
        look.segment(storage, at, found, detail);
        if files.is_asked(found.base) {
            progress(found.len);
        }
    }
    look.end_of_log();
    let verdict = &mut look.verdict;
    verdict.damage.retain(|finding| is_asked(files, &finding.path));
    verdict.torn.retain(|finding| is_asked(files, &finding.path));
    verdict.below_start.retain(|finding| is_asked(files, &finding.path));
    verdict.maps.retain(|(found, _, _)| files.is_asked(found.base));
    verdict.not_judged = not_judged(files, verdict);
    look.verdict
}

/// What only a checkpoint could have said of these files, where there is none. An embedded engine needs none to find the end, and
/// none for the start before the first trim.
fn not_judged(files: &LogFiles, verdict: &LogVerdict) -> Option<Unjudged> {
    if files.known != Known::Nothing {
        return None;
    }
    let of = |path: &Path, what| Some(Unjudged { path: path.to_path_buf(), log: files.log, what });
    match (files.only, files.segments.first()) {
        (Some(_), _) => {
            let (segment, context, map) = verdict.maps.first()?;
            let is_open = matches!(context.promise, Promise::Witnessed(_)) && map.footer.is_none();
            if files.consensus && is_open { of(&segment.path, NotJudged::Tail) } else { None }
        }
        (None, Some(_)) if files.consensus => of(&files.dir, NotJudged::Ends),
        (None, Some(first)) if first.base > Offset::ZERO => {
            of(&files.dir, NotJudged::Start { first: first.base })
        }
        (None, _) => None,
    }
}

/// Whether a file is among those that are asked about.
pub(super) fn is_asked(files: &LogFiles, path: &Path) -> bool {
    files
        .only
        .is_none_or(|only| files.segments.iter().any(|segment| segment.base == only && segment.path == path))
}

/// What the checkpoint says, if one names the log.
fn state_of(files: &LogFiles) -> Option<(&LogState, bool)> {
    match &files.known {
        Known::Checkpoint { state, consensus } => Some((state, *consensus)),
        Known::Nothing | Known::Unnamed => None,
    }
}

/// Where the log has come to.
struct Cursor {
    offset: Offset,
    chain: Option<Chain>,
}

/// A log, being looked through segment by segment.
pub(super) struct Look<'a> {
    files: &'a LogFiles,
    state: Option<(&'a LogState, bool)>,
    pub(super) verdict: LogVerdict,
    /// `None` before the first segment, if nothing says where the log starts.
    cursor: Option<Cursor>,
    /// A segment was mapped that does not lie below the start.
    has_before: bool,
}

impl<'a> Look<'a> {
    pub(super) fn new(files: &'a LogFiles) -> Self {
        let mut look = Self {
            files,
            state: state_of(files),
            verdict: LogVerdict::default(),
            cursor: None,
            has_before: false,
        };
        for entry in &files.strangers {
            look.find(&files.dir.join(&entry.name), NOWHERE, None, Why::Name);
        }
        look
    }

    /// Goes over a segment unread; `next` is the base of the one behind it.
    pub(super) fn skip(&mut self, next: Offset) {
        self.cursor = Some(Cursor { offset: next, chain: None });
    }
}

impl Look<'_> {
    fn find(&mut self, path: &Path, bytes: Range<u64>, offsets: Option<Range<Offset>>, why: Why) {
        let log = self.files.log;
        self.verdict.damage.push(Finding { path: path.to_path_buf(), log, bytes, offsets, why });
    }

    /// How much of a segment was promised, and where its promised records end.
    fn promise(&self, at: usize, found: &SegmentPath) -> (Promise, Option<Offset>) {
        let next = self.files.next_base(at);
        match self.state {
            Some((state, true)) => match active_position(state) {
                Some((base, position)) if base == found.base => (Promise::UpTo(position), Some(state.end)),
                Some((base, _)) if found.base < base => {
                    (Promise::All, Some(next.map_or(base, |next| next.min(base))))
                }
                None if found.base < state.end => {
                    (Promise::All, Some(next.map_or(state.end, |next| next.min(state.end))))
                }
                Some(_) | None => (Promise::UpTo(Position::ZERO), next),
            },
            None if self.files.consensus && self.files.known == Known::Unnamed => {
                (Promise::UpTo(Position::ZERO), next)
            }
            Some((_, false)) | None if next.is_some() => (Promise::All, next),
            Some((state, false)) => {
                let known = active_position(state).filter(|(base, _)| *base == found.base);
                let end = known.map(|_| state.end);
                (Promise::Witnessed(known.map_or(Position::ZERO, |(_, position)| position)), end)
            }
            None => (Promise::default(), None),
        }
    }

    pub(super) fn segment(&mut self, storage: &dyn Storage, at: usize, found: &SegmentPath, detail: Detail) {
        let (promise, end) = self.promise(at, found);
        let start = self.state.map(|(state, _)| state.start);
        if promise == Promise::All && end.is_some_and(|end| start.is_some_and(|start| end <= start)) {
            self.below_start(storage, found, end, detail);
            return;
        }
        let promised = promise != Promise::UpTo(Position::ZERO);
        let cursor = self.cursor.take().or(start.map(|offset| Cursor { offset, chain: None }));
        if let Some(cursor) = &cursor
            && promised
            && found.base > cursor.offset
        {
            let path = self.files.dir.join(segment::file_name(cursor.offset));
            self.find(&path, NOWHERE, Some(cursor.offset..found.base), Why::Missing);
        }
        let before =
            cursor.as_ref().filter(|cursor| cursor.offset == found.base).and_then(|cursor| cursor.chain);
        let context = Context {
            cluster: self.files.cluster,
            log: self.files.log,
            base: Some(found.base),
            chain_start: before.or((found.base == Offset::ZERO).then_some(Chain::default())),
            end,
            promise,
            split: self.state.and_then(|(state, _)| active_position(state)).map(|(_, position)| position),
            detail,
        };
        let map = match mapped(storage, &found.path, &context) {
            Ok(map) => map,
            Err(error) => {
                let offsets = end.filter(|end| *end > found.base).map(|end| found.base..end);
                self.find(&found.path, 0..found.len, offsets, Why::unreadable(&error));
                self.cursor = Some(Cursor { offset: end.unwrap_or(found.base), chain: None });
                return;
            }
        };
        self.take_parts(found, &map);
        if promised {
            self.against_the_one_before(found, &map, cursor.as_ref());
        }
        self.cursor = Some(behind(&map, end, promise));
        self.verdict.maps.push((found.clone(), context, map));
        self.has_before = true;
    }

    /// Trimmed, and about to be unlinked: nobody may ask for it any more, so whatever is wrong with it is no damage.
    fn below_start(
        &mut self,
        storage: &dyn Storage,
        found: &SegmentPath,
        end: Option<Offset>,
        detail: Detail,
    ) {
        let (cluster, log) = (self.files.cluster, self.files.log);
        let base = Some(found.base);
        let context =
            Context { cluster, log, base, end, promise: Promise::All, detail, ..Context::default() };
        match mapped(storage, &found.path, &context) {
            Ok(map) => {
                let bad = map.bad().filter_map(|part| finding(&found.path, log, part));
                self.verdict.below_start.extend(bad);
                self.verdict.maps.push((found.clone(), context, map));
            }
            Err(error) => {
                let (path, why) = (found.path.clone(), Why::unreadable(&error));
                let unread = Finding { path, log, bytes: 0..found.len, offsets: None, why };
                self.verdict.below_start.push(unread);
            }
        }
    }

    fn take_parts(&mut self, found: &SegmentPath, map: &SegmentMap) {
        for part in &map.parts {
            let taken = finding(&found.path, self.files.log, part);
            if part.label.is_bad() {
                self.verdict.damage.extend(taken);
            } else {
                self.verdict.torn.extend(taken);
            }
        }
        if let Some(lacks) = &map.lacks {
            self.verdict.damage.extend(finding(&found.path, self.files.log, lacks));
        }
    }

    fn against_the_one_before(&mut self, found: &SegmentPath, map: &SegmentMap, cursor: Option<&Cursor>) {
        let Some(cursor) = cursor else { return };
        let foreign = map.parts.first().is_some_and(|part| matches!(part.label, Label::Foreign { .. }));
        if foreign {
            return;
        }
        if cursor.offset > found.base && self.has_before {
            self.find(&found.path, 40..48, None, Why::Overlap { base: found.base, end: cursor.offset });
        }
        if let (Some(expected), Some(header)) = (cursor.chain, map.header)
            && cursor.offset == found.base
            && expected != header.chain_start
        {
            let why = Why::ChainBreak { expected: expected.get(), found: header.chain_start.get() };
            self.find(&found.path, 48..56, None, why);
        }
    }

    /// Holds the end of the log against the checkpoint.
    pub(super) fn end_of_log(&mut self) {
        let Some((state, consensus)) = self.state else { return };
        let active = active_position(state);
        let from = self.cursor.as_ref().map_or(state.start, |cursor| cursor.offset);
        let is_here = |base: Offset| self.files.segments.iter().any(|segment| segment.base == base);
        let lost = match active {
            // A file that is there says itself what it lacks.
            Some((base, _)) if is_here(base) => false,
            Some(_) if consensus => true,
            Some(_) | None => from < state.end,
        };
        if lost {
            let path = self.files.dir.join(segment::file_name(from));
            self.find(&path, NOWHERE, Some(from..state.end), Why::Missing);
        }
        self.against_the_checkpoint(state);
    }

    /// The chain that the checkpoint states must be that of the files in the same place.
    fn against_the_checkpoint(&mut self, state: &LogState) {
        let active = active_position(state);
        let mut broken = Vec::new();
        for (found, _, map) in &self.verdict.maps {
            let place = match active {
                Some((base, position)) if base == found.base => Some(position.get()),
                None if map.footer.is_some() && map.end == state.end => None,
                Some(_) | None => continue,
            };
            let whole = |until: u64| map.bad().all(|part| part.bytes.start >= until);
            let there = map.parts.iter().find_map(|part| {
                let (records, chain) = part.label.frames()?;
                let here = place.map_or(records.end == state.end, |place| place == part.bytes.end);
                here.then_some((records.end, chain))
            });
            let bytes = place.map_or(found.len..found.len, |place| place..place);
            if there != Some((state.end, state.chain)) && whole(place.unwrap_or(found.len)) {
                let found_chain = there.map(|(_, chain)| chain.get());
                let why =
                    Why::Checkpoint { offset: state.end, expected: state.chain.get(), found: found_chain };
                broken.push((found.path.clone(), bytes, why));
            }
        }
        for (path, bytes, why) in broken {
            self.find(&path, bytes, None, why);
        }
    }
}

/// Maps a file around what the disk refuses of it, and says of that what the system said.
fn mapped(storage: &dyn Storage, path: &Path, context: &Context) -> io::Result<SegmentMap> {
    let file = Salvage::new(storage.open(path, OpenMode::Read)?);
    let mut map = map(&file, context)?;
    name_refused(&mut map, &file);
    Ok(map)
}

/// Says of what the system refused what it said.
pub(super) fn name_refused(map: &mut SegmentMap, file: &Salvage) {
    for part in map.parts.iter_mut().chain(&mut map.lacks) {
        if let Label::Damage { why, .. } | Label::TornTail { why } = &mut part.label
            && let Some(error) = file.refused(part.bytes.clone())
        {
            *why = why.refused(error);
        }
    }
}

/// Where the log goes on behind a segment.
fn behind(map: &SegmentMap, end: Option<Offset>, promise: Promise) -> Cursor {
    match map.footer {
        Some(footer) => Cursor { offset: footer.last_offset.plus(1), chain: Some(footer.chain_end) },
        // What it should hold and does not is named with the file itself.
        None if promise == Promise::All => {
            let offset = end.map_or(map.end, |end| end.max(map.end));
            Cursor { offset, chain: map.chain.filter(|_| map.end == offset) }
        }
        None => Cursor { offset: map.end, chain: map.chain },
    }
}
