//! What a data directory brings back: identity, engine, raft log, and each replica that can vouch for its log.
//!
//! Which replicas there are, the disk says: the raft log names the replica that this node plays in a group, in the
//! batch that cleared what an older one had left. So there are three cases for a group.
//! - **Named, and the checkpoint has it as a member**: it goes on from there, if the core finds no evidence against it.
//! - **Named, and the checkpoint does not know it**: it is blank, and gets a snapshot. What files lie there, the
//!   snapshot can reuse. A first member of a group that a crash kept from writing its first checkpoint writes it now.
//! - **Not named, though a checkpoint has a replica of this node**: the raft log has lost it, or was set aside whole. The
//!   replica does not start, whatever else is there, and what others like it have promised is not known either. So the
//!   directory needs a new life (`directory`), which it gets as soon as a quorum is seen to live
//!   (`crate::runtime::membership`). A node alone can be read up to its checkpoints.
//!
//! A directory whose incarnation is no longer the one that its catalogue knows has joined anew: nothing of its older
//! life is started or served, and its files only serve the snapshots to come. One that was started before and of which
//! not even the meta group is left gets a new life at once: it has nothing to lose, and must not play a replica
//! that it no longer remembers.
//!
//! Not here: whether the raft log joins a replica's checkpoint (`crate::core`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use raft::eraftpb::HardState;
use tidelog_engine::checkpoint::{Checkpoint, LoadedCheckpoint};
use tidelog_engine::identity::Identity;
use tidelog_engine::{Engine, Options};
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, ReplicaId, Term};

use super::{directory, raft_log};
use crate::apply::group_placement::{GroupPlacement, UNBOUND};
use crate::apply::{Catalogue, Machines, genesis_checkpoint, group_genesis};
use crate::core::{CheckpointFacts, CoreConfig, GroupStatus, HaltReason, Members, NodeCore, ReplicaStart};
use crate::raft_log::{GroupWrite, RaftLog};
use crate::runtime::clock::EngineClock;
use crate::runtime::config::{NodeConfig, Start, StartError};
use crate::runtime::snapshots::finish_installs;
use crate::votes::{Vote, Votes, VotesFound};

/// What recovery brought back.
pub(super) struct Recovered {
    pub(super) engine: Arc<Engine>,
    pub(super) identity: Identity,
    pub(super) raft_log: Arc<dyn RaftLog>,
    pub(super) votes: Votes,
    /// The votes as they were found, for replicas that are started later.
    pub(super) found: BTreeMap<GroupId, Vote>,
    pub(super) machines: Machines,
    pub(super) core: NodeCore,
    /// Replicas that do not start, as everybody shall see them.
    pub(super) absent: Vec<GroupStatus>,
    /// Why the directory needs a new life, if it does.
    pub(super) forgotten: Option<String>,
    pub(super) notes: Vec<String>,
}

/// What is there of one group.
#[derive(Debug)]
pub enum Found {
    /// A replica that may run.
    Replica(Box<ReplicaStart>),
    /// A replica that must not, and why. Another one can take its place.
    Lost(ReplicaId, String),
    /// One of which not even the number is sure any more: nobody knows what else was forgotten.
    Forgotten(ReplicaId, String),
    /// No replica; at most files of one that was.
    Nothing,
}

pub(super) fn recover(config: &NodeConfig) -> Result<Recovered, StartError> {
    let mut notes = Vec::new();
    directory::prepare(config, &mut notes)?;
    let (engine, raft_log) = open(config, &mut notes)?;
    let identity = engine.identity();
    let (mut votes, found) = Votes::open(config.storage.as_ref(), &config.data_dir)?;
    notes.extend(found.damage.iter().map(ToString::to_string));
    if let Start::Bootstrap { voters } = &config.start {
        write_genesis(&engine, raft_log.as_ref(), &found, voters, config)?;
    }
    let groups = groups(&engine, raft_log.as_ref());
    config.metrics.groups.set(u64::try_from(groups.len()).unwrap_or(u64::MAX));
    finish_installs(&engine, raft_log.as_ref(), &groups, &mut notes);
    let mut machines = Machines::open(Arc::clone(&engine), &[])
        .map_err(|error| StartError::Interrupted { reason: error.to_string() })?;
    let (mut starts, mut absent, mut forgotten) = (Vec::new(), Vec::new(), None);
    let disk = Disk { engine: &engine, raft_log: raft_log.as_ref(), votes: &found.votes, identity };
    for group in &groups {
        match disk.find(&mut machines, *group) {
            Found::Replica(start) => starts.push(*start),
            Found::Lost(replica, message) => absent.push(halted(*group, replica, message)),
            Found::Forgotten(replica, message) => {
                forgotten.get_or_insert_with(|| message.clone());
                absent.push(halted(*group, replica, message));
            }
            Found::Nothing => {}
        }
        config.metrics.recovered_groups.set(config.metrics.recovered_groups.value().saturating_add(1));
    }
    votes.record(&votes_behind(&starts))?;
    notes.extend(engine.report().notes());
    engine.keep_report();
    config.metrics.set_recovered(engine.recovery_counts());
    notes.extend(absent.iter().filter_map(|status| Some(status.halted.as_ref()?.to_string())));
    let core = core(config, identity, starts, &raft_log)?;
    for note in &notes {
        tracing::warn!("{note}");
    }
    let found = found.votes;
    Ok(Recovered { engine, identity, raft_log, votes, found, machines, core, absent, forgotten, notes })
}

fn core(
    config: &NodeConfig,
    identity: Identity,
    groups: Vec<ReplicaStart>,
    raft_log: &Arc<dyn RaftLog>,
) -> Result<NodeCore, StartError> {
    let (ticks, limits) = (config.tuning.ticks, config.tuning.limits);
    let (node, boot, seed) = (config.node, identity.boot_epoch, config.seed);
    Ok(NodeCore::new(CoreConfig { node, boot, groups, ticks, limits, seed }, raft_log)?)
}

/// Opens engine and raft log; with a new incarnation, if the one there was started before and has forgotten everything.
fn open(config: &NodeConfig, notes: &mut Vec<String>) -> Result<(Arc<Engine>, Arc<dyn RaftLog>), StartError> {
    let open = |notes: &mut Vec<String>| -> Result<_, StartError> {
        let options = engine_options(config);
        let engine = Engine::open(Arc::clone(&config.storage), &config.data_dir, options)?;
        let raft_log = raft_log::open(config, &engine, notes)?;
        Ok((engine, raft_log))
    };
    let (engine, raft_log) = open(notes)?;
    let Identity { boot_epoch, incarnation, .. } = engine.identity();
    let nothing = raft_log.load(GroupId::META).is_ok_and(|log| log.replica.is_none())
        && matches!(engine.load_checkpoint(GroupId::META), Ok(None));
    if boot_epoch <= BootEpoch(1) || incarnation == config.incarnation || !nothing {
        return Ok((engine, raft_log));
    }
    drop((engine, raft_log));
    Engine::renew(config.storage.as_ref(), &config.data_dir, config.incarnation)?;
    notes.push(format!(
        "nothing is left of what incarnation {incarnation} of this directory did; it goes on as {}",
        config.incarnation
    ));
    open(notes)
}

pub(super) fn engine_options(config: &NodeConfig) -> Options {
    Options {
        progress: Some(config.metrics.clone()),
        clock: Some(Arc::new(EngineClock(Arc::clone(&config.clock)))),
        ..Options::consensus(config.clock.wall())
    }
}

/// All groups that the disk knows, the meta group first, since it says who this node is.
fn groups(engine: &Engine, raft_log: &dyn RaftLog) -> Vec<GroupId> {
    let mut groups: BTreeSet<GroupId> = raft_log.groups().into_iter().collect();
    // If they cannot be listed, the groups that the raft log names say so one by one.
    groups.extend(engine.groups_with_checkpoints().unwrap_or_default());
    groups.into_iter().collect()
}

/// Gives each group of a new cluster its first checkpoint. The meta group comes last: as long as nothing is known of it,
/// a crash has cut this short, and it is done again; once something is, it never is.
fn write_genesis(
    engine: &Engine,
    raft_log: &dyn RaftLog,
    votes: &VotesFound,
    voters: &[NodeId],
    config: &NodeConfig,
) -> Result<(), StartError> {
    let own = ReplicaId(config.node.get().saturating_add(1));
    let untouched = |group: GroupId| -> Result<bool, StartError> {
        let log = raft_log.load(group)?;
        let empty = log.span.is_none() && log.hard_state == HardState::default() && log.install.is_none();
        let unnamed = log.replica.is_none_or(|replica| replica == own);
        Ok(empty && unnamed && !votes.votes.contains_key(&group) && engine.load_checkpoint(group)?.is_none())
    };
    if !untouched(GroupId::META).unwrap_or(false) {
        return Ok(());
    }
    let data_groups: Vec<_> = (1..=u64::from(config.data_groups)).map(GroupId).collect();
    for group in data_groups.iter().copied().chain([GroupId::META]) {
        raft_log.write(&[GroupWrite { clear: true, replica: Some(own), ..GroupWrite::new(group) }], true)?;
        engine.write_checkpoint(&genesis_checkpoint(group, voters, &data_groups))?;
    }
    Ok(())
}

/// What the core needs to know of a checkpoint.
pub(in crate::runtime) fn facts(checkpoint: Checkpoint) -> CheckpointFacts {
    let Checkpoint { applied, last_durable, members, .. } = checkpoint;
    CheckpointFacts { applied, last_durable, members }
}

/// What lies on the disk. It is asked by a starting node, and by the simulated one.
#[derive(Debug)]
pub struct Disk<'a> {
    /// The engine, open.
    pub engine: &'a Engine,
    /// The raft log.
    pub raft_log: &'a dyn RaftLog,
    /// The votes as found.
    pub votes: &'a BTreeMap<GroupId, Vote>,
    /// Who the node is.
    pub identity: Identity,
}

impl Disk<'_> {
    /// What is there of `group`; a replica's machine is restored. The meta group must be asked for first.
    #[must_use]
    pub fn find(&self, machines: &mut Machines, group: GroupId) -> Found {
        let node = self.identity.node;
        let loaded = self.engine.load_checkpoint(group);
        let member = |loaded: &LoadedCheckpoint| loaded.newest.members.replica_on(node);
        let log = match raft_log::load(self.raft_log, group) {
            Ok(log) => log,
            Err(message) => {
                let replica = loaded.ok().flatten().as_ref().and_then(member);
                return Found::Forgotten(replica.unwrap_or(ReplicaId::ZERO), message);
            }
        };
        let loaded = match (loaded, log.replica) {
            (Ok(loaded), _) => loaded.map(|loaded| loaded.newest),
            (Err(error), Some(replica)) => return Found::Lost(replica, error.to_string()),
            (Err(error), None) => return Found::Forgotten(ReplicaId::ZERO, error.to_string()),
        };
        match (log.replica, loaded) {
            (Some(replica), loaded) => {
                let vote = self.votes.get(&group).copied().filter(|vote| vote.replica == replica);
                // One that was removed and has its log still votes, for those who do not know it yet.
                let plays =
                    |checkpoint: &Checkpoint| checkpoint.members.contains(replica) || log.span.is_some();
                let checkpoint = loaded.filter(plays).map(facts);
                let start =
                    ReplicaStart { group, replica, checkpoint: checkpoint.unwrap_or_default(), log, vote };
                self.named(machines, start)
            }
            #[cfg(feature = "defects")]
            (None, Some(checkpoint)) if crate::defects::plays(crate::defects::Defect::CountAmnesiac) => {
                let replica = checkpoint.members.replica_on(node).unwrap_or_default();
                let checkpoint = facts(checkpoint);
                self.named(machines, ReplicaStart { group, replica, checkpoint, log, vote: None })
            }
            (None, Some(checkpoint)) => match checkpoint.members.replica_on(node) {
                Some(replica) => self.unnamed(machines, group, replica, &checkpoint.members),
                None => Found::Nothing,
            },
            (None, None) => Found::Nothing,
        }
    }

    fn named(&self, machines: &mut Machines, mut start: ReplicaStart) -> Found {
        let (group, replica) = (start.group, start.replica);
        if start.is_blank() && start.log.span.is_none() && start.log.install.is_none() {
            let catalogue = machines.catalogue();
            let placement = catalogue.group(group);
            let is_new = |known: &&GroupPlacement| known.genesis.contains(&(replica, self.identity.node));
            if let Some(placement) = placement.filter(is_new).filter(|_| holds_nothing(&start)) {
                let checkpoint = group_genesis(group, placement);
                if let Err(error) = self.engine.write_checkpoint(&checkpoint) {
                    return Found::Lost(replica, error.to_string());
                }
                start.checkpoint = facts(checkpoint);
            } else if placement.is_none_or(|known| !known.replicas.contains_key(&replica))
                && !is_empty(&catalogue)
            {
                // What is left of a replica that has ended here: its number, and what it voted. It is not started, so it
                // breaks no promise; one that is wanted after all begins once the catalogue says so.
                return Found::Nothing;
            }
        }
        if !start.is_blank()
            && let Err(error) = machines.reopen(group)
        {
            return Found::Lost(replica, error.to_string());
        }
        Found::Replica(Box::new(start))
    }

    /// The raft log does not know the replica that the checkpoint names.
    fn unnamed(
        &self,
        machines: &mut Machines,
        group: GroupId,
        replica: ReplicaId,
        members: &Members,
    ) -> Found {
        // What it has can be read up to the checkpoint, unless it is of an older life of the directory.
        let opened = machines.reopen(group);
        let known = machines.catalogue().member(self.identity.node).map(|known| known.incarnation);
        let older_life = known.is_none_or(|known| known != UNBOUND && known != self.identity.incarnation);
        if older_life {
            machines.forget(group);
            return Found::Nothing;
        }
        let alone = members.voters.len() == 1;
        let next = if alone {
            "nobody else has its entries: it can be read up to its last checkpoint; to write again, stop the node and run \
             `tidelog cluster recover --accept-loss`, which says what is given up"
        } else {
            "the node joins anew and is filled by the others, as soon as a majority of the meta group is seen to run; nothing to do"
        };
        let opened = opened.map_or_else(|error| format!("; {error}"), |()| String::new());
        Found::Forgotten(
            replica,
            format!(
                "E1125 group {group}: the raft log does not know replica {replica} any more, so it may have forgotten what \
                     that one promised: {next}{opened}"
            ),
        )
    }
}

fn holds_nothing(start: &ReplicaStart) -> bool {
    let log = &start.log;
    log.span.is_none()
        && log.hard_state == HardState::default()
        && log.install.is_none()
        && start.vote.is_none()
}

/// Whether nothing is known of the cluster.
fn is_empty(catalogue: &Catalogue) -> bool {
    catalogue.members().next().is_none()
}

/// What the votes file lacks of what the raft log knows: a crash came between their two syncs, or the
/// file was lost. The raft log is durable, so the votes may follow it.
pub(super) fn votes_behind(starts: &[ReplicaStart]) -> Vec<Vote> {
    let behind = |start: &&ReplicaStart| {
        let state = &start.log.hard_state;
        state.term > 0
            && start.vote.is_none_or(|vote| {
                let forgot = vote.vote.is_none() && state.vote != 0;
                vote.term.get() < state.term || (vote.term.get() == state.term && forgot)
            })
    };
    let vote = |start: &ReplicaStart| {
        let state = &start.log.hard_state;
        let voted = (state.vote != 0).then_some(ReplicaId(state.vote));
        Vote { group: start.group, replica: start.replica, term: Term(state.term), vote: voted }
    };
    starts.iter().filter(behind).map(vote).collect()
}

/// How a replica that did not start is shown.
fn halted(group: GroupId, replica: ReplicaId, message: String) -> GroupStatus {
    GroupStatus::halted(group, replica, HaltReason::Outside { group, message })
}
