//! What goes into the core, and what comes out: all of its dealings with the world, as data.
//!
//! The order in which a runtime carries out an [`Effects`] matters in three places only:
//! - [`Effects::sends`] may leave at once. What had to wait for the disk was held back by the core.
//! - [`Effects::persists`] are carried out in the order of their numbers: the raft log's writes,
//!   synced, then the votes file, synced, then [`Input::Persisted`]. In this order a vote is never
//!   durable without the log that it vouches for, so votes ahead of the log are evidence of loss.
//! - [`Effects::applies`] and [`Effects::installs`] of one group are carried out in the order they
//!   came out; an install waits for the persist that carries its mark.
//!
//! Not here: what an entry means. The core moves context and data as bytes.

use std::collections::BTreeSet;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState, Message};
use tidelog_engine::checkpoint::{EntryId, Members};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, Term};

use super::config::ReplicaStart;
use super::error::{HaltReason, MessageRefusal};
use super::members::{ChangeRefusal, MemberChange};
use crate::raft_log::{GroupWrite, InstallMark};
use crate::votes::Vote;

/// Names one proposal or read; the proposer's own number. Not reused while its fate is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The clock went on by one tick.
    Tick,
    /// A peer, authenticated as `from`, sent this.
    Message {
        /// The node at the other end of the connection.
        from: NodeId,
        /// The group named by the frame.
        group: GroupId,
        /// Parsed, not yet trusted.
        message: Box<Message>,
    },
    /// Append an entry to a group's log. Only its leader takes it; nothing is forwarded.
    Propose {
        /// The group.
        group: GroupId,
        /// Comes back with the committed entry, or with the reason why it can never commit.
        token: Token,
        /// What to append.
        entry: Proposal,
    },
    /// Ask up to which index a node must have applied so that a read sees all that was acknowledged
    /// before. Followers forward it. It may get lost without an answer: ask again by deadline.
    ReadIndex {
        /// The group.
        group: GroupId,
        /// Comes back with the index.
        token: Token,
    },
    /// All that [`Persist`]s up to this number asked for is durable.
    Persisted {
        /// The newest durable one.
        number: u64,
    },
    /// Entries up to `index` have been applied.
    Applied {
        /// The group.
        group: GroupId,
        /// The last applied entry.
        index: RaftIndex,
    },
    /// A checkpoint was written: the raft log may forget what is older than the older kept one.
    Checkpointed {
        /// The group.
        group: GroupId,
        /// The newest one.
        newest: EntryId,
        /// What the older of the two kept ones has applied; entries after it are kept.
        compact_to: RaftIndex,
    },
    /// The snapshot asked for by [`FetchSnapshot`] lies in staging, whole and verified; or it does not.
    SnapshotStaged {
        /// The group.
        group: GroupId,
        /// Which one.
        snapshot: EntryId,
        /// Whether it is there.
        result: Staged,
    },
    /// The switch asked for by [`InstallSnapshot`] is done and durable.
    SnapshotInstalled {
        /// The group.
        group: GroupId,
        /// Which one.
        snapshot: EntryId,
    },
    /// The manifest asked for by [`Effects::exports`] is pinned and can be fetched from this node.
    SnapshotExported {
        /// The group.
        group: GroupId,
        /// What to offer.
        offer: SnapshotOffer,
    },
    /// The manifest offered before is no longer pinned.
    SnapshotWithdrawn {
        /// The group.
        group: GroupId,
        /// Which one.
        snapshot: EntryId,
    },
    /// Hand leadership over, to `to` or else to the most advanced voter. No reply: watch the status.
    TransferLeader {
        /// The group.
        group: GroupId,
        /// The node that shall lead.
        to: Option<NodeId>,
    },
    /// Take part with this replica, in place of one of the group that halted, was stopped, or has a lower
    /// number. Its [`GroupWrite::replica`](crate::raft_log::GroupWrite) must be durable before.
    Start(Box<ReplicaStart>),
    /// Take part in a group no more. A leader tells the voter that has most of its log to stand for election.
    Stop {
        /// The group.
        group: GroupId,
    },
    /// Change who belongs to a group. Only its leader takes it. The token comes back with the committed
    /// entry ([`Committed::members`] says who belongs then), or with the reason why there is none.
    ChangeMembers {
        /// The group.
        group: GroupId,
        /// As that of a proposal.
        token: Token,
        /// Who comes and who goes.
        change: MemberChange,
    },
    /// The connection to a node is gone.
    PeerDown {
        /// The node.
        node: NodeId,
    },
    /// Nobody waits for these any more.
    Forget {
        /// The group.
        group: GroupId,
        /// Proposals and reads whose deadline has passed.
        tokens: Vec<Token>,
    },
    /// Something outside found that this replica must not go on.
    Halt {
        /// The group.
        group: GroupId,
        /// What was found.
        reason: HaltReason,
    },
}

/// What to append: routing and payload, shared and never copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// `Entry.context`.
    pub context: Bytes,
    /// `Entry.data`.
    pub data: Bytes,
}

/// How the staging of a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staged {
    /// Whole, verified and durable.
    Ready,
    /// Given up for now. What was fetched stays for the next attempt.
    Failed,
}

/// All that the world has to do.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages that may leave now.
    pub sends: Vec<Outgoing>,
    /// What has to become durable, in order of numbers.
    pub persists: Vec<Persist>,
    /// Committed entries, in order within a group.
    pub applies: Vec<ApplyTask>,
    /// Answers that need no apply.
    pub replies: Vec<Reply>,
    /// Who leads now, where that changed.
    pub leadership: Vec<LeaderChange>,
    /// Snapshots to bring into staging.
    pub fetches: Vec<FetchSnapshot>,
    /// Groups whose snapshot, fetched or not, is not switched to: what is held for it may go. Comes before
    /// [`Effects::fetches`].
    pub abandoned: Vec<GroupId>,
    /// Staged snapshots to switch to.
    pub installs: Vec<InstallSnapshot>,
    /// Checkpoints that followers need: pin one and say [`Input::SnapshotExported`].
    pub exports: Vec<ExportRequest>,
    /// Prefixes that the raft log may forget.
    pub compactions: Vec<Compaction>,
    /// Messages that were refused, for logs and counters.
    pub refusals: Vec<Refusal>,
    /// Replicas that stopped taking part just now.
    pub halts: Vec<Halt>,
    /// Groups whose status may have changed: those that inputs concerned, which is few of many. Whoever
    /// shows statuses to others asks [`NodeCore::status`](super::NodeCore) for these only.
    pub touched: BTreeSet<GroupId>,
}

impl Effects {
    /// Whether there is nothing to do but to show [`Effects::touched`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
            && self.persists.is_empty()
            && self.applies.is_empty()
            && self.replies.is_empty()
            && self.leadership.is_empty()
            && self.fetches.is_empty()
            && self.abandoned.is_empty()
            && self.installs.is_empty()
            && self.exports.is_empty()
            && self.compactions.is_empty()
            && self.refusals.is_empty()
            && self.halts.is_empty()
    }
}

/// A message to a peer.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// The node to send it to.
    pub to: NodeId,
    /// The group.
    pub group: GroupId,
    /// On which stream.
    pub lane: Lane,
    /// The message.
    pub message: Message,
}

/// Which stream carries a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Votes and heartbeats: small, and never behind appends.
    Control,
    /// Entries, their answers, and snapshot offers.
    Append,
}

/// What has to become durable before [`Input::Persisted`] may name its number.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    /// Rises by one from one persist to the next.
    pub number: u64,
    /// For the raft log, as one batch, first.
    pub writes: Vec<GroupWrite>,
    /// For the votes file, after the raft log's sync.
    pub votes: Vec<Vote>,
    /// Whether the writes need a sync. Never false with votes.
    pub sync: bool,
}

/// Committed entries to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct ApplyTask {
    /// The group.
    pub group: GroupId,
    /// Without gaps, in order, following those of the group's task before.
    pub entries: Vec<Committed>,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its index.
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
    /// Who waits for its outcome here.
    pub token: Option<Token>,
    /// Of an entry that changes who belongs to the group: who does from then on. A checkpoint at or after
    /// it must say so.
    pub members: Option<Members>,
    /// The entry. A leader's first one in a term has neither context nor data.
    pub entry: Entry,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// To what.
    pub token: Token,
    /// What.
    pub answer: Answer,
}

/// What is answered without applying anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The proposal or read will not be carried out.
    Failed(ProposeFailure),
    /// Apply up to here, then read.
    ReadIndex(RaftIndex),
}

/// Why a proposal is not carried out. All but the last: it never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeFailure {
    /// Another replica leads, or none does.
    NotLeader {
        /// Where to try.
        leader: Option<NodeId>,
    },
    /// Another entry was committed in its place.
    Superseded,
    /// A limit is reached; try again shortly.
    Busy,
    /// The group is not here, does not take part, or (reads) its leader has not committed yet.
    NotReady,
    /// Larger than any entry may be.
    TooLarge,
    /// Members cannot change in this way, or not now.
    Members(ChangeRefusal),
    /// Its fate can no longer be seen from here: it may or may not have committed.
    MayHaveCommitted,
}

/// Who leads a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderChange {
    /// The group.
    pub group: GroupId,
    /// In which term.
    pub term: Term,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// Whether it is this node.
    pub here: bool,
}

/// A snapshot to bring into staging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchSnapshot {
    /// The group.
    pub group: GroupId,
    /// Who offered it. Any up-to-date peer may serve its files.
    pub from: NodeId,
    /// The last entry it contains.
    pub snapshot: EntryId,
    /// Hash of the manifest.
    pub digest: u64,
    /// Length of the manifest.
    pub manifest_bytes: u64,
}

/// A switch to a staged snapshot. Its mark is in the persist of the same step; wait for that first.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallSnapshot {
    /// The group.
    pub group: GroupId,
    /// The mark: index, term and digest of the snapshot.
    pub mark: InstallMark,
    /// What the raft log holds once it is cleared.
    pub hard_state: HardState,
}

/// A snapshot that can be fetched from this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The last entry it contains.
    pub snapshot: EntryId,
    /// Hash of the manifest.
    pub digest: u64,
    /// Length of the manifest.
    pub manifest_bytes: u64,
    /// Members at that entry.
    pub members: Members,
}

/// A checkpoint that a follower needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportRequest {
    /// The group.
    pub group: GroupId,
    /// It must have applied this entry at least: then it names the follower as a member. If the newest one
    /// has not, take a newer one first.
    pub at_least: RaftIndex,
}

/// A prefix that the raft log may forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The group.
    pub group: GroupId,
    /// The oldest entry to keep.
    pub first_kept: RaftIndex,
}

/// A message that was not stepped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who sent it.
    pub from: NodeId,
    /// To which group.
    pub group: GroupId,
    /// Why not.
    pub reason: MessageRefusal,
}

/// A replica that stopped taking part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// The group.
    pub group: GroupId,
    /// Why.
    pub reason: HaltReason,
}
