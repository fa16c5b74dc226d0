//! **Records go only when somebody asked**: a log's start rises only to where it was asked to.
//!
//! A promise of this project: nothing is dropped that nobody gave up. It is told what is asked for, and where logs are
//! seen to start.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, NodeId, Offset};

use super::Violation;

/// What was asked to be trimmed.
#[derive(Debug, Default)]
pub struct LogStart {
    asked: BTreeMap<LogId, Offset>,
}

impl LogStart {
    /// Somebody asks for `start`; it may happen at any time from now on.
    pub fn asked(&mut self, log: LogId, start: Offset) {
        let highest = self.asked.entry(log).or_insert(start);
        *highest = start.max(*highest);
    }

    /// The log starts here.
    ///
    /// # Errors
    /// Nobody asked for that.
    pub fn is(&self, node: NodeId, log: LogId, start: Offset) -> Result<(), Violation> {
        let highest = self.asked.get(&log).copied().unwrap_or(Offset(0));
        if start <= highest {
            return Ok(());
        }
        Err(Violation::of(
            "records go only when somebody asked",
            format!("log {log} on node {node} starts at {start}, at most {highest} was asked for"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    #[test]
    fn a_start_beyond_what_was_asked_for_is_a_violation() {
        let log = LogId { generation: Generation(1), partition: Partition(0) };
        let mut checker = LogStart::default();
        assert!(checker.is(NodeId(0), log, Offset(1)).is_err());
        checker.asked(log, Offset(4));
        checker.asked(log, Offset(2));
        assert_eq!(checker.is(NodeId(0), log, Offset(4)), Ok(()));
        assert!(checker.is(NodeId(0), log, Offset(5)).is_err());
    }
}
