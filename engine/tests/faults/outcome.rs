//! How a fault shows to whoever uses the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tidelog_engine::sim_disk::Operation;

use crate::sites::{Kind, Role, Site};

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The call said so; everything else went on.
    Refused,
    /// A read said so; nothing else.
    ReadFailed,
    /// `DiskFull`, and writes resumed.
    DiskFull,
    /// The log is fenced and says so, until it is opened again.
    Fenced,
    /// The log was opened and takes no appends, because its last segment cannot be read.
    ReadOnly,
    /// The log was not opened.
    NotOpen,
    /// The engine did not start.
    NoStart,
    /// Exactly the range is named.
    Damaged,
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Refused => "the call is refused",
            Self::ReadFailed => "the read is refused",
            Self::DiskFull => "`DiskFull`",
            Self::Fenced => "the log is fenced",
            Self::ReadOnly => "the log opens for reading only",
            Self::NotOpen => "the log does not open",
            Self::NoStart => "the engine does not start",
            Self::Damaged => "the range is named as damaged",
        })
    }
}

/// All that was told in one run.
pub(crate) type Outcomes = BTreeSet<Outcome>;

/// What came of a fault at a site, over all runs.
pub(crate) type Table = BTreeMap<(Site, Kind), Outcomes>;

/// The table for the document: what and of what, by fault, over all parts of the workload. Faults of one
/// site with the same outcome share a row.
pub(crate) fn rendered(table: &Table) -> String {
    let mut by_fault: BTreeMap<(Role, Operation, Kind), Outcomes> = BTreeMap::new();
    for ((site, kind), outcomes) in table {
        by_fault.entry((site.role, site.operation, *kind)).or_default().extend(outcomes);
    }
    let mut rows: BTreeMap<(Role, Operation, String), Vec<String>> = BTreeMap::new();
    for ((role, operation, kind), outcomes) in by_fault {
        rows.entry((role, operation, shown(&outcomes))).or_default().push(kind.to_string());
    }
    let mut lines =
        vec!["| of | call | fault | what callers are told |".to_owned(), "|---|---|---|---|".to_owned()];
    for ((role, operation, outcome), kinds) in rows {
        lines.push(format!("| {role} | {} | {} | {outcome} |", called(operation), kinds.join(", ")));
    }
    lines.join("\n")
}

const fn called(operation: Operation) -> &'static str {
    match operation {
        Operation::Open => "open",
        Operation::Create => "create",
        Operation::Size => "len",
        Operation::Read => "read",
        Operation::Write => "write",
        Operation::Truncate => "truncate",
        Operation::Sync => "sync",
        Operation::List => "list",
        Operation::CreateDir => "create_dir",
        Operation::RemoveDir => "remove_dir",
        Operation::Rename => "rename",
        Operation::Remove => "remove",
        Operation::SyncDir => "sync_dir",
        Operation::FreeBytes => "free_bytes",
        Operation::Lock => "lock",
    }
}

fn shown(outcomes: &Outcomes) -> String {
    if outcomes.is_empty() {
        return "nothing; it goes on".to_owned();
    }
    outcomes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
