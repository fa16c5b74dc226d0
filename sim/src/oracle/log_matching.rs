//! **Log matching**: if two logs have an entry of the same index and term, they are the same up to that entry.
//!
//! The third property of Raft (Ongaro and Ousterhout 2014, figure 3). It is told of each entry that a raft log
//! has durably, or gave back at a start, with the term of the entry before it: if an index and a term always come
//! with the same bytes and the same term before, the rest follows by induction.
//!
//! What a log took and did not sync counts for nothing: a node alone leads before its own vote is on its disk, so
//! after a power cut it may lead in the same term again, with other entries.

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
    /// Written on a node and not synced yet.
    written: BTreeMap<NodeId, Vec<Written>>,
}

#[derive(Debug)]
struct Written {
    group: GroupId,
    before: Option<u64>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct First {
    hash: u64,
    before: Option<u64>,
    node: NodeId,
}

impl LogMatching {
    /// The log of `node` takes entries, behind one of term `before`, if that is known.
    pub fn wrote(&mut self, node: NodeId, group: GroupId, before: Option<u64>, entries: &[Entry]) {
        let entries = entries.to_vec();
        self.written.entry(node).or_default().push(Written { group, before, entries });
    }

    /// All that the log of `node` took is on its disk.
    ///
    /// # Errors
    /// As [`LogMatching::lie`].
    pub fn synced(&mut self, node: NodeId) -> Result<(), Violation> {
        for Written { group, before, entries } in self.written.remove(&node).unwrap_or_default() {
            self.lie(node, group, before, &entries)?;
        }
        Ok(())
    }

    /// `node` begins a life: what it finds, it is told of anew.
    pub fn begins(&mut self, node: NodeId) {
        self.written.remove(&node);
    }

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

    /// Story: a node alone was elected and took an entry, lost both with its power, and was elected in the same term again. The
    /// other entry that it then took was called a violation.
    #[test]
    fn entries_that_were_never_synced_bind_nobody() {
        let mut checker = LogMatching::default();
        checker.wrote(NodeId(0), GROUP, Some(1), &[entry(5, 2, b"lost")]);
        checker.begins(NodeId(0));
        checker.wrote(NodeId(0), GROUP, Some(1), &[entry(5, 2, b"kept")]);
        assert_eq!(checker.synced(NodeId(0)), Ok(()));
        checker.wrote(NodeId(1), GROUP, Some(1), &[entry(5, 2, b"lost")]);
        assert!(checker.synced(NodeId(1)).is_err());
    }

    #[test]
    fn another_history_before_an_entry_is_a_violation() {
        let mut checker = LogMatching::default();
        let log = [entry(5, 2, b"a"), entry(6, 4, b"b")];
        assert_eq!(checker.lie(NodeId(0), GROUP, None, &log), Ok(()));
        assert!(checker.lie(NodeId(1), GROUP, Some(3), &[entry(6, 4, b"b")]).is_err());
    }
}
