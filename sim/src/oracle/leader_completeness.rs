//! **Leader completeness**: an entry that is committed in a term is in the log of the leader of every later term.
//!
//! The fourth property of Raft (Ongaro and Ousterhout 2014, figure 3). It is told which entries were handed to
//! apply, which says that they are committed, and when a leader is elected it is shown that leader's raft log.

use std::collections::BTreeMap;

use tidelog_wire::ids::{GroupId, NodeId, Term};

use super::Violation;
use super::raft_logs::Held;

/// What is committed.
#[derive(Debug, Default)]
pub struct LeaderCompleteness {
    groups: BTreeMap<GroupId, BTreeMap<u64, Committed>>,
}

#[derive(Clone, Copy, Debug)]
struct Committed {
    term: u64,
    /// It was committed in this term or before.
    by: u64,
}

impl LeaderCompleteness {
    /// A replica in term `now` took the entry for committed.
    pub fn committed(&mut self, group: GroupId, index: u64, term: u64, now: Term) {
        let entries = self.groups.entry(group).or_default();
        let known = entries.entry(index).or_insert(Committed { term, by: now.get() });
        known.by = known.by.min(now.get());
    }

    /// `node` was elected for `term`, and this is its log.
    ///
    /// # Errors
    /// It lacks an entry that was committed before.
    pub fn elected(
        &self,
        group: GroupId,
        node: NodeId,
        term: Term,
        log: Option<&Held>,
    ) -> Result<(), Violation> {
        let base = log.map_or(0, |log| log.base);
        let first = log.and_then(|log| log.entries.first_key_value()).map_or(base, |(first, _)| *first);
        let from = first.min(base.saturating_add(1));
        let committed = self.groups.get(&group).into_iter().flat_map(|all| all.range(from..));
        for (index, committed) in committed.filter(|(_, committed)| committed.by < term.get()) {
            let found = log.and_then(|log| log.term(*index));
            let covered = found.is_none() && *index <= base;
            if found != Some(committed.term) && !covered {
                return Err(Violation::of(
                    "leader completeness",
                    format!(
                        "node {node} leads group {group} in term {term} with term {found:?} at entry {index}, where \
                         one of term {} was committed by term {}",
                        committed.term, committed.by
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::raft_logs::Lies;
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn log(terms: &[(u64, u64)]) -> Held {
        let entries = terms.iter().map(|(index, term)| (*index, Lies { term: *term, hash: 0 })).collect();
        Held { entries, ..Held::default() }
    }

    #[test]
    fn a_leader_without_a_committed_entry_is_a_violation() {
        let mut checker = LeaderCompleteness::default();
        checker.committed(GROUP, 1, 1, Term(1));
        checker.committed(GROUP, 2, 1, Term(2));
        let elected = |term, held: &Held| checker.elected(GROUP, NodeId(0), Term(term), Some(held));
        assert_eq!(elected(3, &log(&[(1, 1), (2, 1), (3, 2)])), Ok(()));
        assert!(elected(3, &log(&[(1, 1)])).is_err(), "it lacks entry 2");
        assert!(elected(3, &log(&[(1, 1), (2, 2)])).is_err(), "it has another entry 2");
        assert_eq!(elected(2, &log(&[(1, 1)])), Ok(()), "entry 2 may have been committed after it");
        let compacted = Held { base: 2, ..Held::default() };
        assert_eq!(elected(3, &compacted), Ok(()), "its checkpoint has them");
        assert!(checker.elected(GROUP, NodeId(0), Term(3), None).is_err(), "it has nothing");
    }
}
