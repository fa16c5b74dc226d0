//! Enumerates what crashes may leave and holds recovery to its promises: `tidelog-crash-states --help`.

use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidelog_crash::recorder::LeftOut;
use tidelog_crash::replay::State;
use tidelog_crash::report::Report;
use tidelog_crash::run::Plan;
use tidelog_crash::states::Effort;
use tidelog_crash::workloads;

/// Builds every state that a crash may leave, recovers from each, and holds recovery to its promises.
///
/// Workloads run over a recorded disk. For every point between two of their file operations the states
/// that a crash may leave there are built: all of them where they are few, else some of the systematic ones
/// and a seeded sample. Each is opened, checked, opened again, worked on, and cut again; some recoveries
/// are recorded and crashed themselves, and the states that this leaves are opened and checked. See docs/crash-states.md.
#[derive(Debug, Parser)]
#[command(
    name = "tidelog-crash-states",
    version,
    after_help = "EXIT CODES:\n  0  every promise was kept\n  1  one was not; each is printed with the command that repeats it\n  2  wrong usage"
)]
struct Arguments {
    /// The smaller batch, which is part of the gate.
    #[arg(long)]
    quick: bool,
    /// Only these workloads.
    #[arg(long, value_name = "NAME", value_parser = workload)]
    workload: Vec<String>,
    /// Makes one state again, as a violation names it, and tells what is in it.
    #[arg(long, value_name = "STATE", conflicts_with_all = ["quick", "workload"])]
    replay: Option<State>,
    /// A deliberate defect, which must be found.
    #[arg(long, value_enum)]
    defect: Option<Defect>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Threads. Without it one more than there are processors: raft-engine starts on threads of its own, which are
    /// waited for.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Defect {
    /// Syncs of files do nothing and say that they worked.
    NoFileSyncs,
    /// The same for syncs of directories.
    NoDirectorySyncs,
    /// Recovery does not sync what it keeps (a build with `--features defects`).
    SkipRecoveredTailSync,
}

fn workload(text: &str) -> Result<String, String> {
    if workloads::NAMES.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("there is no such workload: choose from {}", workloads::NAMES.join(", ")))
    }
}

impl Arguments {
    fn plan(&self) -> Plan {
        let left_out = match self.defect {
            Some(Defect::NoFileSyncs) => LeftOut::FileSyncs,
            Some(Defect::NoDirectorySyncs) => LeftOut::DirectorySyncs,
            None | Some(Defect::SkipRecoveredTailSync) => LeftOut::Nothing,
        };
        let (first, again_one_in, again, again_points) = if self.quick {
            (
                Effort { exhaustive: 32, systematic: 4, seeds: 19 },
                307,
                Effort { exhaustive: 4, systematic: 2, seeds: 2 },
                2,
            )
        } else {
            (
                Effort { exhaustive: 512, systematic: 32, seeds: 345 },
                307,
                Effort { exhaustive: 16, systematic: 4, seeds: 6 },
                6,
            )
        };
        Plan { first, again_one_in, again, again_points, threads: self.threads(), left_out }
    }

    fn threads(&self) -> NonZeroUsize {
        let processors = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(|| processors().saturating_add(1))
    }

    fn skips_sync(&self) -> bool {
        self.defect == Some(Defect::SkipRecoveredTailSync)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.skips_sync() && !cfg!(feature = "defects") {
        eprintln!("this build has no such defect: build with `--features defects`");
        return ExitCode::from(2);
    }
    let done = match &arguments.replay {
        Some(state) => replay(state, &arguments),
        None => enumerate(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how long it took is for people; nothing else depends on it")]
fn enumerate(arguments: &Arguments) -> std::io::Result<bool> {
    let began = std::time::Instant::now();
    let plan = arguments.plan();
    let mut outcomes = Vec::new();
    let asked =
        |name: &str| arguments.workload.is_empty() || arguments.workload.iter().any(|one| one == name);
    for name in workloads::NAMES.into_iter().filter(|name| asked(name)) {
        let bar = bar(name);
        let done = |points, of| {
            bar.set_length(u64::try_from(of).unwrap_or(u64::MAX));
            bar.inc(u64::try_from(points).unwrap_or(0));
        };
        let outcome = workloads::run_named(name, &plan, arguments.skips_sync(), &done);
        bar.finish_and_clear();
        match outcome {
            Some(Ok(outcome)) => outcomes.push(outcome),
            Some(Err(broken)) => return Err(std::io::Error::other(format!("workload {name}: {broken}"))),
            None => return Err(std::io::Error::other(format!("workload {name} is missing"))),
        }
    }
    let defect = arguments.defect.and_then(|defect| defect.to_possible_value());
    let defect = defect.map(|defect| defect.get_name().to_owned());
    let report = Report::new(&outcomes, began.elapsed().as_secs_f64(), defect);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report.all.violations == 0)
}

fn bar(name: &'static str) -> ProgressBar {
    let bar = ProgressBar::no_length().with_message(name);
    if let Ok(style) = ProgressStyle::with_template("{msg:>10} {wide_bar} {pos}/{len} points, {eta}") {
        bar.set_style(style);
    }
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

fn replay(state: &State, arguments: &Arguments) -> std::io::Result<bool> {
    let replayed = workloads::replay(state, arguments.plan().left_out, arguments.skips_sync());
    let replayed = match replayed {
        Some(Ok(replayed)) => replayed,
        Some(Err(broken)) => return Err(std::io::Error::other(broken)),
        None => return Err(std::io::Error::other(format!("there is no workload `{}`", state.workload))),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "the last operations before the crash:")?;
    for operation in &replayed.operations {
        writeln!(out, "{operation}")?;
    }
    writeln!(out, "the crash leaves:")?;
    for file in &replayed.files {
        writeln!(out, "       {file}")?;
    }
    match &replayed.broken {
        None => writeln!(out, "every promise was kept")?,
        Some(broken) => writeln!(out, "BROKEN: {broken}")?,
    }
    Ok(replayed.broken.is_none())
}
