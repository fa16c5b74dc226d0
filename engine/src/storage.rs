//! Every file operation that the engine may perform, so that a simulator can fail each of them.
//!
//! The rules are those of a POSIX file system, no kinder:
//! - Until a file's `sync` returns `Ok`, its writes may be lost, torn at sector granularity, or
//!   reach the disk in any order. A new length may reach it without the data.
//! - A creation, rename or removal survives a crash only after [`Storage::sync_dir`] of the
//!   directory that holds the name.
//! - After a `sync` fails nothing is known about the unsynced bytes, and it must not be called
//!   again on that file: the kernel may have marked the pages clean.
//!
//! Not here: which files exist and what is in them.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A byte in one file. Never an offset, never a raft index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The first byte.
    pub const ZERO: Self = Self(0);

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, never written through this handle.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link, socket or device: nothing that the engine makes.
    Other,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last component of the path. Names that are not UTF-8 are shown lossily, as `Other`.
    pub name: String,
    /// What it stands for.
    pub kind: EntryKind,
}

/// The files below one data directory.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// Opens a file. The handle closes when its last clone is dropped.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// The names in `dir`, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes `dir` and what is missing above it. No error if it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// Renames a file or directory; an existing file `to` is replaced atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals inside `dir` survive a crash.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes free to an ordinary user on the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the lock file at `path` for this process, creating it if needed.
    /// `ErrorKind::WouldBlock` if another holder has it. Released when dropped.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirectoryLock>>;
}

/// One open file.
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `position`; `ErrorKind::UnexpectedEof` if the file ends before.
    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()>;
    /// Writes all of `parts`, one after the other, from `position` on, in as few calls as the
    /// system allows. Extends the file if needed. On an error any part may have been written.
    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()>;
    /// Sets the length; new bytes read as zero.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes what was written, and the length, survive a crash.
    fn sync(&self) -> io::Result<()>;
}

/// A held lock; released when dropped.
pub trait DirectoryLock: fmt::Debug + Send + Sync + 'static {}
