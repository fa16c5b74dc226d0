//! Promise: apply is deterministic. Whoever applies an entry, whenever, on whichever node and after
//! whatever restart: the same entry stands under the same index, and comes to the same outcome.
//!
//! Since an outcome names offsets and the chain of the log, equal outcomes mean equal histories.

use std::collections::BTreeMap;

use tidelog_wire::ids::{GroupId, NodeId, RaftIndex};

use super::Violation;

/// What applying came to.
#[derive(Debug, Default)]
pub struct AppliedEntries {
    entries: BTreeMap<(GroupId, RaftIndex), Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    entry: u64,
    outcome: u64,
    node: NodeId,
}

impl AppliedEntries {
    /// `node` applied the entry with hash `entry`, which came to `outcome` (a hash too).
    ///
    /// # Errors
    /// Somebody applied another entry at this index, or with another outcome.
    pub fn note(
        &mut self,
        node: NodeId,
        group: GroupId,
        index: RaftIndex,
        entry: u64,
        outcome: u64,
    ) -> Result<(), Violation> {
        let first = *self.entries.entry((group, index)).or_insert(Seen { entry, outcome, node });
        let what = match (first.entry == entry, first.outcome == outcome) {
            (true, true) => return Ok(()),
            (false, _) => "another entry",
            (true, false) => "another outcome",
        };
        Err(Violation::of(
            "replicas apply the same entries with the same outcomes",
            format!("group {group}, entry {index}: {what} on node {node} than on node {} before", first.node),
        ))
    }
}
