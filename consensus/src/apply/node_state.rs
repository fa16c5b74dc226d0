//! A node's life in the cluster.
//!
//! A node that joins may be given replicas once the meta group has it as a member, since from then on it has the
//! catalogue. A member that comes back with an empty data directory stays what it was: the cluster is no smaller for
//! it, and its replicas have successors at once. A node that is drained is given no more, and what it has moves away; when nothing is left it may be
//! forgotten. What stays of it is a tombstone: its data directory is never taken back.

use std::fmt;

/// ```text
///          Joined              Seated             DrainAsked             Forgotten
/// Removed --------> Joining --------> Active ---------------> Draining -----------> Removed
///                      '---------------------DrainAsked----------^
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// In the catalogue, not yet a member of the meta group.
    Joining,
    /// Takes part; may be given replicas.
    Active,
    /// Is given no more replicas, and loses those it has.
    Draining,
    /// Left.
    Removed,
}

/// What moves a node through its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEvent {
    /// It asked to join, or to come back with a new data directory.
    Joined,
    /// The meta group has a member on it.
    Seated,
    /// Somebody wants it empty.
    DrainAsked,
    /// Nothing is on it, and somebody wants it gone.
    Forgotten,
}

impl NodeState {
    /// The state after `event`, or `None` if `event` cannot happen here. A repeated event leaves the state as it is.
    #[must_use]
    pub const fn after(self, event: NodeEvent) -> Option<Self> {
        use {NodeEvent as E, NodeState as S};
        match (self, event) {
            (S::Joining | S::Removed, E::Joined) => Some(S::Joining),
            (S::Active, E::Joined) | (S::Joining | S::Active, E::Seated) => Some(S::Active),
            (S::Draining, E::Joined | E::Seated) => Some(S::Draining),
            (S::Joining | S::Active | S::Draining, E::DrainAsked) => Some(S::Draining),
            (S::Draining | S::Removed, E::Forgotten) | (S::Removed, E::Seated) => Some(S::Removed),
            (S::Joining | S::Active, E::Forgotten) | (S::Removed, E::DrainAsked) => None,
        }
    }

    /// The number that stands for it in checkpoints. Never renumbered.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Joining => 1,
            Self::Active => 2,
            Self::Draining => 3,
            Self::Removed => 4,
        }
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Joining),
            2 => Some(Self::Active),
            3 => Some(Self::Draining),
            4 => Some(Self::Removed),
            _ => None,
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "being drained",
            Self::Removed => "removed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of state and event: nobody is forgotten undrained, and nobody comes back but by joining.
    #[test]
    fn every_state_meets_every_event() {
        use {NodeEvent as E, NodeState as S};
        let table = [
            (S::Joining, [Some(S::Joining), Some(S::Active), Some(S::Draining), None]),
            (S::Active, [Some(S::Active), Some(S::Active), Some(S::Draining), None]),
            (S::Draining, [Some(S::Draining), Some(S::Draining), Some(S::Draining), Some(S::Removed)]),
            (S::Removed, [Some(S::Joining), Some(S::Removed), None, Some(S::Removed)]),
        ];
        for (state, after) in table {
            let events = [E::Joined, E::Seated, E::DrainAsked, E::Forgotten];
            assert_eq!(events.map(|event| state.after(event)), after, "{state}");
            assert_eq!(NodeState::from_number(state.number()), Some(state));
        }
        assert_eq!(NodeState::from_number(0), None);
    }
}
