//! Whole nodes in one process: real disks, real QUIC over loopback, real time. Nothing sleeps; every
//! wait is for a condition, with a deadline that only a failure reaches.

#[cfg(test)]
mod amnesia;
#[cfg(test)]
mod generations;
#[cfg(test)]
mod growing;
#[cfg(test)]
mod nodes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nodes::{Cluster, PATIENCE, batch, produce, read_all};
use tidelog_consensus::core::Role;
use tidelog_consensus::entry::{Command, MetaCommand, NewChannel};
use tidelog_consensus::outcome::{Outcome, Refusal};
use tidelog_consensus::runtime::ProposeError;
use tidelog_wire::ids::{ChannelUuid, GroupId, Offset, TimestampMs};
use tokio::task::JoinSet;

/// A node alone: a channel, records, a stop, a start; everything is there and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_keeps_its_records_over_a_restart() {
    let mut cluster = Cluster::bootstrap(1).await;
    let log = cluster.create_channel("flights", 2).await;
    for number in 0..20_u64 {
        let outcome = cluster.append(log, &format!("record {number}")).await;
        assert!(matches!(outcome, Outcome::Appended { base_offset, .. } if base_offset == Offset(number)));
    }
    cluster.stop(0).await;
    cluster.start(0).await;
    cluster.ready().await;
    let outcome = cluster.append(log, "after").await;
    assert!(matches!(outcome, Outcome::Appended { base_offset: Offset(20), .. }));
    assert_eq!(read_all(cluster.node(0), log).len(), 21);
}

/// Three nodes elect leaders, replicate, and all of them come to have the same records.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_replicate_to_each_other() {
    let cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    let mut last = Offset(0);
    for number in 0..50_u64 {
        if let Outcome::Appended { last_offset, .. } = cluster.append(log, &format!("record {number}")).await
        {
            last = last_offset;
        }
    }
    assert_eq!(last, Offset(49));
    for node in 0..3 {
        cluster.caught_up(node, log, Offset(50)).await;
    }
    let first = read_all(cluster.node(0), log);
    assert_eq!(first.len(), 50);
    assert_eq!(read_all(cluster.node(1), log), first);
    assert_eq!(read_all(cluster.node(2), log), first);
}

/// The leader dies without a word; another takes over; everything acknowledged is there, also on the
/// dead one once it is back, which catches up from the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_catches_up_when_it_is_back() {
    let mut cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    let mut acknowledged = 0;
    for number in 0..30_u64 {
        cluster.append(log, &format!("before {number}")).await;
        acknowledged += 1;
    }
    let leader = cluster.leader_of(log).await;
    cluster.kill(leader).await;
    for number in 0..30_u64 {
        cluster.append(log, &format!("after {number}")).await;
        acknowledged += 1;
    }
    cluster.start(leader).await;
    cluster.ready().await;
    for node in 0..3 {
        cluster.caught_up(node, log, Offset(acknowledged)).await;
    }
    let first = read_all(cluster.node(0), log);
    let expected: Vec<_> = (0..30)
        .map(|number| format!("before {number}"))
        .chain((0..30).map(|number| format!("after {number}")))
        .collect();
    assert_eq!(first, expected, "each acknowledged record once, in order");
    assert_eq!(read_all(cluster.node(leader), log), first);
}

/// All nodes die at once. What was acknowledged is there when they are back.
#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_lose_nothing_acknowledged() {
    let mut cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    for number in 0..40_u64 {
        cluster.append(log, &format!("record {number}")).await;
    }
    for node in 0..3 {
        cluster.kill(node).await;
    }
    for node in 0..3 {
        cluster.start(node).await;
    }
    cluster.ready().await;
    cluster.append(log, "after").await;
    for node in 0..3 {
        cluster.caught_up(node, log, Offset(41)).await;
        assert_eq!(read_all(cluster.node(node), log).len(), 41);
    }
}

/// Many producers at once, and the leader is killed in the middle of it, again and again. Everything that
/// was acknowledged is at the offset that was promised, on every node.
#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed_under_load_lose_nothing_acknowledged() {
    let mut cluster = Cluster::bootstrap_with(3, |config| config.tuning.checkpoints.bytes = 20_000).await;
    let log = cluster.create_channel("flights", 1).await;
    let mut acknowledged = BTreeMap::new();
    for round in 0..4 {
        let progress = Arc::new(AtomicU64::new(0));
        let mut producers = JoinSet::new();
        for producer in 0..8 {
            let (handles, progress) = (cluster.handles(), Arc::clone(&progress));
            let name = format!("round {round}, producer {producer}");
            producers.spawn(produce(handles, cluster.group_of(log), log, name, 40, progress));
        }
        let enough = async {
            while progress.load(Ordering::Relaxed) < 60 {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, enough).await.is_ok(), "the producers got no further");
        let leader = cluster.leader_of(log).await;
        cluster.kill(leader).await;
        while let Some(offsets) = producers.join_next().await {
            acknowledged.extend(offsets.unwrap());
        }
        cluster.start(leader).await;
    }
    let end = Offset(acknowledged.last_key_value().unwrap().0 + 1);
    for node in 0..3 {
        cluster.caught_up(node, log, end).await;
        let values = read_all(cluster.node(node), log);
        for (offset, value) in &acknowledged {
            assert_eq!(&values[usize::try_from(*offset).unwrap()], value, "node {node}, offset {offset}");
        }
    }
    assert!(acknowledged.len() > 1_000, "{} records were acknowledged", acknowledged.len());
}

/// A node that is told to stop hands its groups over before it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_node_hands_leadership_over() {
    let mut cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    cluster.append(log, "before").await;
    let leader = cluster.leader_of(log).await;
    cluster.stop(leader).await;
    let other = cluster.node((leader + 1) % 3);
    let group = cluster.group_of(log);
    // The others know a new leader already: no election timeout has to pass.
    let new = other.leader(group);
    assert!(new.is_some_and(|node| node.get() != u64::try_from(leader).unwrap()), "led by {new:?}");
    cluster.append(log, "after").await;
}

/// A follower takes no proposals, and says who does.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    let leader = cluster.leader_of(log).await;
    let follower = cluster.node((leader + 1) % 3);
    let command = Command::Append { log, append_time: TimestampMs(1), batch: batch("x") };
    let answer = follower.submit(cluster.group_of(log), command, PATIENCE).await;
    let leader = tidelog_wire::ids::NodeId(u64::try_from(leader).unwrap());
    assert_eq!(answer, Err(ProposeError::NotLeader { leader: Some(leader) }));
}

/// Without a quorum nothing is acknowledged. A leader says that it may still be; one that noticed before the
/// append came has stepped down, says so, and names no other.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_an_append_is_not_acknowledged() {
    let mut cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    let leader = cluster.leader_of(log).await;
    for node in (0..3).filter(|node| *node != leader) {
        cluster.kill(node).await;
    }
    let command = Command::Append { log, append_time: TimestampMs(1), batch: batch("x") };
    let group = cluster.group_of(log);
    let answer = cluster.node(leader).submit(group, command, Duration::from_millis(300)).await;
    let stepped_down = ProposeError::NotLeader { leader: None };
    assert!([Err(ProposeError::MayHaveCommitted), Err(stepped_down)].contains(&answer), "{answer:?}");
}

/// A read barrier on a follower sees what was acknowledged before.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_barrier_on_a_follower_sees_what_was_acknowledged() {
    let cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    let leader = cluster.leader_of(log).await;
    let follower = cluster.node((leader + 1) % 3);
    for number in 0..10_u64 {
        cluster.append(log, &format!("record {number}")).await;
        let group = cluster.group_of(log);
        let index = follower.read_index(group, PATIENCE).await.unwrap();
        follower.wait_applied(group, index, PATIENCE).await.unwrap();
        assert_eq!(follower.reader(log).unwrap().end(), Offset(number + 1));
    }
}

/// Damage in the middle of a raft log: it is set aside whole, the node starts and says what to do, its
/// replicas take no part, and the others go on. Nobody has to touch the directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_raft_log_is_set_aside_and_the_node_starts() {
    let mut cluster = Cluster::bootstrap_with(3, |config| {
        config.tuning.raft_log.file_bytes = 8 << 10;
        config.tuning.raft_log.purge_bytes = 4 << 20;
    })
    .await;
    let log = cluster.create_channel("flights", 1).await;
    for number in 0..60 {
        cluster.append(log, &format!("{number} {}", "x".repeat(1000))).await;
    }
    cluster.caught_up(2, log, Offset(60)).await;
    cluster.kill(2).await;
    cluster.damage_raft_log(2);
    cluster.start(2).await;
    let node = cluster.node(2);
    assert!(node.group_status().iter().all(|status| status.role == Role::Halted));
    let notes = node.recovery_notes();
    assert!(notes.iter().any(|note| note.starts_with("E1102")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("set aside")), "{notes:?}");
    cluster.append(log, "after").await;
}

/// The same name twice is refused by the catalogue, as an outcome.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_channel_of_the_same_name_is_refused() {
    let cluster = Cluster::bootstrap(1).await;
    cluster.create_channel("flights", 1).await;
    let command = Command::Meta(MetaCommand::CreateChannels(vec![NewChannel {
        name: "flights".to_owned(),
        uuid: ChannelUuid(77),
        partitions: 1,
        replicas: None,
        segment_bytes: 1 << 20,
    }]));
    let answer = cluster.node(0).submit(GroupId::META, command, PATIENCE).await;
    let Ok(Outcome::ChannelsCreated(created)) = answer else { panic!("{answer:?}") };
    assert!(matches!(created[..], [Err(Refusal::ChannelExists { .. })]), "{created:?}");
}

/// Small checkpoints make the raft log forget; a node that is restarted then begins from its checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_let_the_raft_log_forget() {
    let mut cluster = Cluster::bootstrap_with(1, |config| config.tuning.checkpoints.bytes = 2_000).await;
    let log = cluster.create_channel("flights", 1).await;
    for number in 0..200_u64 {
        cluster.append(log, &format!("record {number}")).await;
    }
    let group = cluster.group_of(log);
    let mut statuses = cluster.node(0).watch_statuses();
    let forgotten = statuses
        .wait_for(|statuses| statuses.iter().any(|status| status.group == group && status.first.get() > 50));
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap().unwrap();
    cluster.kill(0).await;
    cluster.start(0).await;
    cluster.ready().await;
    assert_eq!(read_all(cluster.node(0), log).len(), 200);
}

/// A follower was away for so long that the others have forgotten what it lacks. It gets a snapshot, and
/// then goes on from the log; over a restart, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_for_long_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::bootstrap_with(3, |config| config.tuning.checkpoints.bytes = 2_000).await;
    let log = cluster.create_channel("flights", 1).await;
    cluster.append(log, "record 0").await;
    cluster.caught_up(2, log, Offset(1)).await;
    let group = cluster.group_of(log);
    let behind = cluster.status(2, group).last;
    cluster.kill(2).await;
    let mut count = 1;
    loop {
        cluster.append(log, &format!("record {count}")).await;
        count += 1;
        if (0..2).all(|node| cluster.status(node, group).first > behind) {
            break;
        }
        assert!(count < 5_000, "nothing is forgotten");
    }
    cluster.start(2).await;
    cluster.caught_up(2, log, Offset(count)).await;
    assert_eq!(read_all(cluster.node(2), log), read_all(cluster.node(0), log));

    cluster.kill(2).await;
    cluster.start(2).await;
    cluster.append(log, "after").await;
    cluster.caught_up(2, log, Offset(count + 1)).await;
    assert_eq!(read_all(cluster.node(2), log), read_all(cluster.node(0), log));
}

/// A replica whose raft log lost its end is not started: its votes are ahead. The others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_raft_log_is_noticed_and_the_others_go_on() {
    let mut cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    cluster.append(log, "before").await;
    cluster.kill(2).await;
    cluster.forget_raft_log(2);
    cluster.start(2).await;
    let statuses = cluster.node(2).group_status();
    assert!(statuses.iter().all(|status| status.role == Role::Halted), "{statuses:?}");
    let readiness = cluster.node(2).readiness();
    assert!(!readiness.ready);
    assert!(readiness.halted.iter().all(|(_, why)| why.starts_with("E12")), "{:?}", readiness.halted);
    cluster.append(log, "after").await;
}
