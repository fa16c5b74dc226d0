//! Changing who belongs to a group: proposed by its leader, made by everyone when the entry is handed to apply.
//!
//! 1. [`Input::ChangeMembers`](super::Input) is checked against the members as they are, and refused with a reason.
//!    One change at a time: while an entry that changes members may be in the log and not applied, raft
//!    would turn another into an empty one, so none is proposed.
//! 2. When the entry is committed and handed to apply, raft is told, and the members after it go along
//!    ([`Committed::members`](super::Committed)), for the checkpoints of whoever applies.
//! 3. A replica that sees itself removed stands for no election any more, and takes part in nothing.
//!    A **leader** that removes itself tells the voter that has most of its log to stand for election at once,
//!    and follows: raft would go on to count itself, and stop the process when it finds itself gone.
//!
//! Who is no member is not always a stranger. A follower that lags may not know yet that the leader was added, and
//! must take its entries to learn it. So what *begins* something (entries, heartbeats, snapshots, requests for
//! votes) is taken from replicas that are not known, unless they were removed, or a newer replica is
//! known on their node; raft's terms tell what it is worth. What *answers* is taken from members only.

use std::collections::BTreeMap;

use raft::StateRole;
use raft::eraftpb::{Entry, EntryType};
use tidelog_engine::checkpoint::Members;
use tidelog_wire::ids::{NodeId, ReplicaId};

use super::error::HaltReason;
use super::io::{ProposeFailure, Token};
use super::members::{ChangeRefusal, MEMBERS_MAX, MemberChange, check_members, decode_entry, members_of};
use super::replica::Replica;
use super::status::Role;

/// Whom this replica knows, and where they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Roll {
    /// The members, in whatever part.
    pub(super) members: BTreeMap<ReplicaId, NodeId>,
    /// No members as far as is known here, but they have spoken, and answers have to find them.
    strangers: BTreeMap<ReplicaId, NodeId>,
    /// Were members.
    removed: BTreeMap<ReplicaId, NodeId>,
}

impl Roll {
    pub(super) fn new(members: BTreeMap<ReplicaId, NodeId>) -> Self {
        Self { members, ..Self::default() }
    }

    /// On which node `replica` is, or was: a leader that removes itself says so as the last thing that it does.
    pub(super) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let known = [&self.members, &self.strangers, &self.removed];
        known.into_iter().find_map(|known| known.get(&replica)).copied()
    }

    pub(super) fn is_member(&self, replica: ReplicaId) -> bool {
        self.members.contains_key(&replica)
    }

    /// Whether `replica` on `node` may be a member that is not known yet.
    pub(super) fn may_be_new(&self, replica: ReplicaId, node: NodeId) -> bool {
        replica != ReplicaId(0)
            && !self.is_member(replica)
            && !self.removed.contains_key(&replica)
            && self.members.iter().all(|(member, at)| *at != node || *member < replica)
    }

    /// Notes where one is that is no member.
    pub(super) fn meet(&mut self, replica: ReplicaId, node: NodeId) {
        if !self.is_member(replica) {
            self.strangers.insert(replica, node);
            while self.strangers.len() > MEMBERS_MAX {
                self.strangers.pop_first();
            }
        }
    }

    /// From now on these are the members.
    pub(super) fn become_members(&mut self, members: &Members) {
        let before = std::mem::take(&mut self.members);
        self.members = members.replicas.iter().copied().collect();
        for (replica, node) in before {
            if !self.is_member(replica) {
                self.removed.insert(replica, node);
            }
        }
        while self.removed.len() > MEMBERS_MAX {
            self.removed.pop_first();
        }
        self.strangers.retain(|replica, _| !self.members.contains_key(replica));
    }
}

impl Replica {
    /// Who belongs to the group, by the entries handed to apply.
    pub(super) fn members(&self) -> Members {
        members_of(&self.raw.raft.prs().conf().to_conf_state(), &self.roll.members)
    }

    /// Whether it has nothing yet, and waits for a snapshot.
    pub(super) fn is_blank(&self) -> bool {
        self.raw.store().is_blank()
    }

    /// Whether it was a member once.
    pub(super) fn is_removed(&self) -> bool {
        !self.is_blank() && !self.roll.is_member(self.id)
    }

    pub(super) fn role(&self) -> Role {
        let counts = self.raw.raft.prs().conf().voters().contains(self.id.get());
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Candidate => Role::Candidate,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Follower if counts => Role::Follower,
            StateRole::Follower if self.is_removed() => Role::Removed,
            StateRole::Follower => Role::Learner,
        }
    }

    /// Queues a change of members for the next collection, or says why not.
    pub(super) fn change_members(
        &mut self,
        token: Token,
        change: &MemberChange,
    ) -> Result<(), ProposeFailure> {
        self.check_proposer()?;
        if self.raw.raft.has_pending_conf() || self.has_change_queued() {
            return Err(ProposeFailure::Members(ChangeRefusal::UnderWay));
        }
        change.check(&self.members()).map_err(ProposeFailure::Members)?;
        if let Some(late) = change.promote.iter().find(|replica| !self.is_caught_up(**replica)) {
            return Err(ProposeFailure::Members(ChangeRefusal::NotCaughtUp(*late)));
        }
        self.queue(token, change.entry())
    }

    /// Makes the change of a committed entry: who belongs to the group after it. `None` if it changes nothing.
    pub(super) fn make_change(&mut self, entry: &Entry) -> Result<Option<Members>, HaltReason> {
        if entry.get_entry_type() == EntryType::EntryNormal {
            return Ok(None);
        }
        let group = self.group;
        let bad = |found: String| HaltReason::BadMembers { group, found };
        let Some((change, added)) = decode_entry(entry) else {
            return Err(bad(format!("entry {} changes them in a form that is not known", entry.index)));
        };
        let conf = self
            .raw
            .apply_conf_change(&change)
            .map_err(|error| bad(format!("entry {} cannot change them: {error}", entry.index)))?;
        let mut nodes = self.roll.members.clone();
        nodes.extend(added);
        let members = members_of(&conf, &nodes);
        check_members(&members).map_err(bad)?;
        self.roll.become_members(&members);
        self.raw.mut_store().members_changed(entry.index);
        self.timeouts.keep(&mut self.raw.raft);
        tracing::info!(group = group.get(), index = entry.index, ?members, "the members of a group changed");
        if self.is_leader() && !members.counts(self.id) {
            self.step_down();
        }
        Ok(Some(members))
    }

    /// A leader that does not count any more lets somebody else lead.
    fn step_down(&mut self) {
        if let Some(heir) = self.heir(None) {
            self.raw.raft.send_timeout_now(heir);
        }
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, 0);
        self.timeouts.keep(&mut self.raw.raft);
    }

    /// The voter, on `to` if that is named, that has most of the log, of those heard of lately.
    pub(super) fn heir(&self, to: Option<NodeId>) -> Option<u64> {
        let progress = self.raw.raft.prs();
        let voters = progress.conf().to_conf_state().voters;
        self.roll
            .members
            .iter()
            .filter(|(id, _)| **id != self.id && voters.contains(&id.get()))
            .filter(|(_, node)| to.is_none_or(|to| to == **node))
            .filter_map(|(id, _)| {
                let peer = progress.get(id.get())?;
                Some((self.heard_lately(*id), peer.matched, id.get()))
            })
            .max()
            .map(|(_, _, heir)| heir)
    }
}
