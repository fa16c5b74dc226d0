//! `segment verify`: one line per damaged range.

use serde::Serialize;
use tidelog_engine::offline;
use tidelog_engine::os::OsStorage;

use super::arguments::Paths;
use super::view::FindingView;
use super::{find, progress};
use crate::error::CliError;
use crate::output::{Answer, Output};

#[derive(Serialize)]
struct Verdict {
    files: u64,
    bytes: u64,
    damage: Vec<FindingView>,
    torn_tails: Vec<FindingView>,
    below_start: Vec<FindingView>,
}

impl Answer for Verdict {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.damage.iter().map(FindingView::line).collect();
        let torn = self.torn_tails.iter().map(|torn| format!("{} (a torn tail, no damage)", torn.line()));
        lines.extend(torn);
        let below = self.below_start.iter();
        lines.extend(below.map(|one| format!("{} (below the start of the log, no damage)", one.line())));
        let count = self.damage.len();
        lines.push(match count {
            0 => format!("sound: {} files, {} bytes", self.files, self.bytes),
            _ => format!("{count} damaged ranges in {} files, {} bytes", self.files, self.bytes),
        });
        lines.join("\n")
    }
}

/// Verifies everything at the paths.
pub(crate) fn run(paths: &Paths, output: &Output) -> Result<(), CliError> {
    let targets = paths.paths.iter().map(|path| find(path)).collect::<Result<Vec<_>, _>>()?;
    let bar = progress(targets.iter().map(offline::Target::bytes).sum(), "verifying");
    let mut verdict =
        Verdict { files: 0, bytes: 0, damage: Vec::new(), torn_tails: Vec::new(), below_start: Vec::new() };
    for target in &targets {
        let verified = offline::verify(&OsStorage, target, &mut |bytes| bar.inc(bytes));
        verdict.files = verdict.files.saturating_add(verified.files);
        verdict.bytes = verdict.bytes.saturating_add(verified.bytes);
        verdict.damage.extend(verified.damage.iter().map(FindingView::of));
        verdict.torn_tails.extend(verified.torn.iter().map(FindingView::of));
        verdict.below_start.extend(verified.below_start.iter().map(FindingView::of));
    }
    bar.finish_and_clear();
    output.print(&verdict);
    match verdict.damage.len() {
        0 => Ok(()),
        ranges => Err(CliError::Damaged { ranges }),
    }
}
