//! Where the embedded logs start, in checkpoints of group 0: each trim writes one, before anything is unlinked.
//!
//! Two are kept. **If both are bad the logs come back all the same**, as far as their files tell where they stand:
//! 1. Where a log ends its newest file says: by its frames, or by a header alone, which a purge leaves for just that
//!    (`LogWriter::witness_end`). That file is durable before a trim is recorded, and no trim unlinks it. So no
//!    offset is handed out twice, also of a log of which every record was purged; and a log without a file has
//!    handed out none.
//! 2. Where it starts nothing says any more. It is taken to start at the lowest name in its directory. So nothing is
//!    unlinked for want of a record; what was trimmed and has a file still is back, and what was trimmed above such a
//!    file reads as damaged. Both are told, and the next trim ends it. A trim gives space back; it is no promise that
//!    nobody ever sees the records again.
//! 3. Names are believed where a header does not verify, unless it is another log's or there are but zeros, as after a
//!    crash while the file was begun: too far an end costs offsets, too near a one would hand them out again.
//! 4. This is recorded at once, for all logs, in a new checkpoint; then the bad ones go to quarantine, and another one is
//!    written. A crash before the first is durable repeats it from the same files; after it the first is used. If it
//!    cannot be written it holds for this start, and the next one does the same again.
//! 5. A disk that refused may give: all are read once more before anything is taken from files. And nothing is recorded
//!    while a log cannot be listed, or it would count as one that was never trimmed.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use bytes::Bytes;
use tidelog_wire::ids::{Chain, GroupId, LogId, Offset, RaftIndex, Term, TimestampMs};

use super::EmbeddedError;
use crate::checkpoint::store::{self, KEPT};
use crate::checkpoint::table::{self, Seen, Verdict};
use crate::checkpoint::{
    Checkpoint, CheckpointError, CheckpointFault, EntryId, LogCheckpoint, LogConfig, LogState, Members,
};
use crate::engine::Engine;
use crate::locks::PoisonError;
use crate::log::recovery::files::is_zeros;
use crate::log::{LogError, LogRecovery, LogWriter};
use crate::producers::ProducerTable;
use crate::segment;
use crate::storage::{EntryKind, OpenMode, Position};

/// What the embedded logs of an engine have recorded: their starts.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    index: u64,
    logs: BTreeMap<LogId, LogCheckpoint>,
    loaded: bool,
    /// Fewer checkpoints are kept than there should be: one damaged file would be all that there is.
    alone: bool,
    /// Checkpoints that are bad and lie there still: they go to quarantine, and are not unlinked.
    bad: Vec<(EntryId, CheckpointFault)>,
    /// Directories that could not be listed when it was taken from files where logs start: theirs may be missing.
    unlisted: Vec<(PathBuf, String)>,
}

/// What a file says of the log whose directory it lies in.
struct Claim {
    base: Offset,
    chain: Chain,
    append_time: TimestampMs,
}

impl Engine {
    /// Loads what is recorded, at the start of an engine. What keeps it from that is told to whoever opens a log.
    pub(crate) fn look_at_starts(&self) {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.load_starts(&mut starts) {
            tracing::warn!(%error, "where the logs start is not known yet");
        }
    }

    /// The same if that has not succeeded yet.
    pub(super) fn starts_are_known(&self) -> Result<(), CheckpointError> {
        self.load_starts(&mut self.starts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the last trim recorded. Asked once the log is reserved, since until then its last writer may trim.
    pub(super) fn known_start(&self, log: LogId) -> Result<LogState, LogError> {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if !starts.unlisted.is_empty() && !starts.logs.contains_key(&log) {
            let failed = |source| LogError::Io { path: self.core.log_dir(log), action: "list", source };
            self.take_from_files(&mut starts, log).map_err(failed)?;
        }
        Ok(starts.logs.get(&log).map(|known| known.state.clone()).unwrap_or_default())
    }

    fn load_starts(&self, starts: &mut Starts) -> Result<(), CheckpointError> {
        if starts.loaded {
            return Ok(());
        }
        match self.load_recorded(starts) {
            Err(CheckpointError::AllBad { .. }) => self.restore_starts(starts)?,
            loaded => loaded?,
        }
        starts.loaded = true;
        Ok(())
    }

    fn load_recorded(&self, starts: &mut Starts) -> Result<(), CheckpointError> {
        starts.alone = true;
        let loaded = store::load(self.core.storage.as_ref(), &self.core.data_dir, GroupId::META)?;
        let Some(loaded) = loaded else { return Ok(()) };
        // The disk may have refused them to who looked before.
        for checkpoint in loaded.older.iter().chain([&loaded.newest]) {
            self.core.keep.named(checkpoint, KEPT);
        }
        starts.alone = loaded.older.is_none();
        let entries = loaded.bad.iter().map(|(entry, _)| *entry).chain([loaded.newest.applied]);
        starts.index = newest_index(entries);
        starts.bad = loaded.bad;
        starts.logs = loaded.newest.logs.into_iter().map(|log| (log.log, log)).collect();
        Ok(())
    }

    /// No checkpoint says where the logs start: takes it from their files.
    fn restore_starts(&self, starts: &mut Starts) -> Result<(), CheckpointError> {
        let (storage, dir) =
            (self.core.storage.as_ref(), store::group_dir(&self.core.data_dir, GroupId::META));
        let entries = store::list(storage, &dir)?;
        let read = |entry: &EntryId| Some((*entry, store::read(storage, &dir, GroupId::META, *entry).err()?));
        let bad: Vec<_> = entries.iter().filter_map(read).collect();
        let is_lost =
            |(_, fault): &(EntryId, CheckpointFault)| table::of_fault(*fault).verdict == Verdict::PassOver;
        if bad.iter().filter(|bad| is_lost(bad)).count() < entries.len() {
            // The disk gives now what it refused.
            return self.load_recorded(starts);
        }
        self.take_all_from_files(starts)?;
        // Above the bad ones, which must not be written over, nor be the newest afterwards.
        starts.index = newest_index(entries);
        starts.bad = bad;
        for (path, said) in &starts.unlisted {
            self.core.note("unlisted", path.clone(), said.clone());
        }
        match self.write_starts(starts).and_then(|()| self.write_starts(starts)) {
            Ok(()) => starts.alone = false,
            Err(error) => {
                tracing::warn!(%error, "where the logs start could not be recorded; the next start looks again");
            }
        }
        Ok(())
    }

    /// Takes from their files where those logs start of which nothing is known. Says in `unlisted` which it could not.
    fn take_all_from_files(&self, starts: &mut Starts) -> Result<(), CheckpointError> {
        let dir = self.core.logs_dir();
        starts.unlisted.clear();
        let logs = self.core.logs_on_disk(false).or_else(|error| {
            starts.unlisted.push((dir.clone(), error.to_string()));
            self.core.logs_on_disk(true)
        });
        let logs = logs.map_err(|error| CheckpointError::Io {
            path: dir,
            action: "list the logs",
            source: io::Error::other(error),
        })?;
        for log in logs {
            let is_removed = self.core.lives.latest(log).is_some_and(|latest| latest.is_removed());
            if is_removed || starts.logs.contains_key(&log) {
                continue;
            }
            if let Err(error) = self.take_from_files(starts, log) {
                starts.unlisted.push((self.core.log_dir(log), error.to_string()));
            }
        }
        Ok(())
    }

    fn take_from_files(&self, starts: &mut Starts, log: LogId) -> io::Result<()> {
        let Some(state) = self.state_by_files(log)? else { return Ok(()) };
        let row = table::decide(0, Seen::StartsLost).name;
        let said = format!("taken to start at {}, and to end at {} or above", state.start, state.end);
        self.core.note(row, self.core.log_dir(log), said);
        let (config, producers, damage) = (LogConfig::default(), ProducerTable::new(), Vec::new());
        starts.logs.insert(log, LogCheckpoint { log, config, state, producers, damage, closed: false });
        Ok(())
    }

    /// What the files of a log say of it; `None` if it has none that says anything.
    fn state_by_files(&self, log: LogId) -> io::Result<Option<LogState>> {
        let entries = match self.core.storage.list(&self.core.log_dir(log)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let mut bases: Vec<Offset> =
            files.filter_map(|entry| segment::parse_file_name(&entry.name)).collect();
        bases.sort_unstable();
        let newest = bases.iter().rev().find_map(|base| self.claim(log, *base));
        Ok(bases.first().zip(newest).map(|(start, newest)| LogState {
            start: *start,
            end: newest.base,
            active_base: newest.base,
            active_position: Position::ZERO,
            chain: newest.chain,
            epochs: Vec::new(),
            append_time: newest.append_time,
        }))
    }

    /// `None`: it says nothing about the log.
    fn claim(&self, log: LogId, base: Offset) -> Option<Claim> {
        let by_name = || Some(Claim { base, chain: Chain::ZERO, append_time: TimestampMs::default() });
        let path = self.segment_path(log, base);
        let Ok(file) = self.core.storage.open(&path, OpenMode::Read) else { return by_name() };
        let cluster = self.core.identity.cluster;
        match segment::header_of(file.as_ref()) {
            Ok(Ok(header)) if header.log == log && header.base == base && header.cluster == cluster => {
                Some(Claim { base, chain: header.chain_start, append_time: header.append_time })
            }
            Ok(Ok(_)) => None,
            Ok(Err(_)) => {
                let zeros = file.len().and_then(|len| is_zeros(file.as_ref(), Position::ZERO, len));
                if zeros.is_ok_and(|zeros| zeros) { None } else { by_name() }
            }
            Err(_) => by_name(),
        }
    }

    /// If only a record says where the log ends, its files are made to say it too.
    pub(super) fn witness_known_end(&self, writer: &mut LogWriter, recovery: &LogRecovery) {
        if recovery.read_only.is_some() || !writer.lacks_witness() {
            return;
        }
        if let Err(error) = writer.witness_end() {
            let log = writer.log();
            if writer.is_fenced() {
                tracing::warn!(%log, %error, "this log is fenced, and only the checkpoints say where it ends");
            } else {
                tracing::warn!(%log, %error, "only the checkpoints say where this log ends for now");
            }
        }
    }

    /// Records damage that was not known, and where the log ends: what showed it may have been set aside, and the next
    /// start would hand out the same offsets again.
    pub(super) fn record_damage(
        &self,
        writer: &LogWriter,
        recovery: &LogRecovery,
    ) -> Result<(), EmbeddedError> {
        let damage = writer.damage();
        if damage.is_empty() || recovery.read_only.is_some() {
            return Ok(());
        }
        let known = {
            let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            starts.logs.get(&writer.log()).is_some_and(|known| known.damage == damage)
        };
        if known {
            return Ok(());
        }
        self.record_start(LogCheckpoint {
            log: writer.log(),
            config: writer.config(),
            state: writer.state(),
            producers: ProducerTable::new(),
            damage,
            closed: false,
        })
    }

    /// Records where a log starts, unless it is being removed: its start may be forgotten already.
    pub(super) fn record_start(&self, log: LogCheckpoint) -> Result<(), EmbeddedError> {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if self.core.lives.latest(log.log).is_some_and(|latest| latest.is_removed()) {
            return Err(LogError::Removed { log: log.log }.into());
        }
        self.load_starts(&mut starts)?;
        let (id, index) = (log.log, starts.index);
        let before = starts.logs.insert(id, log);
        if let Err(error) = self.write_starts(&mut starts) {
            // Or it would go out with what is recorded next, for another log.
            starts.index = index;
            match before {
                Some(before) => starts.logs.insert(id, before),
                None => starts.logs.remove(&id),
            };
            return Err(error.into());
        }
        if starts.alone {
            match self.write_starts(&mut starts) {
                Ok(()) => starts.alone = false,
                // What was asked for is recorded; the next one is written twice again.
                Err(error) => tracing::warn!(%error, "log starts lie in one checkpoint only for now"),
            }
        }
        Ok(())
    }

    /// Records that a log has no start any more, in every checkpoint that is kept: none names its files then.
    ///
    /// If that fails it is said so in the log, and the files stay until starts are recorded again.
    pub(crate) fn forget_start(&self, log: LogId) {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = self.load_starts(&mut starts).and_then(|()| {
            let known = starts.logs.remove(&log).is_some();
            (0..if known { KEPT } else { 0 }).try_for_each(|_| self.write_starts(&mut starts))
        });
        if let Err(error) = forgotten {
            tracing::warn!(%log, %error, "cannot record that a log was removed; its files stay for now");
        }
    }

    /// Unlinks nothing: this is under the lock of the starts, for which other trims wait.
    fn write_starts(&self, starts: &mut Starts) -> Result<(), CheckpointError> {
        if !starts.unlisted.is_empty() {
            self.take_all_from_files(starts)?;
        }
        if let Some((path, said)) = starts.unlisted.first() {
            let (path, source) = (path.clone(), io::Error::other(said.clone()));
            return Err(CheckpointError::Io { path, action: "list every log", source });
        }
        let checkpoint = next_checkpoint(starts);
        let mut kept = self.place_checkpoint(&checkpoint)?;
        self.displace_bad(starts);
        kept.extend(starts.bad.iter().map(|(entry, _)| *entry));
        let dir = store::group_dir(&self.core.data_dir, GroupId::META);
        store::remove_others(self.core.storage.as_ref(), &dir, &kept)
    }

    /// Once a good one is durable the bad ones go to quarantine. One that does not is tried again with the next.
    fn displace_bad(&self, starts: &mut Starts) {
        if starts.bad.is_empty() {
            return;
        }
        let dir = store::group_dir(&self.core.data_dir, GroupId::META);
        for (entry, fault) in &starts.bad {
            let row = table::of_fault(*fault).name;
            self.core.displace(row, &dir.join(store::file_name(*entry)), &fault.to_string());
        }
        if let Ok(there) = store::list(self.core.storage.as_ref(), &dir) {
            starts.bad.retain(|(entry, _)| there.contains(entry));
        }
    }
}

fn newest_index(entries: impl IntoIterator<Item = EntryId>) -> u64 {
    entries.into_iter().map(|entry| entry.index.get()).max().unwrap_or_default()
}

fn next_checkpoint(starts: &mut Starts) -> Checkpoint {
    starts.index = starts.index.saturating_add(1);
    let entry = EntryId { index: RaftIndex(starts.index), term: Term::ZERO };
    Checkpoint {
        group: GroupId::META,
        applied: entry,
        last_durable: entry,
        apply_version: 1,
        members: Members::default(),
        logs: starts.logs.values().cloned().collect(),
        state: Bytes::new(),
    }
}
