//! What is decided about the files of a group's checkpoint directory, as one table: how many valid
//! checkpoints were found before, and what is seen, give the verdict. Files are looked at newest first.
//!
//! Every sight meets exactly one row, and every row has a scenario of its own in
//! `tests/scenarios/recovery_rows`. `docs/recovery.md` shows the same rows.
//!
//! Not here: whether a checkpoint fits the raft log (`consensus::core`), which the engine does not know.

use super::CheckpointFault;

/// What is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// A checkpoint that verifies and is the one that its name says.
    Valid,
    /// It does not verify.
    Bad,
    /// The disk does not give it.
    Unreadable,
    /// It verifies and is another group's or entry's than its name says.
    Misplaced,
    /// A newer release wrote it.
    NewerFormat,
    /// A checkpoint that was being written.
    Unfinished,
    /// A name that no checkpoint has.
    UnknownName,
    /// There are no more.
    NoMore,
    /// There are no more, and some were bad.
    NoMoreGood,
    /// There are no more, and all those were bad that say where embedded logs start.
    StartsLost,
}

impl Seen {
    /// All that can be seen.
    pub const ALL: [Self; 10] = [
        Self::Valid,
        Self::Bad,
        Self::Unreadable,
        Self::Misplaced,
        Self::NewerFormat,
        Self::Unfinished,
        Self::UnknownName,
        Self::NoMore,
        Self::NoMoreGood,
        Self::StartsLost,
    ];

    pub(super) const fn of(fault: CheckpointFault) -> Self {
        match fault {
            CheckpointFault::NotACheckpoint
            | CheckpointFault::Length { .. }
            | CheckpointFault::Checksum { .. }
            | CheckpointFault::Nonsense => Self::Bad,
            CheckpointFault::UnknownFormat { .. } => Self::NewerFormat,
            CheckpointFault::Unreadable { .. } => Self::Unreadable,
            CheckpointFault::Misplaced => Self::Misplaced,
        }
    }
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Start from it.
    Newest,
    /// Keep it to fall back to: the raft log is not compacted beyond it.
    Older,
    /// Not looked at; it goes when the next one is written.
    Surplus,
    /// An older one is used; as soon as there is one this goes to quarantine.
    PassOver,
    /// Move it to quarantine, name it, go on.
    SetAside,
    /// Nobody was promised it and it is known by its name: it is removed and counted.
    Remove,
    /// Go on with what was found.
    Done,
    /// The files of the logs say where they stand; the bad ones go to quarantine once that is recorded.
    FromFiles,
    /// Change nothing: this replica does not start.
    Refuse,
}

/// One row: it holds for any of its counts of valid checkpoints found before, and for any of its sights.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What its scenario and the documentation call it.
    pub name: &'static str,
    /// Valid ones found before: 0, 1, or 2 and more.
    pub valid_before: &'static [usize],
    /// For which sights.
    pub seen: &'static [Seen],
    /// What is done.
    pub verdict: Verdict,
}

const NONE: &[usize] = &[0];
const SOME: &[usize] = &[1, 2];
const FEW: &[usize] = &[0, 1];
const ANY: &[usize] = &[0, 1, 2];
const TWO: &[usize] = &[2];

const fn row(
    name: &'static str,
    valid_before: &'static [usize],
    seen: &'static [Seen],
    verdict: Verdict,
) -> Row {
    Row { name, valid_before, seen, verdict }
}

/// The decision table.
pub const TABLE: &[Row] = &[
    row("checkpoint_newest", NONE, &[Seen::Valid], Verdict::Newest),
    row("checkpoint_older", &[1], &[Seen::Valid], Verdict::Older),
    row("checkpoint_bad", FEW, &[Seen::Bad], Verdict::PassOver),
    row("checkpoint_unreadable", FEW, &[Seen::Unreadable], Verdict::PassOver),
    row("checkpoint_misplaced", FEW, &[Seen::Misplaced], Verdict::PassOver),
    row("checkpoint_newer_format", FEW, &[Seen::NewerFormat], Verdict::Refuse),
    row(
        "checkpoint_surplus",
        TWO,
        &[Seen::Valid, Seen::Bad, Seen::Unreadable, Seen::Misplaced, Seen::NewerFormat],
        Verdict::Surplus,
    ),
    row("checkpoint_unfinished", ANY, &[Seen::Unfinished], Verdict::Remove),
    row("checkpoint_unknown_name", ANY, &[Seen::UnknownName], Verdict::SetAside),
    row("checkpoint_done", SOME, &[Seen::NoMore, Seen::NoMoreGood, Seen::StartsLost], Verdict::Done),
    row("checkpoint_none", NONE, &[Seen::NoMore], Verdict::Done),
    row("checkpoint_none_valid", NONE, &[Seen::NoMoreGood], Verdict::Refuse),
    // The only one that a start may do without: the files of a log tell what must not be mistaken.
    row("checkpoint_starts_lost", NONE, &[Seen::StartsLost], Verdict::FromFiles),
];

impl Row {
    fn holds(&self, valid_before: usize, seen: Seen) -> bool {
        self.valid_before.contains(&valid_before.min(2)) && self.seen.contains(&seen)
    }
}

/// The row that decides about what was seen.
///
/// # Panics
/// If the table has a hole, which a test excludes.
#[must_use]
pub fn decide(valid_before: usize, seen: Seen) -> &'static Row {
    let found = TABLE.iter().find(|row| row.holds(valid_before, seen));
    assert!(found.is_some(), "no row for {seen:?} behind {valid_before}");
    found.unwrap_or(&HOLE)
}

/// The row of a checkpoint that was passed over.
pub(crate) fn of_fault(fault: CheckpointFault) -> &'static Row {
    decide(0, Seen::of(fault))
}

/// What a hole in the table would mean.
const HOLE: Row = row("none", &[], &[], Verdict::Refuse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sight_meets_exactly_one_row() {
        for valid_before in 0..4 {
            for seen in Seen::ALL {
                let rows = TABLE.iter().filter(|row| row.holds(valid_before, seen)).count();
                assert_eq!(rows, 1, "{valid_before}, {seen:?}");
            }
        }
    }
}
