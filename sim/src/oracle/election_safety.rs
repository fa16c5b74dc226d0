//! **Election safety**: a group has at most one leader in a term.
//!
//! The first of the five properties that Raft guarantees (D. Ongaro and J. Ousterhout, "In Search of an
//! Understandable Consensus Algorithm", 2014, figure 3). It is told who begins to lead, when a core says so.

use std::collections::BTreeMap;

use tidelog_wire::ids::{GroupId, NodeId, Term};

use super::Violation;

/// Who led when.
#[derive(Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(GroupId, Term), NodeId>,
}

impl ElectionSafety {
    /// `node` leads `group` in `term`.
    ///
    /// # Errors
    /// Another one led in that term.
    pub fn leads(&mut self, group: GroupId, term: Term, node: NodeId) -> Result<(), Violation> {
        let first = *self.leaders.entry((group, term)).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(Violation::of(
            "election safety",
            format!("group {group}, term {term}: nodes {first} and {node} lead"),
        ))
    }

    /// How many leaders there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.leaders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_a_violation() {
        let mut checker = ElectionSafety::default();
        assert_eq!(checker.leads(GroupId(1), Term(3), NodeId(0)), Ok(()));
        assert_eq!(checker.leads(GroupId(1), Term(3), NodeId(0)), Ok(()), "told twice");
        assert_eq!(checker.leads(GroupId(2), Term(3), NodeId(1)), Ok(()), "another group");
        assert_eq!(checker.leads(GroupId(1), Term(4), NodeId(1)), Ok(()), "another term");
        assert!(checker.leads(GroupId(1), Term(3), NodeId(1)).is_err());
    }
}
