//! Recovery: turns what a crash left on disk back into a log that accepts appends.
//!
//! 1. List the segments. Names and headers that do not belong here are set aside.
//! 2. A segment with a successor below the mark was synced and sealed: its footer is read, nothing
//!    else. A missing footer is written again from the frames; damage is a range, not a refusal.
//! 3. Above the mark every frame is verified: checksums, place, offsets, chain. Under consensus the
//!    valid ones stay and are compared when their entries are applied again; embedded they are the log.
//! 4. The first byte that does not verify is judged by the table: torn tail, or corruption.
//! 5. What is kept is synced, files and directory, before anything of it counts: after a killed
//!    process the cache may hold what the disk does not.
//!
//! Recovering twice gives the same bytes as recovering once.
//!
//! Not here: refilling damaged ranges from another replica.

mod consensus;
mod embedded;
pub(crate) mod files;
pub mod report;
pub mod table;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tidelog_wire::ids::{Chain, LeaderEpoch, LogId, Offset, TimestampMs};

pub use crate::core::Mode;

use self::report::LogRecovery;
use self::table::{Place, Seen, Verdict, decide};
use super::damage::Damage;
use super::error::LogError;
use super::replay::Replay;
use super::shared::{Segment, SegmentFacts};
use super::writer::Active;
use crate::core::Core;
use crate::locks::Arc;
use crate::segment::LogTag;
use crate::segment::frame::FrameFault;
use crate::segment::state::SegmentState;
use crate::segment::walk::Step;
use crate::storage::{File, Position};

pub(crate) use self::consensus::recover_under_consensus;
pub(crate) use self::embedded::recover_embedded;

/// A log, recovered.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) chain: Chain,
    pub(crate) append_time: TimestampMs,
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(crate) segments: BTreeMap<Offset, Arc<Segment>>,
    pub(crate) active: Option<Active>,
    pub(crate) replay: Replay,
    pub(crate) damage: Damage,
    pub(crate) report: LogRecovery,
    /// Files below the log start: base and end.
    pub(crate) trimmed: Vec<(Offset, Offset)>,
}

/// A recovery at work.
pub(crate) struct Recovery<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) id: LogId,
    pub(crate) tag: LogTag,
    pub(crate) segments: BTreeMap<Offset, Arc<Segment>>,
    pub(crate) damage: Damage,
    pub(crate) report: LogRecovery,
    pub(crate) trimmed: Vec<(Offset, Offset)>,
    pub(crate) replay: Replay,
}

impl<'a> Recovery<'a> {
    pub(crate) fn new(core: &'a Arc<Core>, id: LogId) -> Self {
        Self {
            core,
            id,
            tag: LogTag::of(core.identity.cluster, id),
            segments: BTreeMap::new(),
            damage: Damage::default(),
            report: LogRecovery::new(id),
            trimmed: Vec::new(),
            replay: Replay::default(),
        }
    }

    /// Looks up the verdict and reports it unless it is plainly intact.
    pub(crate) fn judge(&mut self, path: &Path, position: Position, place: Place, seen: Seen) -> Verdict {
        self.judge_with(path, position, place, seen, None)
    }

    /// The same, with what the system said.
    pub(crate) fn judge_with(
        &mut self,
        path: &Path,
        position: Position,
        place: Place,
        seen: Seen,
        error: Option<String>,
    ) -> Verdict {
        let row = decide(self.core.mode, place, seen);
        if row.verdict != Verdict::Intact {
            tracing::warn!(log = %self.id, path = %path.display(), %position, row = row.name, ?place, ?seen, verdict = ?row.verdict, error, "recovery");
        }
        self.report.decided(row, path, position, place, error);
        row.verdict
    }

    /// Marks a range damaged.
    pub(crate) fn mark(&mut self, from: Offset, to: Offset) {
        if self.damage.mark(from..to) {
            tracing::error!(log = %self.id, start = %from, end = %to, "offsets are damaged on this node");
        }
    }

    pub(crate) fn add_segment(&mut self, base: Offset, path: &Path, facts: SegmentFacts) -> Arc<Segment> {
        let segment = Arc::new(Segment::new(base, path.to_path_buf(), facts));
        self.segments.insert(base, Arc::clone(&segment));
        segment
    }

    /// Copies what lies from `position` on into quarantine and cuts it off, durably. Zeros are cut
    /// without a copy.
    pub(crate) fn cut(&mut self, path: &Path, file: &dyn File, position: Position) -> Result<(), LogError> {
        let len = file.len().map_err(|source| failed(path, "size", source))?;
        if len <= position.get() {
            return Ok(());
        }
        if !files::is_zeros(file, position, len).map_err(|source| failed(path, "read the tail of", source))? {
            let why = "a torn tail: bytes that nobody was promised and that do not verify";
            self.core.set_aside_range(path, position, Position(len), why)?;
            self.report.cut_bytes = self.report.cut_bytes.saturating_add(len.saturating_sub(position.get()));
        }
        file.truncate(position.get()).map_err(|source| failed(path, "cut the torn tail of", source))?;
        file.sync().map_err(|source| failed(path, "sync after cutting", source))
    }

    /// What a walk ended on; a newer format refuses the log.
    pub(crate) fn ended_on(&self, path: &Path, position: Position, step: &Step) -> Result<Seen, LogError> {
        match step {
            Step::Frame(_) => Ok(Seen::Valid),
            Step::End => Ok(Seen::End),
            Step::Fault(FrameFault::UnknownFormat { found }) => {
                Err(LogError::UnknownFormat { path: path.to_path_buf(), position, found: *found })
            }
            Step::Fault(_) => Ok(Seen::Broken),
        }
    }

    /// Syncs what is kept, unless the deliberate defect says otherwise.
    pub(crate) fn sync_kept(&self, path: &Path, file: &dyn File) -> Result<(), LogError> {
        if self.core.syncs_recovered() {
            file.sync().map_err(|source| failed(path, "sync the recovered", source))?;
        }
        Ok(())
    }

    /// The same for names in the log's directory.
    pub(crate) fn sync_kept_names(&self) -> Result<(), LogError> {
        let dir = self.core.log_dir(self.id);
        if self.core.syncs_recovered() {
            self.core.storage.sync_dir(&dir).map_err(|source| failed(&dir, "sync the directory", source))?;
        }
        Ok(())
    }

    pub(crate) fn finish(mut self, log: Standing, active: Option<Active>) -> Recovered {
        self.damage.forget_below(log.start);
        self.report.damage = self.damage.ranges();
        self.report.kept_to = self.replay.last_index();
        Recovered {
            start: log.start,
            end: log.end,
            chain: log.chain,
            append_time: log.append_time,
            epochs: log.epochs,
            segments: self.segments,
            active,
            replay: self.replay,
            damage: self.damage,
            report: self.report,
            trimmed: self.trimmed,
        }
    }
}

/// Where a recovered log stands.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) chain: Chain,
    pub(crate) append_time: TimestampMs,
    pub(crate) epochs: Vec<(LeaderEpoch, Offset)>,
}

/// Facts of a segment whose frames end at `end_position`.
pub(crate) const fn facts(
    state: SegmentState,
    end: Offset,
    end_position: Position,
    max_timestamp: Option<TimestampMs>,
) -> SegmentFacts {
    SegmentFacts {
        state,
        end,
        end_position,
        max_timestamp,
        summary: None,
        unsynced: None,
        writes: 0,
        synced_to: Position::ZERO,
    }
}

pub(crate) fn failed(path: &Path, action: &'static str, source: io::Error) -> LogError {
    LogError::Io { path: path.to_path_buf(), action, source }
}
