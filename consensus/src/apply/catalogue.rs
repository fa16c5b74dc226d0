//! The catalogue: what the meta group knows. Channels, where their logs lie, nodes, and the counters
//! that never go back.
//!
//! It is a pure state machine: [`Catalogue::apply`] takes a command and answers an outcome, from its
//! own state alone. Readers get it as a whole, immutable, behind an `Arc`.
//!
//! **Leader epochs across lives.** A name's next life must stamp leader epochs above every one that
//! its previous life stamped. So the deletion reports the last epoch, and it is kept with the name in
//! `ended`. That memory is bounded: the oldest lives beyond [`ENDED_LIVES_MAX`] are folded into one
//! floor, above which every name that is not remembered begins.
//!
//! **Who still asks for an ended life** is told which generation bears its name now, on any node and
//! after any restart, as long as the life is remembered.
//!
//! Not here: its bytes in a checkpoint ([`super::catalogue_bytes`]), and making groups do what it
//! intends ([`super::reconcile`]).

use std::collections::BTreeMap;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_wire::ids::{ChannelUuid, Generation, GroupId, LeaderEpoch, NodeId, ProducerId};

use super::channel::{Channel, ChannelEvent, ChannelState, check_name};
use crate::entry::{MetaCommand, NodeRecord};
use crate::outcome::{Outcome, Refusal};

/// Most channels in a cluster.
pub const CHANNELS_MAX: u32 = 10_000;
/// Most partitions of one channel.
pub const PARTITIONS_PER_CHANNEL_MAX: u32 = 4096;
/// Most partitions of all channels together.
pub const PARTITIONS_MAX: u32 = 50_000;
/// Most nodes in a cluster.
pub const NODES_MAX: u32 = 1024;
/// Most ended lives of channels that are remembered one by one, the newest.
pub const ENDED_LIVES_MAX: usize = 10_000;

/// What the meta group knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// The groups that carry logs, ascending.
    pub(super) data_groups: Vec<GroupId>,
    /// Replicas of each group.
    pub(super) replicas: u32,
    pub(super) nodes: BTreeMap<NodeId, NodeRecord>,
    pub(super) channels: BTreeMap<Generation, Channel>,
    /// By name: follows from `channels`.
    pub(super) names: BTreeMap<String, Generation>,
    /// Logs on each group: follows from `channels`.
    pub(super) load: BTreeMap<GroupId, u32>,
    pub(super) next_generation: Generation,
    pub(super) next_producer: ProducerId,
    /// Deleted channels.
    pub(super) ended: BTreeMap<Generation, EndedLife>,
    /// The last life of each name in `ended`: follows from it.
    pub(super) last_lives: BTreeMap<String, Generation>,
    /// Highest last epoch among the lives that `ended` has let go.
    pub(super) epoch_floor: LeaderEpoch,
}

/// What is left of a deleted channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndedLife {
    pub(super) name: String,
    pub(super) last_epoch: LeaderEpoch,
}

impl Catalogue {
    /// The catalogue of a new cluster: empty, its logs to be spread over `data_groups`, each of which
    /// has `replicas` members.
    #[must_use]
    pub fn genesis(mut data_groups: Vec<GroupId>, replicas: u32) -> Self {
        data_groups.sort_unstable();
        data_groups.dedup();
        let load = data_groups.iter().map(|group| (*group, 0)).collect();
        Self {
            data_groups,
            replicas,
            nodes: BTreeMap::new(),
            channels: BTreeMap::new(),
            names: BTreeMap::new(),
            load,
            next_generation: Generation(1),
            next_producer: ProducerId(1),
            ended: BTreeMap::new(),
            last_lives: BTreeMap::new(),
            epoch_floor: LeaderEpoch(0),
        }
    }

    /// The present life of a name, in whatever state.
    #[must_use]
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.channels.get(self.names.get(name)?)
    }

    /// The channel of a generation, unless it is deleted.
    #[must_use]
    pub fn channel_of(&self, generation: Generation) -> Option<&Channel> {
        self.channels.get(&generation)
    }

    /// The generation that bears the name of `ended` now. `None` if nobody does, or it is not remembered.
    #[must_use]
    pub fn successor(&self, ended: Generation) -> Option<Generation> {
        self.names.get(&self.ended.get(&ended)?.name).copied()
    }

    /// All channels, by generation.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.values()
    }

    /// A node's record.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodeRecord> {
        self.nodes.get(&node)
    }

    /// All nodes that have registered.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// The groups that carry logs.
    #[must_use]
    pub fn data_groups(&self) -> &[GroupId] {
        &self.data_groups
    }

    /// Copies of each log.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Whether this generation was ever minted, so that an absent one is a deleted one.
    #[must_use]
    pub fn was_minted(&self, generation: Generation) -> bool {
        generation >= Generation(1) && generation < self.next_generation
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
            MetaCommand::CreateChannel { name, uuid, partitions, replicas, segment_bytes } => {
                self.check_new(&name, uuid, partitions, replicas, segment_bytes)?;
                self.create(name, uuid, partitions, segment_bytes)
            }
            MetaCommand::MarkActive { generation } => self.move_on(generation, ChannelEvent::LogsOpened),
            MetaCommand::DeleteChannel { generation } => {
                self.move_on(generation, ChannelEvent::DeletionAsked)
            }
            MetaCommand::MarkDeleted { generation, last_epoch } => self.finish(generation, last_epoch),
            MetaCommand::MintProducer => {
                let minted = self.next_producer;
                let next = minted.get().checked_add(1);
                self.next_producer = ProducerId(next.ok_or(Refusal::Exhausted { counter: "producer ids" })?);
                Ok(Outcome::ProducerMinted(minted))
            }
        }
    }

    /// A record replaces one of an older start. Another formatting of the directory must have started
    /// later too: an old disk brought back must not take the node's place.
    fn register(&mut self, record: NodeRecord) -> Result<Outcome, Refusal> {
        match self.nodes.get(&record.node) {
            Some(known) => {
                let older = record.boot_epoch < known.boot_epoch;
                let other = record.incarnation != known.incarnation && record.boot_epoch <= known.boot_epoch;
                if older || other {
                    return Err(Refusal::StaleNode {
                        node: record.node,
                        found: record.boot_epoch,
                        known: known.boot_epoch,
                    });
                }
            }
            None if count(self.nodes.len()) >= NODES_MAX => {
                return Err(Refusal::TooManyNodes { max: NODES_MAX });
            }
            None => {}
        }
        self.nodes.insert(record.node, record);
        Ok(Outcome::NodeRegistered)
    }

    fn check_new(
        &self,
        name: &str,
        uuid: ChannelUuid,
        partitions: u32,
        replicas: Option<u32>,
        segment_bytes: u64,
    ) -> Result<(), Refusal> {
        check_name(name).map_err(|reason| Refusal::InvalidName { reason })?;
        if let Some(channel) = self.channel(name) {
            let generation = channel.generation;
            return Err(match channel.state {
                ChannelState::Creating | ChannelState::Active => Refusal::ChannelExists { generation },
                ChannelState::Deleting | ChannelState::Deleted => Refusal::ChannelBeingDeleted { generation },
            });
        }
        if let Some(channel) = self.channels.values().find(|channel| channel.uuid == uuid) {
            return Err(Refusal::UuidTaken { generation: channel.generation });
        }
        if partitions == 0 || partitions > PARTITIONS_PER_CHANNEL_MAX {
            return Err(Refusal::PartitionsOutOfRange { asked: partitions, max: PARTITIONS_PER_CHANNEL_MAX });
        }
        if let Some(asked) = replicas.filter(|asked| *asked != self.replicas) {
            return Err(Refusal::ReplicasUnsupported { asked, supported: self.replicas });
        }
        let (min, max) = (LogConfig::SEGMENT_BYTES_MIN, LogConfig::SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&segment_bytes) {
            return Err(Refusal::SegmentBytesOutOfRange { asked: segment_bytes, min, max });
        }
        if count(self.channels.len()) >= CHANNELS_MAX {
            return Err(Refusal::TooManyChannels { max: CHANNELS_MAX });
        }
        if self.data_groups.is_empty() {
            return Err(Refusal::TooManyPartitions { asked: partitions, max: 0 });
        }
        let all = self.load.values().fold(0_u32, |sum, logs| sum.saturating_add(*logs));
        if all.saturating_add(partitions) > PARTITIONS_MAX {
            return Err(Refusal::TooManyPartitions { asked: partitions, max: PARTITIONS_MAX });
        }
        Ok(())
    }

    fn create(
        &mut self,
        name: String,
        uuid: ChannelUuid,
        partitions: u32,
        segment_bytes: u64,
    ) -> Result<Outcome, Refusal> {
        let generation = self.next_generation;
        let next = generation.get().checked_add(1).ok_or(Refusal::Exhausted { counter: "generations" })?;
        let last_epoch = self.last_epoch(&name);
        let exhausted = Refusal::Exhausted { counter: "leader epochs of this name" };
        // Epochs are base + term, and terms begin at 1: the previous life's last epoch is base enough.
        let epoch_base = if last_epoch.get() < i32::MAX { last_epoch.get() } else { return Err(exhausted) };
        let groups = self.place(generation, partitions);
        self.next_generation = Generation(next);
        self.insert(Channel {
            generation,
            name,
            uuid,
            state: ChannelState::Creating,
            segment_bytes,
            epoch_base,
            replicas: self.replicas,
            groups,
        });
        Ok(Outcome::ChannelCreated { generation })
    }

    /// Puts each partition on the group that carries the fewest logs; among equals the first one counted
    /// from the generation's own turn, so that channels of one partition spread too.
    fn place(&self, generation: Generation, partitions: u32) -> Vec<GroupId> {
        let turn =
            usize::try_from(generation.get()).unwrap_or(0).checked_rem(self.data_groups.len()).unwrap_or(0);
        let (before, from) = self.data_groups.split_at_checked(turn).unwrap_or((&[], &self.data_groups));
        let mut load: Vec<(u32, GroupId)> = from
            .iter()
            .chain(before)
            .map(|group| (self.load.get(group).copied().unwrap_or(0), *group))
            .collect();
        let mut groups = Vec::new();
        for _ in 0..partitions {
            // `min_by_key` takes the first of equals.
            if let Some(least) = load.iter_mut().min_by_key(|(logs, _)| *logs) {
                least.0 = least.0.saturating_add(1);
                groups.push(least.1);
            }
        }
        groups
    }

    /// Adds a channel and what follows from it.
    pub(super) fn insert(&mut self, channel: Channel) {
        for group in &channel.groups {
            let logs = self.load.entry(*group).or_insert(0);
            *logs = logs.saturating_add(1);
        }
        self.names.insert(channel.name.clone(), channel.generation);
        self.channels.insert(channel.generation, channel);
    }

    fn move_on(&mut self, generation: Generation, event: ChannelEvent) -> Result<Outcome, Refusal> {
        let channel = self.channels.get_mut(&generation).ok_or(Refusal::UnknownGeneration { generation })?;
        channel.state = channel.state.after(event).ok_or(Refusal::UnknownGeneration { generation })?;
        Ok(Outcome::ChannelMarked)
    }

    fn finish(&mut self, generation: Generation, last_epoch: LeaderEpoch) -> Result<Outcome, Refusal> {
        let Some(channel) = self.channels.get(&generation) else {
            // Marked before: two leaders in a row may both have seen it to its end.
            let again = self.was_minted(generation);
            return if again {
                Ok(Outcome::ChannelMarked)
            } else {
                Err(Refusal::UnknownGeneration { generation })
            };
        };
        match channel.state.after(ChannelEvent::LogsClosed) {
            Some(ChannelState::Deleted) => {}
            Some(ChannelState::Creating | ChannelState::Active | ChannelState::Deleting) | None => {
                return Err(Refusal::NotBeingDeleted { generation });
            }
        }
        let last_epoch = last_epoch.max(LeaderEpoch(channel.epoch_base));
        if let Some(channel) = self.channels.remove(&generation) {
            for group in &channel.groups {
                if let Some(logs) = self.load.get_mut(group) {
                    *logs = logs.saturating_sub(1);
                }
            }
            self.names.remove(&channel.name);
            self.remember(generation, EndedLife { name: channel.name, last_epoch });
        }
        self.forget_oldest_lives();
        Ok(Outcome::ChannelMarked)
    }

    /// Above this the next life of `name` stamps its leader epochs.
    fn last_epoch(&self, name: &str) -> LeaderEpoch {
        let last = self.last_lives.get(name).and_then(|generation| self.ended.get(generation));
        last.map_or(self.epoch_floor, |life| life.last_epoch)
    }

    pub(super) fn remember(&mut self, generation: Generation, life: EndedLife) {
        let last = self.last_lives.entry(life.name.clone()).or_insert(generation);
        *last = generation.max(*last);
        self.ended.insert(generation, life);
    }

    fn forget_oldest_lives(&mut self) {
        while self.ended.len() > ENDED_LIVES_MAX {
            let Some((generation, life)) = self.ended.pop_first() else { return };
            self.epoch_floor = self.epoch_floor.max(life.last_epoch);
            if self.last_lives.get(&life.name) == Some(&generation) {
                self.last_lives.remove(&life.name);
            }
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
