//! What `status` answers.

use serde::{Serialize, Serializer};
use tidelog_wire::ids::{
    Chain, ClusterId, Generation, GroupId, NodeId, Offset, Partition, RaftIndex, ReplicaId, Term,
};

use crate::output::{Answer, table};

/// The cluster as its nodes see it.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub(crate) cluster_id: ClusterId,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) groups: Vec<GroupView>,
    pub(crate) channels: Vec<ChannelView>,
}

/// A node; what it alone could say is missing when it does not answer.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    pub(crate) id: NodeId,
    pub(crate) pid: Option<u32>,
    pub(crate) ready: bool,
    pub(crate) native: String,
    pub(crate) kafka: Option<String>,
    pub(crate) admin: Option<String>,
    pub(crate) version: Option<String>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// A group, as its leader sees it, or the most advanced replica if none leads.
#[derive(Debug, Serialize)]
pub(crate) struct GroupView {
    pub(crate) id: GroupId,
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: Term,
    pub(crate) committed: RaftIndex,
    pub(crate) applied: RaftIndex,
    pub(crate) replicas: Vec<GroupReplica>,
}

/// A group's member.
#[derive(Debug, Serialize)]
pub(crate) struct GroupReplica {
    pub(crate) node: NodeId,
    pub(crate) replica_id: ReplicaId,
    pub(crate) role: String,
    /// How far the leader knows it to follow.
    pub(crate) match_index: Option<RaftIndex>,
}

/// A channel.
#[derive(Debug, Serialize)]
pub(crate) struct ChannelView {
    pub(crate) name: String,
    pub(crate) generation: Generation,
    pub(crate) partitions: Vec<PartitionView>,
}

/// One log of a channel.
#[derive(Debug, Serialize)]
pub(crate) struct PartitionView {
    pub(crate) partition: Partition,
    pub(crate) group: GroupId,
    pub(crate) leader: Option<NodeId>,
    pub(crate) log_start: Option<Offset>,
    pub(crate) high_watermark: Option<Offset>,
    /// Each replica's chain at the same offset: equal chains are equal histories.
    pub(crate) replicas: Vec<LogReplica>,
}

/// One replica of a log.
#[derive(Debug, Serialize)]
pub(crate) struct LogReplica {
    pub(crate) node: NodeId,
    pub(crate) offset: Offset,
    #[serde(serialize_with = "hexadecimal")]
    pub(crate) chain: Option<Chain>,
}

/// As text, since JSON readers round numbers of this size.
#[expect(clippy::ref_option, reason = "the shape that serde calls")]
fn hexadecimal<S: Serializer>(chain: &Option<Chain>, serializer: S) -> Result<S::Ok, S::Error> {
    chain.map(shown).serialize(serializer)
}

/// A chain as people compare it.
pub(crate) fn shown(chain: Chain) -> String {
    format!("{:016x}", chain.get())
}

/// The text of a value that may be missing.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl PartitionView {
    /// Whether the replicas that answered hold the same history.
    pub(crate) fn chains(&self) -> &'static str {
        let mut chains = self.replicas.iter().filter_map(|replica| replica.chain);
        match (chains.next(), self.replicas.iter().all(|replica| replica.chain.is_some())) {
            (None, _) => "-",
            (Some(first), _) if chains.any(|chain| chain != first) => "DIFFER",
            (Some(_), true) => "equal",
            (Some(_), false) => "equal so far",
        }
    }
}

impl Answer for Status {
    fn text(&self) -> String {
        let nodes: Vec<Vec<String>> = self.nodes.iter().map(node_row).collect();
        let groups: Vec<Vec<String>> = self.groups.iter().map(group_row).collect();
        let logs = self
            .channels
            .iter()
            .flat_map(|channel| channel.partitions.iter().map(|partition| partition_row(channel, partition)));
        let logs: Vec<Vec<String>> = logs.collect();
        format!(
            "cluster {}\n\n{}\n\n{}\n\n{}",
            self.cluster_id,
            table(&["node", "ready", "pid", "native", "admin", "version"], &nodes),
            table(
                &["group", "leader", "term", "committed", "applied", "replicas (node: role, matched)"],
                &groups
            ),
            table(&PARTITION_HEAD, &logs),
        )
    }
}

fn node_row(node: &NodeView) -> Vec<String> {
    let ready = match (&node.error, node.ready) {
        (Some(error), _) => error.clone(),
        (None, true) => "yes".to_owned(),
        (None, false) => "not yet".to_owned(),
    };
    vec![
        node.id.to_string(),
        ready,
        or_dash(node.pid),
        node.native.clone(),
        or_dash(node.admin.as_ref()),
        or_dash(node.version.as_ref()),
    ]
}

fn group_row(group: &GroupView) -> Vec<String> {
    let replicas = group
        .replicas
        .iter()
        .map(|replica| format!("{}: {}, {}", replica.node, replica.role, or_dash(replica.match_index)));
    let name = if group.id == GroupId::META { "0 (meta)".to_owned() } else { group.id.to_string() };
    vec![
        name,
        or_dash(group.leader),
        group.term.to_string(),
        group.committed.to_string(),
        group.applied.to_string(),
        replicas.collect::<Vec<_>>().join("; "),
    ]
}

/// Columns of [`partition_row`].
pub(crate) const PARTITION_HEAD: [&str; 8] =
    ["channel", "generation", "partition", "group", "leader", "log start", "high watermark", "chains"];

/// A partition as a row of a table.
pub(crate) fn partition_row(channel: &ChannelView, partition: &PartitionView) -> Vec<String> {
    let at = partition.replicas.iter().map(|replica| replica.offset).min();
    let chains = match at {
        Some(at) => format!("{} at {at}", partition.chains()),
        None => "-".to_owned(),
    };
    vec![
        channel.name.clone(),
        channel.generation.to_string(),
        partition.partition.to_string(),
        partition.group.to_string(),
        or_dash(partition.leader),
        or_dash(partition.log_start),
        or_dash(partition.high_watermark),
        chains,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(chains: &[Option<u64>]) -> PartitionView {
        let replica = |(node, chain): (u64, &Option<u64>)| LogReplica {
            node: NodeId(node),
            offset: Offset(10),
            chain: chain.map(Chain),
        };
        PartitionView {
            partition: Partition(0),
            group: GroupId(1),
            leader: Some(NodeId(2)),
            log_start: Some(Offset(0)),
            high_watermark: Some(Offset(10)),
            replicas: (0..).zip(chains).map(replica).collect(),
        }
    }

    #[test]
    fn unequal_chains_cannot_be_overlooked() {
        assert_eq!(partition(&[Some(1), Some(1), Some(1)]).chains(), "equal");
        assert_eq!(partition(&[Some(1), None, Some(1)]).chains(), "equal so far");
        assert_eq!(partition(&[Some(1), Some(2), None]).chains(), "DIFFER");
        assert_eq!(partition(&[None]).chains(), "-");
    }

    /// The keys that programs rely on.
    #[test]
    fn the_answer_has_exactly_the_promised_keys() {
        let status = Status {
            cluster_id: ClusterId(1),
            nodes: vec![NodeView {
                id: NodeId(0),
                pid: Some(7),
                ready: true,
                native: "127.0.0.1:1".to_owned(),
                kafka: None,
                admin: Some("127.0.0.1:2".to_owned()),
                version: Some("0.1.0".to_owned()),
                error: None,
            }],
            groups: vec![GroupView {
                id: GroupId(0),
                leader: Some(NodeId(0)),
                term: Term(2),
                committed: RaftIndex(9),
                applied: RaftIndex(9),
                replicas: vec![GroupReplica {
                    node: NodeId(0),
                    replica_id: ReplicaId(1),
                    role: "leader".to_owned(),
                    match_index: Some(RaftIndex(9)),
                }],
            }],
            channels: vec![ChannelView {
                name: "flights".to_owned(),
                generation: Generation(3),
                partitions: vec![partition(&[Some(255)])],
            }],
        };
        let expected = serde_json::json!({
            "cluster_id": "00000000000000000000000000000001",
            "nodes": [{ "id": 0, "pid": 7, "ready": true, "native": "127.0.0.1:1", "kafka": null,
                        "admin": "127.0.0.1:2", "version": "0.1.0" }],
            "groups": [{ "id": 0, "leader": 0, "term": 2, "committed": 9, "applied": 9, "replicas":
                         [{ "node": 0, "replica_id": 1, "role": "leader", "match_index": 9 }] }],
            "channels": [{ "name": "flights", "generation": 3, "partitions":
                [{ "partition": 0, "group": 1, "leader": 2, "log_start": 0, "high_watermark": 10, "replicas":
                   [{ "node": 0, "offset": 10, "chain": "00000000000000ff" }] }] }],
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
        assert!(status.text().contains("flights  "), "{}", status.text());
    }
}
