//! **Generation isolation**: no life of a channel's name ever shows what was sent to another one.
//!
//! The generation fence of ARCHITECTURE.md: a name may be deleted and created anew while a request is on its way or
//! a node is away, and yet nothing crosses over. Producers here send no content twice, so content betrays to which log
//! it was sent. It is told what is sent where, what reads return, and whose segment files lie in whose directory.

use std::collections::BTreeMap;

use tidelog_wire::ids::{Generation, LogId, NodeId};

use super::Violation;
use super::history::Read;

const PROPERTY: &str = "generation isolation";

/// What was sent where.
#[derive(Debug, Default)]
pub struct GenerationIsolation {
    sent: BTreeMap<u64, LogId>,
}

impl GenerationIsolation {
    /// A producer sends content with this hash to `log`.
    pub fn sent(&mut self, log: LogId, content: u64) {
        self.sent.insert(content, log);
    }

    /// This was read from `log`.
    ///
    /// # Errors
    /// It was sent to another one, or by nobody.
    pub fn read(&self, node: NodeId, log: LogId, read: &Read) -> Result<(), Violation> {
        match self.sent.get(&read.content) {
            Some(sent) if *sent == log => Ok(()),
            Some(sent) => Err(Violation::of(
                PROPERTY,
                format!(
                    "log {log} on node {node}, {}..={}: that was sent to log {sent}",
                    read.first, read.last
                ),
            )),
            None => Err(Violation::of(
                PROPERTY,
                format!("log {log} on node {node}, {}..={}: nobody sent that", read.first, read.last),
            )),
        }
    }

    /// A segment of `found` lies in the directory of `generation`.
    ///
    /// # Errors
    /// They are not the same.
    pub fn lies(&self, node: NodeId, generation: Generation, found: LogId) -> Result<(), Violation> {
        if found.generation == generation {
            return Ok(());
        }
        Err(Violation::of(
            PROPERTY,
            format!("node {node}: a segment of log {found} lies with generation {generation}"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::Partition;

    use super::super::history::example;
    use super::*;

    const OLD: LogId = LogId { generation: Generation(1), partition: Partition(0) };
    const NEW: LogId = LogId { generation: Generation(2), partition: Partition(0) };

    #[test]
    fn what_was_sent_to_another_generation_is_a_violation() {
        let mut checker = GenerationIsolation::default();
        let read = example(1, 0, 0, 3);
        assert!(checker.read(NodeId(0), OLD, &read).is_err(), "nobody sent it");
        checker.sent(OLD, read.content);
        assert_eq!(checker.read(NodeId(0), OLD, &read), Ok(()));
        assert!(checker.read(NodeId(0), NEW, &read).is_err());
        assert_eq!(checker.lies(NodeId(0), Generation(1), OLD), Ok(()));
        assert!(checker.lies(NodeId(0), Generation(1), NEW).is_err());
    }
}
