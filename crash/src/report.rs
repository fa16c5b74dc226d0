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
    /// States opened and held to the promise.
    pub states_tried: u64,
    /// Different images among them.
    pub distinct_states: usize,
    /// Different directories that recovery made of them.
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
    /// Adds up.
    #[must_use]
    pub fn new(outcomes: &[Outcome], seconds: f64) -> Self {
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
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "{:<12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
            "workload", "operations", "exhausted", "tried", "distinct", "recoveries", "violations"
        )?;
        for line in self.workloads.iter().chain([&self.all]) {
            writeln!(
                out,
                "{:<12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}",
                line.workload,
                line.operations,
                line.points_exhausted,
                line.states_tried,
                line.distinct_states,
                line.distinct_recoveries,
                line.violations
            )?;
        }
        writeln!(
            out,
            "workloads {}, operations {}, states tried {}, distinct states {}, distinct recoveries {}, \
             violations {}, in {:.1} s",
            self.workloads.len(),
            self.all.operations,
            self.all.states_tried,
            self.all.distinct_states,
            self.all.distinct_recoveries,
            self.all.violations,
            self.seconds
        )?;
        for found in &self.broken {
            writeln!(out, "\nBROKEN: {}", found.broken)?;
            writeln!(out, "  after the operation: {}", found.operation)?;
            writeln!(out, "  again: cargo xtask crash-states -- --replay '{}'", found.state)?;
        }
        Ok(())
    }
}
