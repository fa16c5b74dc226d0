//! `tidelog status`: asks one node for the cluster, every node for itself, and every replica for its chain.
//!
//! The chains of a partition are taken at one common offset, the least of the replicas' ends. A replica that is behind
//! then shows by that offset, never by an unequal chain: unequal chains always mean unequal histories.
//!
//! A node that does not answer is told with its reason; the rest is answered all the same.

pub(crate) mod view;

use std::collections::BTreeMap;

use tidelog_client::{Client, ClientError};
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset};
use tidelog_wire::protocol::{ChannelInfo, GroupInfo, MetadataInfo, NodeStatus, PartitionInfo, ReplicaRole};
use tokio::task::JoinSet;

use crate::error::CliError;
use crate::output::Output;
use view::{ChannelView, GroupReplica, GroupView, LogReplica, NodeView, PartitionView, Status};

/// What each node said of itself, or why it did not.
type Answers = BTreeMap<NodeId, Result<NodeStatus, ClientError>>;

/// Prints the status of the cluster.
pub(crate) async fn run(client: &Client, output: &Output) -> Result<(), CliError> {
    output.print(&gather(client).await?);
    Ok(())
}

/// The cluster as it is now.
pub(crate) async fn gather(client: &Client) -> Result<Status, CliError> {
    let metadata = client.metadata(None).await?;
    let answers = ask_nodes(client, &metadata).await;
    let mut channels = Vec::new();
    for channel in &metadata.channels {
        channels.push(channel_view(client, channel, &answers).await);
    }
    Ok(Status {
        cluster_id: metadata.cluster,
        nodes: metadata.nodes.iter().map(|node| node_view(node, answers.get(&node.node))).collect(),
        groups: group_views(&answers),
        channels,
    })
}

/// One channel as it is now.
pub(crate) async fn channel(client: &Client, name: &str) -> Result<ChannelView, CliError> {
    let metadata = client.metadata(None).await?;
    let answers = ask_nodes(client, &metadata).await;
    let channel = client.channel(name).await?;
    Ok(channel_view(client, &channel, &answers).await)
}

/// All nodes at once, so that those which do not answer are waited for together.
async fn ask_nodes(client: &Client, metadata: &MetadataInfo) -> Answers {
    let mut asked = JoinSet::new();
    for node in &metadata.nodes {
        let (client, node) = (client.clone(), node.node);
        asked.spawn(async move { (node, client.node_status(node, true).await) });
    }
    asked.join_all().await.into_iter().collect()
}

fn node_view(
    node: &tidelog_wire::protocol::NodeInfo,
    answer: Option<&Result<NodeStatus, ClientError>>,
) -> NodeView {
    let status = answer.and_then(|answer| answer.as_ref().ok());
    NodeView {
        id: node.node,
        pid: status.map(|status| status.pid),
        ready: status.is_some_and(|status| status.ready),
        native: node.native.clone(),
        kafka: node.kafka.clone(),
        admin: Some(node.admin.clone()),
        version: Some(status.map_or(&node.version, |status| &status.info.version).clone()),
        error: answer.and_then(|answer| answer.as_ref().err()).map(ToString::to_string),
    }
}

fn group_views(answers: &Answers) -> Vec<GroupView> {
    let mut groups: BTreeMap<GroupId, Vec<(NodeId, &GroupInfo)>> = BTreeMap::new();
    for (node, answer) in answers {
        for group in answer.iter().flat_map(|status| &status.groups) {
            groups.entry(group.group).or_default().push((*node, group));
        }
    }
    groups.into_iter().filter_map(|(id, replicas)| group_view(id, &replicas)).collect()
}

/// A group by its leader's word, of the highest term; without one, by the replica that has committed most.
fn group_view(id: GroupId, replicas: &[(NodeId, &GroupInfo)]) -> Option<GroupView> {
    let leading = replicas.iter().filter(|(_, group)| group.role == ReplicaRole::Leader);
    let leader = leading.max_by_key(|(_, group)| group.term);
    let furthest = replicas.iter().max_by_key(|(_, group)| (group.term, group.committed));
    let (_, word) = leader.or(furthest)?;
    let mut members: BTreeMap<NodeId, GroupReplica> = replicas
        .iter()
        .map(|(node, group)| {
            let is_leader = leader.is_some_and(|(leader, _)| leader == node);
            let match_index = is_leader.then_some(group.committed.max(group.applied));
            let role = role(group.role).to_owned();
            (*node, GroupReplica { node: *node, replica_id: group.replica, role, match_index })
        })
        .collect();
    for peer in leader.iter().flat_map(|(_, group)| &group.peers) {
        let unheard = GroupReplica {
            node: peer.node,
            replica_id: peer.replica,
            role: "unreachable".to_owned(),
            match_index: None,
        };
        members.entry(peer.node).or_insert(unheard).match_index = Some(peer.match_index);
    }
    Some(GroupView {
        id,
        leader: leader.map(|(node, _)| *node),
        term: word.term,
        committed: word.committed,
        applied: word.applied,
        replicas: members.into_values().collect(),
    })
}

fn role(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Follower => "follower",
        ReplicaRole::Candidate => "candidate",
        ReplicaRole::Leader => "leader",
        ReplicaRole::Learner => "learner",
        ReplicaRole::Halted => "halted",
        ReplicaRole::Removed => "removed",
    }
}

async fn channel_view(client: &Client, channel: &ChannelInfo, answers: &Answers) -> ChannelView {
    let mut partitions = Vec::new();
    for partition in &channel.partitions {
        partitions.push(partition_view(client, partition, answers).await);
    }
    ChannelView { name: channel.name.clone(), generation: channel.generation, partitions }
}

async fn partition_view(client: &Client, partition: &PartitionInfo, answers: &Answers) -> PartitionView {
    let ends = ends(partition.log, answers);
    let leader = leader_of(partition, answers);
    let of_leader = leader.and_then(|leader| ends.get(&leader));
    let common = ends.values().map(|(_, end)| *end).min();
    let mut replicas = Vec::new();
    for node in ends.keys() {
        let Some(offset) = common else { continue };
        let chain = client.chain_at(*node, partition.log, offset).await.ok();
        replicas.push(LogReplica { node: *node, offset, chain });
    }
    PartitionView {
        partition: partition.log.partition,
        group: partition.group,
        leader,
        log_start: of_leader.or(ends.values().next()).map(|(start, _)| *start),
        high_watermark: of_leader.map(|(_, end)| *end).or_else(|| ends.values().map(|(_, end)| *end).max()),
        replicas,
    }
}

/// Start and end of the log on each node that told.
fn ends(log: LogId, answers: &Answers) -> BTreeMap<NodeId, (Offset, Offset)> {
    answers
        .iter()
        .filter_map(|(node, answer)| {
            let status = answer.as_ref().ok()?;
            let found = status.logs.iter().find(|info| info.log == log)?;
            Some((*node, (found.log_start, found.end)))
        })
        .collect()
}

/// The node that says it leads the partition's group, in the highest term; metadata may be a moment behind.
fn leader_of(partition: &PartitionInfo, answers: &Answers) -> Option<NodeId> {
    let leading = answers.iter().filter_map(|(node, answer)| {
        let groups = &answer.as_ref().ok()?.groups;
        let group = groups.iter().find(|group| group.group == partition.group)?;
        (group.role == ReplicaRole::Leader).then_some((group.term, *node))
    });
    leading.max().map(|(_, node)| node)
}
