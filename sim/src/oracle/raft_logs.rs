//! What lies in the raft logs of all nodes, as their disks have it: not a checker, but what several look at.
//!
//! It is told of each write when the log took it, and of each sync when the *disk* says that nothing of the file
//! is left unsynced; and when a node starts it is read anew from what the disk gave back. So an entry counts as
//! durable because a power cut would leave it there, and not because somebody said so.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::{Entry, HardState};
use tidelog_consensus::raft_log::GroupWrite;
use tidelog_wire::ids::{GroupId, NodeId, ReplicaId};
use xxhash_rust::xxh3::Xxh3;

use super::Violation;

/// An entry as it lies in a raft log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lies {
    /// Its term.
    pub term: u64,
    /// Hash of its kind and bytes.
    pub hash: u64,
}

/// One group's part of a node's raft log.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Which member of the group it is.
    pub replica: ReplicaId,
    /// By index.
    pub entries: BTreeMap<u64, Lies>,
    /// Entries up to here are in a checkpoint that the node has.
    pub base: u64,
    /// Entries up to here would survive a power cut.
    pub durable: u64,
    /// Term and vote as written.
    pub vote: (u64, u64),
    /// Term and vote that would survive a power cut.
    pub durable_vote: (u64, u64),
}

impl Held {
    /// The last entry that it has, or that its checkpoint has.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(self.base, |(index, _)| (*index).max(self.base))
    }

    /// Takes a write. It is not durable yet.
    pub fn take(&mut self, write: &GroupWrite) {
        if write.clear {
            self.entries.clear();
        }
        if let Some(first) = write.entries.first() {
            drop(self.entries.split_off(&first.index));
            self.durable = self.durable.min(first.index.saturating_sub(1));
        }
        self.entries.extend(write.entries.iter().map(|entry| (entry.index, lies(entry))));
        if let Some(hard) = &write.hard_state {
            self.vote = (hard.term, hard.vote);
        }
    }

    /// The term of an entry, if the entry lies here.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        self.entries.get(&index).map(|entry| entry.term)
    }
}

/// All raft logs.
#[derive(Debug, Default)]
pub struct RaftLogs {
    held: BTreeMap<(GroupId, NodeId), Held>,
    /// Who ever had an entry, by index and term, on disk. Forgotten once the entry was found committed.
    witnesses: BTreeMap<GroupId, BTreeMap<(u64, u64), BTreeSet<ReplicaId>>>,
}

impl RaftLogs {
    /// One group's part of a node's raft log.
    #[must_use]
    pub fn of(&self, node: NodeId, group: GroupId) -> Option<&Held> {
        self.held.get(&(group, node))
    }

    /// The node's raft log took this write. It is not durable yet.
    pub fn wrote(&mut self, node: NodeId, replica: ReplicaId, write: &GroupWrite) {
        let held = self.held.entry((write.group, node)).or_default();
        held.replica = replica;
        held.take(write);
    }

    /// The disk has nothing unsynced of the node's raft log.
    pub fn synced(&mut self, node: NodeId) {
        for ((group, _), held) in self.held.iter_mut().filter(|((_, of), _)| *of == node) {
            let last = held.last();
            let witnesses = self.witnesses.entry(*group).or_default();
            for (index, entry) in held.entries.range(held.durable.saturating_add(1)..) {
                witnesses.entry((*index, entry.term)).or_default().insert(held.replica);
            }
            held.durable = last;
            held.durable_vote = held.vote;
        }
    }

    /// The node may forget entries before this one.
    pub fn compacted(&mut self, node: NodeId, group: GroupId, first_kept: u64) {
        if let Some(held) = self.held.get_mut(&(group, node)) {
            let first = first_kept.min(held.entries.last_key_value().map_or(0, |(last, _)| *last));
            held.entries = held.entries.split_off(&first);
            held.base = held.base.max(first.saturating_sub(1));
        }
    }

    /// The node switched to a snapshot that ends with this entry; its log is empty.
    pub fn installed(&mut self, node: NodeId, group: GroupId, index: u64) {
        let held = self.held.entry((group, node)).or_default();
        held.entries.clear();
        held.base = index;
        held.durable = index;
        held.durable_vote = held.vote;
    }

    /// A node started: this is what its raft log gave back. Whether the disk has all of that, or only the cache, is
    /// told afterwards, once all groups were.
    ///
    /// # Errors
    /// Something that was durable before is no longer there.
    pub fn reopened(&mut self, node: NodeId, group: GroupId, found: Reopened<'_>) -> Result<(), Violation> {
        let before = self.held.remove(&(group, node)).filter(|held| held.replica == found.replica);
        let vote = (found.hard_state.term, found.hard_state.vote);
        let mut held = Held {
            replica: found.replica,
            entries: found.entries.iter().map(|entry| (entry.index, lies(entry))).collect(),
            base: found.base,
            vote,
            ..Held::default()
        };
        if let Some(before) = before {
            let last = held.last();
            if last < before.durable {
                return Err(Violation::of(
                    "what is synced survives",
                    format!(
                        "group {group} on node {node}: entry {} was durable, the log ends with {last} now",
                        before.durable
                    ),
                ));
            }
            held.durable = before.durable;
            held.durable_vote = before.durable_vote;
        }
        self.held.insert((group, node), held);
        Ok(())
    }

    /// The node's disk is gone, or another one is in its place: nothing of before is expected of it.
    pub fn lost(&mut self, node: NodeId) {
        self.held.retain(|(_, of), _| *of != node);
    }

    /// The replicas that a node has.
    #[must_use]
    pub fn replicas_on(&self, node: NodeId) -> Vec<(GroupId, ReplicaId)> {
        let held = self.held.iter().filter(|((_, of), _)| *of == node);
        held.map(|((group, _), held)| (*group, held.replica)).collect()
    }

    /// A node has no replica of the group any more.
    pub fn left(&mut self, node: NodeId, group: GroupId) {
        self.held.remove(&(group, node));
    }

    /// Who ever had this entry on disk.
    #[must_use]
    pub fn witnesses(&self, group: GroupId, index: u64, term: u64) -> BTreeSet<ReplicaId> {
        self.witnesses.get(&group).and_then(|of| of.get(&(index, term)).cloned()).unwrap_or_default()
    }

    /// Entries up to here were found committed: nobody will ask who had them.
    pub fn forget_witnesses(&mut self, group: GroupId, index: u64) {
        if let Some(witnesses) = self.witnesses.get_mut(&group) {
            *witnesses = witnesses.split_off(&(index.saturating_add(1), 0));
        }
    }
}

/// What a start found in the raft log.
#[derive(Clone, Copy, Debug)]
pub struct Reopened<'a> {
    /// Which member the node plays.
    pub replica: ReplicaId,
    /// All entries.
    pub entries: &'a [Entry],
    /// Term and vote.
    pub hard_state: &'a HardState,
    /// Last entry of the checkpoint.
    pub base: u64,
}

/// Index for index what the checkers compare.
#[must_use]
pub fn lies(entry: &Entry) -> Lies {
    let mut hash = Xxh3::new();
    hash.update(&protobuf::ProtobufEnum::value(&entry.get_entry_type()).to_le_bytes());
    hash.update(&entry.context);
    hash.update(&[0xff]);
    hash.update(&entry.data);
    Lies { term: entry.term, hash: hash.digest() }
}

#[cfg(test)]
pub(super) fn entry(index: u64, term: u64, data: &'static [u8]) -> Entry {
    Entry { index, term, data: bytes::Bytes::from_static(data), ..Entry::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);
    const NODE: NodeId = NodeId(2);
    const REPLICA: ReplicaId = ReplicaId(3);

    fn write(entries: Vec<Entry>) -> GroupWrite {
        GroupWrite { entries, ..GroupWrite::new(GROUP) }
    }

    /// What is written is durable only once the disk says so, and a truncation takes it back.
    #[test]
    fn an_entry_is_durable_once_synced_and_until_overwritten() {
        let mut logs = RaftLogs::default();
        logs.wrote(NODE, REPLICA, &write(vec![entry(1, 1, b"a"), entry(2, 1, b"b")]));
        assert_eq!(logs.of(NODE, GROUP).unwrap().durable, 0);
        assert!(logs.witnesses(GROUP, 2, 1).is_empty());
        logs.synced(NODE);
        assert_eq!(logs.of(NODE, GROUP).unwrap().durable, 2);
        assert_eq!(logs.witnesses(GROUP, 2, 1), BTreeSet::from([REPLICA]));
        logs.wrote(NODE, REPLICA, &write(vec![entry(2, 2, b"c")]));
        assert_eq!(logs.of(NODE, GROUP).unwrap().durable, 1);
    }

    /// A sync that was promised and lost shows at the next start.
    #[test]
    fn a_log_that_ends_before_what_was_durable_is_a_violation() {
        let mut logs = RaftLogs::default();
        logs.wrote(NODE, REPLICA, &write(vec![entry(1, 1, b"a"), entry(2, 1, b"b")]));
        logs.synced(NODE);
        let hard_state = HardState::default();
        let entries = [entry(1, 1, b"a")];
        let found = Reopened { replica: REPLICA, entries: &entries, hard_state: &hard_state, base: 0 };
        assert!(logs.reopened(NODE, GROUP, found).is_err());
        // Of another replica nothing was expected.
        logs.wrote(NODE, REPLICA, &write(vec![entry(1, 1, b"a"), entry(2, 1, b"b")]));
        logs.synced(NODE);
        let found = Reopened { replica: ReplicaId(9), ..found };
        assert_eq!(logs.reopened(NODE, GROUP, found), Ok(()));
    }
}
