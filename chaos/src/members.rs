//! Nodes that come and go: a directory is wiped or replaced by an older copy, nodes are added and others removed.
//!
//! What is asked for goes on by itself inside the cluster. Here it is only waited for, until every group has the members that it
//! should have: who takes a second replica away while the first is still being filled loses what was acknowledged, and no
//! cluster can help that.

use std::time::Duration;

use tidelog_wire::ids::{NodeId, ReplicaId};
use tidelog_wire::protocol::{ClusterInfo, NodeState};
use tokio::time::Instant;

use crate::cluster::{Begin, How};
use crate::error::ChaosError;
use crate::stage::Stage;

/// How long a change of members may take, under load and on a busy machine.
const SETTLE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Stage {
    /// A node's disk is replaced: it comes back under its number with nothing, and is filled from the others.
    pub(crate) async fn wipe(&mut self, node: u64) -> Result<(), ChaosError> {
        self.cluster.end(node, How::Kill).await?;
        self.cluster.layout.wipe(node)?;
        self.join(node).await
    }

    /// A node's disk is put back as it was before: it must notice by itself that others know more of it than it does, and be
    /// filled anew.
    pub(crate) async fn put_old_copy_back(&mut self, node: u64) -> Result<(), ChaosError> {
        self.cluster.end(node, How::Kill).await?;
        self.cluster.layout.copy_data(node)?;
        self.cluster.start_all(&[node], Begin::Resume).await?;
        self.progress().await?;
        self.cluster.end(node, How::Kill).await?;
        self.cluster.layout.put_copy_back(node)?;
        self.cluster.start_all(&[node], Begin::Resume).await?;
        let when = format!("after node {node} was given an older copy of its disk");
        self.settled(&when, |info| state(info, node) == Some(NodeState::Active)).await
    }

    /// One node more, or two; then as many less, whichever.
    pub(crate) async fn change_members(&mut self) -> Result<(), ChaosError> {
        let mut spare: Vec<u64> = self.cluster.layout.nodes().to_vec();
        spare.retain(|node| !self.nodes.contains(node));
        self.dice.shuffle(&mut spare);
        let count = if self.dice.percent(50) { 1 } else { spare.len() };
        for node in spare.iter().take(count) {
            self.join(*node).await?;
            self.nodes.push(*node);
        }
        for _ in spare.iter().take(count) {
            let nodes = self.nodes.clone();
            let Some(node) = self.dice.pick(&nodes) else { return Ok(()) };
            self.leave(node).await?;
        }
        Ok(())
    }

    /// Starts a node without a directory, and waits until every group has its members.
    async fn join(&mut self, node: u64) -> Result<(), ChaosError> {
        let mut members = self.nodes.clone();
        members.retain(|member| *member != node);
        self.cluster.layout.write_config(node, &members)?;
        self.cluster.start(node, Begin::Join)?;
        self.cluster.ready(&[node]).await?;
        self.settled(&format!("after node {node} joined"), |info| {
            state(info, node) == Some(NodeState::Active)
        })
        .await
    }

    /// Moves everything off a node, ends its membership and its process, and removes its directory.
    async fn leave(&mut self, node: u64) -> Result<(), ChaosError> {
        self.client.drain_node(NodeId(node)).await?;
        let gone = |info: &ClusterInfo| state(info, node) == Some(NodeState::Removed);
        self.settled(&format!("after node {node} was drained"), gone).await?;
        self.nodes.retain(|member| *member != node);
        self.cluster.end(node, How::Terminate).await?;
        self.cluster.layout.wipe(node)
    }

    /// Waits until every group has the members that it should have, and `holds` does too.
    async fn settled(&self, when: &str, holds: impl Fn(&ClusterInfo) -> bool) -> Result<(), ChaosError> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let said = match self.client.cluster().await {
                Ok(info)
                    if info.current && holds(&info) && info.groups.iter().all(|group| group.is_settled()) =>
                {
                    return Ok(());
                }
                Ok(info) => unsettled(&info),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                let what = format!("every group has its members {when}; it says: {said}");
                return Err(ChaosError::Late { what, seconds: SETTLE.as_secs() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn state(info: &ClusterInfo, node: u64) -> Option<NodeState> {
    let found = info.nodes.iter().find(|member| member.info.node == NodeId(node));
    found.map(|member| member.state)
}

/// What is under way, in words.
fn unsettled(info: &ClusterInfo) -> String {
    let nodes: Vec<String> =
        info.nodes.iter().map(|member| format!("node {} {:?}", member.info.node, member.state)).collect();
    let under_way = info.groups.iter().filter(|group| !group.is_settled());
    let groups: Vec<String> = under_way
        .map(|group| {
            let wanted = group
                .wanted
                .iter()
                .map(|replica| format!("{:?} {} on node {}", replica.want, replica.replica, replica.node));
            let wanted = wanted.collect::<Vec<_>>().join(", ");
            let (voters, learners) = (numbers(&group.voters), numbers(&group.learners));
            format!("group {} wants {wanted}, has voters {voters} and learners {learners}", group.group)
        })
        .collect();
    format!("{}; {}", nodes.join(", "), groups.join("; "))
}

fn numbers(replicas: &[ReplicaId]) -> String {
    replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{ClusterId, GroupId};
    use tidelog_wire::protocol::{MemberGroup, Want, WantedReplica};

    use super::*;

    #[test]
    fn what_is_under_way_is_said_and_what_is_settled_is_not() {
        let group = |group, voters| MemberGroup {
            group: GroupId(group),
            leader: None,
            wanted: vec![WantedReplica { replica: ReplicaId(4), node: NodeId(2), want: Want::Voter }],
            voters,
            learners: Vec::new(),
        };
        let groups = vec![group(1, vec![ReplicaId(4)]), group(2, vec![ReplicaId(1), ReplicaId(2)])];
        let said =
            unsettled(&ClusterInfo { cluster: ClusterId(1), current: true, nodes: Vec::new(), groups });
        assert_eq!(said, "; group 2 wants Voter 4 on node 2, has voters 1 2 and learners ");
    }
}
