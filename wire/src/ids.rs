//! The numbers and names of the system, each a type of its own.
//!
//! An [`Offset`] counts records of one log, a [`RaftIndex`] counts entries of one raft group. Both
//! are `u64` underneath, and mixing them up is how logs get damaged, so neither converts into the
//! other except through `get`.
//!
//! Not here: a byte position in a file, which only the engine knows.

use std::fmt;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode,
            Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(out)
            }
        }
    };
}

number!(
    /// Number of a record in its partition log: dense, from 0, never reused within a generation.
    Offset(u64)
);
number!(
    /// One life of a channel name. Minted by the meta group from a counter that never goes back.
    Generation(u64)
);
number!(
    /// Which of a channel's logs, from 0.
    Partition(u32)
);
number!(
    /// A raft group. Group 0 is the meta group; data groups follow. Never reused.
    GroupId(u64)
);
number!(
    /// A node of the cluster, from 0.
    NodeId(u64)
);
number!(
    /// A group's member on one node. Never reused, not even on the same node; raft demands that it
    /// is not 0.
    ReplicaId(u64)
);
number!(
    /// Number of an entry in a group's raft log.
    RaftIndex(u64)
);
number!(
    /// raft's election number.
    Term(u64)
);
number!(
    /// Raised durably at each start of a node.
    BootEpoch(u64)
);
number!(
    /// The leader's epoch of a log: the log's `epoch_base` plus the raft term of the append.
    LeaderEpoch(i32)
);
number!(
    /// Milliseconds since 1970-01-01 UTC.
    TimestampMs(i64)
);
number!(
    /// An idempotent producer, minted by the meta group.
    ProducerId(i64)
);
number!(
    /// The running hash of a log's history up to some offset. Proves integrity, not authenticity.
    Chain(u64)
);

impl GroupId {
    /// The group that knows channels, generations, placement and nodes.
    pub const META: Self = Self(0);
}

impl Offset {
    /// The offset `count` records further on.
    ///
    /// # Panics
    /// If the sum leaves `u64`, which no log of real records reaches.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        let (sum, overflow) = self.0.overflowing_add(count);
        assert!(!overflow, "offset overflow");
        Self(sum)
    }
}

/// One ordered log: a partition of one life of a channel. Belongs to one group for life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct LogId {
    /// The life of the channel.
    pub generation: Generation,
    /// The partition within it.
    pub partition: Partition,
}

impl fmt::Display for LogId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.generation, self.partition)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize,
            Deserialize,
        )]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{:032x}", self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadRandomId;

            fn from_str(text: &str) -> Result<Self, BadRandomId> {
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(BadRandomId { text: text.to_owned() });
                }
                u128::from_str_radix(text, 16)
                    .map(Self)
                    .map_err(|_| BadRandomId { text: text.to_owned() })
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadRandomId;

            fn try_from(text: String) -> Result<Self, BadRandomId> {
                text.parse()
            }
        }
    };
}

random_id!(
    /// Which cluster. Minted with the cluster's certificate authority, part of every certificate.
    ClusterId
);
random_id!(
    /// One formatting of a data directory. A wiped and formatted directory is another incarnation.
    Incarnation
);
random_id!(
    /// Random name of a channel's life, for protocols that want a UUID beside the generation.
    ChannelUuid
);

/// A text that is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id: 32 hexadecimal digits are expected")]
pub struct BadRandomId {
    /// What was given.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_survive_text() {
        let id = ClusterId(0x00ab_cdef_0123_4567_89ab_cdef_0123_4567);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("xyz".parse::<ClusterId>().is_err());
        assert!("+0abcdef0123456789abcdef01234567".parse::<ClusterId>().is_err());
    }
}
