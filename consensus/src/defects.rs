//! Deliberate defects, in builds with the feature `defects` only: a museum of bugs that somebody could write one day.
//!
//! Each stands where such a bug would be, as one `#[cfg(feature = "defects")]` with a question to [`plays`]. The
//! simulator plays one of them at a time and must find it by its own means: that is how we know that its checkers look.
//! A run of it is one thread, so which defect is played belongs to the thread. `cargo xtask museum` goes through all.

use std::cell::Cell;

/// A bug to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// A leader takes its own disk for a quorum.
    AckBeforeQuorum,
    /// The raft log does not sync what it is asked to.
    SkipSync,
    /// The raft log does not sync what its recovery kept.
    SkipRecoveredTailSync,
    /// A vote is given before, and without, being written down.
    ForgetVote,
    /// The last entry of a checkpoint is applied once more after a start.
    ApplyTwice,
    /// A batch for a generation that is gone goes to the one that bears its name now.
    IgnoreGeneration,
    /// A replica that lost what it promised takes part all the same.
    CountAmnesiac,
    /// A follower applies what it has, and not what is committed.
    ServeUncommitted,
    /// What is known of producers is not taken from the checkpoint.
    DropProducerState,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AckBeforeQuorum,
        Self::SkipSync,
        Self::SkipRecoveredTailSync,
        Self::ForgetVote,
        Self::ApplyTwice,
        Self::IgnoreGeneration,
        Self::ServeUncommitted,
        Self::DropProducerState,
        Self::CountAmnesiac,
    ];
}

thread_local! {
    static PLAYED: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// From now on this thread plays this defect, or none.
pub fn play(defect: Option<Defect>) {
    PLAYED.set(defect);
}

/// Whether this thread plays the defect.
pub(crate) fn plays(defect: Defect) -> bool {
    PLAYED.get() == Some(defect)
}
