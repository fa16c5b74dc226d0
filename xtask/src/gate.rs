//! The gate: runs its steps one after the other and ends with a table.
//!
//! A failed step does not stop the ones after it: whoever waited for the gate learns everything that
//! is wrong, and the command that repeats each failure alone.

use std::time::Duration;

use crate::programs::{Failure, Workspace, timed};

/// One step of the gate.
pub(crate) struct Step {
    /// Name in the table.
    pub(crate) name: &'static str,
    /// What it proves, in one line.
    pub(crate) about: &'static str,
    /// The command that repeats it alone.
    pub(crate) repeat: &'static str,
    /// The work.
    pub(crate) work: fn(&Workspace) -> Result<(), Failure>,
}

/// What became of a step.
struct Row {
    name: &'static str,
    repeat: &'static str,
    took: Duration,
    failure: Option<Failure>,
}

/// Runs all `steps` and prints the table; fails if one failed.
pub(crate) fn run(workspace: &Workspace, steps: &[Step]) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for (number, step) in (1..).zip(steps) {
        println!("\n== {number}/{} {}: {}", steps.len(), step.name, step.about);
        let (result, took) = timed(|| (step.work)(workspace));
        let failure = result.err();
        match &failure {
            None => println!("== {} passed in {}", step.name, shown(took)),
            Some(failure) => println!("== {} FAILED in {}: {failure}", step.name, shown(took)),
        }
        rows.push(Row { name: step.name, repeat: step.repeat, took, failure });
    }
    print!("{}", table(&rows));
    match rows.iter().filter(|row| row.failure.is_some()).count() {
        0 => Ok(()),
        count => Err(Failure::Gate { count, total: rows.len() }),
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = format!("\n{:<12} {:>8}  {:<7} {}\n", "step", "time", "result", "to repeat it");
    for row in rows {
        let result = if row.failure.is_none() { "passed" } else { "FAILED" };
        table.push_str(&format!("{:<12} {:>8}  {result:<7} {}\n", row.name, shown(row.took), row.repeat));
    }
    let total = rows.iter().map(|row| row.took).sum();
    table.push_str(&format!("{:<12} {:>8}\n", "all", shown(total)));
    table
}

fn shown(took: Duration) -> String {
    let seconds = took.as_secs();
    if seconds < 60 {
        format!("{seconds}.{} s", took.subsec_millis() / 100)
    } else {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        Workspace { root: ".".into(), target: "target".into() }
    }

    fn passes(_: &Workspace) -> Result<(), Failure> {
        Ok(())
    }

    fn fails(_: &Workspace) -> Result<(), Failure> {
        Err(Failure::Findings { count: 3 })
    }

    /// One failed step fails the gate, and the table names the command that repeats it.
    #[test]
    fn a_failed_step_fails_the_gate_and_is_named() {
        let good = Step { name: "good", about: "", repeat: "cargo xtask good", work: passes };
        let bad = Step { name: "bad", about: "", repeat: "cargo xtask bad", work: fails };
        assert!(matches!(run(&workspace(), &[bad, good]), Err(Failure::Gate { count: 1, total: 2 })));

        let rows = [
            Row {
                name: "good",
                repeat: "cargo xtask good",
                took: Duration::from_millis(1_250),
                failure: None,
            },
            Row {
                name: "bad",
                repeat: "cargo xtask bad",
                took: Duration::from_secs(61),
                failure: Some(Failure::Findings { count: 3 }),
            },
        ];
        let table = table(&rows);
        assert!(table.contains("good            1.2 s  passed"), "{table}");
        assert!(table.contains("bad            1m 01s  FAILED  cargo xtask bad"), "{table}");
    }
}
