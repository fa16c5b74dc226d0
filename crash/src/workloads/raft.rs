//! The raft log of a server over raft-engine: batches for several groups, synced and not, suffixes that are
//! replaced, compaction, files given back and used again, a group that is cleared.
//!
//! Every write is one atomic batch, and they are in order. So after a crash the log must be exactly what it
//! was after some number of writes, not below the last one that was synced.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};
use tidelog_consensus::raft_log::{
    EngineLogOptions, GroupLog, GroupWrite, InstallChange, InstallMark, RaftLog, Span,
};
use tidelog_engine::storage::Storage;
use tidelog_wire::ids::{GroupId, RaftIndex, Term};

use crate::raft_files::{self, RecordedLog};
use crate::scenario::{Broken, Scenario, holds};

const GROUPS: [GroupId; 3] = [GroupId(0), GroupId(1), GroupId(2)];

/// Small files, so that they are followed by others, used again and given back. Two threads would cut torn tails in either order,
/// and a state that is named by how many operations came before it would not be the same one when it is made again.
pub(super) const OPTIONS: EngineLogOptions =
    EngineLogOptions { file_bytes: 4 << 10, purge_bytes: 8 << 10, prefill_bytes: 0, recovery_threads: 1 };

/// Where the raft log is.
pub(super) fn dir() -> &'static Path {
    Path::new("/data/raft")
}

/// One thing done to the raft log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// So many entries of so many bytes for a group.
    Write { group: usize, entries: u64, bytes: usize, sync: bool },
    /// The last so many entries are replaced by so many of a new term.
    Replace { group: usize, back: u64, entries: u64, sync: bool },
    /// Entries for all groups in one batch.
    All { bytes: usize, sync: bool },
    /// An install mark is set, or removed.
    Mark { group: usize, set: bool },
    /// All but the last so many entries are forgotten.
    Compact { group: usize, left: u64 },
    /// Files are given back.
    Purge,
    /// Everything of a group is forgotten.
    Clear { group: usize },
    /// An orderly stop and a new start.
    Restart,
}

/// Which steps, and how large files are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raft {
    pub(super) name: &'static str,
    pub(super) steps: &'static [Step],
    pub(super) options: EngineLogOptions,
}

/// What the log holds of one group.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    entries: Vec<Entry>,
    hard_state: HardState,
    install: Option<InstallMark>,
}

type Model = BTreeMap<GroupId, Held>;

/// What the log may hold: a row of what it held after each write.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    /// After each write, from the last that is known to be durable at the front on.
    row: Vec<Arc<Model>>,
    writes: u64,
}

impl Default for Promise {
    fn default() -> Self {
        Self { row: vec![Arc::new(Model::new())], writes: 0 }
    }
}

impl Promise {
    fn last(&self) -> Model {
        self.row.last().map_or_else(Model::new, |model| Model::clone(model))
    }

    fn asked(&mut self, model: Model) {
        self.writes = self.writes.saturating_add(1);
        self.row.push(Arc::new(model));
    }

    fn durable(&mut self) {
        let before = self.row.len().saturating_sub(1);
        self.row.drain(..before);
    }
}

fn entry(group: GroupId, index: u64, term: u64, bytes: usize) -> Entry {
    let text = format!("entry {index} of term {term} in group {group};");
    let data: Vec<u8> = text.bytes().cycle().take(bytes.max(text.len())).collect();
    Entry { index, term, data: data.into(), ..Entry::default() }
}

fn apply(model: &mut Model, write: &GroupWrite) {
    let held = model.entry(write.group).or_default();
    if write.clear {
        *held = Held::default();
    }
    if let Some(first) = write.entries.first() {
        held.entries.retain(|entry| entry.index < first.index);
        held.entries.extend(write.entries.iter().cloned());
    }
    if let Some(state) = &write.hard_state {
        held.hard_state = state.clone();
    }
    match write.install {
        InstallChange::Keep => {}
        InstallChange::Set(mark) => held.install = Some(mark),
        InstallChange::Remove => held.install = None,
    }
}

fn group(number: usize) -> GroupId {
    GROUPS.get(number).copied().unwrap_or(GroupId(0))
}

/// The next entries of a group, replacing its last `back`.
fn next(model: &Model, group: GroupId, back: u64, entries: u64, bytes: usize) -> GroupWrite {
    let held = model.get(&group);
    let last = held.and_then(|held| held.entries.last());
    let (last, term) = last.map_or((0, 1), |entry| (entry.index, entry.term));
    let term = if back > 0 { term.saturating_add(1) } else { term };
    let first = last.saturating_sub(back).saturating_add(1);
    let entries: Vec<Entry> =
        (first..first.saturating_add(entries)).map(|index| entry(group, index, term, bytes)).collect();
    let hard_state = HardState { term, vote: 1, commit: first.saturating_sub(1), ..HardState::default() };
    GroupWrite { entries, hard_state: Some(hard_state), ..GroupWrite::new(group) }
}

fn write(
    log: &dyn RaftLog,
    promise: &mut Promise,
    writes: &[GroupWrite],
    sync: bool,
    tell: &dyn Fn(Promise),
) -> Result<(), Broken> {
    let mut model = promise.last();
    for write in writes {
        apply(&mut model, write);
    }
    promise.asked(model);
    tell(promise.clone());
    log.write(writes, sync).map_err(Broken::by("write the raft log"))?;
    if sync {
        promise.durable();
        tell(promise.clone());
    }
    Ok(())
}

fn step(log: &dyn RaftLog, promise: &mut Promise, step: Step, tell: &dyn Fn(Promise)) -> Result<(), Broken> {
    let model = promise.last();
    match step {
        Step::Write { group: number, entries, bytes, sync } => {
            let next = next(&model, group(number), 0, entries, bytes);
            write(log, promise, &[next], sync, tell)
        }
        Step::Replace { group: number, back, entries, sync } => {
            let next = next(&model, group(number), back, entries, 60);
            write(log, promise, &[next], sync, tell)
        }
        Step::All { bytes, sync } => {
            let all = GROUPS.map(|group| next(&model, group, 0, 1, bytes));
            write(log, promise, &all, sync, tell)
        }
        Step::Mark { group: number, set } => {
            let mark = InstallMark { index: RaftIndex(3), term: Term(1), digest: 7 };
            let install = if set { InstallChange::Set(mark) } else { InstallChange::Remove };
            let mark = GroupWrite { install, ..GroupWrite::new(group(number)) };
            write(log, promise, &[mark], true, tell)
        }
        Step::Compact { group: number, left } => {
            let group = group(number);
            let mut model = model;
            let held = model.entry(group).or_default();
            let last = held.entries.last().map_or(0, |entry| entry.index);
            let first_kept = last.saturating_sub(left).saturating_add(1);
            held.entries.retain(|entry| entry.index >= first_kept);
            promise.asked(model);
            tell(promise.clone());
            log.compact(group, RaftIndex(first_kept)).map_err(Broken::by("compact the raft log"))
        }
        Step::Purge => {
            log.purge().map_err(Broken::by("give files back"))?;
            // It syncs all that was written before a file goes.
            promise.durable();
            tell(promise.clone());
            Ok(())
        }
        Step::Clear { group: number } => {
            let clear = GroupWrite { clear: true, ..GroupWrite::new(group(number)) };
            write(log, promise, &[clear], true, tell)
        }
        Step::Restart => Ok(()),
    }
}

/// What the log holds of a group, read back entry by entry.
fn read(log: &dyn RaftLog, group: GroupId) -> Result<Held, Broken> {
    let GroupLog { span, hard_state, install, .. } =
        log.load(group).map_err(Broken::by(&format!("load group {group}")))?;
    let entries = match span {
        None => Vec::new(),
        Some(Span { first, last }) => {
            let end = RaftIndex(last.get().saturating_add(1));
            log.entries(group, first, end, u64::MAX)
                .map_err(Broken::by(&format!("read the entries of group {group}")))?
        }
    };
    Ok(Held { entries, hard_state, install })
}

fn shown(model: &Model) -> String {
    let groups = model.iter().map(|(group, held)| {
        let ends = held.entries.first().zip(held.entries.last());
        let ends = ends.map(|(first, last)| (first.index, last.index, last.term));
        format!("group {group}: (first, last, term) {ends:?}, {:?}", held.install)
    });
    groups.collect::<Vec<_>>().join("; ")
}

impl Raft {
    fn start(&self, storage: &Arc<dyn Storage>) -> Result<RecordedLog, Broken> {
        raft_files::open(storage, dir(), self.options)
    }
}

impl Scenario for Raft {
    type Promise = Promise;
    type Held = RecordedLog;

    fn name(&self) -> &'static str {
        self.name
    }

    fn work(&self, storage: &Arc<dyn Storage>, tell: &dyn Fn(Promise)) -> Result<(), Broken> {
        let mut promise = Promise::default();
        let mut running = self.start(storage)?;
        for one in self.steps {
            if matches!(one, Step::Restart) {
                (running, promise) = self.restart(running, storage, &promise, tell)?;
            } else {
                step(&running.log, &mut promise, *one, tell)?;
            }
        }
        Ok(())
    }

    fn open(&self, storage: &Arc<dyn Storage>, promise: &Promise) -> Result<(RecordedLog, Promise), Broken> {
        let running = self.start(storage)?;
        let mut found = Model::new();
        for group in GROUPS {
            let held = read(&running.log, group)?;
            if held != Held::default() {
                found.insert(group, held);
            }
        }
        let is_it =
            |model: &Model| model.iter().filter(|(_, held)| **held != Held::default()).eq(found.iter());
        holds(promise.row.iter().any(|model| is_it(model)), || {
            let last = promise.row.last().map_or_else(String::new, |model| shown(model));
            let durable = promise.row.first().map_or_else(String::new, |model| shown(model));
            format!(
                "the raft log is not as after any write from the last synced one on: {}; synced was {durable}; \
                 asked was {last}",
                shown(&found)
            )
        })?;
        Ok((running, Promise { row: vec![Arc::new(found)], writes: promise.writes }))
    }

    fn go_on(
        &self,
        held: &mut RecordedLog,
        promise: &Promise,
        tell: &dyn Fn(Promise),
    ) -> Result<Promise, Broken> {
        let mut promise = promise.clone();
        step(&held.log, &mut promise, Step::All { bytes: 30, sync: false }, tell)?;
        step(&held.log, &mut promise, Step::Write { group: 1, entries: 2, bytes: 300, sync: true }, tell)?;
        Ok(promise)
    }

    /// Each opening writes a batch of its own, so no file of raft-engine is.
    fn is_steady(&self, _path: &Path) -> bool {
        false
    }
}
