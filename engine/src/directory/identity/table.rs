//! What is decided about the two copies of the identity, as one table: what each copy is, and whether they
//! name the same owner, give the verdict. Which of the two is which does not matter.
//!
//! Every pair of sights meets exactly one row, and every row has a scenario of its own in
//! `tests/scenarios/recovery_rows`. `docs/recovery.md` shows the same rows.

use super::BadCopy;

/// What one copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// It verifies.
    Valid,
    /// It verifies and names another owner than the other copy, which verifies too.
    OtherOwner,
    /// There is no such file.
    Missing,
    /// It does not verify.
    Bad,
    /// The disk does not give it.
    Unreadable,
    /// A newer release wrote it.
    NewerFormat,
}

impl Seen {
    /// All that a copy can be.
    pub const ALL: [Self; 6] =
        [Self::Valid, Self::OtherOwner, Self::Missing, Self::Bad, Self::Unreadable, Self::NewerFormat];

    pub(super) const fn of(fault: BadCopy) -> Self {
        match fault {
            BadCopy::Missing => Self::Missing,
            BadCopy::Length | BadCopy::Magic | BadCopy::Checksum { .. } | BadCopy::Reserved => Self::Bad,
            BadCopy::Format(_) => Self::NewerFormat,
            BadCopy::Unreadable => Self::Unreadable,
        }
    }
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Take the copy with the higher boot epoch, raise it, write both.
    Use,
    /// Take the valid copy and write both; what stood in the place of the other goes to quarantine first.
    Heal,
    /// The directory was never formatted: refuse to open it.
    NotFormatted,
    /// Refuse to open it, name both copies, change nothing.
    Refuse,
}

/// One row: it holds if one copy is among the first sights and the other among the second.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What its scenario and the documentation call it.
    pub name: &'static str,
    /// What one copy is.
    pub one: &'static [Seen],
    /// What the other is.
    pub other: &'static [Seen],
    /// What is done.
    pub verdict: Verdict,
}

/// The decision table.
pub const TABLE: &[Row] = &[
    Row { name: "identity_whole", one: &[Seen::Valid], other: &[Seen::Valid], verdict: Verdict::Use },
    Row {
        name: "identity_one_bad",
        one: &[Seen::Valid, Seen::OtherOwner],
        other: &[Seen::Missing, Seen::Bad, Seen::Unreadable],
        verdict: Verdict::Heal,
    },
    Row {
        name: "identity_owners_differ",
        one: &[Seen::OtherOwner],
        other: &[Seen::Valid, Seen::OtherOwner],
        verdict: Verdict::Refuse,
    },
    Row {
        name: "identity_absent",
        one: &[Seen::Missing],
        other: &[Seen::Missing],
        verdict: Verdict::NotFormatted,
    },
    Row {
        name: "identity_both_bad",
        one: &[Seen::Bad, Seen::Unreadable],
        other: &[Seen::Missing, Seen::Bad, Seen::Unreadable],
        verdict: Verdict::Refuse,
    },
    Row { name: "identity_newer", one: &[Seen::NewerFormat], other: &Seen::ALL, verdict: Verdict::Refuse },
];

impl Row {
    fn holds(&self, a: Seen, b: Seen) -> bool {
        (self.one.contains(&a) && self.other.contains(&b))
            || (self.one.contains(&b) && self.other.contains(&a))
    }
}

/// The row that decides about two copies.
///
/// # Panics
/// If the table has a hole, which a test excludes.
#[must_use]
pub fn decide(a: Seen, b: Seen) -> &'static Row {
    let found = TABLE.iter().find(|row| row.holds(a, b));
    assert!(found.is_some(), "no row for {a:?}, {b:?}");
    found.unwrap_or(&HOLE)
}

/// What a hole in the table would mean.
const HOLE: Row = Row { name: "none", one: &[], other: &[], verdict: Verdict::Refuse };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_copies_meets_exactly_one_row() {
        for a in Seen::ALL {
            for b in Seen::ALL {
                assert_eq!(TABLE.iter().filter(|row| row.holds(a, b)).count(), 1, "{a:?}, {b:?}");
            }
        }
    }
}
