//! Promise: a group has at most one leader a term.

use std::collections::BTreeMap;

use tidelog_wire::ids::{GroupId, NodeId, Term};

use super::Violation;

/// Who led when.
#[derive(Debug, Default)]
pub struct Elections {
    leaders: BTreeMap<(GroupId, Term), NodeId>,
}

impl Elections {
    /// `node` leads `group` in `term`.
    ///
    /// # Errors
    /// Another one led in that term.
    pub fn note(&mut self, group: GroupId, term: Term, node: NodeId) -> Result<(), Violation> {
        let first = *self.leaders.entry((group, term)).or_insert(node);
        if first == node {
            return Ok(());
        }
        Err(Violation::of(
            "a group has at most one leader a term",
            format!("group {group}, term {term}: nodes {first} and {node}"),
        ))
    }

    /// How many leaders there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.leaders.len()
    }
}
