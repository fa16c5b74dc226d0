//! Failures to order: the next write to this file, every sync, one rename.
//!
//! Some are reported and some are not: a device may say that it wrote what it lost or put elsewhere.
//! What strikes a file at rest, between operations, is not ordered but done: `SimDisk::flip_bit`,
//! `SimDisk::spoil`, and removing or replacing files through the disk itself.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::storage::Position;

/// One kind of file operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Opening a file that is there.
    Open,
    /// Making a file.
    Create,
    /// Asking for the length.
    Size,
    /// Reading.
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
            Self::Open | Self::Size | Self::Read | Self::List | Self::FreeBytes => false,
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
            Self::Size => 15,
        }
    }
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO: the device failed.
    Io,
    /// ENOSPC: the file system is full.
    NoSpace,
    /// EMFILE: the process has as many files open as it may.
    NoHandles,
    /// A read comes to an end before its bytes do.
    Short,
    /// A write is reported as done and never reaches the disk. The cache shows it until it is dropped.
    Lost,
    /// The same, and its bytes land in another place, as far as a file reaches there.
    Misdirected {
        /// The file that is written over, which may be the same one.
        path: PathBuf,
        /// Where in it.
        position: Position,
    },
}

impl Failure {
    /// The error that is reported. The silent ones are errors only where nothing is written.
    pub(super) fn error(&self) -> io::Error {
        match self {
            Self::Io | Self::Lost | Self::Misdirected { .. } => rustix::io::Errno::IO.into(),
            Self::NoSpace => rustix::io::Errno::NOSPC.into(),
            Self::NoHandles => rustix::io::Errno::MFILE.into(),
            Self::Short => ErrorKind::UnexpectedEof.into(),
        }
    }
}

/// How much of a write that fails has been written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Written {
    /// Any part, as the seed decides.
    #[default]
    ByChance,
    /// Nothing.
    Nothing,
    /// The first half.
    Half,
    /// All of it: only the answer is an error.
    All,
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
/// bytes in the cache only: the kernel has marked the pages clean, so later syncs report success and
/// write nothing of them, also for the next process. Only what is written again is dirty again.
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
    /// How much a failing write has written.
    pub written: Written,
}

impl Fault {
    /// The next such operation on any path fails once.
    #[must_use]
    pub const fn next(operation: Operation, failure: Failure) -> Self {
        Self {
            operation,
            path_contains: String::new(),
            after: 0,
            failure,
            lasting: Lasting::Once,
            written: Written::ByChance,
        }
    }

    /// The same, only for paths that contain `text`.
    #[must_use]
    pub fn on_path(self, text: &str) -> Self {
        Self { path_contains: text.to_owned(), ..self }
    }
}

/// One call that the disk was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub operation: Operation,
    /// Of which file or directory.
    pub path: PathBuf,
    /// Where in the file, for reads and writes.
    pub position: Position,
    /// How many bytes, for reads and writes.
    pub bytes: u64,
}

/// What strikes an operation.
#[derive(Clone, Debug)]
pub(super) struct Struck {
    pub(super) failure: Failure,
    pub(super) written: Written,
}

/// The faults that wait, and the calls that were noted.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
    pub(super) calls: Option<Vec<Call>>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.waiting.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Notes a call, if calls are noted.
    pub(super) fn note(&mut self, operation: Operation, path: &Path) {
        if let Some(calls) = &mut self.calls {
            calls.push(Call { operation, path: path.to_path_buf(), position: Position::ZERO, bytes: 0 });
        }
    }

    /// Says of the last call noted which bytes it was about.
    pub(super) fn note_range(&mut self, position: Position, len: usize) {
        if let Some(call) = self.calls.as_mut().and_then(|calls| calls.last_mut()) {
            call.position = position;
            call.bytes = u64::try_from(len).unwrap_or(u64::MAX);
        }
    }

    /// The failure that strikes this operation, if one does.
    pub(super) fn strike(&mut self, operation: Operation, path: &Path) -> Option<Struck> {
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
            struck = Some(Struck { failure: fault.failure.clone(), written: fault.written });
            fault.lasting == Lasting::Always
        });
        struck
    }
}
