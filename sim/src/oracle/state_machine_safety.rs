//! **State machine safety**: what one replica applied at an index, no other ever applies otherwise.
//!
//! The fifth property of Raft (Ongaro and Ousterhout 2014, figure 3), and one more, which is what it is for:
//! apply is deterministic, so the same entry comes to the same outcome, whoever applies it, whenever, and after
//! whatever restart. Since an outcome names offsets and the log's chain, equal outcomes mean equal histories.

use std::collections::BTreeMap;

use tidelog_wire::ids::{GroupId, NodeId, RaftIndex};

use super::Violation;

/// What applying came to.
#[derive(Debug, Default)]
pub struct StateMachineSafety {
    entries: BTreeMap<(GroupId, RaftIndex), Seen>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    entry: u64,
    outcome: u64,
    node: NodeId,
}

impl StateMachineSafety {
    /// `node` applied the entry with hash `entry`, which came to `outcome` (a hash too). Says whether it was the
    /// first to apply it.
    ///
    /// # Errors
    /// Somebody applied another entry at this index, or with another outcome.
    pub fn applied(
        &mut self,
        node: NodeId,
        group: GroupId,
        index: RaftIndex,
        entry: u64,
        outcome: u64,
    ) -> Result<bool, Violation> {
        let mut new = false;
        let first = *self.entries.entry((group, index)).or_insert_with(|| {
            new = true;
            Seen { entry, outcome, node }
        });
        let what = match (first.entry == entry, first.outcome == outcome) {
            (true, true) => return Ok(new),
            (false, _) => "another entry",
            (true, false) => "another outcome",
        };
        Err(Violation::of(
            "state machine safety",
            format!("group {group}, entry {index}: {what} on node {node} than on node {} before", first.node),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_entry_or_another_outcome_is_a_violation() {
        let mut checker = StateMachineSafety::default();
        let mut applied =
            |node, entry, outcome| checker.applied(NodeId(node), GroupId(1), RaftIndex(7), entry, outcome);
        assert_eq!(applied(0, 1, 1), Ok(true));
        assert_eq!(applied(1, 1, 1), Ok(false));
        assert!(applied(1, 2, 1).is_err());
        assert!(applied(1, 1, 2).is_err());
    }
}
