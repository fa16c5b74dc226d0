//! What the core refuses, and why a replica stops taking part.
//!
//! A [`MessageRefusal`] costs one message. A [`HaltReason`] costs one replica: it neither votes nor
//! acknowledges any more, since what it would say may be untrue. Neither costs the node.

use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId, Term};

/// A peer's message that was not stepped. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageRefusal {
    /// No replica of that group here.
    #[error("E1201 group {group} has no replica on this node: compare the configuration of both nodes")]
    UnknownGroup {
        /// The group named.
        group: GroupId,
    },
    /// Meant for another replica.
    #[error(
        "E1202 group {group}: message for replica {found}, this node is replica {expected}: the sender \
         knows an older membership; nothing to do if it stops"
    )]
    WrongRecipient {
        /// The group.
        group: GroupId,
        /// This node's replica.
        expected: ReplicaId,
        /// The replica named.
        found: ReplicaId,
    },
    /// The sender is not where the replica it speaks for is.
    #[error(
        "E1203 group {group}: node {node} speaks for replica {claimed}, which is not a member on that \
         node: compare the certificates and configuration of both nodes"
    )]
    UnknownSender {
        /// The group.
        group: GroupId,
        /// The node, as its certificate says.
        node: NodeId,
        /// The replica it claims to be.
        claimed: ReplicaId,
    },
    /// A kind of message that no peer may send.
    #[error("E1204 group {group}: a peer may not send {kind}: compare the versions of both nodes")]
    ForbiddenKind {
        /// The group.
        group: GroupId,
        /// Its name.
        kind: &'static str,
    },
    /// A number that no honest peer sends.
    #[error(
        "E1205 group {group}: {field} is {found}, expected {expected}: compare the versions of both \
         nodes, then report this as a bug"
    )]
    Absurd {
        /// The group.
        group: GroupId,
        /// Which field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// Entries with gaps, or with terms that fall.
    #[error(
        "E1206 group {group}: entry {index} of term {term} does not follow entry {previous}: compare the \
         versions of both nodes, then report this as a bug"
    )]
    EntriesOutOfOrder {
        /// The group.
        group: GroupId,
        /// Index of the entry.
        index: RaftIndex,
        /// Its term.
        term: Term,
        /// The one before.
        previous: EntryId,
    },
    /// An entry or a context larger than allowed.
    #[error(
        "E1207 group {group}: {what} has {bytes} bytes, at most {max} are allowed: set the same limits on \
         all nodes"
    )]
    Oversized {
        /// The group.
        group: GroupId,
        /// What.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A snapshot offer that cannot be right.
    #[error("E1208 group {group}: the offered snapshot cannot be right: {found}; expected {expected}")]
    BadSnapshot {
        /// The group.
        group: GroupId,
        /// What is wrong.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// An answer to something never asked.
    #[error("E1209 group {group}: {kind} to a question that was not asked; nothing to do")]
    Unsolicited {
        /// The group.
        group: GroupId,
        /// Its name.
        kind: &'static str,
    },
    /// Entries arrive faster than they become durable and applied. Not the sender's fault.
    #[error(
        "E1210 group {group}: {bytes} bytes of entries wait for the disk, at most {max} may: the sender \
         repeats; check the disk if it lasts"
    )]
    TailFull {
        /// The group.
        group: GroupId,
        /// In memory now.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The replica does not take part, or is being replaced by a snapshot.
    #[error("E1211 group {group}: this replica takes no such message now; nothing to do")]
    NotTaking {
        /// The group.
        group: GroupId,
    },
}

/// Why a replica does not take part: it neither votes nor acknowledges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HaltReason {
    /// A vote is durable that the raft log does not know: the log lost its end.
    #[error(
        "E1220 group {group}: the votes file says term {vote_term}, the raft log ends its terms at \
         {log_term}: the raft log lost what it had promised; this replica stays out and the others go on: keep its \
         data directory, a successor is filled here"
    )]
    VotesAhead {
        /// The group.
        group: GroupId,
        /// Term in the votes file.
        vote_term: Term,
        /// Term in the raft log.
        log_term: Term,
    },
    /// The checkpoint is ahead of the raft log, and no install mark explains it.
    #[error(
        "E1221 group {group}: the checkpoint saw entry {expected} durable, but the raft log {found}: it \
         lost entries; this replica stays out and the others go on: keep its data directory, a successor is \
         filled here"
    )]
    DurableEntryMissing {
        /// The group.
        group: GroupId,
        /// The entry that was durable.
        expected: EntryId,
        /// What the raft log has instead, for people.
        found: String,
    },
    /// Entries between checkpoint and raft log are in neither.
    #[error(
        "E1222 group {group}: the checkpoint ends at entry {applied}, the raft log begins at {first}: the \
         entries between are lost here; this replica stays out and the others go on: keep its data directory, \
         a successor is filled here"
    )]
    LogBeginsLate {
        /// The group.
        group: GroupId,
        /// Applied by the checkpoint.
        applied: RaftIndex,
        /// First entry of the log.
        first: RaftIndex,
    },
    /// The hard state speaks of entries or terms that the log does not match.
    #[error(
        "E1223 group {group}: the raft log's hard state says {field} {found}, its entries say {expected}: \
         the raft log lost entries; this replica stays out and the others go on: keep its data directory, a \
         successor is filled here"
    )]
    HardStateMismatch {
        /// The group.
        group: GroupId,
        /// Which part of the hard state.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What the entries allow.
        expected: u64,
    },
    /// A leader counts on entries that are not here.
    #[error(
        "E1224 group {group}: the leader knows entry {known} to be here, but the log ends at {last}: it \
         lost what it had acknowledged; this replica stays out and the others go on: keep its data directory, \
         a successor is filled here"
    )]
    LeaderKnowsMore {
        /// The group.
        group: GroupId,
        /// The leader's commit or match.
        known: RaftIndex,
        /// Our last entry.
        last: RaftIndex,
    },
    /// Two different entries were committed under one index.
    #[error(
        "E1225 group {group}: the leader sends entry {sent}, but entry {held} is committed here: two \
         histories were committed; keep all data directories and report this"
    )]
    CommittedConflict {
        /// The group.
        group: GroupId,
        /// The leader's.
        sent: EntryId,
        /// Ours.
        held: EntryId,
    },
    /// The raft log cannot be read.
    #[error(
        "E1226 group {group}: entries from {low} on cannot be read back: {message}; this replica stays out: check \
         the disk, then restart the node, which reads all of its raft log"
    )]
    LogUnreadable {
        /// The group.
        group: GroupId,
        /// First entry of the read.
        low: RaftIndex,
        /// The raft log's own error.
        message: String,
    },
    /// An installation was begun and has to be finished first.
    #[error(
        "E1227 group {group}: the installation of the snapshot at entry {index} is not finished, see \
         the lines before; this replica stays out: mend what they name, then restart the node, which tries again"
    )]
    InstallUnfinished {
        /// The group.
        group: GroupId,
        /// Last entry of the snapshot.
        index: RaftIndex,
    },
    /// The members recorded cannot form this replica's group.
    #[error(
        "E1228 group {group}: the checkpoint's members cannot be right: {found}; this replica stays out: make sure \
         that the data directory is this node's own"
    )]
    BadMembers {
        /// The group.
        group: GroupId,
        /// What is wrong.
        found: String,
    },
    /// The raft log holds what another replica of the group left, which this one must not take for its own.
    #[error(
        "E1242 group {group}: the raft log is that of replica {found}, this is replica {expected}: this replica stays \
         out; restart the node, which begins its log anew"
    )]
    OthersLog {
        /// The group.
        group: GroupId,
        /// This replica.
        expected: ReplicaId,
        /// Whose log it is.
        found: ReplicaId,
    },
    /// Applying, or something else outside the core, cannot go on.
    #[error("E1229 group {group}: stopped by the node: {message}")]
    Outside {
        /// The group.
        group: GroupId,
        /// The error.
        message: String,
    },
}

/// The core cannot be built at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// A setting is out of range.
    #[error("E1240 {setting} is {found}, expected {expected}: correct the configuration")]
    BadSetting {
        /// Which.
        setting: &'static str,
        /// Its value.
        found: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// Two replicas of one group on one node.
    #[error("E1241 group {group} is named twice: each group has one replica a node")]
    DuplicateGroup {
        /// The group.
        group: GroupId,
    },
}
