//! The catalogue as it lies in a checkpoint of the meta group.
//!
//! What follows from the channels (names in use, logs on each group) is not kept twice: it is built
//! again. A catalogue that contradicts itself is refused.

use tidelog_wire::ids::{ChannelUuid, Generation, GroupId, LeaderEpoch, ProducerId};

use super::catalogue::{
    CHANNELS_MAX, Catalogue, ENDED_LIVES_MAX, EndedLife, NODES_MAX, PARTITIONS_PER_CHANNEL_MAX,
};
use super::channel::{Channel, ChannelState, NAME_BYTES_MAX};
use crate::entry::{FieldReader, FieldWriter, MalformedField, NodeRecord};

/// Version of a machine's state in a checkpoint.
pub(super) const STATE_VERSION: u16 = 1;
/// Most data groups of a cluster.
pub const DATA_GROUPS_MAX: usize = 1024;

/// Says in a checkpoint that the state is a catalogue.
pub(super) const KIND_CATALOGUE: u8 = 1;

impl Catalogue {
    /// Its bytes, little-endian; texts and lists as in [`crate::entry::encode`].
    ///
    /// | field             | size | meaning                                                       |
    /// |-------------------|-----:|---------------------------------------------------------------|
    /// | `version`         |    2 | 1; a reader refuses every value it does not know              |
    /// | `kind`            |    1 | 1, a catalogue                                                |
    /// | reserved          |    1 | zero, enforced                                                |
    /// | `replicas`        |    4 | of each group                                                 |
    /// | `data_groups`     | list | group (8), ascending                                          |
    /// | `next_generation` |    8 | never goes back                                               |
    /// | `next_producer`   |    8 | never goes back                                               |
    /// | `epoch_floor`     |    4 | last leader epoch of lives no longer remembered               |
    /// | `nodes`           | list | node records as in entries, ascending by node                 |
    /// | `channels`        | list | generation (8), text name, uuid (16), state (1), segment bytes (8), epoch base (4), replicas (4), list of groups (8) by partition; ascending by generation |
    /// | `ended`           | list | generation (8), text name, last epoch (4); ascending by generation, none of a channel |
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::new();
        out.u16(STATE_VERSION).u8(KIND_CATALOGUE).u8(0).u32(self.replicas);
        out.list(&self.data_groups, DATA_GROUPS_MAX, |out, group| {
            out.u64(group.get());
        });
        out.u64(self.next_generation.get()).i64(self.next_producer.get()).i32(self.epoch_floor.get());
        let nodes: Vec<_> = self.nodes.values().collect();
        out.list(&nodes, items(NODES_MAX), |out, record| record.write(out));
        let channels: Vec<_> = self.channels.values().collect();
        out.list(&channels, items(CHANNELS_MAX), |out, channel| write_channel(out, channel));
        let ended: Vec<_> = self.ended.iter().collect();
        out.list(&ended, ENDED_LIVES_MAX, |out, (generation, life)| {
            out.u64(generation.get()).text(&life.name, NAME_BYTES_MAX).i32(life.last_epoch.get());
        });
        out.into_bytes()
    }

    /// The reverse of [`Catalogue::encode`].
    ///
    /// # Errors
    /// The field that is wrong, an unknown version among them.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedField> {
        let mut from = FieldReader::new(bytes);
        if from.u16("version")? != STATE_VERSION {
            return Err(MalformedField { field: "version", problem: "not one that this release reads" });
        }
        if from.u8("kind")? != KIND_CATALOGUE {
            return Err(MalformedField { field: "kind", problem: "not a catalogue" });
        }
        from.zero("reserved")?;
        let replicas = from.u32("replicas")?;
        let groups = from.list("data_groups", DATA_GROUPS_MAX, 8, |from| from.u64("group").map(GroupId))?;
        ascending("data_groups", groups.iter())?;
        let mut catalogue = Self::genesis(groups, replicas);
        catalogue.next_generation = Generation(from.u64("next_generation")?);
        catalogue.next_producer = ProducerId(from.i64("next_producer")?);
        catalogue.epoch_floor = LeaderEpoch(from.i32("epoch_floor")?);
        let nodes = from.list("nodes", items(NODES_MAX), 41, NodeRecord::read)?;
        ascending("nodes", nodes.iter().map(|record| record.node))?;
        catalogue.nodes = nodes.into_iter().map(|record| (record.node, record)).collect();
        let channels = from.list("channels", items(CHANNELS_MAX), 47, read_channel)?;
        ascending("channels", channels.iter().map(|channel| channel.generation))?;
        for channel in channels {
            catalogue.admit(channel)?;
        }
        catalogue.read_ended(&mut from)?;
        from.end()?;
        Ok(catalogue)
    }

    fn read_ended(&mut self, from: &mut FieldReader<'_>) -> Result<(), MalformedField> {
        let ended = from.list("ended", ENDED_LIVES_MAX, 14, |from| {
            let generation = from.generation()?;
            let name = from.text("name", NAME_BYTES_MAX)?;
            Ok((generation, EndedLife { name, last_epoch: LeaderEpoch(from.i32("last_epoch")?) }))
        })?;
        ascending("ended", ended.iter().map(|(generation, _)| generation))?;
        for (generation, life) in ended {
            if !self.was_minted(generation) || self.channels.contains_key(&generation) {
                return Err(MalformedField { field: "ended", problem: "a generation that has not ended" });
            }
            self.remember(generation, life);
        }
        Ok(())
    }

    fn admit(&mut self, channel: Channel) -> Result<(), MalformedField> {
        let wrong = |problem| Err(MalformedField { field: "channels", problem });
        if !self.was_minted(channel.generation) {
            return wrong("a generation that was never minted");
        }
        if self.names.contains_key(&channel.name) {
            return wrong("two channels of one name");
        }
        if channel.groups.iter().any(|group| self.data_groups.binary_search(group).is_err()) {
            return wrong("a log on an unknown group");
        }
        self.insert(channel);
        Ok(())
    }
}

fn write_channel(out: &mut FieldWriter, channel: &Channel) {
    out.u64(channel.generation.get()).text(&channel.name, NAME_BYTES_MAX).u128(channel.uuid.0);
    out.u8(channel.state.number()).u64(channel.segment_bytes).i32(channel.epoch_base).u32(channel.replicas);
    out.list(&channel.groups, items(PARTITIONS_PER_CHANNEL_MAX), |out, group| {
        out.u64(group.get());
    });
}

fn read_channel(from: &mut FieldReader<'_>) -> Result<Channel, MalformedField> {
    Ok(Channel {
        generation: from.generation()?,
        name: from.text("name", NAME_BYTES_MAX)?,
        uuid: ChannelUuid(from.u128("uuid")?),
        state: ChannelState::from_number(from.u8("state")?)
            .ok_or(MalformedField { field: "state", problem: "unknown" })?,
        segment_bytes: from.u64("segment_bytes")?,
        epoch_base: from.i32("epoch_base")?,
        replicas: from.u32("replicas")?,
        groups: from
            .list("groups", items(PARTITIONS_PER_CHANNEL_MAX), 8, |from| from.u64("group").map(GroupId))?,
    })
}

/// Each key above the one before it: one order, no key twice, so equal states have equal bytes.
pub(super) fn ascending<K: PartialOrd>(
    field: &'static str,
    keys: impl Iterator<Item = K>,
) -> Result<(), MalformedField> {
    let mut last = None;
    for key in keys {
        if last.is_some_and(|last| last >= key) {
            return Err(MalformedField { field, problem: "not in ascending order" });
        }
        last = Some(key);
    }
    Ok(())
}

pub(super) fn items(max: u32) -> usize {
    usize::try_from(max).unwrap_or(usize::MAX)
}
