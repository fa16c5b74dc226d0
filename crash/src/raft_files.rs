//! raft-engine over any [`Storage`], so that its files can be recorded and crashed.
//!
//! It opens, writes, renames and removes files through its `FileSystem` trait, which goes to the storage
//! here. Two things it does with the operating system directly: it lists its directory, and it locks it.
//! So for every opening a scratch directory is made that holds an empty file for each name that the storage
//! has, and paths in it are translated into the storage's. It syncs that directory too, to no effect, and
//! needs none: our own files sync the directory at each change of names (`tidelog_consensus::raft_log`).
//!
//! What `fallocate` does to a file's length is recorded as a change of its length.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use tempfile::TempDir;
use tidelog_consensus::raft_log::{EngineLog, EngineLogOptions, RaftLogError, SyncPolicy};
use tidelog_engine::storage::{DirEntry, DirectoryLock, EntryKind, File, OpenMode, Position, Storage};

use crate::scenario::Broken;

/// A raft log over a storage, with its scratch directory.
#[derive(Debug)]
pub struct RecordedLog {
    /// The log.
    pub log: EngineLog<StoredFiles>,
    // Removed when the log is closed, so it comes after it.
    _scratch: TempDir,
}

/// Passes a failed sync on: nobody is to be stopped here.
#[derive(Debug)]
struct PassOn;

impl SyncPolicy for PassOn {
    fn run(&self, _path: &Path, sync: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        sync()
    }
}

/// Opens the raft log that lies in `dir` of `storage`.
///
/// # Errors
/// [`Broken`] if it does not open, or there is no room for the scratch directory.
pub fn open(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    options: EngineLogOptions,
) -> Result<RecordedLog, Broken> {
    let scratch = scratch(storage.as_ref(), dir).map_err(Broken::by("make a scratch directory"))?;
    let mapped =
        Mapped { storage: Arc::clone(storage), scratch: scratch.path().join(NAMES), dir: dir.to_path_buf() };
    let files = StoredFiles { files: Arc::new(mapped.clone()) };
    let opened: Result<_, RaftLogError> =
        EngineLog::open_over(files, Arc::new(mapped), &scratch.path().join(NAMES), options, Arc::new(PassOn));
    Ok(RecordedLog { log: opened.map_err(Broken::by("open the raft log"))?, _scratch: scratch })
}

/// The directory within the scratch directory that raft-engine is told of.
const NAMES: &str = "raft";
/// Held in memory where that exists.
const SHARED_MEMORY: &str = "/dev/shm";

#[expect(clippy::disallowed_methods, reason = "raft-engine lists a directory of the operating system")]
fn scratch(storage: &dyn Storage, dir: &Path) -> io::Result<TempDir> {
    let scratch = match tempfile::tempdir_in(SHARED_MEMORY) {
        Err(error) if error.kind() == ErrorKind::NotFound => tempfile::tempdir()?,
        made => made?,
    };
    let names = scratch.path().join(NAMES);
    std::fs::create_dir(&names)?;
    let entries = match storage.list(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        std::fs::File::create(names.join(entry.name))?;
    }
    Ok(scratch)
}

/// A storage that also answers to the names of the scratch directory.
#[derive(Clone, Debug)]
struct Mapped {
    storage: Arc<dyn Storage>,
    scratch: PathBuf,
    dir: PathBuf,
}

impl Mapped {
    fn to(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.scratch) {
            Ok(below) => self.dir.join(below),
            // The directory that holds the scratch directory stands for the one that holds `dir`.
            Err(_) => tidelog_engine::storage::parent(&self.dir).to_path_buf(),
        }
    }
}

impl Storage for Mapped {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.storage.open(&self.to(path), mode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.storage.list(&self.to(dir))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.storage.create_dir(&self.to(dir))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.storage.remove_dir(&self.to(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(&self.to(from), &self.to(to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.storage.remove(&self.to(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.storage.sync_dir(&self.to(dir))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.storage.free_bytes(&self.to(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirectoryLock>> {
        self.storage.lock(&self.to(path))
    }
}

/// raft-engine's files on a storage.
#[derive(Clone, Debug)]
pub struct StoredFiles {
    files: Arc<Mapped>,
}

/// An open file, as raft-engine sees it.
#[derive(Clone, Debug)]
pub struct StoredFile {
    file: Arc<dyn File>,
}

impl FileSystem for StoredFiles {
    type Handle = StoredFile;
    type Reader = Cursor;
    type Writer = Cursor;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<StoredFile> {
        // It makes a file, or takes the one that is there, as it is.
        let file = match self.files.open(path.as_ref(), OpenMode::CreateNew) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.files.open(path.as_ref(), OpenMode::ReadWrite)?
            }
            made => made?,
        };
        Ok(StoredFile { file })
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<StoredFile> {
        let mode = match permission {
            Permission::ReadOnly => OpenMode::Read,
            Permission::ReadWrite => OpenMode::ReadWrite,
        };
        Ok(StoredFile { file: self.files.open(path.as_ref(), mode)? })
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.files.remove(path.as_ref())
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.files.rename(from.as_ref(), to.as_ref())
    }

    fn new_reader(&self, handle: Arc<StoredFile>) -> io::Result<Cursor> {
        Ok(Cursor { file: Arc::clone(&handle.file), at: 0 })
    }

    fn new_writer(&self, handle: Arc<StoredFile>) -> io::Result<Cursor> {
        self.new_reader(handle)
    }
}

fn wide(number: usize) -> io::Result<u64> {
    u64::try_from(number).map_err(|_| ErrorKind::InvalidInput.into())
}

impl Handle for StoredFile {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.file.truncate(wide(offset)?)
    }

    fn file_size(&self) -> io::Result<usize> {
        usize::try_from(self.file.len()?).map_err(|_| ErrorKind::FileTooLarge.into())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// A place in an open file.
#[derive(Clone, Debug)]
pub struct Cursor {
    file: Arc<dyn File>,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.file.len()?.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        let Some(part) = buf.get_mut(..len) else { return Ok(0) };
        self.file.read_at(Position(self.at), part)?;
        self.at = self.at.saturating_add(wide(len)?);
        Ok(len)
    }
}

impl Write for Cursor {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write_at(Position(self.at), &[buf])?;
        self.at = self.at.saturating_add(wide(buf.len())?);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.file.len()?.checked_add_signed(by),
        };
        self.at = at.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl WriteExt for Cursor {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.file.truncate(wide(offset)?)?;
        self.at = wide(offset)?;
        Ok(())
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        let end = wide(offset)?.saturating_add(wide(size)?);
        if end > self.file.len()? { self.file.truncate(end) } else { Ok(()) }
    }
}
