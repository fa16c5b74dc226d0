//! What recovery decides, as one table: where something was seen, and what, give the verdict.
//!
//! Every combination of mode, place and sight meets exactly one row; a test walks all of them.

use super::Mode;

/// On which side of the durable mark something was seen.
///
/// Under consensus the mark is the checkpoint. Embedded it is the highest `synced_to` that any valid
/// frame of the file states, or a checkpoint's position; a segment that has a successor lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Promised: it was synced once.
    BelowMark,
    /// Nobody was promised it.
    AboveMark,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A frame, footer or file that verifies and is in its place.
    Valid,
    /// The file ends, or holds zeros only.
    Nothing,
    /// Bytes that do not verify.
    Broken,
    /// A segment that has a successor does not end in a valid footer.
    NoFooter,
    /// A segment header that does not verify.
    BrokenHeader,
    /// A segment that should be there is not.
    Missing,
    /// A segment behind bytes that were cut.
    BeyondCut,
    /// A name that no segment has, or a valid segment of another log or another base offset.
    Misplaced,
    /// Valid, of a format that this version does not know.
    NewerFormat,
    /// A valid segment of another cluster.
    ForeignCluster,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Use it.
    Intact,
    /// Nobody was promised it: copy to quarantine, cut, go on.
    TornTail,
    /// Index and footer are a function of the frames: write them again.
    SealAgain,
    /// It was promised and is gone: mark exactly that range damaged; the log stays up.
    Corrupt,
    /// The frames verify by themselves: use them, report the header.
    FramesOnly,
    /// Move it to quarantine, name it, go on.
    SetAside,
    /// Change nothing and refuse to open the log: somebody must decide.
    Refuse,
}

/// One row: it holds for any of its modes and places.
pub(crate) struct Row {
    pub(crate) modes: &'static [Mode],
    pub(crate) places: &'static [Place],
    pub(crate) seen: Seen,
    pub(crate) verdict: Verdict,
}

const ANY_MODE: &[Mode] = &[Mode::Consensus, Mode::Embedded];
const ANYWHERE: &[Place] = &[Place::BelowMark, Place::AboveMark];
const BELOW: &[Place] = &[Place::BelowMark];
const ABOVE: &[Place] = &[Place::AboveMark];

const fn row(modes: &'static [Mode], places: &'static [Place], seen: Seen, verdict: Verdict) -> Row {
    Row { modes, places, seen, verdict }
}

/// The decision table.
pub(crate) const TABLE: &[Row] = &[
    row(ANY_MODE, ANYWHERE, Seen::Valid, Verdict::Intact),
    row(ANY_MODE, ABOVE, Seen::Nothing, Verdict::Intact),
    row(ANY_MODE, BELOW, Seen::Nothing, Verdict::Corrupt),
    row(ANY_MODE, ABOVE, Seen::Broken, Verdict::TornTail),
    row(ANY_MODE, BELOW, Seen::Broken, Verdict::Corrupt),
    // Above a checkpoint the frames are walked whatever the footer says, and replay seals again.
    row(&[Mode::Consensus], ABOVE, Seen::NoFooter, Verdict::Intact),
    row(&[Mode::Consensus], BELOW, Seen::NoFooter, Verdict::SealAgain),
    row(&[Mode::Embedded], ANYWHERE, Seen::NoFooter, Verdict::SealAgain),
    row(ANY_MODE, ABOVE, Seen::BrokenHeader, Verdict::TornTail),
    row(ANY_MODE, BELOW, Seen::BrokenHeader, Verdict::FramesOnly),
    row(ANY_MODE, ABOVE, Seen::Missing, Verdict::Intact),
    row(ANY_MODE, BELOW, Seen::Missing, Verdict::Corrupt),
    row(ANY_MODE, ABOVE, Seen::BeyondCut, Verdict::SetAside),
    row(ANY_MODE, BELOW, Seen::BeyondCut, Verdict::Intact),
    row(ANY_MODE, ANYWHERE, Seen::Misplaced, Verdict::SetAside),
    row(ANY_MODE, ANYWHERE, Seen::NewerFormat, Verdict::Refuse),
    row(ANY_MODE, ANYWHERE, Seen::ForeignCluster, Verdict::Refuse),
];

/// The verdict on what was seen.
#[must_use]
pub fn decide(mode: Mode, place: Place, seen: Seen) -> Verdict {
    let found =
        TABLE.iter().find(|row| row.seen == seen && row.modes.contains(&mode) && row.places.contains(&place));
    assert!(found.is_some(), "no row for {mode:?}, {place:?}, {seen:?}");
    found.map_or(Verdict::Refuse, |row| row.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: [Seen; 10] = [
        Seen::Valid,
        Seen::Nothing,
        Seen::Broken,
        Seen::NoFooter,
        Seen::BrokenHeader,
        Seen::Missing,
        Seen::BeyondCut,
        Seen::Misplaced,
        Seen::NewerFormat,
        Seen::ForeignCluster,
    ];

    /// No input misses the table, and none meets two rows.
    #[test]
    fn every_observation_meets_exactly_one_row() {
        for mode in [Mode::Consensus, Mode::Embedded] {
            for place in [Place::BelowMark, Place::AboveMark] {
                for seen in SEEN {
                    let rows = TABLE
                        .iter()
                        .filter(|row| {
                            row.seen == seen && row.modes.contains(&mode) && row.places.contains(&place)
                        })
                        .count();
                    assert_eq!(rows, 1, "{mode:?}, {place:?}, {seen:?}");
                }
            }
        }
    }

    /// What was promised is never cut, and what was not is never called damage.
    #[test]
    fn only_unpromised_bytes_are_cut_and_only_promised_ones_are_damage() {
        for row in TABLE {
            if row.verdict == Verdict::TornTail {
                assert_eq!(row.places, ABOVE);
            }
            if row.verdict == Verdict::Corrupt {
                assert_eq!(row.places, BELOW);
            }
        }
    }
}
