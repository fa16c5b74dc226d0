//! Why this replica cannot go on applying. None of these is an outcome: they say something about this
//! replica, not about the entry, and the entry stays to be applied.

use tidelog_engine::checkpoint::{CheckpointError, EntryId};
use tidelog_engine::log::{AppendError, LogError, SyncError};
use tidelog_wire::batch::BatchError;
use tidelog_wire::ids::{GroupId, LogId, RaftIndex};

use crate::entry::{EntryError, MalformedField};

/// Why this replica of a group stands still. It applies nothing more until the node is started anew, and
/// never skips the entry.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The entry cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// This node has no replica of the group.
    #[error("E1260 group {group} has no replica on this node: report this as a bug")]
    UnknownGroup {
        /// The group.
        group: GroupId,
    },
    /// Entries came out of order. None of them was applied.
    #[error(
        "E1261 group {group}: asked to apply entry {found}, expected entry {expected}; apply has stopped there: \
         restart the node and report this as a bug"
    )]
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The entry that follows what is applied.
        expected: RaftIndex,
        /// The entry that came.
        found: RaftIndex,
    },
    /// A batch could not be written.
    #[error(
        "E1262 group {group}, log {log}: cannot write the batch of entry {index}: {source}; the group stands still \
         on this node: free the disk or replace it, then restart the node"
    )]
    CannotWrite {
        /// The group.
        group: GroupId,
        /// The log.
        log: LogId,
        /// The entry that stays to be applied.
        index: RaftIndex,
        /// What the engine says.
        source: AppendError,
    },
    /// A log could not be opened, trimmed or closed.
    #[error(
        "E1263 group {group}, log {log}: cannot {action}: {source}; the group stands still on this node: check the \
         disk, then restart the node"
    )]
    CannotChange {
        /// The group.
        group: GroupId,
        /// The log.
        log: LogId,
        /// What was attempted.
        action: &'static str,
        /// What the engine says.
        source: LogError,
    },
    /// A log could not be synced. There is no new checkpoint.
    #[error(
        "E1270 group {group}, log {log}: {source}; there is no new checkpoint, the older ones stand: check the \
         disk, then restart the node"
    )]
    CannotSync {
        /// The group.
        group: GroupId,
        /// The log.
        log: LogId,
        /// What the engine says.
        source: SyncError,
    },
    /// There is nothing to start from.
    #[error(
        "E1264 group {group} has no checkpoint on this node, so its replica does not start and the others go \
         on: if somebody moved it, put it back and restart the node; nothing else fills the replica yet"
    )]
    NoCheckpoint {
        /// The group.
        group: GroupId,
    },
    /// The checkpoint's checksum holds, but its state is not one that this release can go on from.
    #[error(
        "E1265 group {group}: the state in the checkpoint at entry {} of term {}: {what}; the replica does not \
         start: run the release that wrote it; if it is this one, keep the data directory and report it", applied.index, applied.term
    )]
    BadState {
        /// The group.
        group: GroupId,
        /// The checkpoint.
        applied: EntryId,
        /// What is wrong.
        what: MalformedField,
    },
    /// A checkpoint or an entry names rules of apply that this release does not know.
    #[error(
        "E1266 group {group}: its members agreed on apply version {found}, this release knows {known}; the \
         replica does not go on: run a release that knows it"
    )]
    UnknownApplyVersion {
        /// The group.
        group: GroupId,
        /// In the checkpoint.
        found: u16,
        /// The highest that is known.
        known: u16,
    },
    /// A checkpoint could not be loaded or written.
    #[error("E1267 group {group}: {source}; nothing that was applied is lost, the raft log keeps it")]
    Checkpoint {
        /// The group.
        group: GroupId,
        /// What the engine says.
        source: CheckpointError,
    },
    /// A committed batch is damaged, perhaps in this node's memory only.
    #[error(
        "E1269 group {group}, log {log}: the batch of entry {index} is damaged: {source}; the group stands still on \
         this node: restart the node, and if it stops at the same entry, compare with the other nodes"
    )]
    DamagedBatch {
        /// The group.
        group: GroupId,
        /// The log.
        log: LogId,
        /// The entry that stays to be applied.
        index: RaftIndex,
        /// What is wrong with it.
        source: BatchError,
    },
    /// It failed before.
    #[error(
        "E1268 group {group} stands still at entry {at}, as reported before: restart the node once its cause is gone"
    )]
    StandsStill {
        /// The group.
        group: GroupId,
        /// The last applied entry.
        at: RaftIndex,
    },
}

impl ApplyError {
    /// Whether the same entry may be given again to the same machine: the disk was full or the system had no
    /// handle for a file, nothing was written, and either may come.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::CannotWrite { source: AppendError::DiskFull { .. } | AppendError::OutOfHandles(_), .. }
                | Self::CannotChange { source: LogError::DiskFull { .. } | LogError::OutOfHandles(_), .. }
        )
    }

    /// Whether nobody can say any more what is on disk: a sync failed, or writing a checkpoint did, and
    /// not for lack of room. Another try could succeed without writing what the kernel gave up.
    #[must_use]
    pub fn leaves_disk_unknown(&self) -> bool {
        match self {
            Self::CannotSync { source, .. } => !source.will_pass(),
            Self::Checkpoint { source: CheckpointError::Io { source, .. }, .. } => {
                source.kind() != std::io::ErrorKind::StorageFull
            }
            Self::Entry(_)
            | Self::UnknownGroup { .. }
            | Self::OutOfOrder { .. }
            | Self::CannotWrite { .. }
            | Self::CannotChange { .. }
            | Self::NoCheckpoint { .. }
            | Self::BadState { .. }
            | Self::UnknownApplyVersion { .. }
            | Self::Checkpoint { .. }
            | Self::DamagedBatch { .. }
            | Self::StandsStill { .. } => false,
        }
    }
}
