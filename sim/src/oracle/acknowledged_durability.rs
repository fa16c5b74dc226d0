//! **Acknowledged durability**: what is committed lies on the disks of a quorum, and an acknowledged batch is read back
//! at its offset for as long as its log keeps it.
//!
//! The promise that this project is for (ARCHITECTURE.md: *acknowledged means fsynced on a quorum*). Three looks:
//! 1. An answer that says "I have up to here" leaves a node only when its disk does: such answers make a quorum.
//! 2. When an entry is applied anywhere for the first time, a majority of the voters must have had it on disk. Not the
//!    core is asked, but what lies in the raft logs ([`super::raft_logs`]).
//! 3. What clients were told is compared with all that is ever read, and at the end everything must be there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::eraftpb::{Message, MessageType};
use tidelog_engine::checkpoint::{EntryId, Members};
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset, ReplicaId};

use super::Violation;
use super::history::{BatchName, History, Read};
use super::raft_logs::{Held, RaftLogs};

const PROPERTY: &str = "acknowledged durability";
/// A follower may apply an entry under members that came after those which committed it.
const MEMBERS_KEPT: usize = 4;

/// Where an acknowledged batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stands {
    /// Its first offset.
    pub first: Offset,
    /// Its last offset.
    pub last: Offset,
    /// Hash of what its producer vouched for: the bytes that no node may change.
    pub content: u64,
}

impl Stands {
    fn is(&self, name: BatchName, read: &Read) -> bool {
        read.name == Some(name) && read.last == self.last && read.content == self.content
    }
}

/// Who counts in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quorum {
    /// The voters.
    pub voters: BTreeSet<ReplicaId>,
    /// While they change, also a majority of these is needed.
    pub outgoing: BTreeSet<ReplicaId>,
}

impl From<&Members> for Quorum {
    fn from(members: &Members) -> Self {
        let set = |of: &[ReplicaId]| of.iter().copied().collect();
        Self { voters: set(&members.voters), outgoing: set(&members.outgoing) }
    }
}

impl Quorum {
    fn is_met_by(&self, have: &BTreeSet<ReplicaId>) -> bool {
        let half = |of: &BTreeSet<ReplicaId>| of.is_empty() || of.intersection(have).count() > of.len() / 2;
        !self.voters.is_empty() && half(&self.voters) && half(&self.outgoing)
    }
}

/// All acknowledgements of a run, and who counts.
#[derive(Debug, Default)]
pub struct AcknowledgedDurability {
    batches: BTreeMap<LogId, BTreeMap<BatchName, Stands>>,
    by_offset: BTreeMap<LogId, BTreeMap<Offset, BatchName>>,
    quorums: BTreeMap<GroupId, VecDeque<Quorum>>,
    count: u64,
}

impl AcknowledgedDurability {
    /// These count in `group` from the beginning, as far as nobody said otherwise.
    pub fn begins(&mut self, group: GroupId, quorum: Quorum) {
        self.quorums.entry(group).or_insert_with(|| VecDeque::from([quorum]));
    }

    /// From now on these count in `group`.
    pub fn members(&mut self, group: GroupId, quorum: Quorum) {
        let known = self.quorums.entry(group).or_default();
        if known.back() != Some(&quorum) {
            known.push_back(quorum);
        }
        if known.len() > MEMBERS_KEPT {
            known.pop_front();
        }
    }

    /// `message` leaves `node`, whose raft log holds `log`.
    ///
    /// # Errors
    /// It claims entries that a power cut would take back.
    pub fn sent(
        &self,
        node: NodeId,
        group: GroupId,
        message: &Message,
        log: Option<&Held>,
    ) -> Result<(), Violation> {
        if message.get_msg_type() != MessageType::MsgAppendResponse || message.reject {
            return Ok(());
        }
        let durable = log.map_or(0, |log| log.durable.max(log.base));
        if message.index <= durable {
            return Ok(());
        }
        Err(Violation::of(
            PROPERTY,
            format!(
                "group {group}: replica {} says that it has entry {}, the disk of node {node} holds up to {durable}",
                message.from, message.index
            ),
        ))
    }

    /// The entry was applied for the first time, so it is committed.
    ///
    /// # Errors
    /// Too few have it.
    pub fn committed(&self, group: GroupId, entry: EntryId, logs: &RaftLogs) -> Result<(), Violation> {
        let have = logs.witnesses(group, entry.index.get(), entry.term.get());
        let Some(quorums) = self.quorums.get(&group) else { return Ok(()) };
        if quorums.iter().any(|quorum| quorum.is_met_by(&have)) {
            return Ok(());
        }
        Err(Violation::of(
            PROPERTY,
            format!(
                "group {group}: entry {entry} is applied, and lies on the disks of replicas {have:?} only; {:?} count",
                quorums.back()
            ),
        ))
    }

    /// A client was told that its batch stands at these offsets.
    ///
    /// # Errors
    /// It contradicts another acknowledgement, or something that was read.
    pub fn acknowledged(
        &mut self,
        log: LogId,
        name: BatchName,
        stands: Stands,
        history: &History,
    ) -> Result<(), Violation> {
        let broken = |seen: String| Err(Violation::of(PROPERTY, seen));
        let before = self.batches.entry(log).or_default().insert(name, stands);
        if let Some(before) = before.filter(|before| *before != stands) {
            return broken(format!("log {log}: {name:?} acknowledged as {before:?}, then as {stands:?}"));
        }
        self.by_offset.entry(log).or_default().insert(stands.first, name);
        self.count = self.count.saturating_add(1);
        match history.at(log, stands.first).filter(|read| !stands.is(name, read)) {
            Some(read) => {
                broken(format!("log {log}: {name:?} acknowledged as {stands:?}, where {read:?} was read"))
            }
            None => Ok(()),
        }
    }

    /// This was read.
    ///
    /// # Errors
    /// Something else was acknowledged there.
    pub fn read(&self, log: LogId, read: &Read) -> Result<(), Violation> {
        let acknowledged = self.by_offset.get(&log).and_then(|names| names.get(&read.first));
        let stands = acknowledged.and_then(|name| Some((*name, *self.batches.get(&log)?.get(name)?)));
        match stands.filter(|(name, stands)| !stands.is(*name, read)) {
            None => Ok(()),
            Some((name, stands)) => Err(Violation::of(
                PROPERTY,
                format!("log {log}: {name:?} was acknowledged as {stands:?}, {read:?} is read there"),
            )),
        }
    }

    /// One past the last offset acknowledged in a log so far.
    #[must_use]
    pub fn end(&self, log: LogId) -> Offset {
        let last = self.batches.get(&log).and_then(|batches| batches.values().map(|at| at.last).max());
        last.map_or(Offset(0), |last| last.plus(1))
    }

    /// How many batches were acknowledged, repetitions included.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The whole log was read, from `start` to `end`, and is in `history`: nothing acknowledged may be missing.
    ///
    /// # Errors
    /// Something is.
    pub fn all_read(
        &self,
        log: LogId,
        start: Offset,
        end: Offset,
        history: &History,
    ) -> Result<(), Violation> {
        for (name, stands) in self.batches.get(&log).into_iter().flatten() {
            if stands.first < start {
                continue;
            }
            let read = history.at(log, stands.first).filter(|_| stands.last < end);
            if !read.is_some_and(|read| stands.is(*name, &read)) {
                return Err(Violation::of(
                    PROPERTY,
                    format!(
                        "log {log}, read from {start} to {end}: {name:?}, acknowledged as {stands:?}, is {read:?}"
                    ),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tidelog_consensus::raft_log::GroupWrite;
    use tidelog_wire::ids::{Generation, Partition, RaftIndex, Term};

    use super::super::history::example;
    use super::super::raft_logs::entry;
    use super::*;

    const GROUP: GroupId = GroupId(1);
    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    fn stands(read: &Read) -> Stands {
        Stands { first: read.first, last: read.last, content: read.content }
    }

    #[test]
    fn an_entry_that_is_applied_before_a_quorum_has_it_on_disk_is_a_violation() {
        let mut checker = AcknowledgedDurability::default();
        let voters = [1, 2, 3].map(ReplicaId).into();
        checker.members(GROUP, Quorum { voters, outgoing: BTreeSet::new() });
        let mut logs = RaftLogs::default();
        let at = EntryId { index: RaftIndex(1), term: Term(1) };
        for (node, replica) in [(0, 1), (1, 2)] {
            let write = GroupWrite { entries: vec![entry(1, 1, b"a")], ..GroupWrite::new(GROUP) };
            logs.wrote(NodeId(node), ReplicaId(replica), &write);
        }
        logs.synced(NodeId(0));
        assert!(checker.committed(GROUP, at, &logs).is_err(), "the second copy is in a cache");
        logs.synced(NodeId(1));
        assert_eq!(checker.committed(GROUP, at, &logs), Ok(()));
        let outgoing = [4, 5, 6].map(ReplicaId).into();
        let mut joint = AcknowledgedDurability::default();
        joint.members(GROUP, Quorum { voters: [1, 2, 3].map(ReplicaId).into(), outgoing });
        assert!(joint.committed(GROUP, at, &logs).is_err(), "nobody of those who leave has it");
    }

    #[test]
    fn an_answer_that_claims_what_is_not_on_disk_is_a_violation() {
        let checker = AcknowledgedDurability::default();
        let mut message = Message { from: 1, index: 5, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppendResponse);
        let held = |durable| Held { durable, ..Held::default() };
        assert_eq!(checker.sent(NodeId(0), GROUP, &message, Some(&held(5))), Ok(()));
        assert!(checker.sent(NodeId(0), GROUP, &message, Some(&held(4))).is_err());
        assert!(checker.sent(NodeId(0), GROUP, &message, None).is_err());
    }

    #[test]
    fn an_acknowledged_batch_that_is_not_read_back_is_a_violation() {
        let mut checker = AcknowledgedDurability::default();
        let mut history = History::default();
        let (read, other) = (example(1, 0, 0, 3), example(2, 0, 0, 3));
        let name = read.name.unwrap();
        assert_eq!(checker.acknowledged(LOG, name, stands(&read), &history), Ok(()));
        assert!(checker.all_read(LOG, Offset(0), Offset(4), &history).is_err(), "nothing is there");
        assert_eq!(checker.all_read(LOG, Offset(4), Offset(4), &history), Ok(()), "it was trimmed");
        assert!(checker.read(LOG, &other).is_err(), "another batch is there");
        history.note(LOG, read);
        assert_eq!(checker.all_read(LOG, Offset(0), Offset(4), &history), Ok(()));
        assert!(checker.all_read(LOG, Offset(0), Offset(2), &history).is_err(), "the log ends before it");
        let elsewhere = Stands { first: Offset(8), ..stands(&read) };
        assert!(checker.acknowledged(LOG, name, elsewhere, &history).is_err(), "acknowledged twice");
        let taken = other.name.unwrap();
        assert!(checker.acknowledged(LOG, taken, stands(&other), &history).is_err(), "it was read otherwise");
    }
}
