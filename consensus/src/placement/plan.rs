//! What the catalogue should intend next.
//!
//! For each group, the first of these that is needed:
//! 1. The meta group has a replica on every active node.
//! 2. As many voters as the [`target`](super::target()) says: a learner that is there becomes one, else a new replica on
//!    the node with the fewest.
//! 3. As many learners.
//! 4. A replica that was placed on a node which died before it ever counted is placed elsewhere.
//! 5. Replicas on nodes that are being drained go, once enough others are intended; that of the meta group last, since a
//!    node learns from it what it is to do with the others.
//! 6. More than enough voters: one too many goes, from the node with the most, once all the others count in fact.
//!
//! Then, when no group is on its way: one replica moves from the node with the most to the node with the fewest, if
//! that makes a difference. A drained node with nothing on it is forgotten.
//!
//! **A dead node is not replaced.** It comes back, or somebody says that it will not, by removing it or starting it
//! with an empty data directory. To move everything off a node that reboots would cost more than it saves.
//!
//! **Not everything at once.** A group that is as intended begins to move only while fewer than [`UNSETTLED_MAX`] are
//! on their way; a missing voter waits for nobody.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_wire::ids::{GroupId, NodeId, ReplicaId};

use super::target::{Target, active_nodes, target};
use crate::apply::Catalogue;
use crate::apply::group_placement::{GroupPlacement, Replica, UNBOUND};
use crate::apply::node_state::NodeState;
use crate::entry::{MetaCommand, Want};

/// Most commands in one answer.
pub const PLAN_MAX: usize = 64;
/// Groups that may be on their way to what is intended before others begin to move.
pub const UNSETTLED_MAX: usize = 16;

/// What the leader of the meta group should propose next, given which nodes it can hear, itself among them. At most
/// [`PLAN_MAX`] commands, one a group; nothing when the catalogue intends what it should.
#[must_use]
pub fn plan(catalogue: &Catalogue, alive: &BTreeSet<NodeId>) -> Vec<MetaCommand> {
    let mut planner = Planner::new(catalogue, alive);
    let mut commands = Vec::new();
    for (group, placement) in catalogue.groups() {
        if commands.len() >= PLAN_MAX {
            return commands;
        }
        if let Some(command) = planner.for_group(group, placement) {
            planner.note(&command);
            commands.push(command);
        }
    }
    commands.extend(planner.forgotten());
    if commands.is_empty() && planner.unsettled == 0 {
        commands.extend(planner.balance());
    }
    commands.truncate(PLAN_MAX);
    commands
}

/// Whether a group's members are in fact what the catalogue intends.
#[must_use]
pub fn is_settled(placement: &GroupPlacement) -> bool {
    let Some(reported) = &placement.reported else { return false };
    let of_kind = |kind: Want| -> Vec<ReplicaId> {
        placement.wanted().filter(|(_, replica)| replica.want == kind).map(|(id, _)| id).collect()
    };
    reported.outgoing.is_empty()
        && reported.voters == of_kind(Want::Voter)
        && reported.learners == of_kind(Want::Learner)
        && placement.replicas.values().all(|replica| replica.want != Want::Gone)
}

struct Planner<'a> {
    catalogue: &'a Catalogue,
    alive: &'a BTreeSet<NodeId>,
    /// Active nodes, dead ones too.
    size: usize,
    /// Data replicas that each active node should have.
    load: BTreeMap<NodeId, usize>,
    unsettled: usize,
}

impl<'a> Planner<'a> {
    fn new(catalogue: &'a Catalogue, alive: &'a BTreeSet<NodeId>) -> Self {
        let active = catalogue.members().filter(|(_, node)| node.state == NodeState::Active);
        let mut load: BTreeMap<NodeId, usize> = active.map(|(id, _)| (id, 0)).collect();
        for (_, placement) in catalogue.groups().filter(|(group, _)| *group != GroupId::META) {
            for (_, replica) in placement.wanted() {
                if let Some(count) = load.get_mut(&replica.node) {
                    *count = count.saturating_add(1);
                }
            }
        }
        let unsettled = catalogue.groups().filter(|(_, placement)| !is_settled(placement)).count();
        Self { catalogue, alive, size: active_nodes(catalogue), load, unsettled }
    }

    /// What is proposed counts at once, so that one answer does not give one node everything.
    fn note(&mut self, command: &MetaCommand) {
        if let MetaCommand::PlaceReplica { group, node, .. } = command
            && *group != GroupId::META
            && self.catalogue.group(*group).is_some_and(|placement| placement.on(*node).is_none())
            && let Some(count) = self.load.get_mut(node)
        {
            *count = count.saturating_add(1);
        }
    }

    fn is_active(&self, node: NodeId) -> bool {
        self.load.contains_key(&node)
    }

    fn for_group(&mut self, group: GroupId, placement: &GroupPlacement) -> Option<MetaCommand> {
        // Before its first report nobody knows whether it lives; what it should be is not changed under it.
        placement.reported.as_ref()?;
        let want = target(group, placement.replication, self.size);
        if let Some(command) = self
            .missing_meta_replica(group, placement)
            .or_else(|| self.missing_voter(group, placement, want))
            .or_else(|| self.stranded(group, placement))
        {
            return Some(command);
        }
        let settled = is_settled(placement);
        if settled && self.unsettled >= UNSETTLED_MAX {
            return None;
        }
        let command = self
            .missing_learner(group, placement, want)
            .or_else(|| self.leaving(group, placement))
            .or_else(|| self.surplus(group, placement, want));
        if settled && command.is_some() {
            self.unsettled = self.unsettled.saturating_add(1);
        }
        command
    }

    fn missing_meta_replica(&self, group: GroupId, placement: &GroupPlacement) -> Option<MetaCommand> {
        let mut active = self.load.keys().copied();
        let without = active.find(|node| placement.on(*node).is_none());
        let node = without.filter(|_| group == GroupId::META)?;
        Some(MetaCommand::PlaceReplica { group, node, want: Want::Learner })
    }

    /// Replicas of one kind that stay.
    fn staying<'p>(
        &self,
        placement: &'p GroupPlacement,
        kind: Want,
    ) -> impl Iterator<Item = (ReplicaId, &'p Replica)> {
        placement.wanted().filter(move |(_, replica)| replica.want == kind && self.is_active(replica.node))
    }

    fn missing_voter(&self, group: GroupId, placement: &GroupPlacement, want: Target) -> Option<MetaCommand> {
        if self.staying(placement, Want::Voter).count() >= want.voters {
            return None;
        }
        let learners = self.staying(placement, Want::Learner).map(|(_, replica)| replica.node);
        let promoted =
            learners.filter(|node| self.alive.contains(node)).min_by_key(|node| self.weight(*node));
        let node = promoted.or_else(|| self.free_node(placement))?;
        Some(MetaCommand::PlaceReplica { group, node, want: Want::Voter })
    }

    fn missing_learner(
        &self,
        group: GroupId,
        placement: &GroupPlacement,
        want: Target,
    ) -> Option<MetaCommand> {
        let copies = |kind| self.staying(placement, kind).count();
        // One voter too many becomes the learner that is missing: that is for `surplus`.
        let all = copies(Want::Voter).saturating_add(copies(Want::Learner));
        if group == GroupId::META || all >= want.voters.saturating_add(want.learners) {
            return None;
        }
        let node = self.free_node(placement)?;
        Some(MetaCommand::PlaceReplica { group, node, want: Want::Learner })
    }

    /// The node with the fewest replicas that could have one of this group.
    fn free_node(&self, placement: &GroupPlacement) -> Option<NodeId> {
        let free = |node: &NodeId| {
            let bound = self.catalogue.member(*node).is_some_and(|node| node.incarnation != UNBOUND);
            bound
                && self.alive.contains(node)
                && placement.replicas.values().all(|replica| replica.node != *node)
        };
        self.load.keys().copied().filter(free).min_by_key(|node| self.weight(*node))
    }

    fn weight(&self, node: NodeId) -> (usize, NodeId) {
        (self.load.get(&node).copied().unwrap_or(0), node)
    }

    /// A replica that never counted, on a node that cannot be heard, while another node could have it.
    fn stranded(&self, group: GroupId, placement: &GroupPlacement) -> Option<MetaCommand> {
        let reported = placement.reported.as_ref()?;
        let stranded = |(id, replica): &(ReplicaId, &Replica)| {
            let counted = reported.voters.contains(id) || reported.outgoing.contains(id);
            !counted && !self.alive.contains(&replica.node)
        };
        let (replica, _) = placement.wanted().find(stranded).filter(|_| group != GroupId::META)?;
        self.free_node(placement)?;
        Some(MetaCommand::RetireReplica { group, replica })
    }

    /// Enough others are intended, or this is not asked: what is on nodes that are being drained goes.
    fn leaving(&self, group: GroupId, placement: &GroupPlacement) -> Option<MetaCommand> {
        let active =
            |node| matches!(self.catalogue.node_state(node), Some(NodeState::Active | NodeState::Joining));
        // Whoever leads a group must hear what is intended of it until it is gone.
        let hears_for_nothing = |node| {
            let others = self.catalogue.replicas_of(node).filter(|(other, _, _)| *other != GroupId::META);
            group != GroupId::META || others.count() == 0
        };
        let (replica, _) = placement.wanted().find(|(id, replica)| {
            !active(replica.node) && !placement.is_last_voter(*id) && hears_for_nothing(replica.node)
        })?;
        Some(MetaCommand::RetireReplica { group, replica })
    }

    fn surplus(&self, group: GroupId, placement: &GroupPlacement, want: Target) -> Option<MetaCommand> {
        let reported = placement.reported.as_ref()?;
        let voters: Vec<(ReplicaId, &Replica)> = self.staying(placement, Want::Voter).collect();
        let learners = self.staying(placement, Want::Learner).count();
        let most = |(_, replica): &(ReplicaId, &Replica)| {
            (!self.alive.contains(&replica.node), self.weight(replica.node))
        };
        if voters.len() > want.voters {
            let (id, replica) = voters.iter().max_by_key(|voter| most(voter))?;
            let rest_counts = voters.iter().all(|(other, _)| other == id || reported.voters.contains(other));
            if !rest_counts {
                return None;
            }
            return Some(if learners < want.learners {
                MetaCommand::PlaceReplica { group, node: replica.node, want: Want::Learner }
            } else {
                MetaCommand::RetireReplica { group, replica: *id }
            });
        }
        let surplus = self.staying(placement, Want::Learner).max_by_key(most)?;
        (group != GroupId::META && learners > want.learners && voters.len() >= want.voters)
            .then_some(MetaCommand::RetireReplica { group, replica: surplus.0 })
    }

    fn forgotten(&self) -> Vec<MetaCommand> {
        let draining = self.catalogue.members().filter(|(_, node)| node.state == NodeState::Draining);
        let empty = draining.filter(|(id, _)| self.catalogue.replicas_of(*id).next().is_none());
        empty.map(|(node, _)| MetaCommand::ForgetNode { node }).collect()
    }

    /// One replica from the node with the most to the one with the fewest: placed there now, and then one too many.
    fn balance(&self) -> Option<MetaCommand> {
        let fewest = |node: &NodeId| self.alive.contains(node);
        let to = self.load.keys().copied().filter(fewest).min_by_key(|node| self.weight(*node))?;
        let from = self.load.keys().copied().max_by_key(|node| self.weight(*node))?;
        let apart = self.load.get(&from)?.saturating_sub(*self.load.get(&to)?);
        if apart < 2 {
            return None;
        }
        let movable = |(group, placement): &(GroupId, &GroupPlacement)| {
            *group != GroupId::META
                && placement.on(from).is_some_and(|(_, replica)| replica.want == Want::Voter)
                && placement.replicas.values().all(|replica| replica.node != to)
        };
        let (group, _) = self.catalogue.groups().find(movable)?;
        Some(MetaCommand::PlaceReplica { group, node: to, want: Want::Voter })
    }
}
