//! An engine owns one data directory: its lock, its identity, its logs and its checkpoints.
//!
//! Opening takes the lock, raises the boot epoch and looks which logs and checkpoints are there. Logs
//! are opened one by one by whoever knows where they stand.
//!
//! Not here: what is in `DATA/raft` and `DATA/votes`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tidelog_wire::ids::{ClusterId, GroupId, Incarnation, LogId, NodeId, Offset, TimestampMs};

use crate::checkpoint::store::{self, KEPT};
use crate::checkpoint::{Checkpoint, CheckpointError, EntryId, LoadedCheckpoint};
use crate::clock::Clock;
use crate::core::{Core, Mode};
use crate::directory::identity::{Identity, IdentityError};
use crate::directory::keep::{Keep, Pin};
use crate::directory::lock::{self, LockError};
use crate::directory::quarantine::{self, Quarantine, QuarantineError};
use crate::directory::room::{DiskRoom, Room};
use crate::directory::take_identity;
use crate::embedded::starts::Starts;
use crate::locks::{Arc, Mutex, PoisonError};
use crate::log::lives::Lives;
use crate::log::opening::{OPEN_THREADS_DEFAULT, Progress, Tally};
use crate::log::shared::Ended;
use crate::log::{Aside, LogError};
use crate::report::{Laps, RecoveryCounts, RecoveryReport};
use crate::segment;
use crate::storage::Storage;
use crate::storage::open_files::OpenFiles;

/// Files open for reading at once, unless told otherwise.
pub const OPEN_FILES_DEFAULT: usize = 512;

/// Bytes of the disk reserve, unless told otherwise.
pub const RESERVE_BYTES_DEFAULT: u64 = 32 << 20;

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who vouches for what is appended.
    pub mode: Mode,
    /// The time, for what is set aside in quarantine: the engine has no clock.
    pub now: TimestampMs,
    /// Most files open for reading. Writers hold one more for each log.
    pub open_files_max: usize,
    /// Bytes of the disk reserve; 0 for none.
    pub reserve_bytes: u64,
    /// How much may lie in quarantine, and for how long.
    pub quarantine: quarantine::Limits,
    /// Tells how long recovery takes, and how long ago `now` was when something is set aside later. `None`: the
    /// report says zero, and all that is set aside is dated `now`.
    pub clock: Option<Arc<dyn Clock>>,
    /// Threads that [`Engine::open_logs`] uses. 1: everything on the caller's, in the order given.
    pub open_threads: usize,
    /// Who is told how far the opening of logs has come.
    pub progress: Option<Arc<dyn Progress>>,
    /// Deliberate defects.
    #[cfg(feature = "defects")]
    pub defects: crate::core::Defects,
}

impl Options {
    /// Under consensus, at the time `now`.
    #[must_use]
    pub fn consensus(now: TimestampMs) -> Self {
        Self {
            mode: Mode::Consensus,
            now,
            open_files_max: OPEN_FILES_DEFAULT,
            reserve_bytes: RESERVE_BYTES_DEFAULT,
            quarantine: quarantine::Limits::default(),
            clock: None,
            open_threads: OPEN_THREADS_DEFAULT,
            progress: None,
            #[cfg(feature = "defects")]
            defects: crate::core::Defects::default(),
        }
    }

    /// Embedded, at the time `now`.
    #[must_use]
    pub fn embedded(now: TimestampMs) -> Self {
        Self { mode: Mode::Embedded, ..Self::consensus(now) }
    }
}

/// Whose directory is being formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Random, drawn for this formatting.
    pub incarnation: Incarnation,
}

/// An engine could not be opened, or a directory not formatted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the directory, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The identity is missing, bad or another's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The checkpoints cannot be listed.
    #[error(transparent)]
    Checkpoints(#[from] CheckpointError),
    /// There is something in the directory already.
    #[error(
        "E0222 {dir}: is not empty (`{name}` is in it), so it is not formatted; nothing was changed: name an empty directory, or start without `--bootstrap`"
    )]
    NotEmpty {
        /// Which directory.
        dir: PathBuf,
        /// Something that is in it.
        name: String,
    },
    /// The disk refused.
    #[error(
        "E0223 {path}: cannot {action}: {source}: check the path, its owner and the disk, then start again"
    )]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
}

/// A data directory, opened.
#[derive(Debug)]
pub struct Engine {
    pub(crate) core: Arc<Core>,
    /// Where the embedded logs start.
    pub(crate) starts: Mutex<Starts>,
}

impl Engine {
    /// Makes `dir` the data directory of a node. Durable on return. If a crash cut it short, it is
    /// repeated, unless a whole identity is there already.
    ///
    /// # Errors
    /// [`OpenError::NotEmpty`] if anything but a lock file or a begun identity is in it,
    /// [`OpenError::Lock`], [`OpenError::Identity`], [`OpenError::Io`]. In the first case nothing was changed.
    pub fn format(storage: &Arc<dyn Storage>, dir: &Path, new: NewIdentity) -> Result<(), OpenError> {
        let io = |action| move |source| OpenError::Io { path: dir.to_path_buf(), action, source };
        storage.create_dir(dir).map_err(io("make the directory"))?;
        let lock = lock::take(storage.as_ref(), dir)?;
        let entries = storage.list(dir).map_err(io("list"))?;
        if let Some(entry) =
            entries.into_iter().find(|entry| !["lock", "identity"].contains(&entry.name.as_str()))
        {
            return Err(OpenError::NotEmpty { dir: dir.to_path_buf(), name: entry.name });
        }
        Identity::format(storage.as_ref(), dir, new.cluster, new.node, new.incarnation)?;
        storage.sync_dir(dir).map_err(io("sync"))?;
        storage.sync_dir(crate::storage::parent(dir)).map_err(io("sync the parent of"))?;
        drop(lock);
        Ok(())
    }

    /// Gives a directory that no process uses a new incarnation, see [`Identity::renew`].
    ///
    /// # Errors
    /// [`OpenError::Lock`], [`OpenError::Identity`].
    pub fn renew(storage: &dyn Storage, dir: &Path, incarnation: Incarnation) -> Result<(), OpenError> {
        let lock = lock::take(storage, dir)?;
        Identity::renew(storage, dir, incarnation)?;
        drop(lock);
        Ok(())
    }

    /// Takes the directory for this process, raises its boot epoch durably and looks what is there.
    ///
    /// # Errors
    /// [`OpenError`]. The boot epoch may have been raised.
    pub fn open(storage: Arc<dyn Storage>, dir: &Path, options: Options) -> Result<Arc<Self>, OpenError> {
        let lock = lock::take(storage.as_ref(), dir)?;
        sync_name(storage.as_ref(), dir)?;
        let clock = options.clock.clone();
        let mut watch = Laps::new(clock.as_ref());
        let quarantine = Quarantine::new(dir, options.quarantine);
        let (opened, findings) = take_identity(storage.as_ref(), dir, &quarantine, options.now)?;
        watch.lap("identity");
        let core = Core {
            data_dir: dir.to_path_buf(),
            identity: opened.identity,
            mode: options.mode,
            open_files: OpenFiles::new(options.open_files_max),
            quarantine,
            opened_at: options.now,
            opened_at_micros: clock.as_ref().map_or(0, |clock| clock.micros()),
            keep: Keep::default(),
            room: Room::new(options.reserve_bytes),
            lives: Lives::default(),
            clock: options.clock,
            report: Mutex::new(RecoveryReport::of_identity(&opened, findings)),
            report_file: Mutex::default(),
            open_threads: options.open_threads,
            tally: Tally::new(options.progress),
            #[cfg(feature = "defects")]
            defects: options.defects,
            _lock: lock,
            storage,
        };
        let engine = Self { core: Arc::new(core), starts: Mutex::default() };
        engine.core.look_at_checkpoints()?;
        watch.lap("checkpoints");
        match engine.core.logs_on_disk(true) {
            Ok(logs) => engine.core.keep.found_on_disk(&logs),
            Err(error) => engine.core.note("unlisted", engine.core.logs_dir(), error.to_string()),
        }
        watch.lap("names");
        if engine.core.mode == Mode::Embedded {
            engine.look_at_starts();
            watch.lap("starts");
        }
        engine.core.report.lock().unwrap_or_else(PoisonError::into_inner).took = watch.finish();
        engine.core.tell_directory();
        engine.core.room.look(&engine.core);
        Ok(Arc::new(engine))
    }

    /// Who the directory belongs to, with the boot epoch of this start.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.core.identity
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.core.data_dir
    }

    /// The files.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.core.storage
    }

    /// What opening found so far.
    #[must_use]
    pub fn report(&self) -> RecoveryReport {
        self.core.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sums of what was found so far, for metrics.
    #[must_use]
    pub fn recovery_counts(&self) -> RecoveryCounts {
        self.core.report.lock().unwrap_or_else(PoisonError::into_inner).counts
    }

    /// How much room the disk has. Asks the system each time.
    #[must_use]
    pub fn room(&self) -> DiskRoom {
        self.core.room.look(&self.core)
    }

    /// Segment files open for reading.
    #[must_use]
    pub fn open_files(&self) -> usize {
        self.core.open_files.len()
    }

    /// The logs that have a directory, opened or not.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn logs_on_disk(&self) -> Result<Vec<LogId>, OpenError> {
        self.core.logs_on_disk(false)
    }

    /// Moves a file or directory of the data directory that is not the engine's, such as a damaged raft log, to
    /// quarantine, durably. There is no second quarantine beside this one: what one start sets aside is kept
    /// until the next, and only its owner knows what that is.
    ///
    /// # Errors
    /// [`QuarantineError`]: it is where it was, or has been moved whole.
    pub fn set_aside(&self, path: &Path, why: &str) -> Result<Aside, QuarantineError> {
        self.core.set_aside_file(path, why)
    }

    /// Does something of its owner's that must succeed on a full disk too, such as opening a raft log: if there is no room,
    /// once more with the room of the reserve.
    ///
    /// # Errors
    /// Those of the last attempt.
    pub fn with_reserve<T, E>(
        &self,
        attempt: impl Fn() -> Result<T, E>,
        is_full: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        self.core.with_reserve(attempt, is_full)
    }

    /// Keeps the files of all logs that nobody has opened, whatever the checkpoints say, until it is called
    /// with `false`. For installations that a crash interrupted: their files are in place, and no checkpoint
    /// names them yet.
    pub fn hold_unopened(&self, held: bool) {
        self.core.keep.hold_unopened(held);
    }

    /// Writes a checkpoint, durably, and removes those before the last two of its group. The segments
    /// it names must have been synced: see [`LogWriter::sync_target`](crate::log::LogWriter::sync_target).
    ///
    /// # Errors
    /// [`CheckpointError::Io`]: the older ones are as they were.
    pub fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        self.replace_checkpoint(checkpoint)?;
        if self.core.mode == Mode::Consensus {
            for log in self.core.keep.orphans() {
                match self.files_of(log) {
                    Ok(files) => self.core.keep.doom_orphan(log, &files),
                    Err(error) => tracing::warn!(%log, %error, "cannot remove a log that nothing names"),
                }
            }
        }
        self.core.unlink_unnamed();
        Ok(())
    }

    /// The same, but what segments it lets go stay until somebody unlinks them.
    pub(crate) fn replace_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let kept = self.place_checkpoint(checkpoint)?;
        let dir = store::group_dir(&self.core.data_dir, checkpoint.group);
        store::remove_others(self.core.storage.as_ref(), &dir, &kept)
    }

    /// Writes a checkpoint, durably, and removes none. Returns those to keep, newest first.
    pub(crate) fn place_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Vec<EntryId>, CheckpointError> {
        let storage = self.core.storage.as_ref();
        let write = || store::write(storage, &self.core.data_dir, checkpoint);
        if let Err(error) = self.core.with_reserve(write, CheckpointError::is_full) {
            // It may have got its name all the same, and then the next start needs what it names.
            if store::may_be_there(storage, &self.core.data_dir, checkpoint) {
                self.core.keep.doubts(checkpoint.group);
            }
            return Err(error);
        }
        Ok(self.core.keep.named(checkpoint, KEPT))
    }

    /// Loads the newest valid checkpoint of a group; `None` if it has none.
    ///
    /// # Errors
    /// [`CheckpointError::AllBad`]: there are some and none is valid. [`CheckpointError::Io`].
    pub fn load_checkpoint(&self, group: GroupId) -> Result<Option<LoadedCheckpoint>, CheckpointError> {
        Ok(store::load(self.core.storage.as_ref(), &self.core.data_dir, group)?.map(LoadedCheckpoint::from))
    }

    /// The groups that have checkpoints.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn groups_with_checkpoints(&self) -> Result<Vec<GroupId>, CheckpointError> {
        store::groups(self.core.storage.as_ref(), &self.core.data_dir)
    }

    /// Removes all checkpoints of a group, durably: it has ended here. Its logs are the caller's to remove.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]: some of them may be there still.
    pub fn forget_group(&self, group: GroupId) -> Result<(), CheckpointError> {
        let dir = store::group_dir(&self.core.data_dir, group);
        store::remove_others(self.core.storage.as_ref(), &dir, &[])?;
        self.core.keep.forget(group);
        self.core.unlink_unnamed();
        Ok(())
    }

    /// The kept checkpoints that name a log.
    #[must_use]
    pub fn checkpoints_naming(&self, log: LogId) -> Vec<(GroupId, EntryId)> {
        self.core.keep.naming(log)
    }

    /// Keeps segment files from being unlinked while the pin is held.
    pub fn pin(&self, files: Vec<(LogId, Offset)>) -> Pin {
        self.core.pin(files)
    }

    /// Removes a log: its files are unlinked as soon as no kept checkpoint and no pin names them. Whoever
    /// still holds a handle of it is told: readers by [`ReadError::Removed`](crate::log::ReadError::Removed), also
    /// those who wait for more, a writer by [`AppendError::Removed`](crate::log::AppendError::Removed). The log cannot be
    /// opened again before its writer is dropped, nor should it be: the next life of a name has a
    /// generation of its own.
    ///
    /// # Errors
    /// - [`LogError::AlreadyOpen`]: somebody is just opening it. Nothing was changed.
    /// - [`LogError::Io`]: the log's directory cannot be listed.
    pub fn remove_log(&self, log: LogId) -> Result<(), LogError> {
        let removal = self.core.lives.remove(log).ok_or(LogError::AlreadyOpen { log })?;
        if let Some(shared) = &removal.latest {
            shared.end(Ended::Removed);
        }
        self.core.open_files.close_log(log);
        if self.core.mode == Mode::Embedded {
            self.forget_start(log);
        }
        let files = self.files_of(log)?;
        self.core.keep.doom(log, &files);
        self.core.unlink_unnamed();
        drop(removal);
        Ok(())
    }

    /// The segment files in a log's directory: base of each, and of the next.
    fn files_of(&self, log: LogId) -> Result<Vec<(Offset, Offset)>, LogError> {
        let dir = self.core.log_dir(log);
        let entries = match self.core.storage.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(LogError::Io { path: dir, action: "list", source }),
        };
        let bases: Vec<Offset> =
            entries.iter().filter_map(|entry| segment::parse_file_name(&entry.name)).collect();
        let ends = bases.iter().copied().skip(1).chain([Offset(u64::MAX)]);
        Ok(bases.iter().copied().zip(ends).collect())
    }
}

/// Makes the name of the data directory durable, which a formatting that was cut short has left undone.
fn sync_name(storage: &dyn Storage, dir: &Path) -> Result<(), OpenError> {
    let holder = crate::storage::parent(dir);
    match storage.sync_dir(holder) {
        // Whoever may not read the directory above cannot sync it, and has not made the name.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        done => done.map_err(|source| OpenError::Io { path: holder.to_path_buf(), action: "sync", source }),
    }
}
