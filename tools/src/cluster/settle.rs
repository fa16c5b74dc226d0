//! Waits until what was agreed on is so, and says meanwhile what is missing.
//!
//! Nothing here moves anything: the nodes do that by themselves. A command that gives up waiting has changed nothing by it.

use std::time::Duration;

use tidelog_client::{Client, ClientError, ClusterInfo, NodeState};
use tidelog_wire::ids::NodeId;
use tokio::time::Instant;

use crate::error::CliError;
use crate::progress;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What is still missing, in words; nothing when it is so.
type Missing = Option<String>;

/// Waits until `missing` finds nothing any more. Nodes that do not answer meanwhile are asked again.
pub(super) async fn until(
    client: &Client,
    what: &str,
    seconds: u64,
    missing: impl Fn(&ClusterInfo) -> Missing,
) -> Result<ClusterInfo, CliError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let bar = progress::waiting(what.to_owned());
    loop {
        let waiting_for = match client.cluster().await {
            Ok(info) if !info.current => "a majority of the meta group".to_owned(),
            Ok(info) => match missing(&info) {
                None => {
                    bar.finish_and_clear();
                    return Ok(info);
                }
                Some(text) => text,
            },
            Err(error @ (ClientError::Unreachable { .. } | ClientError::Timeout { .. })) => error.to_string(),
            Err(error) => return Err(error.into()),
        };
        if Instant::now() >= deadline {
            bar.finish_and_clear();
            return Err(CliError::NotSettled { seconds, waiting_for });
        }
        bar.set_message(format!("{what}: {waiting_for}"));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until every group has what is wanted of it, and the nodes want nothing more.
pub(super) async fn all(client: &Client, what: &str, seconds: u64, node: NodeId) -> Result<(), CliError> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        until(client, what, left, |info| unsettled(info, node)).await?;
        // What is wanted is wanted step by step: done is done when there is no next step.
        match client.rebalance(true).await?.replicas.first() {
            None => return Ok(()),
            Some(next) if Instant::now() >= deadline => {
                return Err(CliError::NotSettled { seconds, waiting_for: next.clone() });
            }
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// What a cluster that gained `node` still lacks.
fn unsettled(info: &ClusterInfo, node: NodeId) -> Missing {
    match info.nodes.iter().find(|member| member.info.node == node).map(|member| member.state) {
        Some(NodeState::Active) => {}
        None => return Some(format!("node {node} has not joined yet")),
        Some(NodeState::Joining | NodeState::Draining | NodeState::Removed) => {
            return Some(format!("node {node} is not active yet"));
        }
    }
    let open: Vec<String> =
        info.groups.iter().filter(|group| !group.is_settled()).map(|group| group.group.to_string()).collect();
    let done = info.groups.len() - open.len();
    let first = open.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
    (!open.is_empty())
        .then(|| format!("{done} of {} groups have their members; open: {first}", info.groups.len()))
}

/// What a node that is to leave still holds.
pub(super) fn held(info: &ClusterInfo, node: NodeId) -> Missing {
    let held = info.groups.iter().filter(|group| {
        let on_node = group.wanted.iter().filter(|replica| replica.node == node);
        on_node.into_iter().any(|replica| {
            group.voters.contains(&replica.replica)
                || group.learners.contains(&replica.replica)
                || replica.want != tidelog_client::Want::Gone
        })
    });
    let held: Vec<String> = held.map(|group| group.group.to_string()).collect();
    (!held.is_empty()).then(|| format!("node {node} still holds groups {}", held.join(", ")))
}

#[cfg(test)]
mod tests {
    use tidelog_client::{MemberGroup, Want, WantedReplica};
    use tidelog_wire::ids::{ClusterId, GroupId, ReplicaId};

    use super::*;

    fn info(replicas: &[(u64, u64, Want)], voters: &[u64]) -> ClusterInfo {
        let wanted = |(replica, node, want): &(u64, u64, Want)| WantedReplica {
            replica: ReplicaId(*replica),
            node: NodeId(*node),
            want: *want,
        };
        let group = MemberGroup {
            group: GroupId(3),
            leader: None,
            wanted: replicas.iter().map(wanted).collect(),
            voters: voters.iter().copied().map(ReplicaId).collect(),
            learners: Vec::new(),
        };
        ClusterInfo { cluster: ClusterId(1), current: true, nodes: Vec::new(), groups: vec![group] }
    }

    #[test]
    fn a_node_holds_a_group_until_the_group_says_that_it_does_not() {
        let leaving = [(1, 0, Want::Voter), (2, 1, Want::Gone)];
        let text = held(&info(&leaving, &[1, 2]), NodeId(1)).unwrap();
        assert!(text.contains("groups 3"), "{text}");
        assert_eq!(held(&info(&leaving, &[1]), NodeId(1)), None);
        assert!(held(&info(&leaving, &[1]), NodeId(0)).is_some());
    }
}
