//! Recovery of an embedded log: its frames are the durable copy, and they say how far it was synced.
//!
//! 1. A segment with a successor was sealed before that existed: footer only.
//! 2. The last one is walked from its first frame. At a byte that does not verify, the frames behind
//!    it are searched for a witness: a `synced_to` above that byte proves that it was durable once,
//!    so it is corruption, a range is marked and the walk goes on. Without a witness it is a torn
//!    tail: set aside and cut.
//! 3. What is left is synced. Only then is it the log.
//!
//! A last segment of nothing but a header is where a purge ended the log, or a crash came while it was begun. It takes
//! the next append either way.
//!
//! The window that is left: the last group synced before a crash under load has no frame behind it
//! yet, so damage to it looks like a torn tail. A mark frame closes it on a clean close or when idle.

use std::path::Path;

use tidelog_wire::ids::{Chain, LeaderEpoch, LogId, Offset, TimestampMs};

use super::files::{Examined, Found, Listed, is_zeros, missing_path};
use super::report::Phase;
use super::table::{Place, Seen, Verdict};
use super::{Recovered, Recovery, Standing, failed};
use crate::checkpoint::LogState;
use crate::core::Core;
use crate::fields::wide;
use crate::locks::Arc;
use crate::log::error::LogError;
use crate::log::locate::load_sealed;
use crate::log::shared::SegmentFacts;
use crate::log::writer::Active;
use crate::segment::footer::{FOOTER_BYTES, Footer, FooterFault, IndexEntry};
use crate::segment::state::SegmentState;
use crate::segment::summary::{FIRST_FRAME, Summary};
use crate::segment::walk::{Depth, Expected, Step, Walk, Walked};
use crate::storage::{File, Position};

/// Opens the files of an embedded log. `known` is what the last trim recorded.
pub(crate) fn recover_embedded(core: &Arc<Core>, id: LogId, known: &LogState) -> Result<Recovered, LogError> {
    let mut recovery = Recovery::new(core, id);
    match recovery.by_its_frames(known) {
        Ok((standing, active)) => Ok(recovery.finish(standing, active)),
        Err(error) => {
            recovery.give_up();
            Err(error)
        }
    }
}

/// The last segment of a log.
enum Last {
    Found(Found),
    /// The disk does not give it.
    Unread(Listed),
}

impl Last {
    const fn base(&self) -> Offset {
        match self {
            Self::Found(found) => found.base,
            Self::Unread(listed) => listed.base,
        }
    }
}

/// What the walk over the last segment gathered.
struct Gathered {
    summary: Summary,
    epochs: Vec<(LeaderEpoch, Offset)>,
    append_time: TimestampMs,
    /// The highest position that any frame says was durable.
    mark: Position,
    /// The last frame is a mark.
    marked: bool,
}

impl Gathered {
    fn take(&mut self, walked: &Walked) {
        self.mark = self.mark.max(walked.header.synced_to);
        self.marked = walked.batch.is_none();
        let Some(batch) = &walked.batch else {
            self.summary.add_mark(walked.end(), walked.begins(), walked.header.chain);
            return;
        };
        self.summary.add(walked.position, walked.end(), batch, walked.header.chain);
        self.append_time = self.append_time.max(walked.header.append_time);
        if self.epochs.last().is_none_or(|(epoch, _)| *epoch < batch.leader_epoch) {
            self.epochs.push((batch.leader_epoch, batch.base_offset));
        }
    }
}

impl Recovery<'_> {
    fn by_its_frames(&mut self, known: &LogState) -> Result<(Standing, Option<Active>), LogError> {
        let mut files = self.list(known.end)?;
        let mut standing = Standing {
            start: known.start,
            end: known.start,
            chain: known.chain,
            append_time: known.append_time,
            epochs: known.epochs.clone(),
        };
        let (last, strangers) = self.examine_last(&mut files)?;
        let (mut chain, mut alone) = (None, last.is_none());
        for (at, listed) in files.iter().enumerate() {
            let next = files.get(at.saturating_add(1)).map(|next| next.base);
            let next = next.or(last.as_ref().map(Last::base)).unwrap_or(listed.base);
            if next <= known.start && self.trim(listed, next, known.start) {
                continue;
            }
            alone = false;
            self.gap(listed.base, &listed.path, &mut standing);
            // The last one's chain is where the active segment begins; of the others the name is enough.
            if at.saturating_add(1) == files.len() {
                chain = self.take_sealed(listed, next, None)?;
            } else {
                self.segments.defer(listed.base);
            }
            standing.end = next;
            standing.chain = chain.unwrap_or(standing.chain);
        }
        self.stopwatch.enter(Phase::Walk);
        let active = match last {
            None => None,
            Some(Last::Unread(listed)) => {
                self.gap(listed.base, &listed.path, &mut standing);
                self.report.read_only = Some(listed.path);
                None
            }
            Some(Last::Found(found)) => {
                if self.gap(found.base, &found.path, &mut standing) {
                    chain = None;
                }
                self.take_last(&found, known, chain, &mut standing)?
            }
        };
        self.judge_strangers(&strangers, alone, active.is_some(), &mut standing)?;
        if standing.end < known.end && self.report.read_only.is_none() {
            let path = missing_path(&self.core.log_dir(self.id), standing.end);
            self.lost(&path, standing.end, known.end);
            standing.end = known.end;
            standing.chain = known.chain;
            if active.is_some() {
                self.close_behind(known.end);
            }
            return Ok((standing, None));
        }
        Ok((standing, active))
    }

    /// Takes the last segment off `files`: the last that belongs here. Also returns those behind it in which
    /// nothing is of this log.
    fn examine_last(&mut self, files: &mut Vec<Listed>) -> Result<(Option<Last>, Vec<Listed>), LogError> {
        let mut strangers = Vec::new();
        while let Some(mut listed) = files.pop() {
            // It has no successor that would prove it synced, whatever its name says.
            listed.place = Place::AboveMark;
            match self.identify(&listed)? {
                Some(Examined::Found(found)) if self.says_nothing(&found)? => self.drop_empty(&found)?,
                Some(Examined::Found(found)) => return Ok((Some(Last::Found(found)), strangers)),
                Some(Examined::Unread) => return Ok((Some(Last::Unread(listed)), strangers)),
                Some(Examined::Gone) => {}
                None => strangers.insert(0, listed),
            }
        }
        Ok((None, strangers))
    }

    /// Files behind the last segment that hold another log's. One that begins just where the segments before
    /// it were sealed stands where the last segment of this log was, whose end nobody knows then; so does one
    /// that is `alone`, and none does behind a segment that is `active`.
    fn judge_strangers(
        &mut self,
        strangers: &[Listed],
        alone: bool,
        active: bool,
        standing: &mut Standing,
    ) -> Result<(), LogError> {
        for listed in strangers {
            if self.report.read_only.is_some() {
                break;
            }
            let instead = alone || (!active && listed.base == standing.end);
            if instead
                && self.judge(&listed.path, Position::ZERO, listed.place, Seen::Replaced) == Verdict::ReadOnly
            {
                self.gap(listed.base, &listed.path, standing);
                self.report.read_only = Some(listed.path.clone());
            } else {
                self.set_misplaced_aside(listed)?;
            }
        }
        Ok(())
    }

    /// Whether nothing in the file verifies that belongs at its base offset or above: then its name is no witness that
    /// the log ever came so far.
    fn says_nothing(&self, found: &Found) -> Result<bool, LogError> {
        let io = |source| failed(&found.path, "look into", source);
        if found.header.is_some()
            || found.written_over > Position::ZERO
            || found.file.refused(0..found.len).is_some()
        {
            return Ok(false);
        }
        let file = found.file.as_ref();
        let mut walk = Walk::new(file, self.tag, Depth::Full, FIRST_FRAME, found.len, None);
        let frame = match walk.step().map_err(io)? {
            Step::Frame(walked) => Some(walked),
            Step::End | Step::Fault(_) => walk.resync().map_err(io)?,
        };
        let footer = load_sealed(file, self.tag).map_err(io)?.ok();
        let by_frame = frame.is_some_and(|walked| walked.begins() >= found.base);
        Ok(!by_frame && footer.is_none_or(|(footer, _)| footer.last_offset < found.base))
    }

    /// Whether a segment begins above where the log came to: what lies between is gone.
    fn gap(&mut self, base: Offset, path: &Path, standing: &mut Standing) -> bool {
        let gap = base > standing.end;
        if gap {
            self.lost(path, standing.end, base);
            standing.end = base;
        }
        gap
    }

    /// The last segment: sealed, or the one that takes appends.
    fn take_last(
        &mut self,
        found: &Found,
        known: &LogState,
        chain: Option<Chain>,
        standing: &mut Standing,
    ) -> Result<Option<Active>, LogError> {
        if let (Some(header), Some(chain)) = (&found.header, chain)
            && header.chain_start != chain
            && self.judge(&found.path, Position::ZERO, Place::AboveMark, Seen::OtherHistory)
                == Verdict::ReadOnly
        {
            self.report.read_only = Some(found.path.clone());
            return Ok(None);
        }
        match load_sealed(found.file.as_ref(), self.tag)
            .map_err(|source| failed(&found.path, "read", source))?
        {
            Ok((footer, index)) => {
                self.take_last_sealed(found, &footer, &index, standing)?;
                return Ok(None);
            }
            Err(FooterFault::UnknownFormat { found: format }) => {
                let position = Position(found.len.saturating_sub(wide(FOOTER_BYTES)));
                self.judge(&found.path, position, Place::AboveMark, Seen::NewerFormat);
                return Err(LogError::UnknownFormat { path: found.path.clone(), position, found: format });
            }
            Err(FooterFault::Absent | FooterFault::Bad) => {
                self.judge(&found.path, Position(found.len), Place::AboveMark, Seen::NoFooter);
            }
        }
        let chain_start = found.header.map(|header| header.chain_start).or(chain);
        let begin = Expected { offset: found.base, chain: chain_start.unwrap_or(standing.chain) };
        let begun = found.header.map_or(standing.append_time, |header| header.append_time);
        let known_position =
            if known.active_base == found.base { known.active_position } else { Position::ZERO };
        let mut gathered = Gathered {
            summary: Summary::new(found.base, begin.chain),
            epochs: std::mem::take(&mut standing.epochs),
            append_time: standing.append_time.max(begun),
            mark: found.written_over.max(known_position),
            marked: false,
        };
        let end = self.walk_last(found, begin, &mut gathered)?;
        standing.epochs = std::mem::take(&mut gathered.epochs);
        standing.append_time = gathered.append_time;
        standing.chain = gathered.summary.chain;
        standing.end = gathered.summary.end;
        if self.report.read_only.is_some() {
            let time = Some(gathered.summary.max_timestamp);
            self.segments.add(found.base, SegmentFacts::known(SegmentState::Sealed, standing.end, end, time));
            self.sync_kept(found, gathered.mark.min(end), end)?;
            return Ok(None);
        }
        // A header alone says where the log ends, if nothing says that it went further: see `crate::embedded::starts`.
        if gathered.summary.end == found.base && (found.header.is_none() || found.base < known.end) {
            self.drop_empty(found)?;
            return Ok(None);
        }
        if found.header.is_none() {
            self.judge(&found.path, Position::ZERO, Place::BelowMark, Seen::BrokenHeader);
        }
        self.cut(found, end)?;
        // What a later frame says was synced needs no second sync.
        self.sync_kept(found, gathered.mark.min(end), end)?;
        self.sync_kept_names()?;
        let mut state = SegmentFacts::known(
            SegmentState::Active,
            standing.end,
            end,
            Some(gathered.summary.max_timestamp),
        );
        let marked = gathered.marked;
        gathered.summary.end_position = end;
        state.summary = Some(Box::new(gathered.summary));
        state.synced_to = end;
        let segment = self.segments.add(found.base, state);
        let file = self.writers_file(found.base);
        Ok(Some(Active { segment, file, position: end, header: None, prefilled_to: 0, marked }))
    }

    /// A last segment that was sealed: the next append begins another one.
    fn take_last_sealed(
        &mut self,
        found: &Found,
        footer: &Footer,
        index: &[IndexEntry],
        standing: &mut Standing,
    ) -> Result<(), LogError> {
        let from = index.last().map_or(FIRST_FRAME, |entry| entry.position);
        let times = last_times(found.file.as_ref(), self.tag, from, footer.index_position)
            .map_err(|source| failed(&found.path, "read", source))?;
        standing.append_time = standing.append_time.max(times.0);
        for (epoch, from) in times.1 {
            if standing.epochs.last().is_none_or(|(known, _)| *known < epoch) {
                standing.epochs.push((epoch, from));
            }
        }
        standing.end = footer.last_offset.plus(1);
        standing.chain = footer.chain_end;
        let time = Some(footer.max_timestamp);
        let sealed = SegmentFacts::known(SegmentState::Sealed, standing.end, footer.index_position, time);
        self.segments.add(found.base, sealed);
        // Its frames were synced before the footer was written.
        self.sync_kept(found, footer.index_position, Position(found.len))?;
        self.sync_kept_names()
    }

    /// Walks the last segment; returns where its frames end. However many holes it has, it is read twice: what lies
    /// behind the first one is searched for witnesses once.
    fn walk_last(
        &mut self,
        found: &Found,
        begin: Expected,
        gathered: &mut Gathered,
    ) -> Result<Position, LogError> {
        let io = |source| failed(&found.path, "walk", source);
        let file = found.file.as_ref();
        let mut walk = Walk::new(file, self.tag, Depth::Full, FIRST_FRAME, found.len, Some(begin));
        let mut end = FIRST_FRAME;
        let mut searched = false;
        loop {
            let step = walk.step().map_err(io)?;
            if let Step::Frame(walked) = step {
                end = self.keep(&walked, gathered);
                continue;
            }
            let mut next = None;
            let nothing = matches!(step, Step::End) && is_zeros(file, end, found.len).map_err(io)?;
            if !nothing {
                let from = gathered.summary.end;
                if !searched {
                    gathered.mark = gathered.mark.max(self.witnessed(found, end, from).map_err(io)?);
                    searched = true;
                }
                next = next_from(&mut walk, from).map_err(io)?;
            }
            let place = if gathered.mark > end { Place::BelowMark } else { Place::AboveMark };
            let seen = self.ended_on(found, end, place, &step, found.len)?;
            let said = found.refused_at(end);
            match self.judge_with(&found.path, end, place, seen, said) {
                // Nothing was found behind what the disk refuses, and it was promised: to go on here would
                // be to cut it, or to take the file for an empty one.
                Verdict::Unread if next.is_none() => {
                    self.report.read_only = Some(found.path.clone());
                    return Ok(end);
                }
                Verdict::Corrupt | Verdict::Unread => {}
                Verdict::ReadOnly => {
                    self.report.read_only = Some(found.path.clone());
                    return Ok(end);
                }
                Verdict::Intact
                | Verdict::TornTail
                | Verdict::SealAgain
                | Verdict::FramesOnly
                | Verdict::SetAside
                | Verdict::Unlink
                | Verdict::Refuse => return Ok(end),
            }
            let Some(next) = next else { return Ok(end) };
            self.mark_hole(found, (gathered.summary.end, end), (next.begins(), next.position));
            end = self.keep(&next, gathered);
        }
    }

    /// Takes a frame in; returns where it ends.
    fn keep(&mut self, walked: &Walked, gathered: &mut Gathered) -> Position {
        self.core.tally.walked(walked.header.frame_len.into());
        gathered.take(walked);
        self.report.keep_frame(u64::from(walked.header.frame_len));
        walked.end()
    }

    /// The highest `synced_to` of all valid frames behind a fault at `position` that do not begin below `from`.
    fn witnessed(&self, found: &Found, position: Position, from: Offset) -> std::io::Result<Position> {
        let mut walk = Walk::new(found.file.as_ref(), self.tag, Depth::Full, position, found.len, None);
        let mut mark = Position::ZERO;
        while let Some(walked) = walk.resync()? {
            let mut step = Step::Frame(walked);
            while let Step::Frame(walked) = step {
                // What was misdirected here from another segment of the log verifies too.
                if walked.begins() >= from {
                    mark = mark.max(walked.header.synced_to);
                }
                step = walk.step()?;
            }
        }
        Ok(mark)
    }

    /// A last segment without a frame, and without a header or known to have had frames. What it was promised to hold
    /// is marked by where the log is known to have ended.
    fn drop_empty(&mut self, found: &Found) -> Result<(), LogError> {
        if found.header.is_none() {
            self.judge(&found.path, Position::ZERO, Place::AboveMark, Seen::BrokenHeader);
        }
        self.set_aside(&found.path, "a segment that was begun and holds no valid frame")
    }

    /// The last segment ends below what is known to have been durable: it takes no more appends.
    fn close_behind(&mut self, end: Offset) {
        if let Some(last) = self.segments.last_used() {
            let mut facts = last.facts();
            facts.state = SegmentState::Sealed;
            facts.end = end;
            facts.summary = None;
        }
    }
}

/// The next valid frame behind a fault that does not begin below `from`; the walk goes on behind it.
fn next_from(walk: &mut Walk<'_>, from: Offset) -> std::io::Result<Option<Walked>> {
    let mut next = walk.resync()?;
    while next.is_some_and(|walked| walked.begins() < from) {
        next = match walk.step()? {
            Step::Frame(walked) => Some(walked),
            Step::End | Step::Fault(_) => walk.resync()?,
        };
    }
    Ok(next)
}

type Times = (TimestampMs, Vec<(LeaderEpoch, Offset)>);

/// Append time and epoch of the frames from `from` on.
fn last_times(
    file: &dyn File,
    tag: crate::segment::LogTag,
    from: Position,
    limit: Position,
) -> std::io::Result<Times> {
    let mut times = (TimestampMs(i64::MIN), Vec::new());
    let mut walk = Walk::new(file, tag, Depth::Headers, from, limit.get(), None);
    while let Step::Frame(walked) = walk.step()? {
        times.0 = times.0.max(walked.header.append_time);
        if let Some(batch) = walked.batch {
            times.1 = vec![(batch.leader_epoch, batch.base_offset)];
        }
    }
    Ok(times)
}
