//! `segment repair`: a plan, or with `--apply` the deed.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use tidelog_engine::offline::repair::{Action, Plan, Step, plan, repair};
use tidelog_engine::offline::{self, Finding, Target};
use tidelog_engine::os::OsStorage;
use tidelog_wire::ids::TimestampMs;

use super::arguments::Repair;
use super::view::FindingView;
use super::{find, progress};
use crate::error::CliError;
use crate::output::{Answer, Output};

#[derive(Serialize)]
struct Answered {
    applied: bool,
    steps: Vec<StepView>,
    /// Copies of what was overwritten, cut or displaced.
    backups: Vec<PathBuf>,
    left: Vec<FindingView>,
}

#[derive(Serialize)]
struct StepView {
    file: PathBuf,
    step: &'static str,
    /// First byte that it writes or cuts, and the one behind the last.
    bytes: Option<[u64; 2]>,
    offsets: Option<[u64; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<PathBuf>,
    /// The name that the file gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<PathBuf>,
}

impl StepView {
    fn of(step: &Step) -> Self {
        let range = |start: u64, len: usize| {
            Some([start, start.saturating_add(u64::try_from(len).unwrap_or(u64::MAX))])
        };
        let (name, bytes, offsets, from) = match &step.action {
            Action::Header { bytes } => ("write the header anew", range(0, bytes.len()), None, None),
            Action::Fill { bytes, offsets, from } => {
                ("fill from the copy", Some([bytes.start, bytes.end]), offsets.clone(), Some(from.clone()))
            }
            Action::Seal { at, bytes } => {
                ("write index and footer anew", range(*at, bytes.len()), None, None)
            }
            Action::CutTail { bytes, offsets } => {
                ("set a torn tail aside", Some([bytes.start, bytes.end]), offsets.clone(), None)
            }
            Action::SetAside => ("set the file aside", None, None, None),
            Action::Rename { .. } => ("give it its own name back", None, None, None),
            Action::Place { from, len, offsets } => {
                ("take the segment from the copy", Some([0, *len]), Some(offsets.clone()), Some(from.clone()))
            }
        };
        let offsets = offsets.map(|offsets| [offsets.start.get(), offsets.end.get()]);
        let to = if let Action::Rename { to } = &step.action { Some(to.clone()) } else { None };
        Self { file: step.path.clone(), step: name, bytes, offsets, from, to }
    }

    fn line(&self) -> String {
        let bytes = self.bytes.map_or_else(String::new, |[start, end]| format!(", bytes {start}..{end}"));
        let offsets =
            self.offsets.map_or_else(String::new, |[start, end]| format!(", offsets {start}..{end}"));
        let to = self.to.as_ref().map_or_else(String::new, |to| format!(", {}", to.display()));
        let from = self.from.as_ref().map_or_else(String::new, |from| format!(", from {}", from.display()));
        format!("{}: {}{to}{bytes}{offsets}{from}", self.file.display(), self.step)
    }
}

impl Answer for Answered {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.steps.iter().map(StepView::line).collect();
        lines.extend(self.backups.iter().map(|path| format!("backup: {}", path.display())));
        lines.extend(self.left.iter().map(|left| format!("left: {}", left.line())));
        let (steps, left) = (self.steps.len(), self.left.len());
        lines.push(match (self.applied, steps, left) {
            (_, 0, 0) => "nothing to mend".to_owned(),
            (true, _, _) => format!("{steps} steps done, {left} damaged ranges left"),
            (false, _, _) => {
                format!("{steps} steps would be done (--apply does them), {left} damaged ranges left")
            }
        });
        lines.join("\n")
    }
}

impl Answered {
    fn of(plan: &Plan, applied: bool, backups: Vec<PathBuf>) -> Self {
        let steps = plan.steps.iter().map(StepView::of).collect();
        Self { applied, steps, backups, left: plan.left.iter().map(FindingView::of).collect() }
    }
}

/// Plans, or does, a repair.
pub(crate) fn run(asked: &Repair, output: &Output) -> Result<(), CliError> {
    let target = find(&asked.path)?;
    let from = asked.from.as_deref().map(find).transpose()?;
    let looks = if asked.apply { 2 } else { 1 };
    let bytes = target.bytes().saturating_mul(looks);
    let bytes = bytes.saturating_add(from.as_ref().map_or(0, Target::bytes));
    let bar = progress(output, bytes, if asked.apply { "mending" } else { "planning" });
    let answer = answer(asked, &target, from.as_ref(), &mut |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let answer = answer?;
    output.print(&answer);
    match answer.left.len() {
        0 => Ok(()),
        ranges => Err(CliError::NotMended { ranges }),
    }
}

/// Where what was at a path is now: a segment may have got its own name back.
fn path_after<'a>(done: &'a Plan, path: &'a Path) -> &'a Path {
    let renamed = done.steps.iter().filter(|step| step.path == path);
    let to =
        |step: &'a Step| if let Action::Rename { to } = &step.action { Some(to.as_path()) } else { None };
    renamed.into_iter().find_map(to).unwrap_or(path)
}

fn answer(
    asked: &Repair,
    target: &Target,
    from: Option<&Target>,
    progress: &mut dyn FnMut(u64),
) -> Result<Answered, CliError> {
    if asked.apply {
        let now = TimestampMs(Timestamp::now().as_millisecond());
        let done = repair(&OsStorage, &target.path, from.map(|from| from.path.as_path()), now, progress)?;
        // What is left is what verifying finds now, not what the plan said.
        let target = offline::find(&OsStorage, path_after(&done.plan, &target.path))?;
        let verified = offline::verify(&OsStorage, &target, progress);
        let uncut = |finding: &Finding| finding.why.is_undecided();
        let undecided = done.plan.left.into_iter().filter(uncut);
        let plan =
            Plan { steps: done.plan.steps, left: verified.damage.into_iter().chain(undecided).collect() };
        return Ok(Answered::of(&plan, true, done.backups));
    }
    Ok(Answered::of(&plan(&OsStorage, target, from, progress), false, Vec::new()))
}
