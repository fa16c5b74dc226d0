//! A disk in memory that a seed makes fail: the [`Storage`] that tests and the simulator run on.
//!
//! It keeps what the disk holds apart from what the cache holds. Reads see the cache. `sync` and
//! `sync_dir` carry the cache over to the disk. A crash decides what becomes of the difference:
//! nothing is lost when only the process dies, anything unsynced may be when the power is cut, in
//! the ways that `contents` and `names` describe. Afterwards every handle and lock of the old
//! process is dead, and the caller opens its files again as a new process would.
//!
//! Everything is decided by the seed and by the order of calls, so the same calls leave the same
//! bytes and the same [`SimDisk::trace`].
//!
//! Not here: time. Operations take none; whoever simulates slow disks delays around them.

mod chance;
mod contents;
mod fault;
mod handle;
mod image;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

pub use self::chance::Decision;
pub use self::fault::{Call, Failure, Fault, Lasting, Operation, Written};

use self::chance::Chance;
use self::contents::Style;
use self::fault::{Faults, Struck};
use self::handle::{SimFile, SimLock};
use self::names::{Ino, Names};
use crate::locks::{Arc, Mutex, MutexGuard, PoisonError};
use crate::storage::{DirEntry, DirectoryLock, File, OpenMode, Position, Storage};

/// Free bytes of a new disk.
const FREE_BYTES_DEFAULT: u64 = 1 << 40;

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process alone. The cache is kept, so a new process reads what was written, but no more
    /// of it is durable than before.
    ProcessOnly,
    /// The machine, and everything unsynced is lost.
    LoseUnsynced,
    /// The machine. Each unsynced write is lost, torn or kept, in any order between syncs; lengths
    /// and data, and names and files, each fare for themselves. A few seeds lose or keep everything.
    PowerCut {
        /// Decides the fate of each piece.
        seed: u64,
    },
}

/// A simulated disk. Clones are handles to the same disk; [`SimDisk::fork`] makes another one.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug)]
struct State {
    names: Names,
    /// Raised at each crash; handles of an earlier one are dead.
    session: u64,
    open: BTreeMap<Ino, u32>,
    locks: BTreeMap<PathBuf, u64>,
    next_lock: u64,
    faults: Faults,
    free_bytes: u64,
    chance: Chance,
    changes: u64,
    stop_at: Option<u64>,
    trace: u64,
}

impl SimDisk {
    /// An empty disk with a root directory.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            names: Names::new(),
            session: 0,
            open: BTreeMap::new(),
            locks: BTreeMap::new(),
            next_lock: 0,
            faults: Faults::default(),
            free_bytes: FREE_BYTES_DEFAULT,
            chance: Chance::new(seed),
            changes: 0,
            stop_at: None,
            trace: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This disk as a storage to hand in.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    /// Another disk in the same state, unsynced changes included. Contents are shared until one of
    /// them writes, so this is cheap. Handles and locks stay with this one; the copy has none.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.session = state.session.saturating_add(1);
        state.open.clear();
        state.locks.clear();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Crashes. All handles and locks die; waiting faults and a stop are forgotten.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.state();
        match crash {
            Crash::ProcessOnly => state.end_session(),
            Crash::LoseUnsynced => state.cut(Style::LoseAll, &mut Chance::new(0)),
            Crash::PowerCut { seed } => {
                let mut chance = Chance::new(seed);
                let style = match chance.up_to(15) {
                    0 => Style::LoseAll,
                    1 => Style::KeepAll,
                    _ => Style::Mixed,
                };
                state.cut(style, &mut chance);
            }
        }
        let mark = format!("{crash:?}");
        state.trace = xxh3_64_with_seed(mark.as_bytes(), state.trace);
    }

    /// Cuts the power and lets `path` choose: whether each unsynced name is kept, then for each file that is
    /// left how many of its unsynced lengths are, and whether each changed sector is. Where the path is
    /// at its end everything is kept. Returns the choices that there were, so that the next path can be
    /// told from them and all be gone through: [`next_path`].
    #[must_use]
    pub fn crash_choosing(&self, path: &[u32]) -> Vec<Decision> {
        let mut state = self.state();
        let mut chance = Chance::told(path);
        state.cut(Style::Told, &mut chance);
        let mark = format!("{path:?}");
        state.trace = xxh3_64_with_seed(mark.as_bytes(), state.trace);
        chance.taken()
    }

    /// Lets a failure wait for its operation.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// Forgets the failures that still wait.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Sets the bytes left for files to grow; a write beyond fails with `StorageFull`.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state().free_bytes = bytes;
    }

    /// How many operations so far could change what a crash leaves behind.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Stops the machine when [`SimDisk::changes`] reaches `changes`: from then on every operation
    /// fails and does nothing, until [`SimDisk::crash`].
    pub fn stop_at(&self, changes: u64) {
        self.state().stop_at = Some(changes);
    }

    /// Whether the machine has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().is_stopped()
    }

    /// Inverts `bit` (0..=7) of one byte, on the disk and in the cache, as a decaying medium would.
    ///
    /// # Errors
    /// `NotFound` if there is no such file, `UnexpectedEof` if it ends before `position`.
    pub fn flip_bit(&self, path: &Path, position: Position, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.names.find(path)?;
        if state.names.contents_mut(ino)?.flip(position.get(), bit) {
            Ok(())
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }

    /// Makes a range of a file unreadable: EIO, until it is written anew.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn spoil(&self, path: &Path, bytes: std::ops::Range<u64>) -> io::Result<()> {
        let mut state = self.state();
        let ino = state.names.find(path)?;
        state.names.contents_mut(ino)?.spoil(bytes);
        Ok(())
    }

    /// The system takes its memory back: files without unsynced changes are read from the disk again.
    pub fn drop_caches(&self) {
        self.state().names.drop_caches();
    }

    /// Notes every call from now on. Notes of before are forgotten.
    pub fn note_calls(&self) {
        self.state().faults.calls = Some(Vec::new());
    }

    /// The calls noted so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().faults.calls.clone().unwrap_or_default()
    }

    /// How many changes of the file at `path` no sync has covered yet.
    ///
    /// # Errors
    /// `NotFound` if there is no such file.
    pub fn unsynced(&self, path: &Path) -> io::Result<usize> {
        let state = self.state();
        Ok(state.names.contents(state.names.find(path)?)?.unsynced())
    }

    /// Hash of all operations so far: equal for equal runs.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    /// Hash of all names and bytes that a process would see now, to tell distinct images apart.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint_of(&|_| true)
    }

    /// The same for those names alone that count.
    #[must_use]
    pub fn fingerprint_of(&self, counts: &dyn Fn(&Path) -> bool) -> u64 {
        let state = self.state();
        let mut hash = Xxh3::new();
        for (path, ino) in state.names.walk() {
            if !counts(Path::new(&path)) {
                continue;
            }
            hash.update(path.as_bytes());
            match state.names.contents(ino) {
                Ok(contents) => {
                    hash.update(b"\0file");
                    hash.update(&contents.cached().len().to_le_bytes());
                    contents.cached().each_page(|number, page| {
                        hash.update(&number.to_le_bytes());
                        hash.update(page);
                    });
                }
                Err(_) => hash.update(b"\0dir"),
            }
        }
        hash.digest()
    }

    /// All files that a process would see now.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state();
        let all = state.names.walk();
        all.into_iter()
            .filter(|(_, ino)| state.names.contents(*ino).is_ok())
            .map(|(path, _)| path.into())
            .collect()
    }
}

impl State {
    /// The process is no more.
    fn end_session(&mut self) {
        self.session = self.session.saturating_add(1);
        self.open.clear();
        self.locks.clear();
        self.faults.clear();
        self.stop_at = None;
    }

    /// Nor is the cache.
    fn cut(&mut self, style: Style, chance: &mut Chance) {
        self.end_session();
        let used_before = self.names.used_bytes();
        self.names.cut(style, chance);
        let used = self.names.used_bytes();
        self.free_bytes = self.free_bytes.saturating_add(used_before).saturating_sub(used);
    }

    fn is_stopped(&self) -> bool {
        self.stop_at.is_some_and(|stop| self.changes >= stop)
    }

    /// Counts and records an operation, and says which failure strikes it.
    fn begin(&mut self, operation: Operation, path: &Path, detail: u64) -> io::Result<Option<Struck>> {
        if self.is_stopped() {
            return Err(dead("the simulated machine has stopped"));
        }
        if operation.changes() {
            self.changes = self.changes.saturating_add(1);
        }
        let name = path.to_string_lossy();
        self.trace = xxh3_64_with_seed(name.as_bytes(), self.trace ^ detail);
        self.trace = xxh3_64_with_seed(&[operation.tag()], self.trace);
        self.faults.note(operation, path);
        Ok(self.faults.strike(operation, path))
    }

    /// The same for operations that do nothing when a failure strikes.
    fn attempt(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.begin(operation, path, 0)? {
            Some(struck) => Err(struck.failure.error()),
            None => Ok(()),
        }
    }

    /// Takes the bytes by which a file is to grow from those free.
    fn grow(&mut self, from: u64, to: u64) -> io::Result<()> {
        let growth = to.saturating_sub(from);
        self.free_bytes = self.free_bytes.checked_sub(growth).ok_or_else(|| Failure::NoSpace.error())?;
        self.free_bytes = self.free_bytes.saturating_add(from.saturating_sub(to));
        Ok(())
    }

    fn give_back(&mut self, bytes: u64) {
        self.free_bytes = self.free_bytes.saturating_add(bytes);
    }

    /// How many of `len` bytes chance writes before it fails.
    fn part_of(&mut self, len: usize) -> usize {
        let last = u64::try_from(len).unwrap_or(0);
        usize::try_from(self.chance.up_to(last)).unwrap_or(0)
    }

    /// Takes the room that a write needs.
    fn make_room(&mut self, ino: Ino, position: u64, bytes: &[u8]) -> io::Result<()> {
        let added = u64::try_from(bytes.len()).map_err(|_| ErrorKind::FileTooLarge)?;
        let end = position.checked_add(added).ok_or(ErrorKind::FileTooLarge)?;
        let len = self.names.contents(ino)?.cached().len();
        self.grow(len, end.max(len))
    }

    /// Writes what the disk will never hold.
    fn lose(&mut self, ino: Ino, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.make_room(ino, position, bytes)?;
        self.names.contents_mut(ino)?.write_lost(position, bytes);
        Ok(())
    }

    fn write(&mut self, ino: Ino, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.make_room(ino, position, bytes)?;
        if !bytes.is_empty() {
            self.names.contents_mut(ino)?.write(position, bytes);
        }
        Ok(())
    }
}

/// The path that follows the one which led to these choices, when all are gone through in order;
/// `None` after the last.
#[must_use]
pub fn next_path(taken: &[Decision]) -> Option<Vec<u32>> {
    let at = taken.iter().rposition(|decision| decision.chosen.saturating_add(1) < decision.of)?;
    let mut path: Vec<u32> =
        taken.iter().take(at.saturating_add(1)).map(|decision| decision.chosen).collect();
    if let Some(last) = path.last_mut() {
        *last = last.saturating_add(1);
    }
    Some(path)
}

/// An error of a process that is no more.
fn dead(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::NotConnected, why)
}

impl Storage for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        let ino = match mode {
            OpenMode::Read | OpenMode::ReadWrite => {
                state.attempt(Operation::Open, path)?;
                let ino = state.names.find(path)?;
                state.names.contents(ino)?;
                ino
            }
            OpenMode::CreateNew => {
                state.attempt(Operation::Create, path)?;
                state.names.create(path)?
            }
        };
        let count = state.open.entry(ino).or_insert(0);
        *count = count.saturating_add(1);
        let session = state.session;
        drop(state);
        Ok(Arc::new(SimFile { disk: self.clone(), session, ino, path: path.to_path_buf(), mode }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.attempt(Operation::List, dir)?;
        state.names.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.attempt(Operation::CreateDir, dir)?;
        state.names.create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.attempt(Operation::RemoveDir, dir)?;
        state.names.remove_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let detail = xxh3_64(to.to_string_lossy().as_bytes());
        if let Some(struck) = state.begin(Operation::Rename, from, detail)? {
            return Err(struck.failure.error());
        }
        let freed = state.names.rename(from, to)?;
        state.give_back(freed);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.attempt(Operation::Remove, path)?;
        let freed = state.names.remove(path)?;
        state.give_back(freed);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.attempt(Operation::SyncDir, dir)?;
        state.names.sync_dir(dir)?;
        let state = &mut *state;
        state.names.sweep(&state.open);
        Ok(())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.attempt(Operation::FreeBytes, dir)?;
        Ok(state.free_bytes)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirectoryLock>> {
        let mut state = self.state();
        state.attempt(Operation::Lock, path)?;
        match state.names.find(path) {
            Ok(ino) => state.names.contents(ino).map(|_| ())?,
            Err(error) if error.kind() == ErrorKind::NotFound => state.names.create(path).map(|_| ())?,
            Err(error) => return Err(error),
        }
        let path: PathBuf = path.components().collect();
        if state.locks.contains_key(&path) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let number = state.next_lock;
        state.next_lock = number.saturating_add(1);
        state.locks.insert(path.clone(), number);
        drop(state);
        Ok(Box::new(SimLock { disk: self.clone(), path, number }))
    }
}
