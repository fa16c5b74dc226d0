//! The report of a start, kept beside the data: `DATA/recovery/<boot epoch, 20 digits>.jsonl`.
//!
//! A person reads it, or a program that a person wrote; tidelog itself never does. So it may be wrong or
//! missing without harm: whatever keeps it from being written is logged once and nothing else.
//!
//! 1. What is not plainly intact is appended as soon as it is known, and is in the system's cache then.
//! 2. [`Engine::keep_report`] appends the sums and makes the whole file durable. A start where everything
//!    was intact and nobody called it leaves no file.
//! 3. Of the files of earlier starts the newest are kept.
//!
//! The lines are described in `docs/formats/recovery-report.md`.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::core::{Core, Mode};
use crate::engine::Engine;
use crate::fields::wide;
use crate::locks::{Arc, MutexGuard, PoisonError};
use crate::log::LogRecovery;
use crate::log::recovery::report::Phase;
use crate::report::{RecoveryCounts, RecoveryReport};
use crate::storage::{File, OpenMode, Position, create_dir_durably};

/// The format of the lines.
pub const FORMAT: u16 = 1;

/// Reports of starts that are kept.
pub const REPORTS_KEPT: usize = 16;

/// A report grows no longer than this; what comes later is in the log of the process only.
const BYTES_MAX: u64 = 16 << 20;

/// The file, from when there is something to tell.
#[derive(Debug, Default)]
pub(crate) struct ReportFile {
    file: Option<Arc<dyn File>>,
    len: u64,
    /// It could not be written: never tried again.
    failed: bool,
}

impl Engine {
    /// Appends the sums of the recovery so far to the report beside the data and makes it durable. To be
    /// called when the logs that there are have been opened, and whenever it should be up to date.
    ///
    /// Returns where it lies; `None` if it cannot be written, which is logged and changes nothing else.
    pub fn keep_report(&self) -> Option<PathBuf> {
        let report = self.report();
        let counts = report.counts;
        self.core.log_summary(&report);
        self.core.tell(&[summary_line(&report, counts)], true);
        let told = self.core.report_file().file.is_some();
        told.then(|| self.core.report_path())
    }
}

impl Core {
    fn report_dir(&self) -> PathBuf {
        self.data_dir.join("recovery")
    }

    fn report_path(&self) -> PathBuf {
        self.report_dir().join(file_name(self.identity.boot_epoch.get()))
    }

    fn report_file(&self) -> MutexGuard<'_, ReportFile> {
        self.report_file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was found about the directory as a whole, if anything was.
    pub(crate) fn tell_directory(&self) {
        let found = self.report.lock().unwrap_or_else(PoisonError::into_inner).findings.is_empty();
        if !found {
            self.tell(&[], false);
        }
    }

    /// Tells what was found about a log.
    pub(crate) fn tell_log(&self, recovery: &LogRecovery) {
        self.tell(&[log_line(recovery)], false);
    }

    fn tell(&self, lines: &[Value], durably: bool) {
        let mut report = self.report_file();
        if report.failed {
            return;
        }
        if let Err(error) = self.append(&mut report, lines, durably) {
            report.failed = true;
            tracing::warn!(path = %self.report_path().display(), %error, "cannot write the recovery report; it goes on here");
        }
    }

    fn append(&self, report: &mut ReportFile, lines: &[Value], durably: bool) -> io::Result<()> {
        let path = self.report_path();
        let mut text = String::new();
        let file = match &report.file {
            Some(file) => Arc::clone(file),
            None => {
                create_dir_durably(self.storage.as_ref(), &self.data_dir, &self.report_dir())?;
                prune(self.storage.as_ref(), &self.report_dir())?;
                let file = self.storage.open(&path, OpenMode::CreateNew)?;
                let known = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
                text = format!("{}\n", self.directory_line(&known));
                report.file = Some(Arc::clone(&file));
                file
            }
        };
        for line in lines {
            text.push_str(&line.to_string());
            text.push('\n');
        }
        let bytes = wide(text.len());
        if report.len.saturating_add(bytes) <= BYTES_MAX {
            file.write_at(Position(report.len), &[text.as_bytes()])?;
            report.len = report.len.saturating_add(bytes);
        }
        if durably {
            file.sync()?;
            self.storage.sync_dir(&self.report_dir())?;
        }
        Ok(())
    }

    fn directory_line(&self, report: &RecoveryReport) -> Value {
        let findings: Vec<Value> = report
            .findings
            .iter()
            .map(|finding| json!({ "row": finding.row, "path": shown(&finding.path), "said": finding.said }))
            .collect();
        let took: serde_json::Map<String, Value> =
            report.took.iter().map(|(part, us)| ((*part).to_owned(), json!(us))).collect();
        let mode = match self.mode {
            Mode::Consensus => "consensus",
            Mode::Embedded => "embedded",
        };
        json!({
            "kind": "directory",
            "format": FORMAT,
            "boot_epoch": self.identity.boot_epoch.get(),
            "opened_at_ms": self.opened_at.get(),
            "version": env!("CARGO_PKG_VERSION"),
            "mode": mode,
            "cluster": self.identity.cluster.to_string(),
            "node": self.identity.node.get(),
            "data": shown(&self.data_dir),
            "rows": report.rows,
            "findings": findings,
            "took_us": took,
        })
    }

    fn log_summary(&self, report: &RecoveryReport) {
        let counts = report.counts;
        tracing::info!(
            logs = report.logs_opened,
            unclean = counts.logs_unclean,
            read_only = counts.logs_read_only,
            kept_frames = counts.kept_frames,
            cut_bytes = counts.cut_bytes,
            set_aside_bytes = counts.set_aside_bytes,
            damaged_offsets = counts.damaged_offsets,
            unread_offsets = counts.unread_offsets,
            sealed_again = counts.sealed_again,
            took_us = counts.took_us,
            report = %self.report_path().display(),
            "recovered"
        );
    }
}

/// The name of the report of a start.
fn file_name(boot_epoch: u64) -> String {
    format!("{boot_epoch:020}.jsonl")
}

/// Removes the oldest reports, so that with one more there are [`REPORTS_KEPT`].
fn prune(storage: &dyn crate::storage::Storage, dir: &Path) -> io::Result<()> {
    let mut epochs: Vec<u64> = storage
        .list(dir)?
        .iter()
        .filter_map(|entry| entry.name.strip_suffix(".jsonl")?.parse().ok())
        .collect();
    epochs.sort_unstable();
    let surplus = epochs.len().saturating_add(1).saturating_sub(REPORTS_KEPT);
    for epoch in epochs.into_iter().take(surplus) {
        storage.remove(&dir.join(file_name(epoch)))?;
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn ranges(ranges: &[std::ops::Range<tidelog_wire::ids::Offset>]) -> Vec<[u64; 2]> {
    ranges.iter().map(|range| [range.start.get(), range.end.get()]).collect()
}

fn log_line(log: &LogRecovery) -> Value {
    let findings: Vec<Value> = log
        .findings
        .iter()
        .map(|finding| {
            json!({
                "row": finding.row,
                "path": shown(&finding.path),
                "position": finding.position.get(),
                "verdict": format!("{:?}", finding.verdict),
                "error": finding.error,
            })
        })
        .collect();
    let aside: Vec<Value> = log
        .set_aside
        .iter()
        .map(
            |aside| json!({ "from": shown(&aside.from), "piece": shown(&aside.piece), "bytes": aside.bytes }),
        )
        .collect();
    let took: serde_json::Map<String, Value> = Phase::ALL
        .iter()
        .filter_map(|(phase, name)| Some(((*name).to_owned(), json!(log.took.0.get(phase)?))))
        .collect();
    json!({
        "kind": "log",
        "generation": log.log.generation.get(),
        "partition": log.log.partition.get(),
        "kept_frames": log.kept_frames,
        "kept_bytes": log.kept_bytes,
        "kept_to": log.kept_to.map(|index| index.get()),
        "replayed_frames": log.replayed_frames,
        "differing_frames": log.differing_frames,
        "cut_bytes": log.cut_bytes,
        "zero_bytes": log.zero_bytes,
        "set_aside_bytes": log.set_aside_bytes,
        "set_aside": aside,
        "sealed_again": log.sealed_again,
        "sealed_bytes": log.sealed_bytes,
        "trimmed": log.trimmed,
        "damage": ranges(&log.damage),
        "unread": ranges(&log.unread),
        "read_only": log.read_only.as_deref().map(shown),
        "rows": log.rows,
        "findings": findings,
        "findings_left_out": log.findings_left_out,
        "took_us": took,
    })
}

fn summary_line(report: &RecoveryReport, counts: RecoveryCounts) -> Value {
    json!({
        "kind": "summary",
        "logs_opened": report.logs_opened,
        "logs_unclean": counts.logs_unclean,
        "logs_read_only": counts.logs_read_only,
        "findings": counts.findings,
        "kept_frames": counts.kept_frames,
        "kept_bytes": counts.kept_bytes,
        "replayed_frames": counts.replayed_frames,
        "differing_frames": counts.differing_frames,
        "cut_bytes": counts.cut_bytes,
        "zero_bytes": counts.zero_bytes,
        "set_aside_bytes": counts.set_aside_bytes,
        "sealed_again": counts.sealed_again,
        "damaged_offsets": counts.damaged_offsets,
        "unread_offsets": counts.unread_offsets,
        "took_us": counts.took_us,
    })
}
