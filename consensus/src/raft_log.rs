//! The raft log: what a node has promised to its peers, for all of its groups in one place.
//!
//! 1. A [`GroupWrite`] says what changes for one group. Several are written at once and made durable
//!    by **one** sync: that sync is what an acknowledgement waits for, so it is shared by all groups.
//! 2. [`RaftLog::load`] reads and checks every entry of a group before a replica of it exists, and
//!    hands back the terms, which stay in memory from then on.
//! 3. [`RaftLog::compact`] forgets a prefix that the kept checkpoints no longer need;
//!    [`RaftLog::purge`] gives the files back and names the groups whose old entries hold files.
//!
//! What opening recovers is synced before `open` returns: after a killed process the page cache may
//! hold what the disk does not, and nobody may be told of entries that a power cut would take back.
//!
//! Two implementations pass the same conformance tests: [`EngineLog`] over raft-engine, which
//! servers use, and [`SimLog`] over the engine's storage trait, which the simulator can crash.
//!
//! Not here: the in-memory tail from which entries are answered in a steady state, and the rule up
//! to which index a log may be compacted (`crate::core`); the durable votes (`crate::votes`).

use std::fmt;
use std::path::PathBuf;

use raft::eraftpb::{Entry, HardState};
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId, Term};

mod cut_tail;
mod engine_log;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod sim_log;
mod sim_record;
mod values;
mod watched_files;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod cut_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod refused_tests;
#[cfg(test)]
mod tests;

pub use engine_log::{EngineLog, EngineLogOptions};
pub use sim_log::{SimLog, SimLogOptions};
pub use watched_files::{AbortOnSyncFailure, SyncPolicy, sync_failed};

/// What changes in the log of one group.
///
/// Applied in the order of the fields: first everything of the group is forgotten (`clear`), then
/// it is noted whose log it is (`replica`), the entries replace whatever stood at and above the first one's index, then hard state and mark.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupWrite {
    /// The group.
    pub group: GroupId,
    /// Forget all entries, the hard state and the install mark of the group first. Which replica it is
    /// stays known.
    pub clear: bool,
    /// From now on all of this is that of another replica of the group. Written together with `clear`, and
    /// synced, so that no replica ever takes what an older one left for its own.
    pub replica: Option<ReplicaId>,
    /// Entries without gaps between them, in order. They replace any suffix from the first one's
    /// index on and must not leave a gap behind what the log holds.
    pub entries: Vec<Entry>,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// What becomes of the install mark.
    pub install: InstallChange,
}

impl GroupWrite {
    /// A write that changes nothing yet.
    #[must_use]
    pub fn new(group: GroupId) -> Self {
        Self { group, ..Self::default() }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.clear
            && self.replica.is_none()
            && self.entries.is_empty()
            && self.hard_state.is_none()
            && self.install == InstallChange::Keep
    }
}

/// What a [`GroupWrite`] does to the install mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InstallChange {
    /// Leave it.
    #[default]
    Keep,
    /// Set it: from now on a start finishes the installation that it names.
    Set(InstallMark),
    /// The installation is finished.
    Remove,
}

/// Names the snapshot that is replacing the state of a group.
///
/// While it stands, entries of the group are not to be trusted to follow its checkpoint: the
/// installation is redone from staging first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallMark {
    /// Last entry that the snapshot contains.
    pub index: RaftIndex,
    /// That entry's term.
    pub term: Term,
    /// Hash of the snapshot's manifest, which is also the name of its staging directory.
    pub digest: u64,
}

/// All that a start needs to know about the log of one group. Its entries were read and checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupLog {
    /// First and last entry; `None` if the log holds no entry.
    pub span: Option<Span>,
    /// Where each term begins, in order. Covers the span exactly.
    pub terms: Vec<TermRun>,
    /// The last hard state written, or the default one.
    pub hard_state: HardState,
    /// An installation that was begun and not finished.
    pub install: Option<InstallMark>,
    /// Whose log it is; `None` if that was never written: then the one that the checkpoint names.
    pub replica: Option<ReplicaId>,
}

impl GroupLog {
    /// Term of the entry at `index`, if the log holds it.
    #[must_use]
    pub fn term(&self, index: RaftIndex) -> Option<Term> {
        let span = self.span?;
        if index < span.first || index > span.last {
            return None;
        }
        self.terms.iter().rev().find(|run| run.first <= index).map(|run| run.term)
    }
}

/// First and last index of the entries of a log; both are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The oldest entry kept.
    pub first: RaftIndex,
    /// The newest entry.
    pub last: RaftIndex,
}

/// From `first` on, entries have this term, up to the next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// The first entry with the term.
    pub first: RaftIndex,
    /// The term.
    pub term: Term,
}

/// The log of all groups of one node.
///
/// Any thread may read, write and compact; what one call does is one step to the others. The log writer
/// writes; the apply thread writes for a group that is switched to a snapshot, and the keeper compacts. After [`RaftLogError::Io`] of `write` nothing is known about
/// what the log holds on disk: the caller stops the node and lets a new start recover it.
pub trait RaftLog: fmt::Debug + Send + Sync + 'static {
    /// Carries out `writes` in order, as one atomic batch: after a crash all of them are there or none.
    ///
    /// With `sync`, all that was ever written is durable on return; without, a crash may take it back.
    ///
    /// # Errors
    /// [`RaftLogError::Gap`] if entries would leave a hole, [`RaftLogError::Full`]: nothing was written.
    /// [`RaftLogError::Io`]: see the trait.
    fn write(&self, writes: &[GroupWrite], sync: bool) -> Result<(), RaftLogError>;

    /// Reads and checks everything of `group`. A group never written to is empty, not an error.
    ///
    /// # Errors
    /// [`RaftLogError::Damaged`] if any entry or state does not verify.
    fn load(&self, group: GroupId) -> Result<GroupLog, RaftLogError>;

    /// The entries from `low` up to, not including, `high`; at least one, and then as many as fit
    /// into `bytes_max` bytes of encoded entries.
    ///
    /// # Errors
    /// [`RaftLogError::Compacted`] if `low` is below the first entry, [`RaftLogError::Missing`] if
    /// `high` is beyond the last plus one; [`RaftLogError::Damaged`] if one does not verify.
    fn entries(
        &self,
        group: GroupId,
        low: RaftIndex,
        high: RaftIndex,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, RaftLogError>;

    /// Forgets the entries of `group` before `first_kept`; not synced, so a crash may bring them back.
    /// The last entry always stays, so that the end of the log is never in doubt.
    ///
    /// # Errors
    /// [`RaftLogError::Io`]: see the trait.
    fn compact(&self, group: GroupId, first_kept: RaftIndex) -> Result<(), RaftLogError>;

    /// Gives back files that hold nothing of use, and names the groups whose old entries keep files
    /// from being given back: they should be checkpointed and compacted soon.
    ///
    /// # Errors
    /// [`RaftLogError::Io`]: see the trait.
    fn purge(&self) -> Result<Vec<GroupId>, RaftLogError>;

    /// The groups of which the log holds anything, sorted.
    fn groups(&self) -> Vec<GroupId>;

    /// Bytes that the log occupies on disk.
    fn disk_bytes(&self) -> u64;

    /// Forgets everything of `group`, durably, but which replica it is.
    ///
    /// # Errors
    /// As [`RaftLog::write`].
    fn clear(&self, group: GroupId) -> Result<(), RaftLogError> {
        self.write(&[GroupWrite { clear: true, ..GroupWrite::new(group) }], true)
    }
}

/// The raft log cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RaftLogError {
    /// The disk failed.
    #[error(
        "E1101 {path}: cannot {action}: {source}; what the raft log holds on disk is now unknown: \
         check the disk, then restart the node"
    )]
    Io {
        /// The raft log's directory or file.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The disk is full. **Nothing was written**, so the same write may be tried again.
    #[error(
        "E1107 {path}: the disk is full: {source}; nothing was written, and the node tries again by itself: \
         free room on the disk"
    )]
    Full {
        /// The raft log's directory or file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// What is on disk does not verify.
    #[error(
        "E1102 {path}: {place} does not verify: {found}; expected {expected}: this node cannot vouch for it \
         and the other nodes go on; check the disk, and keep what is set aside"
    )]
    Damaged {
        /// The raft log's directory or file.
        path: PathBuf,
        /// What in it: a group, an entry, a file.
        place: String,
        /// What should stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// An older entry was asked for than the log keeps.
    #[error(
        "E1103 group {group}: entry {asked} was compacted away; the first kept is {first}: use a snapshot"
    )]
    Compacted {
        /// The group.
        group: GroupId,
        /// The entry asked for.
        asked: RaftIndex,
        /// The oldest kept.
        first: RaftIndex,
    },
    /// A newer entry was asked for than the log holds.
    #[error(
        "E1104 group {group}: entry {asked} is not in the log, which ends before {end}: restart the node"
    )]
    Missing {
        /// The group.
        group: GroupId,
        /// The entry asked for.
        asked: RaftIndex,
        /// One past the last entry.
        end: RaftIndex,
    },
    /// A write would leave a hole in the log, or reach below what was compacted.
    #[error(
        "E1105 group {group}: entries from {first} on do not continue the log, which holds {held}; \
         nothing was written: restart the node and report this as a bug"
    )]
    Gap {
        /// The group.
        group: GroupId,
        /// The first entry of the write, or the first that is out of order.
        first: RaftIndex,
        /// What the log holds, for people.
        held: String,
    },
}

/// Checks that a log which holds `span` holds the entries from `low` up to `high`.
fn check_range(group: GroupId, span: Span, low: RaftIndex, high: RaftIndex) -> Result<(), RaftLogError> {
    if low < span.first {
        return Err(RaftLogError::Compacted { group, asked: low, first: span.first });
    }
    let end = RaftIndex(span.last.get().saturating_add(1));
    if high > end {
        return Err(RaftLogError::Missing { group, asked: RaftIndex(high.get().saturating_sub(1)), end });
    }
    Ok(())
}
