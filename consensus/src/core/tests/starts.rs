//! What a start accepts, and each kind of evidence that keeps a replica from taking part.

use raft::eraftpb::{Entry, HardState};
use tidelog_wire::ids::{ReplicaId, Term};

use super::super::*;
use super::cluster::{Cluster, GROUP, entry};
use crate::raft_log::{GroupWrite, InstallChange, InstallMark, RaftLog};

/// A cluster that has committed ten records, with node 0 stopped.
fn stopped() -> Cluster {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    for number in 0..10 {
        cluster.propose(leader, number, "kept");
        cluster.settle();
    }
    cluster.run_until("applied by all", |cluster| (0..3).all(|node| cluster.texts(node).len() == 10));
    cluster.crash(0);
    cluster
}

fn halted(mut cluster: Cluster) -> HaltReason {
    cluster.start(0);
    assert_eq!(cluster.status(0).role, Role::Halted);
    cluster.halts.remove(0).reason
}

#[test]
fn a_log_that_lost_its_end_below_the_hard_state_is_noticed() {
    let cluster = stopped();
    let commit = cluster.machines[0].log.load(GROUP).unwrap().hard_state.commit;
    assert!(commit > 5);
    cluster.machines[0].log.lose_from(GROUP, 5);
    assert!(matches!(halted(cluster), HaltReason::HardStateMismatch { field: "commit", .. }));
}

#[test]
fn a_log_that_was_emptied_is_noticed_by_the_votes() {
    let cluster = stopped();
    cluster.machines[0].log.clear(GROUP).unwrap();
    assert!(matches!(halted(cluster), HaltReason::VotesAhead { log_term: Term(0), .. }));
}

#[test]
fn a_checkpoint_ahead_of_the_log_is_noticed() {
    let mut cluster = stopped();
    let last = cluster.machines[0].log.last(GROUP);
    cluster.machines[0].checkpoint.applied = entry(last + 1, 2);
    cluster.machines[0].checkpoint.last_durable = entry(last + 1, 2);
    assert!(matches!(halted(cluster), HaltReason::DurableEntryMissing { .. }));
}

#[test]
fn a_durable_entry_that_nobody_replaced_and_that_is_gone_is_noticed() {
    let mut cluster = stopped();
    let last = cluster.machines[0].log.last(GROUP);
    let term = cluster.machines[0].log.term_at(GROUP, last).unwrap();
    cluster.machines[0].checkpoint.last_durable = entry(last + 3, term);
    assert!(matches!(halted(cluster), HaltReason::DurableEntryMissing { .. }));
}

#[test]
fn a_durable_entry_replaced_by_a_later_term_is_no_evidence() {
    let mut cluster = stopped();
    let last = cluster.machines[0].log.last(GROUP);
    let term = cluster.machines[0].log.term_at(GROUP, last).unwrap();
    cluster.machines[0].checkpoint.last_durable = entry(last + 3, term - 1);
    cluster.start(0);
    assert!(cluster.halts.is_empty());
}

#[test]
fn a_log_that_begins_behind_the_checkpoint_is_noticed() {
    let cluster = stopped();
    cluster.machines[0].log.compact(GROUP, tidelog_wire::ids::RaftIndex(4)).unwrap();
    assert!(matches!(halted(cluster), HaltReason::LogBeginsLate { .. }));
}

#[test]
fn an_unfinished_installation_comes_first() {
    let cluster = stopped();
    let mark = InstallMark { index: entry(50, 3).index, term: Term(3), digest: 1 };
    let write = GroupWrite { install: InstallChange::Set(mark), ..GroupWrite::new(GROUP) };
    cluster.machines[0].log.write(&[write], true).unwrap();
    assert!(matches!(halted(cluster), HaltReason::InstallUnfinished { .. }));
}

#[test]
fn members_without_this_replica_are_refused() {
    let mut cluster = stopped();
    cluster.machines[0].checkpoint.voters = vec![ReplicaId(2), ReplicaId(3)];
    assert!(matches!(halted(cluster), HaltReason::BadMembers { .. }));
}

#[test]
fn a_halted_replica_neither_votes_nor_acknowledges_and_the_others_go_on() {
    let mut cluster = stopped();
    cluster.machines[0].log.clear(GROUP).unwrap();
    cluster.start(0);
    let leader = cluster.elect();
    cluster.propose(leader, 100, "without it");
    cluster.run_until("acknowledged", |cluster| cluster.acked.contains_key(&Token(100)));
    assert!(cluster.machines[0].persists.is_empty() && cluster.texts(0).is_empty());
    cluster.input(0, Input::Propose { group: GROUP, token: Token(101), entry: Proposal::default() });
    assert_eq!(cluster.replies[&Token(101)], Answer::Failed(ProposeFailure::NotReady));
}

#[test]
fn a_log_compacted_below_the_checkpoint_starts_with_its_first_entry_as_base() {
    let mut cluster = stopped();
    let term = cluster.machines[0].log.term_at(GROUP, 8).unwrap();
    cluster.machines[0].checkpoint.applied = entry(8, term);
    cluster.machines[0].log.compact(GROUP, tidelog_wire::ids::RaftIndex(4)).unwrap();
    cluster.start(0);
    assert!(cluster.halts.is_empty());
    assert_eq!(cluster.status(0).first.get(), 5);
    cluster.run_until("caught up", |cluster| cluster.status(0).applied == cluster.status(1).applied);
}

#[test]
fn settings_out_of_range_are_named() {
    let log: std::sync::Arc<dyn RaftLog> = std::sync::Arc::new(super::mem_log::MemLog::default());
    let config = CoreConfig {
        node: tidelog_wire::ids::NodeId(0),
        boot: tidelog_wire::ids::BootEpoch(1),
        groups: Vec::new(),
        ticks: Ticks { election_min: 1, ..Ticks::default() },
        limits: CoreLimits::default(),
        seed: 0,
    };
    assert!(matches!(NodeCore::new(config, &log), Err(CoreError::BadSetting { found: 1, .. })));
}

#[test]
fn a_hard_state_older_than_its_entries_is_noticed() {
    let cluster = stopped();
    let last = cluster.machines[0].log.last(GROUP);
    let entries = vec![Entry { index: last + 1, term: 1000, ..Entry::default() }];
    let hard_state = HardState { term: 999, ..HardState::default() };
    let write = GroupWrite { entries, hard_state: Some(hard_state), ..GroupWrite::new(GROUP) };
    cluster.machines[0].log.write(&[write], true).unwrap();
    assert!(matches!(halted(cluster), HaltReason::HardStateMismatch { field: "term", .. }));
}
