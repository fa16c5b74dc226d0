//! Errors as a node answers them: what is wrong, and whether and where to try again.

use bincode::{Decode, Encode};

use crate::ids::{Generation, NodeId, Offset};

/// An error as an answer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{message}")]
pub struct ErrorReply {
    /// What is wrong, for programs.
    pub code: ErrorCode,
    /// What is wrong, for people: a stable code, place, found, expected, next step.
    pub message: String,
    /// What to do about it, for programs.
    pub retry: Retry,
}

impl ErrorReply {
    /// The node that leads instead of the one that answered, if it is known.
    #[must_use]
    pub const fn leader(&self) -> Option<NodeId> {
        if let ErrorCode::NotLeader { leader } = &self.code { *leader } else { None }
    }
}

/// Whether and where to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Retry {
    /// The same request will fail again. Nothing was done.
    Never,
    /// Nothing was done. The same node may do it later.
    Here {
        /// Not before so many milliseconds.
        after_ms: u32,
    },
    /// Nothing was done. The leader will do it; it may have to be found out first.
    Leader,
    /// It may have been done, now or later. Only a request that is idempotent may be repeated.
    MayHaveCommitted,
}

/// What is wrong. New ones are added at the end: the order is the encoding.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ErrorCode {
    /// Another node leads.
    NotLeader {
        /// That node, if known.
        leader: Option<NodeId>,
    },
    /// No channel has that name, or no log that id.
    UnknownChannel,
    /// The name has begun another life.
    GenerationMismatch {
        /// As asked.
        asked: Generation,
        /// The life it is in.
        current: Generation,
    },
    /// Outside of what the log holds.
    OffsetOutOfRange {
        /// As asked.
        asked: Offset,
        /// Oldest offset kept.
        start: Offset,
        /// High watermark.
        end: Offset,
    },
    /// Larger than this node takes.
    BatchTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// Its checksum is wrong: it changed on the way.
    CorruptBatch,
    /// It breaks a rule.
    InvalidBatch,
    /// The producer's sequence has a gap, or the retry came too late to be recognised.
    OutOfOrderSequence,
    /// Another producer took over the id.
    ProducerFenced,
    /// The group has no leader that a quorum follows.
    NoQuorum,
    /// The deadline passed; it may still be committed.
    TimedOutMayHaveCommitted,
    /// A queue is full.
    Busy {
        /// Worth trying after so many milliseconds.
        retry_after_ms: u32,
    },
    /// The node is starting.
    NotReady,
    /// These offsets cannot be read here; another replica may have them.
    DamagedRange {
        /// The first.
        start: Offset,
        /// Behind the last.
        end: Offset,
    },
    /// The caller may not.
    Unauthorized,
    /// This node does not know how.
    Unsupported,
    /// It breaks a rule of the protocol, or a limit.
    InvalidRequest,
    /// The name is taken.
    ChannelExists,
    /// Too many of the nodes' disks are full.
    DiskFull,
    /// The node is going away.
    ShuttingDown,
    /// A bug, or a failure of this node alone.
    Internal,
}
