//! Nodes that join, and nodes that leave.

use tidelog_consensus::apply::node_state::NodeState;
use tidelog_consensus::entry::{Command, MetaCommand};
use tidelog_wire::ids::{GroupId, NodeId, Offset};

use super::nodes::{Cluster, PATIENCE, read_all};

/// A node alone, as anybody starts it, becomes three, while records are written: no stop, no copying by hand. Every
/// group counts a replica on each of them in the end, and all have every record.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_grows_to_three_while_it_is_written() {
    let mut cluster = Cluster::bootstrap_with(1, |config| config.tuning.checkpoints.bytes = 20_000).await;
    let log = cluster.create_channel("flights", 1).await;
    let mut written = 0;
    for _ in 0..2 {
        for _ in 0..40 {
            cluster.append(log, &format!("record {written}")).await;
            written += 1;
        }
        cluster.join().await;
    }
    for _ in 0..40 {
        cluster.append(log, &format!("record {written}")).await;
        written += 1;
    }
    cluster.voters_are(&[0, 1, 2]).await;
    let expected: Vec<_> = (0..written).map(|number| format!("record {number}")).collect();
    for node in 0..3 {
        cluster.caught_up(node, log, Offset(written)).await;
        assert_eq!(read_all(cluster.node(node), log), expected, "node {node}");
    }
    // It is a cluster now: the first node is not needed any more.
    cluster.kill(0).await;
    cluster.append(log, "after").await;
}

/// A node that joins and is killed in the midst of it goes on when it is started again, in the same way.
#[tokio::test(flavor = "multi_thread")]
async fn joining_goes_on_after_a_kill() {
    let mut cluster = Cluster::bootstrap(1).await;
    let log = cluster.create_channel("flights", 1).await;
    cluster.append(log, "before").await;
    cluster.join().await;
    let joined = cluster.join().await;
    cluster.kill(joined).await;
    cluster.start(joined).await;
    cluster.voters_are(&[0, 1, 2]).await;
    cluster.caught_up(joined, log, Offset(1)).await;
}

/// A node that is drained loses its replicas to the others, and is forgotten once it has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_leaves_and_the_others_go_on() {
    let mut cluster = Cluster::bootstrap(3).await;
    let log = cluster.create_channel("flights", 1).await;
    cluster.append(log, "before").await;
    cluster.join().await;
    let leaving = NodeId(1);
    cluster.propose(GroupId::META, || Command::Meta(MetaCommand::DrainNode { node: leaving })).await;
    let mut catalogue = cluster.node(0).watch_catalogue();
    let left = catalogue.wait_for(|catalogue| catalogue.node_state(leaving) == Some(NodeState::Removed));
    tokio::time::timeout(PATIENCE, left).await.expect("the node is empty and forgotten").unwrap();
    cluster.kill(1).await;
    cluster.voters_are(&[0, 2, 3]).await;
    cluster.append(log, "after").await;
    for node in [0, 2, 3] {
        cluster.caught_up(node, log, Offset(2)).await;
    }
}
