//! What a start does about a raft log that it cannot read, as one table: what was to be read, and what came of
//! it, give the verdict.
//!
//! A raft log that is damaged is set aside whole and an empty one opened: then the votes file and the checkpoints
//! are evidence that each replica has lost its memory. Damage that only the entries of one group show costs that
//! group's replica. What the disk refuses is no damage, and nothing is changed for it. If it has no room, there is that of
//! the reserve.
//!
//! Every sight meets exactly one row, and every row has a scenario of its own below. `docs/recovery.md` shows
//! the same rows.
//!
//! Not here: whether what was read joins the checkpoint (`crate::core`).

use std::sync::Arc;

use tidelog_engine::Engine;
use tidelog_wire::ids::GroupId;

use crate::raft_log::{EngineLog, GroupLog, RaftLog, RaftLogError};
use crate::runtime::config::{NodeConfig, StartError};
use crate::runtime::fatal::TimedSyncs;

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The files, when the raft log is opened.
    Whole,
    /// Entries and state of one group.
    OneGroup,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was read.
    Read,
    /// It does not verify.
    Damaged,
    /// The system refuses to read or to write.
    Refused,
}

impl Seen {
    const fn of(error: &RaftLogError) -> Self {
        match error {
            RaftLogError::Damaged { .. } => Self::Damaged,
            RaftLogError::Io { .. }
            | RaftLogError::Full { .. }
            | RaftLogError::Compacted { .. }
            | RaftLogError::Missing { .. }
            | RaftLogError::Gap { .. } => Self::Refused,
        }
    }
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on with it.
    Use,
    /// Move all of it to quarantine and open an empty one.
    SetAside,
    /// This replica does not start, the others do.
    Halt,
    /// Change nothing: the node does not start.
    Refuse,
}

/// One row: it holds for any of its parts and sights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// What its scenario and the documentation call it.
    pub(super) name: &'static str,
    /// For which parts.
    pub(super) parts: &'static [Part],
    /// For which sights.
    pub(super) seen: &'static [Seen],
    /// What is done.
    pub(super) verdict: Verdict,
}

/// The decision table.
pub(super) const TABLE: &[Row] = &[
    Row {
        name: "raft_log_read",
        parts: &[Part::Whole, Part::OneGroup],
        seen: &[Seen::Read],
        verdict: Verdict::Use,
    },
    Row {
        name: "raft_log_damaged",
        parts: &[Part::Whole],
        seen: &[Seen::Damaged],
        verdict: Verdict::SetAside,
    },
    Row { name: "raft_log_refused", parts: &[Part::Whole], seen: &[Seen::Refused], verdict: Verdict::Refuse },
    Row {
        name: "raft_log_of_a_group_lost",
        parts: &[Part::OneGroup],
        seen: &[Seen::Damaged, Seen::Refused],
        verdict: Verdict::Halt,
    },
];

impl Row {
    fn holds(&self, part: Part, seen: Seen) -> bool {
        self.parts.contains(&part) && self.seen.contains(&seen)
    }
}

/// What a hole in the table would mean.
const HOLE: Row = Row { name: "none", parts: &[], seen: &[], verdict: Verdict::Refuse };

/// The row that decides about what was seen.
///
/// # Panics
/// If the table has a hole, which a test excludes.
pub(super) fn decide(part: Part, seen: Seen) -> &'static Row {
    let found = TABLE.iter().find(|row| row.holds(part, seen));
    assert!(found.is_some(), "no row for {part:?}, {seen:?}");
    found.unwrap_or(&HOLE)
}

/// Opens the raft log of the node.
pub(super) fn open(
    config: &NodeConfig,
    engine: &Engine,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn RaftLog>, StartError> {
    let dir = config.data_dir.join("raft");
    let attempt = || {
        let policy = Arc::new(TimedSyncs {
            clock: Arc::clone(&config.clock),
            metrics: Arc::clone(&config.metrics),
            fatal: config.fatal.clone(),
        });
        EngineLog::open(Arc::clone(&config.storage), &dir, config.tuning.raft_log, policy)
    };
    let is_full = |error: &RaftLogError| matches!(error, RaftLogError::Full { .. });
    let error = match engine.with_reserve(attempt, is_full) {
        Ok(log) => return Ok(Arc::new(log)),
        Err(error) => error,
    };
    let row = decide(Part::Whole, Seen::of(&error));
    tracing::warn!(row = row.name, "the raft log cannot be read: {error}");
    if row.verdict != Verdict::SetAside {
        return Err(error.into());
    }
    let why = error.to_string();
    let aside = engine.set_aside(&dir, &why)?;
    notes.push(why);
    notes.push(format!("the raft log was set aside as {}", aside.piece.display()));
    Ok(Arc::new(engine.with_reserve(attempt, is_full)?))
}

/// Reads the log of one group; or why its replica does not start.
pub(super) fn load(raft_log: &dyn RaftLog, group: GroupId) -> Result<GroupLog, String> {
    raft_log.load(group).map_err(|error| {
        let row = decide(Part::OneGroup, Seen::of(&error));
        tracing::warn!(row = row.name, %group, "the raft log of a group cannot be read: {error}");
        error.to_string()
    })
}

#[cfg(test)]
mod tests;
