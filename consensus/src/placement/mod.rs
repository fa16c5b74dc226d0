//! Placement: what the cluster should look like, and the next step towards it. Pure functions, asked by the
//! runtime and by the simulator alike.
//!
//! **Intent** is in the catalogue, **fact** in each group's raft log. The meta group's leader asks [`plan`] what
//! the catalogue should intend next; each node asks [`local`] which replicas it should run. Whoever is asked
//! looks at what is there and says one step, so it does not matter who took the step before, or how often it
//! is said.
//!
//! Not here: what the catalogue makes of a command ([`crate::apply::catalogue`]), how members change
//! ([`crate::core`]), and when to ask (the runtime).

mod local;

use std::collections::BTreeSet;

use tidelog_wire::ids::{GroupId, NodeId};

use crate::apply::Catalogue;
use crate::apply::node_state::NodeState;
use crate::entry::{MetaCommand, Want};
pub use local::{LocalChanges, StartAs, local};

/// What the leader of the meta group should propose next, given which nodes it can hear. Bounded; nothing when
/// the catalogue intends what it should.
#[must_use]
pub fn plan(_catalogue: &Catalogue, _alive: &BTreeSet<NodeId>) -> Vec<MetaCommand> {
    Vec::new()
}

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
