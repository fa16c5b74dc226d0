//! What can go wrong with a log. Each says what has not happened and what to do.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use tidelog_wire::ids::{ClusterId, LogId, Offset};

use super::Appended;
use crate::directory::quarantine::QuarantineError;
use crate::segment::frame::FrameFault;
use crate::segment::header::HeaderFault;
use crate::storage::Position;

/// The system gave no handle for a file now. Nothing was changed; the same may be tried again.
#[derive(Debug, thiserror::Error)]
#[error(
    "E0133 {path}: the system has no handle for it ({source}); nothing was written: raise the limit of open files \
     (`LimitNOFILE`, `ulimit -n`); it is tried again by itself"
)]
pub struct OutOfHandles {
    /// Which file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A log could not be opened, changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A file was written by a newer release.
    #[error(
        "E0101 {path}: byte {position} is of format {found}, this version reads 1; nothing was changed: \
         start the version that wrote it"
    )]
    UnknownFormat {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        position: Position,
        /// What it says.
        found: u16,
    },
    /// The disk refused.
    #[error(
        "E0102 {path}: cannot {action}: {source}; the log is not open: check the disk, then restart the node"
    )]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// The disk is full. Nothing was changed; the same may be tried again.
    #[error(
        "E0122 {path}: the disk is full; the log's start was not raised: delete channels or make room; it is tried \
         again by itself"
    )]
    DiskFull {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no handle for a file. Nothing was changed; the same may be tried again.
    #[error(transparent)]
    OutOfHandles(#[from] OutOfHandles),
    /// A segment belongs to another cluster.
    #[error(
        "E0104 {path}: belongs to cluster {found}, this node to {expected}; nothing was changed: \
         move the files of the other cluster away, then start this node again"
    )]
    ForeignCluster {
        /// Which file.
        path: PathBuf,
        /// This node's cluster.
        expected: ClusterId,
        /// The file's.
        found: ClusterId,
    },
    /// A log has one writer.
    #[error("E0105 log {log} is open already; nothing was changed: close its writer first")]
    AlreadyOpen {
        /// Which log.
        log: LogId,
    },
    /// The log has failed before.
    #[error(
        "E0120 log {log} is fenced: an earlier write or sync failed; nothing was changed: restart the node"
    )]
    Fenced {
        /// Which log.
        log: LogId,
    },
    /// The log was removed.
    #[error(
        "E0132 log {log} was removed; nothing was changed: look its channel up again, a new one has another generation"
    )]
    Removed {
        /// Which log.
        log: LogId,
    },
    /// An offset outside the log.
    #[error(
        "E0121 log {log}: offset {asked} is outside {start}..={end}; nothing was changed: ask again within it"
    )]
    OutOfRange {
        /// Which log.
        log: LogId,
        /// What was asked for.
        asked: Offset,
        /// The log's start.
        start: Offset,
        /// The log's end.
        end: Offset,
    },
    /// What is to be cut could not be set aside first, so it was not cut.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// A staged file is not what its manifest says.
    #[error(
        "E0113 {path}: {what} is {found}, the manifest says {expected}; nothing was adopted: fetch it again"
    )]
    Staged {
        /// Which file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the manifest says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A staged file does not begin with a segment header.
    #[error("E0114 {path}: {fault}; nothing was adopted: fetch it again")]
    StagedHeader {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        fault: HeaderFault,
    },
    /// A staged file holds a frame that does not verify.
    #[error("E0115 {path}: frame at byte {position}: {fault}; nothing was adopted: fetch it again")]
    StagedFrame {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        position: Position,
        /// What is wrong.
        fault: FrameFault,
    },
    /// A part of the log is missing or damaged on this node.
    #[error(
        "E0119 log {log}: from offset {base} on it is missing or damaged here, so it cannot be handed on: take it from another replica"
    )]
    CannotServe {
        /// Which log.
        log: LogId,
        /// Where what cannot be served begins.
        base: Offset,
    },
    /// A configuration that no log can have.
    #[error(
        "E0116 log {log}: segment_bytes {found} is outside {min}..={max}; the log was not opened: \
         choose a value within"
    )]
    SegmentBytes {
        /// Which log.
        log: LogId,
        /// What was asked for.
        found: u64,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
}

/// A batch was not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// An earlier write or sync failed, so the end of the file is unknown. Nothing was written of this
    /// batch, nor will be until the log is reopened and recovered.
    #[error(
        "E0107 log {log} is fenced: an earlier write or sync failed, or its end cannot be read; nothing of this batch \
         was written: restart the node"
    )]
    Fenced {
        /// Which log.
        log: LogId,
    },
    /// The disk is full. Nothing was written; the same batch may be tried again.
    #[error(
        "E0106 {path}: the disk is full; nothing was written: trim or delete channels, or make room; writes resume by themselves"
    )]
    DiskFull {
        /// Which file.
        path: PathBuf,
    },
    /// The system has no handle for a file. Nothing was written; the same batch may be tried again.
    #[error(transparent)]
    OutOfHandles(#[from] OutOfHandles),
    /// The write failed and has fenced the log. What was to be written may or may not be there after recovery.
    #[error(
        "E0103 {path}: cannot {action}: {source}; the log is fenced: check the disk, then restart the node"
    )]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// The frame would be longer than any reader accepts. Nothing was written.
    #[error(
        "E0109 log {log}: a frame of {bytes} bytes is longer than the limit of {max}; nothing was written: send smaller batches"
    )]
    TooLarge {
        /// Which log.
        log: LogId,
        /// Its length.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The log was removed. Nothing was written.
    #[error(
        "E0131 log {log} was removed; nothing was written: look its channel up again, a new one has another generation"
    )]
    Removed {
        /// Which log.
        log: LogId,
    },
    /// Frames of an earlier run did not match and could not be set aside. Nothing was written.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
}

/// Of several batches some were not appended.
#[derive(Debug, thiserror::Error)]
#[error("{} of the batches were appended, then: {error}", done.len())]
pub struct AppendManyError {
    /// Those that were, in order.
    pub done: Vec<Appended>,
    /// What happened to the next one. It and those behind it were not appended; after [`AppendError::Io`] they
    /// may be there after recovery nevertheless.
    pub error: AppendError,
}

/// Nothing was read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// An offset outside what can be read.
    #[error("E0108 log {log}: offset {asked} is outside {start}..={end}: read within it")]
    OutOfRange {
        /// Which log.
        log: LogId,
        /// What was asked for.
        asked: Offset,
        /// The oldest that can be read.
        start: Offset,
        /// Where reading ends.
        end: Offset,
    },
    /// The range is damaged on this node.
    #[error(
        "E0110 log {log}: offsets {}..{} are damaged on this node; the rest of the log can be read: \
         read them from another replica, or go on at {}", range.start, range.end, range.end
    )]
    Damaged {
        /// Which log.
        log: LogId,
        /// Exactly what is damaged.
        range: Range<Offset>,
    },
    /// The disk does not give the bytes of a range. Others of the log it gives.
    #[error(
        "E0124 {path}: the disk does not give offsets {}..{} of log {log}: {said}; the rest of the log can be read: \
         check the disk; read them from another replica, or go on at {}", range.start, range.end, range.end
    )]
    Unreadable {
        /// Which log.
        log: LogId,
        /// Exactly what cannot be read.
        range: Range<Offset>,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        said: String,
    },
    /// The disk refused.
    #[error("E0111 {path}: cannot {action}: {source}: check the disk; other replicas can serve the log")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// A chain is known at the ends of batches only.
    #[error("E0112 log {log}: offset {asked} lies inside the batch {}..{}: ask for one of its ends", batch.start, batch.end)]
    InsideBatch {
        /// Which log.
        log: LogId,
        /// What was asked for.
        asked: Offset,
        /// The batch.
        batch: Range<Offset>,
    },
    /// The log was closed and opened again; this handle belongs to the opening before.
    #[error("E0130 log {log} was opened again since this reader was made: read on with a new reader")]
    Reopened {
        /// Which log.
        log: LogId,
    },
    /// A segment was looked at for the first time and cannot be used: another cluster or a newer release
    /// wrote it, or it could not be set aside. Nothing of it was served; the rest of the log can be read.
    #[error(transparent)]
    Unusable(Box<LogError>),
    /// The log was removed while it was read.
    #[error("E0117 log {log} was removed: its channel is gone; look the channel up again")]
    Removed {
        /// Which log.
        log: LogId,
    },
}

/// What a log had written is not known to be durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// A sync failed and has fenced the log. It is never tried again: what is on disk is unknown.
    #[error(
        "E0118 {path}: cannot {action}: {source}; the log is fenced, nothing of it is acknowledged any more: check the disk, then restart the node"
    )]
    Failed {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// The system gave no handle to sync the log's directory with. Nothing failed that was written, and the log is not
    /// fenced: the next sync covers it.
    #[error(
        "E0134 {path}: the system has no handle to sync it with ({source}); what was appended is written and not \
         durable yet: raise the limit of open files (`LimitNOFILE`, `ulimit -n`); the next sync makes it durable"
    )]
    NotYet {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SyncError {
    /// Whether a later sync may succeed. If not, the log is fenced.
    #[must_use]
    pub const fn will_pass(&self) -> bool {
        matches!(self, Self::NotYet { .. })
    }

    /// The same for another who waited for the same sync, if it will pass.
    pub(crate) fn for_another(&self) -> Option<Self> {
        match self {
            Self::NotYet { path, source } => {
                Some(Self::NotYet { path: path.clone(), source: source.kind().into() })
            }
            Self::Failed { .. } => None,
        }
    }
}

/// Whether an error says that there is no room left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error of opening a file says that the system has no handle or no memory for it now.
pub(crate) fn is_out_of_handles(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let scarce = [Errno::MFILE, Errno::NFILE, Errno::NOMEM].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|said| scarce.contains(&said))
}
