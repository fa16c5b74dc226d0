//! Channels: lives of names.
//!
//! **Leader epochs across lives.** A name's next life must stamp leader epochs above every one that
//! its previous life stamped. So the reports of closed logs carry the last epoch, and the highest is kept with
//! the name in `ended`. That memory is bounded: the oldest lives beyond [`ENDED_LIVES_MAX`] are folded into one
//! floor, above which every name that is not remembered begins.
//!
//! **Who still asks for an ended life** is told which generation bears its name now, on any node and
//! after any restart, as long as the life is remembered.
//!
//! **A channel keeps which of its groups still owe a report.** It is open, or gone, when none does; and from that
//! each group's leader sees what is left to do without looking at every channel.

use std::sync::Arc;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_wire::ids::{Generation, GroupId, LeaderEpoch};

use super::{Catalogue, count};
use crate::apply::channel::{Channel, ChannelEvent, ChannelState, check_name};
use crate::apply::node_state::NodeState;
use crate::entry::{NewChannel, Replication};
use crate::outcome::{Outcome, Refusal};

/// Most copies of each log of a channel.
pub const REPLICAS_MAX: u32 = 7;
/// Most copies of a log that leaves their number to the cluster; with fewer nodes, as many as there are.
pub const AUTO_COPIES: u32 = 3;
/// Most channels in a cluster.
pub const CHANNELS_MAX: u32 = 10_000;
/// Most partitions of one channel.
pub const PARTITIONS_PER_CHANNEL_MAX: u32 = 4096;
/// Most partitions of all channels together.
pub const PARTITIONS_MAX: u32 = 50_000;
/// Most ended lives of channels that are remembered one by one, the newest.
pub const ENDED_LIVES_MAX: usize = 10_000;

/// What is left of a deleted channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::apply) struct EndedLife {
    pub(in crate::apply) name: String,
    pub(in crate::apply) last_epoch: LeaderEpoch,
}

impl Catalogue {
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

    /// The channels that are being created or deleted and of which `group` still owes a report.
    pub fn owed_by(&self, group: GroupId) -> impl Iterator<Item = &Channel> {
        let owing = self.owing.get(&group).into_iter().flatten();
        owing.filter_map(|generation| self.channels.get(generation))
    }

    /// Copies that a channel's logs shall have.
    #[must_use]
    pub fn copies(&self, channel: &Channel) -> u32 {
        let placement = channel.groups.first().and_then(|group| self.groups.get(group));
        placement.map_or(0, |placement| count(placement.wanted().count()))
    }

    /// Whether this generation was ever minted, so that an absent one is a deleted one.
    #[must_use]
    pub fn was_minted(&self, generation: Generation) -> bool {
        generation >= Generation(1) && generation < self.next_generation
    }

    pub(super) fn create_channel(&mut self, new: NewChannel) -> Result<Generation, Refusal> {
        self.check_new(&new)?;
        let generation = self.next_generation;
        let next = generation.get().checked_add(1).ok_or(Refusal::Exhausted { counter: "generations" })?;
        let last_epoch = self.last_epoch(&new.name);
        let exhausted = Refusal::Exhausted { counter: "leader epochs of this name" };
        // Epochs are base + term, and terms begin at 1: the previous life's last epoch is base enough.
        let epoch_base = if last_epoch.get() < i32::MAX { last_epoch.get() } else { return Err(exhausted) };
        let replication = self.replication_of(new.replicas)?;
        let groups = self.choose_groups(generation, new.partitions, replication);
        if groups.is_empty() {
            return Err(Refusal::TooManyPartitions { asked: new.partitions, max: 0 });
        }
        self.next_generation = Generation(next);
        self.insert(Channel {
            generation,
            name: new.name,
            uuid: new.uuid,
            state: ChannelState::Creating,
            segment_bytes: new.segment_bytes,
            epoch_base,
            last_epoch: LeaderEpoch(epoch_base),
            owing: groups.iter().copied().collect(),
            groups,
        });
        Ok(generation)
    }

    /// The kind of group that a channel's logs go to, made first if there is none of it. Who asks for what the cluster
    /// does by itself gets that.
    fn replication_of(&mut self, replicas: Option<u32>) -> Result<Replication, Refusal> {
        let Some(asked) = replicas else { return Ok(Replication::Auto) };
        if asked == 0 || asked > REPLICAS_MAX {
            return Err(Refusal::ReplicasOutOfRange { asked, max: REPLICAS_MAX });
        }
        let active = self.members().filter(|(_, node)| node.state == NodeState::Active).count();
        if count(active) < asked {
            return Err(Refusal::TooFewNodes { nodes: count(active), needed: asked });
        }
        if asked == AUTO_COPIES {
            return Ok(Replication::Auto);
        }
        self.ensure_groups(asked)?;
        Ok(Replication::Fixed(asked))
    }

    fn check_new(&self, new: &NewChannel) -> Result<(), Refusal> {
        check_name(&new.name).map_err(|reason| Refusal::InvalidName { reason })?;
        if let Some(channel) = self.channel(&new.name) {
            let generation = channel.generation;
            return Err(match channel.state {
                ChannelState::Creating | ChannelState::Active => Refusal::ChannelExists { generation },
                ChannelState::Deleting | ChannelState::Deleted => Refusal::ChannelBeingDeleted { generation },
            });
        }
        if let Some(generation) = self.uuids.get(&new.uuid) {
            return Err(Refusal::UuidTaken { generation: *generation });
        }
        let (asked, max) = (new.partitions, PARTITIONS_PER_CHANNEL_MAX);
        if asked == 0 || asked > max {
            return Err(Refusal::PartitionsOutOfRange { asked, max });
        }
        let (asked, min, max) =
            (new.segment_bytes, LogConfig::SEGMENT_BYTES_MIN, LogConfig::SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&asked) {
            return Err(Refusal::SegmentBytesOutOfRange { asked, min, max });
        }
        if count(self.channels.len()) >= CHANNELS_MAX {
            return Err(Refusal::TooManyChannels { max: CHANNELS_MAX });
        }
        let all = self.load.values().fold(0_u32, |sum, logs| sum.saturating_add(*logs));
        if all.saturating_add(new.partitions) > PARTITIONS_MAX {
            return Err(Refusal::TooManyPartitions { asked: new.partitions, max: PARTITIONS_MAX });
        }
        Ok(())
    }

    /// Puts each partition on the group that carries the fewest logs; among equals the first one counted
    /// from the generation's own turn, so that channels of one partition spread too.
    fn choose_groups(
        &self,
        generation: Generation,
        partitions: u32,
        replication: Replication,
    ) -> Vec<GroupId> {
        let of_kind = |group: &&GroupId| {
            self.groups.get(group).is_some_and(|placement| placement.replication == replication)
        };
        let kind: Vec<GroupId> = self.load.keys().filter(of_kind).copied().collect();
        let turn = usize::try_from(generation.get()).unwrap_or(0).checked_rem(kind.len()).unwrap_or(0);
        let (before, from) = kind.split_at_checked(turn).unwrap_or((&[], &kind));
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
    pub(in crate::apply) fn insert(&mut self, channel: Channel) {
        for group in &channel.groups {
            let logs = self.load.entry(*group).or_insert(0);
            *logs = logs.saturating_add(1);
        }
        for group in &channel.owing {
            self.owing.entry(*group).or_default().insert(channel.generation);
        }
        Arc::make_mut(&mut self.names).insert(channel.name.clone(), channel.generation);
        Arc::make_mut(&mut self.uuids).insert(channel.uuid, channel.generation);
        Arc::make_mut(&mut self.channels).insert(channel.generation, channel);
    }

    pub(super) fn delete_channel(&mut self, generation: Generation) -> Result<(), Refusal> {
        let channel = Arc::make_mut(&mut self.channels)
            .get_mut(&generation)
            .ok_or(Refusal::UnknownGeneration { generation })?;
        let before = channel.state;
        channel.state =
            before.after(ChannelEvent::DeletionAsked).ok_or(Refusal::UnknownGeneration { generation })?;
        if before != channel.state {
            channel.owing = channel.groups.iter().copied().collect();
            for group in &channel.owing {
                self.owing.entry(*group).or_default().insert(generation);
            }
        }
        Ok(())
    }

    /// Takes note of what a group did to its logs. A report that came late or twice, about a channel that has gone
    /// on since, changes nothing.
    pub(super) fn report_logs(
        &mut self,
        group: GroupId,
        opened: &[Generation],
        closed: &[(Generation, LeaderEpoch)],
    ) -> Result<Outcome, Refusal> {
        if !self.load.contains_key(&group) {
            return Err(Refusal::UnknownGroup { group });
        }
        for generation in opened {
            if self.pay(group, *generation, ChannelState::Creating) {
                self.move_on(*generation, ChannelEvent::LogsOpened);
            }
        }
        for (generation, last_epoch) in closed {
            if let Some(channel) = Arc::make_mut(&mut self.channels).get_mut(generation)
                && channel.state == ChannelState::Deleting
            {
                channel.last_epoch = channel.last_epoch.max(*last_epoch);
            }
            if self.pay(group, *generation, ChannelState::Deleting) {
                self.move_on(*generation, ChannelEvent::LogsClosed);
            }
        }
        Ok(Outcome::Noted)
    }

    /// Strikes a group's debt to a channel in `state`; whether none is left by that.
    fn pay(&mut self, group: GroupId, generation: Generation, state: ChannelState) -> bool {
        let Some(channel) =
            Arc::make_mut(&mut self.channels).get_mut(&generation).filter(|channel| channel.state == state)
        else {
            return false;
        };
        if !channel.owing.remove(&group) {
            return false;
        }
        let last = channel.owing.is_empty();
        if let Some(owing) = self.owing.get_mut(&group) {
            owing.remove(&generation);
            if owing.is_empty() {
                self.owing.remove(&group);
            }
        }
        last
    }

    fn move_on(&mut self, generation: Generation, event: ChannelEvent) {
        let Some(channel) = Arc::make_mut(&mut self.channels).get_mut(&generation) else { return };
        match channel.state.after(event) {
            Some(ChannelState::Deleted) => self.finish(generation),
            Some(state) => channel.state = state,
            None => {}
        }
    }

    fn finish(&mut self, generation: Generation) {
        if let Some(channel) = Arc::make_mut(&mut self.channels).remove(&generation) {
            for group in &channel.groups {
                if let Some(logs) = self.load.get_mut(group) {
                    *logs = logs.saturating_sub(1);
                }
            }
            Arc::make_mut(&mut self.names).remove(&channel.name);
            Arc::make_mut(&mut self.uuids).remove(&channel.uuid);
            self.remember(generation, EndedLife { name: channel.name, last_epoch: channel.last_epoch });
        }
        self.forget_oldest_lives();
    }

    /// Above this the next life of `name` stamps its leader epochs.
    fn last_epoch(&self, name: &str) -> LeaderEpoch {
        let last = self.last_lives.get(name).and_then(|generation| self.ended.get(generation));
        last.map_or(self.epoch_floor, |life| life.last_epoch)
    }

    pub(in crate::apply) fn remember(&mut self, generation: Generation, life: EndedLife) {
        let last = Arc::make_mut(&mut self.last_lives).entry(life.name.clone()).or_insert(generation);
        *last = generation.max(*last);
        Arc::make_mut(&mut self.ended).insert(generation, life);
    }

    fn forget_oldest_lives(&mut self) {
        while self.ended.len() > ENDED_LIVES_MAX {
            let Some((generation, life)) = Arc::make_mut(&mut self.ended).pop_first() else { return };
            self.epoch_floor = self.epoch_floor.max(life.last_epoch);
            if self.last_lives.get(&life.name) == Some(&generation) {
                Arc::make_mut(&mut self.last_lives).remove(&life.name);
            }
        }
    }
}
