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

pub mod floor;
pub(crate) mod lazy_file;
pub(crate) mod open_files;
pub mod os;
pub mod sim_disk;

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::locks::Arc;

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
///
/// Every error is the system's own, with its kind; after one, the operation may have happened in part.
#[expect(clippy::missing_errors_doc, reason = "said once, above: each passes on the system's error")]
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
///
/// Every error is the system's own, with its kind; after one, the operation may have happened in part.
#[expect(clippy::missing_errors_doc, reason = "said once, above: each passes on the system's error")]
#[expect(clippy::len_without_is_empty, reason = "a length is asked of the system and can fail")]
pub trait File: fmt::Debug + Send + Sync + 'static {
    /// Opens the file if this handle puts that off until it is used: a failure has changed nothing then.
    fn ready(&self) -> io::Result<()> {
        Ok(())
    }
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Fills `buf` from `position`; `ErrorKind::UnexpectedEof` if the file ends before.
    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()>;
    /// Reads `len` bytes from `position`; `ErrorKind::UnexpectedEof` if the file ends before. The memory
    /// need not be written with zeros first, which for long reads takes as long as the checksums do.
    fn read(&self, position: Position, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_at(position, &mut bytes)?;
        Ok(bytes)
    }
    /// Writes all of `parts`, one after the other, from `position` on, in as few calls as the
    /// system allows. Extends the file if needed. On an error any part may have been written.
    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()>;
    /// Sets the length; new bytes read as zero.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes what was written, and the length, survive a crash.
    fn sync(&self) -> io::Result<()>;

    /// Writes `bytes` zeros from `position` on, so that later writes there change neither the
    /// length nor the file's map of blocks and `sync` need not write either. Not durable by itself.
    fn prefill(&self, position: Position, bytes: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let end = position.get().checked_add(bytes).ok_or(ErrorKind::FileTooLarge)?;
        let mut at = position.get();
        while at < end {
            let step = end.saturating_sub(at).min(64 << 10);
            let zeros = usize::try_from(step).ok().and_then(|step| ZEROS.get(..step)).unwrap_or(&ZEROS);
            self.write_at(Position(at), &[zeros])?;
            at = at.saturating_add(step);
        }
        Ok(())
    }
}

/// A held lock; released when dropped.
pub trait DirectoryLock: fmt::Debug + Send + Sync + 'static {}

/// Reads the file at `path` whole. Refuses one longer than `bytes_max` (`FileTooLarge`) before
/// anything is allocated.
///
/// # Errors
/// As the file operations it is made of.
pub fn read_whole(storage: &dyn Storage, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = storage.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > bytes_max {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?];
    file.read_at(Position::ZERO, &mut bytes)?;
    Ok(bytes)
}

/// Puts `bytes` at `path` so that after a crash either the old file is there whole, or the new one.
///
/// Writes `<path>.tmp`, syncs it, renames it and syncs the directory; a `.tmp` that a crash left is
/// written over. Durable on return. On an error the old file may or may not have been replaced.
///
/// # Errors
/// As the file operations it is made of.
pub fn replace_file(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    match storage.remove(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = storage.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(Position::ZERO, &[bytes])?;
    file.sync()?;
    drop(file);
    storage.rename(&temporary, path)?;
    storage.sync_dir(parent(path))
}

/// Makes `dir` below the existing directory `base`, durably: every directory on the way is synced.
///
/// # Errors
/// `InvalidInput` if `dir` is not below `base`; else as the file operations it is made of.
pub fn create_dir_durably(storage: &dyn Storage, base: &Path, dir: &Path) -> io::Result<()> {
    let below = dir.strip_prefix(base).map_err(|_| ErrorKind::InvalidInput)?;
    storage.create_dir(dir)?;
    let mut holder = base.to_path_buf();
    for name in below.components() {
        storage.sync_dir(&holder)?;
        holder.push(name);
    }
    Ok(())
}

/// The directory that holds the name `path`; the working directory (the empty path) for a bare name.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new(""))
}

#[cfg(test)]
mod tests;
