//! One scenario for each row of the table of replica starts, named for it. A row without a scenario fails
//! here, and so does a scenario without a row.

use std::collections::BTreeSet;

use raft::eraftpb::{Entry, HardState};
use tidelog_wire::ids::{NodeId, RaftIndex, ReplicaId, Term};

use super::super::start::table::{TABLE, Verdict};
use super::super::*;
use super::cluster::{Cluster, GROUP, entry};
use super::starts::{halted, stopped};
use crate::raft_log::{GroupWrite, InstallChange, InstallMark, RaftLog};
use crate::votes::Vote;

macro_rules! scenarios {
    ($($row:ident),+) => {
        const SCENARIOS: &[&str] = &[$(stringify!($row)),+];
        mod of_replicas {
            $(
                #[test]
                fn $row() {
                    super::decided_by(stringify!($row), super::$row());
                }
            )+
        }
    };
}

scenarios! {
    log_whole, log_empty, log_marked, log_emptied, log_begins_late, log_ends_early, log_of_other_term,
    log_lost_durable, log_of_other_replica, state_commit_beyond, state_term_behind, vote_later, vote_other, blank,
    blank_vote_lost
}

#[test]
fn every_row_has_its_scenario() {
    let rows: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(rows, SCENARIOS.iter().copied().collect());
}

/// Starts node 0 and holds what becomes of it against the verdict of the row that must decide.
fn decided_by(name: &str, mut cluster: Cluster) {
    let found = cluster.machines[0].found(0).unwrap();
    let row = start::row_of(&found);
    assert_eq!(row.name, name);
    if row.verdict == Verdict::Run {
        cluster.start(0);
        assert!(cluster.halts.is_empty());
        let leader = cluster.elect();
        cluster.propose(leader, 100, "after");
        cluster.run_until("applied here too", |cluster| {
            cluster.texts(0).last().is_some_and(|text| text == "after")
        });
        return;
    }
    let verdict = match halted(cluster) {
        HaltReason::InstallUnfinished { .. } => Verdict::FinishInstall,
        HaltReason::DurableEntryMissing { .. } => Verdict::EntryMissing,
        HaltReason::LogBeginsLate { .. } => Verdict::GapBefore,
        HaltReason::HardStateMismatch { .. } => Verdict::StateMismatch,
        HaltReason::VotesAhead { .. } => Verdict::VoteLost,
        HaltReason::OthersLog { .. } => Verdict::KeepApart,
        other @ (HaltReason::LeaderKnowsMore { .. }
        | HaltReason::CommittedConflict { .. }
        | HaltReason::LogUnreadable { .. }
        | HaltReason::BadMembers { .. }
        | HaltReason::Outside { .. }) => panic!("{other}"),
    };
    assert_eq!(verdict, row.verdict);
}

fn log_whole() -> Cluster {
    stopped()
}

/// A group that was founded and never heard of again.
fn log_empty() -> Cluster {
    let mut cluster = Cluster::new(3, 7);
    cluster.crash(0);
    cluster
}

fn log_marked() -> Cluster {
    let cluster = stopped();
    let mark = InstallMark { index: entry(50, 3).index, term: Term(3), digest: 1 };
    let write = GroupWrite { install: InstallChange::Set(mark), ..GroupWrite::new(GROUP) };
    cluster.machines[0].log.write(&[write], true).unwrap();
    cluster
}

/// Another replica of the group was to begin here, and its node was killed before it began the log anew.
fn log_of_other_replica() -> Cluster {
    let mut cluster = stopped();
    cluster.replace(0, ReplicaId(7));
    let foreign = GroupWrite { replica: Some(ReplicaId(6)), ..GroupWrite::new(GROUP) };
    cluster.machines[0].log.write(&[foreign], true).unwrap();
    cluster
}

/// A replica that was placed here and has nothing yet.
fn blank() -> Cluster {
    let mut cluster = stopped();
    cluster.auto_snapshots = true;
    let leader = cluster.elect();
    cluster.replace(0, ReplicaId(7));
    let add = MemberChange { add: vec![(ReplicaId(7), NodeId(0))], ..MemberChange::default() };
    cluster.change(leader, 90, add);
    cluster.settle();
    cluster
}

/// It saw a term that its raft log has lost.
fn blank_vote_lost() -> Cluster {
    let mut cluster = blank();
    let vote = Vote { group: GROUP, replica: ReplicaId(7), term: Term(5), vote: None };
    cluster.machines[0].votes.insert(GROUP, vote);
    cluster
}

fn log_emptied() -> Cluster {
    let mut cluster = stopped();
    cluster.machines[0].log.clear(GROUP).unwrap();
    cluster.machines[0].checkpoint.last_durable = entry(2, 2);
    cluster
}

fn log_begins_late() -> Cluster {
    let cluster = stopped();
    cluster.machines[0].log.compact(GROUP, RaftIndex(4)).unwrap();
    cluster
}

fn log_ends_early() -> Cluster {
    let mut cluster = stopped();
    let last = cluster.machines[0].log.last(GROUP);
    cluster.machines[0].checkpoint.applied = entry(last + 1, 2);
    cluster.machines[0].checkpoint.last_durable = entry(last + 1, 2);
    cluster
}

fn log_of_other_term() -> Cluster {
    let mut cluster = stopped();
    let term = cluster.machines[0].log.term_at(GROUP, 8).unwrap();
    cluster.machines[0].checkpoint.applied = entry(8, term + 1);
    cluster
}

fn log_lost_durable() -> Cluster {
    let mut cluster = stopped();
    let last = cluster.machines[0].log.last(GROUP);
    let term = cluster.machines[0].log.term_at(GROUP, last).unwrap();
    cluster.machines[0].checkpoint.last_durable = entry(last + 3, term);
    cluster
}

/// The log lost its end, and the hard state remembers that there was more.
fn state_commit_beyond() -> Cluster {
    let cluster = stopped();
    assert!(cluster.machines[0].found(0).unwrap().log.hard_state.commit > 5);
    cluster.machines[0].log.lose_from(GROUP, 5);
    cluster
}

fn state_term_behind() -> Cluster {
    let cluster = stopped();
    let last = cluster.machines[0].log.last(GROUP);
    let entries = vec![Entry { index: last + 1, term: 1000, ..Entry::default() }];
    let hard_state = HardState { term: 999, ..HardState::default() };
    let write = GroupWrite { entries, hard_state: Some(hard_state), ..GroupWrite::new(GROUP) };
    cluster.machines[0].log.write(&[write], true).unwrap();
    cluster
}

/// A log that is gone altogether looks like one that never was, but for the votes file and what was applied.
fn vote_later() -> Cluster {
    let cluster = stopped();
    cluster.machines[0].log.clear(GROUP).unwrap();
    cluster
}

fn vote_other() -> Cluster {
    let mut cluster = stopped();
    let state = cluster.machines[0].found(0).unwrap().log.hard_state;
    let other = ReplicaId(if state.vote == 1 { 2 } else { 1 });
    let vote = Vote { group: GROUP, replica: ReplicaId(1), term: Term(state.term), vote: Some(other) };
    cluster.machines[0].votes.insert(GROUP, vote);
    cluster
}

/// The raft log had been set aside, and of the votes file the pair of this group did not verify: both were gone, no vote was
/// known, and the replica ran and could vote a second time in a term in which it had voted.
#[test]
fn a_replica_that_applied_entries_and_knows_no_term_does_not_run() {
    let mut cluster = stopped();
    cluster.machines[0].log.clear(GROUP).unwrap();
    cluster.machines[0].votes.remove(&GROUP);
    cluster.machines[0].checkpoint.applied = entry(8, 2);
    cluster.machines[0].checkpoint.last_durable = entry(8, 2);
    assert_eq!(start::row_of(&cluster.machines[0].found(0).unwrap()).name, "state_term_behind");
    assert!(matches!(halted(cluster), HaltReason::HardStateMismatch { field: "term", .. }));
}

/// `docs/recovery.md` shows the table row by row: those of the code, and no others.
#[test]
fn the_documentation_shows_the_same_rows() {
    let any = |all: bool, shown: String| if all { "any".to_owned() } else { shown };
    let rows: Vec<String> = TABLE
        .iter()
        .map(|row| {
            let state = any(row.state.len() == 3, format!("{:?}", row.state));
            let voted = any(row.voted.len() == 3, format!("{:?}", row.voted));
            format!("| {} | {:?} | {state} | {voted} | {:?} |", row.name, row.join, row.verdict)
        })
        .collect();
    let text = include_str!("../../../../docs/recovery.md");
    let is_row =
        |line: &&str| ["| log_", "| state_", "| vote_", "| blank"].iter().any(|name| line.starts_with(name));
    let shown: Vec<&str> = text.lines().filter(is_row).collect();
    assert_eq!(shown, rows, "as they should be:\n{}", rows.join("\n"));
}
