//! What a node may answer.

use bincode::{Decode, Encode};

use super::cluster::ClusterInfo;
use super::failure::ErrorReply;
use crate::ids::{
    BootEpoch, Chain, ChannelUuid, ClusterId, Generation, GroupId, Incarnation, LogId, NodeId, Offset,
    ProducerId, RaftIndex, ReplicaId, Term, TimestampMs,
};

/// An answer. New ones are added at the end: the order is the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// To `Metadata`.
    Metadata(MetadataInfo),
    /// To `CreateChannel`: its logs are open.
    ChannelCreated {
        /// Its life.
        generation: Generation,
        /// The same as a UUID.
        uuid: ChannelUuid,
    },
    /// To `DeleteChannel`.
    ChannelDeleted {
        /// The life that ended.
        generation: Generation,
    },
    /// To `Trim`.
    Trimmed {
        /// Oldest offset kept.
        log_start: Offset,
    },
    /// To `InitProducer`.
    Producer {
        /// The id.
        id: ProducerId,
        /// Its epoch.
        epoch: i16,
    },
    /// To `Produce`: durable on a quorum.
    Produced {
        /// Offset of the batch's first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
        /// The log's chain after it.
        chain: Chain,
        /// The time it was stamped with.
        append_time: TimestampMs,
        /// It was there already: a retry. Nothing was appended.
        duplicate: bool,
    },
    /// To `Fetch`; the payload holds the batches back to back.
    Fetched {
        /// First offset that is not committed yet, as far as this node knows.
        high_watermark: Offset,
        /// Oldest offset kept.
        log_start: Offset,
        /// Where to go on: behind the last batch given, or the asked offset if none was.
        next_offset: Offset,
    },
    /// To `OffsetAt`.
    Offset {
        /// The offset.
        offset: Offset,
    },
    /// To `NodeStatus`.
    NodeStatus(Box<NodeStatus>),
    /// To `ChainAt`.
    Chain {
        /// The chain of all that lies before the offset.
        chain: Chain,
    },
    /// To `TransferLeader`: it was asked for, and will be seen in the metadata.
    TransferStarted,
    /// To `CreateChannels`: what came of each, in the order of the request.
    ChannelsCreated(Vec<Result<CreatedChannel, ErrorReply>>),
    /// To `Cluster`.
    Cluster(Box<ClusterInfo>),
    /// To `DrainNode`, `ForgetNode` and `SetCursor`: it is agreed on.
    Done,
    /// To `Rebalance`: what is done, or would be, a step each, in words.
    Balance {
        /// Changes of what is wanted of groups.
        replicas: Vec<String>,
        /// Leaders that should be elsewhere.
        leaders: Vec<String>,
    },
    /// To `Cursors`.
    Cursors(Vec<CursorInfo>),
    /// To `Echo`; the payload is that of the request.
    Echoed {
        /// How long the way to the other node and back took, in nanoseconds, if one was named.
        peer_ns: Option<u64>,
    },
}

impl Answer {
    /// Whether a payload may come with it.
    #[must_use]
    pub const fn may_have_payload(&self) -> bool {
        matches!(self, Self::Fetched { .. } | Self::Echoed { .. })
    }
}

/// A channel that was created: its logs are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreatedChannel {
    /// Its life.
    pub generation: Generation,
    /// The same as a UUID.
    pub uuid: ChannelUuid,
}

/// A cursor.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CursorInfo {
    /// Its name.
    pub name: String,
    /// Its position.
    pub offset: Offset,
}

/// The cluster as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MetadataInfo {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Every node that has registered.
    pub nodes: Vec<NodeInfo>,
    /// The channels asked for.
    pub channels: Vec<ChannelInfo>,
}

/// A node and how to reach it. Addresses are `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeInfo {
    /// The node.
    pub node: NodeId,
    /// The native protocol.
    pub native: String,
    /// The Kafka protocol, if served.
    pub kafka: Option<String>,
    /// Admin HTTP.
    pub admin: String,
    /// The release it runs.
    pub version: String,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChannelInfo {
    /// Its name.
    pub name: String,
    /// Its life.
    pub generation: Generation,
    /// The same as a UUID.
    pub uuid: ChannelUuid,
    /// How far that life is.
    pub state: ChannelState,
    /// Replicas of each partition.
    pub replicas: u32,
    /// Size at which a segment is sealed.
    pub segment_bytes: u64,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
}

/// How far a channel's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ChannelState {
    /// Its logs are being opened.
    Creating,
    /// It takes records.
    Active,
    /// Its logs are being closed.
    Deleting,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionInfo {
    /// Its log.
    pub log: LogId,
    /// The group that carries it.
    pub group: GroupId,
    /// The node that leads the group, as far as is known.
    pub leader: Option<NodeId>,
    /// The nodes that have a replica.
    pub replicas: Vec<NodeId>,
}

/// A node about itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeStatus {
    /// Who, and where.
    pub info: NodeInfo,
    /// Which formatting of its directory.
    pub incarnation: Incarnation,
    /// Which start.
    pub boot_epoch: BootEpoch,
    /// Its process.
    pub pid: u32,
    /// Whether it serves.
    pub ready: bool,
    /// How far its recovery is.
    pub recovery: RecoveryProgress,
    /// Its replicas.
    pub groups: Vec<GroupInfo>,
    /// Its logs, if asked for.
    pub logs: Vec<LogInfo>,
    /// When the certificate that it shows expires; never if `None`.
    pub certificate_expires: Option<TimestampMs>,
}

/// How far a start has come.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RecoveryProgress {
    /// What it is doing, in words.
    pub phase: String,
    /// Steps done.
    pub done: u64,
    /// Steps there are, as far as known.
    pub total: u64,
}

/// A replica of this node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupInfo {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// What it does.
    pub role: ReplicaRole,
    /// Its term.
    pub term: Term,
    /// Known to be committed.
    pub committed: RaftIndex,
    /// Applied here.
    pub applied: RaftIndex,
    /// The node that leads, if known.
    pub leader: Option<NodeId>,
    /// The other replicas, if this one leads.
    pub peers: Vec<PeerInfo>,
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ReplicaRole {
    /// Follows a leader, or waits for one.
    Follower,
    /// Stands for election, or asks whether it should.
    Candidate,
    /// Leads.
    Leader,
    /// Receives, and does not count.
    Learner,
    /// Does not take part.
    Halted,
    /// No member any more.
    Removed,
}

/// Another replica, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PeerInfo {
    /// Its node.
    pub node: NodeId,
    /// The replica.
    pub replica: ReplicaId,
    /// Durable there up to here.
    pub match_index: RaftIndex,
    /// Whether it was heard of lately.
    pub active: bool,
    /// It receives only.
    pub learner: bool,
}

/// A log of this node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogInfo {
    /// The log.
    pub log: LogId,
    /// The group that carries it.
    pub group: GroupId,
    /// Oldest offset kept.
    pub log_start: Offset,
    /// Next offset to assign, here.
    pub end: Offset,
    /// Chain at the end.
    pub chain: Chain,
    /// What cannot be read.
    pub damaged: Vec<DamagedRange>,
}

/// Offsets that cannot be read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DamagedRange {
    /// The first.
    pub start: Offset,
    /// Behind the last.
    pub end: Offset,
}
