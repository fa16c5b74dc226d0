//! Nodes that have forgotten what they promised: each piece of evidence, and that none of them ever plays its old
//! replicas again. Where a quorum lives they come back by themselves, under new ids, refilled and counted.
#![expect(clippy::disallowed_methods, reason = "what somebody does to a directory from outside")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tidelog_consensus::core::Role;
use tidelog_consensus::outcome::Outcome;
use tidelog_consensus::recover;
use tidelog_consensus::runtime::{GivenUp, Start};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset, ReplicaId, TimestampMs};

use super::nodes::{Cluster, PATIENCE, read_all};

/// Three nodes with some records, and which replicas count.
async fn three_with_records() -> (Cluster, LogId, BTreeMap<GroupId, Vec<ReplicaId>>) {
    let cluster = Cluster::bootstrap_with(3, |config| config.tuning.checkpoints.bytes = 20_000).await;
    let log = cluster.create_channel("flights", 1).await;
    for number in 0..20 {
        cluster.append(log, &format!("record {number}")).await;
    }
    for node in 0..3 {
        cluster.caught_up(node, log, Offset(20)).await;
    }
    let voters = cluster.voters_are(&[0, 1, 2]).await;
    (cluster, log, voters)
}

/// Node 2 is back: counted everywhere under ids that nobody had, with every record; writes go on.
async fn node_2_is_back_anew(cluster: &Cluster, log: LogId, before: &BTreeMap<GroupId, Vec<ReplicaId>>) {
    let end = read_all(cluster.node(0), log).len();
    let old = ReplicaId(3);
    let counted = async {
        loop {
            let after = cluster.voters_are(&[0, 1, 2]).await;
            if after.values().all(|voters| !voters.contains(&old)) {
                return after;
            }
            cluster.something_changes().await;
        }
    };
    let Ok(after) = tokio::time::timeout(PATIENCE, counted).await else {
        panic!("the old replicas stay: {}", cluster.seen())
    };
    for (group, voters) in &after {
        let new: Vec<_> = voters.iter().filter(|voter| !before[group].contains(voter)).collect();
        assert_eq!(new.len(), 1, "group {group}: {voters:?} after {:?}", before[group]);
    }
    cluster.caught_up(2, log, Offset(u64::try_from(end).unwrap())).await;
    assert_eq!(read_all(cluster.node(2), log), read_all(cluster.node(0), log));
    cluster.append(log, "after").await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The directory is lost, and the node started to join.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_that_joins_comes_back_under_new_ids() {
    let (mut cluster, log, before) = three_with_records().await;
    cluster.kill(2).await;
    std::fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.append(log, "while it was away").await;
    cluster.start_as(2, Start::Join).await;
    node_2_is_back_anew(&cluster, log, &before).await;
}

/// The directory is lost, and the node is started as at its very first time: with `--bootstrap`, and before the others.
/// It must not found a second cluster, nor take part in the first under ids that it no longer remembers.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_started_first_of_three_with_bootstrap_joins_the_others() {
    let (mut cluster, log, before) = three_with_records().await;
    for node in 0..3 {
        cluster.kill(node).await;
    }
    std::fs::remove_dir_all(cluster.data(2)).unwrap();
    cluster.start(2).await;
    cluster.start(0).await;
    cluster.start(1).await;
    let why = cluster.begin_anew(2).await;
    assert!(why.starts_with("E1126"), "{why}");
    node_2_is_back_anew(&cluster, log, &before).await;
}

/// An old copy of the whole directory is put back: its boot epoch is not above the one that the others know.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_a_directory_begins_a_new_life() {
    let (mut cluster, log, before) = three_with_records().await;
    let (data, kept) = (cluster.data(2), tempfile::tempdir().unwrap());
    cluster.kill(2).await;
    copy(&data, kept.path());
    for _ in 0..2 {
        cluster.start(2).await;
        cluster.ready().await;
        cluster.append(log, "acknowledged with its help").await;
        cluster.kill(2).await;
    }
    std::fs::remove_dir_all(&data).unwrap();
    copy(kept.path(), &data);
    cluster.start(2).await;
    let why = cluster.begin_anew(2).await;
    assert!(why.contains("boot epoch"), "{why}");
    node_2_is_back_anew(&cluster, log, &before).await;
}

/// The raft log is gone, or so damaged that it is set aside whole: nobody knows what its replicas promised.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_raft_log_is_lost_begins_a_new_life() {
    let (mut cluster, log, before) = three_with_records().await;
    cluster.kill(2).await;
    cluster.forget_raft_log(2);
    cluster.append(log, "while it was away").await;
    cluster.start(2).await;
    assert!(cluster.node(2).group_status().iter().all(|status| status.role == Role::Halted));
    let why = cluster.begin_anew(2).await;
    assert!(why.starts_with("E1125"), "{why}");
    node_2_is_back_anew(&cluster, log, &before).await;
}

/// Only the raft log is an old copy: the votes and the checkpoints know more than it does. Each replica stays out, and a
/// successor on the same node takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_of_a_raft_log_is_noticed_and_its_replicas_are_replaced() {
    let (mut cluster, log, before) = three_with_records().await;
    let (raft, kept) = (cluster.data(2).join("raft"), tempfile::tempdir().unwrap());
    cluster.kill(2).await;
    copy(&raft, kept.path());
    cluster.start(2).await;
    cluster.ready().await;
    // It votes in later terms, which the votes file remembers.
    for _ in 0..2 {
        for group in cluster.node(0).groups() {
            for node in 0..3 {
                let to = Some(NodeId(u64::try_from((node + 1) % 3).unwrap()));
                // Whoever does not lead refuses.
                cluster.node(node).transfer(group, to, PATIENCE).await.unwrap_or_default();
            }
        }
    }
    for number in 0..100 {
        cluster.append(log, &format!("more {number} {}", "x".repeat(1_000))).await;
    }
    cluster.caught_up(2, log, Offset(120)).await;
    cluster.stop(2).await;
    std::fs::remove_dir_all(&raft).unwrap();
    copy(kept.path(), &raft);
    cluster.start(2).await;
    node_2_is_back_anew(&cluster, log, &before).await;
}

/// Two of three nodes are wiped and bootstrapped anew with the same authority, and the third comes back with the old state:
/// one cluster id, two clusters. It is fenced and names both; nobody panics; the new ones serve; and one command takes it in.
#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_bootstrapped_anew_and_the_third_that_kept_its_state_are_fenced_from_each_other() {
    let (mut cluster, log, _) = three_with_records().await;
    cluster.stop(2).await;
    for node in [0, 1] {
        cluster.kill(node).await;
    }
    for node in [0, 1] {
        std::fs::remove_dir_all(cluster.data(node)).unwrap();
        cluster.start(node).await;
    }
    cluster.ready().await;
    let founding = cluster.node(0).catalogue().founding().unwrap();
    cluster.start(2).await;
    let node = cluster.node(2);
    let old = node.catalogue().founding().unwrap();
    assert_ne!(old, founding);
    // It stays what it was, and neither side hears the other.
    let refused = async {
        let transport = node.transport().unwrap();
        while transport.metrics().handshakes_failed.value() < 3 {
            tokio::task::yield_now().await;
        }
        transport.connected()
    };
    let connected = tokio::time::timeout(PATIENCE, refused).await.expect("they refuse each other");
    assert_eq!(connected, []);
    assert!(!node.readiness().ready);
    assert_eq!(read_all(node, log).len(), 20, "what it has can still be read");
    // Somebody decides for the new ones.
    cluster.kill(2).await;
    let given_up = GivenUp::Everything;
    cluster.start_as(2, Start::Rejoin { given_up }).await;
    cluster.voters_are(&[0, 1, 2]).await;
    assert!(cluster.node(2).reader(log).is_none(), "no stale life is served");
}

/// A node alone cannot be refilled. It can be read up to its last checkpoint, and says what may be done. Once somebody has
/// accepted the loss it goes on from there, and gives nothing a number that it may have given before.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_that_lost_its_raft_log_can_be_read_and_goes_on_once_the_loss_is_accepted() {
    let mut cluster = Cluster::bootstrap(1).await;
    let log = cluster.create_channel("flights", 1).await;
    for number in 0..20 {
        cluster.append(log, &format!("record {number}")).await;
    }
    cluster.stop(0).await;
    let (storage, now): (Arc<dyn Storage>, _) = (Arc::new(OsStorage), TimestampMs(1));
    let refused = recover::accept_loss(&storage, &cluster.data(0), now).unwrap_err().to_string();
    assert!(refused.starts_with("E1142"), "{refused}");
    // What is written now is in no checkpoint.
    cluster.start(0).await;
    cluster.ready().await;
    cluster.append(log, "acknowledged after the checkpoint").await;
    cluster.kill(0).await;
    cluster.forget_raft_log(0);

    cluster.start(0).await;
    let node = cluster.node(0);
    assert_eq!(read_all(node, log).len(), 20);
    let halted = node.readiness().halted;
    assert_eq!(halted.len(), node.groups().len());
    assert!(halted.iter().all(|(_, why)| why.contains("cluster recover --accept-loss")), "{halted:?}");
    cluster.kill(0).await;

    let would = recover::examine(&storage, &cluster.data(0), now).unwrap();
    let loss = recover::accept_loss(&storage, &cluster.data(0), now).unwrap();
    assert_eq!(would, loss);
    assert_eq!(loss.kept.len(), 3, "the meta group and two more: {loss:?}");
    cluster.start(0).await;
    cluster.ready().await;
    let outcome = cluster.append(log, "after").await;
    assert!(matches!(outcome, Outcome::Appended { base_offset: Offset(20), .. }), "{outcome:?}");
    assert_eq!(read_all(cluster.node(0), log).len(), 21);
    let next = cluster.create_channel_with("hotels", 1, 2).await;
    assert!(next.generation.get() > log.generation.get() + 1_000_000, "{next}");
    assert!(cluster.status(0, GroupId::META).replica > ReplicaId(1_000_000));
    // And over a restart, too.
    cluster.kill(0).await;
    cluster.start(0).await;
    cluster.ready().await;
    assert_eq!(read_all(cluster.node(0), log).len(), 21);
}
