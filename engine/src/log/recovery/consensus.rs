//! Recovery under consensus: the checkpoint is the mark, and the raft log writes again what is cut.

use tidelog_wire::ids::Offset;

use super::files::{Found, missing_path, next_of};
use super::table::{Place, Seen, Verdict};
use super::{Recovered, Recovery, Standing, facts, failed};
use crate::checkpoint::LogState;
use crate::core::Core;
use crate::locks::Arc;
use crate::log::error::LogError;
use crate::log::locate::load_sealed;
use crate::log::replay::Kept;
use crate::log::writer::Active;
use crate::segment::state::SegmentState;
use crate::segment::summary::FIRST_FRAME;
use crate::segment::walk::{Depth, Expected, Step, Walk};
use crate::storage::Position;

/// Opens the files of a log at the checkpoint state `state`.
pub(crate) fn recover_under_consensus(
    core: &Arc<Core>,
    id: tidelog_wire::ids::LogId,
    state: &LogState,
) -> Result<Recovered, LogError> {
    let mut recovery = Recovery::new(core, id);
    let has_active = state.active_position > Position::ZERO;
    let sealed_end = if has_active { state.active_base } else { state.end };
    let mark = if has_active { state.active_base.plus(1) } else { state.end };
    let files = recovery.list(mark)?;
    let any_file = !files.is_empty();
    let (sealed, rest): (Vec<Found>, Vec<Found>) =
        files.into_iter().partition(|found| found.base < sealed_end);
    recovery.below_the_mark(&sealed, state, sealed_end)?;

    let mut rest = rest.into_iter().peekable();
    let here = |found: &Found| has_active && found.base == state.active_base;
    let mut active = None;
    let mut going = Some(Expected { offset: state.end, chain: state.chain });
    if has_active {
        match rest.next_if(here) {
            Some(found) => {
                let (opened, goes_on) = recovery.take_active(&found, state)?;
                active = opened;
                going = goes_on;
            }
            None => {
                let path = missing_path(&core.log_dir(id), state.active_base);
                if recovery.judge(&path, Position::ZERO, Place::BelowMark, Seen::Missing) == Verdict::Corrupt
                {
                    recovery.mark(state.active_base, state.end);
                }
            }
        }
    }
    for found in rest {
        going = match going {
            Some(expected) => recovery.take_above(&found, expected)?,
            None => {
                recovery.beyond(&found)?;
                None
            }
        };
    }
    if any_file {
        recovery.sync_kept_names()?;
    }
    let standing = Standing {
        start: state.start,
        end: state.end,
        chain: state.chain,
        append_time: state.append_time,
        epochs: state.epochs.clone(),
    };
    Ok(recovery.finish(standing, active))
}

impl Recovery<'_> {
    /// Segments that end below the checkpoint: headers and footers only.
    fn below_the_mark(&mut self, files: &[Found], state: &LogState, end: Offset) -> Result<(), LogError> {
        let mut cursor = state.start;
        for (at, found) in files.iter().enumerate() {
            let next = next_of(files, at, end);
            if next <= state.start {
                self.trimmed.push((found.base, next));
                continue;
            }
            if found.base > cursor {
                self.judge(&found.path, Position::ZERO, Place::BelowMark, Seen::Missing);
                self.mark(cursor, found.base);
            }
            self.take_sealed(found, next, None)?;
            cursor = next;
        }
        if cursor < end {
            let path = missing_path(&self.core.log_dir(self.id), cursor);
            self.judge(&path, Position::ZERO, Place::BelowMark, Seen::Missing);
            self.mark(cursor, end);
        }
        Ok(())
    }

    /// The segment that was active at the checkpoint. Returns it as the active one, unless it lost
    /// bytes below the mark, and where the log goes on behind it, unless something was cut.
    fn take_active(
        &mut self,
        found: &Found,
        state: &LogState,
    ) -> Result<(Option<Active>, Option<Expected>), LogError> {
        let at_mark = Expected { offset: state.end, chain: state.chain };
        if found.header.is_none() {
            self.judge(&found.path, Position::ZERO, Place::BelowMark, Seen::BrokenHeader);
        }
        if found.len < state.active_position.get() {
            if self.judge(&found.path, Position(found.len), Place::BelowMark, Seen::End) == Verdict::Corrupt {
                self.mark_holes(found, found.base, FIRST_FRAME, state.end)?;
            }
            let known = facts(SegmentState::Sealed, state.end, Position(found.len), None);
            self.add_segment(found.base, &found.path, known);
            return Ok((None, Some(at_mark)));
        }
        let goes_on = self.walk_above(found, state.active_position, at_mark)?;
        let known = facts(SegmentState::Active, state.end, state.active_position, None);
        let segment = self.add_segment(found.base, &found.path, known);
        let active = Active {
            segment,
            file: Arc::clone(&found.file),
            position: state.active_position,
            header: None,
            prefilled_to: 0,
            marked: false,
        };
        Ok((Some(active), goes_on))
    }

    /// A segment that begins above the checkpoint, where `expected` says the log goes on.
    fn take_above(&mut self, found: &Found, expected: Expected) -> Result<Option<Expected>, LogError> {
        if found.base != expected.offset {
            self.beyond(found)?;
            return Ok(None);
        }
        let seen = match &found.header {
            None => Seen::BrokenHeader,
            Some(header) if header.chain_start != expected.chain => Seen::OtherHistory,
            Some(_) => Seen::Valid,
        };
        match self.judge(&found.path, Position::ZERO, Place::AboveMark, seen) {
            Verdict::Intact => {
                let kept_before = self.report.kept_frames;
                let goes_on = self.walk_above(found, FIRST_FRAME, expected)?;
                if self.report.kept_frames == kept_before {
                    self.core.set_aside_file(
                        &found.path,
                        "no frame of it verifies; the raft log writes it again",
                    )?;
                    return Ok(None);
                }
                Ok(goes_on)
            }
            Verdict::TornTail
            | Verdict::SealAgain
            | Verdict::Corrupt
            | Verdict::Unread
            | Verdict::FramesOnly
            | Verdict::SetAside
            | Verdict::Unlink
            | Verdict::ReadOnly
            | Verdict::Refuse => {
                self.report.cut_bytes = self.report.cut_bytes.saturating_add(found.len);
                self.core
                    .set_aside_file(&found.path, "its beginning is torn; the raft log writes it again")?;
                Ok(None)
            }
        }
    }

    /// Keeps the valid frames from `from` on for replay and cuts at the first byte that is none.
    /// Returns where the log goes on if the segment is whole and sealed.
    fn walk_above(
        &mut self,
        found: &Found,
        from: Position,
        expected: Expected,
    ) -> Result<Option<Expected>, LogError> {
        let io = |source| failed(&found.path, "walk", source);
        let sealed = load_sealed(found.file.as_ref(), self.tag).map_err(io)?.ok().map(|(footer, _)| footer);
        let sealed = sealed.filter(|footer| footer.index_position >= from);
        let limit = sealed.map_or(found.len, |footer| footer.index_position.get());
        let mut walk = Walk::new(found.file.as_ref(), self.tag, Depth::Full, from, limit, Some(expected));
        let mut next = expected;
        let mut position = from;
        let step = loop {
            let step = walk.step().map_err(io)?;
            let Step::Frame(walked) = step else { break step };
            let Some(batch) = walked.batch else { break Step::Fault(mark_fault(&walked)) };
            self.replay.keep(Kept {
                base: found.base,
                position: walked.position,
                raft_index: walked.header.raft_index,
                header: walked.header.encode(),
            });
            self.report.kept_frames = self.report.kept_frames.saturating_add(1);
            next = Expected { offset: batch.end(), chain: walked.header.chain };
            position = walked.end();
        };
        let seen = self.ended_on(&found.path, position, &step)?;
        let whole = sealed.is_some_and(|footer| {
            footer.index_position == position
                && footer.chain_end == next.chain
                && footer.last_offset.plus(1) == next.offset
        });
        if whole {
            self.sync_kept(&found.path, found.file.as_ref())?;
            return Ok(Some(next));
        }
        self.judge(&found.path, position, Place::AboveMark, seen);
        self.cut(&found.path, found.file.as_ref(), position)?;
        self.sync_kept(&found.path, found.file.as_ref())?;
        Ok(None)
    }

    /// A segment behind a cut: the raft log writes it again.
    fn beyond(&mut self, found: &Found) -> Result<(), LogError> {
        if self.judge(&found.path, Position::ZERO, Place::AboveMark, Seen::BeyondCut) == Verdict::SetAside {
            self.report.cut_bytes = self.report.cut_bytes.saturating_add(found.len);
            self.core.set_aside_file(
                &found.path,
                "it lies behind bytes that were cut; the raft log writes it again",
            )?;
        }
        Ok(())
    }
}

/// A mark has no place in a log under consensus.
fn mark_fault(walked: &crate::segment::walk::Walked) -> crate::segment::frame::FrameFault {
    crate::segment::frame::FrameFault::Length { found: walked.header.frame_len }
}
