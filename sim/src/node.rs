//! A node of the simulated cluster: a disk that outlives it, and a life that a crash ends.
//!
//! [`SimNode::start`] does what a server does: opens the engine (which raises the boot epoch), the raft
//! log and the votes, restores the machines from their checkpoints, and builds the core from what it
//! found. A failure of the disk on the way, which a fault may have planned, leaves the node dead.
//!
//! Not here: carrying out effects ([`crate::carry`]).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_consensus::apply::{ApplyError, CheckpointJob, Machines, genesis_checkpoint, group_genesis};
use tidelog_consensus::core::{
    ApplyTask, CoreConfig, CoreError, CoreLimits, FetchSnapshot, InstallSnapshot, NodeCore, Persist,
    ReplicaStart, Ticks, Token,
};
use tidelog_consensus::placement::StartAs;
use tidelog_consensus::raft_log::{GroupWrite, RaftLog, RaftLogError, SimLog, SimLogOptions};
use tidelog_consensus::runtime::{Disk, Found};
use tidelog_consensus::snapshot::{ExportLimits, Exports, Fetcher, SnapshotError, Switch, install};
use tidelog_consensus::votes::{Votes, VotesError};
use tidelog_engine::checkpoint::CheckpointError;
use tidelog_engine::log::LogError;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, OpenError, Options, Pin};
use tidelog_wire::ids::{
    BootEpoch, ClusterId, GroupId, Incarnation, LogId, NodeId, Offset, RaftIndex, ReplicaId, TimestampMs,
};

use crate::protocol::Waiter;
use crate::schedule::Micros;
use crate::settings::Settings;

/// Where a node keeps its data on its disk.
pub const DATA: &str = "/data";
/// The one cluster.
pub const CLUSTER: ClusterId = ClusterId(0x7469_6465);

/// A node, alive or dead.
#[derive(Debug)]
pub struct SimNode {
    /// Its number.
    pub id: NodeId,
    /// What outlives it.
    pub disk: SimDisk,
    /// Counts its lives.
    pub lives: u64,
    /// What a crash ends.
    pub life: Option<Life>,
    /// Its clock is this far ahead of the world's, in ms.
    pub clock_ahead_ms: i64,
    /// What it takes for 25 ms.
    pub tick_micros: u64,
    /// Its disk is slow until then.
    pub slow_until: Micros,
    /// Its process is stopped until then.
    pub paused_until: Micros,
    /// Replicas whose memory was taken away: they are expected to halt.
    pub forgot: BTreeSet<(GroupId, ReplicaId)>,
    /// Switches to snapshots that its last start finished.
    pub finished_installs: u64,
    /// Sealed segments that were looked at since it started.
    pub looked_at: BTreeSet<(LogId, Offset)>,
}

/// What a crash ends.
#[derive(Debug)]
pub struct Life {
    /// Which one.
    pub number: u64,
    /// Its core.
    pub core: NodeCore,
    /// Its machines.
    pub machines: Machines,
    /// Its engine.
    pub engine: Arc<Engine>,
    /// Its raft log.
    pub log: Arc<SimLog>,
    /// Its votes.
    pub votes: Votes,
    /// To be made durable, in order.
    pub persists: VecDeque<Persist>,
    /// Written and not yet synced.
    pub persisting: Vec<Persist>,
    /// To be applied, in order.
    pub applies: VecDeque<Work>,
    /// Switches to snapshots that wait until their mark is durable.
    pub installs: VecDeque<(u64, InstallSnapshot)>,
    /// Snapshots that others may fetch.
    pub exports: Exports,
    /// Snapshots being fetched.
    pub fetchers: BTreeMap<GroupId, (FetchSnapshot, Fetcher)>,
    /// Keep files that a staged snapshot uses where they lie.
    pub pins: BTreeMap<GroupId, Pin>,
    /// Whether an apply is under way.
    pub applying: bool,
    /// Checkpoints under way.
    pub jobs: BTreeMap<GroupId, CheckpointJob>,
    /// Entries applied since the last checkpoint.
    pub uncheckpointed: BTreeMap<GroupId, u64>,
    /// It has forgotten replicas, and needs a new life as soon as others can take it in.
    pub forgotten: bool,
    /// Groups that were quiet when it was looked last.
    pub quiet: BTreeSet<GroupId>,
    /// Nodes that it is connected to: their lives, and when they were heard last.
    pub peers: BTreeMap<NodeId, (u64, Micros)>,
    /// Who waits for an outcome.
    pub waiters: BTreeMap<Token, Waiter>,
    /// Reads that wait until an index is applied.
    pub reads: Vec<(GroupId, RaftIndex, Waiter)>,
    /// The number of the next proposal.
    pub next_token: u64,
}

/// Something for the apply thread.
#[derive(Debug)]
pub enum Work {
    /// Apply these entries.
    Apply(ApplyTask),
    /// Switch to this snapshot.
    Install(InstallSnapshot),
}

/// Why a node does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The engine.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The raft log.
    #[error(transparent)]
    RaftLog(#[from] RaftLogError),
    /// The votes.
    #[error(transparent)]
    Votes(#[from] VotesError),
    /// The machines.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A log's files.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A replica that cannot be started.
    #[error("a replica cannot start: {0}")]
    Lost(String),
    /// The disk, asked by the simulation itself.
    #[error("the disk refuses: {0}")]
    Disk(std::io::Error),
    /// The core.
    #[error(transparent)]
    Core(#[from] CoreError),
}

impl SimNode {
    /// A formatted node of a new cluster, with the genesis checkpoint of each group.
    ///
    /// # Errors
    /// None that a whole disk can give.
    pub fn format(id: NodeId, settings: &Settings, disk: SimDisk) -> Result<Self, NodeError> {
        let nodes: Vec<NodeId> = (0..settings.nodes).map(NodeId).collect();
        let data_groups: Vec<GroupId> = (1..=settings.data_groups).map(GroupId).collect();
        let node = Self::format_to_join(id, Incarnation(u128::from(id.get()) + 1), disk)?;
        let engine = Engine::open(node.disk.storage(), Path::new(DATA), options(TimestampMs(0)))?;
        let raft = PathBuf::from(DATA).join("raft");
        let log = SimLog::open(node.disk.storage(), &raft, SimLogOptions::default())?;
        let own = ReplicaId(id.get().saturating_add(1));
        for group in data_groups.iter().chain([&GroupId::META]) {
            let named = GroupWrite { clear: true, replica: Some(own), ..GroupWrite::new(*group) };
            log.write(&[named], true)?;
            engine.write_checkpoint(&genesis_checkpoint(*group, &nodes, &data_groups))?;
        }
        drop(engine);
        Ok(node)
    }

    /// A formatted node that knows of no group yet.
    ///
    /// # Errors
    /// None that a whole disk can give.
    pub fn format_to_join(id: NodeId, incarnation: Incarnation, disk: SimDisk) -> Result<Self, NodeError> {
        let identity = NewIdentity { cluster: CLUSTER, node: id, incarnation };
        Engine::format(&disk.storage(), Path::new(DATA), identity)?;
        Ok(Self {
            id,
            disk,
            lives: 0,
            life: None,
            clock_ahead_ms: 0,
            tick_micros: 25_000,
            slow_until: Micros(0),
            paused_until: Micros(0),
            finished_installs: 0,
            forgot: BTreeSet::new(),
            looked_at: BTreeSet::new(),
        })
    }

    /// Begins a life.
    ///
    /// # Errors
    /// The disk failed, or what is on it does not let the node start.
    pub fn start(&mut self, settings: &Settings, now: Micros) -> Result<(), NodeError> {
        self.life = None;
        self.looked_at.clear();
        self.finished_installs = 0;
        self.lives = self.lives.saturating_add(1);
        let storage = self.disk.storage();
        let data = PathBuf::from(DATA);
        let (engine, log) = self.open(now)?;
        let (votes, found) = Votes::open(storage.as_ref(), &data)?;
        let mut groups: BTreeSet<GroupId> = engine.groups_with_checkpoints()?.into_iter().collect();
        groups.extend(log.groups());
        for group in &groups {
            if finish_install(&storage, &data, &engine, log.as_ref(), *group)? {
                self.finished_installs = self.finished_installs.saturating_add(1);
            }
        }
        let mut machines = Machines::open(Arc::clone(&engine), &[])?;
        let (mut replicas, mut forgotten) = (Vec::new(), false);
        let identity = engine.identity();
        let disk = Disk { engine: &engine, raft_log: log.as_ref(), votes: &found.votes, identity };
        for group in groups {
            match disk.find(&mut machines, group) {
                Found::Replica(start) => replicas.push(*start),
                // The disk may have failed there. If it was not to, nothing is missing that could be.
                Found::Lost(_, why) => return Err(NodeError::Lost(why)),
                Found::Forgotten(..) => {
                    machines.close(group);
                    forgotten = true;
                }
                Found::Nothing => {}
            }
        }
        let config = CoreConfig {
            node: self.id,
            groups: replicas,
            boot: engine.identity().boot_epoch,
            ticks: Ticks::default(),
            limits: limits(),
            seed: settings.seed ^ self.id.get().rotate_left(32),
        };
        let raft_log: Arc<dyn RaftLog> = log.clone();
        let core = NodeCore::new(config, &raft_log)?;
        self.life = Some(Life {
            number: self.lives,
            core,
            machines,
            engine,
            log,
            votes,
            persists: VecDeque::new(),
            persisting: Vec::new(),
            applies: VecDeque::new(),
            installs: VecDeque::new(),
            exports: Exports::new(storage, &data, ExportLimits::default()),
            fetchers: BTreeMap::new(),
            pins: BTreeMap::new(),
            applying: false,
            jobs: BTreeMap::new(),
            uncheckpointed: BTreeMap::new(),
            forgotten,
            quiet: BTreeSet::new(),
            peers: BTreeMap::new(),
            waiters: BTreeMap::new(),
            reads: Vec::new(),
            next_token: self.lives.saturating_mul(1 << 40),
        });
        Ok(())
    }

    /// Opens engine and raft log; with a new incarnation, if what is there was started before and has forgotten
    /// everything, as a server does.
    fn open(&self, now: Micros) -> Result<(Arc<Engine>, Arc<SimLog>), NodeError> {
        let (storage, data) = (self.disk.storage(), PathBuf::from(DATA));
        let open = || -> Result<_, NodeError> {
            let engine = Engine::open(Arc::clone(&storage), &data, options(self.clock(now)))?;
            let log = SimLog::open(Arc::clone(&storage), &data.join("raft"), SimLogOptions::default())?;
            Ok((engine, Arc::new(log)))
        };
        let (engine, log) = open()?;
        let nothing =
            log.load(GroupId::META)?.replica.is_none() && engine.load_checkpoint(GroupId::META)?.is_none();
        if engine.identity().boot_epoch <= BootEpoch(1) || !nothing {
            return Ok((engine, log));
        }
        drop((engine, log));
        Engine::renew(storage.as_ref(), &data, self.next_incarnation())?;
        open()
    }

    /// An incarnation that nobody else has or had.
    #[must_use]
    pub fn next_incarnation(&self) -> Incarnation {
        Incarnation(u128::from(self.id.get().saturating_add(1)) << 64 | u128::from(self.lives))
    }

    /// Gives up what the node has promised, and who it is; what its segments and checkpoints hold a snapshot may use.
    ///
    /// # Errors
    /// The disk failed.
    pub fn begin_anew(&mut self) -> Result<(), NodeError> {
        self.life = None;
        let storage = self.disk.storage();
        for (file, dir) in [("/data/raft/sim.log", "/data/raft"), ("/data/votes", "/data")] {
            match storage.remove(Path::new(file)) {
                Ok(()) => storage.sync_dir(Path::new(dir)).map_err(NodeError::Disk)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(NodeError::Disk(error)),
            }
        }
        let meta = PathBuf::from(DATA).join("checkpoints").join(GroupId::META.to_string());
        for found in storage.list(&meta).map_err(NodeError::Disk)? {
            storage.remove(&meta.join(&found.name)).map_err(NodeError::Disk)?;
        }
        storage.sync_dir(&meta).map_err(NodeError::Disk)?;
        Engine::renew(storage.as_ref(), Path::new(DATA), self.next_incarnation())?;
        Ok(())
    }

    /// Its life, if it is the one with this number.
    pub fn life(&mut self, number: u64) -> Option<&mut Life> {
        self.life.as_mut().filter(|life| life.number == number)
    }

    /// What its clock says.
    #[must_use]
    pub fn clock(&self, now: Micros) -> TimestampMs {
        let ms = i64::try_from(now.0 / 1000).unwrap_or(0);
        TimestampMs(1_700_000_000_000_i64.saturating_add(ms).saturating_add(self.clock_ahead_ms))
    }
}

impl Life {
    /// A new number for a proposal.
    pub fn token(&mut self) -> Token {
        self.next_token = self.next_token.saturating_add(1);
        Token(self.next_token)
    }

    /// What a replica that begins at run time begins with.
    ///
    /// # Errors
    /// The disk failed.
    pub fn first_state(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
        start_as: StartAs,
    ) -> Result<ReplicaStart, NodeError> {
        let catalogue = self.machines.catalogue();
        let blank = ReplicaStart::blank(group, replica);
        let Some(placement) = catalogue.group(group).filter(|_| start_as == StartAs::Genesis) else {
            return Ok(blank);
        };
        self.engine.write_checkpoint(&group_genesis(group, placement))?;
        self.machines.reopen(group)?;
        let checkpoint = self.machines.checkpoint_facts(group).ok_or(ApplyError::NoCheckpoint { group })?;
        Ok(ReplicaStart { checkpoint, ..blank })
    }

    /// Nothing that a replica of the group still wanted is done any more.
    pub fn forget_group(&mut self, group: GroupId) {
        for persist in self.persists.iter_mut().chain(&mut self.persisting) {
            persist.writes.retain(|write| write.group != group);
            persist.votes.retain(|vote| vote.group != group);
        }
        self.applies.retain(|work| match work {
            Work::Apply(task) => task.group != group,
            Work::Install(install) => install.group != group,
        });
        self.installs.retain(|(_, install)| install.group != group);
        self.fetchers.remove(&group);
        self.pins.remove(&group);
        self.jobs.remove(&group);
        self.uncheckpointed.remove(&group);
        self.reads.retain(|(of, _, _)| *of != group);
    }
}

/// Finishes a switch to a snapshot that a crash interrupted. Says whether there was one.
fn finish_install(
    storage: &Arc<dyn Storage>,
    data: &Path,
    engine: &Engine,
    log: &SimLog,
    group: GroupId,
) -> Result<bool, NodeError> {
    let held = log.load(group)?;
    let Some(mark) = held.install else { return Ok(false) };
    let switch = Switch { group, mark, hard_state: held.hard_state };
    install(storage, data, engine, log, &switch)?;
    Ok(true)
}

/// A small reserve: the disk is small too. One thread: a seed is a run.
fn options(now: TimestampMs) -> Options {
    Options { reserve_bytes: 0, open_threads: 1, ..Options::consensus(now) }
}

/// Small ones, so that the limits are met.
fn limits() -> CoreLimits {
    CoreLimits {
        message_bytes_max: 8 << 10,
        inflight_max: 16,
        tail_bytes_kept: 4 << 10,
        ..CoreLimits::default()
    }
}
