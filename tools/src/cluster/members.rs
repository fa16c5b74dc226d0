//! Nodes that come, go, and come back empty.
//!
//! Each command first does what only it can do (a certificate, a process, one entry in the meta group), and then waits until the
//! nodes have done the rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tidelog_client::{Client, ClusterInfo, NodeState};
use tidelog_wire::ids::NodeId;
use tidelog_wire::protocol::{GroupInfo, ReplicaRole};
use tokio::time::Instant;

use super::arguments::{AddNode, RemoveNode, ReplaceNode};
use super::settle;
use crate::error::CliError;
use crate::local::{self, Layout, NewNode};
use crate::local_commands::{server_program, spinner};
use crate::online::{self, Patience};
use crate::output::{Answer, Output};

/// How long the others may take to have leaders again.
const SUFFICE_MAX: Duration = Duration::from_secs(15);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Serialize)]
struct Changed {
    node: NodeId,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_aside: Option<PathBuf>,
    #[serde(skip)]
    said: &'static str,
}

impl Answer for Changed {
    fn text(&self) -> String {
        let aside = self
            .set_aside
            .as_ref()
            .map(|path| format!("; what was left of its data is in {}", path.display()));
        format!("node {} {}{}", self.node, self.said, aside.unwrap_or_default())
    }
}

/// A client of the cluster: of the profile that was given, or else of the directory's own.
fn client(profile: Option<&Path>, dir: Option<&Path>) -> Result<Client, CliError> {
    let own = dir.map(|dir| Layout::existing(dir).map(|layout| layout.profile())).transpose()?;
    online::connect(own.as_deref().or(profile), Patience::Work)
}

/// Adds a node.
pub(super) async fn add(add: AddNode, profile: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let server = server_program(&add.server)?;
    let client = client(profile, add.dir.as_deref())?;
    let seconds = add.server.wait_seconds;
    let bar = spinner("waiting until the new node serves");
    let begun = match (&add.dir, add.node_dir, add.ca) {
        (Some(dir), _, _) => local::add_node(dir, &server, seconds).await.map(NodeId),
        (None, Some(folder), Some(ca)) => {
            let info = settle::until(&client, "asking who is a member", seconds, nobody).await?;
            let new = new_node(&info, folder, ca, add.base_port)?;
            local::make_node(&new, &server, seconds).await.map(|_| new.node)
        }
        // The command line allows nothing else.
        (None, _, _) => Err(CliError::NoProfile),
    };
    bar.finish_and_clear();
    let node = begun?;
    settle::all(&client, "filling the new node", add.waiting.change_seconds, node).await?;
    if let Some(dir) = &add.dir {
        Layout::existing(dir)?.set_joined(node.get())?;
    }
    output.print(&Changed { node, set_aside: None, said: "is a member and holds what it should" });
    Ok(())
}

/// Whether no member has said yet where others reach it, as one that has just started.
fn nobody(info: &ClusterInfo) -> Option<String> {
    let unknown = info.nodes.iter().all(|member| member.peer.is_empty());
    unknown.then(|| "no member has said yet where others reach it".to_owned())
}

/// What a node in a folder of its own needs to know of the cluster.
fn new_node(
    info: &ClusterInfo,
    folder: PathBuf,
    ca: PathBuf,
    base_port: Option<u16>,
) -> Result<NewNode, CliError> {
    let last = info.nodes.iter().map(|member| member.info.node.get()).max();
    let node = local::begun_node(&folder)?.unwrap_or(NodeId(last.map_or(0, |last| last + 1)));
    let able = |state| matches!(state, NodeState::Active | NodeState::Joining);
    let members = info
        .nodes
        .iter()
        .filter(|member| able(member.state) && member.info.node != node && !member.peer.is_empty())
        .map(|member| (member.info.node, member.peer.clone()));
    Ok(NewNode { node, folder, ca, base_port, members: members.collect() })
}

/// Removes a node: drained, forgotten, and its process stopped.
pub(super) async fn remove(
    remove: RemoveNode,
    profile: Option<&Path>,
    output: &Output,
) -> Result<(), CliError> {
    let node = NodeId(remove.node);
    let client = client(profile, remove.dir.as_deref())?;
    let state = |info: &ClusterInfo| {
        info.nodes.iter().find(|member| member.info.node == node).map(|member| member.state)
    };
    let info = client.cluster().await?;
    match state(&info) {
        None => {
            let have: Vec<String> = info.nodes.iter().map(|member| member.info.node.to_string()).collect();
            return Err(CliError::NoNode { node: node.get(), have: have.join(", ") });
        }
        Some(NodeState::Removed) => {}
        Some(NodeState::Joining | NodeState::Active | NodeState::Draining) => {
            client.drain_node(node).await?;
            let what = "moving everything off the node";
            settle::until(&client, what, remove.waiting.change_seconds, |info| settle::held(info, node))
                .await?;
            client.forget_node(node).await?;
        }
    }
    if let Some(dir) = &remove.dir
        && Layout::existing(dir)?.check_node(node.get()).is_ok()
    {
        let bar = spinner("waiting until its process has stopped");
        let ended = local::end_node(dir, node.get()).await;
        bar.finish_and_clear();
        ended?;
    }
    output.print(&Changed { node, set_aside: None, said: "left the cluster" });
    Ok(())
}

/// Replaces a node's data directory by an empty one that is filled from the others.
pub(super) async fn replace(
    replace: ReplaceNode,
    profile: Option<&Path>,
    output: &Output,
) -> Result<(), CliError> {
    let node = NodeId(replace.node);
    let server = server_program(&replace.server)?;
    let layout = Layout::existing(&replace.dir)?;
    layout.check_node(node.get())?;
    let client = client(profile, Some(&replace.dir))?;
    if !layout.is_joining(node.get()) {
        others_suffice(&client, node).await?;
    }
    let bar = spinner("waiting until the node serves with its new directory");
    let seconds = replace.server.wait_seconds;
    let replaced = local::replace_node(&replace.dir, node.get(), &server, seconds).await;
    bar.finish_and_clear();
    let set_aside = replaced?;
    settle::all(&client, "filling the node", replace.waiting.change_seconds, node).await?;
    Layout::existing(&replace.dir)?.set_joined(node.get())?;
    output.print(&Changed { node, set_aside, said: "is a member again, and holds what it should" });
    Ok(())
}

/// Refuses unless every group that `node` belongs to has a quorum without it, by the word of its leader. An election may be
/// under way, so it looks for a while.
async fn others_suffice(client: &Client, node: NodeId) -> Result<(), CliError> {
    let deadline = Instant::now() + SUFFICE_MAX;
    loop {
        match lacking(client, node).await? {
            None => return Ok(()),
            Some(reason) if Instant::now() >= deadline => {
                return Err(CliError::UnsafeChange { node: node.get(), reason });
            }
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// The first group that lacks a quorum without `node`, in words.
async fn lacking(client: &Client, node: NodeId) -> Result<Option<String>, CliError> {
    let info = client.cluster().await?;
    let mut leaders: Vec<GroupInfo> = Vec::new();
    for member in info.nodes.iter().filter(|member| member.state != NodeState::Removed) {
        if let Ok(status) = client.node_status(member.info.node, false).await {
            leaders.extend(status.groups.into_iter().filter(|group| group.role == ReplicaRole::Leader));
        }
    }
    for group in &info.groups {
        if !group.wanted.iter().any(|replica| replica.node == node) {
            continue;
        }
        let leader = leaders.iter().filter(|led| led.group == group.group).max_by_key(|led| led.term);
        let reason = match leader {
            None => format!("group {} has no leader that answers", group.group),
            Some(led) => {
                let voters = led.peers.iter().filter(|peer| !peer.learner);
                let count = voters.clone().count();
                let others =
                    voters.filter(|peer| peer.node != node && (peer.active || peer.replica == led.replica));
                let others = others.count();
                // The node's own voter is replaced before it counts again: until then the others must do.
                if others > count / 2 {
                    continue;
                }
                format!("group {} has {count} voters, and only {others} others can be heard", group.group)
            }
        };
        return Ok(Some(reason));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use tidelog_client::{MemberNode, NodeInfo};
    use tidelog_wire::ids::{BootEpoch, ClusterId, Incarnation};

    use super::*;
    use crate::files::{self, Access};

    fn member(node: u64, state: NodeState) -> MemberNode {
        let info = NodeInfo {
            node: NodeId(node),
            native: String::new(),
            kafka: None,
            admin: String::new(),
            version: String::new(),
        };
        let peer = format!("127.0.0.1:{}", 7401 + 10 * node);
        let (incarnation, boot_epoch) = (Incarnation(1), BootEpoch(1));
        MemberNode { info, peer, incarnation, boot_epoch, state, apply_version: 2 }
    }

    #[test]
    fn a_number_is_never_given_twice_and_only_members_are_asked() {
        let silent = MemberNode { peer: String::new(), ..member(0, NodeState::Active) };
        let starting =
            ClusterInfo { cluster: ClusterId(1), current: true, nodes: vec![silent], groups: Vec::new() };
        assert!(nobody(&starting).is_some(), "nobody can be asked to let anyone in yet");
        let folder = tempfile::tempdir().unwrap();
        let nodes = vec![member(0, NodeState::Active), member(1, NodeState::Removed)];
        let info = ClusterInfo { cluster: ClusterId(1), current: true, nodes, groups: Vec::new() };
        let new = new_node(&info, folder.path().to_owned(), PathBuf::from("ca"), None).unwrap();
        assert_eq!(new.node, NodeId(2), "1 was somebody");
        assert_eq!(new.members, [(NodeId(0), "127.0.0.1:7401".to_owned())]);
        let begun = "node = 7\nbase_port = 100\n";
        files::replace(&folder.path().join("config.toml"), begun, Access::Public).unwrap();
        let again = new_node(&info, folder.path().to_owned(), PathBuf::from("ca"), None).unwrap();
        assert_eq!(again.node, NodeId(7), "what was begun there goes on");
    }
}
