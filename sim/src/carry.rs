//! Carries out what a core asks for: the runtime of the simulated world.
//!
//! Order and concurrency are those of a server. One persist thread writes and syncs what has
//! gathered; a crash between its write and its sync finds both unsynced. One apply thread; a
//! checkpoint is taken on it and written beside it. Each takes virtual time, during which the
//! core goes on.

use std::collections::BTreeSet;

use tidelog_consensus::apply::Applied;
use tidelog_consensus::core::{
    Answer, ApplyTask, Effects, Halt, Input, LeaderChange, Outgoing, ProposeFailure, Reply,
};
use tidelog_consensus::entry::{self, Command};
use tidelog_consensus::raft_log::{GroupWrite, RaftLog};
use tidelog_consensus::votes::Vote;
use tidelog_wire::ids::{GroupId, NodeId};
use xxhash_rust::xxh3::xxh3_64;

use crate::coverage::Seen;
use crate::node::{NodeError, Work};
use crate::oracle::Violation;
use crate::protocol::Response;
use crate::world::{Event, Identity, World};

/// Most persists that one sync takes.
const PERSISTS_MAX: usize = 16;
/// The disk is looked at after one checkpoint in this many.
const LOOK_ONE_IN: u64 = 8;

impl World {
    /// Gives an input to a node's core and carries out what follows.
    ///
    /// # Errors
    /// An oracle objects.
    pub(crate) fn step(&mut self, node: NodeId, input: Input) -> Result<(), Violation> {
        let mut effects = Effects::default();
        let Some(life) = self.life(node) else { return Ok(()) };
        life.core.step(input, &mut effects);
        self.carry_out(node, effects)
    }

    fn carry_out(&mut self, node: NodeId, effects: Effects) -> Result<(), Violation> {
        for halt in &effects.halts {
            self.halted(node, halt)?;
        }
        self.witness_effects(node, &effects)?;
        for change in &effects.leadership {
            let fields = [
                ("node", node.get()),
                ("group", change.group.get()),
                ("term", change.term.get()),
                ("leader", change.leader.map_or(u64::MAX, NodeId::get)),
            ];
            self.trace.note(self.schedule.now(), "leader", &fields);
            self.cover_leader(change);
        }
        for refusal in &effects.refusals {
            self.trace.words(self.schedule.now(), "refused", &refusal.reason.to_string());
        }
        for outgoing in effects.sends {
            self.send(node, &outgoing)?;
        }
        for reply in effects.replies {
            self.reply(node, reply)?;
        }
        for compaction in effects.compactions {
            self.compact(node, compaction.group, compaction.first_kept.get());
        }
        if let Some(life) = self.life(node) {
            life.persists.extend(effects.persists);
            life.applies.extend(effects.applies.into_iter().map(Work::Apply));
            let mark = life.persists.back().map_or(0, |persist| persist.number);
            life.installs.extend(effects.installs.into_iter().map(|install| (mark, install)));
        }
        for export in effects.exports {
            self.export(node, export)?;
        }
        if let Some(life) = self.life(node) {
            for group in effects.abandoned {
                life.pins.remove(&group);
            }
        }
        for fetch in effects.fetches {
            self.begin_fetch(node, fetch)?;
        }
        self.begin_persist(node)?;
        self.begin_apply(node);
        Ok(())
    }

    /// A replica stopped. That is right only if its memory was taken away.
    fn halted(&mut self, node: NodeId, halt: &Halt) -> Result<(), Violation> {
        let seen = format!("node {node}: {}", halt.reason);
        self.trace.words(self.schedule.now(), "halt", &seen);
        self.coverage.note(Seen::ReplicaHalted);
        let state = self.nodes.get(&node);
        let replica = state.and_then(|state| state.life.as_ref()?.core.status(halt.group));
        let forgot = replica
            .zip(state)
            .is_some_and(|(status, state)| state.forgot.contains(&(halt.group, status.replica)));
        if forgot {
            return Ok(());
        }
        Err(Violation::of("no replica loses what it promised, so none halts", seen))
    }

    fn send(&mut self, from: NodeId, outgoing: &Outgoing) -> Result<(), Violation> {
        self.witness_sent(from, outgoing)?;
        let Some(identity) = self.life(from).map(|life| life.engine.identity()) else { return Ok(()) };
        let life = Identity { incarnation: identity.incarnation, boot: identity.boot_epoch };
        for delay in self.network.arrivals(from, outgoing.to) {
            let (group, message) = (outgoing.group, Box::new(outgoing.message.clone()));
            self.schedule.after(delay, Event::Message { to: outgoing.to, from, life, group, message });
        }
        Ok(())
    }

    fn compact(&mut self, node: NodeId, group: GroupId, first_kept: u64) {
        let fields = [("node", node.get()), ("group", group.get()), ("first_kept", first_kept)];
        self.trace.note(self.schedule.now(), "compact", &fields);
        let Some(life) = self.life(node) else { return };
        let kept = tidelog_wire::ids::RaftIndex(first_kept);
        let done = life.log.compact(group, kept).and_then(|()| life.log.purge().map(|_| ()));
        match done {
            Ok(()) => {
                self.coverage.note(Seen::LogCompacted);
                self.oracles.raft_logs.compacted(node, group, first_kept);
            }
            Err(error) => self.disk_failed(node, &error.into()),
        }
    }

    /// Writes what has gathered, if nothing is being synced. The sync comes later.
    fn begin_persist(&mut self, node: NodeId) -> Result<(), Violation> {
        let now = self.schedule.now();
        let Some(state) = self.nodes.get(&node) else { return Ok(()) };
        let slow = if now < state.slow_until { 60 } else { 1 };
        let usual = self.settings.disk_micros.saturating_mul(slow);
        let Some(life) = self.life(node) else { return Ok(()) };
        if !life.persisting.is_empty() || life.persists.is_empty() {
            return Ok(());
        }
        let count = life.persists.len().min(PERSISTS_MAX);
        life.persisting = life.persists.drain(..count).collect();
        let writes: Vec<GroupWrite> =
            life.persisting.iter().flat_map(|persist| persist.writes.iter().cloned()).collect();
        let number = life.number;
        if let Err(error) = life.log.write(&writes, false) {
            self.disk_failed(node, &error.into());
            return Ok(());
        }
        self.witness_written(node, &writes)?;
        let delay = self.chance.duration(usual);
        self.schedule.after(delay, Event::Persisted { node, life: number });
        Ok(())
    }

    /// Syncs what was written: first the raft log, then the votes.
    pub(crate) fn persisted(&mut self, node: NodeId, number: u64) -> Result<(), Violation> {
        let Some(life) = self.life_numbered(node, number) else { return Ok(()) };
        let persists = std::mem::take(&mut life.persisting);
        let votes: Vec<Vote> = persists.iter().flat_map(|persist| persist.votes.iter().copied()).collect();
        let mut done: Result<(), NodeError> = Ok(());
        if persists.iter().any(|persist| persist.sync) {
            done = life.log.write(&[], true).map_err(NodeError::from);
        }
        if done.is_ok() && !votes.is_empty() {
            done = life.votes.record(&votes).map_err(NodeError::from);
        }
        if let Err(error) = done {
            self.disk_failed(node, &error);
            return Ok(());
        }
        match persists.last() {
            Some(last) => {
                self.witness_synced(node)?;
                let fields = [("node", node.get()), ("number", last.number)];
                self.trace.note(self.schedule.now(), "persisted", &fields);
                self.ripen_installs(node, last.number);
                self.step(node, Input::Persisted { number: last.number })
            }
            None => Ok(()),
        }
    }

    pub(crate) fn begin_apply(&mut self, node: NodeId) {
        let Some(life) = self.life(node) else { return };
        if life.applying || life.applies.is_empty() {
            return;
        }
        life.applying = true;
        let number = life.number;
        let delay = self.chance.duration(200);
        self.schedule.after(delay, Event::Apply { node, life: number });
    }

    /// Applies the next task and tells everybody who waits for it.
    pub(crate) fn apply_next(&mut self, node: NodeId, number: u64) -> Result<(), Violation> {
        let Some(life) = self.life_numbered(node, number) else { return Ok(()) };
        life.applying = false;
        let task = match life.applies.pop_front() {
            None => return Ok(()),
            Some(Work::Install(install)) => return self.install(node, number, &install),
            Some(Work::Apply(task)) => task,
        };
        let group = task.group;
        let entries = u64::try_from(task.entries.len()).unwrap_or(0);
        let mut done = 0_u64;
        for committed in task.entries {
            let one = ApplyTask { group, entries: vec![committed.clone()] };
            let Some(life) = self.life_numbered(node, number) else { return Ok(()) };
            let Applied { outcomes, stopped, .. } = life.machines.apply(one);
            if let Some(error) = stopped {
                self.disk_failed(node, &error.into());
                return Ok(());
            }
            let outcome = xxh3_64(
                format!("{:?}", outcomes.iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()).as_bytes(),
            );
            self.witness_applied(node, group, &committed, outcome)?;
            for (token, outcome) in outcomes {
                let waiter = token.and_then(|token| self.life(node)?.waiters.remove(&token));
                if let Some(waiter) = waiter {
                    self.respond(node, waiter.client, waiter.number, Response::Done(outcome));
                }
            }
            done = committed.index.get();
        }
        let fields = [("node", node.get()), ("group", group.get()), ("index", done)];
        self.trace.note(self.schedule.now(), "applied", &fields);
        self.answer_reads(node)?;
        self.consider_checkpoint(node, group, entries);
        self.step(node, Input::Applied { group, index: tidelog_wire::ids::RaftIndex(done) })
    }

    fn reply(&mut self, node: NodeId, reply: Reply) -> Result<(), Violation> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let Some(waiter) = life.waiters.remove(&reply.token) else { return Ok(()) };
        match reply.answer {
            Answer::Failed(failure) => {
                self.cover_failure(failure);
                self.respond(node, waiter.client, waiter.number, Response::Failed(failure));
                Ok(())
            }
            Answer::ReadIndex(index) => {
                let group = waiter.group;
                life.reads.push((group, index, waiter));
                self.answer_reads(node)
            }
        }
    }

    fn answer_reads(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let machines = &life.machines;
        let ready = |group: GroupId, index| machines.applied(group).is_some_and(|at| at.index >= index);
        let (now, later) =
            std::mem::take(&mut life.reads).into_iter().partition(|(group, index, _)| ready(*group, *index));
        life.reads = later;
        let now: Vec<_> = now;
        for (_, _, waiter) in now {
            if let Some((log, from)) = waiter.read {
                self.coverage.note(Seen::ReadIndexServed);
                self.read_for(node, waiter.client, waiter.number, log, from)?;
            }
        }
        Ok(())
    }

    fn consider_checkpoint(&mut self, node: NodeId, group: GroupId, entries: u64) {
        let every = self.settings.checkpoint_entries;
        let Some(life) = self.life(node) else { return };
        let since = life.uncheckpointed.entry(group).or_insert(0);
        *since = since.saturating_add(entries);
        if *since < every {
            return;
        }
        self.begin_checkpoint(node, group);
    }

    /// Takes a checkpoint, to be written a while later, unless one is under way or there is nothing new.
    pub(crate) fn begin_checkpoint(&mut self, node: NodeId, group: GroupId) {
        let Some(life) = self.life(node) else { return };
        if life.jobs.contains_key(&group) {
            return;
        }
        let Some(status) = life.core.status(group) else { return };
        let Some(job) = life.machines.checkpoint_job(group, status.durable) else { return };
        life.uncheckpointed.insert(group, 0);
        life.jobs.insert(group, job);
        let number = life.number;
        let delay = self.chance.duration(self.settings.disk_micros.saturating_mul(4));
        self.schedule.after(delay, Event::Checkpoint { node, life: number, group });
    }

    /// Syncs and writes a checkpoint that was taken a while ago.
    pub(crate) fn checkpoint(&mut self, node: NodeId, number: u64, group: GroupId) -> Result<(), Violation> {
        let Some(life) = self.life_numbered(node, number) else { return Ok(()) };
        let Some(job) = life.jobs.remove(&group) else { return Ok(()) };
        let done = match job.run().and_then(|done| life.machines.checkpoint_done(&done).map(|()| done)) {
            Ok(done) => done,
            Err(error) => {
                self.disk_failed(node, &error.into());
                return Ok(());
            }
        };
        let fields = [("node", node.get()), ("group", group.get()), ("index", done.newest.index.get())];
        self.trace.note(self.schedule.now(), "checkpoint", &fields);
        self.coverage.note(Seen::CheckpointWritten);
        if self.chance.one_in(LOOK_ONE_IN) {
            self.witness_segments(node)?;
        }
        self.step(node, Input::Checkpointed { group, newest: done.newest, compact_to: done.compact_to })
    }

    /// Proposes what the catalogue intends for the groups that this node leads.
    pub(crate) fn reconcile(&mut self, node: NodeId, number: u64) -> Result<(), Violation> {
        let Some(life) = self.life_numbered(node, number) else { return Ok(()) };
        let leading: BTreeSet<GroupId> = life
            .core
            .statuses()
            .into_iter()
            .filter(|status| status.serves)
            .map(|status| status.group)
            .collect();
        let proposals = life.machines.reconcile(&leading);
        for (group, command) in proposals {
            if let Command::Meta(command) = command {
                self.ask(node, command);
            } else {
                self.propose(node, group, command, None)?;
            }
        }
        self.tend(node)?;
        let delay = self.chance.between(50_000, 300_000);
        self.schedule.after(delay, Event::Reconcile { node, life: number });
        Ok(())
    }

    fn cover_leader(&mut self, change: &LeaderChange) {
        if change.here
            && self.asked_to_lead.remove(&change.group).is_some_and(|asked| Some(asked) == change.leader)
        {
            self.coverage.note(Seen::HandedOver);
        }
    }

    fn cover_failure(&mut self, failure: ProposeFailure) {
        match failure {
            ProposeFailure::NotLeader { .. } => self.coverage.note(Seen::ProposalNotLeader),
            ProposeFailure::Superseded => self.coverage.note(Seen::ProposalSuperseded),
            ProposeFailure::MayHaveCommitted => self.coverage.note(Seen::ProposalMayHaveCommitted),
            ProposeFailure::Busy
            | ProposeFailure::NotReady
            | ProposeFailure::TooLarge
            | ProposeFailure::Members(_) => {}
        }
    }

    /// Proposes a command on this node.
    pub(crate) fn propose(
        &mut self,
        node: NodeId,
        group: GroupId,
        command: Command,
        waiter: Option<crate::protocol::Waiter>,
    ) -> Result<(), Violation> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let token = life.token();
        if let Some(waiter) = waiter {
            life.waiters.insert(token, waiter);
        }
        let (context, data) = entry::encode(command);
        let entry = tidelog_consensus::core::Proposal { context: context.into(), data };
        self.step(node, Input::Propose { group, token, entry })
    }
}
