//! What is printed in the end, for people and as JSON.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::run::{Outcome, Violation};

/// Violations shown of each workload.
const SHOWN: usize = 5;

/// All workloads.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One line each.
    pub workloads: Vec<Line>,
    /// The sums. An image that two workloads reach counts once.
    pub all: Line,
    /// How long it took.
    pub seconds: f64,
    /// What was not kept: at most a few of each workload.
    pub broken: Vec<Found>,
    /// What else the command that repeats a state must say: the deliberate defect, as `--defect` takes it.
    pub defect: Option<String>,
}

/// Figures of one workload, or of all.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub workload: String,
    /// File operations that can change what a crash leaves.
    pub operations: usize,
    /// Points between them of which every state was tried.
    pub points_exhausted: u64,
    /// States after a first crash, judged in full.
    pub states_tried: u64,
    /// Different images among them.
    pub distinct_states: usize,
    /// States after a crash of the recovery, opened and held to the promise.
    pub second_states_tried: u64,
    /// Different images among those.
    pub second_distinct_states: usize,
    /// Different logs, raft logs and checkpoints that recovery made of all of them.
    pub distinct_recoveries: usize,
    /// Points at which a promise was not kept.
    pub violations: usize,
}

/// One violation.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// What `--replay` takes.
    pub state: String,
    /// The last operation before the crash.
    pub operation: String,
    /// What was not kept.
    pub broken: String,
}

impl From<&Violation> for Found {
    fn from(violation: &Violation) -> Self {
        Self {
            state: violation.state.to_string(),
            operation: violation.operation.clone(),
            broken: violation.broken.to_string(),
        }
    }
}

impl Report {
    /// Adds up. `defect`: what was broken on purpose, as `--defect` takes it.
    #[must_use]
    pub fn new(outcomes: &[Outcome], seconds: f64, defect: Option<String>) -> Self {
        let line = |name: &str, outcomes: &[Outcome]| {
            let union = |set: fn(&Outcome) -> &BTreeSet<u64>| {
                outcomes.iter().flat_map(|outcome| set(outcome).iter()).collect::<BTreeSet<_>>().len()
            };
            Line {
                workload: name.to_owned(),
                operations: outcomes.iter().map(|outcome| outcome.operations).sum(),
                points_exhausted: outcomes.iter().map(|outcome| outcome.tally.exhausted).sum(),
                states_tried: outcomes.iter().map(|outcome| outcome.tally.tried).sum(),
                distinct_states: union(|outcome| &outcome.tally.images),
                second_states_tried: outcomes.iter().map(|outcome| outcome.tally.tried_again).sum(),
                second_distinct_states: union(|outcome| &outcome.tally.images_again),
                distinct_recoveries: union(|outcome| &outcome.tally.recoveries),
                violations: outcomes.iter().map(|outcome| outcome.tally.violations.len()).sum(),
            }
        };
        let found =
            |outcome: &Outcome| outcome.tally.violations.iter().take(SHOWN).map(Found::from).collect();
        Self {
            workloads: outcomes
                .iter()
                .map(|outcome| line(outcome.workload, std::slice::from_ref(outcome)))
                .collect(),
            all: line("all", outcomes),
            seconds,
            broken: outcomes.iter().flat_map(|outcome| -> Vec<Found> { found(outcome) }).collect(),
            defect,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "workload",
            "operations",
            "exhausted",
            "tried",
            "distinct",
            "2nd tried",
            "2nd dist.",
            "recoveries",
            "violations"
        )?;
        for line in self.workloads.iter().chain([&self.all]) {
            writeln!(
                out,
                "{:<12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
                line.workload,
                line.operations,
                line.points_exhausted,
                line.states_tried,
                line.distinct_states,
                line.second_states_tried,
                line.second_distinct_states,
                line.distinct_recoveries,
                line.violations
            )?;
        }
        writeln!(
            out,
            "workloads {}, operations {}, states tried {}, distinct states {}, after a second crash {} and {}, \
             distinct recoveries {}, violations {}, in {:.1} s",
            self.workloads.len(),
            self.all.operations,
            self.all.states_tried,
            self.all.distinct_states,
            self.all.second_states_tried,
            self.all.second_distinct_states,
            self.all.distinct_recoveries,
            self.all.violations,
            self.seconds
        )?;
        let defect = self.defect.as_ref().map(|defect| format!(" --defect {defect}")).unwrap_or_default();
        for found in &self.broken {
            writeln!(out, "\nBROKEN: {}", found.broken)?;
            writeln!(out, "  after the operation: {}", found.operation)?;
            writeln!(out, "  again: cargo xtask crash-states --{defect} --replay '{}'", found.state)?;
        }
        Ok(())
    }
}
