//! What applying a command came to: the same on every replica, since apply is deterministic.
//!
//! A [`Refusal`] is an outcome too. The command was agreed on, and applying it changed nothing, for a
//! reason that lies in the group's log and state alone. Failures of this replica alone (a full disk)
//! are not outcomes: they stop apply, see [`crate::apply::ApplyError`].

use tidelog_wire::ids::{
    BootEpoch, Chain, Generation, GroupId, Incarnation, LogId, NodeId, Offset, ProducerId, ReplicaId,
    TimestampMs,
};

use crate::apply::node_state::NodeState;

/// What applying a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The batch is in the log.
    Appended {
        /// Offset of its first record.
        base_offset: Offset,
        /// Offset of its last record.
        last_offset: Offset,
        /// The log's chain after it. For a duplicate, the chain after the batch that stands in the log.
        chain: Chain,
        /// The time it was stamped with.
        append_time: TimestampMs,
        /// It was there already: a producer's retry. Nothing was appended.
        duplicate: bool,
    },
    /// All the logs are open.
    LogsOpened,
    /// All logs of the generations are closed.
    LogsClosed,
    /// The log begins here now.
    LogStartSet {
        /// Oldest offset kept.
        start: Offset,
    },
    /// The producers are forgotten.
    ProducersExpired,
    /// The cursor stands there.
    CursorSet {
        /// Where.
        offset: Offset,
    },
    /// There is no cursor of that name.
    CursorDeleted,
    /// The group applies by these rules.
    ApplyVersionRaised {
        /// The version in force.
        version: u16,
    },
    /// The node is in the catalogue.
    NodeRegistered,
    /// The catalogue says so now, or said so already.
    Noted,
    /// The group is in the catalogue.
    GroupCreated {
        /// Which.
        group: GroupId,
    },
    /// The node has a replica of the group in the catalogue.
    ReplicaPlaced {
        /// Which.
        replica: ReplicaId,
    },
    /// What each of the channels came to, in the order of the command: the number of its life.
    ChannelsCreated(Vec<Result<Generation, Refusal>>),
    /// What each of the deletions came to, in the order of the command.
    ChannelsDeleted(Vec<Result<(), Refusal>>),
    /// A producer id that nobody had before.
    ProducerMinted(ProducerId),
    /// Agreed on, but nothing was changed.
    Refused(Refusal),
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The group carries no such log: it was never opened here.
    #[error("log {log} is not open in this group")]
    LogUnknown {
        /// As asked.
        log: LogId,
    },
    /// The log's channel was deleted.
    #[error("log {log} is closed: its channel was deleted")]
    LogClosed {
        /// As asked.
        log: LogId,
    },
    /// The bytes are not one valid record batch.
    #[error("the batch is not valid: {reason}")]
    InvalidBatch {
        /// What is wrong with it.
        reason: String,
    },
    /// The producer's sequence number does not follow its last one, or a retry is too old to be known.
    #[error("producer {producer}: sequence {found}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer: ProducerId,
        /// The sequence that would be next.
        expected: i32,
        /// First sequence number of the batch.
        found: i32,
    },
    /// A newer epoch of the same producer has written.
    #[error("producer {producer}: its epoch {found} is fenced by {current}")]
    ProducerFenced {
        /// The producer.
        producer: ProducerId,
        /// Its newest epoch.
        current: i16,
        /// Epoch of the batch.
        found: i16,
    },
    /// The leader epoch left its range: the channel must be created anew under another name.
    #[error("log {log}: its leader epoch is exhausted")]
    EpochExhausted {
        /// The log.
        log: LogId,
    },
    /// An offset outside of the log.
    #[error("log {log}: offset {asked} is outside of {start}..={end}")]
    OffsetOutOfRange {
        /// The log.
        log: LogId,
        /// As asked.
        asked: Offset,
        /// Oldest offset kept.
        start: Offset,
        /// Next offset to assign.
        end: Offset,
    },
    /// The group carries as many logs as it may.
    #[error("the group carries {max} logs already, no more are opened")]
    TooManyLogs {
        /// The limit.
        max: u32,
    },
    /// A command for the catalogue in a data group, or the other way round.
    #[error("group {group} does not take this command")]
    WrongGroup {
        /// The group.
        group: GroupId,
    },
    /// A node's record from before its present start.
    #[error("node {node}: boot epoch {found} is older than {known}")]
    StaleNode {
        /// The node.
        node: NodeId,
        /// In the record.
        found: BootEpoch,
        /// In the catalogue.
        known: BootEpoch,
    },
    /// A node's record from another formatting of its directory than the catalogue knows.
    #[error(
        "node {node} is known with another data directory (incarnation {known}, found {found}); if that one is \
         lost, start the node with --join"
    )]
    OtherIncarnation {
        /// The node.
        node: NodeId,
        /// In the record.
        found: Incarnation,
        /// In the catalogue.
        known: Incarnation,
    },
    /// This data directory was given up, for ever: the node went on with another, or was removed.
    #[error(
        "incarnation {incarnation} of node {node} was given up and is never taken back: give the node an empty \
         data directory and start it with --join"
    )]
    IncarnationRetired {
        /// The node.
        node: NodeId,
        /// Of its record.
        incarnation: Incarnation,
    },
    /// No node of this number has joined.
    #[error("node {node} is not a member of the cluster: start it with --join")]
    UnknownNode {
        /// As asked.
        node: NodeId,
    },
    /// The node is not in a state for this.
    #[error("node {node} is {state}")]
    NodeState {
        /// The node.
        node: NodeId,
        /// Where it is in its life.
        state: NodeState,
    },
    /// A node that still has replicas cannot be forgotten.
    #[error("node {node} still has {replicas} replicas")]
    NodeNotEmpty {
        /// The node.
        node: NodeId,
        /// How many.
        replicas: u32,
    },
    /// Without the node there were too few.
    #[error("{nodes} nodes would be left, and {needed} are needed")]
    TooFewNodes {
        /// What there would be, or is.
        nodes: u32,
        /// What is needed.
        needed: u32,
    },
    /// No such group.
    #[error("there is no group {group}")]
    UnknownGroup {
        /// As asked.
        group: GroupId,
    },
    /// A group that is to be created out of turn.
    #[error("group {asked} cannot be created: the next one is {next}")]
    GroupOutOfTurn {
        /// As asked.
        asked: GroupId,
        /// What will be minted next.
        next: GroupId,
    },
    /// The cluster's limit on groups.
    #[error("there are {max} groups already, no more are created")]
    TooManyGroups {
        /// The limit.
        max: u32,
    },
    /// The group has no such replica.
    #[error("group {group} has no replica {replica}")]
    UnknownReplica {
        /// The group.
        group: GroupId,
        /// As asked.
        replica: ReplicaId,
    },
    /// The change would leave a group without a voter.
    #[error("replica {replica} is the only voter of group {group}")]
    LastVoter {
        /// The group.
        group: GroupId,
        /// The replica.
        replica: ReplicaId,
    },
    /// The log has as many cursors as it may.
    #[error("log {log} has {max} cursors already")]
    TooManyCursors {
        /// The log.
        log: LogId,
        /// The limit.
        max: u32,
    },
    /// The group's members do not all know this command yet.
    #[error("group {group} applies by version {current}, and this needs version {needed}: upgrade all nodes")]
    ApplyVersionTooLow {
        /// The group.
        group: GroupId,
        /// In force.
        current: u16,
        /// What the command needs.
        needed: u16,
    },
    /// The catalogue knows as many nodes as it may.
    #[error("the catalogue knows {max} nodes already")]
    TooManyNodes {
        /// The limit.
        max: u32,
    },
    /// The name cannot be a channel's or a cursor's.
    #[error("name: {reason}; allowed are 1 to 249 of A-Z a-z 0-9 . _ -, but neither `.` nor `..`")]
    InvalidName {
        /// What is wrong with it.
        reason: NameProblem,
    },
    /// The name is in use.
    #[error("channel exists, as generation {generation}")]
    ChannelExists {
        /// Its present life.
        generation: Generation,
    },
    /// The name's last life is not quite over: try again shortly.
    #[error("channel is being deleted, as generation {generation}; try again shortly")]
    ChannelBeingDeleted {
        /// The life that ends.
        generation: Generation,
    },
    /// The UUID belongs to another channel: draw another.
    #[error("the UUID belongs to generation {generation} already")]
    UuidTaken {
        /// Whose it is.
        generation: Generation,
    },
    /// No channel has this generation (any more).
    #[error("no channel has generation {generation}")]
    UnknownGeneration {
        /// As asked.
        generation: Generation,
    },
    /// The number of partitions.
    #[error("{asked} partitions; allowed are 1 to {max}")]
    PartitionsOutOfRange {
        /// As asked.
        asked: u32,
        /// The limit.
        max: u32,
    },
    /// The cluster's limit on channels.
    #[error("there are {max} channels already, no more are created")]
    TooManyChannels {
        /// The limit.
        max: u32,
    },
    /// The cluster's limit on partitions of all channels together.
    #[error("{asked} more partitions would pass the cluster's limit of {max}")]
    TooManyPartitions {
        /// As asked.
        asked: u32,
        /// The limit.
        max: u32,
    },
    /// The number of copies.
    #[error("{asked} replicas; allowed are 1 to {max}")]
    ReplicasOutOfRange {
        /// As asked.
        asked: u32,
        /// The limit.
        max: u32,
    },
    /// The segment size.
    #[error("segments of {asked} bytes; allowed are {min} to {max}")]
    SegmentBytesOutOfRange {
        /// As asked.
        asked: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A counter has reached its end.
    #[error("{counter} are exhausted")]
    Exhausted {
        /// Which.
        counter: &'static str,
    },
}

/// What is wrong with a channel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// No character.
    #[error("it is empty")]
    Empty,
    /// More than 249 characters.
    #[error("it is longer than 249")]
    TooLong,
    /// Another character.
    #[error("it has another character")]
    Character,
    /// `.` or `..`.
    #[error("it is `.` or `..`")]
    Dots,
}
