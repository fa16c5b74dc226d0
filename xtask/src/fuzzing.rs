//! Fuzzing: each target for a while, and a table of what it did.
//!
//! The sanitizers are a nightly feature of the compiler; `RUSTC_BOOTSTRAP` lets the stable one have it. A target begins with
//! its committed corpus and the golden bytes of every format; what it finds interesting is kept below the target
//! directory, so the next run begins where this one ended. A single allocation beyond the limit is a finding, and so is an
//! input that takes too long.
//!
//! A finding does not stop the targets after it: whoever waited learns all of them.

use std::path::Path;

use crate::programs::{Failure, Program, Workspace, timed};
use crate::tree::Tree;

/// Largest single allocation of a target: above the longest frame and the longest read, far below what hurts.
const ALLOCATION_MIB_MAX: u32 = 64;
/// Most memory of a target, corpus and sanitizer included.
const MEMORY_MIB_MAX: u32 = 2048;
/// Seconds that one input may take.
const INPUT_SECONDS_MAX: u32 = 20;
/// Longest input that is made up.
const INPUT_BYTES_MAX: u32 = 4096;
/// Where targets and their corpora lie.
const TARGETS: &str = "fuzz/fuzz_targets";
const CORPUS: &str = "fuzz/corpus";

/// What became of a target.
struct Row {
    target: String,
    seconds: u64,
    executions: u64,
    inputs: u64,
    failure: Option<Failure>,
}

/// Runs the targets, or the one that is named, for `seconds` each.
pub(crate) fn run(
    workspace: &Workspace,
    driver: &Path,
    seconds: u32,
    only: Option<&str>,
) -> Result<(), Failure> {
    let tree = Tree::read(&workspace.root)?;
    let targets = tree.stems_below(TARGETS);
    let chosen: Vec<String> =
        targets.iter().filter(|target| only.is_none_or(|only| only == target.as_str())).cloned().collect();
    if chosen.is_empty() {
        return Err(Failure::NoTarget { known: targets.join(", ") });
    }
    let mut rows = Vec::new();
    for target in chosen {
        let program = program(workspace, &tree, driver, &target, seconds)?;
        let (told, took) = timed(|| workspace.run_telling(&program));
        let (told, failure) = match told {
            Ok((told, failure)) => (told, failure),
            Err(failure) => (String::new(), Some(failure)),
        };
        rows.push(row(target, took.as_secs(), &told, failure));
    }
    print!("{}", table(&rows));
    match rows.iter().filter(|row| row.failure.is_some()).count() {
        0 => Ok(()),
        count => Err(Failure::Gate { count, total: rows.len() }),
    }
}

fn program(
    workspace: &Workspace,
    tree: &Tree,
    driver: &Path,
    target: &str,
    seconds: u32,
) -> Result<Program, Failure> {
    let build = workspace.target.join("fuzz");
    let growing = workspace.folder(&build.join("corpus").join(target))?;
    let committed = format!("{CORPUS}/{target}");
    let mut program = Program::new(driver)
        .arguments(["fuzz", "run", "--fuzz-dir", "fuzz", target])
        .arguments([&growing])
        .arguments(tree.holds(&committed).then_some(&committed))
        .arguments(tree.folders_named("testdata"))
        .arguments(["--", "-verbosity=0", "-print_final_stats=1"]);
    for (option, value) in [
        ("max_total_time", seconds),
        ("max_len", INPUT_BYTES_MAX),
        ("malloc_limit_mb", ALLOCATION_MIB_MAX),
        ("rss_limit_mb", MEMORY_MIB_MAX),
        ("timeout", INPUT_SECONDS_MAX),
    ] {
        program = program.arguments([format!("-{option}={value}")]);
    }
    Ok(program.variable("CARGO_TARGET_DIR", &build).variable("RUSTC_BOOTSTRAP", "1"))
}

/// What became of a target that told so much. One that executed nothing has found nothing out, whatever its exit code.
fn row(target: String, seconds: u64, told: &str, failure: Option<Failure>) -> Row {
    let executions = stat(told, "stat::number_of_executed_units:");
    let inputs = stat(told, "stat::new_units_added:").unwrap_or(0);
    let failure =
        failure.or_else(|| executions.is_none_or(|count| count == 0).then_some(Failure::NothingExecuted));
    Row { target, seconds, executions: executions.unwrap_or(0), inputs, failure }
}

/// The number behind `name` in what a target tells at its end.
fn stat(told: &str, name: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.trim().strip_prefix(name))?;
    line.trim().parse().ok()
}

fn table(rows: &[Row]) -> String {
    let mut table =
        format!("\n{:<18} {:>7} {:>12} {:>10}  {}\n", "target", "time", "executions", "new", "result");
    for row in rows {
        let result = match &row.failure {
            None => "no finding".to_owned(),
            Some(Failure::NothingExecuted) => format!("FAILED: {}", Failure::NothingExecuted),
            Some(found) => format!("FOUND: {found}"),
        };
        let seconds = format!("{} s", row.seconds);
        table.push_str(&format!(
            "{:<18} {seconds:>7} {:>12} {:>10}  {result}\n",
            row.target, row.executions, row.inputs
        ));
    }
    let all: u64 = rows.iter().map(|row| row.executions).sum();
    table.push_str(&format!("{:<18} {:>7} {all:>12}\n", "all", ""));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A finding is told beside the target, and so is how much was tried.
    #[test]
    fn the_table_tells_executions_and_findings() {
        let told = "Done 7 runs\nstat::number_of_executed_units: 1234\nstat::new_units_added:          5\n";
        assert_eq!(stat(told, "stat::number_of_executed_units:"), Some(1234));
        assert_eq!(stat(told, "stat::peak_rss_mb:"), None);
        let row = |target: &str, failure| Row {
            target: target.to_owned(),
            seconds: 9,
            executions: 1234,
            inputs: 5,
            failure,
        };
        let found = Failure::NoTarget { known: "frame".to_owned() };
        let table = table(&[row("frame", None), row("footer", Some(found))]);
        assert!(table.contains("frame                  9 s         1234          5  no finding"), "{table}");
        assert!(table.contains("footer                 9 s         1234          5  FOUND: "), "{table}");
        assert!(table.contains("2468"), "{table}");
    }

    /// A target that never ran an input, or whose count could not be read, stood in the table as one without a finding.
    #[test]
    fn a_target_that_executed_nothing_is_a_failure() {
        for told in ["", "stat::number_of_executed_units: 0\n", "stat::number_of_executed_units: many\n"] {
            let row = row("frame".to_owned(), 9, told, None);
            assert!(matches!(row.failure, Some(Failure::NothingExecuted)), "{told}");
            assert!(table(&[row]).contains("FAILED: it executed nothing"), "{told}");
        }
        assert!(row("frame".to_owned(), 9, "stat::number_of_executed_units: 7\n", None).failure.is_none());
    }
}
