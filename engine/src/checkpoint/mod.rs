//! Checkpoints: "everything up to this entry is in the segments and synced", with all state that
//! apply needs to go on from there.
//!
//! 1. Whoever applies fills a [`Checkpoint`] at an applied entry, syncs the segments it names, and
//!    then hands it to the engine.
//! 2. The store writes it beside the older ones: temporary file, sync, rename, sync of the directory.
//!    The two newest are kept, so a damaged one costs a longer replay and nothing else.
//! 3. On load the newest valid one wins. The raft log may be compacted only to the **older** kept
//!    one, else falling back to it would find its entries gone.
//!
//! A checkpoint checks itself: magic, format, length and a CRC over all of it. Its file name is a
//! claim that must agree with its content.
//!
//! Not here: what the machine puts into [`Checkpoint::state`], and syncing the segments it names.

mod codec;
mod members;
pub(crate) mod store;
pub mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use tidelog_wire::ids::{Chain, GroupId, LeaderEpoch, LogId, Offset, RaftIndex, Term, TimestampMs};

pub use self::codec::{CHECKPOINT_BYTES_MAX, CheckpointFault, FORMAT};
pub use self::members::Members;
pub use self::store::{CheckpointError, CheckpointVerdict, LoadedCheckpoint};

use crate::producers::ProducerTable;
use crate::storage::Position;

/// An entry of a raft log, named so that no other entry can have the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId {
    /// Where it stands in the log.
    pub index: RaftIndex,
    /// The term it was proposed in.
    pub term: Term,
}

impl fmt::Display for EntryId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} of term {}", self.index, self.term)
    }
}

/// What is fixed when a log is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment is full when the next frame would take it beyond this many bytes. A frame alone
    /// may be longer: then it is a segment of its own.
    pub segment_bytes: u64,
    /// The leader epoch of the log is this plus the raft term; above every epoch of the previous
    /// life of the channel's name.
    pub epoch_base: i32,
}

impl LogConfig {
    /// Smallest segment: a header and a frame or two. Worth a file to tests only.
    pub const SEGMENT_BYTES_MIN: u64 = 512;
    /// Largest segment.
    pub const SEGMENT_BYTES_MAX: u64 = 8 << 30;
    /// Unless told otherwise.
    pub const SEGMENT_BYTES_DEFAULT: u64 = 256 << 20;
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { segment_bytes: Self::SEGMENT_BYTES_DEFAULT, epoch_base: 0 }
    }
}

/// Where a log stands: all that a writer needs to go on, without reading the segments.
///
/// `start <= end`. The active segment begins at `active_base` and ends at the byte
/// `active_position`; position 0 means that there is none, and the next batch begins a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Oldest offset kept.
    pub start: Offset,
    /// Next offset to assign.
    pub end: Offset,
    /// Base offset of the active segment; `end` if there is none.
    pub active_base: Offset,
    /// End of the active segment's last frame; 0 if there is none.
    pub active_position: Position,
    /// Chain up to `end`.
    pub chain: Chain,
    /// Leader epochs with the first offset of each, both rising.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Append time of the last batch; never falls.
    pub append_time: TimestampMs,
}

/// A log, as a checkpoint keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCheckpoint {
    /// Which.
    pub log: LogId,
    /// What was fixed when it was opened.
    pub config: LogConfig,
    /// Where it stands.
    pub state: LogState,
    /// Its idempotent producers.
    pub producers: ProducerTable,
    /// Ranges that are known to be damaged on this replica, rising, not touching.
    pub damage: Vec<Range<Offset>>,
    /// Closed to appends, its generation being deleted.
    pub closed: bool,
}

/// All that a group has applied up to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which group.
    pub group: GroupId,
    /// The last entry that is in it.
    pub applied: EntryId,
    /// The last entry that was durable in the raft log when it was made. If the raft log no longer
    /// has it, the replica has forgotten something and must not vote.
    pub last_durable: EntryId,
    /// Which rules of apply are in force.
    pub apply_version: u16,
    /// Who belongs to the group.
    pub members: Members,
    /// The group's logs, rising by id.
    pub logs: Vec<LogCheckpoint>,
    /// The machine's own state, in a format that the machine versions.
    pub state: Bytes,
}
