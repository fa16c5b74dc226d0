//! What one seed plays: which faults, how often, on what cluster. Drawn from the seed.
//!
//! Not every run has every fault. A fault that is always on hides what needs its absence: with
//! constant crashes nobody lags far enough to need a snapshot, with constant loss nothing is
//! pipelined. So each kind is on in some seeds and off in others.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::chance::Chance;
use crate::coverage::Seen;
use crate::operator::NODES_MAX;

/// Whether clusters of every size are played, in which nodes come and go.
static GROWN: AtomicBool = AtomicBool::new(false);

/// From now on clusters have 1 to 7 nodes, which come, go and lose their disks. Else they have 1 or 3, which stay.
pub fn grow() {
    GROWN.store(true, Ordering::Relaxed);
}

/// The weather between nodes.
#[derive(Clone, Copy, Debug)]
pub struct NetworkSettings {
    /// Messages lost, of a thousand.
    pub loss_permille: u64,
    /// Messages that arrive twice, of a thousand.
    pub repeat_permille: u64,
    /// What a message usually takes.
    pub delay_micros: u64,
}

/// What one seed plays.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// Nodes that found the cluster.
    pub nodes: u64,
    /// Groups that carry logs.
    pub data_groups: u64,
    /// Producers.
    pub producers: u64,
    /// Batches that a producer has on their way at once.
    pub in_flight: u64,
    /// Pause of a producer between batches.
    pub pause_micros: u64,
    /// Names that channels bear.
    pub channels: u64,
    /// Partitions of each.
    pub partitions: u64,
    /// Segments are sealed at this size.
    pub segment_bytes: u64,
    /// The admin deletes, creates and trims this often; 0 never.
    pub admin_micros: u64,
    /// The weather.
    pub network: NetworkSettings,
    /// What a sync of the raft log usually takes.
    pub disk_micros: u64,
    /// A group is checkpointed after this many entries.
    pub checkpoint_entries: u64,
    /// Time between faults.
    pub fault_micros: u64,
    /// Which faults may happen, and how likely each is against the others.
    pub faults: Vec<(FaultKind, u64)>,
    /// Time between what the operator does; 0 never.
    pub operator_micros: u64,
    /// What the operator may do.
    pub operator: Vec<OperatorKind>,
    /// How long faults go on.
    pub storm_micros: u64,
    /// How long a healed cluster may take to make progress and to agree.
    pub calm_micros: u64,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A link, both ways.
    CutLink,
    /// A link, one way.
    CutOneWay,
    /// One node from all others.
    Isolate,
    /// A process dies, the cache lives.
    KillProcess,
    /// A machine dies and everything unsynced is lost.
    LoseUnsynced,
    /// A machine dies and what was not synced is lost, torn or kept by chance.
    CutPower,
    /// A machine dies in the middle of some later operation of its disk.
    DieInOperation,
    /// All machines die at once.
    CutAllPower,
    /// A process dies with writes not yet synced, comes back at once, answers, and then its power is
    /// cut while the leader is away.
    ReviveThenCut,
    /// A disk is slow for a while.
    SlowDisk,
    /// A leader is asked to hand over.
    Transfer,
    /// A process is stopped for a while (SIGSTOP), and goes on as if nothing had been.
    Pause,
    /// A clock jumps, back or forth.
    JumpClock,
}

/// What the operator may do, and what may break for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorKind {
    /// A new node joins.
    AddNode,
    /// A node is drained and leaves.
    RemoveNode,
    /// A node loses its disk, and joins anew under its number.
    Wipe,
    /// A node loses its raft log.
    LoseRaftLog,
}

impl OperatorKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AddNode, Self::RemoveNode, Self::Wipe, Self::LoseRaftLog];
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::CutLink,
        Self::CutOneWay,
        Self::Isolate,
        Self::KillProcess,
        Self::LoseUnsynced,
        Self::CutPower,
        Self::DieInOperation,
        Self::CutAllPower,
        Self::ReviveThenCut,
        Self::SlowDisk,
        Self::Transfer,
        Self::Pause,
        Self::JumpClock,
    ];

    /// What is counted when it strikes.
    #[must_use]
    pub const fn seen(self) -> Seen {
        match self {
            Self::CutLink => Seen::CutLink,
            Self::CutOneWay => Seen::CutOneWay,
            Self::Isolate => Seen::Isolate,
            Self::KillProcess => Seen::KillProcess,
            Self::LoseUnsynced => Seen::LoseUnsynced,
            Self::CutPower => Seen::CutPower,
            Self::DieInOperation => Seen::DieInOperation,
            Self::CutAllPower => Seen::CutAllPower,
            Self::ReviveThenCut => Seen::ReviveThenCut,
            Self::SlowDisk => Seen::SlowDisk,
            Self::Transfer => Seen::Transfer,
            Self::Pause => Seen::Pause,
            Self::JumpClock => Seen::JumpClock,
        }
    }

    /// Its name in traces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.seen().name()
    }
}

impl Settings {
    /// What `seed` plays.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed).fork(1);
        let grown = GROWN.load(Ordering::Relaxed);
        let network = NetworkSettings {
            loss_permille: if chance.one_in(2) { 0 } else { chance.between(1, 60) },
            repeat_permille: if chance.one_in(2) { 0 } else { chance.between(1, 60) },
            delay_micros: chance.between(100, 3_000),
        };
        let mut faults: Vec<(FaultKind, u64)> = Vec::new();
        for kind in FaultKind::ALL {
            if chance.permille(600) {
                faults.push((kind, chance.between(1, 6)));
            }
        }
        Self {
            seed,
            nodes: match (chance.one_in(2), grown) {
                (true, _) => 3,
                (false, true) => chance.between(1, NODES_MAX),
                (false, false) => chance.between(0, 1).saturating_mul(2).saturating_add(1),
            },
            data_groups: if chance.one_in(4) { chance.between(4, 12) } else { chance.between(1, 3) },
            producers: chance.between(1, 3),
            in_flight: chance.between(1, 4),
            pause_micros: chance.between(300, 10_000),
            channels: chance.between(1, 3),
            partitions: chance.between(1, 3),
            segment_bytes: chance.between(4096, 16_384),
            admin_micros: if chance.one_in(3) { 0 } else { chance.between(200_000, 2_000_000) },
            network,
            disk_micros: chance.between(50, 3_000),
            checkpoint_entries: if chance.one_in(3) {
                chance.between(50, 200)
            } else {
                chance.between(3, 30)
            },
            fault_micros: chance.between(200_000, 2_500_000),
            faults,
            operator_micros: if chance.one_in(3) { 0 } else { chance.between(500_000, 3_000_000) },
            operator: OperatorKind::ALL.into_iter().filter(|_| chance.permille(600) && grown).collect(),
            storm_micros: chance.between(5_000_000, 12_000_000),
            calm_micros: 30_000_000,
        }
    }
}
