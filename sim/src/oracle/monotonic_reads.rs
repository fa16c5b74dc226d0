//! **Monotonic reads**: what was read once is read again, the same; and the end of a log does not fall where one reads.
//!
//! A session guarantee (D. Terry and others, "Session Guarantees for Weakly Consistent Replicated Data", 1994). Here it
//! holds for all sessions at once as to content, since only what is committed is served; and for the end of a log
//! within a node's life. It is told what reads return.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, NodeId, Offset};

use super::Violation;
use super::history::{History, Read};

const PROPERTY: &str = "monotonic reads";

/// How far logs were readable.
#[derive(Debug, Default)]
pub struct MonotonicReads {
    ends: BTreeMap<(NodeId, LogId), (u64, Offset)>,
}

impl MonotonicReads {
    /// In this life of `node` the log is readable up to `end`.
    ///
    /// # Errors
    /// It was readable further before.
    pub fn readable(&mut self, node: NodeId, life: u64, log: LogId, end: Offset) -> Result<(), Violation> {
        match self.ends.insert((node, log), (life, end)).filter(|before| before.0 == life && before.1 > end) {
            None => Ok(()),
            Some((_, before)) => Err(Violation::of(
                PROPERTY,
                format!(
                    "log {log} on node {node}, life {life}: readable up to {before} before, to {end} now"
                ),
            )),
        }
    }

    /// This was read.
    ///
    /// # Errors
    /// Something else was read there before.
    pub fn read(&self, node: NodeId, log: LogId, read: &Read, history: &History) -> Result<(), Violation> {
        match history.at(log, read.first).filter(|before| before != read) {
            None => Ok(()),
            Some(before) => Err(Violation::of(
                PROPERTY,
                format!("log {log}, offset {}: {before:?} before, {read:?} on node {node}", read.first),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::super::history::example;
    use super::*;

    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    #[test]
    fn an_end_that_falls_within_a_life_is_a_violation() {
        let mut checker = MonotonicReads::default();
        assert_eq!(checker.readable(NodeId(0), 1, LOG, Offset(5)), Ok(()));
        assert_eq!(checker.readable(NodeId(0), 2, LOG, Offset(3)), Ok(()), "another life");
        assert!(checker.readable(NodeId(0), 2, LOG, Offset(2)).is_err());
    }

    #[test]
    fn other_bytes_at_an_offset_are_a_violation() {
        let (checker, mut history) = (MonotonicReads::default(), History::default());
        let read = example(1, 0, 0, 3);
        assert_eq!(checker.read(NodeId(0), LOG, &read, &history), Ok(()));
        history.note(LOG, read);
        assert_eq!(checker.read(NodeId(1), LOG, &read, &history), Ok(()));
        assert!(checker.read(NodeId(1), LOG, &example(2, 0, 0, 3), &history).is_err());
    }
}
