//! What a peer may send without harm.

use proptest::prelude::*;
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId};

use super::super::offer::OfferData;
use super::super::*;
use super::cluster::{Cluster, GROUP};

const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// A cluster with records, and one follower in it.
fn running() -> (Cluster, usize, usize) {
    let mut cluster = Cluster::new(3, 7);
    let leader = cluster.elect();
    for number in 0..10 {
        cluster.propose(leader, number, "kept");
    }
    cluster.settle();
    let follower = (leader + 1) % 3;
    (cluster, leader, follower)
}

fn replica(node: usize) -> u64 {
    u64::try_from(node).unwrap() + 1
}

fn node(node: usize) -> NodeId {
    NodeId(u64::try_from(node).unwrap())
}

fn message(kind: MessageType, from: usize, to: usize, term: u64) -> Message {
    let mut message = Message { from: replica(from), to: replica(to), term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn refusal(cluster: &mut Cluster, from: NodeId, to: usize, message: Message) -> MessageRefusal {
    let before = cluster.status(to);
    cluster.input(to, Input::Message { from, group: GROUP, message: Box::new(message) });
    assert_eq!(cluster.status(to), before, "a refused message changes nothing");
    cluster.refusals.pop().expect("refused").reason
}

#[test]
fn strangers_and_misdirected_messages_are_refused_by_name() {
    let (mut cluster, leader, follower) = running();
    let term = cluster.status(leader).term.get();
    let beat = message(MessageType::MsgHeartbeat, leader, follower, term);

    let other = node((leader + 2) % 3);
    let found = refusal(&mut cluster, other, follower, beat.clone());
    assert!(matches!(found, MessageRefusal::UnknownSender { .. }), "{found}");

    // Only one that begins something may be a member that is not known yet.
    let mut unknown = message(MessageType::MsgHeartbeatResponse, leader, follower, term);
    unknown.from = 99;
    let found = refusal(&mut cluster, node(leader), follower, unknown);
    assert!(matches!(found, MessageRefusal::UnknownSender { claimed: ReplicaId(99), .. }), "{found}");

    let elsewhere = Message { to: replica(leader), ..beat.clone() };
    let found = refusal(&mut cluster, node(leader), follower, elsewhere);
    assert!(matches!(found, MessageRefusal::WrongRecipient { .. }), "{found}");

    let group = GroupId(77);
    cluster.input(follower, Input::Message { from: node(leader), group, message: Box::new(beat) });
    assert_eq!(cluster.refusals.pop().unwrap().reason, MessageRefusal::UnknownGroup { group });
}

#[test]
fn kinds_that_only_a_node_itself_may_use_are_refused() {
    let (mut cluster, leader, follower) = running();
    for kind in [
        MessageType::MsgHup,
        MessageType::MsgBeat,
        MessageType::MsgPropose,
        MessageType::MsgUnreachable,
        MessageType::MsgSnapStatus,
        MessageType::MsgCheckQuorum,
        MessageType::MsgTransferLeader,
    ] {
        let found = refusal(&mut cluster, node(leader), follower, message(kind, leader, follower, 2));
        assert!(matches!(found, MessageRefusal::ForbiddenKind { .. }), "{found}");
    }
}

#[test]
fn entries_with_gaps_falling_terms_or_membership_changes_are_refused() {
    let (mut cluster, leader, follower) = running();
    let status = cluster.status(follower);
    let (last, term) = (status.last.get(), status.term.get());
    let entry = |index, term| Entry { index, term, ..Entry::default() };
    let mut conf = entry(last + 1, term);
    conf.set_entry_type(EntryType::EntryConfChange);
    let cases = [
        vec![entry(last + 2, term)],
        vec![entry(last, term)],
        vec![entry(last + 1, term), entry(last + 3, term)],
        vec![entry(last + 1, term), entry(last + 2, term - 1)],
        vec![entry(last + 1, term + 1)],
        vec![conf],
    ];
    for entries in cases {
        let mut append = message(MessageType::MsgAppend, leader, follower, term);
        append.index = last;
        append.log_term = term;
        append.set_entries(entries.into());
        let found = refusal(&mut cluster, node(leader), follower, append);
        assert!(
            matches!(found, MessageRefusal::EntriesOutOfOrder { .. } | MessageRefusal::Absurd { .. }),
            "{found}"
        );
    }
}

#[test]
fn a_heartbeat_that_knows_more_than_we_have_is_evidence_of_lost_memory() {
    let (mut cluster, leader, follower) = running();
    let mut beat = message(MessageType::MsgHeartbeat, leader, follower, cluster.status(leader).term.get());
    beat.commit = cluster.status(follower).last.get() + 1;
    cluster.input(follower, Input::Message { from: node(leader), group: GROUP, message: Box::new(beat) });
    assert!(matches!(cluster.halts[0].reason, HaltReason::LeaderKnowsMore { .. }));
    assert_eq!(cluster.status(follower).role, Role::Halted);
}

#[test]
fn another_entry_under_a_committed_index_halts_instead_of_stopping_the_process() {
    let (mut cluster, leader, follower) = running();
    let status = cluster.status(follower);
    let mut append = message(MessageType::MsgAppend, leader, follower, status.term.get() + 5);
    append.index = status.committed.get();
    append.log_term = status.term.get() + 1;
    cluster.input(follower, Input::Message { from: node(leader), group: GROUP, message: Box::new(append) });
    assert!(matches!(cluster.halts[0].reason, HaltReason::CommittedConflict { .. }));
}

/// A leader was paused while it had entries that nobody else had. When it went on, it found two appends of its successor in
/// one round: the first replaced those entries, and the second was held against what the store still had, not against what
/// raft had taken a moment before. So the replica halted for good and told of two committed histories.
#[test]
fn an_entry_replaced_earlier_in_the_same_round_is_no_second_history() {
    let (mut cluster, leader, other) = running();
    let before = cluster.status(leader);
    cluster.isolate(leader, true);
    cluster.propose(leader, 100, "of the paused leader alone");
    let (committed, term) = (before.committed.get(), before.term.get());
    assert_eq!(cluster.status(leader).last.get(), committed + 1);
    let append = |index, log_term, entries: Vec<Entry>| {
        let mut append = message(MessageType::MsgAppend, other, leader, term + 1);
        (append.index, append.log_term, append.commit) = (index, log_term, committed + 1);
        append.set_entries(entries.into());
        Input::Message { from: node(other), group: GROUP, message: Box::new(append) }
    };
    let instead = Entry { index: committed + 1, term: term + 1, ..Entry::default() };
    let first = append(committed, term, vec![instead]);
    cluster.round(leader, vec![first, append(committed + 1, term + 1, Vec::new())]);
    assert!(cluster.halts.is_empty(), "{:?}", cluster.halts);
    assert_eq!(cluster.status(leader).committed.get(), committed + 1);
}

/// A candidate whose candidacy is not on disk has asked nobody: votes for it are inventions, and would
/// make raft assert that its log is durable.
#[test]
fn votes_that_were_never_asked_for_do_not_elect() {
    let mut cluster = Cluster::new(3, 7);
    cluster.auto_persist = false;
    for _ in 0..500 {
        cluster.input(0, Input::Tick);
        let term = cluster.status(0).term.get();
        for from in [1, 2] {
            for kind in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
                let extra = u64::from(kind == MessageType::MsgRequestPreVoteResponse);
                let vote = message(kind, from, 0, term.max(1) + extra);
                cluster.input(0, Input::Message { from: node(from), group: GROUP, message: Box::new(vote) });
            }
        }
        cluster.wire.clear();
    }
    assert_ne!(cluster.status(0).role, Role::Leader);
    assert!(
        cluster.refusals.iter().any(|refusal| matches!(refusal.reason, MessageRefusal::Unsolicited { .. }))
    );
}

fn arbitrary_message() -> impl Strategy<Value = Message> {
    let number = || prop_oneof![0u64..20, Just(u64::MAX), Just(1 << 62), Just((1 << 62) + 1), 10u64..16];
    let entry = (number(), number(), 0i32..3, 0usize..40).prop_map(|(index, term, kind, length)| {
        let mut entry = Entry { index, term, data: vec![1; length].into(), ..Entry::default() };
        entry.set_entry_type(match kind {
            0 => EntryType::EntryNormal,
            1 => EntryType::EntryConfChange,
            _ => EntryType::EntryConfChangeV2,
        });
        entry
    });
    let follow = (number(), number(), 0u64..6).prop_map(|(index, term, count)| {
        (0..count)
            .map(|n| Entry { index: index.saturating_add(1 + n), term, ..Entry::default() })
            .collect::<Vec<_>>()
    });
    let entries = prop_oneof![proptest::collection::vec(entry, 0..4), follow];
    let snapshot = (number(), number(), proptest::collection::vec(0u64..5, 0..4), any::<bool>());
    let head = (0..KINDS.len(), 0u64..5, 0u64..5, number(), number(), number(), number());
    let rest = (entries, snapshot, any::<bool>(), number(), 0usize..80, any::<bool>(), number());
    (head, rest).prop_map(|(head, rest)| {
        let (kind, from, to, term, log_term, index, commit) = head;
        let (entries, (sindex, sterm, voters, with_offer), reject, hint, context, with_snapshot, commit_term) = rest;
        let mut message =
            Message { from, to, term, log_term, index, commit, commit_term, reject, reject_hint: hint, ..Message::default() };
        message.set_msg_type(KINDS[kind]);
        message.context = vec![3; context].into();
        message.set_entries(entries.into());
        if with_snapshot {
            let mut snapshot = Snapshot::default();
            snapshot.mut_metadata().index = sindex;
            snapshot.mut_metadata().term = sterm;
            let mut conf = ConfState::default();
            conf.set_voters(voters);
            snapshot.mut_metadata().set_conf_state(conf);
            if with_offer {
                snapshot.data = OfferData { digest: 1, manifest_bytes: 10, nodes: (0..5).map(|id| (ReplicaId(id), NodeId(id))).collect() }.encode();
            }
            message.set_snapshot(snapshot);
        }
        message
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No sequence of messages, however absurd, stops the process: neither at a leader, nor at a
    /// follower, nor in the middle of an election, nor while the disk is slow.
    #[test]
    fn no_message_of_a_peer_panics(messages in proptest::collection::vec((0usize..3, arbitrary_message(), 0u8..4), 1..60)) {
        let (mut cluster, leader, _) = running();
        cluster.auto_persist = false;
        for (to, mut message, then) in messages {
            // Make most of them pass the first door.
            message.to = replica(to);
            let from = if message.from % 2 == 0 { (to + 1) % 3 } else { (to + 2) % 3 };
            message.from = replica(from);
            let term = cluster.status(to).term.get();
            if message.term < 16 && message.get_msg_type() != MessageType::MsgReadIndex {
                message.term = (term + message.term / 6).max(1);
            }
            cluster.input(to, Input::Message { from: node(from), group: GROUP, message: Box::new(message) });
            match then {
                0 => cluster.tick_all(),
                1 => { cluster.persist(to); }
                2 => cluster.propose(leader, 1_000_000, "between"),
                _ => {}
            }
            // The oracle of agreement is not meant for liars.
            cluster.wire.clear();
            for snapshot in std::mem::take(&mut cluster.machines[to].effects.fetches) {
                let input = Input::SnapshotStaged { group: GROUP, snapshot: snapshot.snapshot, result: Staged::Ready };
                cluster.input(to, input);
            }
            cluster.forget_truth();
        }
        let _status = (0..3).map(|node| cluster.status(node)).collect::<Vec<_>>();
    }
}

#[test]
fn applied_reports_from_before_are_ignored() {
    let (mut cluster, leader, _) = running();
    let before = cluster.status(leader);
    cluster.input(leader, Input::Applied { group: GROUP, index: RaftIndex(2) });
    assert_eq!(cluster.status(leader), before);
}
