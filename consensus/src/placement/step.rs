//! How a group's members should change next: from fact towards intent, one step at a time.
//!
//! Asked on the group's leader, which knows the fact. In this order:
//! 1. A joint configuration is left.
//! 2. The fact is reported, if the catalogue does not know it.
//! 3. Learners that should go, go; replicas that should come, come as learners.
//! 4. Learners that should count are promoted once they have caught up, and voters that should go leave in the same
//!    change. So a voter never leaves before its successor counts. What makes the number of voters even is put off,
//!    unless it is what is wanted: an even number needs one more of them and bears no more losses.
//! 5. A leader that should go, or count no more, hands over first. If there is nobody it could hand over to, somebody
//!    is promoted first.
//!
//! No change is made that would leave fewer than a quorum of the new voters within the leader's hearing.

use std::collections::BTreeSet;

use tidelog_wire::ids::{GroupId, NodeId, ReplicaId};

use crate::apply::Catalogue;
use crate::apply::group_placement::{GroupPlacement, UNBOUND};
use crate::core::{GroupStatus, MemberChange, Role};
use crate::entry::{MetaCommand, Want};

/// What a group's leader should do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Propose this change of members.
    Change(MemberChange),
    /// Let this node lead.
    HandOver(NodeId),
    /// Tell the meta group.
    Report(MetaCommand),
    /// Something has to happen elsewhere first: a follower has to catch up, or to be heard again.
    Wait,
    /// Fact and intent are the same, as far as is known here; or this node does not lead the group.
    Settled,
}

/// The next step for the group of `status`.
#[must_use]
pub fn next_step(catalogue: &Catalogue, status: &GroupStatus) -> Step {
    let group = status.group;
    let Some(placement) = catalogue.group(group) else { return Step::Settled };
    if status.role != Role::Leader || !status.serves {
        return Step::Settled;
    }
    if status.members.is_joint() {
        return Step::Change(MemberChange::default());
    }
    let view = View::new(catalogue, placement, status);
    if let Some(report) = view.report(group) {
        return Step::Report(report);
    }
    view.learners().or_else(|| view.voters()).unwrap_or(Step::Settled)
}

/// Fact and intent side by side.
struct View<'a> {
    placement: &'a GroupPlacement,
    status: &'a GroupStatus,
    /// Members that should go: the catalogue says so, or has forgotten them.
    gone: BTreeSet<ReplicaId>,
}

impl<'a> View<'a> {
    fn new(catalogue: &Catalogue, placement: &'a GroupPlacement, status: &'a GroupStatus) -> Self {
        // One that was minted after what is applied of the catalogue here is none of ours to judge.
        let gone = |replica: &ReplicaId| match placement.replicas.get(replica) {
            Some(known) => known.want == Want::Gone,
            None => catalogue.was_replica_minted(*replica),
        };
        let gone = status.members.all().filter(gone).collect();
        Self { placement, status, gone }
    }

    fn report(&self, group: GroupId) -> Option<MetaCommand> {
        let members = &self.status.members;
        let sorted = |replicas: &[ReplicaId]| {
            let mut replicas = replicas.to_vec();
            replicas.sort_unstable();
            replicas
        };
        let (voters, learners) = (sorted(&members.voters), sorted(&members.learners));
        let known = self.placement.reported.as_ref().is_some_and(|reported| {
            reported.voters == voters && reported.learners == learners && reported.outgoing.is_empty()
        });
        // A replica that went, and that the catalogue still wants to see gone, is reported too.
        let owed = self
            .placement
            .replicas
            .iter()
            .any(|(id, replica)| replica.want == Want::Gone && !members.contains(*id));
        let index = self.status.applied;
        (!known || owed).then_some(MetaCommand::ReportMembers {
            group,
            index,
            voters,
            outgoing: Vec::new(),
            learners,
        })
    }

    fn wants(&self, replica: ReplicaId, kind: Want) -> bool {
        self.placement.replicas.get(&replica).is_some_and(|known| known.want == kind)
    }

    fn learners(&self) -> Option<Step> {
        let members = &self.status.members;
        if let Some(replica) = members.learners.iter().find(|learner| self.gone.contains(learner)) {
            return Some(Step::Change(MemberChange { remove: vec![*replica], ..MemberChange::default() }));
        }
        let comes = |(id, incarnation): (ReplicaId, _)| !members.contains(id) && incarnation != UNBOUND;
        let mut wanted = self.placement.wanted();
        let (id, replica) = wanted.find(|(id, replica)| comes((*id, replica.incarnation)))?;
        Some(Step::Change(MemberChange { add: vec![(id, replica.node)], ..MemberChange::default() }))
    }

    fn voters(&self) -> Option<Step> {
        let members = &self.status.members;
        let promised: Vec<ReplicaId> =
            members.learners.iter().copied().filter(|id| self.wants(*id, Want::Voter)).collect();
        let demote: Vec<ReplicaId> =
            members.voters.iter().copied().filter(|id| self.wants(*id, Want::Learner)).collect();
        let remove: Vec<ReplicaId> =
            members.voters.iter().copied().filter(|id| self.gone.contains(id)).collect();
        if promised.is_empty() && demote.is_empty() && remove.is_empty() {
            return None;
        }
        let own = self.status.replica;
        let leaves = remove.contains(&own) || demote.contains(&own);
        if let Some(to) = self.successor().filter(|_| leaves) {
            return Some(Step::HandOver(to));
        }
        let ready: Vec<ReplicaId> = promised.iter().copied().filter(|id| self.is_ready(*id)).collect();
        let mut change = MemberChange { add: Vec::new(), promote: ready, demote, remove };
        if leaves {
            // Nobody can lead instead yet: first somebody who can.
            change.demote.retain(|id| *id != own);
            change.remove.retain(|id| *id != own);
        } else if change.promote.len() < promised.len() {
            self.put_off(&mut change);
        }
        let nothing = change.is_empty();
        Some(if nothing || !self.keeps_quorum(&change) { Step::Wait } else { Step::Change(change) })
    }

    /// While some of the promised lag behind: as many leave as come, and the number of voters stays odd.
    fn put_off(&self, change: &mut MemberChange) {
        let pairs = change.promote.len().min(change.remove.len());
        if pairs > 0 {
            change.promote.truncate(pairs);
            change.remove.truncate(pairs);
        } else {
            change.remove.clear();
            let voters = self.status.members.voters.len();
            if voters.saturating_add(change.promote.len()).is_multiple_of(2) {
                change.promote.pop();
            }
        }
        change.demote.clear();
    }

    fn is_ready(&self, replica: ReplicaId) -> bool {
        self.status.peers.iter().any(|peer| peer.replica == replica && peer.active && peer.caught_up)
    }

    fn is_heard(&self, replica: ReplicaId) -> bool {
        replica == self.status.replica
            || self.status.peers.iter().any(|peer| peer.replica == replica && peer.active)
    }

    /// A voter that stays and could lead at once.
    fn successor(&self) -> Option<NodeId> {
        let voters = self.status.members.voters.iter().copied();
        let mut staying = voters.filter(|id| *id != self.status.replica && self.wants(*id, Want::Voter));
        let replica = staying.find(|id| self.is_ready(*id))?;
        self.status.members.node_of(replica)
    }

    fn keeps_quorum(&self, change: &MemberChange) -> bool {
        let leaves = |id: &ReplicaId| change.remove.contains(id) || change.demote.contains(id);
        let staying = self.status.members.voters.iter().filter(|id| !leaves(id));
        let after: Vec<ReplicaId> = staying.chain(&change.promote).copied().collect();
        let heard = after.iter().filter(|id| self.is_heard(**id)).count();
        heard.saturating_mul(2) > after.len()
    }
}
