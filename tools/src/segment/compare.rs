//! `segment compare`: where two copies of a log part.

use std::path::PathBuf;

use serde::Serialize;
use tidelog_engine::offline::{self, Comparison, FrameAt, LogFiles, Target};
use tidelog_engine::os::OsStorage;

use super::arguments::Compare;
use super::view::log_name;
use super::{find, progress_of_logs};
use crate::error::CliError;
use crate::output::{Answer, Output};

#[derive(Serialize)]
struct Comparisons {
    logs: Vec<LogView>,
    /// Logs that only one side has.
    only_in_one: Vec<String>,
}

#[derive(Serialize)]
struct LogView {
    log: String,
    /// Offsets that each side has.
    offsets: [[u64; 2]; 2],
    equal_to: Option<u64>,
    difference: Option<[FrameView; 2]>,
    reads: u64,
    read_bytes: u64,
}

#[derive(Serialize)]
struct FrameView {
    file: PathBuf,
    position: u64,
    offsets: [u64; 2],
    chain: String,
}

impl FrameView {
    fn of(frame: &FrameAt) -> Self {
        Self {
            file: frame.path.clone(),
            position: frame.position.get(),
            offsets: [frame.records.start.get(), frame.records.end.get()],
            chain: frame.chain.to_string(),
        }
    }

    fn line(&self) -> String {
        let [start, end] = self.offsets;
        format!(
            "{}: byte {}, offsets {start}..{end}, chain {}",
            self.file.display(),
            self.position,
            self.chain
        )
    }
}

impl LogView {
    fn of(log: String, comparison: &Comparison) -> Self {
        let Comparison { ranges, equal_to, difference, reads, read_bytes } = comparison;
        Self {
            log,
            offsets: ranges.clone().map(|range| [range.start.get(), range.end.get()]),
            equal_to: equal_to.map(|offset| offset.get()),
            difference: difference.as_ref().map(|[one, other]| [FrameView::of(one), FrameView::of(other)]),
            reads: *reads,
            read_bytes: *read_bytes,
        }
    }

    /// Neither equal nor different: they have no offset in common, or none that is intact in both.
    fn is_unknown(&self) -> bool {
        let [[a, b], [c, d]] = self.offsets;
        self.difference.is_none() && self.equal_to.is_none() && !(a == b && c == d)
    }

    fn line(&self) -> String {
        let [[a, b], [c, d]] = self.offsets;
        let what = match (&self.difference, self.equal_to) {
            (Some([one, other]), equal_to) => format!(
                "{}; they part with\n  {}\n  {}",
                equal_to.map_or_else(
                    || "nothing of what both have is equal".to_owned(),
                    |offset| format!("equal up to offset {offset}")
                ),
                one.line(),
                other.line()
            ),
            (None, Some(offset)) => format!("equal up to offset {offset}, as far as both go"),
            (None, None) if a == b && c == d => "both are empty".to_owned(),
            (None, None) if a.max(c) >= b.min(d) => "no offsets in common".to_owned(),
            (None, None) => "nothing that both have could be compared: verify both for damage".to_owned(),
        };
        let effort = format!("{} reads, {} bytes", self.reads, self.read_bytes);
        format!("log {}: offsets {a}..{b} and {c}..{d}: {what} ({effort})", self.log)
    }
}

impl Answer for Comparisons {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.logs.iter().map(LogView::line).collect();
        lines.extend(self.only_in_one.iter().map(|log| format!("log {log}: only one side has it")));
        lines.join("\n")
    }
}

/// Compares every log that both sides have.
pub(crate) fn run(compare: &Compare, output: &Output) -> Result<(), CliError> {
    let (one, other) = (find(&compare.one)?, find(&compare.other)?);
    let mut answer = Comparisons { logs: Vec::new(), only_in_one: Vec::new() };
    let bar = progress_of_logs(output, one.logs.len(), "comparing");
    for files in &one.logs {
        match counterpart(files, &one, &other) {
            Some(copy) => {
                let comparison = offline::compare(&OsStorage, files, copy)?;
                answer.logs.push(LogView::of(log_name(files.log, &files.dir), &comparison));
            }
            None => answer.only_in_one.push(log_name(files.log, &files.dir)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    for files in &other.logs {
        if counterpart(files, &other, &one).is_none() {
            answer.only_in_one.push(log_name(files.log, &files.dir));
        }
    }
    let differ = answer.logs.iter().filter(|log| log.difference.is_some()).count();
    let differ = differ + answer.only_in_one.len();
    let unknown = answer.logs.iter().filter(|log| log.is_unknown()).count();
    output.print(&answer);
    match (differ, unknown) {
        (0, 0) => Ok(()),
        (0, logs) => Err(CliError::NotCompared { logs }),
        (logs, _) => Err(CliError::Differ { logs }),
    }
}

/// The same log on the other side; where each side is one log, they are compared whatever their names.
fn counterpart<'a>(files: &LogFiles, one: &Target, other: &'a Target) -> Option<&'a LogFiles> {
    match (one.logs.as_slice(), other.logs.as_slice()) {
        ([_], [only]) => Some(only),
        _ => other.logs.iter().find(|copy| copy.log == files.log),
    }
}
