//! From a data directory to a running node.
//!
//! 1. Identity: format a new directory if asked to, else compare it with the configuration.
//! 2. Engine; raft log (`raft_log`).
//! 3. A bootstrapped group without anything gets its genesis checkpoint.
//! 4. Installations that were begun are finished.
//! 5. Machines are restored, votes read, the core built. Whatever keeps a single replica from starting is
//!    noted with its code and next step, and the others go on.
//! 6. Threads, transport, and the task that keeps the node in the catalogue.
//!
//! Not here: whether the raft log joins a replica's checkpoint (`crate::core`).

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tidelog_engine::identity::{Identity, IdentityError};
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId, Term};
use tokio::runtime::Handle;

use super::apply_thread::{ApplyBox, ApplyState, ApplyThread};
use super::asks::Answers;
use super::board::Board;
use super::clock::EngineClock;
use super::config::{Addresses, NodeConfig, Start, StartError};
use super::fatal::spawn;
use super::handle::{NodeHandle, Running, Shared, WeakHandle};
use super::keeper::{Keeper, KeeperBox};
use super::mailbox::Mailbox;
use super::peers::{FromPeers, ToPeers};
use super::raft_thread::{Inbox, RaftThread};
use super::register::keep_registered;
use super::snapshots::{DoorSnapshots, DoorWiring, SnapshotDoor};
use super::waiters::Waiters;
use super::writer::{Writer, WriterBox};
use crate::apply::{APPLY_VERSION, Machines, genesis_checkpoint};
use crate::core::{
    CheckpointFacts, CoreConfig, EntryId, GroupStatus, HaltReason, Members, NodeCore, ReplicaStart, Role,
    SnapshotPhase,
};
use crate::entry::NodeRecord;
use crate::raft_log::RaftLog;
use crate::transport::{BulkSource, Directory, PeerHello, Transport, TransportConfig};
use crate::votes::{Vote, Votes, VotesFound};

mod raft_log;
#[cfg(test)]
mod tests;

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

/// What recovery brought back.
struct Recovered {
    engine: Arc<Engine>,
    identity: Identity,
    raft_log: Arc<dyn RaftLog>,
    votes: Votes,
    machines: Machines,
    core: NodeCore,
    groups: Vec<GroupId>,
    /// Replicas that do not start, as everybody shall see them.
    absent: Vec<GroupStatus>,
    notes: Vec<String>,
}

impl Node {
    /// Recovers the data directory and starts the node on the current tokio runtime.
    ///
    /// On return it takes part in all groups that it can vouch for; see [`NodeHandle::readiness`].
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: NodeConfig) -> Result<NodeHandle, StartError> {
        let runtime = Handle::current();
        let recover = move || {
            let recovered = recover(&config)?;
            run(config, recovered, &runtime)
        };
        match tokio::task::spawn_blocking(recover).await {
            Ok(started) => started,
            Err(error) => Err(StartError::Interrupted { reason: error.to_string() }),
        }
    }
}

fn recover(config: &NodeConfig) -> Result<Recovered, StartError> {
    let mut notes = Vec::new();
    identify(config)?;
    let groups: Vec<_> = (0..=u64::from(config.data_groups)).map(GroupId).collect();
    config.metrics.groups.set(count(groups.len()));
    let engine = Engine::open(Arc::clone(&config.storage), &config.data_dir, engine_options(config))?;
    let identity = engine.identity();
    let raft_log = raft_log::open(config, &engine, &mut notes)?;
    let (mut votes, found) = Votes::open(config.storage.as_ref(), &config.data_dir)?;
    notes.extend(found.damage.iter().map(ToString::to_string));
    if let Start::Bootstrap { voters, .. } = &config.start {
        write_genesis(&engine, raft_log.as_ref(), &found, voters, &groups)?;
    }
    super::snapshots::finish_installs(&engine, raft_log.as_ref(), &groups, &mut notes);
    let mut machines = Machines::open(Arc::clone(&engine), &[])
        .map_err(|error| StartError::Interrupted { reason: error.to_string() })?;
    let mut starts = Vec::new();
    let mut absent = Vec::new();
    for group in &groups {
        match recover_group(&engine, &mut machines, raft_log.as_ref(), config, *group) {
            Ok(mut start) => {
                start.vote = found.votes.get(group).copied();
                starts.push(start);
            }
            Err(message) => absent.push(halted(*group, config, message)),
        }
        config.metrics.recovered_groups.set(config.metrics.recovered_groups.value().saturating_add(1));
    }
    votes.record(&votes_behind(&starts))?;
    notes.extend(engine.report().notes());
    engine.keep_report();
    config.metrics.set_recovered(engine.recovery_counts());
    notes.extend(absent.iter().filter_map(|status| Some(status.halted.as_ref()?.to_string())));
    let core = NodeCore::new(
        CoreConfig {
            node: config.node,
            boot: identity.boot_epoch,
            groups: starts,
            ticks: config.tuning.ticks,
            limits: config.tuning.limits,
            seed: config.seed,
        },
        &raft_log,
    )?;
    for note in &notes {
        tracing::warn!("{note}");
    }
    Ok(Recovered { engine, identity, raft_log, votes, machines, core, groups, absent, notes })
}

/// Formats a new directory if asked to; else makes sure that it is this node's.
fn identify(config: &NodeConfig) -> Result<(), StartError> {
    let found = match Identity::read(config.storage.as_ref(), &config.data_dir) {
        Ok(opened) => opened.identity,
        Err(IdentityError::Missing { .. }) if matches!(config.start, Start::Bootstrap { .. }) => {
            return format(config);
        }
        Err(error) => return Err(error.into()),
    };
    if found.cluster != config.cluster || found.node != config.node {
        return Err(StartError::Foreign {
            dir: config.data_dir.clone(),
            node: config.node,
            cluster: config.cluster,
            found_node: found.node,
            found_cluster: found.cluster,
        });
    }
    Ok(())
}

fn format(config: &NodeConfig) -> Result<(), StartError> {
    let Start::Bootstrap { voters, incarnation } = &config.start else { return Ok(()) };
    let mut distinct = voters.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() != voters.len() || !voters.contains(&config.node) {
        return Err(StartError::BadVoters { voters: voters.clone(), node: config.node });
    }
    let (cluster, node, incarnation) = (config.cluster, config.node, *incarnation);
    Engine::format(&config.storage, &config.data_dir, NewIdentity { cluster, node, incarnation })?;
    Ok(())
}

/// Gives each group that has nothing its genesis checkpoint: also what a crash while formatting left out.
fn write_genesis(
    engine: &Engine,
    raft_log: &dyn RaftLog,
    votes: &VotesFound,
    voters: &[NodeId],
    groups: &[GroupId],
) -> Result<(), StartError> {
    let known = raft_log.groups();
    let is_new = |group: &&GroupId| !known.contains(group) && !votes.votes.contains_key(group);
    let data_groups: Vec<_> = groups.iter().copied().filter(|group| *group != GroupId::META).collect();
    for group in groups.iter().filter(is_new) {
        if let Ok(None) = engine.load_checkpoint(*group) {
            engine.write_checkpoint(&genesis_checkpoint(*group, voters, &data_groups))?;
        }
    }
    Ok(())
}

/// Restores a group's machine and gathers what the core needs of it; or why it does not start.
fn recover_group(
    engine: &Engine,
    machines: &mut Machines,
    raft_log: &dyn RaftLog,
    config: &NodeConfig,
    group: GroupId,
) -> Result<ReplicaStart, String> {
    machines.reopen(group).map_err(|error| error.to_string())?;
    let loaded = engine.load_checkpoint(group).map_err(|error| error.to_string())?;
    let checkpoint = loaded.ok_or("its checkpoint is gone")?.newest;
    let log = raft_log::load(raft_log, group)?;
    let replica = checkpoint.members.replica_on(config.node).ok_or("this node is no member of the group")?;
    let checkpoint = CheckpointFacts {
        applied: checkpoint.applied,
        last_durable: checkpoint.last_durable,
        members: checkpoint.members,
    };
    Ok(ReplicaStart { group, replica, checkpoint, log, vote: None })
}

/// What the votes file lacks of what the raft log knows: a crash came between their two syncs, or the
/// file was lost. The raft log is durable, so the votes may follow it.
fn votes_behind(starts: &[ReplicaStart]) -> Vec<Vote> {
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
fn halted(group: GroupId, config: &NodeConfig, message: String) -> GroupStatus {
    GroupStatus {
        group,
        replica: ReplicaId(config.node.get().saturating_add(1)),
        role: Role::Halted,
        term: Term::ZERO,
        leader: None,
        first: RaftIndex::ZERO,
        last: RaftIndex::ZERO,
        durable: EntryId::default(),
        committed: RaftIndex::ZERO,
        applied: RaftIndex::ZERO,
        serves: false,
        tail_bytes: 0,
        snapshot: SnapshotPhase::None,
        members: Members::default(),
        peers: Vec::new(),
        quiet: false,
        halted: Some(HaltReason::Outside { group, message }),
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn engine_options(config: &NodeConfig) -> Options {
    Options {
        progress: Some(config.metrics.clone()),
        clock: Some(Arc::new(EngineClock(Arc::clone(&config.clock)))),
        ..Options::consensus(config.clock.wall())
    }
}

/// How the threads reach each other.
struct Wiring {
    board: Arc<Board>,
    inbox: Arc<Inbox>,
    waiters: Arc<Waiters>,
    writer: Arc<WriterBox>,
    apply: Arc<ApplyBox>,
    keeper: Arc<KeeperBox>,
}

impl Wiring {
    fn new(groups: &[GroupId], machines: &Machines, absent: Vec<GroupStatus>) -> Self {
        let board = Board::new(machines.catalogue(), absent);
        for group in groups {
            if let Some(applied) = machines.applied(*group) {
                board.set_applied(*group, applied.index);
            }
        }
        Self {
            board: Arc::new(board),
            inbox: Arc::new(Inbox::new()),
            waiters: Arc::new(Waiters::default()),
            writer: Arc::new(Mailbox::new(0, 0)),
            apply: Arc::new(Mailbox::new(0, 0)),
            keeper: Arc::new(Mailbox::new(0, 0)),
        }
    }
}

/// Starts transport, threads and tasks.
fn run(config: NodeConfig, recovered: Recovered, runtime: &Handle) -> Result<NodeHandle, StartError> {
    let wiring = Wiring::new(&recovered.groups, &recovered.machines, recovered.absent);
    // Whoever has the node sees its replicas, also those that did not start.
    wiring.board.show(recovered.core.statuses());
    let (identity, readers) = (recovered.identity, recovered.machines.readers());
    let this = Arc::new(OnceLock::new());
    let door = SnapshotDoor::new(
        Arc::clone(&recovered.engine),
        Arc::clone(&recovered.raft_log),
        DoorWiring {
            inbox: Arc::clone(&wiring.inbox),
            apply: Arc::clone(&wiring.apply),
            metrics: Arc::clone(&config.metrics),
            runtime: runtime.clone(),
            fatal: config.fatal.clone(),
        },
    );
    let transport = start_transport(&config, identity, &wiring.inbox, &this, &door, runtime)?;
    if let Some(transport) = &transport {
        door.connect(transport.clone());
    }
    let work = Work {
        engine: recovered.engine,
        raft_log: recovered.raft_log,
        votes: recovered.votes,
        machines: recovered.machines,
        core: recovered.core,
    };
    let threads = start_threads(&config, work, &wiring, &recovered.groups, &door, transport.clone())?;
    let shared = Shared {
        identity,
        board: wiring.board,
        inbox: wiring.inbox,
        apply: wiring.apply,
        keeper: wiring.keeper,
        writer: wiring.writer,
        waiters: wiring.waiters,
        readers,
        metrics: config.metrics,
        clock: config.clock,
        transport: transport.clone(),
        notes: recovered.notes,
        running: Mutex::new(None),
    };
    let node = NodeHandle { shared: Arc::new(shared) };
    assert!(this.set(node.downgrade()).is_ok(), "the node is known once");
    let record = record(identity, config.addresses);
    let register = runtime.spawn(keep_registered(node.clone(), record));
    let Threads { raft, writer, apply, keeper } = threads;
    let running = Running { raft, writer, apply, keeper, register, door };
    *node.shared.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    Ok(node)
}

/// What the threads work on.
struct Work {
    engine: Arc<Engine>,
    raft_log: Arc<dyn RaftLog>,
    votes: Votes,
    machines: Machines,
    core: NodeCore,
}

struct Threads {
    raft: JoinHandle<()>,
    writer: JoinHandle<()>,
    apply: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

fn start_threads(
    config: &NodeConfig,
    work: Work,
    wiring: &Wiring,
    groups: &[GroupId],
    door: &Arc<SnapshotDoor>,
    transport: Option<Transport>,
) -> Result<Threads, StartError> {
    let Work { engine, raft_log, votes, machines, core } = work;
    let keeper = Keeper {
        mailbox: Arc::clone(&wiring.keeper),
        apply: Arc::clone(&wiring.apply),
        raft_log: Arc::clone(&raft_log),
        engine,
        door: Arc::clone(door),
        board: Arc::clone(&wiring.board),
        metrics: Arc::clone(&config.metrics),
        clock: Arc::clone(&config.clock),
        fatal: config.fatal.clone(),
    };
    let apply = ApplyThread {
        machines,
        mailbox: Arc::clone(&wiring.apply),
        raft: Arc::clone(&wiring.inbox),
        keeper: Arc::clone(&wiring.keeper),
        waiters: Arc::clone(&wiring.waiters),
        board: Arc::clone(&wiring.board),
        clock: Arc::clone(&config.clock),
        installer: door.installer(),
        state: ApplyState::new(config.tuning.checkpoints, groups, config.clock.now()),
    };
    let writer = Writer {
        mailbox: Arc::clone(&wiring.writer),
        raft_log,
        votes,
        raft: Arc::clone(&wiring.inbox),
        metrics: Arc::clone(&config.metrics),
        fatal: config.fatal.clone(),
    };
    let raft = RaftThread {
        core,
        inbox: Arc::clone(&wiring.inbox),
        writer: Arc::clone(&wiring.writer),
        apply: Arc::clone(&wiring.apply),
        keeper: Arc::clone(&wiring.keeper),
        peers: Arc::new(ToPeers { transport, snapshots: Arc::new(DoorSnapshots(Arc::clone(door))) }),
        waiters: Arc::clone(&wiring.waiters),
        board: Arc::clone(&wiring.board),
        metrics: Arc::clone(&config.metrics),
        clock: Arc::clone(&config.clock),
        tick: config.tuning.tick,
        installs: VecDeque::new(),
        settling: BTreeSet::new(),
    };
    let start = |name, body: Box<dyn FnOnce() + Send>| {
        spawn(name, &config.fatal, body).map_err(|source| StartError::Thread { name, source })
    };
    Ok(Threads {
        keeper: start("keeper", Box::new(move || keeper.run()))?,
        apply: start("apply", Box::new(move || apply.run()))?,
        writer: start("log-writer", Box::new(move || writer.run()))?,
        raft: start("raft", Box::new(move || raft.run()))?,
    })
}

fn record(identity: Identity, addresses: Addresses) -> NodeRecord {
    NodeRecord {
        node: identity.node,
        incarnation: identity.incarnation,
        boot_epoch: identity.boot_epoch,
        native: addresses.native,
        kafka: addresses.kafka,
        admin: addresses.admin,
        peer: addresses.peer,
        version: addresses.version,
        apply_version_max: APPLY_VERSION,
    }
}

fn start_transport(
    config: &NodeConfig,
    identity: Identity,
    inbox: &Arc<Inbox>,
    this: &Arc<OnceLock<WeakHandle>>,
    door: &Arc<SnapshotDoor>,
    runtime: &Handle,
) -> Result<Option<Transport>, StartError> {
    let Some(credentials) = config.credentials.clone() else {
        return match config.peers.keys().filter(|peer| **peer != config.node).count() {
            0 => Ok(None),
            peers => Err(StartError::NoCredentials { node: config.node, peers }),
        };
    };
    let Identity { cluster, node, incarnation, boot_epoch } = identity;
    let settings = TransportConfig {
        listen: config.listen,
        hello: PeerHello { cluster, node, incarnation, boot_epoch },
        session: config.session,
        credentials,
        peers: config.peers.clone(),
        directory: Directory::default(),
        tuning: config.tuning.transport,
    };
    let events = Arc::new(FromPeers { inbox: Arc::clone(inbox), metrics: Arc::clone(&config.metrics) });
    let snapshots: Arc<dyn BulkSource> = Arc::<SnapshotDoor>::clone(door);
    let asks = Arc::new(Answers { node: Arc::clone(this) });
    Ok(Some(Transport::start(settings, events, (snapshots, asks), runtime)?))
}
