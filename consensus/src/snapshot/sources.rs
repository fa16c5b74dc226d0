//! Whom a fetch asks: the offering node first, and any other that has the same bytes when that one does not deliver.
//!
//! Segments of one log are the same bytes on every replica, so it does not matter who sends them: what came is held
//! against the manifest. A node that brings nothing passes the turn on; one whose bytes did not verify is not
//! asked for that file again while there is another.

use std::collections::BTreeSet;

use tidelog_wire::ids::NodeId;

/// The nodes that may be asked, and what they have brought lately.
#[derive(Debug)]
pub(super) struct Sources {
    /// Never empty; the offering node is the first.
    nodes: Vec<NodeId>,
    /// Whose turn it is.
    turn: usize,
    /// Asks in a row that brought not one byte.
    fruitless: u32,
    /// Who sent bytes of the present file.
    senders: BTreeSet<NodeId>,
    /// Who sent bytes of it when it did not verify.
    struck: BTreeSet<NodeId>,
    /// How often the present file did not verify.
    failures: usize,
}

impl Sources {
    pub(super) fn new(offering: NodeId) -> Self {
        Self {
            nodes: vec![offering],
            turn: 0,
            fruitless: 0,
            senders: BTreeSet::new(),
            struck: BTreeSet::new(),
            failures: 0,
        }
    }

    /// Who else may be asked from now on. Whoever has the turn keeps it if he is still among them.
    pub(super) fn set_others(&mut self, others: &[NodeId]) {
        let (offering, now) = (self.offering(), self.now());
        let others: BTreeSet<_> = others.iter().copied().filter(|node| *node != offering).collect();
        self.nodes = std::iter::once(offering).chain(others).collect();
        self.turn = self.nodes.iter().position(|node| *node == now).unwrap_or(0);
    }

    fn offering(&self) -> NodeId {
        self.nodes.first().copied().unwrap_or(NodeId(0))
    }

    /// Whom to ask.
    pub(super) fn now(&self) -> NodeId {
        self.nodes.get(self.turn).copied().unwrap_or_else(|| self.offering())
    }

    /// How often all of them in a row have brought nothing.
    pub(super) fn rounds(&self) -> u32 {
        self.fruitless / u32::try_from(self.nodes.len()).unwrap_or(u32::MAX).max(1)
    }

    /// The one asked sent bytes.
    pub(super) fn brought(&mut self) {
        self.fruitless = 0;
        let now = self.now();
        self.senders.insert(now);
    }

    /// The one asked brought nothing: the next is asked.
    pub(super) fn brought_nothing(&mut self) {
        self.fruitless = self.fruitless.saturating_add(1);
        self.pass_on();
    }

    /// A new file begins.
    pub(super) fn next_file(&mut self) {
        self.senders.clear();
        self.struck.clear();
        self.failures = 0;
    }

    /// The present file did not verify. How often that happened, or `None` if it was tried often enough.
    pub(super) fn did_not_verify(&mut self) -> Option<usize> {
        self.struck.append(&mut self.senders);
        self.failures = self.failures.saturating_add(1);
        self.pass_on();
        // Once from each, and once more in case that it was our own beginning.
        (self.failures <= self.nodes.len().saturating_add(1)).then_some(self.failures)
    }

    /// To the next that has not let us down over this file, or else simply to the next.
    fn pass_on(&mut self) {
        let count = self.nodes.len().max(1);
        let after = |step: usize| self.turn.saturating_add(step) % count;
        let good = (1..=count)
            .map(after)
            .find(|at| self.nodes.get(*at).is_some_and(|node| !self.struck.contains(node)));
        self.turn = good.unwrap_or_else(|| after(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Sources {
        let mut sources = Sources::new(NodeId(2));
        sources.set_others(&[NodeId(0), NodeId(1), NodeId(2)]);
        sources
    }

    #[test]
    fn who_brings_nothing_passes_the_turn_on_and_a_round_is_all_of_them() {
        let mut sources = three();
        let mut asked = Vec::new();
        for _ in 0..4 {
            asked.push((sources.now().get(), sources.rounds()));
            sources.brought_nothing();
        }
        assert_eq!(asked, [(2, 0), (0, 0), (1, 0), (2, 1)]);
        sources.brought();
        assert_eq!((sources.now(), sources.rounds()), (NodeId(0), 0), "it keeps the turn");
    }

    #[test]
    fn who_sent_what_did_not_verify_is_passed_over_for_that_file() {
        let mut sources = three();
        sources.brought();
        assert_eq!(sources.did_not_verify(), Some(1));
        sources.brought_nothing();
        sources.brought_nothing();
        assert_eq!(sources.now(), NodeId(0), "2 is not asked again while there are others");
        sources.next_file();
        sources.brought_nothing();
        sources.brought_nothing();
        assert_eq!(sources.now(), NodeId(2));
    }

    #[test]
    fn a_file_is_tried_once_from_each_and_once_more() {
        let mut sources = three();
        let tries = (0..10).take_while(|_| sources.did_not_verify().is_some()).count();
        assert_eq!(tries, 4);
    }

    #[test]
    fn a_node_that_is_gone_loses_its_turn() {
        let mut sources = three();
        sources.brought_nothing();
        sources.set_others(&[NodeId(1)]);
        assert_eq!(sources.now(), NodeId(2));
    }
}
