//! Counts what an engine asks of the disk: the files of the operating system, with a tally. What is only built to be measured later is
//! built without syncs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stats_alloc::INSTRUMENTED_SYSTEM;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{DirEntry, DirectoryLock, File, OpenMode, Position, Storage};

/// Write and sync calls so far, and allocations of the whole program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Gathered writes of frames, headers and footers; zeros ahead are not among them.
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    /// Stretches of zeros written ahead.
    pub(crate) prefills: u64,
    pub(crate) allocations: u64,
}

impl Calls {
    /// What was added since `earlier`.
    pub(crate) const fn since(self, earlier: Self) -> Self {
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
pub(crate) struct CountedStorage {
    tally: Arc<Tally>,
    /// Syncs are counted, and not done.
    is_unsynced: bool,
}

impl CountedStorage {
    /// The same, of which nothing is synced.
    pub(crate) fn unsynced() -> Self {
        Self { is_unsynced: true, ..Self::default() }
    }

    /// How many calls there were until now.
    pub(crate) fn calls(&self) -> Calls {
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
        Ok(Arc::new(CountedFile { file, counted: self.clone() }))
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
        if self.is_unsynced { Ok(()) } else { OsStorage.sync_dir(dir) }
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
    counted: CountedStorage,
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
        self.counted.tally.writes.fetch_add(1, Ordering::Relaxed);
        self.file.write_at(position, parts)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.counted.tally.syncs.fetch_add(1, Ordering::Relaxed);
        if self.counted.is_unsynced { Ok(()) } else { self.file.sync() }
    }

    fn prefill(&self, position: Position, bytes: u64) -> io::Result<()> {
        self.counted.tally.prefills.fetch_add(1, Ordering::Relaxed);
        self.file.prefill(position, bytes)
    }
}
