//! Changes of the catalogue, as entries of the meta group carry them.
//!
//! Each can be repeated: a leader that does not know whether its predecessor was heard proposes again.
//! What mints an id on every call is made repeatable by naming what it expects: a group by its id, a
//! replica by its node.

use tidelog_wire::ids::{ChannelUuid, Generation, GroupId, LeaderEpoch, NodeId, RaftIndex, ReplicaId};

use super::kind::{Kind, MetaKind};
use super::{FieldReader, FieldWriter, LOGS_PER_ENTRY_MAX, MalformedField, NodeRecord, TEXT_BYTES_MAX};

/// Most members of a group, in a report and in a creation.
pub const MEMBERS_MAX: usize = 1024;

/// A change of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaCommand {
    /// A node says who and where it is. Of a genesis node the first one binds its replicas to its incarnation.
    RegisterNode(NodeRecord),
    /// A node becomes a member of the cluster, or comes back after its directory was lost: then all replicas of
    /// its earlier incarnation are gone, and it gets successors for them.
    JoinNode(NodeRecord),
    /// Everything on a node shall move away.
    DrainNode {
        /// The node.
        node: NodeId,
    },
    /// A node on which nothing is any more leaves the cluster.
    ForgetNode {
        /// The node.
        node: NodeId,
    },
    /// Begin a group. Asked twice, or late, it changes nothing.
    CreateGroup {
        /// The id that the catalogue will mint next.
        group: GroupId,
        /// How many copies it shall have.
        replication: Replication,
        /// Its first members' nodes, each once.
        nodes: Vec<NodeId>,
    },
    /// A node shall have a replica of a group, of this kind; one that it has already is wanted so from now on.
    PlaceReplica {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
        /// What the replica shall be.
        want: Want,
    },
    /// A replica shall go.
    RetireReplica {
        /// The group.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// A replica cannot vouch for its log any more: a new one on the same node shall take its place.
    ReplaceReplica {
        /// The group.
        group: GroupId,
        /// Which.
        lost: ReplicaId,
    },
    /// The members that a group has in fact, as its leader has applied them.
    ReportMembers {
        /// The group.
        group: GroupId,
        /// Up to this entry; a report of an earlier one than is known changes nothing.
        index: RaftIndex,
        /// Members that count.
        voters: Vec<ReplicaId>,
        /// Members that count until the joint state is left.
        outgoing: Vec<ReplicaId>,
        /// Members that receive only.
        learners: Vec<ReplicaId>,
    },
    /// What a data group did to its logs, as its leader has applied it.
    ReportLogs {
        /// The group.
        group: GroupId,
        /// Channels all of whose logs on this group are open. At most [`LOGS_PER_ENTRY_MAX`].
        opened: Vec<Generation>,
        /// Channels all of whose logs on this group are closed for ever, each with the highest leader epoch that
        /// they can have stamped. At most [`LOGS_PER_ENTRY_MAX`].
        closed: Vec<(Generation, LeaderEpoch)>,
    },
    /// Begin channels' lives, one outcome each; usable once all their groups have reported them open. At most
    /// [`LOGS_PER_ENTRY_MAX`].
    CreateChannels(Vec<NewChannel>),
    /// End channels' lives, one outcome each; their names are free once all their groups have reported them
    /// closed. At most [`LOGS_PER_ENTRY_MAX`].
    DeleteChannels(Vec<Generation>),
    /// Mint a producer id.
    MintProducer,
}

/// A channel as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChannel {
    /// 1 to 249 of `A-Z a-z 0-9 . _ -`, neither `.` nor `..`.
    pub name: String,
    /// Drawn at random by the proposer.
    pub uuid: ChannelUuid,
    /// Number of partitions, from 1.
    pub partitions: u32,
    /// Copies of each log; `None` leaves it to the cluster.
    pub replicas: Option<u32>,
    /// Size at which segments are sealed.
    pub segment_bytes: u64,
}

/// How many copies a group shall have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replication {
    /// As many as the cluster's size allows, up to three.
    Auto,
    /// This many voters, from 1.
    Fixed(u32),
}

/// What a replica shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// Counts.
    Voter,
    /// Receives only.
    Learner,
    /// Leaves.
    Gone,
}

impl Replication {
    /// 0 is auto.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Auto => 0,
            Self::Fixed(copies) => copies,
        }
    }

    pub(crate) const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Auto,
            copies => Self::Fixed(copies),
        }
    }
}

impl Want {
    /// The number that stands for it in entries and checkpoints. Never renumbered.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Voter => 1,
            Self::Learner => 2,
            Self::Gone => 3,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Voter),
            2 => Some(Self::Learner),
            3 => Some(Self::Gone),
            _ => None,
        }
    }
}

impl MetaCommand {
    /// Writes the fields; see [`encode`](super::encode).
    pub(super) fn write(&self, data: &mut FieldWriter) -> Kind {
        Kind::Meta(match self {
            Self::RegisterNode(record) => {
                record.write(data);
                MetaKind::RegisterNode
            }
            Self::JoinNode(record) => {
                record.write(data);
                MetaKind::JoinNode
            }
            Self::DrainNode { node } => {
                data.u64(node.get());
                MetaKind::DrainNode
            }
            Self::ForgetNode { node } => {
                data.u64(node.get());
                MetaKind::ForgetNode
            }
            Self::CreateChannels(channels) => {
                data.list(channels, LOGS_PER_ENTRY_MAX, |data, channel| channel.write(data));
                MetaKind::CreateChannels
            }
            Self::DeleteChannels(generations) => {
                data.generations(generations);
                MetaKind::DeleteChannels
            }
            Self::MintProducer => MetaKind::MintProducer,
            Self::ReportLogs { group, opened, closed } => {
                data.u64(group.get()).generations(opened);
                data.list(closed, LOGS_PER_ENTRY_MAX, |data, (generation, last_epoch)| {
                    data.u64(generation.get()).i32(last_epoch.get());
                });
                MetaKind::ReportLogs
            }
            Self::CreateGroup { group, replication, nodes } => {
                data.u64(group.get()).u32(replication.number());
                data.list(nodes, MEMBERS_MAX, |data, node| {
                    data.u64(node.get());
                });
                MetaKind::CreateGroup
            }
            Self::PlaceReplica { group, node, want } => {
                data.u64(group.get()).u64(node.get()).u8(want.number());
                MetaKind::PlaceReplica
            }
            Self::RetireReplica { group, replica } => {
                data.u64(group.get()).u64(replica.get());
                MetaKind::RetireReplica
            }
            Self::ReplaceReplica { group, lost } => {
                data.u64(group.get()).u64(lost.get());
                MetaKind::ReplaceReplica
            }
            Self::ReportMembers { group, index, voters, outgoing, learners } => {
                data.u64(group.get()).u64(index.get());
                data.replicas(voters).replicas(outgoing).replicas(learners);
                MetaKind::ReportMembers
            }
        })
    }

    /// Reads the fields; see [`encode`](super::encode).
    pub(super) fn read(kind: MetaKind, data: &mut FieldReader<'_>) -> Result<Self, MalformedField> {
        Ok(match kind {
            MetaKind::RegisterNode => Self::RegisterNode(NodeRecord::read(data)?),
            MetaKind::JoinNode => Self::JoinNode(NodeRecord::read(data)?),
            MetaKind::DrainNode => Self::DrainNode { node: data.node()? },
            MetaKind::ForgetNode => Self::ForgetNode { node: data.node()? },
            MetaKind::CreateChannels => {
                Self::CreateChannels(data.list("channels", LOGS_PER_ENTRY_MAX, 31, NewChannel::read)?)
            }
            MetaKind::DeleteChannels => Self::DeleteChannels(data.generations("generations")?),
            MetaKind::MintProducer => Self::MintProducer,
            MetaKind::ReportLogs => Self::ReportLogs {
                group: data.group()?,
                opened: data.generations("opened")?,
                closed: data.list("closed", LOGS_PER_ENTRY_MAX, 12, |data| {
                    Ok((data.generation()?, LeaderEpoch(data.i32("last_epoch")?)))
                })?,
            },
            MetaKind::ReportMembers => Self::ReportMembers {
                group: data.group()?,
                index: RaftIndex(data.u64("index")?),
                voters: data.replicas("voters")?,
                outgoing: data.replicas("outgoing")?,
                learners: data.replicas("learners")?,
            },
            MetaKind::CreateGroup => Self::CreateGroup {
                group: data.group()?,
                replication: Replication::from_number(data.u32("replication")?),
                nodes: data.list("nodes", MEMBERS_MAX, 8, FieldReader::node)?,
            },
            MetaKind::PlaceReplica => {
                Self::PlaceReplica { group: data.group()?, node: data.node()?, want: data.want()? }
            }
            MetaKind::RetireReplica => Self::RetireReplica { group: data.group()?, replica: data.replica()? },
            MetaKind::ReplaceReplica => Self::ReplaceReplica { group: data.group()?, lost: data.replica()? },
        })
    }
}

impl NewChannel {
    fn write(&self, data: &mut FieldWriter) {
        data.text(&self.name, TEXT_BYTES_MAX).u128(self.uuid.0).u32(self.partitions);
        data.optional(self.replicas.as_ref(), |data, replicas| {
            data.u32(*replicas);
        });
        data.u64(self.segment_bytes);
    }

    fn read(data: &mut FieldReader<'_>) -> Result<Self, MalformedField> {
        Ok(Self {
            name: data.text("name", TEXT_BYTES_MAX)?,
            uuid: ChannelUuid(data.u128("uuid")?),
            partitions: data.u32("partitions")?,
            replicas: data.optional("replicas", |data| data.u32("replicas"))?,
            segment_bytes: data.u64("segment_bytes")?,
        })
    }
}

impl FieldReader<'_> {
    pub(crate) fn node(&mut self) -> Result<NodeId, MalformedField> {
        self.u64("node").map(NodeId)
    }

    pub(crate) fn group(&mut self) -> Result<GroupId, MalformedField> {
        self.u64("group").map(GroupId)
    }

    pub(crate) fn replica(&mut self) -> Result<ReplicaId, MalformedField> {
        self.u64("replica").map(ReplicaId)
    }

    pub(crate) fn want(&mut self) -> Result<Want, MalformedField> {
        Want::from_number(self.u8("want")?).ok_or(MalformedField { field: "want", problem: "unknown" })
    }

    pub(crate) fn replicas(&mut self, field: &'static str) -> Result<Vec<ReplicaId>, MalformedField> {
        self.list(field, MEMBERS_MAX, 8, Self::replica)
    }

    fn generations(&mut self, field: &'static str) -> Result<Vec<Generation>, MalformedField> {
        self.list(field, LOGS_PER_ENTRY_MAX, 8, Self::generation)
    }
}

impl FieldWriter {
    pub(crate) fn replicas(&mut self, replicas: &[ReplicaId]) -> &mut Self {
        self.list(replicas, MEMBERS_MAX, |data, replica| {
            data.u64(replica.get());
        })
    }

    fn generations(&mut self, generations: &[Generation]) -> &mut Self {
        self.list(generations, LOGS_PER_ENTRY_MAX, |data, generation| {
            data.u64(generation.get());
        })
    }
}
