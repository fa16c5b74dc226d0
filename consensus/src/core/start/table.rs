//! What is decided about a replica at a start, as one table: how the raft log joins the checkpoint, what its hard
//! state says of its entries, and what the votes file says of its hard state, give the verdict.
//!
//! Every combination meets exactly one row, and every row has a scenario of its own in `core::tests::rows`.
//! `docs/recovery.md` shows the same rows.
//!
//! Not here: checkpoint files (the engine's table), a raft log that cannot be read (`runtime::start`), and the
//! members that a checkpoint names, which no crash can make wrong.

/// How the raft log joins the checkpoint. The first that is true counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) enum Join {
    /// It is that of another replica of the group.
    Others,
    /// An installation was begun and not finished.
    Marked,
    /// There is no checkpoint that names this replica: it has nothing yet, and what its log holds counts for nothing.
    Blank,
    /// No entries, though some beyond the checkpoint were durable once.
    Emptied,
    /// No entries, and none was durable beyond the checkpoint.
    Empty,
    /// It begins behind the entry that follows the last applied one.
    BeginsLate,
    /// It ends before the last applied entry.
    EndsEarly,
    /// Where the last applied entry should be is one of another term.
    OtherTerm,
    /// It ends before an entry that was durable once, and no later term has replaced that one.
    LostDurable,
    /// It goes on where the checkpoint ends, and holds what was durable.
    Whole,
}

impl Join {
    /// All of them.
    #[cfg(test)]
    pub(in crate::core) const ALL: [Self; 10] = [
        Self::Others,
        Self::Marked,
        Self::Blank,
        Self::Emptied,
        Self::Empty,
        Self::BeginsLate,
        Self::EndsEarly,
        Self::OtherTerm,
        Self::LostDurable,
        Self::Whole,
    ];
}

/// What the hard state says of the entries. The first that is true counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) enum State {
    /// Entries beyond the last were committed.
    CommitBeyond,
    /// Its term is below that of the last entry.
    TermBehind,
    /// It may have been written with them.
    Fits,
}

impl State {
    /// All of them.
    #[cfg(test)]
    pub(in crate::core) const ALL: [Self; 3] = [Self::CommitBeyond, Self::TermBehind, Self::Fits];
}

/// What the votes file says of the hard state. The raft log is synced before the votes file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) enum Voted {
    /// A later term.
    Later,
    /// The same term, and a vote that the hard state does not know.
    Other,
    /// Nothing that the hard state does not know.
    Known,
}

impl Voted {
    /// All of them.
    #[cfg(test)]
    pub(in crate::core) const ALL: [Self; 3] = [Self::Later, Self::Other, Self::Known];
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::core) enum Verdict {
    /// The replica runs.
    Run,
    /// It does not start on a log that is not its own.
    KeepApart,
    /// It does not start before the installation is finished.
    FinishInstall,
    /// It lacks entries that were durable: it does not start.
    EntryMissing,
    /// It lacks the entries between checkpoint and raft log: it does not start.
    GapBefore,
    /// The raft log lost entries, or what it knew of them: it does not start.
    StateMismatch,
    /// The raft log lost a vote: it does not start.
    VoteLost,
}

/// One row: it holds for any of what it names.
#[derive(Clone, Copy, Debug)]
pub(in crate::core) struct Row {
    /// What its scenario and the documentation call it.
    pub(in crate::core) name: &'static str,
    /// How the raft log joins the checkpoint.
    pub(in crate::core) join: &'static [Join],
    /// What the hard state says.
    pub(in crate::core) state: &'static [State],
    /// What the votes file says.
    pub(in crate::core) voted: &'static [Voted],
    /// What is done.
    pub(in crate::core) verdict: Verdict,
}

const JOINED: &[Join] = &[Join::Empty, Join::Whole];
const FITS: &[State] = &[State::Fits];
const ANY_STATE: &[State] = &[State::CommitBeyond, State::TermBehind, State::Fits];
const KNOWN: &[Voted] = &[Voted::Known];
const ANY_VOTE: &[Voted] = &[Voted::Later, Voted::Other, Voted::Known];

const fn row(
    name: &'static str,
    join: &'static [Join],
    state: &'static [State],
    voted: &'static [Voted],
    verdict: Verdict,
) -> Row {
    Row { name, join, state, voted, verdict }
}

/// The decision table.
pub(in crate::core) const TABLE: &[Row] = &[
    row("log_whole", &[Join::Whole], FITS, KNOWN, Verdict::Run),
    row("log_empty", &[Join::Empty], FITS, KNOWN, Verdict::Run),
    // It neither votes nor campaigns before it has a snapshot, and acknowledges nothing before.
    row("blank", &[Join::Blank], ANY_STATE, KNOWN, Verdict::Run),
    row("blank_vote_lost", &[Join::Blank], ANY_STATE, &[Voted::Later, Voted::Other], Verdict::VoteLost),
    row("log_of_other_replica", &[Join::Others], ANY_STATE, ANY_VOTE, Verdict::KeepApart),
    // Its entries need not follow the checkpoint meanwhile.
    row("log_marked", &[Join::Marked], ANY_STATE, ANY_VOTE, Verdict::FinishInstall),
    row("log_emptied", &[Join::Emptied], ANY_STATE, ANY_VOTE, Verdict::EntryMissing),
    row("log_begins_late", &[Join::BeginsLate], ANY_STATE, ANY_VOTE, Verdict::GapBefore),
    row("log_ends_early", &[Join::EndsEarly], ANY_STATE, ANY_VOTE, Verdict::EntryMissing),
    row("log_of_other_term", &[Join::OtherTerm], ANY_STATE, ANY_VOTE, Verdict::EntryMissing),
    row("log_lost_durable", &[Join::LostDurable], ANY_STATE, ANY_VOTE, Verdict::EntryMissing),
    row("state_commit_beyond", JOINED, &[State::CommitBeyond], ANY_VOTE, Verdict::StateMismatch),
    row("state_term_behind", JOINED, &[State::TermBehind], ANY_VOTE, Verdict::StateMismatch),
    row("vote_later", JOINED, FITS, &[Voted::Later], Verdict::VoteLost),
    row("vote_other", JOINED, FITS, &[Voted::Other], Verdict::VoteLost),
];

impl Row {
    fn holds(&self, join: Join, state: State, voted: Voted) -> bool {
        self.join.contains(&join) && self.state.contains(&state) && self.voted.contains(&voted)
    }
}

/// What a hole in the table would mean.
const HOLE: Row = row("none", &[], &[], &[], Verdict::EntryMissing);

/// The row that decides about what was seen.
///
/// # Panics
/// If the table has a hole, which a test excludes.
pub(in crate::core) fn decide(join: Join, state: State, voted: Voted) -> &'static Row {
    let found = TABLE.iter().find(|row| row.holds(join, state, voted));
    assert!(found.is_some(), "no row for {join:?}, {state:?}, {voted:?}");
    found.unwrap_or(&HOLE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// No combination misses the table, and none meets two rows.
    #[test]
    fn every_observation_meets_exactly_one_row() {
        for join in Join::ALL {
            for state in State::ALL {
                for voted in Voted::ALL {
                    let rows = TABLE.iter().filter(|row| row.holds(join, state, voted)).count();
                    assert_eq!(rows, 1, "{join:?}, {state:?}, {voted:?}");
                }
            }
        }
    }

    #[test]
    fn no_two_rows_share_a_name_and_none_holds_nowhere() {
        let names: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(
            TABLE
                .iter()
                .all(|row| { !row.join.is_empty() && !row.state.is_empty() && !row.voted.is_empty() })
        );
    }

    /// A replica runs only where nothing speaks against it.
    #[test]
    fn only_a_replica_without_evidence_against_it_runs() {
        for row in TABLE.iter().filter(|row| row.verdict == Verdict::Run) {
            let blank = row.join == [Join::Blank];
            assert!(blank || row.join.iter().all(|join| JOINED.contains(join)), "{}", row.name);
            assert!(blank || row.state == FITS, "{}", row.name);
            assert_eq!(row.voted, KNOWN, "{}", row.name);
        }
    }
}
