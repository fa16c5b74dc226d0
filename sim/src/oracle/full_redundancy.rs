//! **Eventual full redundancy**: once faults end, every record is soon as often there as it should be.
//!
//! The liveness to all the safety beside it (B. Alpern and F. Schneider, "Defining Liveness", 1985): after the storm
//! everything is healed, and within a bounded virtual time every group must lead, every replica that is intended must be a
//! member that has applied everything, and all replicas must be the same, file by file.
//!
//! It is shown each replica again and again until nothing is missing or time is over; then all machines and files.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset, RaftIndex, ReplicaId, Term};
use xxhash_rust::xxh3::xxh3_64;

use super::Violation;

const PROPERTY: &str = "eventual full redundancy";

/// A replica as it is seen once faults are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its group.
    pub group: GroupId,
    /// Its node.
    pub node: NodeId,
    /// Its id.
    pub replica: ReplicaId,
    /// Whether it is a voter, as it believes itself.
    pub voter: bool,
    /// Who leads, as it believes.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: Term,
    /// The last entry of its raft log.
    pub last: RaftIndex,
    /// The last entry that its machine has applied.
    pub applied: RaftIndex,
    /// Why it does not take part, if so.
    pub halted: Option<String>,
}

/// Which replicas a group is to have, and which of them vote.
pub type Intent = BTreeMap<GroupId, BTreeMap<ReplicaId, Wanted>>;

/// Where a replica is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// On which node.
    pub node: NodeId,
    /// Whether it is to vote.
    pub voter: bool,
}

/// What is still missing: `None` once everything is as intended.
#[must_use]
pub fn missing(intent: &Intent, looks: &[Look]) -> Option<String> {
    let mut first: BTreeMap<GroupId, &Look> = BTreeMap::new();
    for (group, replicas) in intent {
        for (replica, wanted) in replicas {
            let look = looks.iter().find(|look| look.group == *group && look.replica == *replica);
            let Some(look) = look.filter(|look| look.node == wanted.node) else {
                return Some(format!("group {group} has no replica {replica} on node {}", wanted.node));
            };
            if let Some(gap) = missing_of(look, *wanted) {
                return Some(gap);
            }
            let other = first.entry(*group).or_insert(look);
            if (other.last, other.term, other.leader) != (look.last, look.term, look.leader) {
                return Some(format!("replicas differ: {other:?}, {look:?}"));
            }
        }
    }
    let wanted: BTreeSet<_> =
        intent.iter().flat_map(|(group, all)| all.keys().map(|replica| (*group, *replica))).collect();
    let surplus = looks.iter().find(|look| !wanted.contains(&(look.group, look.replica)));
    surplus.map(|look| format!("nobody wants this replica any more: {look:?}"))
}

fn missing_of(look: &Look, wanted: Wanted) -> Option<String> {
    if look.halted.is_some() {
        Some(format!("a replica does not take part: {look:?}"))
    } else if look.leader.is_none() {
        Some(format!("a replica knows no leader: {look:?}"))
    } else if look.voter != wanted.voter {
        Some(format!("a replica is not what it should be, {wanted:?}: {look:?}"))
    } else if look.applied != look.last {
        Some(format!("a replica has not applied everything: {look:?}"))
    } else {
        None
    }
}

/// Compares replicas that have applied the same.
#[derive(Debug, Default)]
pub struct Comparison {
    machines: BTreeMap<GroupId, (NodeId, u64)>,
    files: BTreeMap<(LogId, Offset), (NodeId, u64, usize)>,
    /// Where each log begins and ends.
    logs: BTreeMap<LogId, (NodeId, Offset, Offset)>,
}

impl Comparison {
    /// The machine's state on `node`.
    ///
    /// # Errors
    /// It differs from another node's.
    pub fn machine(&mut self, node: NodeId, group: GroupId, hash: u64) -> Result<(), Violation> {
        let first = *self.machines.entry(group).or_insert((node, hash));
        if first.1 == hash {
            return Ok(());
        }
        Err(Violation::of(
            PROPERTY,
            format!("group {group}: the machines of nodes {} and {node} differ", first.0),
        ))
    }

    /// A segment file on `node`, sealed or not.
    ///
    /// # Errors
    /// It differs from another node's. That a trimmed one is gone on one node and not yet on another is legal.
    pub fn file(&mut self, node: NodeId, log: LogId, base: Offset, bytes: &[u8]) -> Result<(), Violation> {
        let (hash, len) = (xxh3_64(bytes), bytes.len());
        let first = *self.files.entry((log, base)).or_insert((node, hash, len));
        if first.1 == hash {
            return Ok(());
        }
        Err(Violation::of(
            PROPERTY,
            format!(
                "log {log}, segment {base}: {} bytes on node {}, other {len} on node {node}",
                first.2, first.0
            ),
        ))
    }

    /// A log's range on `node`.
    ///
    /// # Errors
    /// It differs from another node's.
    pub fn log(&mut self, node: NodeId, log: LogId, start: Offset, end: Offset) -> Result<(), Violation> {
        let first = *self.logs.entry(log).or_insert((node, start, end));
        if (first.1, first.2) == (start, end) {
            return Ok(());
        }
        Err(Violation::of(
            PROPERTY,
            format!("log {log}: {}..{} on node {}, {start}..{end} on node {node}", first.1, first.2, first.0),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    const GROUP: GroupId = GroupId(1);
    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    fn look(node: u64) -> Look {
        Look {
            group: GROUP,
            node: NodeId(node),
            replica: ReplicaId(node + 1),
            voter: true,
            leader: Some(NodeId(0)),
            term: Term(3),
            last: RaftIndex(9),
            applied: RaftIndex(9),
            halted: None,
        }
    }

    fn intent() -> Intent {
        let wanted =
            [0, 1].map(|node| (ReplicaId(node + 1), Wanted { node: NodeId(node), voter: true })).into();
        Intent::from([(GROUP, wanted)])
    }

    #[test]
    fn whatever_is_missing_is_named() {
        let whole = [look(0), look(1)];
        assert_eq!(missing(&intent(), &whole), None);
        let broken: [fn(&mut Look); 7] = [
            |look| look.leader = None,
            |look| look.voter = false,
            |look| look.applied = RaftIndex(8),
            |look| look.halted = Some("it forgot".to_owned()),
            |look| look.term = Term(4),
            |look| (look.last, look.applied) = (RaftIndex(8), RaftIndex(8)),
            |look| look.replica = ReplicaId(7),
        ];
        for break_it in broken {
            let mut other = look(1);
            break_it(&mut other);
            assert!(missing(&intent(), &[look(0), other.clone()]).is_some(), "{other:?}");
        }
        assert!(missing(&intent(), &[look(0)]).is_some(), "one is not there");
        assert!(missing(&intent(), &[look(0), look(1), look(2)]).is_some(), "one is too many");
    }

    #[test]
    fn replicas_that_differ_are_a_violation() {
        let mut checker = Comparison::default();
        assert_eq!(checker.machine(NodeId(0), GROUP, 1), Ok(()));
        assert_eq!(checker.machine(NodeId(1), GROUP, 1), Ok(()));
        assert!(checker.machine(NodeId(2), GROUP, 2).is_err());
        assert_eq!(checker.file(NodeId(0), LOG, Offset(0), b"abc"), Ok(()));
        assert!(checker.file(NodeId(1), LOG, Offset(0), b"abd").is_err());
        assert_eq!(checker.log(NodeId(0), LOG, Offset(0), Offset(4)), Ok(()));
        assert!(checker.log(NodeId(1), LOG, Offset(0), Offset(3)).is_err());
    }
}
