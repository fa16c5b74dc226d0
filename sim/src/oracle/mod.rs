//! What must be true in every run, one file each.
//!
//! An oracle is told what happened and says at once if it contradicts the promise. The first
//! contradiction ends the run: what follows from a broken state explains nothing.

pub mod acknowledged;
pub mod applied;
pub mod convergence;
pub mod elections;
pub mod high_watermark;
pub mod history;
pub mod trims;

use std::fmt;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: &'static str,
    /// What was seen instead.
    pub seen: String,
}

impl Violation {
    /// A violation of `promise`.
    #[must_use]
    pub fn of(promise: &'static str, seen: String) -> Self {
        Self { promise, seen }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.promise, self.seen)
    }
}

/// All oracles that keep a memory of the run.
#[derive(Debug, Default)]
pub struct Oracles {
    /// What was acknowledged.
    pub acknowledged: acknowledged::Acknowledged,
    /// What applying came to.
    pub applied: applied::AppliedEntries,
    /// Who led.
    pub elections: elections::Elections,
    /// How far logs were readable.
    pub high_watermark: high_watermark::HighWatermarks,
    /// What was read.
    pub history: history::History,
    /// What was asked to be trimmed.
    pub trims: trims::Trims,
}
