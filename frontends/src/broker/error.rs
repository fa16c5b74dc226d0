//! What the broker answers instead of doing what was asked. Each answer says what happened to the request, whether to
//! repeat it, and where.

use tidelog_wire::ids::{Generation, GroupId, LogId, NodeId, Offset, ProducerId};

use super::consensus::SubmitError;

/// An answer that is not the wanted one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// Another node leads the group.
    #[error("E2101 group {group} is led by node {leader}, not by this one; nothing was done: ask there")]
    NotLeader {
        /// The group.
        group: GroupId,
        /// Its leader.
        leader: NodeId,
    },
    /// Nobody is known to lead the group.
    #[error(
        "E2102 group {group} has no leader that this node knows; nothing was done: an election is under way, or \
         fewer than a majority of its nodes can be reached; repeat shortly"
    )]
    NoQuorum {
        /// The group.
        group: GroupId,
    },
    /// No channel has this name.
    #[error(
        "E2103 there is no channel `{name}`; nothing was done: create it, or list the channels there are"
    )]
    UnknownChannel {
        /// As asked.
        name: String,
    },
    /// No channel has this generation or partition.
    #[error("E2104 there is no log {log}: {reason}; nothing was done: ask for the channel's metadata again")]
    UnknownLog {
        /// As asked.
        log: LogId,
        /// What there is.
        reason: String,
    },
    /// The name lives on in another generation.
    #[error(
        "E2105 generation {asked} was asked for, and the channel is now generation {current}: it was deleted and \
         created anew; nothing was done: its offsets mean other records now, start from its metadata"
    )]
    GenerationMismatch {
        /// As asked.
        asked: Generation,
        /// The present one.
        current: Generation,
    },
    /// An offset outside of the log.
    #[error("E2106 log {log}: offset {asked} is outside of {start}..={end}: go on from one within")]
    OffsetOutOfRange {
        /// The log.
        log: LogId,
        /// As asked.
        asked: Offset,
        /// Oldest offset kept.
        start: Offset,
        /// The high watermark.
        end: Offset,
    },
    /// Above the limit.
    #[error(
        "E2107 the batch has {bytes} bytes, at most {max} are taken (limits.batch_bytes); nothing was appended: \
         split it"
    )]
    BatchTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Its checksum does not hold.
    #[error("E2108 the batch was damaged on its way: {reason}; nothing was appended: send it again")]
    CorruptBatch {
        /// What was found.
        reason: String,
    },
    /// It is no valid batch.
    #[error(
        "E2109 the batch is not valid: {reason}; nothing was appended: this is a mistake of the client's encoder"
    )]
    InvalidBatch {
        /// What is wrong with it.
        reason: String,
    },
    /// A gap in a producer's sequence.
    #[error(
        "E2110 producer {producer}: sequence {found} does not follow its last batch; nothing was appended: an \
         earlier batch is missing, send from there"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer: ProducerId,
        /// First sequence of the batch.
        found: i32,
    },
    /// A newer epoch of the producer has written.
    #[error(
        "E2111 producer {producer}: epoch {found} is fenced by a newer one; nothing was appended: stop this producer"
    )]
    ProducerFenced {
        /// The producer.
        producer: ProducerId,
        /// Epoch of the batch.
        found: i16,
    },
    /// The outcome is unknown.
    #[error(
        "E2112 group {group} did not answer in time; the request may or may not have been carried out: repeat it \
         with the same producer id and sequence, or look before repeating"
    )]
    MayHaveCommitted {
        /// The group.
        group: GroupId,
    },
    /// A limit is reached.
    #[error(
        "E2113 group {group} has as much under way as it may; nothing was done: repeat after {retry_after_ms} ms"
    )]
    Busy {
        /// The group.
        group: GroupId,
        /// The pause.
        retry_after_ms: u32,
    },
    /// Starting, or the leader is new.
    #[error("E2114 {what} is not ready yet; nothing was done: repeat shortly")]
    NotReady {
        /// What.
        what: String,
    },
    /// A range that this replica lost.
    #[error(
        "E2115 log {log}: offsets {start}..{end} are damaged on this node; nothing was read: read them from another \
         replica, and check the disk here"
    )]
    DamagedRange {
        /// The log.
        log: LogId,
        /// First damaged offset.
        start: Offset,
        /// First offset after them.
        end: Offset,
    },
    /// A range that the disk refuses to give.
    #[error(
        "E2122 log {log}: offsets {start}..{end} cannot be read on this node now: {said}; nothing was read: read them \
         from another replica, and check the disk here"
    )]
    UnreadableRange {
        /// The log.
        log: LogId,
        /// First offset of the range.
        start: Offset,
        /// First offset after it.
        end: Offset,
        /// What the engine says.
        said: String,
    },
    /// The name is in use.
    #[error("E2116 channel `{name}` exists; nothing was done: use it, or delete it first")]
    ChannelExists {
        /// As asked.
        name: String,
    },
    /// No room.
    #[error(
        "E2117 a quorum of group {group} has no room left; nothing was done: trim or delete channels, or add room; \
         writes resume by themselves"
    )]
    DiskFull {
        /// The group.
        group: GroupId,
    },
    /// This node is stopping.
    #[error("E2118 this node is stopping; nothing was done: ask another node")]
    Stopping,
    /// A request that can never succeed.
    #[error("E2119 the request cannot be carried out: {reason}; nothing was done")]
    InvalidRequest {
        /// Why, and what is allowed.
        reason: String,
    },
    /// A change of the cluster's members that would cost it something.
    #[error("E2123 node {node} cannot be removed: {reason}; nothing was changed")]
    Unsafe {
        /// The node.
        node: NodeId,
        /// What it would cost.
        reason: String,
    },
    /// The disk failed under a read.
    #[error(
        "E2120 log {log}: reading failed: {reason}; read from another replica, and check this node's disk"
    )]
    ReadFailed {
        /// The log.
        log: LogId,
        /// In the disk's words.
        reason: String,
    },
    /// An outcome that does not belong to the request.
    #[error(
        "E2121 the outcome `{outcome}` does not belong to the request: this is a bug, report it with the node's log"
    )]
    Unexpected {
        /// What came.
        outcome: String,
    },
}

impl BrokerError {
    /// What the broker answers when `group` did not answer a question. A question changes nothing, so it may simply
    /// be repeated, even when its fate is unknown.
    pub(super) fn of_read(group: GroupId, error: SubmitError) -> Self {
        if error == SubmitError::MayHaveCommitted {
            return Self::NoQuorum { group };
        }
        Self::of_submit(group, error)
    }

    /// What the broker answers when `group` did not apply a command.
    pub(super) fn of_submit(group: GroupId, error: SubmitError) -> Self {
        match error {
            SubmitError::NotLeader { leader: Some(leader) } => Self::NotLeader { group, leader },
            SubmitError::NotLeader { leader: None } | SubmitError::Superseded => Self::NoQuorum { group },
            SubmitError::Busy { retry_after_ms } => Self::Busy { group, retry_after_ms },
            SubmitError::NotReady => Self::NotReady { what: format!("group {group}") },
            SubmitError::TooLarge => {
                Self::InvalidRequest { reason: "it is larger than any entry may be".to_owned() }
            }
            SubmitError::DiskFull => Self::DiskFull { group },
            SubmitError::Stopping => Self::Stopping,
            SubmitError::MayHaveCommitted => Self::MayHaveCommitted { group },
        }
    }
}
