//! The storage that takes down what is done to it.
//!
//! It passes every operation on to a simulated disk and, if that worked and can matter to a crash, writes
//! it into a trace. The workload writes its promises into the same trace, so that each has its place
//! between operations.
//!
//! It can be made to leave syncs out, silently. That is how the enumeration is shown to be able to fail.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{DirEntry, DirectoryLock, File, OpenMode, Position, Storage};

use crate::trace::{Handle, Operation, Trace};

/// What the recorder leaves out although it says that it was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeftOut {
    /// Nothing.
    #[default]
    Nothing,
    /// Syncs of files.
    FileSyncs,
    /// Syncs of directories.
    DirectorySyncs,
}

/// See the module. Clones write into the same trace.
pub struct Recorder<P> {
    inner: Arc<Inner<P>>,
}

struct Inner<P> {
    disk: SimDisk,
    left_out: LeftOut,
    handles: AtomicU64,
    trace: Mutex<Trace<P>>,
}

impl<P> Clone for Recorder<P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<P> fmt::Debug for Recorder<P> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Recorder").field("left_out", &self.inner.left_out).finish_non_exhaustive()
    }
}

impl<P: Clone + Send + Sync + 'static> Recorder<P> {
    /// Records what is done to `disk`, of which `promise` holds already.
    #[must_use]
    pub fn new(disk: &SimDisk, promise: P, left_out: LeftOut) -> Self {
        let trace = Trace { start: disk.fork(), operations: Vec::new(), promises: vec![(0, promise)] };
        let inner =
            Inner { disk: disk.clone(), left_out, handles: AtomicU64::new(0), trace: Mutex::new(trace) };
        Self { inner: Arc::new(inner) }
    }

    /// This recorder as a storage to hand in.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// From here on `promise` holds.
    pub fn promise(&self, promise: P) {
        let mut trace = self.trace();
        let at = trace.operations.len();
        trace.promises.push((at, promise));
    }

    /// What was recorded until now.
    #[must_use]
    pub fn taken(&self) -> Trace<P> {
        self.trace().clone()
    }
}

impl<P> Recorder<P> {
    fn trace(&self) -> MutexGuard<'_, Trace<P>> {
        self.inner.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something and takes it down, with nobody's operation between the two.
    fn take<T>(
        &self,
        operation: impl FnOnce() -> Operation,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let mut trace = self.trace();
        let done = work()?;
        trace.operations.push(operation());
        Ok(done)
    }
}

impl<P: Send + Sync + 'static> Storage for Recorder<P> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let handle = Handle(self.inner.handles.fetch_add(1, Ordering::Relaxed));
        let file = self.take(
            || Operation::Open { handle, path: path.to_path_buf(), mode },
            || self.inner.disk.open(path, mode),
        )?;
        Ok(Arc::new(Recorded { recorder: Self { inner: Arc::clone(&self.inner) }, handle, file }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.disk.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.take(|| Operation::CreateDir(dir.to_path_buf()), || self.inner.disk.create_dir(dir))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.take(|| Operation::RemoveDir(dir.to_path_buf()), || self.inner.disk.remove_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let operation = || Operation::Rename { from: from.to_path_buf(), to: to.to_path_buf() };
        self.take(operation, || self.inner.disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.take(|| Operation::Remove(path.to_path_buf()), || self.inner.disk.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match self.inner.left_out {
            LeftOut::DirectorySyncs => Ok(()),
            LeftOut::Nothing | LeftOut::FileSyncs => {
                self.take(|| Operation::SyncDir(dir.to_path_buf()), || self.inner.disk.sync_dir(dir))
            }
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.disk.free_bytes(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirectoryLock>> {
        self.take(|| Operation::Lock(PathBuf::from(path)), || self.inner.disk.lock(path))
    }
}

/// One open file of a recorder.
struct Recorded<P: Send + Sync + 'static> {
    recorder: Recorder<P>,
    handle: Handle,
    file: Arc<dyn File>,
}

impl<P: Send + Sync + 'static> fmt::Debug for Recorded<P> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Recorded").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl<P: Send + Sync + 'static> Drop for Recorded<P> {
    fn drop(&mut self) {
        self.recorder.trace().operations.push(Operation::Close(self.handle));
    }
}

impl<P: Send + Sync + 'static> File for Recorded<P> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(position, buf)
    }

    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()> {
        let bytes: Arc<[u8]> = Arc::from(parts.concat());
        let operation = || Operation::Write { handle: self.handle, position, bytes: Arc::clone(&bytes) };
        self.recorder.take(operation, || self.file.write_at(position, parts))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.recorder.take(|| Operation::Truncate { handle: self.handle, len }, || self.file.truncate(len))
    }

    fn sync(&self) -> io::Result<()> {
        match self.recorder.inner.left_out {
            LeftOut::FileSyncs => Ok(()),
            LeftOut::Nothing | LeftOut::DirectorySyncs => {
                self.recorder.take(|| Operation::Sync(self.handle), || self.file.sync())
            }
        }
    }
}
