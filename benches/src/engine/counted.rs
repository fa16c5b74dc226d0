//! Counts what an engine asks of the disk: the files of the operating system, with a tally.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stats_alloc::INSTRUMENTED_SYSTEM;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{DirEntry, DirectoryLock, File, OpenMode, Position, Storage};

/// Write and sync calls so far, and allocations of the whole program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    /// Gathered writes of frames, headers and footers; zeros ahead are not among them.
    pub(super) writes: u64,
    pub(super) syncs: u64,
    /// Stretches of zeros written ahead.
    pub(super) prefills: u64,
    pub(super) allocations: u64,
}

impl Calls {
    /// What was added since `earlier`.
    pub(super) const fn since(self, earlier: Self) -> Self {
        Self {
            writes: self.writes.saturating_sub(earlier.writes),
            syncs: self.syncs.saturating_sub(earlier.syncs),
            prefills: self.prefills.saturating_sub(earlier.prefills),
            allocations: self.allocations.saturating_sub(earlier.allocations),
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    writes: AtomicU64,
    syncs: AtomicU64,
    prefills: AtomicU64,
}

/// The files of the operating system, counted.
#[derive(Clone, Debug, Default)]
pub(super) struct CountedStorage {
    tally: Arc<Tally>,
}

impl CountedStorage {
    /// How many calls there were until now.
    pub(super) fn calls(&self) -> Calls {
        let allocated = INSTRUMENTED_SYSTEM.stats();
        Calls {
            writes: self.tally.writes.load(Ordering::Relaxed),
            syncs: self.tally.syncs.load(Ordering::Relaxed),
            prefills: self.tally.prefills.load(Ordering::Relaxed),
            allocations: u64::try_from(allocated.allocations + allocated.reallocations).unwrap_or(u64::MAX),
        }
    }
}

impl Storage for CountedStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = OsStorage.open(path, mode)?;
        Ok(Arc::new(CountedFile { file, tally: Arc::clone(&self.tally) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        OsStorage.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsStorage.create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        OsStorage.remove_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsStorage.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsStorage.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.tally.syncs.fetch_add(1, Ordering::Relaxed);
        OsStorage.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsStorage.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirectoryLock>> {
        OsStorage.lock(path)
    }
}

#[derive(Debug)]
struct CountedFile {
    file: Arc<dyn File>,
    tally: Arc<Tally>,
}

impl File for CountedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(position, buf)
    }

    fn read(&self, position: Position, len: usize) -> io::Result<Vec<u8>> {
        self.file.read(position, len)
    }

    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()> {
        self.tally.writes.fetch_add(1, Ordering::Relaxed);
        self.file.write_at(position, parts)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.tally.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync()
    }

    fn prefill(&self, position: Position, bytes: u64) -> io::Result<()> {
        self.tally.prefills.fetch_add(1, Ordering::Relaxed);
        self.file.prefill(position, bytes)
    }
}
