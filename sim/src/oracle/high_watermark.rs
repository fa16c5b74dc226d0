//! Promise: the high watermark never falls: not on a node while it lives, and not for a reader who asks
//! for what is current.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, NodeId, Offset};

use super::Violation;

const PROMISE: &str = "the high watermark never falls";

/// How far logs were readable.
#[derive(Debug, Default)]
pub struct HighWatermarks {
    on_nodes: BTreeMap<(NodeId, u64, LogId), Offset>,
}

impl HighWatermarks {
    /// In this life of `node` the log is readable up to `end`.
    ///
    /// # Errors
    /// It was readable further before.
    pub fn note(&mut self, node: NodeId, life: u64, log: LogId, end: Offset) -> Result<(), Violation> {
        let before = self.on_nodes.insert((node, life, log), end);
        match before.filter(|before| *before > end) {
            None => Ok(()),
            Some(before) => Err(Violation::of(
                PROMISE,
                format!("log {log} on node {node}, life {life}: {before} before, {end} now"),
            )),
        }
    }

    /// A current read was asked for when everything below `acknowledged` was acknowledged, and saw `end`.
    ///
    /// # Errors
    /// It saw less.
    pub fn current(
        &self,
        node: NodeId,
        log: LogId,
        acknowledged: Offset,
        end: Offset,
    ) -> Result<(), Violation> {
        if end >= acknowledged {
            return Ok(());
        }
        Err(Violation::of(
            PROMISE,
            format!(
                "log {log}: a current read on node {node} saw {end}, but {acknowledged} was acknowledged before it"
            ),
        ))
    }
}
