//! Leaders and replicas where they should be.

use serde::Serialize;
use tidelog_client::{Balance, Client, NodeStatus};
use tidelog_wire::ids::{GroupId, NodeId};
use tidelog_wire::protocol::{GroupInfo, ReplicaRole};

use super::arguments::TransferLeader;
use crate::error::CliError;
use crate::output::{Answer, Output};

#[derive(Serialize)]
struct Transferred {
    groups: Vec<TransferredGroup>,
}

#[derive(Serialize)]
struct TransferredGroup {
    group: GroupId,
    to: NodeId,
}

impl Answer for Transferred {
    fn text(&self) -> String {
        if self.groups.is_empty() {
            return "nothing to hand over".to_owned();
        }
        let line =
            |group: &TransferredGroup| format!("group {}: handed over to node {}", group.group, group.to);
        self.groups.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Hands leadership over; on return another node leads.
pub(super) async fn transfer(
    transfer: &TransferLeader,
    client: &Client,
    output: &Output,
) -> Result<(), CliError> {
    let to = transfer.to.map(NodeId);
    let mut groups = Vec::new();
    match (transfer.group, transfer.node, to) {
        (Some(group), _, Some(to)) => groups.push(TransferredGroup { group: GroupId(group), to }),
        (_, Some(node), to) => {
            let status = client.node_status(NodeId(node), false).await?;
            for group in led(&status) {
                match to.filter(|to| *to != NodeId(node)).or_else(|| most_advanced(group)) {
                    Some(to) => groups.push(TransferredGroup { group: group.group, to }),
                    None => return Err(CliError::NobodyToLead { group: group.group }),
                }
            }
        }
        (Some(_) | None, None, _) => {}
    }
    for group in &groups {
        client.transfer_leader(group.group, group.to).await?;
    }
    output.print(&Transferred { groups });
    Ok(())
}

/// The groups that a node leads.
fn led(status: &NodeStatus) -> impl Iterator<Item = &GroupInfo> {
    status.groups.iter().filter(|group| group.role == ReplicaRole::Leader)
}

/// The voter that has most of the log, of those that were heard of lately.
fn most_advanced(group: &GroupInfo) -> Option<NodeId> {
    let others = group.peers.iter().filter(|peer| peer.replica != group.replica);
    let able = others.filter(|peer| peer.active && !peer.learner);
    able.max_by_key(|peer| peer.match_index).map(|peer| peer.node)
}

#[derive(Serialize)]
struct Rebalanced {
    dry_run: bool,
    replicas: Vec<String>,
    leaders: Vec<String>,
}

impl Answer for Rebalanced {
    fn text(&self) -> String {
        let steps: Vec<&str> = self.replicas.iter().chain(&self.leaders).map(String::as_str).collect();
        match (steps.is_empty(), self.dry_run) {
            (true, _) => "nothing to do: replicas and leaders are spread evenly".to_owned(),
            (false, true) => format!("would be done:\n{}", steps.join("\n")),
            (false, false) => {
                format!("agreed on, and goes on by itself (`tidelog cluster status`):\n{}", steps.join("\n"))
            }
        }
    }
}

/// Spreads replicas and leaders, or says what that would take.
pub(super) async fn rebalance(dry_run: bool, client: &Client, output: &Output) -> Result<(), CliError> {
    let Balance { replicas, leaders } = client.rebalance(dry_run).await?;
    output.print(&Rebalanced { dry_run, replicas, leaders });
    Ok(())
}
