//! What opening an engine and its logs found and did.
//!
//! It grows as logs are opened, as frames of an earlier run are compared, and as segments below the
//! mark, which nobody reads at a start, are read for the first time.

use std::path::{Path, PathBuf};

use tidelog_wire::ids::LogId;

use crate::core::Core;
use crate::locks::PoisonError;
use crate::log::LogRecovery;
use crate::log::recovery::table::{Place, Seen, Verdict, decide};
use crate::storage::Position;

/// Most logs whose recovery is told one by one; of further ones only the sums are kept.
pub(crate) const REPORTS_MAX: usize = 10_000;

/// What opening the engine and its logs found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The copy of the identity that was written again.
    pub healed_identity: Option<PathBuf>,
    /// Logs opened so far.
    pub logs_opened: u64,
    /// The recoveries that found something, oldest first.
    pub logs: Vec<LogRecovery>,
}

impl RecoveryReport {
    /// The entry of a log, made if there is none and there is room for it.
    fn of_log(&mut self, log: LogId) -> Option<&mut LogRecovery> {
        // The newest: a log may have been opened more than once.
        let at = self.logs.iter().rposition(|known| known.log == log);
        match at {
            Some(at) => self.logs.get_mut(at),
            None if self.logs.len() < REPORTS_MAX => {
                self.logs.push(LogRecovery::new(log));
                self.logs.last_mut()
            }
            None => None,
        }
    }
}

impl Core {
    /// A log was opened.
    pub(crate) fn log_recovered(&self, recovery: &LogRecovery) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.logs_opened = report.logs_opened.saturating_add(1);
        if !recovery.is_clean() && report.logs.len() < REPORTS_MAX {
            report.logs.push(recovery.clone());
        }
    }

    /// Looks up the verdict on something that is seen after its log was opened, and reports it as
    /// recovery would have done.
    pub(crate) fn judge_late(
        &self,
        log: LogId,
        path: &Path,
        position: Position,
        seen: Seen,
        error: Option<String>,
    ) -> Verdict {
        let place = Place::BelowMark;
        let row = decide(self.mode, place, seen);
        if row.verdict != Verdict::Intact {
            tracing::warn!(%log, path = %path.display(), %position, row = row.name, ?seen, verdict = ?row.verdict, error, "found when read");
            let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = report.of_log(log) {
                entry.decided(row, path, position, place, error);
            }
        }
        row.verdict
    }
}
