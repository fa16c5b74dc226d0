//! Whole processes: started, killed, stopped and started again.
#![expect(clippy::disallowed_methods, reason = "tests read and write the files of the processes they start")]

#[cfg(test)]
mod cluster;

use std::net::UdpSocket;
use std::time::Duration;

use cluster::{Cluster, alone, batch_of, get, numbered, run, until};
use tidelog_wire::ids::{NodeId, Offset};
use tidelog_wire::protocol::{ErrorCode, Request, Retry};
use tokio::io::AsyncWriteExt as _;

/// How long a stopping leader waits for another node to take over.
const HAND_OVER: Duration = Duration::from_secs(2);

/// The first thing a newcomer does: start it, write, stop it, start it, read.
#[tokio::test(flavor = "multi_thread")]
async fn a_bare_start_makes_a_cluster_of_one_that_keeps_its_records_over_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut node, mut client) = alone(&data).await;
    let log = client.create("orders").await.unwrap();
    for number in 0..100 {
        let offset = client.produce(log, &numbered(number..number + 1)).await.unwrap();
        assert_eq!(offset, Offset(u64::from(number)));
    }
    let profile = std::fs::read_to_string(data.join("client.toml")).unwrap();
    assert!(profile.contains("tls/client.pem") && profile.contains(&node.native.to_string()), "{profile}");
    let logged = node.logged();
    assert!(
        logged.lines().any(|line| line.contains("tidelogd runs") && line.contains("cluster=")),
        "{logged}"
    );
    let stopping = std::time::Instant::now();
    assert_eq!(node.terminate().await.code(), Some(0));
    assert!(stopping.elapsed() < HAND_OVER, "a node that is alone waits for nobody to take over");
    assert!(!node.logged().contains("taken over"), "nor complains that nobody did: {}", node.logged());

    let (mut node, mut client) = alone(&data).await;
    assert_eq!(client.values(log).await, numbered(0..100));
    let status = client.status().await;
    assert!(status.ready);
    assert_eq!(status.logs[0].end, Offset(100));
    assert_eq!(node.terminate().await.code(), Some(0));
}

/// Killed in the middle of a stream, three times over: everything acknowledged is there again, in order, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut acknowledged = Vec::new();
    let mut log = None;
    for round in 0..3 {
        let (node, mut client) = alone(&data).await;
        let log = match log {
            Some(log) => log,
            None => *log.insert(client.create("orders").await.unwrap()),
        };
        let before = client.values(log).await;
        assert_eq!(before[..acknowledged.len()], acknowledged[..], "round {round}");
        // A batch whose answer was cut off may or may not be there; whatever is there now stays.
        acknowledged = before;
        for number in 0..200_u64 {
            let value = vec![format!("round {round} value {number}")];
            assert!(client.send(number, &Request::Produce { log }, &batch_of(&value)).await);
        }
        for _ in 0..150 {
            let answer = client.answer().await.unwrap();
            answer.answer.unwrap();
        }
        acknowledged.extend((0..150).map(|number| format!("round {round} value {number}")));
        node.kill().await;
    }
    let (_node, mut client) = alone(&data).await;
    let found = client.values(log.unwrap()).await;
    assert_eq!(found[..acknowledged.len()], acknowledged[..]);
}

/// A node that can no longer keep its promises gives none: it ends at once, by a code of its own, and what it had
/// acknowledged is there once the disk is well again.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_writes_ends_the_node_and_takes_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (mut node, mut client) = alone(&data).await;
    let log = client.create("orders").await.unwrap();
    client.produce(log, &numbered(0..10)).await.unwrap();
    node.refuse_writes();
    assert!(client.send(1, &Request::Produce { log }, &batch_of(&numbered(10..20))).await);
    assert_eq!(node.ended().await.code(), Some(3));
    let answer = client.answer().await;
    assert!(answer.is_none_or(|frame| frame.answer.is_err()), "what cannot be kept is not acknowledged");

    let (_node, mut client) = alone(&data).await;
    assert_eq!(client.values(log).await[..10], numbered(0..10)[..]);
}

/// Whoever still asks for a channel's former life is told which one it is in now, and is never given its records.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_generation_is_answered_with_the_present_one() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, mut client) = alone(&folder.path().join("data")).await;
    let old = client.create("orders").await.unwrap();
    client.produce(old, &numbered(0..3)).await.unwrap();
    let deletion = Request::DeleteChannel { name: "orders".to_owned(), generation: Some(old.generation) };
    client.ask(deletion, &[]).await.0.unwrap();
    let error = client.produce(old, &numbered(0..1)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownChannel);
    let new = client.create("orders").await.unwrap();
    let error = client.produce(old, &numbered(0..1)).await.unwrap_err();
    let (asked, current) = (old.generation, new.generation);
    assert_eq!(error.code, ErrorCode::GenerationMismatch { asked, current });
    assert_eq!(client.values(new).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_in_use_is_refused_and_its_owner_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (_node, mut client) = alone(&data).await;
    let second = run(&["--data-dir", data.to_str().unwrap(), "--base-port", "0"]).await;
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(text.contains("E0"), "the error has its code: {text}");
    client.create("orders").await.unwrap();
}

#[tokio::test]
async fn a_wrong_configuration_starts_nothing_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let cases: [(&[&str], &str); 3] = [
        (&["--raft-data-groups", "none"], "E2204"),
        (&["--host", "10.1.2.3"], "E2206"),
        (&["--tick", "5"], "unexpected argument"),
    ];
    for (flags, expected) in cases {
        let output = run(&[&["--data-dir", data], flags].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(expected), "{text}");
    }
    assert!(!folder.path().join("data").exists());
}

/// A member of a cluster whose directory is gone must not found a second cluster.
#[tokio::test]
async fn a_member_without_its_directory_does_not_start_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let output = run(&[
        "--data-dir",
        &path("data"),
        "--peers",
        "1=127.0.0.1:7411",
        "--tls-ca",
        &path("ca"),
        "--tls-cert",
        &path("c"),
        "--tls-key",
        &path("k"),
    ])
    .await;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("E2210"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_every_port_leaves_the_node_unharmed() {
    let folder = tempfile::tempdir().unwrap();
    let (node, mut client) = alone(&folder.path().join("data")).await;
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peers = std::net::SocketAddr::new(node.native.ip(), node.native.port() + 1);
    for size in [1_usize, 20, 1200, 1400] {
        for fill in [0x00, 0x40, 0xc3, 0xff] {
            udp.send_to(&vec![fill; size], node.native).unwrap();
            udp.send_to(&vec![fill; size], peers).unwrap();
        }
    }
    let mut tcp = tokio::net::TcpStream::connect(node.admin).await.unwrap();
    tcp.write_all(&[0xff; 1000]).await.unwrap();
    let log = client.create("orders").await.unwrap();
    client.produce(log, &numbered(0..3)).await.unwrap();
    assert_eq!(client.values(log).await, numbered(0..3));
    assert_eq!(get(node.admin, "/healthz").await.unwrap().0, 200);
    assert!(client.is_open());
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_lose_their_leader_and_nothing_else() {
    let mut cluster = Cluster::start().await;
    let mut client = cluster.client(0).await;
    let meta = client.status().await.groups[0].leader.unwrap().get();
    let mut client = cluster.client(meta).await;
    let log = client.create("orders").await.unwrap();
    let leader = client.metadata().await.channels[0].partitions[0].leader.unwrap().get();
    let mut client = cluster.client(leader).await;
    for number in 0..50 {
        client.produce(log, &numbered(number..number + 1)).await.unwrap();
    }
    // Another node refuses and says who leads.
    let follower = (leader + 1) % 3;
    let error = cluster.client(follower).await.produce(log, &numbered(0..1)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotLeader { leader: Some(NodeId(leader)) });

    cluster.nodes.remove(&leader).unwrap().kill().await;
    let next = until("another leader", || async {
        let metadata = cluster.client(follower).await.metadata().await;
        metadata.channels[0].partitions[0].leader.map(NodeId::get).filter(|next| *next != leader)
    })
    .await;
    let mut client = cluster.client(next).await;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 50..100 {
        while let Err(error) = client.produce(log, &numbered(number..number + 1)).await {
            assert!(matches!(error.retry, Retry::Here { .. }), "a new leader only asks to wait: {error}");
            pace.tick().await;
        }
    }

    // The one that was killed comes back, catches up, and all three hold the same history.
    cluster.start_node(leader, &[]).await;
    cluster.ready().await;
    for node in 0..3 {
        until("every node to have every record", || async {
            let status = cluster.client(node).await.status().await;
            status.logs.iter().any(|found| found.log == log && found.end == Offset(100)).then_some(())
        })
        .await;
    }
    let mut chains = Vec::new();
    for node in 0..3 {
        let mut client = cluster.client(node).await;
        assert_eq!(client.values(log).await, numbered(0..100), "node {node}");
        chains.push(client.chain_at(log, Offset(100)).await);
    }
    assert_eq!(chains[0], chains[1]);
    assert_eq!(chains[1], chains[2]);
    for node in cluster.nodes.values_mut() {
        assert_eq!(node.terminate().await.code(), Some(0));
    }
}

/// A leader that is told to stop waits a while for others to take over; whoever cannot wait says so a second time.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_a_stop_that_waits_for_others() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.client(0).await.status().await.groups[0].leader.unwrap().get();
    for node in (0..3).filter(|node| *node != leader) {
        cluster.nodes.remove(&node).unwrap().kill().await;
    }
    let node = cluster.nodes.get_mut(&leader).unwrap();
    node.ask_to_stop();
    until("the stop to begin", || async {
        node.logged().contains("a second signal stops at once").then_some(())
    })
    .await;
    assert_eq!(node.terminate().await.code(), Some(4));
}
