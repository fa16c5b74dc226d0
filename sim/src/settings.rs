//! What one seed plays: which faults, how often, on what cluster. Drawn from the seed.
//!
//! Not every run has every fault. A fault that is always on hides what needs its absence: with
//! constant crashes nobody lags far enough to need a snapshot, with constant loss nothing is
//! pipelined. So each kind is on in some seeds and off in others.

use crate::chance::Chance;
use crate::coverage::Seen;

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
    /// Nodes of the cluster.
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
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 11] = [
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
            nodes: 3,
            data_groups: chance.between(1, 3),
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
            storm_micros: chance.between(5_000_000, 12_000_000),
            calm_micros: 30_000_000,
        }
    }
}
