//! What a client may ask for.

use bincode::{Decode, Encode};

use crate::ids::{Generation, GroupId, LogId, NodeId, Offset, TimestampMs};

/// A request. New ones are added at the end: the order is the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    /// Nodes, and channels with their partitions' leaders. Any node answers.
    Metadata {
        /// The names wanted; all channels if `None`. A name that does not exist is simply absent.
        channels: Option<Vec<String>>,
    },
    /// A new channel. Answered when its logs are open.
    CreateChannel {
        /// Its name.
        name: String,
        /// Number of partitions, at least 1.
        partitions: u32,
        /// Replicas of each; the cluster's choice if `None`.
        replicas: Option<u32>,
        /// Size at which a segment is sealed; the cluster's choice if `None`.
        segment_bytes: Option<u64>,
    },
    /// Ends a channel's life. Answered when that is agreed on; its files go by and by.
    DeleteChannel {
        /// Its name.
        name: String,
        /// The life that is meant; whichever it is if `None`.
        generation: Option<Generation>,
    },
    /// Sets the log start to an offset: what lies below is gone. To the log's end, it is a purge.
    Trim {
        /// The log.
        log: LogId,
        /// First offset that is kept.
        to: Offset,
    },
    /// A producer id that nobody had before, for an idempotent producer.
    InitProducer,
    /// Appends the batch in the payload. Answered when it is durable on a quorum.
    Produce {
        /// The log.
        log: LogId,
    },
    /// Batches from an offset on.
    Fetch(FetchRequest),
    /// The offset that a place in the log has.
    OffsetAt {
        /// The log.
        log: LogId,
        /// The place.
        at: OffsetSpec,
    },
    /// What this node knows about itself.
    NodeStatus {
        /// Its logs, one by one, as well.
        with_logs: bool,
    },
    /// The chain of the log's history before an offset.
    ChainAt {
        /// The log.
        log: LogId,
        /// Between log start and log end, on a batch boundary.
        offset: Offset,
    },
    /// Hands a group's leadership to another node.
    TransferLeader {
        /// The group.
        group: GroupId,
        /// The node that shall lead.
        to: NodeId,
    },
    /// New channels, agreed on together. Answered when the logs of all are open; each has an outcome of its own.
    CreateChannels {
        /// At most [`CHANNELS_PER_REQUEST_MAX`].
        channels: Vec<NewChannel>,
    },
    /// Nodes and groups as members. Any node answers.
    Cluster,
    /// Makes a node hand on all that it holds, so that it can leave. Answered when that is agreed on; it goes on by itself.
    DrainNode {
        /// The node.
        node: NodeId,
    },
    /// Ends the membership of a node that holds nothing any more.
    ForgetNode {
        /// The node.
        node: NodeId,
    },
    /// What would spread replicas and leaders evenly; done too, unless it is only asked for.
    Rebalance {
        /// Only say what would be done.
        dry_run: bool,
    },
    /// Sets a cursor, or deletes it.
    SetCursor {
        /// The log.
        log: LogId,
        /// The cursor's name.
        name: String,
        /// The position; deleted if `None`.
        offset: Option<Offset>,
    },
    /// The cursors of a log: the one that is named, or all.
    Cursors {
        /// The log.
        log: LogId,
        /// Only this one.
        name: Option<String>,
    },
    /// Sends the payload back. It measures the way there and back, and what is at its other end.
    Echo {
        /// Before the answer, the payload goes to this node and back, over the nodes' own connection.
        through: Option<NodeId>,
    },
}

/// Most channels in one request.
pub const CHANNELS_PER_REQUEST_MAX: usize = 1000;

/// A channel to be created.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewChannel {
    /// Its name.
    pub name: String,
    /// How many partitions, at least 1.
    pub partitions: u32,
    /// How many replicas of each; the cluster's choice if `None`.
    pub replicas: Option<u32>,
    /// Size at which segments are sealed; the cluster's choice if `None`.
    pub segment_bytes: Option<u64>,
}

/// What to fetch, and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchRequest {
    /// The log.
    pub log: LogId,
    /// First offset wanted. The first batch of the answer is the one that holds it.
    pub offset: Offset,
    /// Most bytes in the answer. One batch is given even if it is larger.
    pub max_bytes: u32,
    /// Wait until that many bytes are there, or `max_wait_ms` has passed.
    pub min_bytes: u32,
    /// Longest wait.
    pub max_wait_ms: u32,
    /// Any replica may answer with what it has committed; otherwise only the leader.
    pub any_replica: bool,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OffsetSpec {
    /// The log start.
    Earliest,
    /// The high watermark.
    Latest,
    /// The first record at or after a time, by the records' timestamps; the high watermark if there is none.
    Time(TimestampMs),
}

impl Request {
    /// Its name in errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Metadata { .. } => "Metadata",
            Self::CreateChannel { .. } => "CreateChannel",
            Self::DeleteChannel { .. } => "DeleteChannel",
            Self::Trim { .. } => "Trim",
            Self::InitProducer => "InitProducer",
            Self::Produce { .. } => "Produce",
            Self::Fetch(_) => "Fetch",
            Self::OffsetAt { .. } => "OffsetAt",
            Self::NodeStatus { .. } => "NodeStatus",
            Self::ChainAt { .. } => "ChainAt",
            Self::TransferLeader { .. } => "TransferLeader",
            Self::CreateChannels { .. } => "CreateChannels",
            Self::Cluster => "Cluster",
            Self::DrainNode { .. } => "DrainNode",
            Self::ForgetNode { .. } => "ForgetNode",
            Self::Rebalance { .. } => "Rebalance",
            Self::SetCursor { .. } => "SetCursor",
            Self::Cursors { .. } => "Cursors",
            Self::Echo { .. } => "Echo",
        }
    }

    /// Whether it changes anything that others see: one that is not answered may have been done.
    #[must_use]
    pub const fn changes_something(&self) -> bool {
        match self {
            Self::CreateChannel { .. }
            | Self::DeleteChannel { .. }
            | Self::Trim { .. }
            | Self::Produce { .. }
            | Self::TransferLeader { .. }
            | Self::CreateChannels { .. }
            | Self::DrainNode { .. }
            | Self::ForgetNode { .. }
            | Self::SetCursor { .. } => true,
            Self::Rebalance { dry_run } => !*dry_run,
            // A producer id that nobody uses changes nothing.
            Self::InitProducer
            | Self::Metadata { .. }
            | Self::Fetch(_)
            | Self::OffsetAt { .. }
            | Self::NodeStatus { .. }
            | Self::ChainAt { .. }
            | Self::Cluster
            | Self::Cursors { .. }
            | Self::Echo { .. } => false,
        }
    }

    /// Whether it comes with a payload, and cannot come without.
    #[must_use]
    pub const fn takes_payload(&self) -> bool {
        matches!(self, Self::Produce { .. } | Self::Echo { .. })
    }
}
