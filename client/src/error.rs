//! What can go wrong, and whether it may have been done nevertheless.

use std::path::PathBuf;
use std::sync::Arc;

use tidelog_tls::TlsError;
use tidelog_wire::batch::BatchError;
use tidelog_wire::ids::{ClusterId, LogId, NodeId, Offset};
use tidelog_wire::protocol::{ErrorReply, ProtocolError, Retry};
use tidelog_wire::records::{BuildError, RecordsError};

/// Why the client could not do what was asked. Cheap to clone, since all records of a batch share one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The profile, or a file it names, cannot be read.
    #[error("E3101 {}: cannot be read: {source}; `tidelog up` writes a profile and its certificates", path.display())]
    ProfileFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// The profile says something it may not.
    #[error("E3102 {}: {reason}; expected cluster_id, nodes = [{{ id, native }}], ca, cert, key", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The certificates are not what they should be.
    #[error("E3103 {0}")]
    Tls(Arc<TlsError>),
    /// No node answered. Nothing was done.
    #[error(
        "E3104 no node of the cluster answers ({tried}); nothing was done: see whether the nodes run, and the profile's addresses"
    )]
    Unreachable {
        /// Which nodes, and what came of it.
        tried: String,
    },
    /// Nobody did it in time. Nothing was done.
    #[error(
        "E3105 {what}: not done within {waited_ms} ms, last: {last}; nothing was done: try again, or look at `tidelog status`"
    )]
    Timeout {
        /// What was asked for.
        what: String,
        /// How long it was tried.
        waited_ms: u64,
        /// What came last.
        last: String,
    },
    /// It was sent, and no answer tells what came of it.
    #[error(
        "E3106 {what}: no answer tells whether it was done, last: {last}; it may have been, or may still be: look before repeating it"
    )]
    MayHaveCommitted {
        /// What was asked for.
        what: String,
        /// What came last.
        last: String,
    },
    /// No such channel.
    #[error(
        "E3107 channel `{channel}` does not exist; nothing was done: create it with `tidelog channel create {channel}`"
    )]
    UnknownChannel {
        /// Its name.
        channel: String,
    },
    /// No such partition.
    #[error(
        "E3108 channel `{channel}` has {partitions} partitions from 0, {partition} is none of them; nothing was done"
    )]
    UnknownPartition {
        /// The channel.
        channel: String,
        /// As asked.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A node refuses, and would again. Nothing was done.
    #[error("E3109 node {node} refuses {what}: {reply}")]
    Refused {
        /// Which node.
        node: NodeId,
        /// What was asked for.
        what: String,
        /// Its reasons.
        reply: ErrorReply,
    },
    /// The node belongs to another cluster. Nothing was done.
    #[error(
        "E3110 node {node} belongs to cluster {found}, the profile names {expected}; nothing was done: correct the profile"
    )]
    WrongCluster {
        /// Which node.
        node: NodeId,
        /// In the profile.
        expected: ClusterId,
        /// As it says.
        found: ClusterId,
    },
    /// The node says something that the protocol does not know.
    #[error("E3111 node {node}: {source}")]
    Protocol {
        /// Which node.
        node: NodeId,
        /// What is wrong.
        source: ProtocolError,
    },
    /// A fetched batch is not whole.
    #[error(
        "E3112 log {log}, offset {offset}, from node {node}: {source}; read it from another replica (`--node`)"
    )]
    BadBatch {
        /// The log.
        log: LogId,
        /// Where reading stands.
        offset: Offset,
        /// Who sent it.
        node: NodeId,
        /// What is wrong.
        source: BatchError,
    },
    /// A fetched batch is whole, but its records cannot be read.
    #[error(
        "E3113 log {log}, offset {offset}: {source}; the batch is as its producer sent it: go on behind it"
    )]
    BadRecords {
        /// The log.
        log: LogId,
        /// The batch's first offset.
        offset: Offset,
        /// What is wrong.
        source: RecordsError,
    },
    /// Fetched batches do not follow one another.
    #[error(
        "E3114 log {log}, from node {node}: offset {expected} expected, {found} found; nothing was skipped: read from another replica (`--node`), and run `tidelog status`"
    )]
    Discontinuity {
        /// The log.
        log: LogId,
        /// Who sent it.
        node: NodeId,
        /// What had to come.
        expected: Offset,
        /// What came.
        found: Offset,
    },
    /// The record cannot be put into a batch. It was not sent.
    #[error("E3115 {0}; it was not sent")]
    Record(#[from] BuildError),
    /// The producer was closed. The record was not sent.
    #[error("E3116 the producer was closed; the record was not sent: make another producer")]
    Closed,
    /// The channel was deleted, and perhaps created anew. Nothing was done.
    #[error(
        "E3117 channel `{channel}` is not in the life it was opened in any more; nothing was done: open it again"
    )]
    ChannelChanged {
        /// Its name.
        channel: String,
    },
    /// An answer of another kind than was asked for.
    #[error(
        "E3118 node {node} answers {what} with something else; use a client and nodes of matching releases"
    )]
    UnexpectedAnswer {
        /// Which node.
        node: NodeId,
        /// What was asked for.
        what: String,
    },
    /// An earlier record of the partition failed, so this one was not sent: order is kept.
    #[error("E3119 not sent, since an earlier record of its partition failed: {cause}")]
    EarlierFailed {
        /// What happened to that one.
        cause: String,
    },
    /// An option is out of range.
    #[error("E3120 option {name}: {found}, allowed is {allowed}")]
    Option {
        /// Which.
        name: &'static str,
        /// As given.
        found: String,
        /// The range.
        allowed: &'static str,
    },
    /// No socket.
    #[error("E3121 no UDP socket: {source}; see to the system's limits on open files and ports")]
    Socket {
        /// What the system says.
        source: Arc<std::io::Error>,
    },
}

impl ClientError {
    /// Whether what was asked for may have been done, now or later, in spite of the error.
    #[must_use]
    pub const fn may_have_committed(&self) -> bool {
        match self {
            Self::MayHaveCommitted { .. } | Self::UnexpectedAnswer { .. } => true,
            Self::Refused { reply, .. } => matches!(reply.retry, Retry::MayHaveCommitted),
            Self::ProfileFile { .. }
            | Self::Profile { .. }
            | Self::Tls(_)
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::UnknownChannel { .. }
            | Self::UnknownPartition { .. }
            | Self::WrongCluster { .. }
            | Self::Protocol { .. }
            | Self::BadBatch { .. }
            | Self::BadRecords { .. }
            | Self::Discontinuity { .. }
            | Self::Record(_)
            | Self::Closed
            | Self::ChannelChanged { .. }
            | Self::EarlierFailed { .. }
            | Self::Option { .. }
            | Self::Socket { .. } => false,
        }
    }

    /// The node's refusal, if it is one.
    #[must_use]
    pub const fn reply(&self) -> Option<&ErrorReply> {
        if let Self::Refused { reply, .. } = self { Some(reply) } else { None }
    }
}

impl From<TlsError> for ClientError {
    fn from(error: TlsError) -> Self {
        Self::Tls(Arc::new(error))
    }
}
