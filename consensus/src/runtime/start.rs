//! From a data directory to a running node.
//!
//! 1. Identity: format a new directory if asked to, else compare it with the configuration; give it a new life if it
//!    must have one (`directory`).
//! 2. Engine; raft log (`raft_log`). A new cluster's groups get their first checkpoints. Installations that were begun
//!    are finished. Each replica that the disk knows is found (`recover`); whatever keeps a single one from starting is
//!    noted with its code and next step, and the others go on.
//! 3. Threads, transport, and the tasks that keep the node in the catalogue and its replicas as they should be.
//!
//! Not here: whether the raft log joins a replica's checkpoint (`crate::core`).

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tidelog_engine::Engine;
use tidelog_engine::identity::Identity;
use tidelog_wire::ids::GroupId;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::apply_desk::ApplyBox;
use super::apply_thread::{ApplyState, ApplyThread};
use super::asks::Answers;
use super::board::Board;
use super::config::{Addresses, NodeConfig, Start, StartError};
use super::fatal::spawn;
use super::handle::{NodeHandle, Running, Shared, WeakHandle};
use super::keeper::{Keeper, KeeperBox};
use super::mailbox::Mailbox;
use super::membership::{Membership, State};
use super::peers::{FromPeers, ToPeers};
use super::raft_thread::{Inbox, RaftThread};
use super::register::Registration;
use super::replicas::Replicas;
use super::snapshots::{DoorSnapshots, DoorWiring, SnapshotDoor};
use super::waiters::Waiters;
use super::writer::{Writer, WriterBox};
use crate::apply::{APPLY_VERSION, Machines};
use crate::core::{GroupStatus, NodeCore};
use crate::entry::{MetaCommand, NodeRecord};
use crate::raft_log::RaftLog;
use crate::transport::{BulkSource, Directory, PeerHello, Transport, TransportConfig};
use crate::votes::Votes;

mod directory;
mod raft_log;
mod recover;
#[cfg(test)]
mod tests;

pub(super) use recover::facts;
pub use recover::{Disk, Found};
use recover::{Recovered, recover};

/// Reports of the apply thread that may wait to be carried to the meta group's leader.
const REPORTS_MAX: usize = 256;

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

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
    fn new(machines: &Machines, absent: Vec<GroupStatus>) -> Self {
        let board = Board::new(machines.catalogue(), absent);
        for (group, applied) in machines.all_applied() {
            board.set_applied(group, applied.index);
        }
        Self {
            board: Arc::new(board),
            inbox: Arc::new(Inbox::new()),
            waiters: Arc::new(Waiters::default()),
            writer: Arc::new(Mailbox::new()),
            apply: Arc::new(ApplyBox::new()),
            keeper: Arc::new(Mailbox::new()),
        }
    }
}

/// Starts transport, threads and tasks.
fn run(config: NodeConfig, recovered: Recovered, runtime: &Handle) -> Result<NodeHandle, StartError> {
    let Recovered { engine, identity, raft_log, votes, found, machines, core, absent, forgotten, notes } =
        recovered;
    let wiring = Wiring::new(&machines, absent);
    // Whoever has the node sees its replicas, also those that did not start.
    wiring.board.show(core.statuses());
    let readers = machines.readers();
    let this = Arc::new(OnceLock::new());
    let door = SnapshotDoor::new(
        Arc::clone(&engine),
        Arc::clone(&raft_log),
        DoorWiring {
            inbox: Arc::clone(&wiring.inbox),
            apply: Arc::clone(&wiring.apply),
            metrics: Arc::clone(&config.metrics),
            runtime: runtime.clone(),
            fatal: config.fatal.clone(),
        },
    );
    let transport = start_transport(&config, identity, &wiring, &this, &door, runtime)?;
    if let Some(transport) = &transport {
        door.connect(transport.clone());
    }
    let replicas = wiring.replicas(Arc::clone(&engine), Arc::clone(&raft_log), found, &door);
    let (reports, reported) = mpsc::channel(REPORTS_MAX);
    let work = Work { engine, raft_log, votes, machines, core };
    let threads = start_threads(&config, work, &wiring, reports, &door, transport.clone())?;
    let joined = match config.start {
        Start::Join | Start::Rejoin { .. } => true,
        Start::Resume | Start::Bootstrap { .. } => false,
    };
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
        notes,
        forgetful: forgotten.is_some(),
        joined,
        new_life: watch::Sender::new(None),
        running: Mutex::new(None),
    };
    let node = NodeHandle { shared: Arc::new(shared) };
    assert!(this.set(node.downgrade()).is_ok(), "the node is known once");
    let replicas = Arc::new(tokio::sync::Mutex::new(replicas));
    let record = record(identity, config.session, config.addresses);
    let registration =
        Registration { node: node.clone(), replicas: Arc::clone(&replicas), record, forgotten };
    let state = State::default();
    let membership = Membership { node: node.clone(), replicas, transport, reports: reported, state };
    let tasks = [runtime.spawn(registration.keep()), runtime.spawn(membership.keep())];
    let Threads { raft, writer, apply, keeper } = threads;
    let running = Running { raft, writer, apply, keeper, tasks, door };
    *node.shared.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    Ok(node)
}

impl Wiring {
    /// What replicas are begun and ended with.
    fn replicas(
        &self,
        engine: Arc<Engine>,
        raft_log: Arc<dyn RaftLog>,
        votes: std::collections::BTreeMap<GroupId, crate::votes::Vote>,
        door: &Arc<SnapshotDoor>,
    ) -> Replicas {
        Replicas {
            engine,
            raft_log,
            votes,
            board: Arc::clone(&self.board),
            inbox: Arc::clone(&self.inbox),
            writer: Arc::clone(&self.writer),
            apply: Arc::clone(&self.apply),
            keeper: Arc::clone(&self.keeper),
            door: Arc::clone(door),
        }
    }
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
    reports: mpsc::Sender<MetaCommand>,
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
    let groups: Vec<_> = machines.all_applied().into_iter().map(|(group, _)| group).collect();
    let apply = ApplyThread {
        machines,
        reports,
        mailbox: Arc::clone(&wiring.apply),
        raft: Arc::clone(&wiring.inbox),
        keeper: Arc::clone(&wiring.keeper),
        waiters: Arc::clone(&wiring.waiters),
        board: Arc::clone(&wiring.board),
        clock: Arc::clone(&config.clock),
        installer: door.installer(),
        state: ApplyState::new(config.tuning.checkpoints, &groups, config.clock.now()),
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

fn record(identity: Identity, session: u64, addresses: Addresses) -> NodeRecord {
    NodeRecord {
        node: identity.node,
        incarnation: identity.incarnation,
        boot_epoch: identity.boot_epoch,
        session,
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
    wiring: &Wiring,
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
    let events =
        Arc::new(FromPeers { inbox: Arc::clone(&wiring.inbox), metrics: Arc::clone(&config.metrics) });
    let snapshots: Arc<dyn BulkSource> = Arc::<SnapshotDoor>::clone(door);
    let asks = Arc::new(Answers { node: Arc::clone(this) });
    Ok(Some(Transport::start(settings, events, (snapshots, asks), runtime)?))
}
