//! Groups in which nothing happens cost nothing.
//!
//! A leader without anything to do for [`Ticks::quiet`](super::Ticks) ticks, and all of whose followers (learners
//! too) have all of its log, asks them to sleep: a heartbeat whose context is a mark and the last index. A follower
//! that has that very log, durable and known committed, answers with the same context and stops its clock; any
//! other answers without. Once all have agreed the leader stops its clock too. No heartbeat is sent and no timer runs
//! from then on, on any of them.
//!
//! ```text
//! Awake --idle for long, asks--> Asking --all agreed--> Asleep
//!   ^------ not in time, or no longer idle ---'            |
//!   '------ something happens ----------------------------'
//! ```
//! What wakes: a message, a proposal, a read, a hand-over, a change of members, and the loss of the connection
//! to the leader's node, or at a leader to that of any member. The woken leader's entries and heartbeats wake the
//! others. A follower that did not hear the question, or is woken alone, runs into its timeout and asks for
//! pre-votes, which wakes everybody: the leader then heartbeats as ever, or, if it is gone, one of them is elected.
//!
//! Why it is safe: sleeping only stops clocks. Terms, votes, entries and commits follow the same rules, and reads that
//! must be current ask a quorum as ever (there is no lease). What it costs: a leader that hangs without losing its
//! connections is noticed when somebody wants something of it.

use std::collections::BTreeSet;

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};
use tidelog_wire::ids::NodeId;

use super::replica::Replica;

/// Begins the context of a heartbeat that asks for sleep, and of the answer that agrees.
const MARK: [u8; 6] = *b"quiet1";

/// Whether a replica's clock runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// It does; a leader had nothing to do for so many ticks.
    Awake {
        /// Ticks in which there was nothing to do.
        idle: u32,
    },
    /// A leader waits for its followers to agree. Its clock stands still, so that no heartbeat wakes them.
    Asking {
        /// Those that have not agreed.
        waiting: BTreeSet<u64>,
        /// Ticks since it asked.
        ticks: u32,
    },
    /// It does not.
    Asleep,
}

impl Quiet {
    pub(super) const AWAKE: Self = Self::Awake { idle: 0 };

    pub(super) fn is_asleep(&self) -> bool {
        *self == Self::Asleep
    }
}

/// The context that asks for sleep on a log that ends at `last`.
fn mark(last: u64) -> Vec<u8> {
    MARK.into_iter().chain(last.to_le_bytes()).collect()
}

fn is_mark(context: &[u8]) -> bool {
    context.starts_with(&MARK)
}

impl Replica {
    pub(super) fn wake(&mut self) {
        self.quiet = Quiet::AWAKE;
    }

    /// Whether its clock stands still in this tick.
    pub(super) fn rests(&mut self) -> bool {
        let patience = self.ticks.heartbeat.saturating_mul(2);
        match &mut self.quiet {
            Quiet::Asleep => true,
            Quiet::Asking { ticks, .. } if *ticks < patience => {
                *ticks = ticks.saturating_add(1);
                true
            }
            // Somebody does not answer: it is asked again when as much time has passed.
            Quiet::Asking { .. } => {
                self.wake();
                false
            }
            Quiet::Awake { .. } => false,
        }
    }

    /// Counts the ticks in which a leader has nothing to do, and asks for sleep when they are enough.
    pub(super) fn consider_sleep(&mut self) {
        let Quiet::Awake { idle } = self.quiet else { return };
        if !self.is_idle() {
            self.wake();
            return;
        }
        let idle = idle.saturating_add(1);
        self.quiet = if idle < self.ticks.quiet { Quiet::Awake { idle } } else { self.ask_for_sleep() };
    }

    fn ask_for_sleep(&mut self) -> Quiet {
        let raft = &mut self.raw.raft;
        let followers: BTreeSet<u64> =
            raft.prs().iter().map(|(id, _)| *id).filter(|id| *id != raft.id).collect();
        let last = raft.raft_log.last_index();
        for follower in &followers {
            let mut question =
                Message { from: raft.id, to: *follower, term: raft.term, ..Message::default() };
            question.set_msg_type(MessageType::MsgHeartbeat);
            question.commit = raft.raft_log.committed;
            question.context = mark(last).into();
            raft.msgs.push(question);
        }
        if followers.is_empty() { Quiet::Asleep } else { Quiet::Asking { waiting: followers, ticks: 0 } }
    }

    /// Whether this leader has nothing to do, and all others have all that it has.
    fn is_idle(&self) -> bool {
        let raft = &self.raw.raft;
        let log = &raft.raft_log;
        let last = log.last_index();
        raft.state == StateRole::Leader
            && (log.committed, log.applied, log.persisted) == (last, last, last)
            && raft.commit_to_current_term()
            && raft.lead_transferee.is_none()
            && raft.pending_read_count() == 0
            && !self.has_waiters()
            && self.held.is_empty()
            && raft.prs().iter().all(|(_, progress)| progress.matched == last)
    }

    /// Looks at a message that has passed the checks, before raft is given it: whether it wakes, and whether
    /// this follower agrees to sleep. Returns whether it does.
    pub(super) fn hear(&mut self, message: &mut Message) -> bool {
        let asks = message.get_msg_type() == MessageType::MsgHeartbeat && is_mark(&message.context);
        if asks && self.agrees(message) {
            return true;
        }
        match message.get_msg_type() {
            // Answers to what was asked before this one slept: looked at when raft has taken them.
            MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse => {}
            MessageType::MsgHeartbeat
            | MessageType::MsgAppend
            | MessageType::MsgSnapshot
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTimeoutNow
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp
            | MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader => self.wake(),
        }
        if asks {
            // An answer without the mark does not agree.
            message.context.clear();
        }
        false
    }

    fn agrees(&self, message: &Message) -> bool {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        raft.state == StateRole::Follower
            && message.term == raft.term
            && message.from == raft.leader_id
            && message.context == mark(last)
            && message.commit == last
            && raft.raft_log.persisted == last
            && self.held.is_empty()
            && !self.has_waiters()
            && !self.is_switching()
    }

    /// Looks at an answer that raft has taken: whether the last follower agrees to sleep, or something is to be done.
    pub(super) fn heard(&mut self, kind: MessageType, from: u64, context: &[u8]) {
        if !matches!(kind, MessageType::MsgHeartbeatResponse | MessageType::MsgAppendResponse) {
            return;
        }
        let last = self.raw.raft.raft_log.last_index();
        if matches!(self.quiet, Quiet::Awake { .. }) {
            return;
        }
        if !self.is_idle() {
            self.wake();
        } else if let Quiet::Asking { waiting, .. } = &mut self.quiet
            && kind == MessageType::MsgHeartbeatResponse
            && context == mark(last)
        {
            waiting.remove(&from);
            if waiting.is_empty() {
                self.quiet = Quiet::Asleep;
            }
        }
    }

    /// Whether the loss of the connection to `node` concerns this replica.
    pub(super) fn wakes_without(&self, node: NodeId) -> bool {
        if self.is_leader() {
            self.roll.members.values().any(|at| *at == node)
        } else {
            self.leader_node() == Some(node)
        }
    }
}
