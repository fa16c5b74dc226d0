//! Recovery under consensus: the checkpoint is the mark, and the raft log writes again what is cut.

use tidelog_wire::ids::Offset;

use super::files::{Examined, Found, Listed, missing_path, next_of};
use super::report::Phase;
use super::table::{Place, Seen, Verdict};
use super::{Recovered, Recovery, Standing, failed};
use crate::checkpoint::LogState;
use crate::core::Core;
use crate::fields::wide;
use crate::locks::Arc;
use crate::log::error::LogError;
use crate::log::locate::load_sealed;
use crate::log::replay::Kept;
use crate::log::shared::SegmentFacts;
use crate::log::writer::Active;
use crate::segment::footer::{FOOTER_BYTES, Footer, FooterFault};
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
    match recovery.at_checkpoint(state) {
        Ok((standing, active)) => Ok(recovery.finish(standing, active)),
        Err(error) => {
            recovery.give_up();
            Err(error)
        }
    }
}

impl Recovery<'_> {
    fn at_checkpoint(&mut self, state: &LogState) -> Result<(Standing, Option<Active>), LogError> {
        let has_active = state.active_position > Position::ZERO;
        let sealed_end = if has_active { state.active_base } else { state.end };
        let mark = if has_active { state.active_base.plus(1) } else { state.end };
        let files = self.list(mark)?;
        let (sealed, rest): (Vec<Listed>, Vec<Listed>) =
            files.into_iter().partition(|listed| listed.base < sealed_end);
        self.below_the_mark(&sealed, state, sealed_end);

        self.stopwatch.enter(Phase::Walk);
        let mut rest = rest.into_iter().peekable();
        let here = |listed: &Listed| has_active && listed.base == state.active_base;
        let mut active = None;
        let mut going = Some(Expected { offset: state.end, chain: state.chain });
        if has_active {
            let listed = rest.next_if(here);
            let examined = listed.as_ref().map(|listed| self.examine(listed)).transpose()?;
            match examined {
                Some(Examined::Found(found)) => {
                    (active, going) = self.take_active(&found, state)?;
                }
                Some(Examined::Unread) => self.leave_unread(state),
                Some(Examined::Gone) | None => {
                    let path = missing_path(&self.core.log_dir(self.id), state.active_base);
                    self.lost(&path, state.active_base, state.end);
                }
            }
        }
        let above = rest.peek().is_some();
        for listed in rest {
            going = match going {
                Some(expected) => self.take_above(&listed, expected)?,
                None => {
                    self.beyond(&listed)?;
                    None
                }
            };
        }
        // The names of the others were durable before the checkpoint vouched for what they hold.
        if above {
            self.sync_kept_names()?;
        }
        let standing = Standing {
            start: state.start,
            end: state.end,
            chain: state.chain,
            append_time: state.append_time,
            epochs: state.epochs.clone(),
        };
        Ok((standing, active))
    }

    /// Segments that end below the checkpoint: names only. What they hold is looked at when it is used.
    fn below_the_mark(&mut self, files: &[Listed], state: &LogState, end: Offset) {
        let mut cursor = state.start;
        for (at, listed) in files.iter().enumerate() {
            let next = next_of(files, at, end);
            if next <= state.start && self.trim(listed, next, state.start) {
                continue;
            }
            if listed.base > cursor {
                self.lost(&listed.path, cursor, listed.base);
            }
            self.segments.defer(listed.base);
            cursor = cursor.max(next);
        }
        if cursor < end {
            let path = missing_path(&self.core.log_dir(self.id), cursor);
            self.lost(&path, cursor, end);
        }
    }

    /// The segment that was active at the checkpoint and that the disk does not give. It stays as it is;
    /// what is appended next begins a file of its own.
    fn leave_unread(&mut self, state: &LogState) {
        self.mark_unread(state.active_base, state.end);
        let known = SegmentFacts::known(SegmentState::Sealed, state.end, state.active_position, None);
        self.segments.add(state.active_base, known);
    }

    /// The segment that was active at the checkpoint. Returns it as the active one, unless it lost
    /// bytes below the mark, and where the log goes on behind it, unless something was cut.
    fn take_active(
        &mut self,
        found: &Found,
        state: &LogState,
    ) -> Result<(Option<Active>, Option<Expected>), LogError> {
        let at_mark = Expected { offset: state.end, chain: state.chain };
        if found.header.is_none() && found.len > 0 {
            self.judge(&found.path, Position::ZERO, Place::BelowMark, Seen::BrokenHeader);
        }
        if found.len < state.active_position.get() {
            if self.judge(&found.path, Position(found.len), Place::BelowMark, Seen::End) == Verdict::Corrupt {
                self.mark_holes(found, found.base, FIRST_FRAME, state.end)?;
            }
            let known = SegmentFacts::known(SegmentState::Sealed, state.end, Position(found.len), None);
            self.segments.add(found.base, known);
            return Ok((None, Some(at_mark)));
        }
        let goes_on = self.walk_above(found, state.active_position, at_mark)?;
        let known = SegmentFacts::known(SegmentState::Active, state.end, state.active_position, None);
        let segment = self.segments.add(found.base, known);
        let active = Active {
            segment,
            file: self.writers_file(found.base),
            position: state.active_position,
            header: None,
            prefilled_to: 0,
            marked: false,
        };
        Ok((Some(active), goes_on))
    }

    /// A segment that begins above the checkpoint, where `expected` says the log goes on.
    fn take_above(&mut self, listed: &Listed, expected: Expected) -> Result<Option<Expected>, LogError> {
        if listed.base != expected.offset {
            self.beyond(listed)?;
            return Ok(None);
        }
        let found = match self.examine(listed)? {
            Examined::Found(found) => found,
            Examined::Gone => return Ok(None),
            Examined::Unread => {
                self.set_aside(&listed.path, "the disk does not give it; the raft log writes it again")?;
                return Ok(None);
            }
        };
        let seen = match &found.header {
            None => Seen::BrokenHeader,
            Some(header) if header.chain_start != expected.chain => Seen::OtherHistory,
            Some(_) => Seen::Valid,
        };
        if self.judge(&found.path, Position::ZERO, Place::AboveMark, seen) != Verdict::Intact {
            self.set_aside(
                &found.path,
                "its header is torn or of another history; the raft log writes it again",
            )?;
            return Ok(None);
        }
        let kept_before = self.report.kept_frames;
        let goes_on = self.walk_above(&found, FIRST_FRAME, expected)?;
        if self.report.kept_frames == kept_before {
            self.set_aside(&found.path, "no frame of it verifies; the raft log writes it again")?;
            return Ok(None);
        }
        Ok(goes_on)
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
        let place = Place::AboveMark;
        let sealed = match load_sealed(found.file.as_ref(), self.tag).map_err(io)? {
            Ok((footer, _)) if footer.index_position >= from => Some(footer),
            Err(FooterFault::UnknownFormat { found: format }) => {
                let position = Position(found.len.saturating_sub(wide(FOOTER_BYTES)));
                self.judge(&found.path, position, place, Seen::NewerFormat);
                return Err(LogError::UnknownFormat { path: found.path.clone(), position, found: format });
            }
            Ok(_) | Err(FooterFault::Absent | FooterFault::Bad) => {
                self.judge(&found.path, Position(found.len), place, Seen::NoFooter);
                None
            }
        };
        let limit = sealed.map_or(found.len, |footer| footer.index_position.get());
        let (next, position, step) = self.keep_frames(found, from, limit, expected)?;
        let leads_to = |footer: &Footer| {
            footer.index_position == position
                && footer.chain_end == next.chain
                && footer.last_offset.plus(1) == next.offset
        };
        if sealed.as_ref().is_some_and(leads_to) {
            self.sync_kept(found, from, Position(found.len))?;
            return Ok(Some(next));
        }
        let ended = self.ended_on(found, position, place, &step, limit)?;
        let seen = if ended == Seen::End && sealed.is_some() { Seen::FooterContradicts } else { ended };
        let said = found.refused_at(position);
        self.judge_with(&found.path, position, place, seen, said);
        self.cut(found, position)?;
        self.sync_kept(found, from, position)?;
        Ok(None)
    }

    /// Walks the frames from `from` on and keeps them for replay. Returns where the log goes on behind
    /// them, where they end, and what they end on.
    fn keep_frames(
        &mut self,
        found: &Found,
        from: Position,
        limit: u64,
        expected: Expected,
    ) -> Result<(Expected, Position, Step), LogError> {
        let mut walk = Walk::new(found.file.as_ref(), self.tag, Depth::Full, from, limit, Some(expected));
        let mut next = expected;
        let mut position = from;
        let step = loop {
            let step = walk.step().map_err(|source| failed(&found.path, "walk", source))?;
            let Step::Frame(walked) = step else { break step };
            self.core.tally.walked(walked.header.frame_len.into());
            let Some(batch) = walked.batch else { break Step::Fault(mark_fault(&walked)) };
            self.replay.keep(Kept {
                base: found.base,
                position: walked.position,
                raft_index: walked.header.raft_index,
                header: walked.header.encode(),
            });
            self.report.keep_frame(u64::from(walked.header.frame_len));
            next = Expected { offset: batch.end(), chain: walked.header.chain };
            position = walked.end();
        };
        Ok((next, position, step))
    }

    /// A segment behind a cut: the raft log writes it again.
    fn beyond(&mut self, listed: &Listed) -> Result<(), LogError> {
        let seen = Seen::BeyondCut;
        if self.judge(&listed.path, Position::ZERO, Place::AboveMark, seen) == Verdict::SetAside {
            self.set_aside(&listed.path, "it lies behind bytes that were cut; the raft log writes it again")?;
        }
        Ok(())
    }
}

/// A mark has no place in a log under consensus.
fn mark_fault(walked: &crate::segment::walk::Walked) -> crate::segment::frame::FrameFault {
    crate::segment::frame::FrameFault::Length { found: walked.header.frame_len }
}
