//! What a peer's message must satisfy before raft sees it.
//!
//! raft takes its peers for flawless: it indexes, subtracts and asserts on what they send. A peer here
//! may run another release, have lost its disk, or replay what the network kept. So each message passes
//! these checks first; they are cheap, and reach only as deep as the message is long.
//!
//! | check | what raft would do without it |
//! |---|---|
//! | kind: only what peers send | take local kinds, forward proposals in circles |
//! | `to` is this replica, `from` a member on the sending node and not this one; or not known yet, if it begins something | count strangers' votes |
//! | terms 1..=[`TERM_MAX`] (read-index: 0), indices up to [`INDEX_MAX`] | overflow; treat term 0 as local |
//! | contexts short, no request for snapshots | grow maps keyed by them; assert on a snapshot's index |
//! | append: entries follow `index` one by one, terms never fall and stay within the message's, normal kind or a change of members that could be one, within the size limits | underflow in slicing; break the order of terms |
//! | append, snapshot: what it says about entries committed here agrees with them | stop the process, or never agree |
//! | heartbeat: commit not beyond our last entry | stop the process |
//! | append answer: match and rejection within the leader's log, hint not absurd | overflow; count entries that nobody has |
//! | vote answer: only to a durable candidacy, with the whole log durable | assert that all is durable |
//! | hand-over: only from the leader, not during an installation, not before the log is durable | campaign for a stranger; stop on a compacted entry, or on one that is not durable |
//! | read-index: one entry with a short context, only to the leader, at most so many | index an empty list; forward in circles; grow |
//! | a replica that has nothing yet: no votes and no hand-over | vote, and stand for election, without a log |
//! | snapshot: plausible members with this replica among them, index and term in range, a known format | stop on a configuration it cannot restore |
//!
//! Two of them are evidence against **ourselves** rather than the sender: a heartbeat that knows more of
//! our log than we do, and committed entries that differ. Then the replica halts.

use raft::eraftpb::{EntryType, Message, MessageType};
use raft::{Raft, StateRole};
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::change::Roll;
use super::config::CoreLimits;
use super::error::{HaltReason, MessageRefusal};
use super::members::{check_members, decode_entry, members_of};
use super::offer::OfferData;
use super::store::ReplicaStore;
use super::tail::entry_bytes;

/// Highest term that is believed: an election a second would take thirty years to get there, and a
/// leader epoch still fits its 32 bits above it.
pub(super) const TERM_MAX: u64 = 1 << 30;
/// Highest index that is believed.
pub(super) const INDEX_MAX: u64 = 1 << 62;
/// Longest context of a heartbeat, vote or read.
const CONTEXT_BYTES_MAX: usize = 64;
/// Most entries of one append message.
const ENTRIES_MAX: usize = 65_536;
/// Largest manifest that is fetched.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Rounds of read-index that a leader keeps for others.
const FORWARDED_READS_MAX: usize = 4_096;

/// Why a message is not stepped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// Drop it.
    Refuse(MessageRefusal),
    /// It shows that this replica lost something.
    Halt(HaltReason),
}

impl From<MessageRefusal> for Denied {
    fn from(refusal: MessageRefusal) -> Self {
        Self::Refuse(refusal)
    }
}

/// What the checks look at.
pub(super) struct Gate<'a> {
    pub(super) group: GroupId,
    pub(super) roll: &'a Roll,
    /// Whether this replica's clock stands still: then it knows all members.
    pub(super) asleep: bool,
    pub(super) raft: &'a Raft<ReplicaStore>,
    pub(super) limits: &'a CoreLimits,
    /// Term and vote that are on disk.
    pub(super) durable_vote: (u64, u64),
    /// Whether a snapshot is being switched to.
    pub(super) installing: bool,
}

impl Gate<'_> {
    /// Passes, refuses, or halts.
    pub(super) fn check(&self, from: NodeId, message: &Message) -> Result<(), Denied> {
        let kind = kind_name(message.get_msg_type())
            .map_err(|kind| MessageRefusal::ForbiddenKind { group: self.group, kind })?;
        self.check_ends(from, message)?;
        self.check_numbers(message)?;
        self.check_parts(message)?;
        match message.get_msg_type() {
            // Of the present term only: the switch writes the hard state, and nobody else may meanwhile.
            MessageType::MsgHeartbeat if !self.installing || message.term <= self.raft.term => {
                self.check_heartbeat(message)
            }
            _ if self.installing => Err(MessageRefusal::NotTaking { group: self.group }.into()),
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote | MessageType::MsgTimeoutNow
                if self.raft.store().is_blank() =>
            {
                Err(MessageRefusal::NotTaking { group: self.group }.into())
            }
            MessageType::MsgAppend => self.check_append(message),
            MessageType::MsgAppendResponse => self.check_append_answer(message),
            MessageType::MsgRequestVoteResponse => self.check_vote_answer(message, kind),
            MessageType::MsgTimeoutNow => self.check_hand_over(message, kind),
            MessageType::MsgReadIndex => self.check_read(message, kind),
            MessageType::MsgReadIndexResp => self.check_read_answer(message),
            MessageType::MsgSnapshot => self.check_snapshot(message),
            MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse => Ok(()),
            // Refused above.
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader => {
                Err(MessageRefusal::ForbiddenKind { group: self.group, kind }.into())
            }
        }
    }

    fn check_ends(&self, from: NodeId, message: &Message) -> Result<(), Denied> {
        if message.to != self.raft.id {
            return Err(MessageRefusal::WrongRecipient {
                group: self.group,
                expected: ReplicaId(self.raft.id),
                found: ReplicaId(message.to),
            }
            .into());
        }
        let claimed = ReplicaId(message.from);
        let known = match self.roll.members.get(&claimed) {
            Some(node) => *node == from && message.from != self.raft.id,
            None => self.may_begin(from, message),
        };
        if !known {
            return Err(MessageRefusal::UnknownSender { group: self.group, node: from, claimed }.into());
        }
        Ok(())
    }

    /// Whether one that is no member here says something that it may say if it is one all the same.
    fn may_begin(&self, from: NodeId, message: &Message) -> bool {
        let claimed = ReplicaId(message.from);
        let leads = message.from == self.raft.leader_id && self.roll.node_of(claimed) == Some(from);
        let begins = match message.get_msg_type() {
            MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgSnapshot => true,
            MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => !self.asleep,
            MessageType::MsgTimeoutNow => leads,
            MessageType::MsgAppendResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
            | MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader => false,
        };
        begins && message.from != self.raft.id && (leads || self.roll.may_be_new(claimed, from))
    }

    fn check_numbers(&self, message: &Message) -> Result<(), Denied> {
        let is_read = message.get_msg_type() == MessageType::MsgReadIndex;
        if is_read != (message.term == 0) || message.term > TERM_MAX {
            return Err(self.absurd("term", message.term, "1 to 2^30, or 0 in a read"));
        }
        for (field, value) in [("log_term", message.log_term), ("commit_term", message.commit_term)] {
            if value > TERM_MAX {
                return Err(self.absurd(field, value, "at most 2^30"));
            }
        }
        let indices =
            [("index", message.index), ("commit", message.commit), ("reject_hint", message.reject_hint)];
        for (field, value) in indices {
            if value > INDEX_MAX {
                return Err(self.absurd(field, value, "at most 2^62"));
            }
        }
        if message.request_snapshot != 0 {
            return Err(self.absurd("request_snapshot", message.request_snapshot, "0: it is not used"));
        }
        Ok(())
    }

    fn check_parts(&self, message: &Message) -> Result<(), Denied> {
        let kind = message.get_msg_type();
        if message.context.len() > CONTEXT_BYTES_MAX {
            return Err(self.oversized("a message's context", message.context.len(), CONTEXT_BYTES_MAX));
        }
        let may_have_entries = matches!(
            kind,
            MessageType::MsgAppend | MessageType::MsgReadIndex | MessageType::MsgReadIndexResp
        );
        if !may_have_entries && !message.entries.is_empty() {
            return Err(self.absurd("entries", count(message.entries.len()), "none in this kind"));
        }
        if kind != MessageType::MsgSnapshot && message.has_snapshot() {
            return Err(self.absurd("snapshot", 1, "none in this kind"));
        }
        Ok(())
    }

    fn check_append(&self, message: &Message) -> Result<(), Denied> {
        if message.index == 0 || message.log_term == 0 || message.log_term > message.term {
            return Err(self.absurd("log_term", message.log_term, "1 up to the message's term"));
        }
        if message.entries.len() > ENTRIES_MAX {
            return Err(self.oversized("an append's list of entries", message.entries.len(), ENTRIES_MAX));
        }
        let mut previous = EntryId { index: RaftIndex(message.index), term: Term(message.log_term) };
        let mut bytes = 0u64;
        for entry in &message.entries {
            let (index, term) = (RaftIndex(entry.index), Term(entry.term));
            let follows = previous.index.get().checked_add(1) == Some(entry.index);
            if !follows || term < previous.term || entry.term > message.term {
                let group = self.group;
                return Err(MessageRefusal::EntriesOutOfOrder { group, index, term, previous }.into());
            }
            if entry.get_entry_type() != EntryType::EntryNormal && decode_entry(entry).is_none() {
                return Err(self.absurd("entry_type", 1, "normal, or a change of members that is one"));
            }
            let size = entry_bytes(entry);
            if size > self.entry_bytes_max() {
                return Err(self.oversized_bytes("an entry", size, self.entry_bytes_max()));
            }
            bytes = bytes.saturating_add(size);
            previous = EntryId { index, term };
        }
        // A leader never exceeds the message limit, except by a single entry.
        let max = self.limits.message_bytes_max.saturating_mul(2).saturating_add(self.entry_bytes_max());
        if bytes > max {
            return Err(self.oversized_bytes("an append", bytes, max));
        }
        self.check_agreement(message)?;
        let waiting = self.raft.store().tail.bytes();
        if !message.entries.is_empty() && waiting >= self.limits.tail_bytes_max {
            let (group, max) = (self.group, self.limits.tail_bytes_max);
            return Err(MessageRefusal::TailFull { group, bytes: waiting, max }.into());
        }
        Ok(())
    }

    /// A leader has every committed entry. What it sends about those must be what is committed here.
    fn check_agreement(&self, message: &Message) -> Result<(), Denied> {
        let before = EntryId { index: RaftIndex(message.index), term: Term(message.log_term) };
        let sent = message
            .entries
            .iter()
            .map(|entry| EntryId { index: RaftIndex(entry.index), term: Term(entry.term) });
        self.check_committed(message.term, std::iter::once(before).chain(sent))
    }

    fn check_committed(&self, term: u64, sent: impl Iterator<Item = EntryId>) -> Result<(), Denied> {
        if term < self.raft.term {
            return Ok(());
        }
        // Raft's own view: an entry that was replaced in this round is still the old one in the store.
        let log = &self.raft.raft_log;
        for sent in sent.take_while(|sent| sent.index.get() <= log.committed) {
            if let Ok(term) = log.term(sent.index.get())
                && term != 0
                && term != sent.term.get()
            {
                let held = EntryId { index: sent.index, term: Term(term) };
                return Err(Denied::Halt(HaltReason::CommittedConflict { group: self.group, sent, held }));
            }
        }
        Ok(())
    }

    fn check_heartbeat(&self, message: &Message) -> Result<(), Denied> {
        let last = self.raft.raft_log.last_index();
        if message.term >= self.raft.term && message.commit > last {
            return Err(Denied::Halt(HaltReason::LeaderKnowsMore {
                group: self.group,
                known: RaftIndex(message.commit),
                last: RaftIndex(last),
            }));
        }
        Ok(())
    }

    fn check_append_answer(&self, message: &Message) -> Result<(), Denied> {
        let ours = self.raft.state == StateRole::Leader && message.term == self.raft.term;
        let last = self.raft.raft_log.last_index();
        if ours && message.index > last {
            return Err(self.absurd("index", message.index, "within the leader's log"));
        }
        Ok(())
    }

    /// A vote counts only for a candidacy that is durable, with a log that is durable to its end: no
    /// request left before that, so an answer before that answers nothing.
    fn check_vote_answer(&self, message: &Message, kind: &'static str) -> Result<(), Denied> {
        let raft = self.raft;
        if raft.state != StateRole::Candidate || message.term != raft.term {
            return Ok(());
        }
        let durable = self.durable_vote == (raft.term, raft.vote)
            && raft.raft_log.persisted == raft.raft_log.last_index()
            && raft.raft_log.unstable_entries().is_empty()
            && raft.raft_log.unstable_snapshot().is_none();
        if durable { Ok(()) } else { Err(MessageRefusal::Unsolicited { group: self.group, kind }.into()) }
    }

    fn check_hand_over(&self, message: &Message, kind: &'static str) -> Result<(), Denied> {
        let log = &self.raft.raft_log;
        if message.term == self.raft.term
            && message.from == self.raft.leader_id
            // As in a tick: raft asserts that the log of an only voter is durable when it stands for election.
            && log.persisted == log.last_index()
        {
            Ok(())
        } else {
            Err(MessageRefusal::Unsolicited { group: self.group, kind }.into())
        }
    }

    fn check_read(&self, message: &Message, kind: &'static str) -> Result<(), Denied> {
        self.check_read_answer(message)?;
        if self.raft.state != StateRole::Leader || self.raft.pending_read_count() >= FORWARDED_READS_MAX {
            return Err(MessageRefusal::Unsolicited { group: self.group, kind }.into());
        }
        Ok(())
    }

    fn check_read_answer(&self, message: &Message) -> Result<(), Denied> {
        let [entry] = &*message.entries else {
            return Err(self.absurd("entries", count(message.entries.len()), "one"));
        };
        if entry.data.is_empty() || entry.data.len() > CONTEXT_BYTES_MAX || !entry.context.is_empty() {
            return Err(self.oversized("a read's context", entry.data.len(), CONTEXT_BYTES_MAX));
        }
        Ok(())
    }

    fn check_snapshot(&self, message: &Message) -> Result<(), Denied> {
        let metadata = message.get_snapshot().get_metadata();
        if metadata.index == 0 || metadata.index > INDEX_MAX {
            return Err(self.absurd("snapshot index", metadata.index, "1 to 2^62"));
        }
        if metadata.term == 0 || metadata.term > message.term {
            return Err(self.absurd("snapshot term", metadata.term, "1 up to the message's term"));
        }
        let snapshot = EntryId { index: RaftIndex(metadata.index), term: Term(metadata.term) };
        self.check_committed(message.term, std::iter::once(snapshot))?;
        let conf = metadata.get_conf_state();
        let bad = |found: String| MessageRefusal::BadSnapshot {
            group: self.group,
            found,
            expected: "members that can be, this replica among them",
        };
        let Some(offer) = OfferData::decode(&message.get_snapshot().data) else {
            return Err(bad("its manifest is named in a format that is not known".to_owned()).into());
        };
        let members = members_of(conf, &offer.nodes);
        let this = ReplicaId(self.raft.id);
        if conf.auto_leave || !(members.counts(this) || members.learners.contains(&this)) {
            return Err(bad(format!("its members are {members:?}")).into());
        }
        check_members(&members).map_err(bad)?;
        if offer.manifest_bytes == 0 || offer.manifest_bytes > MANIFEST_BYTES_MAX {
            return Err(self.oversized_bytes(
                "a snapshot's manifest",
                offer.manifest_bytes,
                MANIFEST_BYTES_MAX,
            ));
        }
        Ok(())
    }

    const fn entry_bytes_max(&self) -> u64 {
        // The limit is on what was proposed; memory counts a little more.
        self.limits.entry_bytes_max.saturating_add(1024)
    }

    fn absurd(&self, field: &'static str, found: u64, expected: &'static str) -> Denied {
        MessageRefusal::Absurd { group: self.group, field, found, expected }.into()
    }

    fn oversized(&self, what: &'static str, found: usize, max: usize) -> Denied {
        self.oversized_bytes(what, count(found), count(max))
    }

    fn oversized_bytes(&self, what: &'static str, bytes: u64, max: u64) -> Denied {
        MessageRefusal::Oversized { group: self.group, what, bytes, max }.into()
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The name of a kind that peers may send, or else of one that they may not.
fn kind_name(kind: MessageType) -> Result<&'static str, &'static str> {
    match kind {
        MessageType::MsgAppend => Ok("an append"),
        MessageType::MsgAppendResponse => Ok("an append answer"),
        MessageType::MsgRequestVote => Ok("a vote request"),
        MessageType::MsgRequestVoteResponse => Ok("a vote"),
        MessageType::MsgRequestPreVote => Ok("a pre-vote request"),
        MessageType::MsgRequestPreVoteResponse => Ok("a pre-vote"),
        MessageType::MsgSnapshot => Ok("a snapshot offer"),
        MessageType::MsgHeartbeat => Ok("a heartbeat"),
        MessageType::MsgHeartbeatResponse => Ok("a heartbeat answer"),
        MessageType::MsgTimeoutNow => Ok("a hand-over"),
        MessageType::MsgReadIndex => Ok("a read"),
        MessageType::MsgReadIndexResp => Ok("a read answer"),
        MessageType::MsgHup => Err("a local campaign"),
        MessageType::MsgBeat => Err("a local beat"),
        MessageType::MsgPropose => Err("a proposal: proposals are not forwarded"),
        MessageType::MsgUnreachable => Err("a local report of a lost peer"),
        MessageType::MsgSnapStatus => Err("a local report of a snapshot"),
        MessageType::MsgCheckQuorum => Err("a local quorum check"),
        MessageType::MsgTransferLeader => Err("a hand-over request"),
    }
}
