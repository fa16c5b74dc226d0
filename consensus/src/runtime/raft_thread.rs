//! The desk of the core, and the hands that carry its effects out.
//!
//! Whoever brings an input to the [`Inbox`] feeds it, with all that waits, collects once, and then: hands what must become
//! durable to the log writer, messages to the transport, committed entries to apply, and answers to whoever waits. Nothing
//! of this blocks, so a slow disk or a slow peer never delays a heartbeat. The core is worked under the lock of its
//! [`Desk`]; no write and no sync happens under it.
//!
//! - A **thread of the node** (the log writer, apply, the keeper) works at once.
//! - A **task** (a client's, a peer's) leaves its input and asks for a task of the same runtime that works, which runs when the
//!   tasks that are ready have run: so what comes in one go is fed in one go, without waking another thread.
//! - The **raft thread** sleeps until a tick is due, or until somebody who did enough for others calls it.
//!
//! An installation waits here until the persist that carries its mark is durable.
//!
//! Not here: what the effects are (`crate::core`) and what they do (the other threads).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use protobuf::Message as _;
use tidelog_wire::ids::{GroupId, NodeId};

use super::apply_desk::ApplyBox;
use super::apply_thread::ApplyInput;
use super::board::Board;
use super::clock::Clock;
use super::desk::{Desk, NotTaken, Waited, Worked, Worker};
use super::keeper::{KeeperBox, KeeperInput};
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

/// Rounds that a bringer works for others, until it calls the raft thread.
const ROUNDS_MAX: u32 = 8;

/// What waits for the core, and the core.
#[derive(Debug)]
pub(super) struct Inbox {
    desk: Desk<Input, Hands>,
    /// A task that will work has been asked for.
    expected: AtomicBool,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { desk: Desk::new(INPUTS_MAX, INPUT_BYTES_MAX), expected: AtomicBool::new(false) }
    }

    /// From outside: a message or a proposal of so many bytes.
    pub(super) fn offer_input(self: &Arc<Self>, input: Input, bytes: usize) -> Result<(), NotTaken> {
        self.desk.offer(input, bytes)?;
        self.work_soon();
        Ok(())
    }

    /// From a thread of the node: the answer to an effect.
    pub(super) fn push_input(self: &Arc<Self>, input: Input) {
        self.desk.put(input);
        self.work_soon();
    }

    /// Works here, or in a task of the runtime that this is called in, once those that are ready have run.
    fn work_soon(self: &Arc<Self>) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return self.work() };
        if !self.expected.swap(true, Ordering::AcqRel) {
            let expected = Expected(Arc::clone(self));
            runtime.spawn(async move { expected.work() });
        }
    }

    fn work(&self) {
        // If the core is broken, the raft thread finds it so at its next tick.
        if self.desk.work(ROUNDS_MAX, after) == Worked::Left {
            self.desk.call();
        }
    }

    pub(super) fn close(&self) {
        self.desk.close();
    }

    /// Everything that waits now.
    #[cfg(test)]
    pub(super) fn taken(&self) -> Vec<Input> {
        self.desk.taken()
    }
}

/// A task that was asked for. If its runtime ends before it runs, others are asked for again.
struct Expected(Arc<Inbox>);

impl Expected {
    fn work(self) {
        self.0.expected.store(false, Ordering::Release);
        self.0.work();
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.expected.store(false, Ordering::Release);
    }
}

/// Applies what was handed to apply, once the core's lock is free.
fn after(handed: Option<Arc<ApplyBox>>) {
    if let Some(apply) = handed {
        apply.work_here();
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

/// The core at its desk.
struct Hands {
    thread: RaftThread,
    effects: Effects,
    /// The newest persist handed to the log writer, the newest that is durable, and that one at the tick before.
    persists: (u64, u64, u64),
    /// Apply was handed something since its desk was looked at.
    handed: bool,
}

impl Worker<Input> for Hands {
    /// Apply, if it was handed anything.
    type After = Option<Arc<ApplyBox>>;

    fn work(&mut self, inputs: &mut Vec<Input>) -> Self::After {
        let mut changed = false;
        while !inputs.is_empty() {
            let some = inputs.len().min(FEED_MAX);
            for input in inputs.drain(..some) {
                if matches!(input, Input::Tick) {
                    changed = true;
                    self.watch_disk();
                }
                self.feed(input);
            }
            changed |= self.collect();
        }
        if changed {
            self.publish();
        }
        std::mem::take(&mut self.handed).then(|| Arc::clone(&self.thread.apply))
    }
}

/// Takes the core from its desk at the end of the raft thread, whatever ended it.
struct Seated<'a>(&'a Inbox);

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        drop(self.0.desk.leave());
    }
}

impl RaftThread {
    /// Seats the core at its desk, and works until the inbox is closed.
    pub(super) fn run(self) {
        let (inbox, clock, tick) = (Arc::clone(&self.inbox), Arc::clone(&self.clock), self.tick);
        let (effects, persists) = (Effects::default(), (0, 0, 0));
        let mut hands = Hands { thread: self, effects, persists, handed: false };
        hands.collect();
        hands.publish();
        hands.thread.apply.call();
        inbox.desk.seat(hands);
        let seated = Seated(&inbox);
        let mut next_tick = clock.now().saturating_add(tick);
        while inbox.desk.wait(next_tick.saturating_sub(clock.now())) == Waited::Open {
            ticks(&inbox, clock.as_ref(), tick, &mut next_tick);
            let worked = inbox.desk.work(ROUNDS_MAX, after);
            assert!(worked != Worked::Broken, "whoever worked the core last has panicked");
            if worked == Worked::Left {
                inbox.desk.call();
            }
        }
        drop(seated);
    }

    fn send(&self, outgoing: &Outgoing) {
        match outgoing.message.write_to_bytes() {
            Ok(bytes) => self.peers.send(outgoing.to, outgoing.lane, outgoing.group, bytes.into()),
            Err(error) => tracing::error!("a message could not be encoded: {error}; report this as a bug"),
        }
    }
}

/// Leaves the ticks that are due.
fn ticks(inbox: &Inbox, clock: &dyn Clock, tick: Duration, next: &mut Duration) {
    let now = clock.now();
    let mut ticks = 0;
    while *next <= now && ticks < TICKS_MADE_UP_MAX {
        inbox.desk.put(Input::Tick);
        *next = next.saturating_add(tick);
        ticks = ticks.saturating_add(1);
    }
    if *next <= now {
        *next = now.saturating_add(tick);
    }
}

impl Hands {
    /// At each tick: a disk that finished nothing since the one before is in doubt.
    fn watch_disk(&mut self) {
        let (asked, durable, before) = &mut self.persists;
        if *durable < *asked && *durable == *before {
            self.thread.apply.doubt_disk();
        }
        *before = *durable;
    }

    fn feed(&mut self, input: Input) {
        if let Input::Persisted { number } = &input {
            self.persists.1 = *number;
            let thread = &mut self.thread;
            while thread.installs.front().is_some_and(|(mark, _)| mark <= number) {
                if let Some((_, install)) = thread.installs.pop_front() {
                    thread.apply.put(ApplyInput::Install(install));
                    self.handed = true;
                }
            }
        }
        self.thread.core.feed(input, &mut self.effects);
    }

    /// Collects and carries out; whether anything changed that others watch.
    fn collect(&mut self) -> bool {
        let Self { thread, effects, persists, handed } = self;
        thread.core.collect(effects);
        let mark = effects.persists.last().map_or(0, |persist| persist.number);
        thread.installs.extend(effects.installs.drain(..).map(|install| (mark, install)));
        for persist in effects.persists.drain(..) {
            persists.0 = persist.number;
            thread.writer.push(WriterInput::Persist(persist));
        }
        for outgoing in effects.sends.drain(..) {
            thread.send(&outgoing);
        }
        let changed =
            !effects.leadership.is_empty() || !effects.halts.is_empty() || !thread.settling.is_empty();
        *handed |= !(effects.leadership.is_empty() && effects.applies.is_empty() && effects.halts.is_empty());
        for change in effects.leadership.drain(..) {
            tracing::info!(group = %change.group, term = %change.term, leader = ?change.leader, "leader");
            thread.apply.put(ApplyInput::Leads { group: change.group, here: change.here });
        }
        for task in effects.applies.drain(..) {
            thread.apply.put(ApplyInput::Apply(task));
        }
        for reply in effects.replies.drain(..) {
            let told = match reply.answer {
                Answer::Failed(failure) => Told::Failed(failure.into()),
                Answer::ReadIndex(index) => Told::ReadIndex(index),
            };
            thread.waiters.tell(reply.token, told);
        }
        for refusal in effects.refusals.drain(..) {
            thread.metrics.messages_refused.add(1);
            tracing::debug!(from = %refusal.from, "{}", refusal.reason);
        }
        for halt in effects.halts.drain(..) {
            tracing::error!("{}", halt.reason);
            thread.apply.put(ApplyInput::Leads { group: halt.group, here: false });
        }
        for compaction in effects.compactions.drain(..) {
            thread.keeper.push(KeeperInput::Compact(compaction));
        }
        for group in effects.abandoned.drain(..) {
            thread.peers.abandon(group);
        }
        for fetch in effects.fetches.drain(..) {
            thread.peers.fetch(fetch);
        }
        for export in effects.exports.drain(..) {
            thread.peers.export(export);
        }
        changed
    }

    /// Shows what changed of the groups that something happened to.
    fn publish(&mut self) {
        let Self { thread, effects, .. } = self;
        let touched = std::mem::take(&mut effects.touched);
        let now: Vec<_> = touched.into_iter().map(|group| (group, thread.core.status(group))).collect();
        for (group, status) in &now {
            match status {
                Some(status) if status.role == Role::Leader && !status.serves => {
                    thread.settling.insert(*group)
                }
                Some(_) | None => thread.settling.remove(group),
            };
        }
        thread.board.change(now.into_iter());
    }
}
