//! Groups: which replicas they should have, and which members their leaders report.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_wire::ids::{GroupId, Incarnation, NodeId, RaftIndex, ReplicaId};

use super::{Catalogue, count};
use crate::apply::APPLY_VERSION;
use crate::apply::catalogue_bytes::items;
use crate::apply::group_placement::{GroupPlacement, Replica, ReportedMembers};
use crate::apply::node_state::{NodeEvent, NodeState};
use crate::entry::{MEMBERS_MAX, Replication, Want};
use crate::outcome::{Outcome, Refusal};

/// Most groups of a cluster, the meta group among them.
pub const GROUPS_MAX: u32 = 1025;

impl Catalogue {
    /// What is known of a group, the meta group too.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&GroupPlacement> {
        self.groups.get(&group)
    }

    /// All groups, the meta group first.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &GroupPlacement)> {
        self.groups.iter().map(|(group, placement)| (*group, placement))
    }

    /// The groups that still owe a report about the logs of a channel.
    #[must_use]
    pub fn groups_owing(&self) -> BTreeSet<GroupId> {
        self.owing.keys().copied().collect()
    }

    /// The groups that carry logs, ascending.
    pub fn data_groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied().filter(|group| *group != GroupId::META)
    }

    /// Whether this replica id was ever minted, so that one that no group knows is one that went.
    #[must_use]
    pub fn was_replica_minted(&self, replica: ReplicaId) -> bool {
        replica < self.next_replica
    }

    /// The id that the next group will have.
    #[must_use]
    pub fn next_group(&self) -> GroupId {
        self.next_group
    }

    /// The replica that a node should have of a group in this data directory.
    #[must_use]
    pub fn replica_on(&self, group: GroupId, node: NodeId, incarnation: Incarnation) -> Option<ReplicaId> {
        let (id, replica) = self.groups.get(&group)?.on(node)?;
        (replica.incarnation == incarnation).then_some(id)
    }

    pub(super) fn create_group(
        &mut self,
        group: GroupId,
        replication: Replication,
        nodes: &[NodeId],
    ) -> Result<Outcome, Refusal> {
        if group != GroupId::META && group < self.next_group {
            return Ok(Outcome::GroupCreated { group });
        }
        if group != self.next_group {
            return Err(Refusal::GroupOutOfTurn { asked: group, next: self.next_group });
        }
        let nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let needed = match replication {
            Replication::Auto => 1,
            Replication::Fixed(copies) => copies.max(1),
        };
        if count(nodes.len()) < needed || nodes.len() > MEMBERS_MAX {
            return Err(Refusal::TooFewNodes { nodes: count(nodes.len()), needed });
        }
        self.begin_group(replication, nodes)
    }

    /// Mints the next group, with a replica on each of `nodes`. Those that shall count are its first members; any other
    /// comes as a learner. Two voters are worse than one, so of two nodes that leave it to the cluster one counts.
    fn begin_group(&mut self, replication: Replication, nodes: BTreeSet<NodeId>) -> Result<Outcome, Refusal> {
        if count(self.groups.len()) >= GROUPS_MAX {
            return Err(Refusal::TooManyGroups { max: GROUPS_MAX });
        }
        let group = self.next_group;
        let next = group.get().checked_add(1).ok_or(Refusal::Exhausted { counter: "group ids" })?;
        let count = nodes.len();
        let on: Vec<(NodeId, Incarnation)> = nodes
            .into_iter()
            .map(|node| self.active(node).map(|incarnation| (node, incarnation)))
            .collect::<Result<_, _>>()?;
        let voters = if replication == Replication::Auto && count == 2 { 1 } else { count };
        let mut placement = GroupPlacement {
            replication,
            genesis: Vec::new(),
            genesis_version: self.version_known(),
            replicas: BTreeMap::new(),
            reported: None,
        };
        for (turn, (node, incarnation)) in on.into_iter().enumerate() {
            let id = self.mint_replica()?;
            let want = if turn < voters { Want::Voter } else { Want::Learner };
            if want == Want::Voter {
                placement.genesis.push((id, node));
            }
            placement.replicas.insert(id, Replica { node, incarnation, want });
        }
        self.next_group = GroupId(next);
        self.groups.insert(group, placement);
        self.load.insert(group, 0);
        Ok(Outcome::GroupCreated { group })
    }

    /// Makes the groups for channels that ask for this many copies, unless there are some: as many as there are nodes,
    /// so that each may lead one.
    pub(super) fn ensure_groups(&mut self, copies: u32) -> Result<(), Refusal> {
        let replication = Replication::Fixed(copies);
        if self.groups.values().any(|placement| placement.replication == replication) {
            return Ok(());
        }
        let mut load: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (node, _) in self.members().filter(|(_, node)| node.state == NodeState::Active) {
            load.insert(node, self.replicas_of(node).count());
        }
        if count(load.len()) < copies {
            return Err(Refusal::TooFewNodes { nodes: count(load.len()), needed: copies });
        }
        for made in 0..load.len() {
            let mut by_load: Vec<(usize, NodeId)> =
                load.iter().map(|(node, count)| (*count, *node)).collect();
            by_load.sort_unstable();
            let least = by_load.into_iter().take(items(copies)).map(|(_, node)| node);
            let nodes: BTreeSet<NodeId> = least.collect();
            for node in &nodes {
                load.entry(*node).and_modify(|count| *count = count.saturating_add(1));
            }
            match self.begin_group(replication, nodes) {
                Ok(_) => {}
                Err(_) if made > 0 => return Ok(()),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    /// The newest rules of apply that every node knows that has said so.
    fn version_known(&self) -> u16 {
        self.nodes().map(|record| record.apply_version_max).min().unwrap_or(APPLY_VERSION).min(APPLY_VERSION)
    }

    /// The data directory of a node that may be given replicas.
    fn active(&self, node: NodeId) -> Result<Incarnation, Refusal> {
        let known = self.nodes.get(&node).ok_or(Refusal::UnknownNode { node })?;
        match known.state {
            NodeState::Active => Ok(known.incarnation),
            NodeState::Joining | NodeState::Draining | NodeState::Removed => {
                Err(Refusal::NodeState { node, state: known.state })
            }
        }
    }

    pub(super) fn place_replica(
        &mut self,
        group: GroupId,
        node: NodeId,
        want: Want,
    ) -> Result<Outcome, Refusal> {
        let incarnation = self.active(node)?;
        let placement = self.groups.get(&group).ok_or(Refusal::UnknownGroup { group })?;
        let present = placement.on(node).map(|(id, _)| id);
        if let Some(replica) = present.filter(|id| want != Want::Voter && placement.is_last_voter(*id)) {
            return Err(Refusal::LastVoter { group, replica });
        }
        let id = match present {
            Some(id) => id,
            None if want == Want::Gone => return Ok(Outcome::Noted),
            None => self.mint_replica()?,
        };
        if let Some(placement) = self.groups.get_mut(&group) {
            placement.replicas.insert(id, Replica { node, incarnation, want });
        }
        Ok(Outcome::ReplicaPlaced { replica: id })
    }

    pub(super) fn retire_replica(&mut self, group: GroupId, replica: ReplicaId) -> Result<Outcome, Refusal> {
        let placement = self.groups.get_mut(&group).ok_or(Refusal::UnknownGroup { group })?;
        if placement.is_last_voter(replica) {
            return Err(Refusal::LastVoter { group, replica });
        }
        // One that is not there has gone before.
        if let Some(known) = placement.replicas.get_mut(&replica) {
            known.want = Want::Gone;
        }
        Ok(Outcome::Noted)
    }

    /// A replica of the same kind on the same node takes the place of one that lost its memory.
    pub(super) fn replace_replica(&mut self, group: GroupId, lost: ReplicaId) -> Result<Outcome, Refusal> {
        let placement = self.groups.get(&group).ok_or(Refusal::UnknownGroup { group })?;
        let unknown = Refusal::UnknownReplica { group, replica: lost };
        let replica = *placement.replicas.get(&lost).ok_or(unknown)?;
        if replica.want == Want::Gone {
            return Ok(Outcome::Noted);
        }
        if placement.is_last_voter(lost) {
            return Err(Refusal::LastVoter { group, replica: lost });
        }
        let id = self.mint_replica()?;
        if let Some(placement) = self.groups.get_mut(&group) {
            placement.replicas.insert(lost, Replica { want: Want::Gone, ..replica });
            placement.replicas.insert(id, replica);
        }
        Ok(Outcome::ReplicaPlaced { replica: id })
    }

    /// Takes note of a group's members, and forgets replicas that should go and did. A report that was overtaken
    /// by a newer one changes nothing.
    pub(super) fn report_members(
        &mut self,
        group: GroupId,
        index: RaftIndex,
        members: [Vec<ReplicaId>; 3],
    ) -> Result<Outcome, Refusal> {
        let placement = self.groups.get_mut(&group).ok_or(Refusal::UnknownGroup { group })?;
        // Of two with the same index the later counts: members are known a little ahead of what is applied.
        if placement.reported.as_ref().is_some_and(|known| known.index > index) {
            return Ok(Outcome::Noted);
        }
        let [voters, outgoing, learners] = members.map(|members| {
            let once: BTreeSet<ReplicaId> = members.into_iter().collect();
            once.into_iter().collect()
        });
        let reported = ReportedMembers { index, voters, outgoing, learners };
        placement.replicas.retain(|id, replica| replica.want != Want::Gone || reported.names(*id));
        if group == GroupId::META {
            let seated: Vec<NodeId> = placement
                .wanted()
                .filter(|(id, _)| reported.names(*id))
                .map(|(_, replica)| replica.node)
                .collect();
            placement.reported = Some(reported);
            for node in seated {
                self.move_node(node, NodeEvent::Seated)?;
            }
        } else {
            placement.reported = Some(reported);
        }
        Ok(Outcome::Noted)
    }
}
