//! The operating system's files: the [`Storage`] that a server runs on.
//!
//! Writes are positioned and gathered (`pwritev`), so that a frame's header and its batch go out in
//! one call without being copied together. `sync` is `fdatasync`: it covers the data and every
//! length that is needed to read it back, and leaves out the times that nobody reads. A directory is
//! synced by `fsync` of its own descriptor.
//!
//! This file owns `std::fs` in the engine. Nothing else opens, lists or removes.
//!
//! Not here: what to do about an error. It is passed on with its kind, unread.
#![expect(clippy::disallowed_methods, reason = "this file is the one behind the Storage trait")]

use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::FlockOperation;

use crate::locks::Arc;
use crate::storage::{DirEntry, DirectoryLock, EntryKind, File, OpenMode, Position, Storage};

/// Parts handed to the system in one call: as many as Linux takes.
const PARTS_MAX: usize = 1024;
/// So few parts are handed over without allocating.
const PARTS_FEW: usize = 8;

/// The files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsStorage;

impl Storage for OsStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::IsADirectory, "not a regular file"));
        }
        Ok(Arc::new(OsFile { file }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let kind = if kind.is_file() {
                EntryKind::File
            } else if kind.is_dir() {
                EntryKind::Directory
            } else {
                EntryKind::Other
            };
            entries.push(match entry.file_name().into_string() {
                Ok(name) => DirEntry { name, kind },
                Err(name) => DirEntry { name: name.to_string_lossy().into_owned(), kind: EntryKind::Other },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let synced = fs::File::open(or_here(dir))?.sync_all();
        // Of opening this says that nothing was tried, and a sync that failed must not seem to say so.
        synced.map_err(
            |error| if error.kind() == ErrorKind::OutOfMemory { io::Error::other(error) } else { error },
        )
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let facts = rustix::fs::statvfs(or_here(dir))?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirectoryLock>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock { _file: file }))
    }
}

/// The parent of a bare name is the empty path, which the system does not open.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

#[derive(Debug)]
struct OsFile {
    file: fs::File,
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, position.get())
    }

    fn read(&self, position: Position, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        let mut at = position.get();
        while bytes.len() < len {
            let read = match rustix::io::pread(&self.file, spare_capacity(&mut bytes), at) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            at = behind(at, read)?;
        }
        // The allocator may have given more room than was asked for.
        bytes.truncate(len);
        Ok(bytes)
    }

    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()> {
        let mut at = position.get();
        for group in parts.chunks(PARTS_MAX) {
            let (mut few, mut many) = ([IoSlice::new(&[]); PARTS_FEW], Vec::new());
            let mut left = match few.get_mut(..group.len()) {
                Some(few) => few,
                None => {
                    many.resize(group.len(), IoSlice::new(&[]));
                    many.as_mut_slice()
                }
            };
            for (slice, part) in left.iter_mut().zip(group) {
                *slice = IoSlice::new(part);
            }
            IoSlice::advance_slices(&mut left, 0);
            while !left.is_empty() {
                let written = match rustix::io::pwritev(&self.file, left, at) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(written) => written,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                at = behind(at, written)?;
                IoSlice::advance_slices(&mut left, written);
            }
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The byte behind `moved` bytes at `at`.
fn behind(at: u64, moved: usize) -> io::Result<u64> {
    let end = u64::try_from(moved).ok().and_then(|moved| at.checked_add(moved));
    Ok(end.ok_or(ErrorKind::FileTooLarge)?)
}

/// An `flock`, which the system releases with the descriptor, also when the process is killed.
#[derive(Debug)]
struct OsLock {
    _file: fs::File,
}

impl DirectoryLock for OsLock {}
