//! Call sites: what is asked of which kind of file, in which part of the workload; and the faults that
//! can strike there.

use std::fmt;
use std::path::{Path, PathBuf};

use tidelog_engine::sim_disk::{Call, Failure, Fault, Lasting, Operation, Written};
use tidelog_engine::storage::Position;

use crate::promise::Harm;
use crate::world::{NEIGHBOUR, VICTIM, data, log_dir, segment_path};

/// What a file or directory is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Lock,
    Identity,
    Checkpoint,
    Reserve,
    Segment,
    LogDirectory,
    Quarantine,
    Report,
    Directory,
    Staging,
}

impl Role {
    pub(crate) fn of(path: &Path) -> Self {
        let below = path.strip_prefix(data()).unwrap_or(path).to_string_lossy().into_owned();
        let mut names = below.split('/');
        match names.next().unwrap_or_default() {
            "lock" => Self::Lock,
            "identity" => Self::Identity,
            "checkpoints" => Self::Checkpoint,
            "reserve" => Self::Reserve,
            "quarantine" => Self::Quarantine,
            "staging" => Self::Staging,
            "logs" if below.ends_with(".seg") => Self::Segment,
            "logs" => Self::LogDirectory,
            name if name.contains("report") || name.contains("recover") => Self::Report,
            _ => Self::Directory,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Lock => "lock",
            Self::Identity => "identity",
            Self::Checkpoint => "checkpoint",
            Self::Reserve => "reserve",
            Self::Segment => "segment",
            Self::LogDirectory => "directory of a log",
            Self::Quarantine => "quarantine",
            Self::Report => "report",
            Self::Directory => "data directory",
            Self::Staging => "staging",
        })
    }
}

/// The faults of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Eio,
    Short,
    Enospc,
    EioHalf,
    EioAll,
    EnospcHalf,
    FailedSync,
    Lost,
    IntoItself,
    IntoItsHead,
    IntoSegment,
    IntoNeighbour,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Eio => "EIO",
            Self::Short => "short read",
            Self::Enospc => "ENOSPC",
            Self::EioHalf => "EIO, half written",
            Self::EioAll => "EIO, all written",
            Self::EnospcHalf => "ENOSPC, half written",
            Self::FailedSync => "EIO, pages marked clean",
            Self::Lost => "lost",
            Self::IntoItself => "misdirected within the file",
            Self::IntoItsHead => "misdirected over the file's head",
            Self::IntoSegment => "misdirected into another segment",
            Self::IntoNeighbour => "misdirected into another log",
        })
    }
}

impl Kind {
    /// The faults that can strike an operation.
    pub(crate) fn of(operation: Operation) -> &'static [Self] {
        match operation {
            Operation::Read => &[Self::Eio, Self::Short],
            Operation::Write => &[
                Self::Eio,
                Self::EioHalf,
                Self::EioAll,
                Self::Enospc,
                Self::EnospcHalf,
                Self::Lost,
                Self::IntoItself,
                Self::IntoItsHead,
                Self::IntoSegment,
                Self::IntoNeighbour,
            ],
            Operation::Sync => &[Self::FailedSync],
            Operation::Create | Operation::CreateDir | Operation::Rename => &[Self::Eio, Self::Enospc],
            Operation::Open
            | Operation::Size
            | Operation::Truncate
            | Operation::List
            | Operation::RemoveDir
            | Operation::Remove
            | Operation::SyncDir
            | Operation::FreeBytes
            | Operation::Lock => &[Self::Eio],
        }
    }

    pub(crate) const fn harm(self) -> Harm {
        match self {
            Self::Eio
            | Self::Short
            | Self::Enospc
            | Self::EioHalf
            | Self::EioAll
            | Self::EnospcHalf
            | Self::FailedSync => Harm::None,
            Self::Lost | Self::IntoItself | Self::IntoItsHead | Self::IntoSegment | Self::IntoNeighbour => {
                Harm::Destroys
            }
        }
    }

    /// The fault, waiting for the call that is number `nth` of its kind on its path.
    pub(crate) fn fault(self, call: &Call, nth: u32, lasting: Lasting) -> Fault {
        let stray = |path: PathBuf, position| Failure::Misdirected { path, position: Position(position) };
        let (failure, written) = match self {
            Self::Eio | Self::FailedSync => (Failure::Io, Written::Nothing),
            Self::EioHalf => (Failure::Io, Written::Half),
            Self::EioAll => (Failure::Io, Written::All),
            Self::Short => (Failure::Short, Written::Nothing),
            Self::Enospc => (Failure::NoSpace, Written::Nothing),
            Self::EnospcHalf => (Failure::NoSpace, Written::Half),
            Self::Lost => (Failure::Lost, Written::Nothing),
            Self::IntoItself => (stray(call.path.clone(), call.position.get() / 2), Written::Nothing),
            Self::IntoItsHead => (stray(call.path.clone(), 0), Written::Nothing),
            Self::IntoSegment => (stray(segment_path(VICTIM, 0), 900), Written::Nothing),
            Self::IntoNeighbour => (stray(segment_path(NEIGHBOUR, 0), 900), Written::Nothing),
        };
        let path_contains = call.path.to_string_lossy().into_owned();
        Fault { operation: call.operation, path_contains, after: nth, failure, lasting, written }
    }

    /// Whether a fault at `path` may show at the neighbour.
    pub(crate) fn may_reach_the_neighbour(self, path: &Path) -> bool {
        self == Self::IntoNeighbour || !path.starts_with(log_dir(VICTIM))
    }
}

/// A call site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Site {
    pub(crate) role: Role,
    pub(crate) operation: Operation,
    pub(crate) phase: &'static str,
}

/// A call of a recorded run, which a fault can be made to strike.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) site: Site,
    pub(crate) call: Call,
    /// Earlier calls that the fault has to let through.
    pub(crate) nth: u32,
}

/// The calls of a recorded run.
pub(crate) fn targets(calls: &[Call], phases: &[(&'static str, usize)]) -> Vec<Target> {
    let mut found = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        let phase = phases.iter().rev().find(|(_, from)| *from <= at).map_or("", |(phase, _)| phase);
        let text = call.path.to_string_lossy();
        let same = |other: &&Call| {
            other.operation == call.operation && other.path.to_string_lossy().contains(text.as_ref())
        };
        let nth = u32::try_from(calls[..at].iter().filter(same).count()).unwrap();
        let site = Site { role: Role::of(&call.path), operation: call.operation, phase };
        found.push(Target { site, call: call.clone(), nth });
    }
    found.retain(|target| !target.call.path.to_string_lossy().ends_with("stray.txt"));
    found
}
