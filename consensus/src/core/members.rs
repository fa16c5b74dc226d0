//! Who belongs to a group, and the entries that change it.
//!
//! A change is an entry of the group's own log (raft's second form of membership entries), so all replicas make
//! it at the same place. Its data is raft's; raft knows replicas by number only, so the entry's context says
//! on which node each added one is:
//!
//! | at | size | field    | meaning                                             |
//! |---:|-----:|----------|-----------------------------------------------------|
//! |  0 |    2 | `format` | 1; every other value is refused                     |
//! |  2 |    2 | `count`  | of added replicas, at most 64                       |
//! |  4 |    4 | reserved | zero, enforced                                      |
//! |  8 |   16 | added    | replica id, node id; `count` times, rising by replica |
//!
//! Little-endian. A change of one replica is made at once; one of several goes by way of a **joint**
//! configuration, in which the voters of before and those of after must both agree, until an empty change
//! leaves it. Nobody leaves it by itself: whoever leads then proposes that, as often as it takes.
//!
//! A new replica is a learner first. So the only way to count is to be promoted, once caught up. A voter may become
//! a learner, too: raft calls that adding a learner, and the context does not name it, since it is placed already.
//!
//! Not here: proposing and applying ([`change`](super::change)), and what should be changed when
//! (`crate::placement`).

use std::collections::{BTreeMap, BTreeSet};

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
};
use tidelog_engine::checkpoint::Members;
use tidelog_wire::ids::{NodeId, ReplicaId};

/// Most members of a group.
pub(super) const MEMBERS_MAX: usize = 64;
const FORMAT: u16 = 1;

/// Who comes and who goes. Empty: leave the joint configuration that a change before began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberChange {
    /// New replicas, as learners, with the node that each is on.
    pub add: Vec<(ReplicaId, NodeId)>,
    /// Learners that shall count.
    pub promote: Vec<ReplicaId>,
    /// Voters that shall count no more, and stay as learners.
    pub demote: Vec<ReplicaId>,
    /// Replicas that shall go.
    pub remove: Vec<ReplicaId>,
}

/// Why members do not change. Nothing was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefusal {
    /// An earlier change is not applied yet, or its joint configuration not left.
    #[error("a change of its members is under way: try again when it is done")]
    UnderWay,
    /// There is no joint configuration to leave.
    #[error("no change of its members is under way that could be finished")]
    NotJoint,
    /// It names a replica that is no member, or no learner where only learners can be meant.
    #[error("replica {0} is no member that this can be done to")]
    Unknown(ReplicaId),
    /// It adds a replica that is a member, or names one twice.
    #[error("replica {0} is a member already, or is named twice")]
    Twice(ReplicaId),
    /// Nobody would be left to vote.
    #[error("nobody would be left who votes")]
    LastVoter,
    /// More members than a group may have.
    #[error("a group has at most 64 members")]
    TooMany,
    /// A learner that would count lacks entries that are committed: the group could stand still.
    #[error("replica {0} has not caught up yet")]
    NotCaughtUp(ReplicaId),
}

impl MemberChange {
    /// Whether it leaves the joint configuration.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.promote, &self.demote, &self.remove].iter().all(|replicas| replicas.is_empty())
            && self.add.is_empty()
    }

    /// Whether a group with these members can make the change.
    pub(super) fn check(&self, members: &Members) -> Result<(), ChangeRefusal> {
        if self.is_empty() || members.is_joint() {
            return match (self.is_empty(), members.is_joint()) {
                (true, true) => Ok(()),
                (true, false) => Err(ChangeRefusal::NotJoint),
                (false, _) => Err(ChangeRefusal::UnderWay),
            };
        }
        let mut named = BTreeSet::new();
        for replica in self.named() {
            if replica == ReplicaId(0) || !named.insert(replica) {
                return Err(ChangeRefusal::Twice(replica));
            }
        }
        if let Some((known, _)) = self.add.iter().find(|(replica, _)| members.contains(*replica)) {
            return Err(ChangeRefusal::Twice(*known));
        }
        if let Some(other) = self.promote.iter().find(|replica| !members.learners.contains(replica)) {
            return Err(ChangeRefusal::Unknown(*other));
        }
        if let Some(other) = self.remove.iter().find(|replica| !members.contains(**replica)) {
            return Err(ChangeRefusal::Unknown(*other));
        }
        if let Some(other) = self.demote.iter().find(|replica| !members.voters.contains(replica)) {
            return Err(ChangeRefusal::Unknown(*other));
        }
        let goes = |voter| self.remove.contains(voter) || self.demote.contains(voter);
        let stays = members.voters.iter().any(|voter| !goes(voter));
        if !stays && self.promote.is_empty() {
            return Err(ChangeRefusal::LastVoter);
        }
        if members.replicas.len().saturating_add(self.add.len()) > MEMBERS_MAX {
            return Err(ChangeRefusal::TooMany);
        }
        Ok(())
    }

    fn named(&self) -> impl Iterator<Item = ReplicaId> {
        let added = self.add.iter().map(|(replica, _)| replica);
        added.chain(&self.promote).chain(&self.demote).chain(&self.remove).copied()
    }

    /// The entry that makes the change.
    pub(super) fn entry(&self) -> Entry {
        let single = |kind, replica: &ReplicaId| {
            let mut change = ConfChangeSingle::default();
            change.set_change_type(kind);
            change.node_id = replica.get();
            change
        };
        let added = self.add.iter().map(|(replica, _)| single(ConfChangeType::AddLearnerNode, replica));
        let demoted = self.demote.iter().map(|replica| single(ConfChangeType::AddLearnerNode, replica));
        let promoted = self.promote.iter().map(|replica| single(ConfChangeType::AddNode, replica));
        let removed = self.remove.iter().map(|replica| single(ConfChangeType::RemoveNode, replica));
        let changes: Vec<_> = added.chain(promoted).chain(demoted).chain(removed).collect();
        let mut change = ConfChangeV2::default();
        change.set_transition(transition(changes.len()));
        change.set_changes(changes.into());
        let mut entry = Entry { context: encode_added(&self.add).into(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        // It is encoded into memory, which does not fail.
        entry.data = change.write_to_bytes().unwrap_or_default().into();
        entry
    }
}

/// One replica is changed at once, several by way of a joint configuration that is left by a change of its own.
const fn transition(changes: usize) -> ConfChangeTransition {
    match changes {
        0 | 1 => ConfChangeTransition::Auto,
        _ => ConfChangeTransition::Explicit,
    }
}

fn encode_added(added: &[(ReplicaId, NodeId)]) -> Vec<u8> {
    let added: BTreeMap<_, _> = added.iter().copied().collect();
    let count = u16::try_from(added.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(added.len().saturating_mul(16).saturating_add(8));
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    encode_nodes(&mut bytes, added);
    bytes
}

/// Appends replica ids, each with the node that it is on.
pub(super) fn encode_nodes(bytes: &mut Vec<u8>, nodes: impl IntoIterator<Item = (ReplicaId, NodeId)>) {
    for (replica, node) in nodes {
        bytes.extend_from_slice(&replica.get().to_le_bytes());
        bytes.extend_from_slice(&node.get().to_le_bytes());
    }
}

/// Reads `count` replica ids and nodes, rising by replica, and nothing behind.
pub(super) fn decode_nodes(bytes: &[u8], count: u16) -> Option<BTreeMap<ReplicaId, NodeId>> {
    if usize::from(count) > MEMBERS_MAX || bytes.len() != usize::from(count).checked_mul(16)? {
        return None;
    }
    let mut nodes = BTreeMap::new();
    for item in bytes.chunks_exact(16) {
        let (replica, node) = item.split_first_chunk::<8>()?;
        let replica = ReplicaId(u64::from_le_bytes(*replica));
        if nodes.last_key_value().is_some_and(|(last, _)| *last >= replica) {
            return None;
        }
        nodes.insert(replica, NodeId(u64::from_le_bytes(node.try_into().ok()?)));
    }
    Some(nodes)
}

fn decode_added(bytes: &[u8]) -> Option<BTreeMap<ReplicaId, NodeId>> {
    let (format, rest) = bytes.split_first_chunk::<2>()?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    let (reserved, rest) = rest.split_first_chunk::<4>()?;
    if u16::from_le_bytes(*format) != FORMAT || *reserved != [0; 4] {
        return None;
    }
    decode_nodes(rest, u16::from_le_bytes(*count))
}

/// What the membership entry `entry` changes, and on which node each added replica is. `None` unless
/// [`MemberChange::entry`] could have made it, whatever the members.
pub(super) fn decode_entry(entry: &Entry) -> Option<(ConfChangeV2, BTreeMap<ReplicaId, NodeId>)> {
    let added = decode_added(&entry.context)?;
    // No change that names 64 replicas is longer.
    if entry.get_entry_type() != EntryType::EntryConfChangeV2 || entry.data.len() > 64 * MEMBERS_MAX {
        return None;
    }
    let change = ConfChangeV2::parse_from_carllerche_bytes(&entry.data).ok()?;
    let named: BTreeSet<_> = change.changes.iter().map(|single| single.node_id).collect();
    let learners = change
        .changes
        .iter()
        .filter(|single| single.get_change_type() == ConfChangeType::AddLearnerNode)
        .map(|single| ReplicaId(single.node_id));
    let plausible = change.get_transition() == transition(change.changes.len())
        && change.context.is_empty()
        && named.len() == change.changes.len()
        && named.len() <= MEMBERS_MAX
        && !named.contains(&0)
        && learners.collect::<BTreeSet<_>>().is_superset(&added.keys().copied().collect());
    plausible.then_some((change, added))
}

/// Whether raft could be given these members: what it would stop the process over is found here.
pub(super) fn check_members(members: &Members) -> Result<(), String> {
    let Members { voters, outgoing, learners, learners_next, replicas } = members;
    let all: BTreeSet<_> = members.all().collect();
    let is_set = |list: &[ReplicaId]| list.iter().collect::<BTreeSet<_>>().len() == list.len();
    let apart = |one: &[ReplicaId], other: &[ReplicaId]| one.iter().all(|replica| !other.contains(replica));
    if voters.is_empty() || all.len() > MEMBERS_MAX || all.contains(&ReplicaId(0)) {
        return Err(format!("{all:?} are none, too many, or replica 0 among them"));
    }
    let distinct = is_set(voters) && is_set(outgoing) && is_set(learners) && is_set(learners_next);
    let disjoint = apart(learners, voters) && apart(learners, outgoing) && apart(learners_next, voters);
    let staged = learners_next.iter().all(|replica| outgoing.contains(replica));
    if !distinct || !disjoint || !staged {
        return Err(format!(
            "voters {voters:?}, before {outgoing:?}, learners {learners:?} and {learners_next:?} contradict"
        ));
    }
    let placed: BTreeSet<_> = replicas.iter().map(|(replica, _)| *replica).collect();
    match all.iter().find(|replica| !placed.contains(replica)) {
        Some(lost) => Err(format!("replica {lost} is on no node")),
        None => Ok(()),
    }
}

/// Our form of raft's members. `nodes` may know more replicas than there are members.
pub(super) fn members_of(conf: &ConfState, nodes: &BTreeMap<ReplicaId, NodeId>) -> Members {
    let sorted = |ids: &[u64]| {
        let mut ids: Vec<_> = ids.iter().copied().map(ReplicaId).collect();
        ids.sort_unstable();
        ids
    };
    let mut members = Members {
        voters: sorted(&conf.voters),
        outgoing: sorted(&conf.voters_outgoing),
        learners: sorted(&conf.learners),
        learners_next: sorted(&conf.learners_next),
        replicas: Vec::new(),
    };
    let is_member = |replica: &ReplicaId| members.contains(*replica);
    let replicas = nodes.iter().filter(|(replica, _)| is_member(replica));
    members.replicas = replicas.map(|(replica, node)| (*replica, *node)).collect();
    members
}

/// raft's form of the members.
pub(super) fn conf_state(members: &Members) -> ConfState {
    let numbers = |ids: &[ReplicaId]| ids.iter().map(|id| id.get()).collect::<Vec<_>>();
    let mut conf = ConfState::default();
    conf.set_voters(numbers(&members.voters));
    conf.set_voters_outgoing(numbers(&members.outgoing));
    conf.set_learners(numbers(&members.learners));
    conf.set_learners_next(numbers(&members.learners_next));
    conf
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Members {
        let mut members =
            Members::of_voters((1..=3).map(|number| (ReplicaId(number), NodeId(number - 1))).collect());
        members.learners = vec![ReplicaId(9)];
        members.replicas.push((ReplicaId(9), NodeId(3)));
        members
    }

    fn change(add: &[u64], promote: &[u64], remove: &[u64]) -> MemberChange {
        let ids = |numbers: &[u64]| numbers.iter().copied().map(ReplicaId).collect::<Vec<_>>();
        MemberChange {
            add: add.iter().map(|number| (ReplicaId(*number), NodeId(*number))).collect(),
            promote: ids(promote),
            demote: Vec::new(),
            remove: ids(remove),
        }
    }

    #[test]
    fn format_1_membership_entry_bytes_never_change() {
        let entry = change(&[12, 11], &[9], &[3]).entry();
        let bytes = [&entry.context[..], &entry.data].concat();
        let golden = include_bytes!("../../testdata/format-1/membership-entry.bin");
        assert_eq!(bytes, golden);
        let (context, data) = golden.split_at(entry.context.len());
        let mut read =
            Entry { context: context.to_vec().into(), data: data.to_vec().into(), ..Entry::default() };
        read.set_entry_type(EntryType::EntryConfChangeV2);
        let (change, added) = decode_entry(&read).unwrap();
        assert_eq!(added, [(ReplicaId(11), NodeId(11)), (ReplicaId(12), NodeId(12))].into());
        assert_eq!(change.enter_joint(), Some(false), "left by a change of its own");
    }

    #[test]
    fn every_change_that_is_proposed_passes_the_check_of_peers() {
        for change in [
            change(&[], &[], &[]),
            change(&[11], &[], &[]),
            change(&[], &[9], &[]),
            change(&[], &[], &[2]),
            change(&[11, 12], &[9], &[1, 2]),
        ] {
            assert!(decode_entry(&change.entry()).is_some(), "{change:?}");
        }
    }

    #[test]
    fn entries_that_no_leader_makes_are_refused() {
        let good = change(&[11], &[9], &[3]).entry();
        let with = |data: ConfChangeV2| Entry { data: data.write_to_bytes().unwrap().into(), ..good.clone() };
        let (sound, _) = decode_entry(&good).unwrap();
        let mut implicit = sound.clone();
        implicit.set_transition(ConfChangeTransition::Implicit);
        assert_eq!(decode_entry(&with(implicit)), None);
        let mut twice = sound.clone();
        twice.changes.push(sound.changes[2].clone());
        assert_eq!(decode_entry(&with(twice)), None);
        let mut zero = sound.clone();
        zero.changes[2].node_id = 0;
        assert_eq!(decode_entry(&with(zero)), None);
        let mut unplaced = sound;
        unplaced.changes[0].node_id = 12;
        assert_eq!(decode_entry(&with(unplaced)), None);
        for byte in 0..good.context.len() {
            let mut context = good.context.to_vec();
            context[byte] ^= 0x80;
            let bad = Entry { context: context.into(), ..good.clone() };
            // The node is anybody's guess; all else is checked.
            assert_eq!(decode_entry(&bad).is_some(), byte >= 16, "byte {byte}");
            let short = Entry { context: good.context.slice(..byte), ..good.clone() };
            assert_eq!(decode_entry(&short), None);
        }
    }

    #[test]
    fn changes_that_cannot_be_made_are_refused_with_the_reason() {
        let check = |change: MemberChange| change.check(&members()).unwrap_err();
        assert_eq!(check(change(&[], &[], &[])), ChangeRefusal::NotJoint);
        assert_eq!(check(change(&[2], &[], &[])), ChangeRefusal::Twice(ReplicaId(2)));
        assert_eq!(check(change(&[11, 11], &[], &[])), ChangeRefusal::Twice(ReplicaId(11)));
        assert_eq!(check(change(&[], &[9], &[9])), ChangeRefusal::Twice(ReplicaId(9)));
        assert_eq!(check(change(&[], &[2], &[])), ChangeRefusal::Unknown(ReplicaId(2)));
        assert_eq!(check(change(&[], &[], &[7])), ChangeRefusal::Unknown(ReplicaId(7)));
        assert_eq!(check(change(&[], &[], &[1, 2, 3])), ChangeRefusal::LastVoter);
        let many: Vec<_> = (100..161).collect();
        assert_eq!(check(change(&many, &[], &[])), ChangeRefusal::TooMany);
        let demoted = |numbers: &[u64]| MemberChange {
            demote: numbers.iter().copied().map(ReplicaId).collect(),
            ..MemberChange::default()
        };
        assert_eq!(check(demoted(&[1, 2, 3])), ChangeRefusal::LastVoter);
        assert_eq!(check(demoted(&[9])), ChangeRefusal::Unknown(ReplicaId(9)));
        assert_eq!(demoted(&[3]).check(&members()), Ok(()));
        assert!(decode_entry(&demoted(&[3]).entry()).is_some());
        let mut joint = members();
        joint.outgoing = joint.voters.clone();
        assert_eq!(change(&[11], &[], &[]).check(&joint), Err(ChangeRefusal::UnderWay));
        assert_eq!(change(&[], &[], &[]).check(&joint), Ok(()));
        assert_eq!(change(&[], &[9], &[1, 2, 3]).check(&members()), Ok(()));
    }

    /// raft stops the process over members that it cannot restore.
    #[test]
    fn members_that_contradict_are_found_before_raft_sees_them() {
        check_members(&members()).unwrap();
        let bad = |spoil: fn(&mut Members)| {
            let mut members = members();
            spoil(&mut members);
            assert!(check_members(&members).is_err(), "{members:?}");
        };
        bad(|members| members.voters.clear());
        bad(|members| members.voters.push(ReplicaId(1)));
        bad(|members| members.voters.push(ReplicaId(9)));
        bad(|members| members.outgoing.push(ReplicaId(9)));
        bad(|members| members.learners_next.push(ReplicaId(1)));
        bad(|members| members.learners.push(ReplicaId(0)));
        bad(|members| members.replicas.truncate(1));
    }
}
