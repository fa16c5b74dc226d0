//! The way out for a node alone whose raft log is lost: it goes on from its checkpoints, and what came after them is
//! given up.
//!
//! A person decides that, never the node. What is given up cannot be known exactly, because its only witness is gone. So
//! every number that may have been used in it is jumped over: replica ids, generations, producer and group ids, terms
//! and indexes. Nothing that is minted from now on was ever seen before, and no client can take a new life for an old one.
//!
//! 1. The checkpoints must name this node as the only voter of every group; else the others have what is missing, and
//!    this is refused.
//! 2. Raft log and votes go to quarantine.
//! 3. Each group gets a checkpoint with one voter of a new id, beyond all numbers. The meta group's comes last: until it
//!    is there, this can be repeated.
//! 4. A new raft log names the new replicas.
//!
//! Frames above a checkpoint stay in their segments until other batches take their place; the engine moves them to
//! quarantine then.
//!
//! Not here: the command, and asking whether it is meant (`tidelog cluster recover --accept-loss`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::HardState;
use tidelog_engine::checkpoint::{Checkpoint, CheckpointError, EntryId, Members};
use tidelog_engine::quarantine::QuarantineError;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, OpenError, Options};
use tidelog_wire::ids::{GroupId, LogId, NodeId, RaftIndex, ReplicaId, Term, TimestampMs};

use crate::apply::Catalogue;
use crate::raft_log::{AbortOnSyncFailure, EngineLog, EngineLogOptions, GroupWrite, RaftLog, RaftLogError};
use crate::votes::{Votes, VotesError};

/// How far terms and indexes are jumped: more than a node can have used between two checkpoints. A leader epoch is a
/// log's base plus the term, in 31 bits.
const TERMS_JUMPED: u64 = 1_000;
const INDEXES_JUMPED: u64 = 1 << 32;

/// What going on from the checkpoints means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The node.
    pub node: NodeId,
    /// The last entry of each group that is kept. All later ones are given up.
    pub kept: BTreeMap<GroupId, EntryId>,
    /// Logs on disk that no checkpoint knows: channels created since.
    pub unknown_logs: Vec<LogId>,
}

/// Why nothing was recovered. Except where it says so, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The directory does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A checkpoint cannot be read, or written: then run it again.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The votes cannot be read.
    #[error(transparent)]
    Votes(#[from] VotesError),
    /// Setting something aside failed: run it again.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// The new raft log cannot be written: run it again.
    #[error(transparent)]
    RaftLog(#[from] RaftLogError),
    /// There is nothing to go on from.
    #[error(
        "E1140 {dir}: the meta group has no usable checkpoint, so nothing can go on from it: restore a backup"
    )]
    NoCatalogue {
        /// The data directory.
        dir: PathBuf,
    },
    /// Others count.
    #[error(
        "E1141 {dir}: group {group} counts {voters} replicas, not this node alone: the others have what this one lost; start \
         the node, and it comes back by itself as soon as a majority of them runs"
    )]
    NotAlone {
        /// The data directory.
        dir: PathBuf,
        /// The group.
        group: GroupId,
        /// How many count.
        voters: usize,
    },
    /// Nothing is lost.
    #[error("E1142 {dir}: the raft log knows the replicas of this node: nothing is lost; start the node")]
    NothingLost {
        /// The data directory.
        dir: PathBuf,
    },
}

/// Says what would be given up. Takes the directory's lock and raises its boot epoch; changes nothing else.
///
/// # Errors
/// [`RecoverError`].
pub fn examine(storage: &Arc<dyn Storage>, dir: &Path, now: TimestampMs) -> Result<Loss, RecoverError> {
    let engine = Engine::open(Arc::clone(storage), dir, Options::consensus(now))?;
    State::read(storage, &engine)?.refuse_unless_lost(dir, storage)?.loss(&engine)
}

/// Goes on from the checkpoints: on return the node can be started, and everything after them is given up.
///
/// # Errors
/// [`RecoverError`].
pub fn accept_loss(storage: &Arc<dyn Storage>, dir: &Path, now: TimestampMs) -> Result<Loss, RecoverError> {
    let engine = Engine::open(Arc::clone(storage), dir, Options::consensus(now))?;
    let state = State::read(storage, &engine)?.refuse_unless_lost(dir, storage)?;
    let loss = state.loss(&engine)?;
    let why = "the node went on from its checkpoints, by `cluster recover --accept-loss`";
    let listed = storage.list(dir).map_err(|source| OpenError::Io {
        path: dir.to_path_buf(),
        action: "list",
        source,
    })?;
    for found in listed.iter().filter(|found| ["raft", "votes"].contains(&found.name.as_str())) {
        engine.set_aside(&dir.join(&found.name), why)?;
    }
    let raft_log = open_raft_log(storage, dir)?;
    state.write(&engine, &raft_log)?;
    Ok(loss)
}

fn open_raft_log(storage: &Arc<dyn Storage>, dir: &Path) -> Result<EngineLog, RaftLogError> {
    let (options, policy) = (EngineLogOptions::default(), Arc::new(AbortOnSyncFailure));
    EngineLog::open(Arc::clone(storage), &dir.join("raft"), options, policy)
}

/// What the checkpoints and votes say.
struct State {
    node: NodeId,
    catalogue: Catalogue,
    checkpoints: BTreeMap<GroupId, Checkpoint>,
    /// The highest term of each group that anything knows of.
    terms: BTreeMap<GroupId, Term>,
}

impl State {
    fn read(storage: &Arc<dyn Storage>, engine: &Engine) -> Result<Self, RecoverError> {
        let (node, dir) = (engine.identity().node, engine.dir());
        let no_catalogue = || RecoverError::NoCatalogue { dir: dir.to_path_buf() };
        let mut checkpoints = BTreeMap::new();
        for group in engine.groups_with_checkpoints()? {
            if let Some(loaded) = engine.load_checkpoint(group)? {
                checkpoints.insert(group, loaded.newest);
            }
        }
        let meta = checkpoints.get(&GroupId::META).ok_or_else(no_catalogue)?;
        let catalogue = Catalogue::decode(&meta.state).map_err(|_| no_catalogue())?;
        for (group, checkpoint) in &checkpoints {
            let members = &checkpoint.members;
            if members.replicas.iter().any(|(_, at)| *at != node) {
                let (dir, voters) = (dir.to_path_buf(), members.voters.len());
                return Err(RecoverError::NotAlone { dir, group: *group, voters });
            }
        }
        let (_, found) = Votes::open(storage.as_ref(), dir)?;
        let voted = |group: &GroupId| found.votes.get(group).map_or(Term::ZERO, |vote| vote.term);
        let term = |(group, checkpoint): (&GroupId, &Checkpoint)| {
            (*group, checkpoint.applied.term.max(checkpoint.last_durable.term).max(voted(group)))
        };
        let terms = checkpoints.iter().map(term).collect();
        Ok(Self { node, catalogue, checkpoints, terms })
    }

    fn refuse_unless_lost(self, dir: &Path, storage: &Arc<dyn Storage>) -> Result<Self, RecoverError> {
        let Ok(raft_log) = open_raft_log(storage, dir) else { return Ok(self) };
        let known = |group: &GroupId| raft_log.load(*group).is_ok_and(|log| log.replica.is_some());
        match self.checkpoints.keys().all(known) {
            true => Err(RecoverError::NothingLost { dir: dir.to_path_buf() }),
            false => Ok(self),
        }
    }

    fn loss(&self, engine: &Engine) -> Result<Loss, RecoverError> {
        let named = |log: &LogId| {
            self.checkpoints.values().any(|checkpoint| checkpoint.logs.iter().any(|known| known.log == *log))
        };
        let unknown_logs = engine.logs_on_disk()?.into_iter().filter(|log| !named(log)).collect();
        let kept = self.checkpoints.iter().map(|(group, checkpoint)| (*group, checkpoint.applied)).collect();
        Ok(Loss { node: self.node, kept, unknown_logs })
    }

    fn write(mut self, engine: &Engine, raft_log: &dyn RaftLog) -> Result<(), RecoverError> {
        let above = engine.logs_on_disk()?.into_iter().map(|log| log.generation).max();
        let replicas = self.catalogue.go_on_alone(self.node, engine.identity().incarnation, above);
        // The meta group, which is the first by number, comes last.
        for (group, checkpoint) in std::mem::take(&mut self.checkpoints).into_iter().rev() {
            let Some(replica) = replicas.get(&group).copied() else { continue };
            self.write_group(engine, raft_log, group, replica, checkpoint)?;
        }
        Ok(())
    }

    fn write_group(
        &self,
        engine: &Engine,
        raft_log: &dyn RaftLog,
        group: GroupId,
        replica: ReplicaId,
        checkpoint: Checkpoint,
    ) -> Result<(), RecoverError> {
        let term = self.terms.get(&group).copied().unwrap_or_default();
        let applied = EntryId {
            index: RaftIndex(checkpoint.applied.index.get().saturating_add(INDEXES_JUMPED)),
            term: Term(term.get().saturating_add(TERMS_JUMPED)),
        };
        let state = match group {
            GroupId::META => self.catalogue.encode().into(),
            _ => checkpoint.state.clone(),
        };
        let members = Members::of_voters(vec![(replica, self.node)]);
        engine.write_checkpoint(&Checkpoint {
            applied,
            last_durable: applied,
            members,
            state,
            ..checkpoint
        })?;
        let hard_state =
            HardState { term: applied.term.get(), commit: applied.index.get(), ..HardState::default() };
        let named = GroupWrite {
            clear: true,
            replica: Some(replica),
            hard_state: Some(hard_state),
            ..GroupWrite::new(group)
        };
        Ok(raft_log.write(&[named], true)?)
    }
}
