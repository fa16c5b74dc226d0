//! Checkpoints of machines: taken on the apply thread in no time, synced and written off it.
//!
//! 1. [`Machines::checkpoint_job`] copies a group's state as it is, names the segments to sync, and pins
//!    the files that the checkpoint will name: a trim that is applied meanwhile does not unlink them.
//! 2. [`CheckpointJob::run`] syncs them and then writes the file; apply goes on meanwhile.
//! 3. [`Machines::checkpoint_done`] takes note. Only then may files of closed logs go.
//!
//! Two checkpoints are kept, and the raft log must reach back to the **older** one: if the newer
//! cannot be read one day, replay begins there.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId};
use tidelog_engine::log::SyncJob;
use tidelog_engine::{Engine, Pin};
use tidelog_wire::ids::{GroupId, LogId, RaftIndex};

use super::{ApplyError, Machine, Machines};
use crate::core::CheckpointFacts;

/// What the core must know of a checkpoint.
pub(super) fn facts(checkpoint: &Checkpoint) -> CheckpointFacts {
    CheckpointFacts {
        applied: checkpoint.applied,
        last_durable: checkpoint.last_durable,
        members: checkpoint.members.clone(),
    }
}

/// A checkpoint to be made durable, on any thread.
#[derive(Debug)]
pub struct CheckpointJob {
    engine: Arc<Engine>,
    checkpoint: Checkpoint,
    syncs: Vec<(LogId, SyncJob)>,
    previous: EntryId,
    /// Held until the checkpoint is written; from then on it keeps its files itself.
    pin: Pin,
}

/// A durable checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointDone {
    /// Whose.
    pub group: GroupId,
    /// It has everything up to here.
    pub newest: EntryId,
    /// The raft log may forget entries up to here, and no further: the older kept checkpoint has them.
    pub compact_to: RaftIndex,
}

impl CheckpointJob {
    /// The checkpoint as it will be written.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Syncs what the checkpoint names, then writes it. Durable on return.
    ///
    /// # Errors
    /// The disk failed: there is no new checkpoint, the older ones stand. Do not try again with the same
    /// job: after a failed sync nothing is known about those bytes.
    pub fn run(self) -> Result<CheckpointDone, ApplyError> {
        let group = self.checkpoint.group;
        for (log, sync) in self.syncs.into_iter().filter(|(_, sync)| !sync.is_empty()) {
            sync.run().map_err(|source| ApplyError::CannotSync { group, log, source })?;
        }
        self.engine
            .write_checkpoint(&self.checkpoint)
            .map_err(|source| ApplyError::Checkpoint { group, source })?;
        drop(self.pin);
        Ok(CheckpointDone { group, newest: self.checkpoint.applied, compact_to: self.previous.index })
    }
}

impl Machines {
    /// A checkpoint of the group as it is now; `None` if there is nothing new since the last one, or the
    /// group stands still. One job a group at a time. `last_durable` is the last entry that is durable in
    /// the raft log.
    #[must_use]
    pub fn checkpoint_job(&self, group: GroupId, last_durable: EntryId) -> Option<CheckpointJob> {
        let state = self.groups.get(&group)?;
        if state.stands_still || state.applied == state.checkpointed {
            return None;
        }
        let ((logs, syncs), bytes) = match &state.machine {
            Machine::Catalogue => ((Vec::new(), Vec::new()), self.catalogue.encode()),
            Machine::Logs(machine) => (machine.checkpoint(), machine.encode()),
        };
        let checkpoint = Checkpoint {
            group,
            applied: state.applied,
            last_durable,
            apply_version: state.apply_version,
            members: state.members.clone(),
            logs,
            state: Bytes::from(bytes),
        };
        let engine = Arc::clone(&self.engine);
        let pin = engine.pin_checkpoint(&checkpoint);
        Some(CheckpointJob { engine, checkpoint, syncs, previous: state.checkpointed, pin })
    }

    /// What the core must know of the checkpoint that the group's machine was restored from.
    #[must_use]
    pub fn checkpoint_facts(&self, group: GroupId) -> Option<CheckpointFacts> {
        self.groups.get(&group).map(|state| state.restored_from.clone())
    }

    /// Takes note that a job of [`Machines::checkpoint_job`] is done, and removes files of closed logs that
    /// no kept checkpoint names any more.
    ///
    /// # Errors
    /// Removing files failed. The checkpoint is good all the same.
    pub fn checkpoint_done(&mut self, done: &CheckpointDone) -> Result<(), ApplyError> {
        let Some(state) = self.groups.get_mut(&done.group) else { return Ok(()) };
        state.checkpointed = state.checkpointed.max(done.newest);
        match &mut state.machine {
            Machine::Catalogue => Ok(()),
            Machine::Logs(machine) => machine.remove_closed(),
        }
    }
}
