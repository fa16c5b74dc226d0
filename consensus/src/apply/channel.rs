//! A channel's life: what is fixed when it begins, and the states it goes through.
//!
//! The catalogue records *intent*; the groups that carry the logs act on it and the catalogue is told
//! when they have. So a life has two waiting states, `Creating` and `Deleting`, and a channel takes
//! records only in between.

use std::collections::BTreeSet;

use tidelog_wire::ids::{ChannelUuid, Generation, GroupId, LeaderEpoch, LogId, Partition};

use crate::outcome::NameProblem;

/// Longest channel name.
pub const NAME_BYTES_MAX: usize = 249;

/// ```text
/// Creating --LogsOpened--> Active --DeletionAsked--> Deleting --LogsClosed--> Deleted
///    '-------------------DeletionAsked------------------^
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChannelState {
    /// Its groups are opening its logs. Takes no records yet.
    Creating,
    /// All its logs are open.
    Active,
    /// Its groups are closing its logs. Its name is not free yet.
    Deleting,
    /// All its logs are closed for ever. The catalogue keeps no more than its last leader epoch.
    Deleted,
}

/// What moves a channel through its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// Every group reports its logs open.
    LogsOpened,
    /// Somebody wants it gone.
    DeletionAsked,
    /// Every group reports its logs closed.
    LogsClosed,
}

impl ChannelState {
    /// The state after `event`, or `None` if `event` cannot happen here. A repeated event, and a report
    /// that was overtaken by a deletion, leave the state as it is.
    #[must_use]
    pub fn after(self, event: ChannelEvent) -> Option<Self> {
        use {ChannelEvent as E, ChannelState as S};
        match (self, event) {
            (S::Creating | S::Active, E::LogsOpened) => Some(S::Active),
            (S::Creating | S::Active | S::Deleting, E::DeletionAsked) => Some(S::Deleting),
            (S::Deleting, E::LogsOpened) => Some(S::Deleting),
            (S::Deleting | S::Deleted, E::LogsClosed) => Some(S::Deleted),
            (S::Creating | S::Active, E::LogsClosed) | (S::Deleted, E::LogsOpened | E::DeletionAsked) => None,
        }
    }

    /// The number that stands for it in checkpoints. Never renumbered.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Creating => 1,
            Self::Active => 2,
            Self::Deleting => 3,
            Self::Deleted => 4,
        }
    }

    /// The state with this number, of those that a catalogue can hold: a deleted channel is not in it.
    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Creating),
            2 => Some(Self::Active),
            3 => Some(Self::Deleting),
            _ => None,
        }
    }
}

/// One life of a channel name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Its number, for ever.
    pub generation: Generation,
    /// Its name, which a later life may bear again.
    pub name: String,
    /// Its random name.
    pub uuid: ChannelUuid,
    /// Where it is in its life.
    pub state: ChannelState,
    /// Size at which its segments are sealed.
    pub segment_bytes: u64,
    /// Leader epochs of its logs are this plus the raft term: above the last one of the name's previous life.
    pub epoch_base: i32,
    /// Highest leader epoch that its logs are known to have stamped, from the groups that have closed them.
    pub last_epoch: LeaderEpoch,
    /// The group that carries each partition's log, by partition.
    pub groups: Vec<GroupId>,
    /// The groups that have not reported yet: while it is being created that its logs are open, while it is being
    /// deleted that they are closed.
    pub owing: BTreeSet<GroupId>,
}

impl Channel {
    /// Its logs and the groups that carry them, by partition.
    pub fn logs(&self) -> impl Iterator<Item = (LogId, GroupId)> {
        (0_u32..).zip(&self.groups).map(|(partition, group)| {
            (LogId { generation: self.generation, partition: Partition(partition) }, *group)
        })
    }

    /// Its logs on one group.
    pub fn logs_on(&self, group: GroupId) -> impl Iterator<Item = LogId> {
        self.logs().filter(move |(_, carrier)| *carrier == group).map(|(log, _)| log)
    }

    /// The group that carries a partition's log, if there is such a partition.
    #[must_use]
    pub fn group(&self, partition: Partition) -> Option<GroupId> {
        self.groups.get(usize::try_from(partition.get()).ok()?).copied()
    }
}

/// Whether `name` may be a channel's: 1 to 249 of `A-Z a-z 0-9 . _ -`, neither `.` nor `..`.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), NameProblem> {
    if name.is_empty() {
        return Err(NameProblem::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameProblem::TooLong);
    }
    if name == "." || name == ".." {
        return Err(NameProblem::Dots);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.bytes().all(allowed) { Ok(()) } else { Err(NameProblem::Character) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of state and event: a report that came late or twice changes nothing, and nobody
    /// comes back from deletion.
    #[test]
    fn every_state_meets_every_event() {
        use {ChannelEvent as E, ChannelState as S};
        let table = [
            (S::Creating, [Some(S::Active), Some(S::Deleting), None]),
            (S::Active, [Some(S::Active), Some(S::Deleting), None]),
            (S::Deleting, [Some(S::Deleting), Some(S::Deleting), Some(S::Deleted)]),
            (S::Deleted, [None, None, Some(S::Deleted)]),
        ];
        for (state, after) in table {
            assert_eq!(
                [E::LogsOpened, E::DeletionAsked, E::LogsClosed].map(|event| state.after(event)),
                after
            );
        }
    }

    #[test]
    fn names_outside_of_the_rules_are_refused_with_the_reason() {
        for good in ["a", "flights", "A.b_c-9", "...", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let bad = [
            ("", NameProblem::Empty),
            (".", NameProblem::Dots),
            ("..", NameProblem::Dots),
            ("a/b", NameProblem::Character),
            ("ü", NameProblem::Character),
            ("a b", NameProblem::Character),
        ];
        for (name, problem) in bad {
            assert_eq!(check_name(name), Err(problem), "{name}");
        }
        assert_eq!(check_name(&"x".repeat(250)), Err(NameProblem::TooLong));
    }
}
