//! Findings and ranges in words and as JSON.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tidelog_engine::offline::{Finding, Label};
use tidelog_wire::ids::{LogId, Offset};

/// A damaged range, as every answer says it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct FindingView {
    file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    /// First byte, and the one behind the last.
    bytes: [u64; 2],
    /// First offset, and the one behind the last; `null` if no record is lost.
    offsets: Option<[u64; 2]>,
    why: String,
}

impl FindingView {
    pub(crate) fn of(finding: &Finding) -> Self {
        Self {
            file: finding.path.clone(),
            log: finding.log.map(|log| log.to_string()),
            bytes: [finding.bytes.start, finding.bytes.end],
            offsets: finding.offsets.as_ref().map(|offsets| [offsets.start.get(), offsets.end.get()]),
            why: finding.why.to_string(),
        }
    }

    pub(crate) fn line(&self) -> String {
        let [start, end] = self.bytes;
        let offsets = self
            .offsets
            .map_or_else(|| "no records".to_owned(), |[start, end]| format!("offsets {start}..{end}"));
        format!("{}: bytes {start}..{end}, {offsets}: {}", self.file.display(), self.why)
    }
}

/// `7/3`, or the directory if nothing says which log it is.
pub(crate) fn log_name(log: Option<LogId>, dir: &Path) -> String {
    log.map_or_else(|| dir.display().to_string(), |log| log.to_string())
}

/// What a part holds, in a few words.
pub(crate) fn content(label: &Label) -> String {
    let lost = |offsets: &Option<Range<Offset>>| {
        offsets.as_ref().map_or_else(String::new, |lost| format!("offsets {}..{}: ", lost.start, lost.end))
    };
    match label {
        Label::Header | Label::Footer => String::new(),
        Label::Frames { count, records, chain } => {
            format!("{count}, offsets {}..{}, chain {chain}", records.start, records.end)
        }
        Label::Padding => "zeros written ahead".to_owned(),
        Label::Index { entries } => format!("{entries} entries"),
        Label::TornTail { why } => why.to_string(),
        Label::Damage { why, offsets } | Label::Foreign { why, offsets } => format!("{}{why}", lost(offsets)),
    }
}
