//! The durable votes of a node: term and vote of each group, apart from the raft log.
//!
//! The raft log holds them too. They are kept a second time so that the loss of the log's tail is
//! *seen*: votes ahead of the raft log's hard state are evidence that the log lost what it had
//! promised, and such a replica must not vote again.

use tidelog_wire::ids::{GroupId, ReplicaId, Term};

/// Whom a replica voted for, and in which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// The group.
    pub group: GroupId,
    /// The term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ReplicaId>,
}
