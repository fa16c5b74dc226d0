//! Promise: a log's start rises only to where somebody asked it to.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, NodeId, Offset};

use super::Violation;

/// What was asked to be trimmed.
#[derive(Debug, Default)]
pub struct Trims {
    asked: BTreeMap<LogId, Offset>,
}

impl Trims {
    /// Somebody asks for `start`; it may happen at any time from now on.
    pub fn ask(&mut self, log: LogId, start: Offset) {
        let highest = self.asked.entry(log).or_insert(start);
        *highest = start.max(*highest);
    }

    /// The log starts here.
    ///
    /// # Errors
    /// Nobody asked for that.
    pub fn check(&self, node: NodeId, log: LogId, start: Offset) -> Result<(), Violation> {
        let highest = self.asked.get(&log).copied().unwrap_or(Offset(0));
        if start <= highest {
            return Ok(());
        }
        Err(Violation::of(
            "a log's start rises only to where it was asked to",
            format!("log {log} on node {node} starts at {start}, at most {highest} was asked for"),
        ))
    }
}
