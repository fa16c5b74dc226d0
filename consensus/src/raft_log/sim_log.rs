//! The raft log of the simulator and of tests: one checksummed file on the engine's storage trait.
//!
//! 1. A write is one record at the end of the file: all of it is there after a crash, or none.
//! 2. Opening walks the records and cuts at the first that does not verify, as raft-engine does; then
//!    it syncs file and directory, so that what was kept is durable before anybody is told of it.
//! 3. Everything is held in memory too. [`RaftLog::purge`] rewrites the file from memory once it is
//!    large: into a new file, synced, renamed over the old one.
//!
//! Deterministic: the same calls on the same disk give the same bytes.
//!
//! Not here: performance, and anything a server would need (`super::engine_log`).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protobuf::Message;
use raft::eraftpb::{Entry, HardState};
use tidelog_engine::storage::{File, OpenMode, Position, Storage, create_dir_durably, parent, replace_file};
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId};

#[cfg(feature = "defects")]
use crate::defects::{Defect, plays};

use super::sim_record::{Change, decode_record, encode_record};
use super::values::{note_entry, span_after};
use super::{GroupLog, GroupWrite, InstallChange, InstallMark, RaftLog, RaftLogError, Span, check_range};

const FILE: &str = "sim.log";
const FILE_BYTES_MAX: u64 = 1 << 30;

/// How a [`SimLog`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimLogOptions {
    /// From this length of the file on, `purge` rewrites it.
    pub rewrite_bytes: u64,
}

impl Default for SimLogOptions {
    fn default() -> Self {
        Self::rewriting_at(1 << 20)
    }
}

impl SimLogOptions {
    /// The defaults, but the file is rewritten from `rewrite_bytes` on.
    #[must_use]
    pub const fn rewriting_at(rewrite_bytes: u64) -> Self {
        Self { rewrite_bytes }
    }
}

/// The raft log of the simulator. See the module.
#[derive(Debug)]
pub struct SimLog {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    options: SimLogOptions,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: Arc<dyn File>,
    end: u64,
    /// A write or sync failed: what is on disk is unknown.
    fenced: bool,
    groups: BTreeMap<GroupId, Held>,
}

#[derive(Clone, Debug, Default)]
struct Held {
    entries: VecDeque<Entry>,
    hard_state: HardState,
    install: Option<InstallMark>,
    replica: Option<ReplicaId>,
}

impl Held {
    fn span(&self) -> Option<Span> {
        let first = RaftIndex(self.entries.front()?.index);
        let last = RaftIndex(self.entries.back()?.index);
        Some(Span { first, last })
    }

    /// The entries from `low` on.
    fn from(&self, low: RaftIndex) -> impl Iterator<Item = &Entry> {
        self.entries.iter().skip_while(move |entry| entry.index < low.get())
    }
}

impl SimLog {
    /// Opens the log in `dir`, making it if it is not there.
    ///
    /// On return, all that the log holds is durable.
    ///
    /// # Errors
    /// [`RaftLogError::Io`] if the disk failed.
    pub fn open(storage: Arc<dyn Storage>, dir: &Path, options: SimLogOptions) -> Result<Self, RaftLogError> {
        let path = dir.join(FILE);
        let (file, bytes) = open_file(storage.as_ref(), &path).map_err(|source| RaftLogError::Io {
            path: path.clone(),
            action: "open the raft log",
            source,
        })?;
        let mut state = State { file, end: 0, fenced: false, groups: BTreeMap::new() };
        let mut rest: &[u8] = &bytes;
        while let Some((changes, used)) = decode_record(Position(state.end), rest) {
            state.end = state.end.saturating_add(used);
            rest = rest.get(usize::try_from(used).unwrap_or(usize::MAX)..).unwrap_or_default();
            for change in changes {
                state.change(change);
            }
        }
        let log = Self { storage, path, options, state: Mutex::new(state) };
        log.keep_recovered(&bytes).map_err(|source| RaftLogError::Io {
            path: log.path.clone(),
            action: "sync what recovery kept",
            source,
        })?;
        Ok(log)
    }

    /// Cuts what is torn, and writes the rest again before it syncs: after a failed sync the cache holds
    /// what no sync would write any more.
    fn keep_recovered(&self, bytes: &[u8]) -> io::Result<()> {
        let state = self.locked();
        let kept = usize::try_from(state.end).ok().and_then(|end| bytes.get(..end)).unwrap_or(bytes);
        if kept.len() < bytes.len() {
            state.file.truncate(state.end)?;
        }
        #[cfg(feature = "defects")]
        if plays(Defect::SkipRecoveredTailSync) {
            return Ok(());
        }
        state.file.write_at(Position::ZERO, &[kept])?;
        state.file.sync()?;
        self.storage.sync_dir(parent(&self.path))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> RaftLogError {
        let path = self.path.clone();
        move |source| RaftLogError::Io { path, action, source }
    }

    fn append(&self, state: &mut State, changes: Vec<Change>, sync: bool) -> Result<(), RaftLogError> {
        if state.fenced {
            return Err(self.io("write to a fenced log")(ErrorKind::Other.into()));
        }
        let record = encode_record(Position(state.end), &changes)
            .ok_or(ErrorKind::FileTooLarge)
            .map_err(|kind| self.io("write a record")(kind.into()))?;
        state.fenced = true;
        if !changes.is_empty() {
            state.file.write_at(Position(state.end), &[&record]).map_err(self.io("write a record"))?;
            state.end = state.end.saturating_add(u64::try_from(record.len()).unwrap_or(u64::MAX));
        }
        #[cfg(feature = "defects")]
        let sync = sync && !plays(Defect::SkipSync);
        if sync {
            state.file.sync().map_err(self.io("sync"))?;
        }
        state.fenced = false;
        for change in changes {
            state.change(change);
        }
        Ok(())
    }
}

fn open_file(storage: &dyn Storage, path: &Path) -> io::Result<(Arc<dyn File>, Vec<u8>)> {
    let dir = parent(path);
    create_dir_durably(storage, parent(dir), dir)?;
    let file = match storage.open(path, OpenMode::ReadWrite) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => storage.open(path, OpenMode::CreateNew)?,
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        return Err(ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?];
    file.read_at(Position::ZERO, &mut bytes)?;
    Ok((file, bytes))
}

impl State {
    fn change(&mut self, change: Change) {
        match change {
            Change::Clear(group) => {
                if let Some(held) = self.groups.remove(&group)
                    && held.replica.is_some()
                {
                    self.groups.insert(group, Held { replica: held.replica, ..Held::default() });
                }
            }
            Change::Replica(group, replica) => self.groups.entry(group).or_default().replica = Some(replica),
            Change::Entry(group, entry) => {
                let held = self.groups.entry(group).or_default();
                while held.entries.back().is_some_and(|last| last.index >= entry.index) {
                    held.entries.pop_back();
                }
                held.entries.push_back(entry);
            }
            Change::HardState(group, state) => self.groups.entry(group).or_default().hard_state = state,
            Change::Install(group, mark) => self.groups.entry(group).or_default().install = mark,
            Change::Compact(group, first_kept) => {
                let held = self.groups.entry(group).or_default();
                while held.entries.front().is_some_and(|first| first.index < first_kept.get()) {
                    held.entries.pop_front();
                }
            }
        }
    }

    fn all(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (group, held) in &self.groups {
            changes.extend(held.entries.iter().map(|entry| Change::Entry(*group, entry.clone())));
            changes.push(Change::HardState(*group, held.hard_state.clone()));
            changes.push(Change::Install(*group, held.install));
            changes.extend(held.replica.map(|replica| Change::Replica(*group, replica)));
        }
        changes
    }
}

fn changes_of(write: &GroupWrite) -> impl Iterator<Item = Change> {
    let group = write.group;
    let clear = write.clear.then_some(Change::Clear(group));
    let replica = write.replica.map(|replica| Change::Replica(group, replica));
    let entries = write.entries.iter().map(move |entry| Change::Entry(group, entry.clone()));
    let hard_state = write.hard_state.clone().map(|state| Change::HardState(group, state));
    let install = match write.install {
        InstallChange::Keep => None,
        InstallChange::Set(mark) => Some(Change::Install(group, Some(mark))),
        InstallChange::Remove => Some(Change::Install(group, None)),
    };
    clear.into_iter().chain(replica).chain(entries).chain(hard_state).chain(install)
}

impl RaftLog for SimLog {
    fn write(&self, writes: &[GroupWrite], sync: bool) -> Result<(), RaftLogError> {
        let mut state = self.locked();
        let mut spans = BTreeMap::new();
        let mut changes = Vec::new();
        for write in writes {
            let held = match spans.get(&write.group) {
                _ if write.clear => None,
                Some(span) => *span,
                None => state.groups.get(&write.group).and_then(Held::span),
            };
            spans.insert(write.group, span_after(write.group, held, &write.entries)?);
            changes.extend(changes_of(write));
        }
        self.append(&mut state, changes, sync)
    }

    fn load(&self, group: GroupId) -> Result<GroupLog, RaftLogError> {
        let state = self.locked();
        let Some(held) = state.groups.get(&group) else { return Ok(GroupLog::default()) };
        let mut log = GroupLog {
            span: held.span(),
            terms: Vec::new(),
            hard_state: held.hard_state.clone(),
            install: held.install,
            replica: held.replica,
        };
        let first = log.span.map_or(0, |span| span.first.get());
        for (entry, index) in held.entries.iter().zip(first..) {
            note_entry(&mut log, RaftIndex(index), entry).map_err(|bad| RaftLogError::Damaged {
                path: self.path.clone(),
                place: format!("group {group}, entry {index}"),
                expected: bad.expected,
                found: bad.found,
            })?;
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
        let state = self.locked();
        let held = state.groups.get(&group);
        let Some((held, span)) = held.and_then(|held| Some((held, held.span()?))) else {
            return Err(RaftLogError::Missing { group, asked: low, end: RaftIndex::ZERO });
        };
        check_range(group, span, low, high)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes: u64 = 0;
        for entry in held.from(low).take_while(|entry| entry.index < high.get()) {
            bytes = bytes.saturating_add(u64::from(entry.compute_size()));
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn compact(&self, group: GroupId, first_kept: RaftIndex) -> Result<(), RaftLogError> {
        let mut state = self.locked();
        match state.groups.get(&group).and_then(Held::span) {
            Some(span) if first_kept > span.first => {
                self.append(&mut state, vec![Change::Compact(group, first_kept.min(span.last))], false)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn purge(&self) -> Result<Vec<GroupId>, RaftLogError> {
        let mut state = self.locked();
        if state.end < self.options.rewrite_bytes {
            return Ok(Vec::new());
        }
        let changes = state.all();
        let record = match changes.is_empty() {
            // A record without changes does not verify.
            true => Some(Vec::new()),
            false => encode_record(Position::ZERO, &changes),
        };
        let record = record.ok_or(ErrorKind::FileTooLarge).map_err(|kind| self.io("rewrite")(kind.into()))?;
        state.fenced = true;
        replace_file(self.storage.as_ref(), &self.path, &record).map_err(self.io("rewrite"))?;
        state.file =
            self.storage.open(&self.path, OpenMode::ReadWrite).map_err(self.io("open the new file"))?;
        state.end = u64::try_from(record.len()).unwrap_or(u64::MAX);
        state.fenced = false;
        let large = |held: &&Held| !held.entries.is_empty();
        if state.end < self.options.rewrite_bytes {
            return Ok(Vec::new());
        }
        Ok(state.groups.iter().filter(|(_, held)| large(held)).map(|(group, _)| *group).collect())
    }

    fn groups(&self) -> Vec<GroupId> {
        self.locked().groups.keys().copied().collect()
    }

    fn disk_bytes(&self) -> u64 {
        self.locked().end
    }
}
