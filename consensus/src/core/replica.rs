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

use raft::eraftpb::{Entry, EntryType, HardState, Message, MessageType};
use raft::{RawNode, StateRole};
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::change::Roll;
use super::check::{Denied, Gate};
use super::config::{CoreLimits, ReplicaStart, Ticks};
use super::incoming::Incoming;
use super::io::{Answer, Effects, LeaderChange, Outgoing, Proposal, ProposeFailure, Reply, Token};
use super::pace::Pace;
use super::quiet::Quiet;
use super::reads::Reads;
use super::ready::Held;
use super::start::Started;
use super::store::ReplicaStore;
use super::tail::entry_bytes;
use super::timeouts::Timeouts;
use super::tokens::Tokens;

/// A replica that takes part.
pub(super) struct Replica {
    pub(super) group: GroupId,
    pub(super) id: ReplicaId,
    pub(super) roll: Roll,
    pub(super) limits: CoreLimits,
    pub(super) ticks: Ticks,
    /// Ticks that it was awake for.
    pub(super) clock: u64,
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
    /// When each member was last heard, by `clock`.
    pub(super) heard_at: BTreeMap<ReplicaId, u64>,
    /// Ticks for which each follower has been waiting for a snapshot.
    pub(super) in_snapshot: BTreeMap<u64, u32>,
    /// Ticks since an export was asked for, and what it must have applied.
    pub(super) export_asked: Option<(u32, RaftIndex)>,
    pub(super) quiet: Quiet,
    pub(super) pace: Pace,
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
            roll: Roll::new(members),
            limits,
            ticks,
            clock: 0,
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
            heard_at: BTreeMap::new(),
            in_snapshot: BTreeMap::new(),
            export_asked: None,
            quiet: Quiet::AWAKE,
            pace: Pace::default(),
            raw,
        }
    }

    pub(super) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether a member was heard of within the time that a follower waits for its leader. raft's own mark is wiped at each
    /// of its quorum checks, so for a moment after one it says that nobody is there.
    pub(super) fn heard_lately(&self, member: ReplicaId) -> bool {
        let patience = u64::from(self.ticks.election_max);
        self.heard_at.get(&member).is_some_and(|at| self.clock.saturating_sub(*at) <= patience)
    }

    fn is_log_durable(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        log.persisted == log.last_index()
    }

    /// Whether the next tick ends its patience.
    fn is_about_to_stand(&self) -> bool {
        let raft = &self.raw.raft;
        raft.election_elapsed.saturating_add(1) >= raft.randomized_election_timeout()
    }

    /// Whether raft has taken a snapshot that is not installed yet.
    pub(super) fn is_switching(&self) -> bool {
        self.incoming.is_installing() || self.raw.raft.raft_log.unstable_snapshot().is_some()
    }

    pub(super) fn leader_node(&self) -> Option<NodeId> {
        self.roll.node_of(ReplicaId(self.raw.raft.leader_id))
    }

    pub(super) fn tick(&mut self) {
        // While a snapshot is being switched to, raft's log and applied index are apart, and a
        // campaign would trip over it.
        if self.is_switching() || self.rests() {
            return;
        }
        self.clock = self.clock.saturating_add(1);
        // A group of one voter elects it the moment that it stands for election, and raft asserts that its log is
        // durable then. It once was: but membership shrinks. The requests of others would wait for the disk anyway.
        if !self.is_leader() && !self.is_log_durable() && self.is_about_to_stand() {
            return;
        }
        self.raw.tick();
        self.timeouts.keep(&mut self.raw.raft);
        for context in self.raw.store().renew_budget(self.limits.read_bytes_per_step_max) {
            self.raw.on_entries_fetched(context);
        }
        if let Some((ticks, _)) = &mut self.export_asked {
            *ticks = ticks.saturating_add(1);
        }
        if self.is_leader() {
            self.retry_snapshots();
            self.look_at_pace();
            self.consider_sleep();
        } else {
            self.in_snapshot.clear();
            self.forget_pace();
        }
    }

    /// Steps a peer's message, once it has passed the checks.
    pub(super) fn message(
        &mut self,
        from: NodeId,
        mut message: Message,
        effects: &mut Effects,
    ) -> Result<(), Denied> {
        let gate = Gate {
            group: self.group,
            roll: &self.roll,
            asleep: self.quiet.is_asleep(),
            raft: &self.raw.raft,
            limits: &self.limits,
            durable_vote: self.durable_vote,
            installing: self.is_switching(),
        };
        gate.check(from, &message)?;
        self.roll.meet(ReplicaId(message.from), from);
        if self.roll.is_member(ReplicaId(message.from)) {
            self.heard_at.insert(ReplicaId(message.from), self.clock);
            self.heard_at.retain(|replica, _| self.roll.is_member(*replica));
        }
        let sleeps = self.hear(&mut message);
        let (kind, sender, context) = (message.get_msg_type(), message.from, message.context.clone());
        if message.get_msg_type() == MessageType::MsgSnapshot && self.must_stage(&message) {
            self.stage(from, message, effects);
        } else {
            self.step(message);
        }
        self.heard(kind, sender, &context);
        if sleeps {
            self.quiet = Quiet::Asleep;
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
        self.check_proposer()?;
        self.queue(token, Entry { context: proposal.context, data: proposal.data, ..Entry::default() })
    }

    pub(super) fn check_proposer(&self) -> Result<(), ProposeFailure> {
        if self.is_leader() { Ok(()) } else { Err(ProposeFailure::NotLeader { leader: self.leader_node() }) }
    }

    /// Whether an entry that changes members waits for the next collection.
    pub(super) fn has_change_queued(&self) -> bool {
        self.proposals.iter().any(|(_, entry)| entry.get_entry_type() != EntryType::EntryNormal)
    }

    /// Whether anybody waits for an answer of this replica.
    pub(super) fn has_waiters(&self) -> bool {
        !self.proposals.is_empty() || self.tokens.len() > 0 || self.reads.is_waited_for()
    }

    pub(super) fn queue(&mut self, token: Token, entry: Entry) -> Result<(), ProposeFailure> {
        let raft = &self.raw.raft;
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
        self.wake();
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
            let changes = entries.iter().any(|entry| entry.get_entry_type() != EntryType::EntryNormal);
            let mut message = Message::default();
            message.set_msg_type(MessageType::MsgPropose);
            message.from = self.id.get();
            message.set_entries(entries.into());
            // raft would make an empty entry of a change while another may be under way.
            let possible = !(changes && self.raw.raft.has_pending_conf());
            let stepped = self.is_leader() && possible && self.raw.step(message).is_ok();
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
        self.wake();
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
        // What is beyond was handed out by an older replica of the group.
        if index <= self.raw.raft.raft_log.applied || index > self.emitted {
            return;
        }
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

    /// Hands leadership to the voter on `to`, or to the one that has most of the log.
    pub(super) fn transfer(&mut self, to: Option<NodeId>) {
        if !self.is_leader() {
            return;
        }
        if let Some(heir) = self.heir(to) {
            self.wake();
            self.raw.transfer_leader(heir);
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
        if self.wakes_without(node) {
            self.wake();
        }
        if self.is_leader() {
            let gone: Vec<_> =
                self.roll.members.iter().filter(|(_, at)| **at == node).map(|(id, _)| id.get()).collect();
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
        let to = self.roll.node_of(ReplicaId(message.to))?;
        Some(Outgoing { to, group: self.group, lane: super::io::Lane::of(message.get_msg_type()), message })
    }
}

/// The answer that `token` failed.
pub(super) const fn failed(token: Token, why: ProposeFailure) -> Reply {
    Reply { token, answer: Answer::Failed(why) }
}
