//! Groups that sleep: when they do, what wakes them, and that nothing is lost by it.

use raft::eraftpb::MessageType;
use tidelog_wire::ids::{NodeId, ReplicaId};

use super::super::*;
use super::cluster::{Cluster, GROUP};
use super::members::{adds, node};

fn asleep(cluster: &Cluster) -> bool {
    cluster
        .machines
        .iter()
        .flat_map(|machine| &machine.core)
        .all(|core| core.status(GROUP).is_some_and(|status| status.quiet))
}

/// Three voters with records, all of them asleep.
fn sleeping() -> (Cluster, usize) {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.propose(leader, 1, "before");
    cluster.run_until("asleep", asleep);
    (cluster, leader)
}

#[test]
fn a_group_without_work_falls_asleep_and_then_says_nothing_whatever_time_passes() {
    let (mut cluster, leader) = sleeping();
    let term = cluster.status(leader).term;
    cluster.wire.clear();
    for _ in 0..1_000 {
        cluster.tick_all();
        assert!(cluster.wire.is_empty(), "{:?}", cluster.wire);
    }
    assert_eq!(cluster.leader(), Some(leader));
    assert_eq!(cluster.status(leader).term, term);
}

#[test]
fn a_record_wakes_all_and_is_acknowledged_as_fast_as_ever() {
    let (mut cluster, leader) = sleeping();
    cluster.propose(leader, 2, "good morning");
    cluster.settle();
    assert!(cluster.acked.contains_key(&Token(2)), "no tick is needed");
    assert!((0..3).all(|node| !cluster.status(node).quiet));
    cluster.run_until("asleep again", asleep);
    assert_eq!(cluster.texts(leader), ["before", "good morning"]);
}

#[test]
fn a_read_at_a_sleeping_follower_is_answered() {
    let (mut cluster, leader) = sleeping();
    let follower = (leader + 1) % 3;
    cluster.input(follower, Input::ReadIndex { group: GROUP, token: Token(3) });
    cluster.settle();
    assert!(matches!(cluster.replies[&Token(3)], Answer::ReadIndex(_)));
}

#[test]
fn a_group_whose_leader_dies_in_its_sleep_elects_another_once_its_connection_is_gone() {
    let (mut cluster, leader) = sleeping();
    cluster.crash(leader);
    let followers: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    for follower in &followers {
        cluster.input(*follower, Input::PeerDown { node: node(leader) });
    }
    cluster.run_until("another leads", |cluster| cluster.leader().is_some());
}

/// Only one of two heard that the connection is gone, and it alone is no quorum: it must wake the other.
#[test]
fn one_follower_that_wakes_wakes_the_others() {
    let (mut cluster, leader) = sleeping();
    cluster.crash(leader);
    cluster.input((leader + 1) % 3, Input::PeerDown { node: node(leader) });
    cluster.run_until("another leads", |cluster| cluster.leader().is_some());
}

#[test]
fn a_leader_that_loses_a_follower_wakes_and_stays_awake_until_it_is_back() {
    let (mut cluster, leader) = sleeping();
    let lost = (leader + 1) % 3;
    cluster.crash(lost);
    cluster.input(leader, Input::PeerDown { node: node(lost) });
    for _ in 0..300 {
        cluster.tick_all();
        cluster.settle();
        assert!(!cluster.status(leader).quiet);
    }
    cluster.start(lost);
    cluster.run_until("asleep again", asleep);
    assert_eq!(cluster.leader(), Some(leader), "nobody was deposed");
}

/// A follower that did not hear the question goes on waiting for heartbeats. It must neither depose the leader
/// that sleeps nor keep everybody awake for ever.
#[test]
fn a_follower_that_does_not_hear_the_question_is_asked_again() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    let deaf = node((leader + 1) % 3);
    let term = cluster.status(leader).term;
    let question =
        |to: NodeId| move |(_, sent): &(NodeId, Outgoing)| sent.to == to && !sent.message.context.is_empty();
    cluster.propose(leader, 2, "awake");
    cluster.settle();
    let mut dropped = 0;
    for _ in 0..400 {
        cluster.tick_all();
        while let Some(next) = cluster.wire.front() {
            if dropped < 3 && question(deaf)(next) {
                cluster.wire.pop_front();
                dropped += 1;
            } else {
                cluster.deliver(0);
            }
        }
    }
    assert_eq!(dropped, 3);
    assert!(asleep(&cluster));
    assert_eq!((cluster.leader(), cluster.status(leader).term), (Some(leader), term));
}

/// Asked by one that does not lead, or about another log, nobody sleeps.
#[test]
fn only_the_leader_of_the_very_log_is_believed() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.propose(leader, 1, "a record");
    cluster.settle();
    let follower = (leader + 1) % 3;
    let status = cluster.status(follower);
    let last = status.last.get();
    let id = |node: usize| u64::try_from(node).unwrap() + 1;
    let beat = |from: usize, index: u64| {
        let mut beat = raft::eraftpb::Message { from: id(from), to: id(follower), ..Default::default() };
        beat.set_msg_type(MessageType::MsgHeartbeat);
        beat.term = status.term.get();
        beat.commit = last;
        beat.context = [b"quiet1".as_slice(), &index.to_le_bytes()].concat().into();
        Input::Message { from: node(from), group: GROUP, message: Box::new(beat) }
    };
    cluster.input(follower, beat(leader, last - 1));
    cluster.input(follower, beat(leader, last + 1));
    assert!(!cluster.status(follower).quiet);
    assert!(cluster.wire.iter().all(|(_, sent)| sent.message.context.is_empty()), "and none agrees");
    cluster.input(follower, beat(leader, last));
    assert!(cluster.status(follower).quiet);
}

/// One that was removed and does not know it asks for votes all the time. Nobody is woken by it.
#[test]
fn a_removed_replica_wakes_nobody() {
    let (mut cluster, leader) = sleeping();
    let gone = (leader + 1) % 3;
    cluster.isolate(gone, true);
    let id = ReplicaId(u64::try_from(gone).unwrap() + 1);
    let change = MemberChange { remove: vec![id], ..MemberChange::default() };
    cluster.change(leader, 2, change);
    let others: Vec<_> = (0..3).filter(|node| *node != gone).collect();
    cluster.run_until("the others sleep", |cluster| others.iter().all(|node| cluster.status(*node).quiet));
    cluster.isolate(gone, false);
    cluster.input(gone, Input::PeerDown { node: node(leader) });
    for _ in 0..200 {
        cluster.input(gone, Input::Tick);
        cluster.settle();
        assert!(others.iter().all(|node| cluster.status(*node).quiet));
    }
    assert!(!cluster.refusals.is_empty(), "it did ask");
}

#[test]
fn learners_sleep_too_and_a_change_of_members_wakes() {
    let mut cluster = Cluster::of_voters(4, 3, 7);
    cluster.auto_snapshots = true;
    let leader = cluster.elect();
    cluster.replace(3, ReplicaId(9));
    cluster.change(leader, 1, adds(ReplicaId(9), 3));
    cluster.run_until("all sleep", asleep);
    assert_eq!(cluster.status(3).role, Role::Learner);
    let change = MemberChange { promote: vec![ReplicaId(9)], ..MemberChange::default() };
    cluster.change(leader, 2, change);
    cluster.settle();
    assert!(cluster.status(leader).members.voters.contains(&ReplicaId(9)), "{:?}", cluster.replies);
}

/// The leader's disk takes its time; the others' do not.
#[test]
fn a_leader_whose_disk_is_slow_hands_over_once() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    cluster.auto_persist = false;
    let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    cluster.propose(leader, 1, "slow here");
    let mut leaders = vec![leader];
    for _ in 0..1_000 {
        cluster.tick_all();
        for _ in 0..20 {
            cluster.settle();
            for other in &others {
                while cluster.persist(*other) {}
            }
        }
        if let Some(now) = cluster.leader()
            && leaders.last() != Some(&now)
        {
            leaders.push(now);
        }
    }
    assert_eq!(leaders.len(), 2, "{leaders:?}");
    let now = cluster.leader().unwrap();
    cluster.propose(now, 2, "fast there");
    for _ in 0..20 {
        cluster.settle();
        for other in &others {
            while cluster.persist(*other) {}
        }
    }
    assert!(cluster.acked.contains_key(&Token(2)) && !cluster.acked.contains_key(&Token(1)));
    cluster.auto_persist = true;
    while cluster.persist(leader) {}
    cluster.run_until("the first is answered too", |cluster| cluster.acked.contains_key(&Token(1)));
}
