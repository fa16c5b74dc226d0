//! What can go wrong between offering a snapshot and having switched to it.

use std::io;
use std::path::PathBuf;

use tidelog_wire::ids::{GroupId, LogId, Offset};

use super::manifest::ManifestFault;
use crate::raft_log::RaftLogError;

/// A snapshot cannot be offered, fetched or switched to. The state before is untouched, unless it is
/// said otherwise.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes named as a manifest are none that can be used.
    #[error(
        "E1230 group {group}: the manifest {digest:016x} cannot be used: {fault}; the snapshot is asked for \
         again by itself"
    )]
    Manifest {
        /// The group.
        group: GroupId,
        /// By which it was named.
        digest: u64,
        /// What is wrong.
        fault: ManifestFault,
    },
    /// A fetched file is not what the manifest says.
    #[error(
        "E1231 log {log}: segment {base} does not verify: {found}; it is fetched from another node by itself, and if \
         this repeats, check the disks of the other nodes"
    )]
    Unverified {
        /// The log.
        log: LogId,
        /// The segment.
        base: Offset,
        /// What is wrong, and where.
        found: String,
    },
    /// A file operation failed.
    #[error("E1232 {path}: cannot {action}: {source}; check the disk, then restart the node")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A sync failed. The node must stop: the kernel may have marked the bytes clean, and a second sync
    /// would say that they are on disk.
    #[error(
        "E1239 {path}: cannot sync: {source}; what the disk holds of it is unknown: check the disk, then start \
         the node again"
    )]
    SyncFailed {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk has no room for what is missing.
    #[error(
        "E1233 group {group}: the snapshot needs {needed} bytes more, {free} are free: make room on the disk; \
         it is tried again by itself"
    )]
    NoRoom {
        /// The group.
        group: GroupId,
        /// Missing bytes, and a reserve.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
    /// Nobody delivers.
    #[error(
        "E1234 group {group}: gave up fetching the snapshot after {attempts} rounds through all nodes without progress: \
         {last}; what was fetched is kept, and a new offer continues from there"
    )]
    GaveUp {
        /// The group.
        group: GroupId,
        /// How many in a row.
        attempts: u32,
        /// What the last one said.
        last: String,
    },
    /// The own checkpoint and files cannot be offered.
    #[error("E1235 log {log}: cannot offer segment {base}: {found}; check this node's disk")]
    NotOffered {
        /// The log.
        log: LogId,
        /// The segment.
        base: Offset,
        /// What is wrong with it.
        found: String,
    },
    /// A replica with damage on its disk offers nothing.
    #[error(
        "E1236 log {log}: a damaged range is known here, so this node offers no snapshot: stop it, fill the range \
         with `tidelog segment repair DATA --from COPY --apply`, then start it"
    )]
    Damaged {
        /// The log.
        log: LogId,
    },
    /// Staging lacks what a begun switch needs.
    #[error(
        "E1237 group {group}: the switch to snapshot {digest:016x} was begun, but {missing} is neither in \
         staging nor in place; this replica stays out and the others go on: if somebody moved that file, put it \
         back and restart the node, which tries again; nothing else fills the replica yet"
    )]
    StagingLost {
        /// The group.
        group: GroupId,
        /// Digest of the manifest.
        digest: u64,
        /// What is missing.
        missing: String,
    },
    /// The raft log could not be cleared.
    #[error(transparent)]
    RaftLog(#[from] RaftLogError),
    /// The checkpoint could not be written, or files not adopted.
    #[error(
        "E1238 group {group}: the switch to a snapshot failed: {message}; it is finished at the next start"
    )]
    Adopt {
        /// The group.
        group: GroupId,
        /// The engine's error.
        message: String,
    },
}

impl SnapshotError {
    /// Whether nobody can say any more what is on disk, so that the node must stop.
    #[must_use]
    pub const fn leaves_disk_unknown(&self) -> bool {
        matches!(self, Self::SyncFailed { .. } | Self::RaftLog(_))
    }
}

/// Names the file in an [`SnapshotError::SyncFailed`].
pub(super) fn unsynced(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.into();
    move |source| SnapshotError::SyncFailed { path, source }
}

/// Names the file and the attempt in an [`SnapshotError::Io`].
pub(super) fn io(path: impl Into<PathBuf>, action: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.into();
    move |source| SnapshotError::Io { path, action, source }
}
