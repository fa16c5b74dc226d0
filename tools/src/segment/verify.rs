//! `segment verify`: one line per damaged range.

use std::path::PathBuf;

use serde::Serialize;
use tidelog_engine::offline::{self, Unjudged};
use tidelog_engine::os::OsStorage;

use super::arguments::Paths;
use super::view::FindingView;
use super::{find, progress};
use crate::error::CliError;
use crate::output::{Answer, Output};

#[derive(Default, Serialize)]
struct Verdict {
    files: u64,
    bytes: u64,
    damage: Vec<FindingView>,
    torn_tails: Vec<FindingView>,
    below_start: Vec<FindingView>,
    not_judged: Vec<UnjudgedView>,
}

#[derive(Serialize)]
struct UnjudgedView {
    path: PathBuf,
    log: Option<String>,
    why: String,
}

impl UnjudgedView {
    fn of(unjudged: &Unjudged) -> Self {
        let Unjudged { path, log, what } = unjudged;
        Self { path: path.clone(), log: log.map(|log| log.to_string()), why: what.to_string() }
    }

    fn line(&self) -> String {
        let log = self.log.as_ref().map_or_else(String::new, |log| format!("log {log}, "));
        format!("not judged: {log}{}: {}", self.path.display(), self.why)
    }
}

impl Answer for Verdict {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.damage.iter().map(FindingView::line).collect();
        let torn = self.torn_tails.iter().map(|torn| format!("{} (a torn tail, no damage)", torn.line()));
        lines.extend(torn);
        let below = self.below_start.iter();
        lines.extend(below.map(|one| format!("{} (below the start of the log, no damage)", one.line())));
        lines.extend(self.not_judged.iter().map(UnjudgedView::line));
        let read = format!("{} files, {} bytes", self.files, self.bytes);
        lines.push(match (self.damage.len(), self.not_judged.len()) {
            (0, 0) => format!("sound: {read}"),
            (0, logs) => format!("no damage in what could be judged, {logs} logs not judged in full: {read}"),
            (ranges, _) => format!("{ranges} damaged ranges in {read}"),
        });
        lines.join("\n")
    }
}

/// Verifies everything at the paths.
pub(crate) fn run(paths: &Paths, output: &Output) -> Result<(), CliError> {
    let targets = paths.paths.iter().map(|path| find(path)).collect::<Result<Vec<_>, _>>()?;
    let bar = progress(output, targets.iter().map(offline::Target::bytes).sum(), "verifying");
    let mut verdict = Verdict::default();
    for target in &targets {
        let verified = offline::verify(&OsStorage, target, &mut |bytes| bar.inc(bytes));
        verdict.files = verdict.files.saturating_add(verified.files);
        verdict.bytes = verdict.bytes.saturating_add(verified.bytes);
        verdict.damage.extend(verified.damage.iter().map(FindingView::of));
        verdict.torn_tails.extend(verified.torn.iter().map(FindingView::of));
        verdict.below_start.extend(verified.below_start.iter().map(FindingView::of));
        verdict.not_judged.extend(verified.not_judged.iter().map(UnjudgedView::of));
    }
    bar.finish_and_clear();
    output.print(&verdict);
    match (verdict.damage.len(), verdict.not_judged.len()) {
        (0, 0) => Ok(()),
        (0, logs) => Err(CliError::NotJudged { logs }),
        (ranges, _) => Err(CliError::Damaged { ranges }),
    }
}
