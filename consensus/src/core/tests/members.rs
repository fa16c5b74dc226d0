//! Who belongs to a group changes: replicas come, are filled, count, and go, whatever is lost on the way.

use raft::eraftpb::MessageType;
use tidelog_wire::ids::{NodeId, ReplicaId, Term};

use super::super::*;
use super::cluster::{Cluster, GROUP};
use super::starts::stopped;

const NEW: ReplicaId = ReplicaId(9);

pub(super) fn node(node: usize) -> NodeId {
    NodeId(u64::try_from(node).unwrap())
}

pub(super) fn replica(node: usize) -> ReplicaId {
    ReplicaId(u64::try_from(node).unwrap() + 1)
}

pub(super) fn adds(replica: ReplicaId, at: usize) -> MemberChange {
    MemberChange { add: vec![(replica, node(at))], ..MemberChange::default() }
}

pub(super) fn promotes(replica: ReplicaId) -> MemberChange {
    MemberChange { promote: vec![replica], ..MemberChange::default() }
}

pub(super) fn removes(replica: ReplicaId) -> MemberChange {
    MemberChange { remove: vec![replica], ..MemberChange::default() }
}

/// A successor counts from the change on in which the one that it replaces goes.
pub(super) fn replaces(old: ReplicaId, new: ReplicaId) -> MemberChange {
    MemberChange { promote: vec![new], remove: vec![old], ..MemberChange::default() }
}

/// Three voters with records, and a fourth node without a replica.
fn three_of_four() -> (Cluster, usize) {
    let mut cluster = Cluster::of_voters(4, 3, 11);
    cluster.auto_snapshots = true;
    let leader = cluster.elect();
    for number in 0..10 {
        cluster.propose(leader, number, "before");
    }
    cluster.settle();
    (cluster, leader)
}

/// The same, with a learner on the fourth node that has caught up.
fn with_learner() -> (Cluster, usize) {
    let (mut cluster, leader) = three_of_four();
    cluster.replace(3, NEW);
    cluster.change(leader, 100, adds(NEW, 3));
    cluster.run_until("the learner has caught up", |cluster| cluster.is_caught_up(leader, NEW));
    (cluster, leader)
}

/// Asks until the change is done: right after an election a leader knows too little of its followers.
fn carry(cluster: &mut Cluster, token: u64, change: &MemberChange) {
    for attempt in 0..100 {
        let token = Token(token * 1_000 + attempt);
        let leader = cluster.elect();
        cluster.change(leader, token.0, change.clone());
        for _ in 0..40 {
            cluster.tick_all();
            cluster.settle();
        }
        if cluster.acked.contains_key(&token) {
            return;
        }
    }
    panic!("never: {change:?}, answered {:?}", cluster.replies);
}

fn refused(cluster: &mut Cluster, at: usize, token: u64, change: MemberChange) -> ChangeRefusal {
    cluster.change(at, token, change);
    match cluster.replies.get(&Token(token)) {
        Some(Answer::Failed(ProposeFailure::Members(why))) => *why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_new_replica_is_filled_by_a_snapshot_as_a_learner_then_promoted_and_counts() {
    let (mut cluster, leader) = with_learner();
    assert_eq!(cluster.status(3).role, Role::Learner);
    let peers = cluster.status(leader).peers;
    assert!(peers.iter().any(|peer| peer.replica == NEW && peer.learner && peer.caught_up), "{peers:?}");
    assert_eq!(cluster.texts(3), cluster.texts(leader));

    cluster.change(leader, 101, promotes(NEW));
    cluster.run_until("all know it", |cluster| {
        (0..4).all(|node| cluster.status(node).members.voters.contains(&NEW))
    });
    assert_eq!(cluster.status(3).role, Role::Follower);
    // Four count now: two are not enough, three with the new one are.
    let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    cluster.crash(others[0]);
    cluster.crash(others[1]);
    cluster.propose(leader, 102, "not enough");
    cluster.settle();
    assert!(!cluster.acked.contains_key(&Token(102)));
    cluster.start(others[0]);
    cluster.run_until("acknowledged", |cluster| {
        cluster.texts(3).last().is_some_and(|text| text == "not enough")
    });
}

#[test]
fn a_replaced_voter_leaves_in_the_change_that_promotes_its_successor_and_disturbs_nobody() {
    let (mut cluster, leader) = with_learner();
    let gone = (leader + 1) % 3;
    cluster.change(leader, 101, replaces(replica(gone), NEW));
    cluster
        .run_until("joint everywhere", |cluster| (0..4).all(|node| cluster.status(node).members.is_joint()));
    assert!(cluster.acked.contains_key(&Token(101)));
    // It counts until the joint membership is left.
    assert_eq!(cluster.status(gone).role, Role::Follower);
    cluster.change(leader, 102, MemberChange::default());
    cluster.run_until("left", |cluster| !cluster.status(3).members.is_joint());
    let members = cluster.status(leader).members;
    assert!(!members.contains(replica(gone)) && members.voters.contains(&NEW));

    // The one that is gone may not have heard. It runs into its timeouts, and the term does not rise.
    let term = cluster.status(leader).term;
    for _ in 0..300 {
        cluster.tick_all();
        cluster.settle();
    }
    assert_eq!((cluster.status(leader).role, cluster.status(leader).term), (Role::Leader, term));
    assert!(matches!(cluster.status(gone).role, Role::Removed | Role::Follower | Role::PreCandidate));
}

#[test]
fn a_replica_that_hears_of_its_removal_shows_it_and_stands_for_nothing() {
    let (mut cluster, leader) = three_of_four();
    let gone = (leader + 1) % 3;
    // Nothing but what others have confirmed reaches it, so it hears of the commit with the next entries.
    cluster.change(leader, 101, removes(replica(gone)));
    cluster.settle();
    let role = cluster.status(gone).role;
    assert!(matches!(role, Role::Removed | Role::Follower), "{role:?}");
    cluster.checkpoint(gone);
    let heard = cluster.status(gone).role == Role::Removed;
    for _ in 0..200 {
        cluster.input(gone, Input::Tick);
    }
    let asks = cluster.wire.iter().filter(|(from, _)| *from == node(gone)).count();
    assert!(!heard || asks == 0, "one that was removed asks for {asks} votes");
}

#[test]
fn a_leader_that_removes_itself_hands_over_at_once() {
    let (mut cluster, leader) = three_of_four();
    cluster.change(leader, 101, removes(replica(leader)));
    let mut ticks = 0;
    cluster.run_until("another leads", |cluster| {
        ticks += 1;
        cluster.leader().is_some_and(|now| now != leader)
    });
    assert!(ticks < 6, "{ticks} ticks: nobody waits for a timeout");
    assert_eq!(cluster.status(leader).role, Role::Removed);
    let now = cluster.leader().unwrap();
    cluster.propose(now, 102, "two are left");
    cluster.run_until("acknowledged", |cluster| cluster.acked.contains_key(&Token(102)));
}

#[test]
fn a_voter_may_stay_as_a_learner_and_so_may_the_leader() {
    let (mut cluster, leader) = three_of_four();
    let change = MemberChange { demote: vec![replica(leader)], ..MemberChange::default() };
    cluster.change(leader, 101, change);
    cluster.run_until("another leads", |cluster| cluster.leader().is_some_and(|now| now != leader));
    cluster.run_until("it learns", |cluster| cluster.status(leader).role == Role::Learner);
    let now = cluster.leader().unwrap();
    cluster.propose(now, 102, "for the learner too");
    cluster.run_until("it has it", |cluster| {
        cluster.texts(leader).last().is_some_and(|text| text == "for the learner too")
    });
}

#[test]
fn changes_that_cannot_be_made_now_are_refused_with_the_reason_and_proposals_go_on() {
    let (mut cluster, leader) = with_learner();
    let follower = (leader + 1) % 3;
    cluster.change(follower, 200, adds(ReplicaId(20), 3));
    assert!(matches!(cluster.replies[&Token(200)], Answer::Failed(ProposeFailure::NotLeader { .. })));
    assert_eq!(refused(&mut cluster, leader, 201, MemberChange::default()), ChangeRefusal::NotJoint);
    assert_eq!(refused(&mut cluster, leader, 202, adds(NEW, 3)), ChangeRefusal::Twice(NEW));
    assert_eq!(
        refused(&mut cluster, leader, 203, removes(ReplicaId(77))),
        ChangeRefusal::Unknown(ReplicaId(77))
    );

    // One that is not committed yet keeps out the next, and keeps out no record.
    cluster.isolate(leader, true);
    cluster.change(leader, 204, promotes(NEW));
    assert_eq!(refused(&mut cluster, leader, 205, removes(replica(follower))), ChangeRefusal::UnderWay);
    cluster.propose(leader, 206, "meanwhile");
    cluster.isolate(leader, false);
    cluster.run_until("both are done", |cluster| {
        cluster.acked.contains_key(&Token(204)) && cluster.acked.contains_key(&Token(206))
    });
    // So does a joint membership that was not left.
    let other = (leader + 2) % 3;
    let both = MemberChange { remove: vec![replica(follower), replica(other)], ..MemberChange::default() };
    carry(&mut cluster, 207, &both);
    let leader = cluster.leader().unwrap();
    assert_eq!(refused(&mut cluster, leader, 208, adds(ReplicaId(20), 0)), ChangeRefusal::UnderWay);
    carry(&mut cluster, 209, &MemberChange::default());
}

#[test]
fn a_learner_that_lacks_entries_is_not_promoted_and_no_learner_is_handed_leadership() {
    let (mut cluster, leader) = with_learner();
    cluster.input(leader, Input::TransferLeader { group: GROUP, to: Some(node(3)) });
    cluster.settle();
    assert_eq!(cluster.status(leader).role, Role::Leader);
    assert_eq!(cluster.status(3).role, Role::Learner);

    cluster.crash(3);
    for number in 300..320 {
        cluster.propose(leader, number, "without it");
    }
    for _ in 0..60 {
        cluster.tick_all();
        cluster.settle();
    }
    assert_eq!(refused(&mut cluster, leader, 400, promotes(NEW)), ChangeRefusal::NotCaughtUp(NEW));
}

/// A leader that is cut off wants to change members; the others elect another one, which never hears of it.
#[test]
fn a_change_that_another_leaders_entry_takes_the_place_of_is_never_made() {
    let (mut cluster, leader) = three_of_four();
    cluster.isolate(leader, true);
    cluster.change(leader, 500, adds(NEW, 3));
    cluster.run_until("another leads", |cluster| cluster.leader().is_some_and(|now| now != leader));
    let now = cluster.leader().unwrap();
    for number in 501..504 {
        cluster.propose(now, number, "instead");
    }
    cluster.settle();
    assert!(cluster.acked.contains_key(&Token(503)));
    cluster.isolate(leader, false);
    cluster.run_until("the old one has them", |cluster| cluster.texts(leader) == cluster.texts(now));
    assert_eq!(cluster.replies[&Token(500)], Answer::Failed(ProposeFailure::Superseded));
    assert!((0..3).all(|node| !cluster.status(node).members.contains(NEW)));
    carry(&mut cluster, 505, &adds(NEW, 3));
}

#[test]
fn a_snapshot_from_the_middle_of_a_change_brings_both_sets_of_voters() {
    let (mut cluster, leader) = with_learner();
    let (gone, sleeper) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.crash(sleeper);
    cluster.change(leader, 101, replaces(replica(gone), NEW));
    cluster.run_until("joint", |cluster| cluster.status(leader).members.is_joint());
    for number in 600..640 {
        cluster.propose(leader, number, "while it slept");
    }
    cluster.settle();
    // Two checkpoints, so that the log forgets what the sleeper needs.
    cluster.checkpoint(leader);
    cluster.propose(leader, 640, "between checkpoints");
    cluster.settle();
    cluster.checkpoint(leader);
    cluster.start(sleeper);
    cluster.run_until("filled", |cluster| cluster.texts(sleeper) == cluster.texts(leader));
    assert!(!cluster.snapshots.is_empty());
    let members = cluster.status(sleeper).members;
    assert!(members.is_joint() && members == cluster.status(leader).members, "{members:?}");
    carry(&mut cluster, 641, &MemberChange::default());
    cluster.run_until("left", |cluster| !cluster.status(sleeper).members.is_joint());
}

#[test]
fn a_restart_from_a_checkpoint_before_or_after_the_change_finds_the_same_members() {
    for after in [false, true] {
        let (mut cluster, leader) = with_learner();
        let restarted = (leader + 1) % 3;
        cluster.checkpoint(restarted);
        cluster.change(leader, 101, replaces(replica((leader + 2) % 3), NEW));
        cluster.run_until("known", |cluster| cluster.status(restarted).members.is_joint());
        let expected = cluster.status(restarted).members;
        if after {
            cluster.checkpoint(restarted);
        }
        cluster.crash(restarted);
        cluster.start(restarted);
        // That a change is committed is kept, so it is made again at once.
        assert!(cluster.status(restarted).members.is_joint());
        cluster.run_until("as before", |cluster| cluster.status(restarted).members == expected);
    }
}

#[test]
fn an_offer_is_only_given_to_a_follower_that_its_members_name() {
    let (mut cluster, leader) = three_of_four();
    cluster.auto_snapshots = false;
    cluster.checkpoint(leader);
    let early = cluster.machines[leader].checkpoint.clone();
    cluster.replace(3, NEW);
    cluster.change(leader, 100, adds(NEW, 3));
    cluster.run_until("an export", |cluster| !cluster.machines[leader].effects.exports.is_empty());
    let asked = cluster.machines[leader].effects.exports[0];
    assert!(asked.at_least > early.applied.index, "{asked:?}");
    // One of before the change is of no use to it.
    let offer =
        SnapshotOffer { snapshot: early.applied, digest: 5, manifest_bytes: 9, members: early.members };
    cluster.input(leader, Input::SnapshotExported { group: GROUP, offer });
    for _ in 0..300 {
        cluster.tick_all();
        cluster.settle();
    }
    assert!(cluster.machines[3].effects.fetches.is_empty());
    assert!(cluster.machines[leader].effects.exports.len() > 1, "it is asked for again");
    cluster.auto_snapshots = true;
    cluster.run_until("filled", |cluster| cluster.texts(3) == cluster.texts(leader));
}

#[test]
fn a_replica_with_nothing_neither_votes_nor_stands_for_election() {
    let mut cluster = stopped();
    cluster.start(0);
    cluster.replace(0, ReplicaId(7));
    assert_eq!(cluster.status(0).role, Role::Learner);
    for _ in 0..200 {
        cluster.input(0, Input::Tick);
    }
    assert!(!cluster.wire.iter().any(|(from, _)| *from == node(0)));
    for kind in [MessageType::MsgRequestPreVote, MessageType::MsgRequestVote, MessageType::MsgTimeoutNow] {
        let mut ask = raft::eraftpb::Message {
            from: 2,
            to: 7,
            term: 50,
            index: 90,
            log_term: 50,
            ..Default::default()
        };
        ask.set_msg_type(kind);
        cluster.input(0, Input::Message { from: node(1), group: GROUP, message: Box::new(ask) });
    }
    assert_eq!(cluster.status(0).term, Term(0));
    assert!(cluster.machines[0].votes.values().all(|vote| vote.replica != ReplicaId(7)));
}

/// A replica lost its memory and was replaced on the same node. What its old number was sent, or had sent
/// before, reaches nobody.
#[test]
fn messages_to_and_from_a_number_that_was_replaced_on_the_same_node_are_refused() {
    let (mut cluster, leader) = three_of_four();
    let place = (leader + 1) % 3;
    let mut old = raft::eraftpb::Message {
        from: replica(place).get(),
        to: replica(leader).get(),
        ..Default::default()
    };
    old.set_msg_type(MessageType::MsgRequestVote);
    old.term = cluster.status(leader).term.get() + 9;
    old.index = 1 << 20;
    old.log_term = old.term - 1;
    old.context = b"CampaignTransfer".to_vec().into();
    carry(&mut cluster, 100, &removes(replica(place)));
    cluster.replace(place, NEW);
    carry(&mut cluster, 101, &adds(NEW, place));
    cluster.run_until("caught up", |cluster| cluster.is_caught_up(cluster.leader().unwrap(), NEW));
    let leader = cluster.leader().unwrap();
    let before = cluster.status(leader).term;
    old.to = replica(leader).get();
    cluster.refusals.clear();
    cluster.input(leader, Input::Message { from: node(place), group: GROUP, message: Box::new(old.clone()) });
    assert!(
        matches!(cluster.refusals[0].reason, MessageRefusal::UnknownSender { .. }),
        "{:?}",
        cluster.refusals
    );
    assert_eq!(cluster.status(leader).term, before);
    let mut to_old = old;
    (to_old.from, to_old.to) = (replica(leader).get(), replica(place).get());
    cluster.input(place, Input::Message { from: node(leader), group: GROUP, message: Box::new(to_old) });
    assert!(matches!(cluster.refusals[1].reason, MessageRefusal::WrongRecipient { expected: NEW, .. }));
    // A lower number never takes the place of a higher one.
    cluster.input(place, Input::Start(Box::new(ReplicaStart::blank(GROUP, ReplicaId(8)))));
    assert_eq!(cluster.status(place).replica, NEW);
}

/// The new leader counts by an entry that the follower has not seen, so to the follower it is a stranger.
#[test]
fn a_follower_that_lags_takes_entries_from_a_leader_that_it_does_not_know_yet() {
    let (mut cluster, leader) = with_learner();
    let lagging = (leader + 1) % 3;
    cluster.crash(lagging);
    cluster.machines[lagging].checkpoint = super::cluster::genesis(3);
    carry(&mut cluster, 101, &promotes(NEW));
    cluster.input(leader, Input::TransferLeader { group: GROUP, to: Some(node(3)) });
    cluster.run_until("the new one leads", |cluster| cluster.leader() == Some(3));
    // It comes back with what it had before the new one was ever a member.
    cluster.start(lagging);
    cluster.run_until("caught up", |cluster| cluster.texts(lagging) == cluster.texts(3));
    assert!(cluster.status(lagging).members.voters.contains(&NEW));
}

#[test]
fn a_stopped_group_answers_whoever_waits_and_its_leader_hands_over() {
    let (mut cluster, leader) = three_of_four();
    cluster.isolate(leader, true);
    cluster.propose(leader, 700, "open");
    cluster.isolate(leader, false);
    cluster.wire.clear();
    cluster.input(leader, Input::Stop { group: GROUP });
    assert_eq!(cluster.replies[&Token(700)], Answer::Failed(ProposeFailure::MayHaveCommitted));
    assert!(cluster.machines[leader].core.as_ref().unwrap().status(GROUP).is_none());
    cluster.crash(leader);
    cluster.elect();
}

/// The process was stopped by an assertion of raft: the only voter left stood for election while entries that it
/// had from the leader of before were not on its disk yet, and it elected itself at once.
#[test]
fn an_only_voter_does_not_lead_before_its_log_is_durable() {
    for hands_over in [false, true] {
        let (mut cluster, leader) = three_of_four();
        let (heir, other) = ((leader + 1) % 3, (leader + 2) % 3);
        carry(&mut cluster, 800, &removes(replica(other)));
        let leader_now = cluster.leader().unwrap();
        if leader_now != leader {
            cluster.input(leader_now, Input::TransferLeader { group: GROUP, to: Some(node(leader)) });
            cluster.run_until("as before", |cluster| cluster.leader() == Some(leader));
        }
        cluster.change(leader, 810, removes(replica(leader)));
        // Everything but what comes last is durable at the heir.
        cluster.propose(leader, 811, "not on its disk for long");
        cluster.auto_persist = false;
        for _ in 0..4 {
            cluster.settle();
            cluster.persist(leader);
        }
        if !hands_over {
            cluster.wire.clear();
        }
        for _ in 0..100 {
            cluster.input(heir, Input::Tick);
            cluster.settle();
        }
        cluster.auto_persist = true;
        (0..3).for_each(|node| while cluster.persist(node) {});
        cluster.run_until("the heir leads", |cluster| cluster.leader().is_some());
    }
}
