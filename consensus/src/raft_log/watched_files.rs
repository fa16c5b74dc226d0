//! The files of raft-engine, with the things it does not do by itself.
//!
//! 1. A failed sync goes to a [`SyncPolicy`], which in a server ends the process: the kernel may
//!    have marked the lost pages clean, so going on would acknowledge what is not there.
//! 2. A creation, rename or removal is made durable by syncing the directory, and a file that is
//!    opened for writing is synced first, so that recovery reads only what a power cut leaves.
//!
//! 3. While the log is opened, a file of which the disk refused some bytes is not cut: raft-engine takes any error at
//!    the end of its newest file for a torn tail.
//! 4. While the log is opened, nothing is cut that was synced once (`super::cut_tail`): that is damage.
//!
//! Not here: how the log is tuned and used (`super::engine_log`).

use std::fmt;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use raft_engine::env::{FileSystem, Handle, Permission};
use tidelog_engine::storage::{Storage, parent};

use super::cut_tail::{FileNumber, TAIL_BYTES_MAX, was_synced};

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

/// What an opening of the log knows and finds.
#[derive(Debug)]
pub(super) struct Opening {
    newest: Option<FileNumber>,
    opened: AtomicBool,
    lost: Mutex<Option<String>>,
}

impl Opening {
    /// An opening of the log in `dir`.
    pub(super) fn of(storage: &dyn Storage, dir: &Path) -> io::Result<Self> {
        let names = storage.list(dir)?;
        let newest = names.iter().filter_map(|entry| FileNumber::of(&entry.name)).max();
        Ok(Self { newest, opened: AtomicBool::new(false), lost: Mutex::default() })
    }

    /// From now on files are cut as raft-engine likes.
    pub(super) fn is_done(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// Which bytes it would have lost that were synced once, in words.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_under_way(&self) -> bool {
        !self.opened.load(Ordering::Acquire)
    }

    /// Refuses to cut `path` at `at`, behind which `tail` stands, if that would lose what was synced.
    fn check_cut(&self, path: &Path, at: usize, tail: &[u8]) -> io::Result<()> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(file) = FileNumber::of(name) else { return Ok(()) };
        let older = self.newest.is_some_and(|newest| file < newest);
        if !older && !was_synced(tail, file) {
            return Ok(());
        }
        let why = if older { "a newer file follows" } else { "later batches verify" };
        let found = format!("{name} does not verify at byte {at}, which was synced: {why}");
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(found.clone());
        Err(io::Error::other(found))
    }
}

/// raft-engine's files under a [`SyncPolicy`].
pub(super) struct WatchedFiles<F> {
    files: Arc<F>,
    /// For directories, which raft-engine's own trait cannot sync.
    storage: Arc<dyn Storage>,
    policy: Arc<dyn SyncPolicy>,
    opening: Arc<Opening>,
}

impl<F: FileSystem> WatchedFiles<F> {
    /// The files of the log that `opening` is about.
    pub(super) fn new(
        files: F,
        storage: Arc<dyn Storage>,
        policy: Arc<dyn SyncPolicy>,
        opening: Arc<Opening>,
    ) -> Self {
        Self { files: Arc::new(files), storage, policy, opening }
    }

    fn handle(&self, path: &Path, inner: F::Handle) -> WatchedHandle<F> {
        let refusal = Refusal { opening: Arc::clone(&self.opening), said: Arc::default() };
        let (files, inner, policy) = (Arc::clone(&self.files), Arc::new(inner), Arc::clone(&self.policy));
        WatchedHandle { files, inner, path: path.to_path_buf(), policy, refusal }
    }

    fn sync_dir_of(&self, path: &Path) -> io::Result<()> {
        let dir = parent(path);
        self.policy.run(dir, &mut || self.storage.sync_dir(dir))
    }
}

/// One open file under a [`SyncPolicy`].
pub(super) struct WatchedHandle<F: FileSystem> {
    files: Arc<F>,
    inner: Arc<F::Handle>,
    path: PathBuf,
    policy: Arc<dyn SyncPolicy>,
    refusal: Refusal,
}

impl<F: FileSystem> WatchedHandle<F> {
    /// What stands behind `offset`, as far as it is looked at.
    fn tail(&self, offset: usize) -> io::Result<Vec<u8>> {
        let length = self.inner.file_size()?.saturating_sub(offset).min(TAIL_BYTES_MAX);
        let mut reader = self.files.new_reader(Arc::clone(&self.inner))?;
        reader.seek(SeekFrom::Start(u64::try_from(offset).map_err(io::Error::other)?))?;
        let mut tail = vec![0; length];
        let mut read = 0;
        while let Some(left) = tail.get_mut(read..).filter(|left| !left.is_empty()) {
            match reader.read(left)? {
                0 => break,
                more => read = read.saturating_add(more),
            }
        }
        tail.truncate(read);
        Ok(tail)
    }
}

/// What the disk said when it refused bytes of a file while the log was opened.
#[derive(Clone)]
struct Refusal {
    opening: Arc<Opening>,
    said: Arc<Mutex<Option<String>>>,
}

impl Refusal {
    fn note(&self, error: &io::Error) {
        if error.kind() != ErrorKind::Interrupted && self.opening.is_under_way() {
            self.said.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
        }
    }

    fn check(&self) -> io::Result<()> {
        match self.said.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Ok(()),
            Some(said) => Err(io::Error::other(format!("not cut where a read failed: {said}"))),
        }
    }
}

impl<F: FileSystem> Handle for WatchedHandle<F> {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        if self.refusal.opening.is_under_way() {
            self.refusal.check()?;
            self.refusal.opening.check_cut(&self.path, offset, &self.tail(offset)?)?;
        }
        self.inner.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.inner.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        self.policy.run(&self.path, &mut || self.inner.sync())
    }
}

/// Reads one file, and remembers what the disk refused.
pub(super) struct WatchedReader<R> {
    inner: R,
    refusal: Refusal,
}

impl<R: Read> Read for WatchedReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf).inspect_err(|error| self.refusal.note(error))
    }
}

impl<R: Seek> Seek for WatchedReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to).inspect_err(|error| self.refusal.note(error))
    }
}

impl<F: FileSystem> FileSystem for WatchedFiles<F> {
    type Handle = WatchedHandle<F>;
    type Reader = WatchedReader<F::Reader>;
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
        let inner = self.files.new_reader(Arc::clone(&handle.inner))?;
        Ok(WatchedReader { inner, refusal: handle.refusal.clone() })
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        self.files.new_writer(Arc::clone(&handle.inner))
    }
}
