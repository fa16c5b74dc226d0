//! The ways of an entry, one by one.

use raft::eraftpb::MessageType;
use tidelog_wire::ids::{NodeId, RaftIndex};

use super::super::*;
use super::cluster::{Cluster, GROUP, entry, proposal};

fn others(cluster: &Cluster, node: usize) -> Vec<usize> {
    (0..cluster.machines.len()).filter(|other| *other != node).collect()
}

#[test]
fn three_nodes_elect_one_leader_and_agree_on_what_it_is_given() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    for number in 0..20 {
        cluster.propose(leader, number, &format!("record {number}"));
    }
    cluster.run_until("all applied everywhere", |cluster| (0..3).all(|node| cluster.texts(node).len() == 20));
    assert_eq!(cluster.acked.len(), 20);
    assert_eq!(cluster.texts(0), cluster.texts(1));
    assert_eq!(cluster.texts(1), cluster.texts(2));
    assert_eq!((0..3).filter(|node| cluster.status(*node).role == Role::Leader).count(), 1);
    let status = cluster.status(leader);
    assert!(status.peers.iter().all(|peer| peer.matched == status.last && peer.active));
}

#[test]
fn the_same_seed_elects_the_same_leader_at_the_same_tick() {
    let run = |seed| {
        let mut cluster = Cluster::new(3, seed);
        let mut ticks = 0;
        cluster.run_until("a leader", |cluster| {
            ticks += 1;
            cluster.leader().is_some()
        });
        (ticks, cluster.leader(), cluster.status(0).term)
    };
    assert_eq!(run(1), run(1));
    assert!((2..20).any(|seed| run(seed) != run(1)), "the seed matters");
}

#[test]
fn one_node_alone_is_its_own_quorum_once_its_disk_has_it() {
    let mut cluster = Cluster::new(1, 7);
    let leader = cluster.elect();
    cluster.auto_persist = false;
    cluster.propose(leader, 1, "alone");
    assert!(cluster.acked.is_empty(), "not before the disk");
    cluster.persist(leader);
    assert_eq!(cluster.acked[&Token(1)].1, "alone");
}

#[test]
fn the_leader_sends_before_its_own_disk_and_commits_with_the_disks_of_the_others() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    cluster.auto_persist = false;
    cluster.propose(leader, 1, "early");
    assert!(!cluster.wire.is_empty(), "appends left although nothing is durable");
    for follower in others(&cluster, leader) {
        while !cluster.wire.is_empty() {
            cluster.deliver(0);
        }
        cluster.persist(follower);
    }
    cluster.settle();
    // Two of three disks have it: raft commits, but applies only what this disk has as well.
    assert_eq!(cluster.status(leader).committed, cluster.status(leader).last);
    assert!(cluster.acked.is_empty());
    cluster.persist(leader);
    assert_eq!(cluster.acked.len(), 1);
}

/// The rule that is easy to get wrong: a repeated append must not be acknowledged by the ready of the
/// repetition while the entries of the first copy are still on their way to the disk.
#[test]
fn a_repeated_append_is_not_acknowledged_before_the_first_copy_is_durable() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    let [follower, silent] = others(&cluster, leader)[..] else { panic!() };
    cluster.isolate(silent, true);
    cluster.auto_persist = false;
    cluster.propose(leader, 1, "once");
    cluster.persist(leader);
    let at = NodeId(u64::try_from(follower).unwrap());
    let append = cluster
        .wire
        .iter()
        .find(|(_, out)| out.to == at && !out.message.entries.is_empty())
        .cloned()
        .unwrap();
    cluster.settle();
    for _ in 0..3 {
        cluster.hand_over(append.0, append.1.clone());
    }
    cluster.settle();
    assert_eq!(cluster.machines[follower].persists.len(), 1, "repetitions write nothing");
    assert!(cluster.acked.is_empty(), "one disk is not a quorum");
    cluster.persist(follower);
    cluster.settle();
    assert_eq!(cluster.acked.len(), 1);
}

#[test]
fn heartbeats_are_answered_while_the_disk_is_stuck() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    cluster.auto_persist = false;
    cluster.propose(leader, 1, "stuck");
    cluster.settle();
    for _ in 0..100 {
        cluster.tick_all();
        cluster.settle();
    }
    assert_eq!(cluster.leader(), Some(leader), "check-quorum is satisfied by heartbeats alone");
    assert!(cluster.acked.is_empty());
}

#[test]
fn a_vote_leaves_only_after_it_is_durable() {
    let mut cluster = Cluster::new(3, 7);
    cluster.auto_persist = false;
    let mut votes = 0;
    for _ in 0..200 {
        cluster.tick_all();
        for _ in 0..cluster.wire.len() {
            let kind = cluster.wire[0].1.message.get_msg_type();
            let from = cluster.wire[0].0;
            if kind == MessageType::MsgRequestVoteResponse || kind == MessageType::MsgRequestVote {
                votes += 1;
                let machine = &cluster.machines[usize::try_from(from.get()).unwrap()];
                let durable = machine.log_term();
                assert_eq!(durable, cluster.wire[0].1.message.term, "{kind:?} before its term is on disk");
            }
            cluster.deliver(0);
        }
        for node in 0..3 {
            cluster.persist(node);
        }
    }
    assert!(votes > 0 && cluster.leader().is_some());
}

#[test]
fn entries_lost_with_the_leader_are_superseded_when_it_returns() {
    let mut cluster = Cluster::new(3, 7);
    let old = cluster.elect();
    cluster.settle();
    cluster.isolate(old, true);
    cluster.propose(old, 1, "never sent");
    cluster.propose(old, 2, "nor this");
    cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    let new = cluster.leader().unwrap();
    cluster.propose(new, 10, "instead");
    cluster.run_until("committed by the new one", |cluster| cluster.acked.contains_key(&Token(10)));
    assert!(!cluster.replies.contains_key(&Token(1)), "as long as it may commit nothing is said");
    cluster.isolate(old, false);
    cluster.run_until("decided", |cluster| cluster.replies.len() == 2);
    for token in [Token(1), Token(2)] {
        assert_eq!(cluster.replies[&token], Answer::Failed(ProposeFailure::Superseded));
    }
    cluster.run_until("the old leader agrees", |cluster| cluster.texts(old) == ["instead"]);
}

#[test]
fn an_entry_that_outlives_its_leader_is_answered_to_its_proposer() {
    let mut cluster = Cluster::new(3, 7);
    let old = cluster.elect();
    cluster.settle();
    cluster.propose(old, 1, "sent in time");
    // Delivered, but no answer comes back: the old leader is cut off.
    for _ in 0..cluster.wire.len() {
        cluster.deliver(0);
    }
    cluster.isolate(old, true);
    cluster.settle();
    assert!(cluster.acked.is_empty());
    cluster.run_until("another leader", |cluster| cluster.leader().is_some_and(|leader| leader != old));
    cluster.isolate(old, false);
    cluster.run_until("answered", |cluster| cluster.acked.contains_key(&Token(1)));
    assert!(cluster.replies.is_empty());
}

#[test]
fn a_forgotten_token_gets_no_answer() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.auto_persist = false;
    cluster.propose(leader, 1, "impatient");
    cluster.input(leader, Input::Forget { group: GROUP, tokens: vec![Token(1)] });
    cluster.auto_persist = true;
    while cluster.persist(leader) {}
    cluster.run_until("applied", |cluster| cluster.texts(leader) == ["impatient"]);
    assert!(cluster.acked.is_empty());
}

#[test]
fn followers_do_not_take_proposals_but_name_the_leader() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    let follower = others(&cluster, leader)[0];
    cluster.propose(follower, 1, "wrong door");
    let expected = NodeId(u64::try_from(leader).unwrap());
    assert_eq!(
        cluster.replies[&Token(1)],
        Answer::Failed(ProposeFailure::NotLeader { leader: Some(expected) }),
    );
}

#[test]
fn limits_answer_busy_and_too_large_instead_of_queueing() {
    let mut cluster = Cluster::new(3, 7);
    cluster.limits.uncommitted_bytes_max = 4_000;
    cluster.limits.entry_bytes_max = 2_000;
    cluster.limits.message_bytes_max = 2_000;
    for node in 0..3 {
        cluster.crash(node);
        cluster.start(node);
    }
    let leader = cluster.elect();
    for node in others(&cluster, leader) {
        cluster.isolate(node, true);
    }
    let text = "x".repeat(1_000);
    for token in 0..10 {
        cluster.propose(leader, token, &text);
    }
    let busy = cluster.replies.values().filter(|answer| **answer == Answer::Failed(ProposeFailure::Busy));
    assert_eq!(busy.count(), 7, "three of a thousand bytes fit into four thousand");
    cluster.propose(leader, 99, &"x".repeat(3_000));
    assert_eq!(cluster.replies[&Token(99)], Answer::Failed(ProposeFailure::TooLarge));
}

#[test]
fn read_index_is_answered_at_leader_and_follower_and_covers_what_was_acknowledged() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.propose(leader, 1, "before the read");
    cluster.settle();
    let written = cluster.acked[&Token(1)].0;
    let follower = others(&cluster, leader)[0];
    for (node, token) in [(leader, Token(2)), (follower, Token(3))] {
        cluster.input(node, Input::ReadIndex { group: GROUP, token });
        cluster.settle();
        let Answer::ReadIndex(index) = cluster.replies[&token] else { panic!("{:?}", cluster.replies) };
        assert!(index >= RaftIndex(written));
    }
}

#[test]
fn a_leader_without_quorum_answers_no_read() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    cluster.isolate(leader, true);
    cluster.input(leader, Input::ReadIndex { group: GROUP, token: Token(5) });
    cluster.settle();
    assert!(cluster.replies.is_empty());
}

#[test]
fn leadership_is_handed_over_when_asked() {
    let mut cluster = Cluster::new(3, 7);
    let old = cluster.elect();
    cluster.settle();
    let target = others(&cluster, old)[1];
    let to = Some(NodeId(u64::try_from(target).unwrap()));
    cluster.input(old, Input::TransferLeader { group: GROUP, to });
    cluster.settle();
    assert_eq!(cluster.leader(), Some(target), "without waiting for any timeout");
    cluster.input(target, Input::TransferLeader { group: GROUP, to: None });
    cluster.settle();
    assert_ne!(cluster.leader(), Some(target), "anyone but itself");
}

/// Two followers that campaign in the same tick split the vote, so it is not always so.
#[test]
fn a_lost_connection_to_the_leader_mostly_hastens_the_election() {
    let ticks_without_leader = |seed| {
        let mut cluster = Cluster::new(3, seed);
        let old = cluster.elect();
        cluster.settle();
        cluster.crash(old);
        let gone = NodeId(u64::try_from(old).unwrap());
        for node in others(&cluster, old) {
            cluster.input(node, Input::PeerDown { node: gone });
        }
        let mut ticks = 0;
        while cluster.leader().is_none() {
            ticks += 1;
            cluster.tick_all();
            cluster.settle();
        }
        ticks
    };
    let fast = (0..40).filter(|seed| ticks_without_leader(*seed) <= 6).count();
    assert!(fast >= 25, "{fast} of 40 within half of the least election timeout");
}

#[test]
fn a_node_that_crashes_between_ready_and_disk_has_promised_nothing() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    cluster.auto_persist = false;
    cluster.propose(leader, 1, "in flight");
    cluster.settle();
    for node in 0..3 {
        cluster.crash(node);
    }
    cluster.auto_persist = true;
    for node in 0..3 {
        cluster.start(node);
    }
    assert!(cluster.halts.is_empty());
    let leader = cluster.elect();
    cluster.propose(leader, 2, "after");
    cluster.run_until("agreed", |cluster| (0..3).all(|node| cluster.texts(node) == ["after"]));
}

#[test]
fn acknowledged_entries_survive_a_crash_of_all_nodes() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    for number in 0..50 {
        cluster.propose(leader, number, &format!("{number}"));
    }
    cluster.settle();
    assert_eq!(cluster.acked.len(), 50);
    for node in 0..3 {
        cluster.crash(node);
        cluster.start(node);
    }
    cluster.elect();
    cluster.run_until("all back", |cluster| (0..3).all(|node| cluster.texts(node).len() == 50));
}

#[test]
fn many_inputs_fed_before_one_collection_share_one_persist() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    let core = cluster.machines[leader].core.as_mut().unwrap();
    let mut effects = Effects::default();
    for token in 0..100 {
        core.feed(
            Input::Propose { group: GROUP, token: Token(token), entry: proposal("batched") },
            &mut effects,
        );
    }
    core.collect(&mut effects);
    assert_eq!(effects.persists.len(), 1);
    assert_eq!(effects.persists[0].writes[0].entries.len(), 100);
    assert_eq!(effects.sends.len(), 2, "one append to each follower");
    let proposed = proposal("batched").data;
    let sent = &effects.sends[0].message.entries[0].data;
    assert_eq!(*sent, proposed);
}

#[test]
fn the_payload_of_a_proposal_is_never_copied() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    cluster.settle();
    let entry = proposal("the very same bytes");
    let at = entry.data.as_ptr();
    let mut effects = Effects::default();
    let core = cluster.machines[leader].core.as_mut().unwrap();
    core.step(Input::Propose { group: GROUP, token: Token(1), entry }, &mut effects);
    assert_eq!(effects.persists[0].writes[0].entries[0].data.as_ptr(), at);
    assert!(effects.sends.iter().all(|out| out.message.entries[0].data.as_ptr() == at));
}

#[test]
fn compaction_keeps_what_the_older_checkpoint_needs_and_forgets_the_rest() {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    for number in 0..30 {
        cluster.propose(leader, number, "x");
    }
    cluster.settle();
    let newest = entry(20, 2);
    cluster.input(leader, Input::Checkpointed { group: GROUP, newest, compact_to: RaftIndex(10) });
    assert_eq!(cluster.status(leader).first, RaftIndex(11));
    assert_eq!(cluster.machines[leader].log.term_at(GROUP, 10), None);
    cluster.input(leader, Input::Checkpointed { group: GROUP, newest, compact_to: RaftIndex(10_000) });
    assert_eq!(cluster.status(leader).first, RaftIndex(cluster.status(leader).applied.get() + 1));
}

#[test]
fn a_follower_that_slept_catches_up_from_the_raft_log_a_budget_at_a_time() {
    let mut cluster = Cluster::new(3, 7);
    cluster.limits.tail_bytes_kept = 0;
    cluster.limits.read_bytes_per_step_max = 2_000;
    cluster.limits.message_bytes_max = 1_000;
    for node in 0..3 {
        cluster.crash(node);
        cluster.start(node);
    }
    let leader = cluster.elect();
    let sleeper = others(&cluster, leader)[0];
    cluster.crash(sleeper);
    for number in 0..100 {
        cluster.propose(leader, number, &"y".repeat(200));
        cluster.settle();
    }
    assert_eq!(cluster.acked.len(), 100);
    assert_eq!(cluster.status(leader).tail_bytes, 0, "all is durable and applied, nothing is kept");
    cluster.start(sleeper);
    cluster.run_until("caught up", |cluster| cluster.texts(sleeper).len() == 100);
}

#[test]
fn a_log_that_cannot_be_read_halts_the_replica_and_not_the_node() {
    let mut cluster = Cluster::new(3, 7);
    cluster.limits.tail_bytes_kept = 0;
    for node in 0..3 {
        cluster.crash(node);
        cluster.start(node);
    }
    let leader = cluster.elect();
    let sleeper = others(&cluster, leader)[0];
    cluster.crash(sleeper);
    cluster.propose(leader, 1, "evicted");
    cluster.settle();
    cluster.machines[leader].log.break_reads(GROUP);
    cluster.start(sleeper);
    cluster.run_until("halted", |cluster| !cluster.halts.is_empty());
    assert!(matches!(cluster.halts[0].reason, HaltReason::LogUnreadable { .. }));
    assert_eq!(cluster.status(leader).role, Role::Halted);
    cluster.run_until("the others go on", |cluster| cluster.leader().is_some());
}

/// A leader whose disk fails left its followers to find out by themselves, an election timeout later.
#[test]
fn a_leader_that_halts_hands_over_at_once() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    cluster.propose(leader, 1, "kept");
    cluster.settle();
    let reason = HaltReason::Outside { group: GROUP, message: "the disk is gone".to_owned() };
    cluster.input(leader, Input::Halt { group: GROUP, reason });
    cluster.settle();
    assert_eq!(cluster.status(leader).role, Role::Halted);
    let next = cluster.leader().expect("somebody leads before any time went by");
    assert_ne!(next, leader);
    assert_eq!(cluster.texts(next), ["kept"]);
}

/// Story: a hand-over that somebody asked for was refused now and then, since no voter had been heard of lately: raft wipes
/// that mark of all members at each of its quorum checks, and the status was taken right after one.
#[test]
fn followers_that_answer_are_active_in_the_eyes_of_their_leader_at_every_tick() {
    let mut cluster = Cluster::new(3, 7);
    cluster.run_until("somebody leads", |cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    for round in 0..100 {
        cluster.tick_all();
        let active =
            |cluster: &Cluster| cluster.status(leader).peers.iter().filter(|peer| peer.active).count();
        assert_eq!(active(&cluster), 3, "tick {round}");
        cluster.settle();
        // Something to do, so that the group does not go to sleep.
        cluster.propose(leader, 1_000 + round, "kept awake");
    }
    let silent = (leader + 1) % 3;
    cluster.crash(silent);
    for _ in 0..=Ticks::default().election_max {
        cluster.tick_all();
        cluster.settle();
    }
    let status = cluster.status(leader);
    let is_active = |peer: &&PeerStatus| peer.active;
    assert_eq!(status.peers.iter().filter(is_active).count(), 2, "the silent one is not");
}
