//! Apply: committed entries of all groups become logs and catalogue, in order.
//!
//! It has a desk (`super::apply_desk`): small appends are applied by whoever learned that they are committed, everything else by the
//! apply thread.
//!
//! 1. It applies what the core hands over, makes the applied index known, and tells each
//!    proposer its outcome. It does not sync: the raft log is the durable copy until the next checkpoint.
//! 2. It takes a group's checkpoint once enough bytes or time went by, and gives it to the keeper, which
//!    syncs and writes it while applying goes on. One at a time a group.
//! 3. Whenever the catalogue, the logs or the leaderships changed, it proposes what its groups should do
//!    to become what the catalogue intends.
//!
//! A group that finds no room on the disk waits for it: leadership is handed over, its entries are kept
//! and tried again, so writes resume by themselves. One that cannot be written for another reason stands
//! still: its replica is halted, the others go on.
//!
//! Not here: what entries mean (`crate::apply`), when a checkpoint is due (`super::pace`), syncing and compacting (`super::keeper`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidelog_wire::ids::{GroupId, LogId};
use tokio::sync::{mpsc, oneshot};

use super::apply_desk::ApplyBox;
use super::board::Board;
use super::clock::Clock;
use super::desk::Worker;
use super::keeper::{KeeperBox, KeeperInput};
use super::pace::{CheckpointPace, Pacer};
use super::raft_thread::Inbox;
use super::waiters::{Told, Waiters};
use crate::apply::{ApplyError, CheckpointDone, Machines};
use crate::core::{ApplyTask, Committed, HaltReason, Input, InstallSnapshot, Proposal, Token};
use crate::entry::{self, Command, MetaCommand};
use crate::outcome::Outcome;

/// How often paces are looked at when nothing happens.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// A proposal of reconcile without an answer is made again after this time.
const RECONCILE_PATIENCE: Duration = Duration::from_secs(1);
/// Entries that found no room on the disk are applied again after this time.
const STALL_PATIENCE: Duration = Duration::from_millis(250);
/// A task that took longer to apply was slow.
const SLOW: Duration = Duration::from_millis(2);

/// Something for the apply thread to do or to know.
pub(super) enum ApplyInput {
    /// Apply these.
    Apply(ApplyTask),
    /// Whether this node leads a group now.
    Leads { group: GroupId, here: bool },
    /// A checkpoint is durable.
    Checkpointed(CheckpointDone),
    /// A checkpoint could not be written; the older ones stand.
    CheckpointFailed(GroupId),
    /// Old entries of these groups keep raft log files from being given back.
    CheckpointSoon(Vec<GroupId>),
    /// Switch to a staged snapshot.
    Install(InstallSnapshot),
    /// Restore the machine of a group that begins here now.
    Open(GroupId, oneshot::Sender<Result<(), String>>),
    /// Let go of a group: its machine and its logs are closed, and of the logs that it had open the answer tells.
    Close(GroupId, oneshot::Sender<Vec<LogId>>),
    /// Checkpoint everything, then say so.
    Finish(oneshot::Sender<()>),
    /// The apply thread looks after what falls due.
    Round,
}

/// How a staged snapshot takes the place of a group's state.
pub(super) trait Installer: Send {
    /// Does the switch: durable on return, and the machine restored from it.
    ///
    /// # Errors
    /// Why it could not be done; the install mark stays, and the next start tries again.
    fn install(&mut self, machines: &mut Machines, install: &InstallSnapshot) -> Result<(), String>;
}

/// The apply thread's belongings.
pub(super) struct ApplyThread {
    pub(super) machines: Machines,
    pub(super) mailbox: Arc<ApplyBox>,
    pub(super) raft: Arc<Inbox>,
    pub(super) keeper: Arc<KeeperBox>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) board: Arc<Board>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) installer: Box<dyn Installer>,
    /// Reports for the meta group, if another node leads it.
    pub(super) reports: mpsc::Sender<MetaCommand>,
    pub(super) state: ApplyState,
}

/// What the apply thread remembers.
pub(super) struct ApplyState {
    leading: BTreeSet<GroupId>,
    pacer: Pacer,
    /// Entries for which the disk has no room now, and when they are tried again. The core bounds them.
    stalled: BTreeMap<GroupId, Stalled>,
    reconcile_due: bool,
    /// Proposals of reconcile without an answer, and when they were made.
    reconciling: BTreeSet<Token>,
    reconciled_at: Duration,
    /// Whether reports are on their way to another node, which may not get them.
    reported: bool,
    /// Who waits for the last checkpoints.
    finish: Option<oneshot::Sender<()>>,
}

/// A group that waits for room on the disk.
struct Stalled {
    entries: Vec<Committed>,
    again_at: Duration,
}

impl ApplyState {
    pub(super) fn new(pace: CheckpointPace, groups: &[GroupId], now: Duration) -> Self {
        Self {
            leading: BTreeSet::new(),
            pacer: Pacer::new(pace, groups, now),
            stalled: BTreeMap::new(),
            reconcile_due: false,
            reconciling: BTreeSet::new(),
            reconciled_at: Duration::ZERO,
            reported: false,
            finish: None,
        }
    }
}

impl Worker<ApplyInput> for ApplyThread {
    type After = ();

    fn work(&mut self, inputs: &mut Vec<ApplyInput>) {
        let begun = self.clock.now();
        let round = inputs.iter().any(|input| matches!(input, ApplyInput::Round));
        for input in inputs.drain(..) {
            self.take(input);
        }
        let slow = self.clock.now().saturating_sub(begun) >= SLOW;
        match (slow, round) {
            (true, _) => self.mailbox.doubt_disk(),
            (false, true) => self.mailbox.trust_disk(),
            (false, false) => {}
        }
        if round {
            self.try_stalled();
            self.reconcile();
            self.checkpoint();
        } else if self.state.reconcile_due {
            self.mailbox.call();
        }
    }
}

impl ApplyThread {
    /// Works until the desk is closed.
    pub(super) fn run(self) {
        let desk = Arc::clone(&self.mailbox);
        desk.serve(self, IDLE_WAIT);
    }

    /// Whether a task does nothing but write into segments that are there and have room.
    pub(super) fn is_quick(&self, task: &ApplyTask) -> bool {
        !self.state.stalled.contains_key(&task.group) && self.machines.is_quick(task)
    }

    fn take(&mut self, input: ApplyInput) {
        match input {
            ApplyInput::Apply(task) => self.apply(task),
            ApplyInput::Leads { group, here } => {
                if here {
                    self.state.leading.insert(group);
                } else {
                    self.state.leading.remove(&group);
                }
                self.state.reconcile_due = true;
            }
            ApplyInput::Checkpointed(done) => self.checkpointed(&done),
            ApplyInput::CheckpointFailed(group) => self.state.pacer.ended(group),
            ApplyInput::CheckpointSoon(groups) => {
                groups.into_iter().for_each(|group| self.state.pacer.soon(group));
            }
            ApplyInput::Install(install) => self.install(&install),
            ApplyInput::Open(group, done) => answer(done, self.open(group)),
            ApplyInput::Close(group, done) => answer(done, self.close(group)),
            ApplyInput::Finish(done) => {
                self.state.pacer.finish();
                self.state.finish = Some(done);
            }
            ApplyInput::Round => {}
        }
    }

    fn open(&mut self, group: GroupId) -> Result<(), String> {
        self.machines.reopen(group).map_err(|error| error.to_string())?;
        self.begin(group);
        Ok(())
    }

    /// A group that has a machine now is shown and checkpointed.
    fn begin(&mut self, group: GroupId) {
        self.state.pacer.add(group, self.clock.now());
        if let Some(applied) = self.machines.applied(group) {
            self.board.set_applied(group, applied.index);
        }
        self.state.reconcile_due = true;
    }

    fn close(&mut self, group: GroupId) -> Vec<LogId> {
        self.machines.close(group);
        self.state.pacer.remove(group);
        self.state.stalled.remove(&group);
        self.state.leading.remove(&group);
        self.board.forget(group);
        self.machines.closed_logs(group)
    }

    fn apply(&mut self, task: ApplyTask) {
        if let Some(stalled) = self.state.stalled.get_mut(&task.group) {
            stalled.entries.extend(task.entries);
        } else {
            self.apply_now(task);
        }
    }

    fn apply_now(&mut self, task: ApplyTask) {
        let group = task.group;
        let size = |entry: &raft::eraftpb::Entry| entry.data.len().saturating_add(entry.context.len());
        let bytes: usize = task.entries.iter().map(|committed| size(&committed.entry)).sum();
        let applied = self.machines.apply(task);
        if self.state.pacer.applied(group, u64::try_from(bytes).unwrap_or(u64::MAX)) {
            self.mailbox.call();
        }
        self.board.set_applied(group, applied.applied.index);
        let mut intent_changed = false;
        for (token, outcome) in applied.outcomes {
            intent_changed |= changes_intent(&outcome);
            match token {
                // Once refused, it is not proposed again before something else changes.
                Some(token) if self.state.reconciling.remove(&token) => {}
                Some(token) => self.waiters.tell(token, Told::Outcome(outcome)),
                None => {}
            }
        }
        if intent_changed {
            self.state.reconcile_due = true;
            self.board.catalogue.send_if_modified(|shown| {
                let now = self.machines.catalogue();
                let changed = !Arc::ptr_eq(shown, &now);
                *shown = now;
                changed
            });
        }
        self.raft.push_input(Input::Applied { group, index: applied.applied.index });
        match applied.stopped {
            None => {
                if self.state.stalled.remove(&group).is_some() {
                    tracing::info!(%group, "the disk has room again: the group goes on");
                }
            }
            Some(error) if error.may_pass() => self.stall(group, applied.rest, &error),
            Some(error) => self.halt(group, error.to_string()),
        }
    }

    /// Keeps entries until the disk has room. Whoever leads meanwhile should be able to apply.
    fn stall(&mut self, group: GroupId, entries: Vec<Committed>, error: &ApplyError) {
        if !self.state.stalled.contains_key(&group) {
            tracing::error!(%group, "the group waits for room on the disk: {error}");
            if self.state.leading.contains(&group) {
                self.raft.push_input(Input::TransferLeader { group, to: None });
            }
        }
        let again_at = self.clock.now().saturating_add(STALL_PATIENCE);
        self.state.stalled.insert(group, Stalled { entries, again_at });
    }

    /// Applies again what found no room, now and then.
    fn try_stalled(&mut self) {
        let now = self.clock.now();
        let mut due = Vec::new();
        for (group, stalled) in self.state.stalled.iter_mut().filter(|(_, stalled)| stalled.again_at <= now) {
            due.push(ApplyTask { group: *group, entries: std::mem::take(&mut stalled.entries) });
        }
        due.into_iter().for_each(|task| self.apply_now(task));
    }

    fn halt(&self, group: GroupId, message: String) {
        self.raft.push_input(Input::Halt { group, reason: HaltReason::Outside { group, message } });
    }

    fn install(&mut self, install: &InstallSnapshot) {
        let group = install.group;
        // A snapshot ends behind all that was committed here, so what waits is in it.
        self.state.stalled.remove(&group);
        let snapshot = crate::core::EntryId { index: install.mark.index, term: install.mark.term };
        match self.installer.install(&mut self.machines, install) {
            Ok(()) => {
                self.begin(group);
                self.board.catalogue.send_replace(self.machines.catalogue());
                self.state.reconcile_due = true;
                self.raft.push_input(Input::SnapshotInstalled { group, snapshot });
            }
            Err(message) => self.halt(group, message),
        }
    }

    /// Proposes what brings groups nearer to the catalogue's intent, once the last round is answered.
    fn reconcile(&mut self) {
        let now = self.clock.now();
        let patient = now.saturating_sub(self.state.reconciled_at) < RECONCILE_PATIENCE;
        if self.state.reported && !patient {
            self.state.reconcile_due = true;
        }
        if self.state.reconciling.is_empty() && !self.state.reconcile_due
            || !self.state.reconciling.is_empty() && patient
            || self.board.is_stopping()
        {
            return;
        }
        self.state.reconcile_due = false;
        self.state.reconciling.clear();
        self.state.reconciled_at = now;
        self.state.reported = false;
        for (group, command) in self.machines.reconcile(&self.state.leading) {
            let elsewhere = !self.state.leading.contains(&group);
            if let (Command::Meta(report), true) = (&command, elsewhere) {
                // If there is no room, or it gets lost, it is made again.
                self.state.reported |= self.reports.try_send(report.clone()).is_ok();
                continue;
            }
            let token = self.waiters.token();
            let (context, data) = entry::encode(command);
            let bytes = data.len();
            let entry = Proposal { context: context.into(), data };
            if self.raft.offer_input(Input::Propose { group, token, entry }, bytes).is_ok() {
                self.state.reconciling.insert(token);
            } else {
                self.state.reconcile_due = true;
            }
        }
    }

    /// Begins the checkpoints that are due, and tells whoever waits for the last ones.
    fn checkpoint(&mut self) {
        for group in self.state.pacer.due(self.clock.now()) {
            let durable = self.board.status(group).map(|status| status.durable).unwrap_or_default();
            if let Some(job) = self.machines.checkpoint_job(group, durable) {
                self.state.pacer.began(group);
                self.keeper.push(KeeperInput::Checkpoint(Box::new(job)));
            }
        }
        if self.state.pacer.is_finished()
            && let Some(finish) = self.state.finish.take()
            && finish.send(()).is_err()
        {
            tracing::debug!("nobody waits for the last checkpoints any more");
        }
    }

    fn checkpointed(&mut self, done: &CheckpointDone) {
        self.state.pacer.ended(done.group);
        if let Err(error) = self.machines.checkpoint_done(done) {
            tracing::warn!("{error}");
        }
        let (group, newest, compact_to) = (done.group, done.newest, done.compact_to);
        self.raft.push_input(Input::Checkpointed { group, newest, compact_to });
    }
}

/// Whoever asked may have gone.
fn answer<T>(asked: oneshot::Sender<T>, with: T) {
    drop(asked.send(with));
}

/// Whether this outcome may leave something to reconcile, or show in the catalogue.
fn changes_intent(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::LogsOpened
        | Outcome::LogsClosed
        | Outcome::ApplyVersionRaised { .. }
        | Outcome::NodeRegistered
        | Outcome::Noted
        | Outcome::GroupCreated { .. }
        | Outcome::ReplicaPlaced { .. }
        | Outcome::ChannelsCreated(_)
        | Outcome::ChannelsDeleted(_) => true,
        Outcome::Appended { .. }
        | Outcome::CursorSet { .. }
        | Outcome::CursorDeleted
        | Outcome::LogStartSet { .. }
        | Outcome::ProducersExpired
        | Outcome::ProducerMinted(_)
        | Outcome::Refused(_) => false,
    }
}

#[cfg(test)]
mod tests;
