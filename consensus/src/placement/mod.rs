//! Placement: what the cluster should look like, and the next step towards it. Pure functions, asked by the
//! runtime and by the simulator alike.
//!
//! **Intent** is in the catalogue, **fact** in each group's raft log.
//!
//! | who asks | what | gets |
//! |---|---|---|
//! | the meta group's leader | [`plan()`] | what the catalogue should intend next |
//! | each group's leader | [`next_step()`] | how its members should change next, or what to report |
//! | each group's leader | [`preferred_leader`] | who should lead instead |
//! | each node | [`local()`] | which replicas to start and stop |
//! | who is about to remove a node | [`refuse_removal`] | why not |
//! | who wants to know what is coming | [`rebalance()`] | the moves, in words |
//!
//! Whoever is asked looks at what is there and says one step, so it does not matter who took the step before, whether
//! it was taken twice, or who died in between.
//!
//! Not here: what the catalogue makes of a command ([`crate::apply::catalogue`]), how members change
//! ([`crate::core`]), and when to ask (the runtime).

mod local;
mod plan;
mod rebalance;
mod removal;
mod step;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use tidelog_wire::ids::{GroupId, NodeId};

use crate::apply::Catalogue;
use crate::apply::node_state::NodeState;
use crate::entry::Want;
pub use local::{LocalChanges, StartAs, local};
pub use plan::{PLAN_MAX, UNSETTLED_MAX, is_settled, plan};
pub use rebalance::rebalance;
pub use removal::{RemovalRefusal, refuse_removal};
pub use step::{Step, next_step};
pub use target::{Target, target};

/// The node that should lead a group: by the group's number among the nodes of its voters, sorted, that are not
/// to go. Everybody comes to the same answer.
#[must_use]
pub fn preferred_leader(catalogue: &Catalogue, group: GroupId) -> Option<NodeId> {
    let voters = catalogue.group(group)?.wanted().filter(|(_, replica)| replica.want == Want::Voter);
    let staying = voters
        .map(|(_, replica)| replica.node)
        .filter(|node| catalogue.node_state(*node) == Some(NodeState::Active));
    let nodes: BTreeSet<NodeId> = staying.collect();
    let count = u64::try_from(nodes.len()).ok()?;
    let turn = usize::try_from(group.get().checked_rem(count)?).ok()?;
    nodes.into_iter().nth(turn)
}
