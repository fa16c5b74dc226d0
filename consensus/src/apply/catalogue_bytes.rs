//! The catalogue as it lies in a checkpoint of the meta group.
//!
//! What follows from the channels (names in use, logs on each group) is not kept twice: it is built
//! again. A catalogue that contradicts itself is refused.

use tidelog_wire::ids::{
    ChannelUuid, Generation, GroupId, Incarnation, LeaderEpoch, NodeId, ProducerId, RaftIndex, ReplicaId,
};

use super::catalogue::{
    CHANNELS_MAX, Catalogue, ENDED_LIVES_MAX, EndedLife, GROUPS_MAX, INCARNATIONS_RETIRED_MAX, NODES_MAX,
    Node, PARTITIONS_PER_CHANNEL_MAX,
};
use super::channel::{Channel, ChannelState, NAME_BYTES_MAX};
use super::group_placement::{GroupPlacement, Replica, ReportedMembers, UNBOUND};
use super::node_state::NodeState;
use crate::entry::{FieldReader, FieldWriter, MEMBERS_MAX, MalformedField, NodeRecord, Replication};

/// Version of a machine's state in a checkpoint.
pub(super) const STATE_VERSION: u16 = 1;
/// Most replicas of one group in a checkpoint: those that should be, and those that should go.
const REPLICAS_MAX: usize = 4 * MEMBERS_MAX;

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
    /// | `next_generation` |    8 | never goes back                                               |
    /// | `next_producer`   |    8 | never goes back                                               |
    /// | `next_group`      |    8 | never goes back                                               |
    /// | `next_replica`    |    8 | never goes back                                               |
    /// | `epoch_floor`     |    4 | last leader epoch of lives no longer remembered               |
    /// | `founding`        |   16 | first incarnation that was entered; 0 before                  |
    /// | `retired`         | list | incarnation (16), ascending                                   |
    /// | `nodes`           | list | node (8), state (1), incarnation (16), optional node record as in entries; ascending by node |
    /// | `groups`          | list | group (8), replication (4), first apply version (2), list genesis of: replica (8), node (8); list replicas of: replica (8), node (8), incarnation (16), want (1); optional report: index (8), lists of replica (8): voters, outgoing, learners; all ascending, the meta group first |
    /// | `channels`        | list | generation (8), text name, uuid (16), state (1), segment bytes (8), epoch base (4), last epoch (4), list of groups (8) by partition, list owing of groups (8) ascending; ascending by generation |
    /// | `ended`           | list | generation (8), text name, last epoch (4); ascending by generation, none of a channel |
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::new();
        out.u16(STATE_VERSION).u8(KIND_CATALOGUE).u8(0);
        out.u64(self.next_generation.get()).i64(self.next_producer.get());
        out.u64(self.next_group.get()).u64(self.next_replica.get()).i32(self.epoch_floor.get());
        out.u128(self.founding.map_or(0, |founding| founding.0));
        let retired: Vec<_> = self.retired.iter().collect();
        out.list(&retired, items(INCARNATIONS_RETIRED_MAX), |out, incarnation| {
            out.u128(incarnation.0);
        });
        let nodes: Vec<_> = self.nodes.iter().collect();
        out.list(&nodes, items(NODES_MAX), |out, (id, node)| {
            out.u64(id.get()).u8(node.state.number()).u128(node.incarnation.0);
            out.optional(node.record.as_ref(), |out, record| record.write(out));
        });
        let groups: Vec<_> = self.groups.iter().collect();
        out.list(&groups, items(GROUPS_MAX), |out, (group, placement)| {
            out.u64(group.get());
            write_placement(out, placement);
        });
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
        let mut catalogue = Self::genesis(&[], &[]);
        catalogue.next_generation = Generation(from.u64("next_generation")?);
        catalogue.next_producer = ProducerId(from.i64("next_producer")?);
        catalogue.next_group = GroupId(from.u64("next_group")?);
        catalogue.next_replica = ReplicaId(from.u64("next_replica")?);
        catalogue.epoch_floor = LeaderEpoch(from.i32("epoch_floor")?);
        catalogue.founding =
            Some(Incarnation(from.u128("founding")?)).filter(|founding| *founding != UNBOUND);
        let retired = from.list("retired", items(INCARNATIONS_RETIRED_MAX), 16, |from| {
            from.u128("incarnation").map(Incarnation)
        })?;
        ascending("retired", retired.iter())?;
        catalogue.retired = retired.into_iter().collect();
        let nodes = from.list("nodes", items(NODES_MAX), 26, read_node)?;
        ascending("nodes", nodes.iter().map(|(node, _)| node))?;
        catalogue.nodes = nodes.into_iter().collect();
        catalogue.read_groups(&mut from)?;
        let channels = from.list("channels", items(CHANNELS_MAX), 51, read_channel)?;
        ascending("channels", channels.iter().map(|channel| channel.generation))?;
        for channel in channels {
            catalogue.admit(channel)?;
        }
        catalogue.read_ended(&mut from)?;
        from.end()?;
        Ok(catalogue)
    }

    fn read_groups(&mut self, from: &mut FieldReader<'_>) -> Result<(), MalformedField> {
        let groups =
            from.list("groups", items(GROUPS_MAX), 23, |from| Ok((from.group()?, read_placement(from)?)))?;
        ascending("groups", groups.iter().map(|(group, _)| group))?;
        let wrong = |problem| Err(MalformedField { field: "groups", problem });
        if groups.first().is_none_or(|(group, _)| *group != GroupId::META) {
            return wrong("the meta group is not among them");
        }
        for (group, placement) in &groups {
            let members =
                placement.replicas.keys().chain(placement.genesis.iter().map(|(replica, _)| replica));
            if *group >= self.next_group || members.into_iter().any(|id| *id >= self.next_replica) {
                return wrong("an id that was never minted");
            }
            if placement.replicas.values().any(|replica| !self.nodes.contains_key(&replica.node)) {
                return wrong("a replica on an unknown node");
            }
        }
        self.groups = groups.into_iter().collect();
        self.load = self.data_groups().map(|group| (group, 0)).collect();
        Ok(())
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
        if self.uuids.contains_key(&channel.uuid) {
            return wrong("two channels of one UUID");
        }
        if channel.groups.is_empty() || channel.groups.iter().any(|group| !self.load.contains_key(group)) {
            return wrong("a log on an unknown group");
        }
        if channel.owing.iter().any(|group| !channel.groups.contains(group)) {
            return wrong("a report owed by a group that carries none of its logs");
        }
        if channel.owing.is_empty() != (channel.state == ChannelState::Active) {
            return wrong("reports are owed while it is active, or none while it is not");
        }
        self.insert(channel);
        Ok(())
    }
}

fn read_node(from: &mut FieldReader<'_>) -> Result<(NodeId, Node), MalformedField> {
    let id = from.node()?;
    let state = NodeState::from_number(from.u8("state")?);
    let node = Node {
        state: state.ok_or(MalformedField { field: "state", problem: "unknown" })?,
        incarnation: Incarnation(from.u128("incarnation")?),
        record: from.optional("record", NodeRecord::read)?,
    };
    if node.record.as_ref().is_some_and(|record| record.node != id || record.incarnation != node.incarnation)
    {
        return Err(MalformedField { field: "record", problem: "of another node or data directory" });
    }
    Ok((id, node))
}

fn write_placement(out: &mut FieldWriter, placement: &GroupPlacement) {
    out.u32(placement.replication.number()).u16(placement.genesis_version);
    out.list(&placement.genesis, MEMBERS_MAX, |out, (replica, node)| {
        out.u64(replica.get()).u64(node.get());
    });
    let replicas: Vec<_> = placement.replicas.iter().collect();
    out.list(&replicas, REPLICAS_MAX, |out, (id, replica)| {
        out.u64(id.get()).u64(replica.node.get()).u128(replica.incarnation.0).u8(replica.want.number());
    });
    out.optional(placement.reported.as_ref(), |out, reported| {
        out.u64(reported.index.get());
        out.replicas(&reported.voters).replicas(&reported.outgoing).replicas(&reported.learners);
    });
}

fn read_placement(from: &mut FieldReader<'_>) -> Result<GroupPlacement, MalformedField> {
    let replication = Replication::from_number(from.u32("replication")?);
    let genesis_version = from.u16("genesis_version")?;
    let genesis = from.list("genesis", MEMBERS_MAX, 16, |from| Ok((from.replica()?, from.node()?)))?;
    ascending("genesis", genesis.iter())?;
    let replicas = from.list("replicas", REPLICAS_MAX, 33, |from| {
        let id = from.replica()?;
        let (node, incarnation) = (from.node()?, Incarnation(from.u128("incarnation")?));
        Ok((id, Replica { node, incarnation, want: from.want()? }))
    })?;
    ascending("replicas", replicas.iter().map(|(id, _)| id))?;
    let reported = from.optional("reported", |from| {
        let index = RaftIndex(from.u64("index")?);
        let mut members = |field| {
            let replicas = from.replicas(field)?;
            ascending(field, replicas.iter())?;
            Ok(replicas)
        };
        let (voters, outgoing) = (members("voters")?, members("outgoing")?);
        Ok(ReportedMembers { index, voters, outgoing, learners: members("learners")? })
    })?;
    Ok(GroupPlacement {
        replication,
        genesis,
        genesis_version,
        replicas: replicas.into_iter().collect(),
        reported,
    })
}

fn write_channel(out: &mut FieldWriter, channel: &Channel) {
    out.u64(channel.generation.get()).text(&channel.name, NAME_BYTES_MAX).u128(channel.uuid.0);
    out.u8(channel.state.number()).u64(channel.segment_bytes);
    out.i32(channel.epoch_base).i32(channel.last_epoch.get());
    write_groups(out, &channel.groups);
    write_groups(out, &channel.owing.iter().copied().collect::<Vec<_>>());
}

fn write_groups(out: &mut FieldWriter, groups: &[GroupId]) {
    out.list(groups, items(PARTITIONS_PER_CHANNEL_MAX), |out, group| {
        out.u64(group.get());
    });
}

fn read_channel(from: &mut FieldReader<'_>) -> Result<Channel, MalformedField> {
    let generation = from.generation()?;
    let name = from.text("name", NAME_BYTES_MAX)?;
    let uuid = ChannelUuid(from.u128("uuid")?);
    let state = ChannelState::from_number(from.u8("state")?)
        .ok_or(MalformedField { field: "state", problem: "unknown" })?;
    let segment_bytes = from.u64("segment_bytes")?;
    let (epoch_base, last_epoch) = (from.i32("epoch_base")?, LeaderEpoch(from.i32("last_epoch")?));
    let groups = from.list("groups", items(PARTITIONS_PER_CHANNEL_MAX), 8, FieldReader::group)?;
    let owing = from.list("owing", items(PARTITIONS_PER_CHANNEL_MAX), 8, FieldReader::group)?;
    ascending("owing", owing.iter())?;
    let owing = owing.into_iter().collect();
    Ok(Channel { generation, name, uuid, state, segment_bytes, epoch_base, last_epoch, groups, owing })
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
