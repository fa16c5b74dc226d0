//! Recovery: turns what a crash left on disk back into a log that accepts appends.
//!
//! 1. List the segments. Names that do not belong here are set aside.
//! 2. A segment with a successor below the mark was synced and sealed, and is not opened: whoever uses it first
//!    looks at it (`super::first_look`), by the same table. A missing footer is written again from the frames;
//!    damage is a range, not a refusal. One exception: an embedded log has no checkpoint that says its chain, so
//!    the segment before the last one is looked at, to know that the last continues the same history.
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

use std::io;
use std::path::Path;

use tidelog_wire::ids::{Chain, LeaderEpoch, LogId, Offset, TimestampMs};

pub use crate::core::Mode;

use self::files::{Found, Listed};
use self::report::{LogRecovery, Phase, Stopwatch};
use self::table::{Place, Seen, Verdict, decide};
use super::damage::Damage;
use super::error::LogError;
use super::locate::load_footer;
use super::replay::Replay;
use super::segments::Segments;
use super::writer::Active;
use crate::core::Core;
use crate::locks::Arc;
use crate::segment::frame::FrameFault;
use crate::segment::header::SegmentHeader;
use crate::segment::walk::Step;
use crate::segment::{LogTag, read_header};
use crate::storage::lazy_file::LazyFile;
use crate::storage::{File, OpenMode, Position};

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
    pub(crate) segments: Segments,
    pub(crate) active: Option<Active>,
    pub(crate) replay: Replay,
    pub(crate) damage: Damage,
    pub(crate) report: LogRecovery,
    /// Files below the log start: base and end.
    pub(crate) trimmed: Vec<(Offset, Offset)>,
}

/// A recovery at work.
///
/// One made for a single segment that is looked at later, when somebody reads it, is as good: its report
/// goes to [`Core::found_late`].
pub(crate) struct Recovery<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) id: LogId,
    pub(crate) tag: LogTag,
    pub(crate) segments: Segments,
    pub(crate) damage: Damage,
    /// Ranges that the disk does not give now. They are no damage: the disk is asked again at each read.
    pub(crate) unread: Damage,
    pub(crate) report: LogRecovery,
    pub(crate) trimmed: Vec<(Offset, Offset)>,
    pub(crate) replay: Replay,
    pub(crate) stopwatch: Stopwatch,
}

impl<'a> Recovery<'a> {
    pub(crate) fn new(core: &'a Arc<Core>, id: LogId) -> Self {
        Self {
            core,
            id,
            tag: LogTag::of(core.identity.cluster, id),
            segments: Segments::new(core.log_dir(id)),
            damage: Damage::default(),
            unread: Damage::default(),
            report: LogRecovery::new(id),
            trimmed: Vec::new(),
            replay: Replay::default(),
            stopwatch: Stopwatch::new(core.clock.clone()),
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
        if !matches!(row.verdict, Verdict::Intact | Verdict::Unlink) {
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

    /// Takes note of a range that the disk does not give.
    pub(crate) fn mark_unread(&mut self, from: Offset, to: Offset) {
        if self.unread.mark(from..to) {
            tracing::error!(log = %self.id, start = %from, end = %to, "the disk does not give these offsets");
        }
    }

    /// A segment that ends below the log start goes once nothing names it; says whether it does. Its footer is
    /// asked: that the next name lies below the start proves nothing if somebody put a file there.
    pub(crate) fn trim(&mut self, listed: &Listed, end: Offset, start: Offset) -> bool {
        if self.reaches_beyond(listed, start) {
            return false;
        }
        if self.judge(&listed.path, Position::ZERO, listed.place, Seen::Trimmed) == Verdict::Unlink {
            self.report.trimmed = self.report.trimmed.saturating_add(1);
            self.trimmed.push((listed.base, end));
        }
        true
    }

    fn reaches_beyond(&self, listed: &Listed, start: Offset) -> bool {
        let Ok(file) = self.core.storage.open(&listed.path, OpenMode::Read) else { return false };
        let ours = |header: &SegmentHeader| header.log == self.id && header.base == listed.base;
        let header = read_header(file.as_ref()).ok().flatten();
        let footer = load_footer(file.as_ref(), self.tag);
        header.as_ref().is_some_and(ours)
            && footer.is_ok_and(|footer| footer.is_ok_and(|footer| footer.last_offset >= start))
    }

    /// The handle that will append to a segment: opened when that happens.
    pub(crate) fn writers_file(&self, base: Offset) -> Arc<dyn File> {
        Arc::new(LazyFile::new(&self.core.storage, self.segments.dir(), base))
    }

    /// Copies what lies from `position` on into quarantine and cuts it off, durably. Zeros are cut
    /// without a copy.
    pub(crate) fn cut(&mut self, found: &Found, position: Position) -> Result<(), LogError> {
        let path = &found.path;
        let before = self.stopwatch.enter(Phase::SetAside);
        let len = found.file.len().map_err(|source| failed(path, "size", source))?;
        let bytes = len.saturating_sub(position.get());
        if bytes > 0 {
            if self.keep_copy(
                found,
                position,
                len,
                "bytes that nobody was promised and that do not verify",
            )? {
                self.report.cut_bytes = self.report.cut_bytes.saturating_add(bytes);
            }
            let io = |action| move |source| failed(path, action, source);
            found.file.truncate(position.get()).map_err(io("cut the torn tail of"))?;
            found.file.sync().map_err(io("sync after cutting"))?;
        }
        self.stopwatch.enter(before);
        Ok(())
    }

    /// Before the bytes from `position` to `len` are cut or written over: copies them into quarantine, or
    /// counts them if they are zeros only. Says whether there is a copy.
    pub(crate) fn keep_copy(
        &mut self,
        found: &Found,
        position: Position,
        len: u64,
        why: &str,
    ) -> Result<bool, LogError> {
        let zeros = files::is_zeros(found.file.as_ref(), position, len);
        if zeros.map_err(|source| failed(&found.path, "read the tail of", source))? {
            let bytes = len.saturating_sub(position.get());
            self.report.zero_bytes = self.report.zero_bytes.saturating_add(bytes);
            return Ok(false);
        }
        let aside = self.core.set_aside_range(&found.path, position, Position(len), why)?;
        self.report.put_aside(aside);
        Ok(true)
    }

    /// Moves a file or directory to quarantine.
    pub(crate) fn set_aside(&mut self, path: &Path, why: &str) -> Result<(), LogError> {
        let before = self.stopwatch.enter(Phase::SetAside);
        let aside = self.core.set_aside_file(path, why)?;
        self.report.put_aside(aside);
        self.stopwatch.enter(before);
        Ok(())
    }

    /// What a walk that came to `position`, and was to go to `limit`, ended on; a newer format refuses the log.
    pub(crate) fn ended_on(
        &mut self,
        found: &Found,
        position: Position,
        place: Place,
        step: &Step,
        limit: u64,
    ) -> Result<Seen, LogError> {
        match step {
            Step::Frame(_) => Ok(Seen::Valid),
            Step::End => {
                let zeros = files::is_zeros(found.file.as_ref(), position, limit)
                    .map_err(|source| failed(&found.path, "read the tail of", source))?;
                let refused = || found.file.refused(position.get()..limit).is_some();
                Ok(match zeros {
                    true => Seen::End,
                    false if refused() => Seen::Unreadable,
                    false => Seen::Broken,
                })
            }
            Step::Fault(FrameFault::UnknownFormat { found: format }) => {
                self.judge(&found.path, position, place, Seen::NewerFormat);
                Err(LogError::UnknownFormat { path: found.path.clone(), position, found: *format })
            }
            Step::Fault(_) if found.refused_at(position).is_some() => Ok(Seen::Unreadable),
            Step::Fault(_) => Ok(Seen::Broken),
        }
    }

    /// Makes the bytes of a file from `from` on durable, unless the deliberate defect says otherwise.
    ///
    /// They are written again first. A sync that failed in an earlier life of this process may have left them
    /// in the cache alone, called clean; a sync by itself would then report success and write nothing.
    pub(crate) fn sync_kept(&mut self, found: &Found, from: Position, to: Position) -> Result<(), LogError> {
        // Of a range of no bytes nothing is kept that was not durable before.
        if from >= to || !self.core.syncs_recovered() {
            return Ok(());
        }
        let before = self.stopwatch.enter(Phase::Sync);
        let io = |action| move |source| failed(&found.path, action, source);
        files::write_again(&found.file, from, to).map_err(io("write again what was recovered of"))?;
        found.file.sync().map_err(io("sync the recovered"))?;
        self.stopwatch.enter(before);
        Ok(())
    }

    /// The same for names in the log's directory.
    pub(crate) fn sync_kept_names(&mut self) -> Result<(), LogError> {
        let dir = self.core.log_dir(self.id);
        if self.core.syncs_recovered() {
            let before = self.stopwatch.enter(Phase::Sync);
            self.core.storage.sync_dir(&dir).map_err(|source| failed(&dir, "sync the directory", source))?;
            self.stopwatch.enter(before);
        }
        Ok(())
    }

    /// What was found, without a log to start: of one segment that was looked at later.
    pub(crate) fn report(mut self) -> LogRecovery {
        self.sum_up();
        self.report
    }

    /// The log is not opened: what was found out about it is told all the same.
    pub(crate) fn give_up(self) {
        let core = Arc::clone(self.core);
        core.found_late(self.report());
    }

    fn sum_up(&mut self) {
        self.report.damage = self.damage.ranges();
        self.report.unread = self.unread.ranges();
        self.report.took = self.stopwatch.stop();
        self.report.kept_to = self.replay.last_index();
    }

    pub(crate) fn finish(mut self, log: Standing, active: Option<Active>) -> Recovered {
        self.damage.forget_below(log.start);
        self.unread.forget_below(log.start);
        self.sum_up();
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

pub(crate) fn failed(path: &Path, action: &'static str, source: io::Error) -> LogError {
    LogError::Io { path: path.to_path_buf(), action, source }
}
