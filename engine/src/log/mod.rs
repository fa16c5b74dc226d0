//! A partition log: a row of segments with one writer and any number of readers.
//!
//! 1. [`LogWriter::append`] stamps offset and epoch into a batch, frames it and writes it with one
//!    gathered write. It is then visible to readers and **not durable**.
//! 2. A full segment gets its index and footer and the next one begins. Where that happens is a
//!    function of sizes alone, so that all replicas of a log have the same files.
//! 3. [`SyncJob::run`] makes durable what was written until the job was made, on any thread.
//! 4. After a crash [`recovery`] decides by a table what of the files is kept, cut or marked damaged.
//!
//! Why one writer is enough: offsets, chain and position are a sequence, and whoever applies entries
//! is a sequence too. Readers share nothing with it but a short look at how far it has come.
//!
//! Not here: which entries are appended and what a checkpoint says (`consensus`), the group commit
//! of embedded logs (`crate::embedded`), unlinking (`crate::directory::keep`).

mod damage;
pub(crate) mod error;
mod first_look;
pub(crate) mod lives;
pub(crate) mod locate;
pub mod opening;
pub(crate) mod plan;
pub(crate) mod reader;
pub mod recovery;
pub(crate) mod replay;
mod seal;
pub(crate) mod segments;
pub(crate) mod shared;
mod sync;
mod times;
mod trim;
mod watch;
pub(crate) mod writer;

use bytes::Bytes;
use tidelog_wire::ids::{Chain, LeaderEpoch, Offset, RaftIndex, TimestampMs};

pub use self::error::{AppendError, AppendManyError, LogError, OutOfHandles, ReadError, SyncError};
pub use self::reader::{LogReader, Visible};
pub use self::recovery::report::{Aside, Finding, LogRecovery};
pub use self::sync::SyncJob;
pub use self::watch::Subscription;
pub use self::writer::LogWriter;

/// What the entry that carries a batch says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendStamp {
    /// The entry; 0 when embedded.
    pub raft_index: RaftIndex,
    /// When the leader took the batch. Raised to the log's last append time if it lies before.
    pub append_time: TimestampMs,
    /// The leader's epoch, stamped into the batch.
    pub leader_epoch: LeaderEpoch,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Chain up to and including it.
    pub chain: Chain,
    /// Its append time as stored.
    pub append_time: TimestampMs,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatches {
    /// Whole batches as they lie on disk, in order. The first contains the offset asked for, which
    /// may lie behind its base. Empty at the end of what is visible.
    pub batches: Vec<Bytes>,
    /// Where to read on.
    pub next: Offset,
}
