//! The catalogue: what the meta group knows. Channels, nodes, groups and where their replicas should
//! be, and the counters that never go back.
//!
//! It is a pure state machine: [`Catalogue::apply`] takes a command and answers an outcome, from its
//! own state alone. Readers get it as a whole, immutable, behind an `Arc`. So a change makes a copy, and what there
//! may be ten thousand of is shared between copies until it changes itself: minting a producer copies no channels.
//!
//! It holds *intent*. Groups act on it, their leaders report what they did, and the catalogue keeps what is
//! still owed: so what is left to do can be seen without looking at what is done.
//!
//! | file | holds |
//! |---|---|
//! | `channels` | lives of channel names, and reports about their logs |
//! | `nodes` | joining, registering, draining, forgetting |
//! | `groups` | groups, their replicas, and reports about their members |
//!
//! Not here: its bytes in a checkpoint ([`super::catalogue_bytes`]), making groups do what it
//! intends ([`super::reconcile`]), and what it should intend ([`crate::placement`]).

mod alone;
mod channels;
mod groups;
mod nodes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_wire::ids::{
    ChannelUuid, Generation, GroupId, Incarnation, LeaderEpoch, NodeId, ProducerId, ReplicaId,
};

use super::APPLY_VERSION;
use super::channel::Channel;
use super::group_placement::{GroupPlacement, Replica, UNBOUND};
use super::node_state::NodeState;
use crate::entry::{MetaCommand, NodeRecord, Replication, Want};
use crate::outcome::{Outcome, Refusal};
pub(super) use channels::EndedLife;
pub use channels::{
    AUTO_COPIES, CHANNELS_MAX, ENDED_LIVES_MAX, PARTITIONS_MAX, PARTITIONS_PER_CHANNEL_MAX, REPLICAS_MAX,
};
pub use groups::GROUPS_MAX;
pub use nodes::{INCARNATIONS_RETIRED_MAX, NODES_MAX};

/// What the meta group knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// The meta group's too.
    pub(super) groups: BTreeMap<GroupId, GroupPlacement>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    /// The first data directory that was entered.
    pub(super) founding: Option<Incarnation>,
    /// Data directories that were given up, for ever.
    pub(super) retired: BTreeSet<Incarnation>,
    pub(super) channels: Arc<BTreeMap<Generation, Channel>>,
    /// By name: follows from `channels`.
    pub(super) names: Arc<BTreeMap<String, Generation>>,
    /// By UUID: follows from `channels`.
    pub(super) uuids: Arc<BTreeMap<ChannelUuid, Generation>>,
    /// Channels of which a group still owes a report: follows from `channels`.
    pub(super) owing: BTreeMap<GroupId, BTreeSet<Generation>>,
    /// Logs on each data group: follows from `channels`.
    pub(super) load: BTreeMap<GroupId, u32>,
    pub(super) next_generation: Generation,
    pub(super) next_producer: ProducerId,
    pub(super) next_group: GroupId,
    pub(super) next_replica: ReplicaId,
    /// Deleted channels.
    pub(super) ended: Arc<BTreeMap<Generation, EndedLife>>,
    /// The last life of each name in `ended`: follows from it.
    pub(super) last_lives: Arc<BTreeMap<String, Generation>>,
    /// Highest last epoch among the lives that `ended` has let go.
    pub(super) epoch_floor: LeaderEpoch,
}

/// A node as the catalogue knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is in its life.
    pub state: NodeState,
    /// Its data directory, or [`UNBOUND`].
    pub incarnation: Incarnation,
    /// What it said of itself, once it did.
    pub record: Option<NodeRecord>,
}

impl Catalogue {
    /// The catalogue of a new cluster of `nodes`: no channels, its logs to be spread over `data_groups`. Each
    /// group, the meta group among them, has a voter on each node; its replica id is the node's number plus
    /// one, since raft knows no 0.
    #[must_use]
    pub fn genesis(data_groups: &[GroupId], nodes: &[NodeId]) -> Self {
        let nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let genesis = genesis_members(nodes.iter().copied());
        let replica = |node| Replica { node, incarnation: UNBOUND, want: Want::Voter };
        let placement = GroupPlacement {
            replication: Replication::Auto,
            replicas: genesis.iter().map(|(id, node)| (*id, replica(*node))).collect(),
            genesis,
            genesis_version: APPLY_VERSION,
            reported: None,
        };
        let groups: BTreeMap<GroupId, GroupPlacement> =
            data_groups.iter().chain([&GroupId::META]).map(|group| (*group, placement.clone())).collect();
        let above = |last: Option<u64>| last.unwrap_or(0).saturating_add(1);
        let node = Node { state: NodeState::Active, incarnation: UNBOUND, record: None };
        Self {
            load: groups.keys().filter(|group| **group != GroupId::META).map(|group| (*group, 0)).collect(),
            next_group: GroupId(above(groups.keys().next_back().map(|group| group.get()))),
            next_replica: ReplicaId(above(placement.replicas.keys().next_back().map(|id| id.get()))),
            groups,
            nodes: nodes.into_iter().map(|id| (id, node.clone())).collect(),
            founding: None,
            retired: BTreeSet::new(),
            channels: Arc::default(),
            names: Arc::default(),
            uuids: Arc::default(),
            owing: BTreeMap::new(),
            next_generation: Generation(1),
            next_producer: ProducerId(1),
            ended: Arc::default(),
            last_lives: Arc::default(),
            epoch_floor: LeaderEpoch(0),
        }
    }

    /// Does what `command` says, or refuses and changes nothing.
    pub fn apply(&mut self, command: MetaCommand) -> Outcome {
        match self.try_apply(command) {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    fn try_apply(&mut self, command: MetaCommand) -> Result<Outcome, Refusal> {
        match command {
            MetaCommand::RegisterNode(record) => self.register(record),
            MetaCommand::JoinNode(record) => self.join(record),
            MetaCommand::DrainNode { node } => self.drain(node),
            MetaCommand::ForgetNode { node } => self.forget(node),
            MetaCommand::CreateGroup { group, replication, nodes } => {
                self.create_group(group, replication, &nodes)
            }
            MetaCommand::PlaceReplica { group, node, want } => self.place_replica(group, node, want),
            MetaCommand::RetireReplica { group, replica } => self.retire_replica(group, replica),
            MetaCommand::ReplaceReplica { group, lost } => self.replace_replica(group, lost),
            MetaCommand::ReportMembers { group, index, voters, outgoing, learners } => {
                self.report_members(group, index, [voters, outgoing, learners])
            }
            MetaCommand::ReportLogs { group, opened, closed } => self.report_logs(group, &opened, &closed),
            MetaCommand::CreateChannels(channels) => Ok(Outcome::ChannelsCreated(
                channels.into_iter().map(|channel| self.create_channel(channel)).collect(),
            )),
            MetaCommand::DeleteChannels(generations) => Ok(Outcome::ChannelsDeleted(
                generations.into_iter().map(|generation| self.delete_channel(generation)).collect(),
            )),
            MetaCommand::MintProducer => {
                let minted = self.next_producer;
                let next = minted.get().checked_add(1);
                self.next_producer = ProducerId(next.ok_or(Refusal::Exhausted { counter: "producer ids" })?);
                Ok(Outcome::ProducerMinted(minted))
            }
        }
    }

    fn mint_replica(&mut self) -> Result<ReplicaId, Refusal> {
        let minted = self.next_replica;
        let next = minted.get().checked_add(1).ok_or(Refusal::Exhausted { counter: "replica ids" })?;
        self.next_replica = ReplicaId(next);
        Ok(minted)
    }
}

/// The members that a bootstrap gives every group: a replica on each node, its id the node's number plus one.
pub(super) fn genesis_members(nodes: impl Iterator<Item = NodeId>) -> Vec<(ReplicaId, NodeId)> {
    nodes.map(|node| (ReplicaId(node.get().saturating_add(1)), node)).collect()
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
