//! One replica: raft, with all that stands between it and the world.
//!
//! Inputs change raft's state here; what raft then wants done is collected in
//! [`ready`](super::ready), which also keeps the rules of what may leave when. Snapshots that come in
//! are in [`incoming`](super::incoming).
//!
//! Proposals are taken by the leader only and never forwarded: the proposer learns who leads and goes
//! there itself, so that an entry has one path and one answer. They are gathered until the next
//! collection and then given to raft a message's worth at a time.

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{Entry, HardState, Message, MessageType, Snapshot};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::check::{Denied, Gate};
use super::config::{CoreLimits, ReplicaStart, Ticks};
use super::incoming::Incoming;
use super::io::{
    Answer, Compaction, Effects, ExportRequest, LeaderChange, Outgoing, Proposal, ProposeFailure, Reply,
    SnapshotOffer, Token,
};
use super::members::{MemberChange, members_of};
use super::offer::OfferData;
use super::reads::Reads;
use super::ready::Held;
use super::start::{Started, conf_state, entry_id};
use super::status::{GroupStatus, PeerStatus, Role};
use super::store::ReplicaStore;
use super::tail::entry_bytes;
use super::timeouts::Timeouts;
use super::tokens::Tokens;

/// A replica that takes part.
pub(super) struct Replica {
    pub(super) group: GroupId,
    pub(super) id: ReplicaId,
    pub(super) members: BTreeMap<ReplicaId, NodeId>,
    pub(super) limits: CoreLimits,
    ticks: Ticks,
    pub(super) raw: RawNode<ReplicaStore>,
    pub(super) timeouts: Timeouts,
    pub(super) tokens: Tokens,
    pub(super) reads: Reads,
    proposals: Vec<(Token, Entry)>,
    proposal_bytes: u64,
    /// Term and vote that are on disk.
    pub(super) durable_vote: (u64, u64),
    /// Readies that are not durable yet, oldest first, with the messages that wait for them.
    pub(super) held: VecDeque<Held>,
    pub(super) durable_persist: u64,
    /// A hard state that rides the next batch.
    pub(super) unsaved: Option<HardState>,
    /// Last index and bytes of what was handed to apply and not reported back.
    pub(super) applying: VecDeque<(u64, u64)>,
    pub(super) applying_bytes: u64,
    pub(super) emitted: u64,
    pub(super) seen_soft: (u64, StateRole),
    pub(super) seen_hard: HardState,
    shown: Option<LeaderChange>,
    pub(super) incoming: Incoming,
    /// Ticks for which each follower has been waiting for a snapshot.
    in_snapshot: BTreeMap<u64, u32>,
    /// Ticks since an export was asked for.
    export_asked: Option<u32>,
}

impl Replica {
    pub(super) fn new(
        start: &ReplicaStart,
        started: Started,
        seed: u64,
        boot: BootEpoch,
        ticks: Ticks,
        limits: CoreLimits,
    ) -> Self {
        let Started { mut raw, members, durable_vote } = started;
        let salt = start.group.get().wrapping_mul(1 << 20) ^ start.replica.get();
        let mut timeouts = Timeouts::new(seed, salt, &ticks);
        timeouts.keep(&mut raw.raft);
        let soft = raw.raft.soft_state();
        Self {
            group: start.group,
            id: start.replica,
            members,
            limits,
            ticks,
            timeouts,
            tokens: Tokens::default(),
            reads: Reads::new(start.replica, boot, limits.reads_max),
            proposals: Vec::new(),
            proposal_bytes: 0,
            durable_vote,
            held: VecDeque::new(),
            durable_persist: 0,
            unsaved: None,
            applying: VecDeque::new(),
            applying_bytes: 0,
            emitted: start.checkpoint.applied.index.get(),
            seen_soft: (soft.leader_id, soft.raft_state),
            seen_hard: raw.raft.hard_state(),
            shown: None,
            incoming: Incoming::None,
            in_snapshot: BTreeMap::new(),
            export_asked: None,
            raw,
        }
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether raft has taken a snapshot that is not installed yet.
    pub(super) fn is_switching(&self) -> bool {
        self.incoming.is_installing() || self.raw.raft.raft_log.unstable_snapshot().is_some()
    }

    pub(super) fn leader_node(&self) -> Option<NodeId> {
        self.members.get(&ReplicaId(self.raw.raft.leader_id)).copied()
    }

    pub(super) fn tick(&mut self) {
        // While a snapshot is being switched to, raft's log and applied index are apart, and a
        // campaign would trip over it.
        if self.is_switching() {
            return;
        }
        self.raw.tick();
        self.timeouts.keep(&mut self.raw.raft);
        for context in self.raw.store().renew_budget(self.limits.read_bytes_per_step_max) {
            self.raw.on_entries_fetched(context);
        }
        if let Some(ticks) = &mut self.export_asked {
            *ticks = ticks.saturating_add(1);
        }
        if self.is_leader() {
            self.retry_snapshots();
        } else {
            self.in_snapshot.clear();
        }
    }

    /// A follower that does not catch up after an offer is probed again, which repeats the offer.
    fn retry_snapshots(&mut self) {
        let peers: Vec<_> = self.members.keys().map(|id| id.get()).collect();
        for peer in peers {
            let waiting = self
                .raw
                .raft
                .prs()
                .get(peer)
                .is_some_and(|progress| progress.state == ProgressState::Snapshot);
            if !waiting {
                self.in_snapshot.remove(&peer);
                continue;
            }
            let ticks = self.in_snapshot.entry(peer).or_default();
            *ticks = ticks.saturating_add(1);
            if *ticks >= self.ticks.snapshot_retry {
                self.in_snapshot.remove(&peer);
                self.raw.report_snapshot(peer, SnapshotStatus::Failure);
            }
        }
    }

    /// Steps a peer's message, once it has passed the checks.
    pub(super) fn message(
        &mut self,
        from: NodeId,
        message: Message,
        effects: &mut Effects,
    ) -> Result<(), Denied> {
        let gate = Gate {
            group: self.group,
            members: &self.members,
            raft: &self.raw.raft,
            limits: &self.limits,
            durable_vote: self.durable_vote,
            installing: self.is_switching(),
        };
        gate.check(from, &message)?;
        if message.get_msg_type() == MessageType::MsgSnapshot && self.must_stage(&message) {
            self.stage(from, message, effects);
        } else {
            self.step(message);
        }
        Ok(())
    }

    pub(super) fn step(&mut self, message: Message) {
        let kind = message.get_msg_type();
        if let Err(error) = self.raw.step(message) {
            tracing::trace!(group = self.group.get(), ?kind, %error, "raft took no notice of a message");
        }
        self.timeouts.keep(&mut self.raw.raft);
    }

    /// Queues a proposal for the next collection, or says why not.
    pub(super) fn propose(&mut self, token: Token, proposal: Proposal) -> Result<(), ProposeFailure> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Err(ProposeFailure::NotLeader { leader: self.leader_node() });
        }
        let entry = Entry { context: proposal.context, data: proposal.data, ..Entry::default() };
        let bytes = entry_bytes(&entry);
        if bytes > self.limits.entry_bytes_max {
            return Err(ProposeFailure::TooLarge);
        }
        let uncommitted = u64::try_from(raft.uncommitted_size()).unwrap_or(u64::MAX);
        let waiting = uncommitted.saturating_add(self.proposal_bytes);
        let tail = raft.store().tail.bytes().saturating_add(self.proposal_bytes);
        let too_much = waiting > 0 && waiting.saturating_add(bytes) > self.limits.uncommitted_bytes_max;
        let tokens = self.tokens.len().saturating_add(self.proposals.len());
        if raft.lead_transferee.is_some() {
            // Shortly somebody else leads: there it may be proposed.
            return Err(ProposeFailure::NotLeader { leader: None });
        }
        if too_much || tail >= self.limits.tail_bytes_max || tokens >= self.limits.tokens_max {
            return Err(ProposeFailure::Busy);
        }
        self.proposal_bytes = self.proposal_bytes.saturating_add(bytes);
        self.proposals.push((token, entry));
        Ok(())
    }

    /// Gives the gathered proposals to raft, a message's worth at a time.
    pub(super) fn flush_proposals(&mut self, effects: &mut Effects) {
        let mut queue = std::mem::take(&mut self.proposals).into_iter().peekable();
        self.proposal_bytes = 0;
        while queue.peek().is_some() {
            let mut tokens = Vec::new();
            let mut entries = Vec::new();
            let mut bytes = 0u64;
            while let Some((token, entry)) = queue.next_if(|(_, entry)| {
                bytes == 0 || bytes.saturating_add(entry_bytes(entry)) <= self.limits.message_bytes_max
            }) {
                bytes = bytes.saturating_add(entry_bytes(&entry));
                tokens.push(token);
                entries.push(entry);
            }
            let mut message = Message::default();
            message.set_msg_type(MessageType::MsgPropose);
            message.from = self.id.get();
            message.set_entries(entries.into());
            let stepped = self.is_leader() && self.raw.step(message).is_ok();
            self.timeouts.keep(&mut self.raw.raft);
            if stepped {
                let next = self.raw.raft.raft_log.last_index().saturating_add(1);
                let first = next.saturating_sub(u64::try_from(tokens.len()).unwrap_or(0));
                for (token, index) in tokens.into_iter().zip(first..) {
                    self.tokens.note(index, self.raw.raft.term, token);
                }
            } else {
                let why = if self.is_leader() {
                    ProposeFailure::Busy
                } else {
                    ProposeFailure::NotLeader { leader: self.leader_node() }
                };
                effects.replies.extend(tokens.into_iter().map(|token| failed(token, why)));
            }
        }
    }

    /// Queues a change of members, or says why not.
    pub(super) fn change_members(
        &mut self,
        _token: Token,
        _change: &MemberChange,
    ) -> Result<(), ProposeFailure> {
        Err(ProposeFailure::NotReady)
    }

    /// Adds a read to the next round, or says why there will be none.
    pub(super) fn read_index(&mut self, token: Token) -> Result<(), ProposeFailure> {
        let raft = &self.raw.raft;
        if raft.leader_id == 0 {
            return Err(ProposeFailure::NotLeader { leader: None });
        }
        if self.is_leader() && !raft.commit_to_current_term() {
            return Err(ProposeFailure::NotReady);
        }
        if self.reads.waiting() >= self.limits.tokens_max {
            return Err(ProposeFailure::Busy);
        }
        self.reads.ask(token);
        Ok(())
    }

    pub(super) fn begin_reads(&mut self) {
        if let Some(context) = self.reads.begin() {
            let mut message = Message::default();
            message.set_msg_type(MessageType::MsgReadIndex);
            message.set_entries(vec![Entry { data: context, ..Entry::default() }].into());
            self.step(message);
        }
    }

    pub(super) fn applied(&mut self, index: RaftIndex) {
        let index = index.get();
        if index <= self.raw.raft.raft_log.applied {
            return;
        }
        assert!(index <= self.emitted, "entry {index} applied, but only {} were handed out", self.emitted);
        self.raw.advance_apply_to(index);
        while let Some((_, bytes)) = self.applying.pop_front_if(|(last, _)| *last <= index) {
            self.applying_bytes = self.applying_bytes.saturating_sub(bytes);
        }
        self.evict();
    }

    /// Drops from memory what is durable and applied and more than lagging followers are worth.
    pub(super) fn evict(&mut self) {
        let log = &self.raw.raft.raft_log;
        let settled = log.persisted.min(log.applied);
        let keep = self.limits.tail_bytes_kept;
        self.raw.mut_store().tail.evict(settled, keep);
    }

    /// Forgets what no kept checkpoint needs, as far as no offered snapshot needs it.
    pub(super) fn checkpointed(&mut self, compact_to: RaftIndex, effects: &mut Effects) {
        if self.is_switching() {
            return;
        }
        let mut to = compact_to.get().min(self.raw.raft.raft_log.applied);
        if !self.in_snapshot.is_empty()
            && let Some(offer) = &self.raw.store().offer
        {
            to = to.min(offer.get_metadata().index);
        }
        let store = self.raw.mut_store();
        if to <= store.terms.base().index.get() || !store.terms.compact(RaftIndex(to)) {
            return;
        }
        let first_kept = RaftIndex(to.saturating_add(1));
        effects.compactions.push(Compaction { group: self.group, first_kept });
    }

    pub(super) fn offer(&mut self, offer: &SnapshotOffer) {
        self.export_asked = None;
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = offer.snapshot.index.get();
        metadata.term = offer.snapshot.term.get();
        metadata.set_conf_state(conf_state(&offer.members));
        snapshot.data = OfferData { digest: offer.digest, manifest_bytes: offer.manifest_bytes }.encode();
        self.raw.mut_store().offer = Some(snapshot);
    }

    pub(super) fn withdraw(&mut self, snapshot: EntryId) {
        let offer = &mut self.raw.mut_store().offer;
        if offer.as_ref().is_some_and(|held| held.get_metadata().index == snapshot.index.get()) {
            *offer = None;
        }
    }

    /// Asks for an export if raft wanted to send a snapshot and there was none, not too often.
    pub(super) fn ask_export(&mut self, effects: &mut Effects) {
        let due = self.export_asked.is_none_or(|ticks| ticks >= self.ticks.snapshot_retry);
        if self.raw.store().take_wants_offer() && due {
            self.export_asked = Some(0);
            let at_least = self.raw.store().terms.base().index;
            effects.exports.push(ExportRequest { group: self.group, at_least });
        }
    }

    /// Hands leadership to the voter on `to`, or to the one that has most of the log.
    pub(super) fn transfer(&mut self, to: Option<NodeId>) {
        if !self.is_leader() {
            return;
        }
        let progress = self.raw.raft.prs();
        let target = self
            .members
            .iter()
            .filter(|(id, _)| **id != self.id && progress.conf().voters().contains(id.get()))
            .filter(|(_, node)| to.is_none_or(|to| to == **node))
            .filter_map(|(id, _)| {
                let peer = progress.get(id.get())?;
                Some((peer.recent_active, peer.matched, id.get()))
            })
            .max();
        if let Some((_, _, target)) = target {
            self.raw.transfer_leader(target);
            self.timeouts.keep(&mut self.raw.raft);
        }
    }

    /// What a leader that halts says last: the voter that has all of its log is to stand for election at
    /// once. `None` if it does not lead, or nobody has it all: then their own patience decides.
    pub(super) fn parting(&mut self) -> Option<Outgoing> {
        self.transfer(None);
        let last = self.raw.raft.msgs.iter().rfind(|told| told.get_msg_type() == MessageType::MsgTimeoutNow);
        self.outgoing(last?.clone())
    }

    pub(super) fn peer_down(&mut self, node: NodeId) {
        if self.is_leader() {
            let gone: Vec<_> =
                self.members.iter().filter(|(_, at)| **at == node).map(|(id, _)| id.get()).collect();
            for replica in gone {
                self.raw.report_unreachable(replica);
            }
        } else if self.leader_node() == Some(node) && !self.is_switching() {
            self.timeouts.hasten(&mut self.raw.raft);
        }
    }

    pub(super) fn forget(&mut self, tokens: &[Token]) {
        for token in tokens {
            self.tokens.forget(*token);
            self.reads.forget(*token);
        }
    }

    /// Everyone who waits for anything of this replica, with what is true once it is gone.
    pub(super) fn abandon(&mut self) -> Vec<Reply> {
        let unproposed = std::mem::take(&mut self.proposals).into_iter().map(|(token, _)| token);
        let mut replies: Vec<_> = unproposed
            .chain(self.reads.drain())
            .map(|token| failed(token, ProposeFailure::NotReady))
            .collect();
        let open = self.tokens.drain_to(u64::MAX);
        replies.extend(open.into_iter().map(|token| failed(token, ProposeFailure::MayHaveCommitted)));
        replies
    }

    /// Says who leads, if that changed since it was last said.
    pub(super) fn show_leader(&mut self, effects: &mut Effects) {
        let change = LeaderChange {
            group: self.group,
            term: Term(self.raw.raft.term),
            leader: self.leader_node(),
            here: self.is_leader(),
        };
        let same = self.shown.is_some_and(|shown| {
            (shown.leader, shown.here) == (change.leader, change.here)
                && (!change.here || shown.term == change.term)
        });
        if !same {
            self.shown = Some(change);
            effects.leadership.push(change);
        }
    }

    /// Where a message goes, and on which stream. `None` if its recipient is on no node.
    pub(super) fn outgoing(&self, message: Message) -> Option<Outgoing> {
        let to = *self.members.get(&ReplicaId(message.to))?;
        Some(Outgoing { to, group: self.group, lane: super::io::Lane::of(message.get_msg_type()), message })
    }

    pub(super) fn status(&self) -> GroupStatus {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        let store = raft.store();
        let durable_term = store.terms.term(log.persisted).unwrap_or_default();
        let peers = self.members.iter().filter(|_| self.is_leader()).filter_map(|(replica, node)| {
            let progress = raft.prs().get(replica.get())?;
            Some(PeerStatus {
                replica: *replica,
                node: *node,
                matched: RaftIndex(progress.matched),
                active: progress.recent_active || *replica == self.id,
                in_snapshot: progress.state == ProgressState::Snapshot,
                learner: !raft.prs().conf().voters().contains(replica.get()),
                caught_up: progress.matched >= log.committed,
            })
        });
        GroupStatus {
            group: self.group,
            replica: self.id,
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::PreCandidate => Role::PreCandidate,
                StateRole::Candidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            term: Term(raft.term),
            leader: self.leader_node(),
            first: RaftIndex(store.terms.base().index.get().saturating_add(1)),
            last: RaftIndex(log.last_index()),
            durable: entry_id(log.persisted, durable_term.get()),
            committed: RaftIndex(log.committed),
            applied: RaftIndex(log.applied),
            serves: self.is_leader() && raft.apply_to_current_term(),
            tail_bytes: store.tail.bytes(),
            snapshot: self.incoming.phase(),
            members: members_of(&raft.prs().conf().to_conf_state(), &self.members),
            peers: peers.collect(),
            halted: None,
        }
    }
}

/// The answer that `token` failed.
pub(super) const fn failed(token: Token, why: ProposeFailure) -> Reply {
    Reply { token, answer: Answer::Failed(why) }
}
