//! The raft thread: the core, and the hands that carry its effects out.
//!
//! It sleeps until there is an input or a tick is due, feeds all that waits, collects once, and then:
//! hands what must become durable to the log writer, messages to the transport, committed entries to
//! apply, and answers to whoever waits. Nothing of this blocks, so a slow disk or a slow peer never
//! delays a heartbeat.
//!
//! An installation waits here until the persist that carries its mark is durable.
//!
//! Not here: what the effects are (`crate::core`) and what they do (the other threads).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protobuf::Message as _;
use tidelog_wire::ids::{GroupId, NodeId};

use super::apply_thread::{ApplyBox, ApplyInput};
use super::board::Board;
use super::clock::Clock;
use super::keeper::{KeeperBox, KeeperInput};
use super::mailbox::{Mailbox, NotTaken, Waited};
use super::waiters::{Told, Waiters};
use super::writer::{WriterBox, WriterInput};
use crate::core::{
    Answer, Effects, ExportRequest, FetchSnapshot, Input, InstallSnapshot, Lane, NodeCore, Outgoing, Role,
};
use crate::metrics::NodeMetrics;

/// Messages and proposals that may wait for the raft thread.
const INPUTS_MAX: usize = 16_384;
/// Their bytes.
const INPUT_BYTES_MAX: usize = 256 << 20;
/// Inputs fed to the core before it is asked what follows.
const FEED_MAX: usize = 1024;
/// Ticks that a thread which was held up makes up for; more would only cause elections.
const TICKS_MADE_UP_MAX: u32 = 4;

/// What waits for the raft thread.
#[derive(Debug)]
pub(super) struct Inbox {
    mailbox: Mailbox<Input>,
}

impl Inbox {
    pub(super) const fn new() -> Self {
        Self { mailbox: Mailbox::new(INPUTS_MAX, INPUT_BYTES_MAX) }
    }

    /// From outside: a message or a proposal of so many bytes.
    pub(super) fn offer_input(&self, input: Input, bytes: usize) -> Result<(), NotTaken> {
        self.mailbox.offer(input, bytes)
    }

    /// From a thread of the node: the answer to an effect.
    pub(super) fn push_input(&self, input: Input) {
        self.mailbox.push(input);
    }

    pub(super) fn close(&self) {
        self.mailbox.close();
    }

    /// Everything that waits now.
    #[cfg(test)]
    pub(super) fn taken(&self) -> Vec<Input> {
        let mut taken = Vec::new();
        self.mailbox.take_all(&mut taken, Some(Duration::ZERO));
        taken
    }
}

/// Where messages go. Sending never blocks; what cannot be sent is dropped.
pub(super) trait Peers: Send + Sync + 'static {
    /// Sends an encoded message.
    fn send(&self, to: NodeId, lane: Lane, group: GroupId, message: Bytes);
    /// Begins to fetch a snapshot into staging; the raft thread is told how it ended.
    fn fetch(&self, fetch: FetchSnapshot);
    /// Lets go of what is held for the group's fetch: there will be no switch to it.
    fn abandon(&self, group: GroupId);
    /// Makes a manifest of the group's newest checkpoint that others can fetch.
    fn export(&self, request: ExportRequest);
}

/// The raft thread's belongings.
pub(super) struct RaftThread {
    pub(super) core: NodeCore,
    pub(super) inbox: Arc<Inbox>,
    pub(super) writer: Arc<WriterBox>,
    pub(super) apply: Arc<ApplyBox>,
    pub(super) keeper: Arc<KeeperBox>,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) board: Arc<Board>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tick: Duration,
    /// Installations whose mark is not durable yet, with the number of its persist.
    pub(super) installs: VecDeque<(u64, InstallSnapshot)>,
    /// Groups that this node leads and does not serve yet: shown at every step.
    pub(super) settling: BTreeSet<GroupId>,
}

impl RaftThread {
    /// Works until the inbox is closed.
    pub(super) fn run(mut self) {
        let mut inputs = Vec::new();
        let mut effects = Effects::default();
        self.collect(&mut effects);
        self.publish(&mut effects);
        let mut next_tick = self.clock.now().saturating_add(self.tick);
        loop {
            let wait = next_tick.saturating_sub(self.clock.now());
            if self.inbox.mailbox.take_all(&mut inputs, Some(wait)) == Waited::Closed {
                return;
            }
            let ticked = self.ticks(&mut next_tick, &mut effects);
            let mut changed = ticked;
            while !inputs.is_empty() || ticked {
                let some = inputs.len().min(FEED_MAX);
                for input in inputs.drain(..some) {
                    self.feed(input, &mut effects);
                }
                changed |= self.collect(&mut effects);
                if inputs.is_empty() {
                    break;
                }
            }
            if changed {
                self.publish(&mut effects);
            }
        }
    }

    fn ticks(&mut self, next: &mut Duration, effects: &mut Effects) -> bool {
        let now = self.clock.now();
        let mut ticks = 0;
        while *next <= now && ticks < TICKS_MADE_UP_MAX {
            self.core.feed(Input::Tick, effects);
            *next = next.saturating_add(self.tick);
            ticks = ticks.saturating_add(1);
        }
        if *next <= now {
            *next = now.saturating_add(self.tick);
        }
        ticks > 0
    }

    fn feed(&mut self, input: Input, effects: &mut Effects) {
        if let Input::Persisted { number } = &input {
            while self.installs.front().is_some_and(|(mark, _)| mark <= number) {
                if let Some((_, install)) = self.installs.pop_front() {
                    self.apply.push(ApplyInput::Install(install));
                }
            }
        }
        self.core.feed(input, effects);
    }

    /// Collects and carries out; whether anything changed that others watch.
    fn collect(&mut self, effects: &mut Effects) -> bool {
        self.core.collect(effects);
        let mark = effects.persists.last().map_or(0, |persist| persist.number);
        self.installs.extend(effects.installs.drain(..).map(|install| (mark, install)));
        for persist in effects.persists.drain(..) {
            self.writer.push(WriterInput::Persist(persist));
        }
        for outgoing in effects.sends.drain(..) {
            self.send(&outgoing);
        }
        let changed =
            !effects.leadership.is_empty() || !effects.halts.is_empty() || !self.settling.is_empty();
        for change in effects.leadership.drain(..) {
            tracing::info!(group = %change.group, term = %change.term, leader = ?change.leader, "leader");
            self.apply.push(ApplyInput::Leads { group: change.group, here: change.here });
        }
        for task in effects.applies.drain(..) {
            self.apply.push(ApplyInput::Apply(task));
        }
        for reply in effects.replies.drain(..) {
            let told = match reply.answer {
                Answer::Failed(failure) => Told::Failed(failure.into()),
                Answer::ReadIndex(index) => Told::ReadIndex(index),
            };
            self.waiters.tell(reply.token, told);
        }
        for refusal in effects.refusals.drain(..) {
            self.metrics.messages_refused.add(1);
            tracing::debug!(from = %refusal.from, "{}", refusal.reason);
        }
        for halt in effects.halts.drain(..) {
            tracing::error!("{}", halt.reason);
            self.apply.push(ApplyInput::Leads { group: halt.group, here: false });
        }
        for compaction in effects.compactions.drain(..) {
            self.keeper.push(KeeperInput::Compact(compaction));
        }
        for group in effects.abandoned.drain(..) {
            self.peers.abandon(group);
        }
        for fetch in effects.fetches.drain(..) {
            self.peers.fetch(fetch);
        }
        for export in effects.exports.drain(..) {
            self.peers.export(export);
        }
        changed
    }

    fn send(&self, outgoing: &Outgoing) {
        match outgoing.message.write_to_bytes() {
            Ok(bytes) => self.peers.send(outgoing.to, outgoing.lane, outgoing.group, bytes.into()),
            Err(error) => tracing::error!("a message could not be encoded: {error}; report this as a bug"),
        }
    }

    /// Shows what changed of the groups that something happened to.
    fn publish(&mut self, effects: &mut Effects) {
        let touched = std::mem::take(&mut effects.touched);
        let now: Vec<_> = touched.into_iter().map(|group| (group, self.core.status(group))).collect();
        for (group, status) in &now {
            match status {
                Some(status) if status.role == Role::Leader && !status.serves => self.settling.insert(*group),
                Some(_) | None => self.settling.remove(group),
            };
        }
        self.board.change(now.into_iter());
    }
}
