//! `tidelog cluster status`: the catalogue's word for what should be, each node's own word for what is, and what lies between.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tidelog_client::{
    Client, ClientError, ClusterInfo, MemberGroup, MemberNode, NodeState, NodeStatus, Want,
};
use tidelog_wire::ids::{ClusterId, GroupId, NodeId, ReplicaId};
use tidelog_wire::protocol::{GroupInfo, ReplicaRole};
use tokio::task::JoinSet;

use crate::error::CliError;
use crate::output::{Answer, Output, table};
use crate::status::view::or_dash;

#[derive(Debug, Serialize)]
struct View {
    cluster_id: ClusterId,
    nodes: Vec<NodeView>,
    groups: Vec<GroupView>,
    /// What goes on by itself, in words; empty when everything is as it should be.
    under_way: Vec<String>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    id: NodeId,
    state: &'static str,
    ready: bool,
    version: String,
    /// The newest apply version that its release knows.
    apply_version: u16,
    /// Groups that it leads.
    leads: usize,
    /// Replicas that it should have.
    replicas: usize,
    certificate_expires: Option<String>,
    native: String,
    peer: String,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct GroupView {
    id: GroupId,
    leader: Option<NodeId>,
    members: Vec<MemberView>,
    settled: bool,
}

#[derive(Debug, Serialize)]
struct MemberView {
    node: NodeId,
    replica: ReplicaId,
    /// What the group says that it is.
    is: &'static str,
    /// What it should be.
    want: &'static str,
}

/// Prints it.
pub(super) async fn run(client: &Client, output: &Output) -> Result<(), CliError> {
    let info = client.cluster().await?;
    let mut asked = JoinSet::new();
    for member in info.nodes.iter().filter(|member| member.state != NodeState::Removed) {
        let (client, node) = (client.clone(), member.info.node);
        asked.spawn(async move { (node, client.node_status(node, false).await) });
    }
    let answers = asked.join_all().await.into_iter().collect();
    output.print(&view(&info, &answers));
    Ok(())
}

type Answers = BTreeMap<NodeId, Result<NodeStatus, ClientError>>;

fn view(info: &ClusterInfo, answers: &Answers) -> View {
    let leaders = leaders(answers);
    let nodes: Vec<_> = info.nodes.iter().map(|member| node_view(info, member, answers, &leaders)).collect();
    let groups: Vec<_> = info.groups.iter().map(|group| group_view(group, &leaders)).collect();
    let mut under_way: Vec<String> = info
        .nodes
        .iter()
        .filter_map(|member| match member.state {
            NodeState::Joining => Some(format!("node {} joins", member.info.node)),
            NodeState::Draining => Some(format!("node {} hands on what it holds", member.info.node)),
            NodeState::Active | NodeState::Removed => None,
        })
        .collect();
    under_way.extend(groups.iter().flat_map(open_steps));
    if !info.current {
        under_way
            .push("no majority of the meta group can be reached: this is what was known last".to_owned());
    }
    View { cluster_id: info.cluster, nodes, groups, under_way }
}

/// Who leads each group, by the word of whoever says so in the highest term.
fn leaders(answers: &Answers) -> BTreeMap<GroupId, (NodeId, &GroupInfo)> {
    let mut leaders: BTreeMap<GroupId, (NodeId, &GroupInfo)> = BTreeMap::new();
    for (node, status) in answers.iter().filter_map(|(node, answer)| Some((node, answer.as_ref().ok()?))) {
        for group in status.groups.iter().filter(|group| group.role == ReplicaRole::Leader) {
            let known = leaders.get(&group.group);
            if known.is_none_or(|(_, known)| known.term < group.term) {
                leaders.insert(group.group, (*node, group));
            }
        }
    }
    leaders
}

fn node_view(
    info: &ClusterInfo,
    member: &MemberNode,
    answers: &Answers,
    leaders: &BTreeMap<GroupId, (NodeId, &GroupInfo)>,
) -> NodeView {
    let node = member.info.node;
    let answer = answers.get(&node);
    let status = answer.and_then(|answer| answer.as_ref().ok());
    let wanted = info.groups.iter().flat_map(|group| &group.wanted);
    let expires = status.and_then(|status| status.certificate_expires);
    NodeView {
        id: node,
        state: match member.state {
            NodeState::Joining => "joining",
            NodeState::Active => "active",
            NodeState::Draining => "draining",
            NodeState::Removed => "removed",
        },
        ready: status.is_some_and(|status| status.ready),
        version: status.map_or(&member.info.version, |status| &status.info.version).clone(),
        apply_version: member.apply_version,
        leads: leaders.values().filter(|(leader, _)| *leader == node).count(),
        replicas: wanted.filter(|replica| replica.node == node && replica.want != Want::Gone).count(),
        certificate_expires: expires
            .and_then(|end| Timestamp::from_millisecond(end.get()).ok())
            .map(|end| end.to_string()),
        native: member.info.native.clone(),
        peer: member.peer.clone(),
        error: answer.and_then(|answer| answer.as_ref().err()).map(ToString::to_string),
    }
}

fn group_view(group: &MemberGroup, leaders: &BTreeMap<GroupId, (NodeId, &GroupInfo)>) -> GroupView {
    let members = group.wanted.iter().map(|replica| MemberView {
        node: replica.node,
        replica: replica.replica,
        is: if group.voters.contains(&replica.replica) {
            "voter"
        } else if group.learners.contains(&replica.replica) {
            "learner"
        } else {
            "none"
        },
        want: match replica.want {
            Want::Voter => "voter",
            Want::Learner => "learner",
            Want::Gone => "none",
        },
    });
    GroupView {
        id: group.group,
        leader: leaders.get(&group.group).map(|(node, _)| *node).or(group.leader),
        members: members.collect(),
        settled: group.is_settled(),
    }
}

/// What a group has still to do.
fn open_steps(group: &GroupView) -> impl Iterator<Item = String> {
    group.members.iter().filter(|member| member.is != member.want).map(|member| {
        let MemberView { node, replica, is, want } = member;
        match (*is, *want) {
            ("none", want) => {
                format!("group {}: replica {replica} on node {node} becomes a {want}", group.id)
            }
            (_, "none") => format!("group {}: replica {replica} on node {node} leaves", group.id),
            (is, want) => {
                format!("group {}: replica {replica} on node {node} turns from {is} to {want}", group.id)
            }
        }
    })
}

impl Answer for View {
    fn text(&self) -> String {
        let nodes: Vec<Vec<String>> = self.nodes.iter().map(NodeView::row).collect();
        let groups: Vec<Vec<String>> = self.groups.iter().map(GroupView::row).collect();
        let under_way = if self.under_way.is_empty() {
            "nothing is under way".to_owned()
        } else {
            format!("under way:\n  {}", self.under_way.join("\n  "))
        };
        format!(
            "cluster {}\n\n{}\n\n{}\n\n{under_way}",
            self.cluster_id,
            table(
                &["node", "state", "ready", "version", "apply", "leads", "replicas", "certificate", "native"],
                &nodes
            ),
            table(&["group", "leader", "members (node: is)", "settled"], &groups),
        )
    }
}

impl NodeView {
    fn row(&self) -> Vec<String> {
        let ready = match (&self.error, self.ready) {
            (Some(error), _) => error.clone(),
            (None, true) => "yes".to_owned(),
            (None, false) => "no".to_owned(),
        };
        vec![
            self.id.to_string(),
            self.state.to_owned(),
            ready,
            self.version.clone(),
            self.apply_version.to_string(),
            self.leads.to_string(),
            self.replicas.to_string(),
            self.certificate_expires.clone().unwrap_or_else(|| "does not expire".to_owned()),
            self.native.clone(),
        ]
    }
}

impl GroupView {
    fn row(&self) -> Vec<String> {
        let name = if self.id == GroupId::META { "0 (meta)".to_owned() } else { self.id.to_string() };
        let members = self.members.iter().map(|member| format!("{}: {}", member.node, member.is));
        let settled = if self.settled { "yes" } else { "no" };
        vec![name, or_dash(self.leader), members.collect::<Vec<_>>().join("; "), settled.to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use tidelog_client::{NodeInfo, WantedReplica};
    use tidelog_wire::ids::{BootEpoch, Incarnation};

    use super::*;

    #[test]
    fn what_lies_between_wanted_and_found_is_under_way() {
        let info = |node| NodeInfo {
            node,
            native: String::new(),
            kafka: None,
            admin: String::new(),
            version: "0.1.0".to_owned(),
        };
        let node = |number, state| MemberNode {
            info: info(NodeId(number)),
            peer: String::new(),
            incarnation: Incarnation(1),
            boot_epoch: BootEpoch(1),
            state,
            apply_version: 2,
        };
        let wanted =
            |replica, node, want| WantedReplica { replica: ReplicaId(replica), node: NodeId(node), want };
        let group = MemberGroup {
            group: GroupId(1),
            leader: Some(NodeId(0)),
            wanted: vec![wanted(1, 0, Want::Voter), wanted(2, 1, Want::Gone), wanted(3, 2, Want::Voter)],
            voters: vec![ReplicaId(1), ReplicaId(2)],
            learners: vec![ReplicaId(3)],
        };
        let nodes =
            vec![node(0, NodeState::Active), node(1, NodeState::Draining), node(2, NodeState::Joining)];
        let found = view(
            &ClusterInfo { cluster: ClusterId(1), current: true, nodes, groups: vec![group] },
            &Answers::new(),
        );
        assert_eq!(
            found.under_way,
            [
                "node 1 hands on what it holds",
                "node 2 joins",
                "group 1: replica 2 on node 1 leaves",
                "group 1: replica 3 on node 2 turns from learner to voter",
            ]
        );
        assert!(found.groups.iter().all(|group| !group.settled));
        assert!(found.text().contains("does not expire"), "{}", found.text());
    }
}
