//! The raft log of a server: raft-engine, one for all groups of the node.
//!
//! - Opening: the directory is made durably, and the names in it are synced, since a killed process may have
//!   left some in the cache only; files that may have an unsynced tail are synced before they are read
//!   (`super::watched_files`); raft-engine cuts a tail that does not verify, unless it was synced once
//!   (`super::cut_tail`): that is damage; then a batch that is not empty is written and synced, because its own `sync` with nothing to write does
//!   nothing. Only then does what recovery kept count.
//! - Writing: all gathered writes are one raft-engine batch, so they are atomic and share one sync.
//! - Entries are synced even when nobody asks for it (nobody but tests does not): opening, raft-engine checks
//!   the entries of a file's last batch only, so those of an earlier one must not be torn.
//! - raft-engine panics on a hole or on a write below what was compacted, and inside recovery on some
//!   damage. Holes are checked here first; a panic while opening becomes [`RaftLogError::Damaged`].
//! - Compacting: after a restart raft-engine may show entries again that were compacted away, and even
//!   such as had been overwritten before. So the first kept index is stored beside the entries, is
//!   durable before any file is given back, and is enforced again by opening.
//! - Tuning: batches come compressed, so it does not compress; files are small and recycled, and some
//!   are filled with zeros ahead, so that a sync changes no file's map of blocks.
//!
//! Not here: when to compact and purge (`crate::runtime`).

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use raft::eraftpb::Entry;
use raft_engine::env::{DefaultFileSystem, FileSystem};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};
use tidelog_engine::storage::{Storage, create_dir_durably, parent};
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId};

use super::values::{
    decode_hard_state, decode_index, decode_install_mark, decode_replica, encode_hard_state, encode_index,
    encode_install_mark, encode_replica, note_entry, span_after,
};
use super::watched_files::{Opening, WatchedFiles};
use super::{GroupLog, GroupWrite, InstallChange, InstallMark, RaftLog, RaftLogError, Span, SyncPolicy};

const HARD_STATE: &[u8] = b"hard-state";
const INSTALL: &[u8] = b"install";
/// Stands where an install mark was.
const NO_MARK: &[u8] = &[0];
/// The first entry kept by the last compaction.
const FIRST_KEPT: &[u8] = b"first-kept";
/// Whose log it is.
const REPLICA: &[u8] = b"replica";
/// raft-engine's region that is no group: it takes the batch that makes an opening durable.
const NO_GROUP: u64 = u64::MAX;
const OPENED: &[u8] = b"opened";

/// Sizes of a raft-engine, and how it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLogOptions {
    /// A file is followed by the next at about this many bytes.
    pub file_bytes: u64,
    /// From this many bytes on, old files are given back.
    pub purge_bytes: u64,
    /// How many bytes of files are filled with zeros ahead when the log is opened; 0 for none.
    pub prefill_bytes: u64,
    /// Threads that read the files when the log is opened, and cut torn tails. With one, the same files are opened by the same
    /// operations in the same order each time.
    pub recovery_threads: usize,
}

impl Default for EngineLogOptions {
    fn default() -> Self {
        Self { file_bytes: 32 << 20, purge_bytes: 256 << 20, prefill_bytes: 64 << 20, recovery_threads: 2 }
    }
}

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// The raft log of a server, over the operating system's files unless told otherwise. See the module.
pub struct EngineLog<F: FileSystem = DefaultFileSystem> {
    engine: Engine<WatchedFiles<F>>,
    dir: PathBuf,
    /// Held from a look at what a group has until the batch that follows from it is written, and synced if it has
    /// entries. So no two batches with entries are on their way at once, which `super::cut_tail` relies on.
    turn: Mutex<()>,
}

impl<F: FileSystem> fmt::Debug for EngineLog<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EngineLog").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl EngineLog {
    /// Opens the log in `dir`, making it if it is not there. `storage` must be the operating
    /// system's: raft-engine opens its files itself.
    ///
    /// On return, all that the log holds is durable.
    ///
    /// # Errors
    /// [`RaftLogError::Damaged`] if a file other than the last does not verify, or the last one somewhere else than at
    /// its end, or recovery panicked: nothing was changed except a tail that was cut. [`RaftLogError::Io`] if the disk failed.
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        options: EngineLogOptions,
        policy: Arc<dyn SyncPolicy>,
    ) -> Result<Self, RaftLogError> {
        Self::open_over(DefaultFileSystem, storage, dir, options, policy)
    }
}

impl<F: FileSystem + 'static> EngineLog<F> {
    /// The same over other files, so that they can be recorded. raft-engine itself lists and locks `dir`
    /// of the operating system: a directory with the names of `files` must be there. `storage` must
    /// mean the directories that `files` are in.
    ///
    /// # Errors
    /// As [`EngineLog::open`].
    pub fn open_over(
        files: F,
        storage: Arc<dyn Storage>,
        dir: &Path,
        options: EngineLogOptions,
        policy: Arc<dyn SyncPolicy>,
    ) -> Result<Self, RaftLogError> {
        let at = |action| move |source| RaftLogError::Io { path: dir.to_path_buf(), action, source };
        create_dir_durably(storage.as_ref(), parent(dir), dir).map_err(at("make the directory"))?;
        // After a killed process a file may have its name in the cache only: before anything is written to it
        // and acknowledged, its name is made durable too.
        policy.run(dir, &mut || storage.sync_dir(dir)).map_err(at("sync the directory"))?;
        let opening = Arc::new(Opening::of(storage.as_ref(), dir).map_err(at("list the directory"))?);
        let files = Arc::new(WatchedFiles::new(files, storage, policy, Arc::clone(&opening)));
        let config = config(dir, options)?;
        let opened = catch_unwind(AssertUnwindSafe(|| Engine::open_with_file_system(config, files)));
        if let Some(found) = opening.lost() {
            let (path, place) = (dir.to_path_buf(), "open the raft log".to_owned());
            let expected = "what was synced once".to_owned();
            return Err(RaftLogError::Damaged { path, place, expected, found });
        }
        let engine = match opened {
            Ok(engine) => engine.map_err(|error| engine_error(dir, "open the raft log", error))?,
            Err(panic) if is_want_of_threads(panic.as_ref()) => {
                let source = io::Error::other("the system has no thread for it now");
                return Err(at("open the raft log")(source));
            }
            Err(_) => {
                return Err(RaftLogError::Damaged {
                    path: dir.to_path_buf(),
                    place: "some file".to_owned(),
                    expected: "a raft log".to_owned(),
                    found: "contents on which recovery panicked; see the lines above".to_owned(),
                });
            }
        };
        opening.is_done();
        let log = Self { engine, dir: dir.to_path_buf(), turn: Mutex::new(()) };
        if options.prefill_bytes > 0 && log.engine.is_empty() {
            // The first file was made empty; move on to one that is filled with zeros.
            log.engine.purge_manager().must_purge_all_stale();
        }
        log.compact_again()?;
        log.write_marker()?;
        Ok(log)
    }

    /// Takes away what was compacted before and has come back. A group whose log does not reach its first
    /// kept entry, or whose note of it is bad, is left to [`RaftLog::load`]: the others are not to suffer.
    fn compact_again(&self) -> Result<(), RaftLogError> {
        let mut batch = LogBatch::default();
        for group in self.groups() {
            let (Ok(Some(first_kept)), Some(span)) =
                (self.value(group, FIRST_KEPT, decode_index), self.span(group))
            else {
                continue;
            };
            if span.first < first_kept && first_kept <= span.last {
                batch.add_command(group.get(), Command::Compact { index: first_kept.get() });
            }
        }
        if batch.is_empty() { Ok(()) } else { self.commit(&mut batch, true) }
    }

    /// Checks that the log of `group` reaches the entry that its last compaction kept.
    fn check_first_kept(&self, group: GroupId, span: Option<Span>) -> Result<(), RaftLogError> {
        let Some(first_kept) = self.value(group, FIRST_KEPT, decode_index)? else { return Ok(()) };
        let found = match span {
            Some(span) if span.last >= first_kept => return Ok(()),
            Some(span) => format!("a log that ends with entry {}", span.last),
            None => "no entries".to_owned(),
        };
        let expected = format!("entry {first_kept}, which was kept when others were compacted away");
        Err(self.damaged(format!("group {group}"), expected, found))
    }

    /// Writes and syncs a batch that is not empty: an empty one would not be synced.
    fn write_marker(&self) -> Result<(), RaftLogError> {
        let mut batch = LogBatch::default();
        batch
            .put(NO_GROUP, OPENED.to_vec(), vec![1])
            .map_err(|error| self.failed("prepare a batch", error))?;
        self.commit(&mut batch, true)
    }

    fn commit(&self, batch: &mut LogBatch, sync: bool) -> Result<(), RaftLogError> {
        let Err(error) = self.engine.write(batch, sync) else { return Ok(()) };
        if let raft_engine::Error::Io(source) = &error
            && source.kind() == io::ErrorKind::StorageFull
        {
            // raft-engine cuts the file to where it was, and has taken nothing into its memory.
            return Err(RaftLogError::Full { path: self.dir.clone(), source: source.kind().into() });
        }
        Err(self.failed("write a batch", error))
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, action: &'static str, error: raft_engine::Error) -> RaftLogError {
        engine_error(&self.dir, action, error)
    }

    fn span(&self, group: GroupId) -> Option<Span> {
        let first = RaftIndex(self.engine.first_index(group.get())?);
        let last = RaftIndex(self.engine.last_index(group.get())?);
        Some(Span { first, last })
    }

    fn damaged(&self, place: String, expected: impl Into<String>, found: impl Into<String>) -> RaftLogError {
        RaftLogError::Damaged {
            path: self.dir.clone(),
            place,
            expected: expected.into(),
            found: found.into(),
        }
    }

    fn value<T>(
        &self,
        group: GroupId,
        key: &[u8],
        decode: fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, RaftLogError> {
        let Some(bytes) = self.engine.get(group.get(), key) else { return Ok(None) };
        decode(&bytes).map(Some).ok_or_else(|| {
            let place = format!("group {group}, {}", String::from_utf8_lossy(key));
            self.damaged(place, "a value of format 1", format!("{bytes:02x?}"))
        })
    }

    fn entry(&self, group: GroupId, index: RaftIndex) -> Result<Entry, RaftLogError> {
        let place = || format!("group {group}, entry {index}");
        match self.engine.get_entry::<Entries>(group.get(), index.get()) {
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(self.damaged(place(), "an entry", "none")),
            Err(raft_engine::Error::Io(source)) => {
                Err(RaftLogError::Io { path: self.dir.clone(), action: "read an entry", source })
            }
            Err(
                error @ (raft_engine::Error::InvalidArgument(_)
                | raft_engine::Error::Corruption(_)
                | raft_engine::Error::Codec(_)
                | raft_engine::Error::Protobuf(_)
                | raft_engine::Error::TryAgain(_)
                | raft_engine::Error::EntryCompacted
                | raft_engine::Error::EntryNotFound
                | raft_engine::Error::Full
                | raft_engine::Error::Other(_)),
            ) => Err(self.damaged(place(), "an entry that verifies", error.to_string())),
        }
    }

    fn add(
        &self,
        batch: &mut LogBatch,
        write: &GroupWrite,
        replica: Option<ReplicaId>,
    ) -> raft_engine::Result<()> {
        let region = write.group.get();
        if write.clear {
            batch.add_command(region, Command::Clean);
        }
        if let Some(replica) = replica {
            batch.put(region, REPLICA.to_vec(), encode_replica(replica).to_vec())?;
        }
        batch.add_entries::<Entries>(region, &write.entries)?;
        if let Some(state) = &write.hard_state {
            batch.put(region, HARD_STATE.to_vec(), encode_hard_state(state).to_vec())?;
        }
        match &write.install {
            InstallChange::Keep => {}
            InstallChange::Set(mark) => {
                batch.put(region, INSTALL.to_vec(), encode_install_mark(mark).to_vec())?;
            }
            // Written over, not deleted: raft-engine may show a deleted value again after a restart.
            InstallChange::Remove => batch.put(region, INSTALL.to_vec(), NO_MARK.to_vec())?,
        }
        Ok(())
    }
}

impl<F: FileSystem + 'static> RaftLog for EngineLog<F> {
    fn write(&self, writes: &[GroupWrite], sync: bool) -> Result<(), RaftLogError> {
        let _turn = self.turn();
        let sync = sync || writes.iter().any(|write| !write.entries.is_empty());
        let mut spans = BTreeMap::new();
        let mut replicas = BTreeMap::new();
        let mut batch = LogBatch::with_capacity(writes.len());
        for write in writes {
            let held = match spans.get(&write.group) {
                _ if write.clear => None,
                Some(span) => *span,
                None => self.span(write.group),
            };
            spans.insert(write.group, span_after(write.group, held, &write.entries)?);
            let replica = match write.replica {
                Some(replica) => Some(replica),
                // Cleared with the rest, so it is written again.
                None if write.clear => match replicas.get(&write.group) {
                    Some(replica) => Some(*replica),
                    None => self.value(write.group, REPLICA, decode_replica)?,
                },
                None => None,
            };
            replicas.extend(replica.map(|replica| (write.group, replica)));
            self.add(&mut batch, write, replica).map_err(|error| self.failed("prepare a batch", error))?;
        }
        match (batch.is_empty(), sync) {
            (true, true) => self.write_marker(),
            (true, false) => Ok(()),
            (false, _) => self.commit(&mut batch, sync),
        }
    }

    fn load(&self, group: GroupId) -> Result<GroupLog, RaftLogError> {
        let mut log = GroupLog {
            span: self.span(group),
            terms: Vec::new(),
            hard_state: self.value(group, HARD_STATE, decode_hard_state)?.unwrap_or_default(),
            install: self.value(group, INSTALL, decode_optional_mark)?.flatten(),
            replica: self.value(group, REPLICA, decode_replica)?,
        };
        self.check_first_kept(group, log.span)?;
        if let Some(span) = log.span {
            for index in (span.first.get()..=span.last.get()).map(RaftIndex) {
                let entry = self.entry(group, index)?;
                note_entry(&mut log, index, &entry).map_err(|bad| {
                    self.damaged(format!("group {group}, entry {index}"), bad.expected, bad.found)
                })?;
            }
        }
        Ok(log)
    }

    fn entries(
        &self,
        group: GroupId,
        low: RaftIndex,
        high: RaftIndex,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, RaftLogError> {
        if high <= low {
            return Ok(Vec::new());
        }
        let Some(span) = self.span(group) else {
            return Err(RaftLogError::Missing { group, asked: low, end: RaftIndex::ZERO });
        };
        super::check_range(group, span, low, high)?;
        let mut entries = Vec::new();
        let limit = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        self.engine
            .fetch_entries_to::<Entries>(group.get(), low.get(), high.get(), Some(limit), &mut entries)
            .map_err(|error| self.failed("read entries", error))?;
        for (entry, index) in entries.iter().zip(low.get()..) {
            if entry.index != index {
                let place = format!("group {group}, entry {index}");
                return Err(self.damaged(place, format!("index {index}"), format!("index {}", entry.index)));
            }
        }
        Ok(entries)
    }

    fn compact(&self, group: GroupId, first_kept: RaftIndex) -> Result<(), RaftLogError> {
        // Without it, a clear that came between look and batch would leave a group without entries that
        // is said to keep some, which the next start takes for damage.
        let _turn = self.turn();
        let Some(span) = self.span(group) else { return Ok(()) };
        let index = first_kept.get().min(span.last.get());
        if index <= span.first.get() {
            return Ok(());
        }
        let mut batch = LogBatch::default();
        batch.add_command(group.get(), Command::Compact { index });
        batch
            .put(group.get(), FIRST_KEPT.to_vec(), encode_index(RaftIndex(index)).to_vec())
            .map_err(|error| self.failed("prepare a batch", error))?;
        self.commit(&mut batch, false)
    }

    fn purge(&self) -> Result<Vec<GroupId>, RaftLogError> {
        self.write_marker()?;
        let groups =
            self.engine.purge_expired_files().map_err(|error| self.failed("give old files back", error))?;
        let mut groups: Vec<_> = groups.into_iter().filter(|id| *id != NO_GROUP).map(GroupId).collect();
        groups.sort_unstable();
        Ok(groups)
    }

    fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<_> =
            self.engine.raft_groups().into_iter().filter(|id| *id != NO_GROUP).map(GroupId).collect();
        groups.sort_unstable();
        groups
    }

    fn disk_bytes(&self) -> u64 {
        u64::try_from(self.engine.get_used_size()).unwrap_or(u64::MAX)
    }
}

fn decode_optional_mark(bytes: &[u8]) -> Option<Option<InstallMark>> {
    if bytes == NO_MARK { Some(None) } else { decode_install_mark(bytes).map(Some) }
}

/// Whether raft-engine panicked because it could not make the threads that it opens with, which says nothing of its files.
fn is_want_of_threads(panic: &(dyn Any + Send)) -> bool {
    let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    words.is_some_and(|words| words.contains("ThreadPoolBuildError"))
}

fn config(dir: &Path, options: EngineLogOptions) -> Result<Config, RaftLogError> {
    let dir_text = dir.to_str().ok_or_else(|| RaftLogError::Io {
        path: dir.to_path_buf(),
        action: "use a directory whose name is not UTF-8",
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    let prefill = options.prefill_bytes > 0;
    Ok(Config {
        dir: dir_text.to_owned(),
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        recovery_threads: options.recovery_threads,
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(options.file_bytes),
        purge_threshold: ReadableSize(options.purge_bytes.max(options.file_bytes)),
        enable_log_recycle: true,
        prefill_for_recycle: prefill,
        prefill_limit: prefill.then_some(ReadableSize(options.prefill_bytes)),
        ..Config::default()
    })
}

fn engine_error(dir: &Path, action: &'static str, error: raft_engine::Error) -> RaftLogError {
    use raft_engine::Error as E;
    let path = dir.to_path_buf();
    match error {
        E::Io(source) => RaftLogError::Io { path, action, source },
        E::Corruption(found) => RaftLogError::Damaged {
            path,
            place: action.to_owned(),
            expected: "intact files".to_owned(),
            found,
        },
        E::Codec(_) | E::Protobuf(_) => RaftLogError::Damaged {
            path,
            place: action.to_owned(),
            expected: "intact files".to_owned(),
            found: error.to_string(),
        },
        E::InvalidArgument(_)
        | E::TryAgain(_)
        | E::EntryCompacted
        | E::EntryNotFound
        | E::Full
        | E::Other(_) => RaftLogError::Io { path, action, source: io::Error::other(error.to_string()) },
    }
}
