//! What a start accepts, and what becomes of a replica that it does not. The evidence itself: [`rows`](super::rows).

use tidelog_wire::ids::ReplicaId;

use super::super::*;
use super::cluster::{Cluster, GROUP, entry};
use crate::raft_log::RaftLog;

/// A cluster that has committed ten records, with node 0 stopped.
pub(super) fn stopped() -> Cluster {
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

pub(super) fn halted(mut cluster: Cluster) -> HaltReason {
    cluster.start(0);
    assert_eq!(cluster.status(0).role, Role::Halted);
    cluster.halts.remove(0).reason
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
fn members_that_contradict_are_refused() {
    let mut cluster = stopped();
    cluster.machines[0].checkpoint.members.learners = vec![ReplicaId(2)];
    assert!(matches!(halted(cluster), HaltReason::BadMembers { .. }));
}

/// Two voters became one, and both had the entry. The one that stays was killed before it kept that the change was
/// committed, so it still needs the vote of the one that went, whose checkpoint names it no more.
#[test]
fn a_removed_replica_that_starts_again_still_votes_for_whoever_does_not_know_it() {
    let mut cluster = stopped();
    cluster.machines[0].checkpoint.members.voters = vec![ReplicaId(2), ReplicaId(3)];
    cluster.start(0);
    assert_eq!(cluster.status(0).role, Role::Removed);
    (1..3).for_each(|node| cluster.crash(node));
    cluster.start(1);
    cluster.run_until("elected by itself and the removed one", |cluster| cluster.leader() == Some(1));
    assert_ne!(cluster.status(0).role, Role::Leader);
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
