//! **Log matching**: if two logs have an entry of the same index and term, they are the same up to that entry.
//!
//! The third property of Raft (Ongaro and Ousterhout 2014, figure 3). It is told of each entry that a raft log
//! took, or gave back at a start, with the term of the entry before it: if an index and a term always come with
//! the same bytes and the same term before, the rest follows by induction.

use std::collections::BTreeMap;

use raft::eraftpb::Entry;
use tidelog_wire::ids::{GroupId, NodeId};

use super::Violation;
use super::raft_logs::lies;

/// Every entry that ever lay in a raft log.
#[derive(Debug, Default)]
pub struct LogMatching {
    /// By index and term.
    entries: BTreeMap<(GroupId, u64, u64), First>,
}

#[derive(Clone, Copy, Debug)]
struct First {
    hash: u64,
    before: Option<u64>,
    node: NodeId,
}

impl LogMatching {
    /// The entries lie in the log of `node`, behind one of term `before`, if that is known.
    ///
    /// # Errors
    /// One of them is not what another log has there.
    pub fn lie(
        &mut self,
        node: NodeId,
        group: GroupId,
        before: Option<u64>,
        entries: &[Entry],
    ) -> Result<(), Violation> {
        let mut before = before;
        for entry in entries {
            let hash = lies(entry).hash;
            let first =
                self.entries.entry((group, entry.index, entry.term)).or_insert(First { hash, before, node });
            first.before = first.before.or(before);
            let same = first.before.is_none() || before.is_none() || first.before == before;
            if first.hash != hash || !same {
                return Err(Violation::of(
                    "log matching",
                    format!(
                        "group {group}, entry {} of term {}: node {} has hash {:016x} behind term {:?}, node \
                         {node} has {hash:016x} behind {before:?}",
                        entry.index, entry.term, first.node, first.hash, first.before
                    ),
                ));
            }
            before = Some(entry.term);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::raft_logs::entry;
    use super::*;

    const GROUP: GroupId = GroupId(1);

    #[test]
    fn other_bytes_under_one_index_and_term_are_a_violation() {
        let mut checker = LogMatching::default();
        assert_eq!(checker.lie(NodeId(0), GROUP, Some(1), &[entry(5, 2, b"a")]), Ok(()));
        assert_eq!(checker.lie(NodeId(1), GROUP, Some(1), &[entry(5, 2, b"a")]), Ok(()));
        assert_eq!(checker.lie(NodeId(1), GROUP, Some(1), &[entry(5, 3, b"b")]), Ok(()), "another term");
        assert!(checker.lie(NodeId(2), GROUP, Some(1), &[entry(5, 2, b"b")]).is_err());
    }

    #[test]
    fn another_history_before_an_entry_is_a_violation() {
        let mut checker = LogMatching::default();
        let log = [entry(5, 2, b"a"), entry(6, 4, b"b")];
        assert_eq!(checker.lie(NodeId(0), GROUP, None, &log), Ok(()));
        assert!(checker.lie(NodeId(1), GROUP, Some(3), &[entry(6, 4, b"b")]).is_err());
    }
}
