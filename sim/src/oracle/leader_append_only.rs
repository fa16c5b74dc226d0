//! **Leader append-only**: a leader never overwrites or deletes an entry of its log; it only appends.
//!
//! The second property of Raft (Ongaro and Ousterhout 2014, figure 3). It is told of each write that a core wants
//! in the raft log, in order, and of who leads. That a prefix is compacted is no deletion: it is in a checkpoint.

use std::collections::BTreeMap;

use tidelog_consensus::raft_log::{GroupWrite, InstallChange};
use tidelog_wire::ids::{GroupId, NodeId, Term};

use super::Violation;

/// Where each replica's log ends, and whether it leads.
#[derive(Debug, Default)]
pub struct LeaderAppendOnly {
    replicas: BTreeMap<(GroupId, NodeId), Writer>,
}

#[derive(Clone, Copy, Debug)]
struct Writer {
    last: u64,
    leads: Option<Term>,
}

impl LeaderAppendOnly {
    /// A replica begins a life with a log that ends here.
    pub fn begins(&mut self, node: NodeId, group: GroupId, last: u64) {
        self.replicas.insert((group, node), Writer { last, leads: None });
    }

    /// A replica begins or ceases to lead.
    pub fn leads(&mut self, node: NodeId, group: GroupId, term: Option<Term>) {
        if let Some(writer) = self.replicas.get_mut(&(group, node)) {
            writer.leads = term;
        }
    }

    /// A replica wants this in its raft log.
    ///
    /// # Errors
    /// It leads, and this takes something back, or is of another term.
    pub fn writes(&mut self, node: NodeId, write: &GroupWrite) -> Result<(), Violation> {
        let Some(writer) = self.replicas.get_mut(&(write.group, node)) else { return Ok(()) };
        if let InstallChange::Set(mark) = write.install {
            writer.last = mark.index.get();
        }
        let (Some(first), Some(last)) = (write.entries.first(), write.entries.last()) else { return Ok(()) };
        if let Some(term) = writer.leads {
            let own = write.entries.iter().all(|entry| entry.term == term.get());
            if first.index != writer.last.saturating_add(1) || !own || write.clear {
                return Err(Violation::of(
                    "leader append-only",
                    format!(
                        "node {node} leads group {} in term {term}, its log ends with {}: it writes {}..={}",
                        write.group, writer.last, first.index, last.index
                    ),
                ));
            }
        }
        writer.last = last.index;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::raft_logs::entry;
    use super::*;

    const GROUP: GroupId = GroupId(1);
    const NODE: NodeId = NodeId(0);

    fn write(first: u64, last: u64, term: u64) -> GroupWrite {
        let entries = (first..=last).map(|index| entry(index, term, b"x")).collect();
        GroupWrite { entries, ..GroupWrite::new(GROUP) }
    }

    #[test]
    fn a_leader_that_overwrites_an_entry_is_a_violation() {
        let mut checker = LeaderAppendOnly::default();
        checker.begins(NODE, GROUP, 4);
        assert_eq!(checker.writes(NODE, &write(3, 5, 2)), Ok(()), "a follower may");
        checker.leads(NODE, GROUP, Some(Term(3)));
        assert_eq!(checker.writes(NODE, &write(6, 7, 3)), Ok(()));
        assert!(checker.writes(NODE, &write(7, 7, 3)).is_err(), "it overwrites");
        assert!(checker.writes(NODE, &write(8, 8, 2)).is_err(), "it is not of its term");
        checker.leads(NODE, GROUP, None);
        assert_eq!(checker.writes(NODE, &write(7, 7, 4)), Ok(()), "it follows again");
    }
}
