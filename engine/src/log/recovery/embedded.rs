//! Recovery of an embedded log: its frames are the durable copy, and they say how far it was synced.
//!
//! 1. A segment with a successor was sealed before that existed: footer only.
//! 2. The last one is walked from its first frame. At a byte that does not verify, the frames behind
//!    it are searched for a witness: a `synced_to` above that byte proves that it was durable once,
//!    so it is corruption, a range is marked and the walk goes on. Without a witness it is a torn
//!    tail: set aside and cut.
//! 3. What is left is synced. Only then is it the log.
//!
//! The window that is left: the last group synced before a crash under load has no frame behind it
//! yet, so damage to it looks like a torn tail. A mark frame closes it on a clean close or when idle.

use tidelog_wire::ids::{Chain, LeaderEpoch, LogId, Offset, TimestampMs};

use super::files::{Found, is_zeros, missing_path};
use super::table::{Place, Seen, Verdict};
use super::{Recovered, Recovery, Standing, facts, failed};
use crate::checkpoint::LogState;
use crate::core::Core;
use crate::locks::Arc;
use crate::log::error::LogError;
use crate::log::locate::load_sealed;
use crate::log::writer::Active;
use crate::segment::state::SegmentState;
use crate::segment::summary::{FIRST_FRAME, Summary};
use crate::segment::walk::{Depth, Expected, Step, Walk, Walked};
use crate::storage::{File, Position};

/// Opens the files of an embedded log. `known` is what the last trim recorded.
pub(crate) fn recover_embedded(core: &Arc<Core>, id: LogId, known: &LogState) -> Result<Recovered, LogError> {
    let mut recovery = Recovery::new(core, id);
    let mut files = recovery.list(known.end)?;
    let mut standing = Standing {
        start: known.start,
        end: known.start,
        chain: known.chain,
        append_time: known.append_time,
        epochs: known.epochs.clone(),
    };
    let last = files.pop();
    let mut chain = None;
    for (at, found) in files.iter().enumerate() {
        let next = files.get(at.saturating_add(1)).or(last.as_ref()).map_or(found.base, |next| next.base);
        if next <= known.start {
            recovery.trimmed.push((found.base, next));
            continue;
        }
        recovery.gap(found, &mut standing);
        chain = recovery.take_sealed(found, next, chain)?;
        standing.end = next;
        standing.chain = chain.unwrap_or(standing.chain);
    }
    let active = match last {
        None => None,
        Some(found) => {
            recovery.gap(&found, &mut standing);
            recovery.take_last(&found, known, chain, &mut standing)?
        }
    };
    if standing.end < known.end {
        let path = missing_path(&core.log_dir(id), standing.end);
        recovery.judge(&path, Position::ZERO, Place::BelowMark, Seen::Missing);
        recovery.mark(standing.end, known.end);
        standing.end = known.end;
        standing.chain = known.chain;
        let active_is_behind = active.is_some();
        if active_is_behind {
            recovery.close_behind(known.end);
        }
        return Ok(recovery.finish(standing, None));
    }
    Ok(recovery.finish(standing, active))
}

/// What the walk over the last segment gathered.
struct Gathered {
    summary: Summary,
    epochs: Vec<(LeaderEpoch, Offset)>,
    append_time: TimestampMs,
    /// The highest position that any frame says was durable.
    mark: Position,
}

impl Gathered {
    fn take(&mut self, walked: &Walked) {
        self.mark = self.mark.max(walked.header.synced_to);
        let Some(batch) = &walked.batch else {
            self.summary.add_mark(walked.end(), begins(walked), walked.header.chain);
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
    /// A segment that begins above where the log came to: what lies between is gone.
    fn gap(&mut self, found: &Found, standing: &mut Standing) {
        if found.base > standing.end {
            self.judge(&found.path, Position::ZERO, Place::BelowMark, Seen::Missing);
            self.mark(standing.end, found.base);
            standing.end = found.base;
        }
    }

    /// The last segment: sealed, or the one that takes appends.
    fn take_last(
        &mut self,
        found: &Found,
        known: &LogState,
        chain: Option<Chain>,
        standing: &mut Standing,
    ) -> Result<Option<Active>, LogError> {
        let io = |source| failed(&found.path, "read", source);
        let file = found.file.as_ref();
        if let Ok((footer, index)) = load_sealed(file, self.tag).map_err(io)? {
            let from = index.last().map_or(FIRST_FRAME, |entry| entry.position);
            let times = last_times(file, self.tag, from, footer.index_position).map_err(io)?;
            standing.append_time = standing.append_time.max(times.0);
            standing.epochs.extend(times.1);
            standing.end = footer.last_offset.plus(1);
            standing.chain = footer.chain_end;
            let sealed =
                facts(SegmentState::Sealed, standing.end, footer.index_position, Some(footer.max_timestamp));
            self.add_segment(found.base, &found.path, sealed);
            self.sync_kept(&found.path, file)?;
            self.sync_kept_names()?;
            return Ok(None);
        }
        let chain_start = found.header.map(|header| header.chain_start).or(chain);
        let begin = Expected { offset: found.base, chain: chain_start.unwrap_or(standing.chain) };
        let mut gathered = Gathered {
            summary: Summary::new(found.base, begin.chain),
            epochs: std::mem::take(&mut standing.epochs),
            append_time: standing.append_time,
            mark: if known.active_base == found.base { known.active_position } else { Position::ZERO },
        };
        let end = self.walk_last(found, begin, &mut gathered)?;
        standing.epochs = std::mem::take(&mut gathered.epochs);
        standing.append_time = gathered.append_time;
        standing.chain = gathered.summary.chain;
        standing.end = gathered.summary.end;
        if gathered.summary.end == found.base {
            self.drop_empty(found)?;
            return Ok(None);
        }
        if found.header.is_none() {
            self.judge(&found.path, Position::ZERO, Place::BelowMark, Seen::BrokenHeader);
        }
        self.cut(&found.path, file, end)?;
        self.sync_kept(&found.path, file)?;
        self.sync_kept_names()?;
        let mut state = facts(SegmentState::Active, standing.end, end, Some(gathered.summary.max_timestamp));
        gathered.summary.end_position = end;
        state.summary = Some(gathered.summary);
        state.synced_to = end;
        let segment = self.add_segment(found.base, &found.path, state);
        let file = Arc::clone(&found.file);
        Ok(Some(Active { segment, file, position: end, header: None, prefilled_to: 0, marked: false }))
    }

    /// Walks the last segment; returns where its frames end.
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
        loop {
            let step = walk.step().map_err(io)?;
            if let Step::Frame(walked) = step {
                gathered.take(&walked);
                end = walked.end();
                self.report.kept_frames = self.report.kept_frames.saturating_add(1);
                continue;
            }
            let seen = self.ended_on(&found.path, end, &step)?;
            let (next, mark) = self.witness(found, end).map_err(io)?;
            gathered.mark = gathered.mark.max(mark);
            let place = if gathered.mark > end { Place::BelowMark } else { Place::AboveMark };
            match self.judge(&found.path, end, place, seen) {
                Verdict::Corrupt => {}
                Verdict::Intact
                | Verdict::TornTail
                | Verdict::SealAgain
                | Verdict::Unread
                | Verdict::FramesOnly
                | Verdict::SetAside
                | Verdict::Unlink
                | Verdict::ReadOnly
                | Verdict::Refuse => return Ok(end),
            }
            let Some(next) = next else { return Ok(end) };
            self.mark(gathered.summary.end, begins(&next));
            walk = Walk::new(file, self.tag, Depth::Full, next.position, found.len, None);
            end = next.position;
        }
    }

    /// The next valid frame behind `position`, and the highest `synced_to` of all frames behind it.
    fn witness(&self, found: &Found, position: Position) -> std::io::Result<(Option<Walked>, Position)> {
        if is_zeros(found.file.as_ref(), position, found.len)? {
            return Ok((None, Position::ZERO));
        }
        let mut walk = Walk::new(found.file.as_ref(), self.tag, Depth::Full, position, found.len, None);
        let mut next: Option<Walked> = None;
        let mut mark = Position::ZERO;
        while let Some(walked) = walk.resync()? {
            mark = mark.max(walked.header.synced_to);
            next = next.or(Some(walked));
            while let Step::Frame(walked) = walk.step()? {
                mark = mark.max(walked.header.synced_to);
            }
        }
        Ok((next, mark))
    }

    /// A last segment without a frame: a crash while it was begun. Nobody was promised it.
    fn drop_empty(&mut self, found: &Found) -> Result<(), LogError> {
        if found.header.is_none() {
            self.judge(&found.path, Position::ZERO, Place::AboveMark, Seen::BrokenHeader);
        }
        self.report.cut_bytes = self.report.cut_bytes.saturating_add(found.len);
        self.core.set_aside_file(&found.path, "a segment that was begun and holds no valid frame")?;
        Ok(())
    }

    /// The last segment ends below what is known to have been durable: it takes no more appends.
    fn close_behind(&mut self, end: Offset) {
        if let Some(last) = self.segments.values().next_back() {
            let mut facts = last.facts();
            facts.state = SegmentState::Sealed;
            facts.end = end;
            facts.summary = None;
        }
    }
}

/// Where the log stands before a frame: a mark carries it, a batch is stamped with it.
fn begins(walked: &Walked) -> Offset {
    walked.batch.map_or(Offset(walked.header.raft_index.get()), |batch| batch.base_offset)
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
