//! What raft wants done, turned into effects, and the rules of what may leave when.
//!
//! - A **leader's** messages leave at once: its own disk is just one of the quorum, and raft counts it
//!   only when it is told that it is durable.
//! - **Everyone else's** messages promise something that is in the same ready or an earlier one. They
//!   are held until *all* readies up to theirs are durable. Holding them only for their own ready would
//!   acknowledge a repeated append before the first copy is on disk.
//! - One exception: the answer to a heartbeat promises no entry. It leaves at once if term and vote
//!   are the durable ones, so that heartbeats never wait for a disk.
//! - Term and vote go into the raft log **and**, after it, into the votes file. A hard state that
//!   changes only the commit index promises nothing and rides the next batch.
//! - The entries of a ready are answered from memory from now on, before they are on disk.
//! - Committed entries are handed to apply as they come; when too many bytes are on their way, one
//!   entry at a time, and then none until apply reports.

use raft::StateRole;
#[cfg(feature = "defects")]
use raft::eraftpb::HardState;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{Ready, SoftState};
use tidelog_wire::ids::{RaftIndex, ReplicaId, Term};

use super::error::HaltReason;
use super::io::{Answer, ApplyTask, Committed, Effects, InstallSnapshot, Lane, ProposeFailure, Reply};
use super::members::members_of;
use super::offer::OfferData;
use super::replica::{Replica, failed};
use super::start::entry_id;
use super::tail::entry_bytes;
#[cfg(feature = "defects")]
use crate::defects::{Defect, plays};
use crate::raft_log::{GroupWrite, InstallChange};
use crate::votes::Vote;

/// Most readies taken from one replica in one collection; the rest comes with the next input.
const READIES_MAX: usize = 64;

/// A ready that is not durable yet.
#[derive(Debug)]
pub(super) struct Held {
    /// The persist that makes it durable, together with those before.
    persist: u64,
    /// raft's number of it.
    ready: u64,
    /// Term and vote once it is durable.
    vote: (u64, u64),
    /// It is durable only when the snapshot in it is installed as well.
    install: bool,
    /// The tick it was made in.
    pub(super) since: u64,
    /// What may leave then.
    messages: Vec<Message>,
}

/// The persist that one collection puts together, over all replicas.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) number: u64,
    pub(super) writes: Vec<GroupWrite>,
    pub(super) votes: Vec<Vote>,
}

impl Lane {
    /// The stream that carries messages of this kind.
    pub(super) const fn of(kind: MessageType) -> Self {
        match kind {
            MessageType::MsgAppend | MessageType::MsgAppendResponse | MessageType::MsgSnapshot => {
                Self::Append
            }
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse => Self::Control,
        }
    }
}

impl Replica {
    /// Everything up to persist `number` is durable: tells raft, and lets the held messages go.
    pub(super) fn persisted(&mut self, number: u64, effects: &mut Effects) {
        self.durable_persist = self.durable_persist.max(number);
        self.release(effects);
    }

    /// Lets go what is durable.
    pub(super) fn release(&mut self, effects: &mut Effects) {
        let installing = self.incoming.is_installing();
        let durable = self.durable_persist;
        while let Some(held) =
            self.held.pop_front_if(|held| held.persist <= durable && !(held.install && installing))
        {
            self.settle(held.ready, held.vote);
            for message in held.messages {
                effects.sends.extend(self.outgoing(message));
            }
        }
        self.evict();
    }

    fn settle(&mut self, ready: u64, vote: (u64, u64)) {
        self.raw.on_persist_ready(ready);
        self.timeouts.keep(&mut self.raw.raft);
        self.durable_vote = vote;
        #[cfg(feature = "defects")]
        if plays(if self.is_leader() { Defect::AckBeforeQuorum } else { Defect::ServeUncommitted }) {
            let persisted = self.raw.raft.raft_log.persisted;
            self.raw.raft.raft_log.commit_to(persisted);
        }
    }

    /// Turns all that raft wants done into effects.
    pub(super) fn collect(&mut self, draft: &mut Draft, effects: &mut Effects) -> Result<(), HaltReason> {
        self.flush_proposals(effects);
        self.begin_reads();
        let mut write = GroupWrite::new(self.group);
        let mut vote = None;
        for _ in 0..READIES_MAX {
            if let Some(reason) = self.raw.store().take_failure() {
                return Err(reason);
            }
            let full = self.applying_bytes >= self.limits.applying_bytes_max;
            if !self.raw.has_ready() || (full && self.only_commits()) {
                break;
            }
            let committed_max = if full { 0 } else { self.limits.committed_bytes_per_ready_max };
            self.raw.raft.set_max_committed_size_per_ready(committed_max);
            let ready = self.raw.ready();
            if let Some(reason) = self.raw.store().take_failure() {
                return Err(reason);
            }
            self.take(ready, draft.number, &mut write, &mut vote, effects)?;
            self.timeouts.keep(&mut self.raw.raft);
        }
        if !write.is_empty() {
            draft.writes.push(write);
        }
        draft.votes.extend(vote);
        self.ask_export(effects);
        self.show_leader(effects);
        Ok(())
    }

    /// Whether committed entries are all that raft has ready.
    fn only_commits(&self) -> bool {
        let raft = &self.raw.raft;
        let (leader_id, raft_state) = self.seen_soft;
        raft.msgs.is_empty()
            && raft.read_states.is_empty()
            && raft.soft_state() == SoftState { leader_id, raft_state }
            && raft.hard_state() == self.seen_hard
            && raft.raft_log.unstable_entries().is_empty()
            && raft.raft_log.unstable_snapshot().is_none()
    }

    fn take(
        &mut self,
        mut ready: Ready,
        number: u64,
        write: &mut GroupWrite,
        vote: &mut Option<Vote>,
        effects: &mut Effects,
    ) -> Result<(), HaltReason> {
        let mut must_sync = false;
        if let Some(soft) = ready.ss() {
            self.seen_soft = (soft.leader_id, soft.raft_state);
        }
        if let Some(hard) = ready.hs() {
            #[cfg(feature = "defects")]
            let hard =
                &HardState { vote: if plays(Defect::ForgetVote) { 0 } else { hard.vote }, ..hard.clone() };
            if (hard.term, hard.vote) != (self.seen_hard.term, self.seen_hard.vote) {
                must_sync = true;
                let voted = (hard.vote != 0).then_some(ReplicaId(hard.vote));
                *vote =
                    Some(Vote { group: self.group, replica: self.id, term: Term(hard.term), vote: voted });
            }
            self.seen_hard = hard.clone();
            self.unsaved = Some(hard.clone());
        }
        let install = !ready.snapshot().is_empty();
        if install {
            must_sync = true;
            self.begin_install(ready.snapshot(), write, effects);
        }
        let entries = ready.take_entries();
        if !entries.is_empty() {
            must_sync = true;
            self.raw.mut_store().append(&entries);
            if let Some(first) = entries.first() {
                write.entries.retain(|held| held.index < first.index);
            }
            write.entries.extend(entries);
        }
        // Whoever goes may vanish once the others are told. So that a change is committed is kept: with the voters of
        // before alone nobody could find it out again.
        let is_change = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        must_sync |= self.unsaved.is_some() && ready.committed_entries().iter().any(is_change);
        if must_sync && let Some(hard) = self.unsaved.take() {
            write.hard_state = Some(hard);
        }
        self.answer_reads(&mut ready, effects);
        self.hand_to_apply(&mut ready, effects)?;
        let at_once = ready.take_messages();
        let persisted = ready.take_persisted_messages();
        let ready_number = ready.number();
        self.raw.advance_append_async(ready);
        let held = self.sort_messages(at_once, persisted, effects);
        let vote = (self.raw.raft.term, self.raw.raft.vote);
        let behind = self.held.back().map(|last| last.persist);
        let persist = if must_sync { Some(number) } else { behind };
        if let Some(persist) = persist {
            let since = self.clock;
            let held = Held { persist, ready: ready_number, vote, install, since, messages: held };
            self.held.push_back(held);
        } else {
            self.settle(ready_number, vote);
            for message in held {
                effects.sends.extend(self.outgoing(message));
            }
        }
        Ok(())
    }

    /// Sends what may leave at once, and returns what has to wait.
    fn sort_messages(
        &self,
        at_once: Vec<Message>,
        persisted: Vec<Message>,
        effects: &mut Effects,
    ) -> Vec<Message> {
        let vote_is_durable = (self.raw.raft.term, self.raw.raft.vote) == self.durable_vote;
        let mut held = Vec::new();
        for message in at_once {
            // A leader was elected by a durable candidacy, so this is always so. Were it not, its
            // messages would speak for a term that it could forget.
            if vote_is_durable {
                effects.sends.extend(self.outgoing(message));
            } else {
                held.push(message);
            }
        }
        for message in persisted {
            if vote_is_durable && message.get_msg_type() == MessageType::MsgHeartbeatResponse {
                effects.sends.extend(self.outgoing(message));
            } else {
                held.push(message);
            }
        }
        held
    }

    fn answer_reads(&mut self, ready: &mut Ready, effects: &mut Effects) {
        for state in ready.take_read_states() {
            let answer = Answer::ReadIndex(RaftIndex(state.index));
            let tokens = self.reads.answered(&state.request_ctx);
            effects.replies.extend(tokens.into_iter().map(|token| Reply { token, answer }));
        }
    }

    fn hand_to_apply(&mut self, ready: &mut Ready, effects: &mut Effects) -> Result<(), HaltReason> {
        let committed = ready.take_committed_entries();
        let Some(last) = committed.last().map(|entry| entry.index) else { return Ok(()) };
        let mut bytes = 0u64;
        let mut entries = Vec::with_capacity(committed.len());
        for entry in committed {
            bytes = bytes.saturating_add(entry_bytes(&entry));
            let decided = self.tokens.decide(entry.index, entry.term);
            let superseded = decided.superseded.into_iter();
            effects.replies.extend(superseded.map(|token| failed(token, ProposeFailure::Superseded)));
            entries.push(Committed {
                index: RaftIndex(entry.index),
                term: Term(entry.term),
                token: decided.committed,
                members: self.make_change(&entry)?,
                entry,
            });
        }
        self.emitted = last;
        self.applying.push_back((last, bytes));
        self.applying_bytes = self.applying_bytes.saturating_add(bytes);
        effects.applies.push(ApplyTask { group: self.group, entries });
        Ok(())
    }

    fn begin_install(
        &mut self,
        snapshot: &raft::eraftpb::Snapshot,
        write: &mut GroupWrite,
        effects: &mut Effects,
    ) {
        let metadata = snapshot.get_metadata();
        let id = entry_id(metadata.index, metadata.term);
        let conf = metadata.get_conf_state().clone();
        self.raw.mut_store().restart_at(id, conf.clone());
        // The gate let no offer pass that says less.
        let nodes = OfferData::decode(&snapshot.data).map(|offer| offer.nodes).unwrap_or_default();
        self.roll.become_members(&members_of(&conf, &nodes));
        let mark = self.incoming.install(id);
        write.entries.clear();
        write.install = InstallChange::Set(mark);
        effects.installs.push(InstallSnapshot {
            group: self.group,
            mark,
            hard_state: self.seen_hard.clone(),
        });
        debug_assert!(self.raw.raft.state != StateRole::Leader, "a leader installs nothing");
    }
}
