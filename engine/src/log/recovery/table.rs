//! What recovery decides about the files of a log, as one table: where something was seen, and what,
//! give the verdict.
//!
//! Every combination of mode, place and sight meets exactly one row, and every row has a scenario of
//! its own in `tests/scenarios/recovery_rows`; both are tested. `docs/recovery.md` shows the same rows.
//!
//! Not here: the copies of the identity ([`crate::directory::identity::table`]), checkpoint files
//! ([`crate::checkpoint::table`]), and carrying a verdict out.

use super::Mode;

/// On which side of the durable mark something was seen.
///
/// Under consensus the mark is the checkpoint. Embedded it is the highest `synced_to` that any valid
/// frame of the file states, or a checkpoint's position; a segment that has a successor lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Promised: it was synced once.
    BelowMark,
    /// Nobody was promised it.
    AboveMark,
}

impl Place {
    /// Both.
    pub const ALL: [Self; 2] = [Self::BelowMark, Self::AboveMark];
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// A frame, footer or file that verifies and is in its place.
    Valid,
    /// The frames end, or only zeros follow.
    End,
    /// Bytes that do not verify.
    Broken,
    /// The disk does not give the bytes: an error on open, length or read.
    Unreadable,
    /// A file of no bytes at all.
    Empty,
    /// The segment does not end in a valid footer.
    NoFooter,
    /// A valid footer says that the segment ends behind where its successor begins, or its own frames
    /// do not lead to what it says.
    FooterContradicts,
    /// A valid footer says that the segment ends before its successor begins: what was between is gone.
    FooterShort,
    /// A segment header that does not verify.
    BrokenHeader,
    /// A valid segment header whose chain is not the one that the history before it has.
    OtherHistory,
    /// A segment that should be there is not: the first, or the one that was active.
    Missing,
    /// A segment behind bytes that were cut.
    BeyondCut,
    /// A file named for an offset within another segment, whose footer leads beyond it to where the next
    /// segment begins.
    Covered,
    /// The whole segment lies below the log start.
    Trimmed,
    /// A name that no segment has, or that is no file.
    UnknownName,
    /// A valid segment of another log or another base offset. If frames of the file's own name lie behind
    /// such a header, it is a [`Seen::BrokenHeader`].
    Misplaced,
    /// The same, just where the last segment of an embedded log should be, or alone in its directory.
    Replaced,
    /// Valid, of a format that this version does not know: header, frame or footer.
    NewerFormat,
    /// A valid segment of another cluster.
    ForeignCluster,
    /// The log's directory cannot be listed.
    Unlisted,
}

impl Seen {
    /// All that can be seen.
    pub const ALL: [Self; 20] = [
        Self::Valid,
        Self::End,
        Self::Broken,
        Self::Unreadable,
        Self::Empty,
        Self::NoFooter,
        Self::FooterContradicts,
        Self::FooterShort,
        Self::BrokenHeader,
        Self::OtherHistory,
        Self::Missing,
        Self::BeyondCut,
        Self::Covered,
        Self::Trimmed,
        Self::UnknownName,
        Self::Misplaced,
        Self::Replaced,
        Self::NewerFormat,
        Self::ForeignCluster,
        Self::Unlisted,
    ];
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Use it.
    Intact,
    /// Nobody was promised it: copy to quarantine, cut, go on.
    TornTail,
    /// Index and footer are a function of the frames: write them again.
    SealAgain,
    /// It was promised and is gone: mark exactly that range damaged; the log stays up.
    Corrupt,
    /// It was promised and the disk does not give it now: reading the range fails and names file and
    /// error, nothing is changed, the log stays up, and each read and each start asks the disk again.
    Unread,
    /// The frames verify by themselves: use them, believe nothing else of the file, report it.
    FramesOnly,
    /// Move it to quarantine, name it, go on.
    SetAside,
    /// Hand it to be unlinked, once no kept checkpoint and no pin names it.
    Unlink,
    /// It may have been promised, so the log's end is not known: change nothing, serve what lies before
    /// it, and take no appends.
    ReadOnly,
    /// Change nothing and refuse to open the log: somebody must decide.
    Refuse,
}

/// One row: it holds for any of its modes and places.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What its scenario and the documentation call it.
    pub name: &'static str,
    /// In which modes it holds.
    pub modes: &'static [Mode],
    /// On which sides of the mark it holds.
    pub places: &'static [Place],
    /// For which sight.
    pub seen: Seen,
    /// What is done.
    pub verdict: Verdict,
}

const ANY_MODE: &[Mode] = &[Mode::Consensus, Mode::Embedded];
const CONSENSUS: &[Mode] = &[Mode::Consensus];
const EMBEDDED: &[Mode] = &[Mode::Embedded];
const ANYWHERE: &[Place] = &[Place::BelowMark, Place::AboveMark];
const BELOW: &[Place] = &[Place::BelowMark];
const ABOVE: &[Place] = &[Place::AboveMark];

const fn row(
    name: &'static str,
    modes: &'static [Mode],
    places: &'static [Place],
    seen: Seen,
    verdict: Verdict,
) -> Row {
    Row { name, modes, places, seen, verdict }
}

/// The decision table.
pub const TABLE: &[Row] = &[
    row("valid", ANY_MODE, ANYWHERE, Seen::Valid, Verdict::Intact),
    row("end_above", ANY_MODE, ABOVE, Seen::End, Verdict::Intact),
    row("end_below", ANY_MODE, BELOW, Seen::End, Verdict::Corrupt),
    row("broken_above", ANY_MODE, ABOVE, Seen::Broken, Verdict::TornTail),
    row("broken_below", ANY_MODE, BELOW, Seen::Broken, Verdict::Corrupt),
    // The raft log writes it again. Embedded nothing else has it, and no crash makes a disk refuse to
    // read: it may have been acknowledged, and its offsets must not be handed out a second time.
    row("unreadable_above_consensus", CONSENSUS, ABOVE, Seen::Unreadable, Verdict::TornTail),
    row("unreadable_above_embedded", EMBEDDED, ABOVE, Seen::Unreadable, Verdict::ReadOnly),
    row("unreadable_below", ANY_MODE, BELOW, Seen::Unreadable, Verdict::Unread),
    row("empty_above", ANY_MODE, ABOVE, Seen::Empty, Verdict::SetAside),
    row("empty_below", ANY_MODE, BELOW, Seen::Empty, Verdict::Corrupt),
    // Above a checkpoint the frames are walked whatever the footer says, and replay seals again; the last
    // segment of an embedded log goes on taking appends.
    row("no_footer_above", ANY_MODE, ABOVE, Seen::NoFooter, Verdict::Intact),
    row("no_footer_below", ANY_MODE, BELOW, Seen::NoFooter, Verdict::SealAgain),
    row("footer_contradicts_above", ANY_MODE, ABOVE, Seen::FooterContradicts, Verdict::TornTail),
    row("footer_contradicts_below", ANY_MODE, BELOW, Seen::FooterContradicts, Verdict::FramesOnly),
    row("footer_short", ANY_MODE, ANYWHERE, Seen::FooterShort, Verdict::Corrupt),
    row("broken_header_above", ANY_MODE, ABOVE, Seen::BrokenHeader, Verdict::SetAside),
    row("broken_header_below", ANY_MODE, BELOW, Seen::BrokenHeader, Verdict::FramesOnly),
    row("other_history_above_consensus", CONSENSUS, ABOVE, Seen::OtherHistory, Verdict::SetAside),
    row("other_history_above_embedded", EMBEDDED, ABOVE, Seen::OtherHistory, Verdict::ReadOnly),
    row("other_history_below", ANY_MODE, BELOW, Seen::OtherHistory, Verdict::Corrupt),
    row("missing", ANY_MODE, ANYWHERE, Seen::Missing, Verdict::Corrupt),
    row("beyond_cut", ANY_MODE, ANYWHERE, Seen::BeyondCut, Verdict::SetAside),
    row("covered", ANY_MODE, ANYWHERE, Seen::Covered, Verdict::SetAside),
    row("trimmed", ANY_MODE, ANYWHERE, Seen::Trimmed, Verdict::Unlink),
    row("unknown_name", ANY_MODE, ANYWHERE, Seen::UnknownName, Verdict::SetAside),
    row("misplaced", ANY_MODE, ANYWHERE, Seen::Misplaced, Verdict::SetAside),
    // Its end is not known, and its offsets must not be handed out a second time. Only looked for embedded.
    row("replaced", ANY_MODE, ANYWHERE, Seen::Replaced, Verdict::ReadOnly),
    row("newer_format", ANY_MODE, ANYWHERE, Seen::NewerFormat, Verdict::Refuse),
    row("foreign_cluster", ANY_MODE, ANYWHERE, Seen::ForeignCluster, Verdict::Refuse),
    row("unlisted", ANY_MODE, ANYWHERE, Seen::Unlisted, Verdict::Refuse),
];

impl Row {
    fn holds(&self, mode: Mode, place: Place, seen: Seen) -> bool {
        self.seen == seen && self.modes.contains(&mode) && self.places.contains(&place)
    }
}

/// The row that decides about what was seen.
///
/// # Panics
/// If the table has a hole, which a test excludes.
#[must_use]
pub fn decide(mode: Mode, place: Place, seen: Seen) -> &'static Row {
    let found = TABLE.iter().find(|row| row.holds(mode, place, seen));
    assert!(found.is_some(), "no row for {mode:?}, {place:?}, {seen:?}");
    found.unwrap_or(&REFUSE)
}

/// What a hole in the table would mean.
const REFUSE: Row = row("none", &[], &[], Seen::Unlisted, Verdict::Refuse);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// No input misses the table, and none meets two rows.
    #[test]
    fn every_observation_meets_exactly_one_row() {
        for mode in [Mode::Consensus, Mode::Embedded] {
            for place in Place::ALL {
                for seen in Seen::ALL {
                    let rows = TABLE.iter().filter(|row| row.holds(mode, place, seen)).count();
                    assert_eq!(rows, 1, "{mode:?}, {place:?}, {seen:?}");
                }
            }
        }
    }

    #[test]
    fn no_two_rows_share_a_name_and_none_holds_nowhere() {
        let names: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        assert!(TABLE.iter().all(|row| !row.modes.is_empty() && !row.places.is_empty()));
    }

    /// What was promised is never cut, and what was not is never called damage.
    #[test]
    fn only_unpromised_bytes_are_cut() {
        for row in TABLE.iter().filter(|row| row.verdict == Verdict::TornTail) {
            assert_eq!(row.places, ABOVE, "{}", row.name);
        }
        for row in TABLE.iter().filter(|row| row.verdict == Verdict::Unread) {
            assert_eq!(row.places, BELOW, "{}", row.name);
        }
    }
}
