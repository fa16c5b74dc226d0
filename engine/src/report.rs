//! What opening an engine and its logs found and did.
//!
//! It grows as logs are opened, as frames of an earlier run are compared, and as segments below the
//! mark, which nobody reads at a start, are read for the first time.

pub mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::clock::Clock;
use crate::core::Core;
use crate::directory::identity::OpenedIdentity;
use crate::fields::wide;
use crate::locks::{Arc, PoisonError};
use crate::log::LogRecovery;
use crate::log::recovery::report::FINDINGS_MAX;

/// Most logs whose recovery is told one by one; of further ones only the sums are kept.
pub(crate) const REPORTS_MAX: usize = 10_000;

/// What opening the engine and its logs found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The copy of the identity that was written again.
    pub healed_identity: Option<PathBuf>,
    /// How often each row of the tables of the identity and of checkpoints decided.
    pub rows: BTreeMap<&'static str, u64>,
    /// What was found about the directory as a whole.
    pub findings: Vec<DirectoryFinding>,
    /// How long opening the directory took, part by part, in microseconds.
    pub took: Vec<(&'static str, u64)>,
    /// Logs opened so far.
    pub logs_opened: u64,
    /// Sums over all logs, also those that are not named below.
    pub counts: RecoveryCounts,
    /// The recoveries that found something, oldest first.
    pub logs: Vec<LogRecovery>,
}

/// Something about the data directory that is no log's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryFinding {
    /// The row of the decision table.
    pub row: &'static str,
    /// Which file or directory.
    pub path: PathBuf,
    /// What was seen and done.
    pub said: String,
}

impl RecoveryReport {
    pub(crate) fn of_identity(opened: &OpenedIdentity, findings: Vec<DirectoryFinding>) -> Self {
        let mut report = Self { healed_identity: opened.healed.clone(), ..Self::default() };
        if findings.is_empty() {
            report.rows.insert(opened.row, 1);
        }
        for finding in findings {
            report.found(finding);
        }
        report
    }

    /// What was found, a line each, for people.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let directory = self.findings.iter();
        let directory =
            directory.map(|found| format!("{}: {}: {}", found.row, found.path.display(), found.said));
        directory.chain(self.logs.iter().map(|log| format!("recovered {log}"))).collect()
    }

    pub(crate) fn found(&mut self, finding: DirectoryFinding) {
        let count = self.rows.entry(finding.row).or_default();
        *count = count.saturating_add(1);
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Measures the parts of something, one after the other, by a clock that may be lacking.
pub(crate) struct Laps<'a> {
    clock: Option<&'a Arc<dyn Clock>>,
    since: u64,
    parts: Vec<(&'static str, u64)>,
}

impl<'a> Laps<'a> {
    pub(crate) fn new(clock: Option<&'a Arc<dyn Clock>>) -> Self {
        Self { clock, since: clock.map_or(0, |clock| clock.micros()), parts: Vec::new() }
    }

    /// What ran until now is done.
    pub(crate) fn lap(&mut self, part: &'static str) {
        let now = self.clock.map_or(0, |clock| clock.micros());
        self.parts.push((part, now.saturating_sub(self.since)));
        self.since = now;
    }

    pub(crate) fn finish(self) -> Vec<(&'static str, u64)> {
        self.parts
    }
}

/// The sums of a recovery, for metrics. All but the last are counts since the engine was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryCounts {
    /// Logs that were not plainly intact.
    pub logs_unclean: u64,
    /// Logs that take no appends, since their end cannot be read.
    pub logs_read_only: u64,
    /// Findings that were not plainly intact.
    pub findings: u64,
    /// Verified frames above the mark that were kept.
    pub kept_frames: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Kept frames that the entries applied again confirmed.
    pub replayed_frames: u64,
    /// Kept frames that they did not.
    pub differing_frames: u64,
    /// Bytes cut off files, each with a copy in quarantine.
    pub cut_bytes: u64,
    /// Zeros cut off files.
    pub zero_bytes: u64,
    /// Bytes that went to quarantine, the cut ones among them.
    pub set_aside_bytes: u64,
    /// Segments whose index and footer were written again.
    pub sealed_again: u64,
    /// Offsets found damaged.
    pub damaged_offsets: u64,
    /// Offsets that the disk did not give.
    pub unread_offsets: u64,
    /// Microseconds that the recoveries of all logs took together; threads count each for itself.
    pub took_us: u64,
}

impl RecoveryCounts {
    fn add(&mut self, log: &LogRecovery) {
        let offsets = |ranges: &[std::ops::Range<tidelog_wire::ids::Offset>]| {
            ranges.iter().fold(0_u64, |sum, range| {
                sum.saturating_add(range.end.get().saturating_sub(range.start.get()))
            })
        };
        let sums = [
            (&mut self.findings, wide(log.findings.len()).saturating_add(log.findings_left_out)),
            (&mut self.kept_frames, log.kept_frames),
            (&mut self.kept_bytes, log.kept_bytes),
            (&mut self.replayed_frames, log.replayed_frames),
            (&mut self.differing_frames, log.differing_frames),
            (&mut self.cut_bytes, log.cut_bytes),
            (&mut self.zero_bytes, log.zero_bytes),
            (&mut self.set_aside_bytes, log.set_aside_bytes),
            (&mut self.sealed_again, log.sealed_again),
            (&mut self.damaged_offsets, offsets(&log.damage)),
            (&mut self.unread_offsets, offsets(&log.unread)),
            (&mut self.took_us, log.took.total_us()),
            (&mut self.logs_read_only, u64::from(log.read_only.is_some())),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Core {
    /// A log was opened.
    pub(crate) fn log_recovered(&self, recovery: &LogRecovery) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.logs_opened = report.logs_opened.saturating_add(1);
        report.counts.add(recovery);
        if !recovery.is_clean() {
            report.counts.logs_unclean = report.counts.logs_unclean.saturating_add(1);
            if report.logs.len() < REPORTS_MAX {
                report.logs.push(recovery.clone());
            }
            drop(report);
            tracing::warn!("recovered {recovery}");
            self.tell_log(recovery);
        }
    }

    /// Something was found out about a log that is open.
    pub(crate) fn found_late(&self, late: LogRecovery) {
        if !late.is_clean() {
            self.tell_log(&late);
        }
        let mut guard = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let report = &mut *guard;
        report.counts.add(&late);
        // The newest of that log: it may have been opened more than once.
        match report.logs.iter_mut().rev().find(|known| known.log == late.log) {
            Some(known) => known.add(late),
            None if late.is_clean() => {}
            None => {
                report.counts.logs_unclean = report.counts.logs_unclean.saturating_add(1);
                if report.logs.len() < REPORTS_MAX {
                    report.logs.push(late);
                }
            }
        }
    }
}
