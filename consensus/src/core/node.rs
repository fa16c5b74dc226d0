//! All replicas of a node behind one door: an input goes in, effects come out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, ReplicaId};

use super::check::Denied;
use super::config::{CoreConfig, CoreLimits, ReplicaStart, Ticks};
use super::error::{CoreError, HaltReason, MessageRefusal};
use super::io::{Effects, Halt, Input, Persist, ProposeFailure, Refusal, Token};
use super::ready::Draft;
use super::replica::{Replica, failed};
use super::start::start;
use super::status::GroupStatus;
use crate::raft_log::RaftLog;

/// The replicas of one node.
///
/// Feed inputs with [`NodeCore::feed`], as many as have gathered, then take what they lead to with
/// [`NodeCore::collect`]: entries and votes of all groups that became due in between share one
/// [`Persist`]. [`NodeCore::step`] does both for one input.
pub struct NodeCore {
    node: NodeId,
    settings: Settings,
    slots: BTreeMap<GroupId, Slot>,
    /// Groups that have to be looked at by the next collection.
    dirty: BTreeSet<GroupId>,
    /// Groups whose clock runs. The others cost nothing, however many they are.
    awake: BTreeSet<GroupId>,
    /// Groups with something on its way to the disk.
    unsettled: BTreeSet<GroupId>,
    last_persist: u64,
    unreported: Vec<Halt>,
}

/// What every replica of the node is built with.
struct Settings {
    log: Arc<dyn RaftLog>,
    boot: BootEpoch,
    ticks: Ticks,
    limits: CoreLimits,
    seed: u64,
}

enum Slot {
    Active(Box<Replica>),
    Halted { replica: ReplicaId, reason: HaltReason },
}

impl std::fmt::Debug for NodeCore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("NodeCore").field("node", &self.node).field("groups", &self.slots.len()).finish()
    }
}

impl NodeCore {
    /// Builds all replicas. One that cannot vouch for its log starts halted, the others run.
    ///
    /// Reads nothing; `raft_log` is read later, when raft asks for entries older than memory.
    ///
    /// # Errors
    /// [`CoreError`] if a setting is out of range or a group is named twice.
    pub fn new(config: CoreConfig, raft_log: &Arc<dyn RaftLog>) -> Result<Self, CoreError> {
        check_settings(&config.ticks, &config.limits)?;
        let mut core = Self {
            node: config.node,
            settings: Settings {
                log: Arc::clone(raft_log),
                boot: config.boot,
                ticks: config.ticks,
                limits: config.limits,
                seed: config.seed,
            },
            slots: BTreeMap::new(),
            dirty: BTreeSet::new(),
            awake: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            last_persist: 0,
            unreported: Vec::new(),
        };
        for replica in config.groups {
            let group = replica.group;
            if core.slots.contains_key(&group) {
                return Err(CoreError::DuplicateGroup { group });
            }
            core.begin(&replica);
        }
        Ok(core)
    }

    /// Builds a replica, which runs unless there is evidence against it.
    fn begin(&mut self, replica: &ReplicaStart) {
        let group = replica.group;
        let Settings { log, boot, ticks, limits, seed } = &self.settings;
        let slot = match start(replica, Arc::clone(log), ticks, limits) {
            Ok(started) => {
                Slot::Active(Box::new(Replica::new(replica, started, *seed, *boot, *ticks, *limits)))
            }
            Err(reason) => {
                self.unreported.push(Halt { group, reason: reason.clone() });
                Slot::Halted { replica: replica.replica, reason }
            }
        };
        self.dirty.insert(group);
        self.slots.insert(group, slot);
    }

    /// Starts a replica at run time, unless a newer one, or this one, takes part already.
    fn start(&mut self, replica: &ReplicaStart, effects: &mut Effects) {
        let replaceable = match self.slots.get(&replica.group) {
            Some(Slot::Active(running)) => running.id < replica.replica,
            Some(Slot::Halted { replica: halted, .. }) => *halted <= replica.replica,
            None => true,
        };
        if replaceable {
            self.stop(replica.group, effects);
            self.begin(replica);
        }
    }

    fn stop(&mut self, group: GroupId, effects: &mut Effects) {
        effects.touched.insert(group);
        self.awake.remove(&group);
        if let Some(Slot::Active(mut replica)) = self.slots.remove(&group) {
            effects.replies.append(&mut replica.abandon());
            effects.sends.extend(replica.parting());
        }
    }

    /// One input, and all that follows from it.
    pub fn step(&mut self, input: Input, effects: &mut Effects) {
        self.feed(input, effects);
        self.collect(effects);
    }

    /// Takes an input. Answers that need no more come out at once; the rest with the next collection.
    pub fn feed(&mut self, input: Input, effects: &mut Effects) {
        match input {
            Input::Tick => self.for_each(self.awake.clone(), Replica::tick),
            Input::Persisted { number } => {
                assert!(number <= self.last_persist, "persist {number} was never asked for");
                let waiting = std::mem::take(&mut self.unsettled);
                self.for_each(waiting, |replica| replica.persisted(number, effects));
            }
            Input::PeerDown { node } => {
                let all = self.slots.keys().copied().collect();
                self.for_each(all, |replica| replica.peer_down(node));
            }
            Input::Message { from, group, message } => {
                let known = self.slots.contains_key(&group);
                let denied = match self.active(group) {
                    Some(replica) => replica.message(from, *message, effects).err(),
                    None if known => Some(MessageRefusal::NotTaking { group }.into()),
                    None => Some(MessageRefusal::UnknownGroup { group }.into()),
                };
                match denied {
                    None => {}
                    Some(Denied::Refuse(reason)) => effects.refusals.push(Refusal { from, group, reason }),
                    Some(Denied::Halt(reason)) => self.halt(group, reason, effects),
                }
            }
            Input::Propose { group, token, entry } => {
                self.or_fail(group, token, effects, |replica| replica.propose(token, entry));
            }
            Input::ReadIndex { group, token } => {
                self.or_fail(group, token, effects, |replica| replica.read_index(token));
            }
            Input::Halt { group, reason } => self.halt(group, reason, effects),
            Input::Start(replica) => self.start(&replica, effects),
            Input::Stop { group } => self.stop(group, effects),
            Input::ChangeMembers { group, token, change } => {
                self.or_fail(group, token, effects, |replica| replica.change_members(token, &change));
            }
            Input::Applied { group, .. }
            | Input::Checkpointed { group, .. }
            | Input::SnapshotStaged { group, .. }
            | Input::SnapshotInstalled { group, .. }
            | Input::SnapshotExported { group, .. }
            | Input::SnapshotWithdrawn { group, .. }
            | Input::TransferLeader { group, .. }
            | Input::Forget { group, .. } => {
                if let Some(replica) = self.active(group) {
                    local(replica, input, effects);
                }
            }
        }
    }

    /// Takes what the inputs since the last collection lead to.
    pub fn collect(&mut self, effects: &mut Effects) {
        effects.halts.append(&mut self.unreported);
        let number = self.last_persist.saturating_add(1);
        let mut draft = Draft { number, writes: Vec::new(), votes: Vec::new() };
        for group in std::mem::take(&mut self.dirty) {
            effects.touched.insert(group);
            let Some(Slot::Active(replica)) = self.slots.get_mut(&group) else { continue };
            if let Err(reason) = replica.collect(&mut draft, effects) {
                self.halt(group, reason, effects);
                continue;
            }
            let (asleep, unsettled) = (replica.quiet.is_asleep(), !replica.held.is_empty());
            let _ = if asleep { self.awake.remove(&group) } else { self.awake.insert(group) };
            if unsettled {
                self.unsettled.insert(group);
            }
        }
        if !draft.writes.is_empty() || !draft.votes.is_empty() {
            self.last_persist = number;
            effects.persists.push(Persist { number, writes: draft.writes, votes: draft.votes, sync: true });
        }
    }

    /// The replica of `group`, if this node has one.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.slots.get(&group).map(|slot| slot.status(group))
    }

    /// All replicas, by group.
    #[must_use]
    pub fn statuses(&self) -> Vec<GroupStatus> {
        self.slots.iter().map(|(group, slot)| slot.status(*group)).collect()
    }

    fn for_each(&mut self, groups: BTreeSet<GroupId>, mut act: impl FnMut(&mut Replica)) {
        for group in groups {
            if let Some(Slot::Active(replica)) = self.slots.get_mut(&group) {
                act(replica);
                self.dirty.insert(group);
            }
        }
    }

    fn active(&mut self, group: GroupId) -> Option<&mut Replica> {
        match self.slots.get_mut(&group)? {
            Slot::Active(replica) => {
                self.dirty.insert(group);
                Some(replica)
            }
            Slot::Halted { .. } => None,
        }
    }

    fn or_fail(
        &mut self,
        group: GroupId,
        token: Token,
        effects: &mut Effects,
        act: impl FnOnce(&mut Replica) -> Result<(), ProposeFailure>,
    ) {
        let done = self.active(group).map_or(Err(ProposeFailure::NotReady), act);
        if let Err(why) = done {
            effects.replies.push(failed(token, why));
        }
    }

    fn halt(&mut self, group: GroupId, reason: HaltReason, effects: &mut Effects) {
        effects.touched.insert(group);
        let Some(slot) = self.slots.get_mut(&group) else { return };
        if let Slot::Active(replica) = slot {
            self.awake.remove(&group);
            effects.replies.append(&mut replica.abandon());
            effects.sends.extend(replica.parting());
            let replica = replica.id;
            *slot = Slot::Halted { replica, reason: reason.clone() };
            effects.halts.push(Halt { group, reason });
        }
    }
}

/// Inputs from this node that concern one running replica.
fn local(replica: &mut Replica, input: Input, effects: &mut Effects) {
    match input {
        Input::Applied { index, .. } => replica.applied(index),
        Input::Checkpointed { compact_to, .. } => replica.checkpointed(compact_to, effects),
        Input::SnapshotStaged { snapshot, result, .. } => replica.staged(snapshot, result, effects),
        Input::SnapshotInstalled { snapshot, .. } => replica.installed(snapshot, effects),
        Input::SnapshotExported { offer, .. } => replica.offer(&offer),
        Input::SnapshotWithdrawn { snapshot, .. } => replica.withdraw(snapshot),
        Input::TransferLeader { to, .. } => replica.transfer(to),
        Input::Forget { tokens, .. } => replica.forget(&tokens),
        Input::Tick
        | Input::Persisted { .. }
        | Input::PeerDown { .. }
        | Input::Message { .. }
        | Input::Propose { .. }
        | Input::ReadIndex { .. }
        | Input::Start(_)
        | Input::Stop { .. }
        | Input::ChangeMembers { .. }
        | Input::Halt { .. } => {}
    }
}

impl Slot {
    fn status(&self, group: GroupId) -> GroupStatus {
        match self {
            Self::Active(replica) => replica.status(),
            Self::Halted { replica, reason } => GroupStatus::halted(group, *replica, reason.clone()),
        }
    }
}

fn check_settings(ticks: &Ticks, limits: &CoreLimits) -> Result<(), CoreError> {
    let bad = |setting, found, expected| Err(CoreError::BadSetting { setting, found, expected });
    if ticks.heartbeat == 0 {
        return bad("heartbeat ticks", 0, "at least 1");
    }
    if ticks.election_min <= ticks.heartbeat || ticks.election_min > 10_000 {
        return bad(
            "least election ticks",
            ticks.election_min.into(),
            "more than heartbeat ticks, at most 10000",
        );
    }
    if ticks.election_max < ticks.election_min || ticks.election_max > 10_000 {
        return bad("most election ticks", ticks.election_max.into(), "at least the least, at most 10000");
    }
    if limits.inflight_max == 0 || limits.inflight_max > 65_536 {
        let found = u64::try_from(limits.inflight_max).unwrap_or(u64::MAX);
        return bad("append messages in flight", found, "1 to 65536");
    }
    if limits.uncommitted_bytes_max < limits.message_bytes_max {
        return bad("uncommitted bytes", limits.uncommitted_bytes_max, "at least one message");
    }
    if limits.tail_bytes_max < limits.entry_bytes_max {
        return bad("bytes of entries in memory", limits.tail_bytes_max, "at least one entry");
    }
    Ok(())
}
