//! Snapshots as the core sees them: offers, staging, the switch.

use tidelog_wire::ids::{RaftIndex, Term};

use super::super::*;
use super::cluster::{Cluster, GROUP, entry};

/// A leader that has compacted what a stopped follower needs.
fn left_behind() -> (Cluster, usize, usize) {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    let sleeper = (leader + 1) % 3;
    cluster.crash(sleeper);
    for number in 0..40 {
        cluster.propose(leader, number, "while it slept");
    }
    cluster.settle();
    assert_eq!(cluster.acked.len(), 40);
    let newest = EntryId {
        index: RaftIndex(30),
        term: Term(cluster.machines[leader].log.term_at(GROUP, 30).unwrap()),
    };
    cluster.input(leader, Input::Checkpointed { group: GROUP, newest, compact_to: RaftIndex(20) });
    cluster.start(sleeper);
    (cluster, leader, sleeper)
}

fn offer(cluster: &mut Cluster, leader: usize) {
    offer_as(cluster, leader, 0xfeed);
}

fn offer_as(cluster: &mut Cluster, leader: usize, digest: u64) {
    cluster
        .run_until("an export is asked for", |cluster| !cluster.machines[leader].effects.exports.is_empty());
    let term = Term(cluster.machines[leader].log.term_at(GROUP, 30).unwrap());
    let offer = SnapshotOffer {
        snapshot: EntryId { index: RaftIndex(30), term },
        digest,
        manifest_bytes: 1_234,
        members: super::cluster::genesis(3).members,
    };
    cluster.input(leader, Input::SnapshotExported { group: GROUP, offer });
}

#[test]
fn a_follower_whose_log_is_gone_at_the_leader_is_refilled_by_a_snapshot() {
    let (mut cluster, leader, sleeper) = left_behind();
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let fetch = cluster.machines[sleeper].effects.fetches[0];
    assert_eq!((fetch.digest, fetch.manifest_bytes, fetch.snapshot.index), (0xfeed, 1_234, RaftIndex(30)));
    assert_eq!(cluster.status(sleeper).snapshot, SnapshotPhase::Fetching);

    let staged = Input::SnapshotStaged { group: GROUP, snapshot: fetch.snapshot, result: Staged::Ready };
    cluster.input(sleeper, staged);
    assert_eq!(cluster.status(sleeper).snapshot, SnapshotPhase::Installing);
    // Nothing is acknowledged, and nothing is done, before the switch is reported.
    for _ in 0..100 {
        cluster.tick_all();
        cluster.settle();
    }
    assert_eq!(cluster.status(sleeper).role, Role::Follower);
    let seen = cluster
        .status(leader)
        .peers
        .iter()
        .find(|peer| peer.replica.get() == u64::try_from(sleeper).unwrap() + 1)
        .unwrap()
        .matched;
    assert!(seen < RaftIndex(30));

    cluster.install(sleeper);
    cluster
        .run_until("caught up", |cluster| cluster.status(sleeper).applied == cluster.status(leader).applied);
    assert_eq!(cluster.status(sleeper).first, RaftIndex(31));
    assert!(
        cluster.halts.is_empty()
            && cluster
                .refusals
                .iter()
                .all(|refused| matches!(refused.reason, MessageRefusal::NotTaking { .. }))
    );
}

#[test]
fn a_failed_fetch_is_offered_again() {
    let (mut cluster, leader, sleeper) = left_behind();
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let fetch = cluster.machines[sleeper].effects.fetches.remove(0);
    let failed = Input::SnapshotStaged { group: GROUP, snapshot: fetch.snapshot, result: Staged::Failed };
    cluster.input(sleeper, failed);
    cluster.run_until("offered again", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
}

#[test]
fn a_follower_that_restarts_before_the_switch_has_its_old_state() {
    let (mut cluster, leader, sleeper) = left_behind();
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let fetch = cluster.machines[sleeper].effects.fetches.remove(0);
    cluster.auto_persist = false;
    let staged = Input::SnapshotStaged { group: GROUP, snapshot: fetch.snapshot, result: Staged::Ready };
    cluster.input(sleeper, staged);
    cluster.crash(sleeper);
    cluster.auto_persist = true;
    cluster.machines[sleeper].effects = Effects::default();
    cluster.start(sleeper);
    assert!(cluster.halts.is_empty());
    cluster.run_until("offered again", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
}

#[test]
fn a_follower_that_restarts_after_the_mark_must_finish_the_switch_first() {
    let (mut cluster, leader, sleeper) = left_behind();
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let fetch = cluster.machines[sleeper].effects.fetches.remove(0);
    let staged = Input::SnapshotStaged { group: GROUP, snapshot: fetch.snapshot, result: Staged::Ready };
    cluster.input(sleeper, staged);
    cluster.crash(sleeper);
    cluster.start(sleeper);
    assert!(matches!(cluster.halts[0].reason, HaltReason::InstallUnfinished { .. }));
}

#[test]
fn while_a_snapshot_is_on_its_way_the_leader_keeps_the_entries_behind_it() {
    let (mut cluster, leader, sleeper) = left_behind();
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    cluster.tick_all();
    cluster
        .input(leader, Input::Checkpointed { group: GROUP, newest: entry(40, 2), compact_to: RaftIndex(40) });
    assert_eq!(cluster.status(leader).first, RaftIndex(31));
}

/// The switch clears the raft log and writes the hard state of its beginning. A term that rose meanwhile
/// would be in the votes file and no longer in the log, which the next start would take for amnesia.
#[test]
fn no_term_rises_while_a_snapshot_is_being_switched_to() {
    let (mut cluster, leader, sleeper) = left_behind();
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let fetch = cluster.machines[sleeper].effects.fetches[0];
    let staged = Input::SnapshotStaged { group: GROUP, snapshot: fetch.snapshot, result: Staged::Ready };
    cluster.input(sleeper, staged);
    let before = cluster.status(sleeper);
    cluster.input(leader, Input::TransferLeader { group: GROUP, to: None });
    for _ in 0..200 {
        cluster.tick_all();
        cluster.settle();
    }
    assert!(cluster.leader().is_some_and(|new| new != leader), "with a new term");
    assert_eq!(cluster.status(sleeper).term, before.term);
    assert!(cluster.machines[sleeper].persists.is_empty());
    cluster.install(sleeper);
    cluster.elect();
    cluster.crash(sleeper);
    cluster.start(sleeper);
    assert!(cluster.halts.is_empty(), "{:?}", cluster.halts);
}

/// Hands leadership to the other node that is awake, and says which that is.
fn another_leads(cluster: &mut Cluster, leader: usize, sleeper: usize) -> usize {
    cluster.input(leader, Input::TransferLeader { group: GROUP, to: None });
    let other = 3 - leader - sleeper;
    cluster.run_until("another leads", |cluster| cluster.leader() == Some(other));
    other
}

/// While its files were fetched the follower got further by the log: it may hold generations that the snapshot does not
/// name, because they are newer. It must not be thrown back, and what was held for the fetch is let go.
#[test]
fn a_follower_that_holds_a_newer_generation_than_the_snapshot_names_keeps_it() {
    let (mut cluster, leader, sleeper) = left_behind();
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let fetch = cluster.machines[sleeper].effects.fetches.remove(0);
    // The new leader has forgotten nothing, so it sends entries.
    let new = another_leads(&mut cluster, leader, sleeper);
    cluster.run_until("caught up by the log", |cluster| {
        cluster.status(sleeper).applied == cluster.status(new).applied
    });
    let staged = Input::SnapshotStaged { group: GROUP, snapshot: fetch.snapshot, result: Staged::Ready };
    let before = cluster.status(sleeper).applied;
    cluster.input(sleeper, staged);
    let status = cluster.status(sleeper);
    assert_eq!((status.snapshot, status.applied), (SnapshotPhase::None, before));
    assert!(cluster.machines[sleeper].effects.installs.is_empty());
    assert_eq!(cluster.machines[sleeper].effects.abandoned, [GROUP]);
}

/// The leader that made an offer is replaced while its files are fetched. Nobody would take that snapshot from it any
/// more, so the fetch goes on with what the new leader offers, instead of finishing in vain first.
#[test]
fn an_offer_of_a_newer_leader_takes_the_place_of_the_older_one() {
    let (mut cluster, leader, sleeper) = left_behind();
    let other = 3 - leader - sleeper;
    let newest = entry(30, cluster.machines[leader].log.term_at(GROUP, 30).unwrap());
    cluster.input(other, Input::Checkpointed { group: GROUP, newest, compact_to: RaftIndex(20) });
    offer(&mut cluster, leader);
    cluster.run_until("the offer arrives", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let first = cluster.machines[sleeper].effects.fetches.remove(0);
    let new = another_leads(&mut cluster, leader, sleeper);
    offer_as(&mut cluster, new, 0xbeef);
    cluster.run_until("the newer offer", |cluster| !cluster.machines[sleeper].effects.fetches.is_empty());
    let second = cluster.machines[sleeper].effects.fetches.remove(0);
    assert_eq!((first.digest, second.digest), (0xfeed, 0xbeef));
    let staged = Input::SnapshotStaged { group: GROUP, snapshot: second.snapshot, result: Staged::Ready };
    cluster.input(sleeper, staged);
    assert_eq!(cluster.status(sleeper).snapshot, SnapshotPhase::Installing);
}
