//! Failures to order: the next write to this file, every sync, one rename.

use std::io;
use std::path::Path;

/// One kind of file operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening a file that is there.
    Open,
    /// Making a file.
    Create,
    /// Reading, or asking for the length.
    Read,
    /// Writing.
    Write,
    /// Setting the length.
    Truncate,
    /// Syncing a file.
    Sync,
    /// Listing a directory.
    List,
    /// Making a directory.
    CreateDir,
    /// Removing a directory.
    RemoveDir,
    /// Renaming.
    Rename,
    /// Removing a file.
    Remove,
    /// Syncing a directory.
    SyncDir,
    /// Asking for the free bytes.
    FreeBytes,
    /// Taking a lock.
    Lock,
}

impl Operation {
    /// Whether it can change what a crash leaves behind.
    #[must_use]
    pub const fn changes(self) -> bool {
        match self {
            Self::Create
            | Self::Write
            | Self::Truncate
            | Self::Sync
            | Self::CreateDir
            | Self::RemoveDir
            | Self::Rename
            | Self::Remove
            | Self::SyncDir
            | Self::Lock => true,
            Self::Open | Self::Read | Self::List | Self::FreeBytes => false,
        }
    }

    pub(super) const fn tag(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Create => 2,
            Self::Read => 3,
            Self::Write => 4,
            Self::Truncate => 5,
            Self::Sync => 6,
            Self::List => 7,
            Self::CreateDir => 8,
            Self::RemoveDir => 9,
            Self::Rename => 10,
            Self::Remove => 11,
            Self::SyncDir => 12,
            Self::FreeBytes => 13,
            Self::Lock => 14,
        }
    }
}

/// What a failing operation reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO: the device failed.
    Io,
    /// ENOSPC: the file system is full.
    NoSpace,
}

impl Failure {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => rustix::io::Errno::IO.into(),
            Self::NoSpace => rustix::io::Errno::NOSPC.into(),
        }
    }
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// The first matching operation.
    Once,
    /// Every matching operation, until the faults are cleared.
    Always,
}

/// A failure that waits for its operation.
///
/// A failing write may have written any part of its bytes. A failing sync leaves the file's unsynced
/// bytes in the cache only: later syncs of the file report success and write nothing, as a kernel
/// that marked the pages clean does, until the process is restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which operation fails.
    pub operation: Operation,
    /// Only for paths that contain this text; empty for all.
    pub path_contains: String,
    /// Matching operations that are let through first.
    pub after: u32,
    /// What is reported.
    pub failure: Failure,
    /// How often.
    pub lasting: Lasting,
}

impl Fault {
    /// The next such operation on any path fails once.
    #[must_use]
    pub const fn next(operation: Operation, failure: Failure) -> Self {
        Self { operation, path_contains: String::new(), after: 0, failure, lasting: Lasting::Once }
    }

    /// The same, only for paths that contain `text`.
    #[must_use]
    pub fn on_path(self, text: &str) -> Self {
        Self { path_contains: text.to_owned(), ..self }
    }
}

/// The faults that wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.waiting.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// The failure that strikes this operation, if one does.
    pub(super) fn strike(&mut self, operation: Operation, path: &Path) -> Option<Failure> {
        let path = path.to_string_lossy();
        let mut struck = None;
        self.waiting.retain_mut(|fault| {
            let matches = fault.operation == operation && path.contains(&fault.path_contains);
            if struck.is_some() || !matches {
                return true;
            }
            if let Some(fewer) = fault.after.checked_sub(1) {
                fault.after = fewer;
                return true;
            }
            struck = Some(fault.failure);
            fault.lasting == Lasting::Always
        });
        struck
    }
}
