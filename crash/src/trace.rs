//! What a workload did to its files, in order, and how far it had been promised what.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{DirectoryLock, File, OpenMode, Position, Storage};

/// An open file of the recorded process; never the same number twice in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle(pub u64);

/// One file operation. Those that only look are not recorded, but for opening and closing, which later
/// operations refer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A file was opened or made.
    Open {
        /// Its handle from now on.
        handle: Handle,
        /// Where it is.
        path: PathBuf,
        /// How it was opened.
        mode: OpenMode,
    },
    /// The last use of a handle.
    Close(Handle),
    /// Bytes were written.
    Write {
        /// Into which file.
        handle: Handle,
        /// Where.
        position: Position,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A file got another length.
    Truncate {
        /// Which file.
        handle: Handle,
        /// The new length.
        len: u64,
    },
    /// A file was synced.
    Sync(Handle),
    /// A directory was made, and what was missing above it.
    CreateDir(PathBuf),
    /// An empty directory was removed.
    RemoveDir(PathBuf),
    /// A name was changed.
    Rename {
        /// The old one.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// A file was removed.
    Remove(PathBuf),
    /// A directory was synced.
    SyncDir(PathBuf),
    /// A lock file was taken, and made if it was missing.
    Lock(PathBuf),
}

impl Operation {
    /// Whether it can change what a crash leaves: only behind such an operation is there a new point.
    #[must_use]
    pub const fn changes(&self) -> bool {
        match self {
            Self::Open { mode, .. } => matches!(mode, OpenMode::CreateNew),
            Self::Close(_) => false,
            Self::Write { .. }
            | Self::Truncate { .. }
            | Self::Sync(_)
            | Self::CreateDir(_)
            | Self::RemoveDir(_)
            | Self::Rename { .. }
            | Self::Remove(_)
            | Self::SyncDir(_)
            | Self::Lock(_) => true,
        }
    }
}

/// A workload's operations, with what was promised when.
#[derive(Clone, Debug)]
pub struct Trace<P> {
    /// The disk before the first operation.
    pub start: SimDisk,
    /// All operations.
    pub operations: Vec<Operation>,
    /// What was promised from how many operations on; rising, the first from 0 on.
    pub promises: Vec<(usize, P)>,
}

impl<P> Trace<P> {
    /// The points at which the machine may stop: numbers of operations after which the disk is not as
    /// before.
    #[must_use]
    pub fn points(&self) -> Vec<usize> {
        let changing = (1..).zip(&self.operations).filter(|(_, operation)| operation.changes());
        std::iter::once(0).chain(changing.map(|(number, _)| number)).collect()
    }

    /// What had been promised when `point` operations were done: nothing comes between an operation and
    /// the promise that follows from it, so the strongest one holds.
    #[must_use]
    pub fn promised(&self, point: usize) -> Option<&P> {
        self.promises.iter().rev().find(|(from, _)| *from <= point).map(|(_, promise)| promise)
    }

    /// The disk when `point` operations were done, cache and all.
    ///
    /// # Errors
    /// Of an operation that worked when it was recorded: a bug of the recorder.
    pub fn disk_at(&self, point: usize) -> io::Result<SimDisk> {
        let mut player = Player::new(self.start.fork());
        for operation in self.operations.iter().take(point) {
            player.play(operation)?;
        }
        Ok(player.disk)
    }

    /// An operation in words: what it did, and to which file.
    #[must_use]
    pub fn describe(&self, number: usize) -> String {
        let Some(operation) = number.checked_sub(1).and_then(|at| self.operations.get(at)) else {
            return "before the first operation".to_owned();
        };
        let path = |handle: &Handle| {
            let opened = self.operations.iter().find_map(|operation| match operation {
                Operation::Open { handle: known, path, .. } if known == handle => Some(path),
                Operation::Open { .. }
                | Operation::Close(_)
                | Operation::Write { .. }
                | Operation::Truncate { .. }
                | Operation::Sync(_)
                | Operation::CreateDir(_)
                | Operation::RemoveDir(_)
                | Operation::Rename { .. }
                | Operation::Remove(_)
                | Operation::SyncDir(_)
                | Operation::Lock(_) => None,
            });
            opened.map_or_else(|| "?".to_owned(), |path| path.display().to_string())
        };
        Described { operation, path: &path }.to_string()
    }
}

struct Described<'a> {
    operation: &'a Operation,
    path: &'a dyn Fn(&Handle) -> String,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Operation::Open { path, mode, .. } => write!(out, "open {} as {mode:?}", path.display()),
            Operation::Close(handle) => write!(out, "close {}", (self.path)(handle)),
            Operation::Write { handle, position, bytes } => {
                write!(out, "write {} bytes at {position} of {}", bytes.len(), (self.path)(handle))
            }
            Operation::Truncate { handle, len } => {
                write!(out, "set the length of {} to {len}", (self.path)(handle))
            }
            Operation::Sync(handle) => write!(out, "sync {}", (self.path)(handle)),
            Operation::CreateDir(dir) => write!(out, "make directory {}", dir.display()),
            Operation::RemoveDir(dir) => write!(out, "remove directory {}", dir.display()),
            Operation::Rename { from, to } => write!(out, "rename {} to {}", from.display(), to.display()),
            Operation::Remove(path) => write!(out, "remove {}", path.display()),
            Operation::SyncDir(dir) => write!(out, "sync directory {}", dir.display()),
            Operation::Lock(path) => write!(out, "lock {}", path.display()),
        }
    }
}

/// Does recorded operations again.
struct Player {
    disk: SimDisk,
    files: BTreeMap<Handle, Arc<dyn File>>,
    locks: Vec<Box<dyn DirectoryLock>>,
}

impl Player {
    const fn new(disk: SimDisk) -> Self {
        Self { disk, files: BTreeMap::new(), locks: Vec::new() }
    }

    fn file(&self, handle: Handle) -> io::Result<&Arc<dyn File>> {
        self.files.get(&handle).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn play(&mut self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::Open { handle, path, mode } => {
                let file = self.disk.open(path, *mode)?;
                self.files.insert(*handle, file);
                Ok(())
            }
            Operation::Close(handle) => {
                self.files.remove(handle);
                Ok(())
            }
            Operation::Write { handle, position, bytes } => self.file(*handle)?.write_at(*position, &[bytes]),
            Operation::Truncate { handle, len } => self.file(*handle)?.truncate(*len),
            Operation::Sync(handle) => self.file(*handle)?.sync(),
            Operation::CreateDir(dir) => self.disk.create_dir(dir),
            Operation::RemoveDir(dir) => self.disk.remove_dir(dir),
            Operation::Rename { from, to } => self.disk.rename(from, to),
            Operation::Remove(path) => self.disk.remove(path),
            Operation::SyncDir(dir) => self.disk.sync_dir(dir),
            // A lock is let go without an operation, so the file may be held already.
            Operation::Lock(path) => {
                self.locks.clear();
                self.locks.push(self.disk.lock(path)?);
                Ok(())
            }
        }
    }
}
