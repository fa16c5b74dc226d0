//! The files of raft-engine, with the two things it does not do by itself.
//!
//! 1. A failed sync goes to a [`SyncPolicy`], which in a server ends the process: the kernel may
//!    have marked the lost pages clean, so going on would acknowledge what is not there.
//! 2. A creation, rename or removal is made durable by syncing the directory, and a file that is
//!    opened for writing is synced first, so that recovery reads only what a power cut leaves.
//!
//! Not here: how the log is tuned and used (`super::engine_log`).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_engine::env::{FileSystem, Handle, Permission};
use tidelog_engine::storage::{Storage, parent};

/// Runs the syncs of the raft log, and decides what a failed one means.
pub trait SyncPolicy: fmt::Debug + Send + Sync + 'static {
    /// Runs `sync` of `path` once. If it fails, a server's policy ends the process and does not
    /// return; one that returns the error makes the calling thread panic inside raft-engine.
    ///
    /// # Errors
    /// The error of `sync`.
    fn run(&self, path: &Path, sync: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;
}

/// Ends the process when a sync fails, after saying so.
#[derive(Clone, Copy, Debug, Default)]
pub struct AbortOnSyncFailure;

impl SyncPolicy for AbortOnSyncFailure {
    fn run(&self, path: &Path, sync: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        sync().inspect_err(|error| {
            tracing::error!("{}", sync_failed(path, error));
            std::process::abort()
        })
    }
}

/// What is said of a failed sync of the raft log.
#[must_use]
pub fn sync_failed(path: &Path, error: &io::Error) -> String {
    format!(
        "E1106 {}: sync failed: {error}; what the raft log holds on disk is unknown, so this process stops: \
         check the disk, then restart the node",
        path.display()
    )
}

/// raft-engine's files under a [`SyncPolicy`].
pub(super) struct WatchedFiles<F> {
    files: F,
    /// For directories, which raft-engine's own trait cannot sync.
    storage: Arc<dyn Storage>,
    policy: Arc<dyn SyncPolicy>,
}

impl<F: FileSystem> WatchedFiles<F> {
    pub(super) fn new(files: F, storage: Arc<dyn Storage>, policy: Arc<dyn SyncPolicy>) -> Self {
        Self { files, storage, policy }
    }

    fn handle(&self, path: &Path, inner: F::Handle) -> WatchedHandle<F::Handle> {
        WatchedHandle { inner: Arc::new(inner), path: path.to_path_buf(), policy: Arc::clone(&self.policy) }
    }

    fn sync_dir_of(&self, path: &Path) -> io::Result<()> {
        let dir = parent(path);
        self.policy.run(dir, &mut || self.storage.sync_dir(dir))
    }
}

/// One open file under a [`SyncPolicy`].
pub(super) struct WatchedHandle<H> {
    inner: Arc<H>,
    path: PathBuf,
    policy: Arc<dyn SyncPolicy>,
}

impl<H: Handle> Handle for WatchedHandle<H> {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.inner.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.policy.run(&self.path, &mut || self.inner.sync())
    }
}

impl<F: FileSystem> FileSystem for WatchedFiles<F> {
    type Handle = WatchedHandle<F::Handle>;
    type Reader = F::Reader;
    type Writer = F::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        let path = path.as_ref();
        let inner = self.files.create(path)?;
        self.sync_dir_of(path)?;
        Ok(self.handle(path, inner))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        let path = path.as_ref();
        let handle = self.handle(path, self.files.open(path, permission)?);
        match permission {
            Permission::ReadWrite => handle.sync()?,
            Permission::ReadOnly => {}
        }
        Ok(handle)
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.files.delete(path.as_ref())?;
        self.sync_dir_of(path.as_ref())
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.files.rename(from.as_ref(), to.as_ref())?;
        self.sync_dir_of(to.as_ref())
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        self.files.new_reader(Arc::clone(&handle.inner))
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        self.files.new_writer(Arc::clone(&handle.inner))
    }
}
