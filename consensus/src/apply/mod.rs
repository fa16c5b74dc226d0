//! Apply: turns committed entries into logs and catalogue, the same on every replica.
//!
//! A group's machine is restored from its newest checkpoint and then given every entry after it, in
//! order. Group 0 has the catalogue, the others have logs. **Same entries, same bytes**: a machine looks
//! at its own state and the entry and at nothing else; no clock, no other group, no local failure changes
//! an outcome. So all replicas of a log are the same file for file, and a checkpoint may be taken anywhere.
//!
//! What cannot be written here stops the group here. The entry is not applied, not skipped, and nothing
//! after it is applied either; the group's other replicas go on. What was agreed on but is not allowed is
//! a [`Refusal`]: an outcome like any other.
//!
//! [`Machines::reconcile`] says what this node should propose so that groups do what the catalogue intends.
//!
//! Not here: threads, and who is told an outcome (the runtime); which entries are committed ([`crate::core`]).

pub mod catalogue;
pub mod catalogue_bytes;
pub mod channel;
mod checkpoints;
mod closed;
mod cursors;
mod data;
mod data_bytes;
mod error;
mod expiry;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod genesis;
pub mod group_placement;
pub mod node_state;
mod readers;
pub mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_engine::Engine;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, Members};
use tidelog_engine::log::LogReader;
use tidelog_wire::ids::{Generation, GroupId, LeaderEpoch, LogId, RaftIndex};

pub use catalogue::Catalogue;
pub use checkpoints::{CheckpointDone, CheckpointJob};
pub use cursors::{CURSORS_PER_GROUP_MAX, CURSORS_PER_LOG_MAX};
pub use data::LOGS_PER_GROUP_MAX;
pub use error::ApplyError;
pub use expiry::EXPIRY_MS;
pub use genesis::{genesis_checkpoint, group_genesis};
pub use readers::LogReaders;

use crate::core::{ApplyTask, CheckpointFacts, Committed, Token};
use crate::entry::{self, Command};
use crate::outcome::{Outcome, Refusal};
use data::{DataMachine, RestoreError};
use reconcile::GroupProgress;

/// The newest rules of apply that this release knows, and that a new cluster begins with. Version 2 has cursors.
pub const APPLY_VERSION: u16 = 2;

/// The machines of all groups of one node.
#[derive(Debug)]
pub struct Machines {
    engine: Arc<Engine>,
    groups: BTreeMap<GroupId, GroupMachine>,
    catalogue: Arc<Catalogue>,
    readers: LogReaders,
    /// What closed machines had open.
    closed_logs: BTreeMap<GroupId, BTreeSet<LogId>>,
}

/// What came of a task.
#[derive(Debug)]
pub struct Applied {
    /// One outcome for each entry that carries a command and was applied, in order.
    pub outcomes: Vec<(Option<Token>, Outcome)>,
    /// The group's last applied entry now.
    pub applied: EntryId,
    /// Why the rest of the task was not applied. Unless [`ApplyError::may_pass`], the group stands still
    /// until the node is started anew.
    pub stopped: Option<ApplyError>,
    /// What is to be given again, first the entry that was stopped at, if that may pass; else nothing.
    pub rest: Vec<Committed>,
}

#[derive(Debug)]
struct GroupMachine {
    applied: EntryId,
    apply_version: u16,
    restored_from: CheckpointFacts,
    /// Who belongs to the group, by the last entry that changed it.
    members: Members,
    /// The newest checkpoint on disk.
    checkpointed: EntryId,
    stands_still: bool,
    machine: Machine,
}

#[derive(Debug)]
enum Machine {
    /// Its state is [`Machines::catalogue`].
    Catalogue,
    Logs(Box<DataMachine>),
}

impl Machines {
    /// The machines of `groups`, restored from their newest checkpoints. Entries after those are to be
    /// applied next.
    ///
    /// # Errors
    /// A group without a usable checkpoint, or whose logs do not open: see [`ApplyError`].
    pub fn open(engine: Arc<Engine>, groups: &[GroupId]) -> Result<Self, ApplyError> {
        let catalogue = Arc::new(Catalogue::genesis(&[], &[]));
        let mut machines = Self {
            engine,
            groups: BTreeMap::new(),
            catalogue,
            readers: LogReaders::default(),
            closed_logs: BTreeMap::new(),
        };
        for group in groups {
            machines.reopen(*group)?;
        }
        Ok(machines)
    }

    /// Closes a group's logs and drops its machine, so that a snapshot can take the place of its state.
    /// A checkpoint of it that is under way must be done or be dropped before.
    pub fn close(&mut self, group: GroupId) {
        if let Some(GroupMachine { machine: Machine::Logs(logs), .. }) = self.groups.remove(&group) {
            self.closed_logs.insert(group, logs.all_logs());
        }
    }

    /// The logs that a closed machine had. If nothing takes its place they are the caller's to remove.
    #[must_use]
    pub fn closed_logs(&self, group: GroupId) -> Vec<LogId> {
        self.closed_logs.get(&group).into_iter().flatten().copied().collect()
    }

    /// Closes a group and leaves its files alone, as if it had never been opened.
    pub fn forget(&mut self, group: GroupId) {
        self.close(group);
        self.closed_logs.remove(&group);
        if group == GroupId::META {
            self.catalogue = Arc::new(Catalogue::genesis(&[], &[]));
        }
    }

    /// Restores a group's machine from its newest checkpoint, after [`Machines::close`] or at a start. Logs
    /// that it had and has no more were deleted meanwhile: their files go.
    ///
    /// # Errors
    /// As [`Machines::open`]; the group then has no machine.
    pub fn reopen(&mut self, group: GroupId) -> Result<(), ApplyError> {
        self.close(group);
        let loaded = self
            .engine
            .load_checkpoint(group)
            .map_err(|source| ApplyError::Checkpoint { group, source })?
            .ok_or(ApplyError::NoCheckpoint { group })?;
        let mut machine = self.restore(loaded.newest)?;
        if let Machine::Logs(logs) = &mut machine.machine {
            logs.remove_missing(&self.closed_logs.remove(&group).unwrap_or_default())?;
        }
        self.groups.insert(group, machine);
        Ok(())
    }

    fn restore(&mut self, checkpoint: Checkpoint) -> Result<GroupMachine, ApplyError> {
        #[cfg(feature = "defects")]
        let checkpoint = defective(checkpoint);
        let (group, applied, found) = (checkpoint.group, checkpoint.applied, checkpoint.apply_version);
        if found > APPLY_VERSION {
            return Err(ApplyError::UnknownApplyVersion { group, found, known: APPLY_VERSION });
        }
        let bad_state = |what| ApplyError::BadState { group, applied, what };
        let restored_from = checkpoints::facts(&checkpoint);
        let machine = if group == GroupId::META {
            self.catalogue = Arc::new(Catalogue::decode(&checkpoint.state).map_err(bad_state)?);
            Machine::Catalogue
        } else {
            let (engine, readers) = (Arc::clone(&self.engine), self.readers.clone());
            let restored = DataMachine::restore(group, engine, readers, checkpoint.logs, &checkpoint.state);
            Machine::Logs(Box::new(restored.map_err(|error| match error {
                RestoreError::State(what) => bad_state(what),
                RestoreError::Apply(error) => error,
            })?))
        };
        Ok(GroupMachine {
            applied,
            apply_version: found,
            members: restored_from.members.clone(),
            restored_from,
            checkpointed: applied,
            stands_still: false,
            machine,
        })
    }

    /// Applies committed entries, in order, up to the first that cannot be.
    pub fn apply(&mut self, task: ApplyTask) -> Applied {
        let mut outcomes = Vec::with_capacity(task.entries.len());
        let (mut stopped, mut rest) = (None, Vec::new());
        let mut entries = task.entries.into_iter();
        while let Some(committed) = entries.next() {
            let token = committed.token;
            match self.apply_entry(task.group, &committed) {
                Ok(Some(outcome)) => outcomes.push((token, outcome)),
                Ok(None) => {}
                Err(error) => {
                    if error.may_pass() {
                        rest = std::iter::once(committed).chain(entries).collect();
                    }
                    stopped = Some(error);
                    break;
                }
            }
        }
        let for_good = stopped.as_ref().is_some_and(|error| !error.may_pass());
        if let Some(machine) = self.groups.get_mut(&task.group).filter(|_| for_good) {
            machine.stands_still = true;
        }
        Applied { outcomes, applied: self.applied(task.group).unwrap_or_default(), stopped, rest }
    }

    fn apply_entry(&mut self, group: GroupId, committed: &Committed) -> Result<Option<Outcome>, ApplyError> {
        let state = self.groups.get_mut(&group).ok_or(ApplyError::UnknownGroup { group })?;
        if state.stands_still {
            return Err(ApplyError::StandsStill { group, at: state.applied.index });
        }
        let expected = RaftIndex(state.applied.index.get().saturating_add(1));
        if committed.index != expected || committed.term < state.applied.term {
            return Err(ApplyError::OutOfOrder { group, expected, found: committed.index });
        }
        let at = EntryId { index: committed.index, term: committed.term };
        if let Some(members) = &committed.members {
            state.members = members.clone();
            state.applied = at;
            return Ok(None);
        }
        let outcome = match (entry::decode(group, &committed.entry)?, &mut state.machine) {
            (None, Machine::Catalogue | Machine::Logs(_)) => None,
            (Some(Command::RaiseApplyVersion { version: found }), _) if found > APPLY_VERSION => {
                return Err(ApplyError::UnknownApplyVersion { group, found, known: APPLY_VERSION });
            }
            (Some(Command::RaiseApplyVersion { version }), _) => {
                state.apply_version = state.apply_version.max(version);
                Some(Outcome::ApplyVersionRaised { version: state.apply_version })
            }
            (Some(Command::Meta(command)), Machine::Catalogue) => {
                Some(Arc::make_mut(&mut self.catalogue).apply(command))
            }
            (Some(_), Machine::Catalogue) => Some(Outcome::Refused(Refusal::WrongGroup { group })),
            (Some(command), Machine::Logs(logs)) => Some(logs.apply(at, state.apply_version, command)?),
        };
        state.applied = at;
        Ok(outcome)
    }

    /// Whether a task does nothing but append to segments that are there and have room: no file is made, nothing is synced.
    #[must_use]
    pub fn is_quick(&self, task: &ApplyTask) -> bool {
        let Some(logs) = self.logs_of(task.group) else { return false };
        task.entries.iter().all(|committed| {
            let entry = &committed.entry;
            let room = u64::try_from(entry.data.len()).unwrap_or(u64::MAX);
            entry.data.is_empty() && entry.context.is_empty()
                || entry::routed_log(&entry.context).is_some_and(|log| logs.has_room(log, room))
        })
    }

    /// The last applied entry of a group.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> Option<EntryId> {
        self.groups.get(&group).map(|state| state.applied)
    }

    /// The last applied entry of each group that has a machine.
    #[must_use]
    pub fn all_applied(&self) -> Vec<(GroupId, EntryId)> {
        self.groups.iter().map(|(group, state)| (*group, state.applied)).collect()
    }

    /// The catalogue as applied here: immutable, later changes make another one.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue)
    }

    /// The reader of a log that is open here.
    #[must_use]
    pub fn reader(&self, log: LogId) -> Option<LogReader> {
        self.readers.reader(log)
    }

    /// The readers of all open logs, to be asked from any thread.
    #[must_use]
    pub fn readers(&self) -> LogReaders {
        self.readers.clone()
    }

    /// What this node, which leads `leading`, should propose now so that groups do what the catalogue
    /// intends; see [`reconcile`](mod@reconcile).
    #[must_use]
    pub fn reconcile(&self, leading: &BTreeSet<GroupId>) -> Vec<(GroupId, Command)> {
        let mut commands = reconcile::reconcile(&self.catalogue, self, leading);
        for group in leading {
            if let Some(logs) = self.logs_of(*group) {
                let due = logs.expirations(reconcile::EXPIRATIONS_MAX).into_iter();
                commands.extend(due.map(|command| (*group, command)));
            }
            let version = self.groups.get(group).map_or(APPLY_VERSION, |state| state.apply_version);
            let known = reconcile::version_known(&self.catalogue, *group).min(APPLY_VERSION);
            if version < known {
                commands.push((*group, Command::RaiseApplyVersion { version: known }));
            }
        }
        commands
    }
}

/// A checkpoint that forgets what it has.
#[cfg(feature = "defects")]
fn defective(mut checkpoint: Checkpoint) -> Checkpoint {
    use crate::defects::{Defect, plays};
    if plays(Defect::ApplyTwice) && checkpoint.applied.index > RaftIndex(1) {
        checkpoint.applied.index = RaftIndex(checkpoint.applied.index.get().saturating_sub(1));
    }
    if plays(Defect::DropProducerState) {
        for log in &mut checkpoint.logs {
            log.producers = tidelog_engine::producers::ProducerTable::new();
        }
    }
    checkpoint
}

impl GroupProgress for Machines {
    fn is_open(&self, group: GroupId, log: LogId) -> bool {
        self.logs_of(group).is_some_and(|logs| logs.is_open(log))
    }

    fn closed(&self, group: GroupId, generation: Generation) -> Option<LeaderEpoch> {
        self.logs_of(group).and_then(|logs| logs.closed(generation))
    }
}

impl Machines {
    fn logs_of(&self, group: GroupId) -> Option<&DataMachine> {
        match &self.groups.get(&group)?.machine {
            Machine::Catalogue => None,
            Machine::Logs(logs) => Some(logs),
        }
    }
}
