//! The catalogue's members in the words of the native protocol, and what clients want of them.

use std::sync::Arc;

use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::apply::catalogue::Node;
use tidelog_consensus::apply::group_placement::GroupPlacement;
use tidelog_consensus::apply::node_state;
use tidelog_consensus::entry;
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId};
use tidelog_wire::protocol::{
    Answer, ClusterInfo, CreatedChannel, MemberGroup, MemberNode, NewChannel, NodeInfo, NodeState, Want,
    WantedReplica,
};

use super::reply;
use super::requests::node_info;
use crate::broker::{Broker, BrokerError, CreateChannel};

/// Nodes and groups as this node's catalogue has them.
pub(super) async fn cluster(broker: &Broker) -> Result<Answer, BrokerError> {
    let (catalogue, current) = broker.placement().await?;
    let identity = broker.identity().ok_or(BrokerError::Stopping)?;
    let (_, _, leaders) = broker.catalogue()?;
    let groups =
        catalogue.groups().map(|(group, placement)| member_group(group, placement, leaders.of(group)));
    Ok(Answer::Cluster(Box::new(ClusterInfo {
        cluster: identity.cluster,
        current,
        nodes: catalogue.members().map(|(node, member)| member_node(&catalogue, node, member)).collect(),
        groups: groups.collect(),
    })))
}

fn member_node(catalogue: &Catalogue, node: NodeId, member: &Node) -> MemberNode {
    let record = catalogue.node(node);
    let unknown = || NodeInfo {
        node,
        native: String::new(),
        kafka: None,
        admin: String::new(),
        version: String::new(),
    };
    MemberNode {
        info: record.cloned().map_or_else(unknown, node_info),
        peer: record.map(|record| record.peer.clone()).unwrap_or_default(),
        incarnation: member.incarnation,
        boot_epoch: record.map_or(BootEpoch::ZERO, |record| record.boot_epoch),
        state: match member.state {
            node_state::NodeState::Joining => NodeState::Joining,
            node_state::NodeState::Active => NodeState::Active,
            node_state::NodeState::Draining => NodeState::Draining,
            node_state::NodeState::Removed => NodeState::Removed,
        },
        apply_version: record.map_or(0, |record| record.apply_version_max),
    }
}

fn member_group(group: GroupId, placement: &GroupPlacement, leader: Option<NodeId>) -> MemberGroup {
    let wanted = placement.replicas.iter().map(|(id, replica)| WantedReplica {
        replica: *id,
        node: replica.node,
        want: match replica.want {
            entry::Want::Voter => Want::Voter,
            entry::Want::Learner => Want::Learner,
            entry::Want::Gone => Want::Gone,
        },
    });
    // Until its leader has reported, a group has the members that it was made with.
    let genesis = || placement.genesis.iter().map(|(id, _)| *id).collect();
    let (voters, learners) = match &placement.reported {
        Some(reported) => {
            let outgoing = reported.outgoing.iter().filter(|id| !reported.voters.contains(id));
            (reported.voters.iter().chain(outgoing).copied().collect(), reported.learners.clone())
        }
        None => (genesis(), Vec::new()),
    };
    MemberGroup { group, leader, wanted: wanted.collect(), voters, learners }
}

/// Channels, agreed on together; each has an outcome of its own.
pub(super) async fn create_channels(
    broker: &Broker,
    channels: Vec<NewChannel>,
) -> Result<Answer, BrokerError> {
    let wanted = channels.into_iter().map(wanted_channel).collect();
    let created = broker.create_channels(wanted).await?;
    let outcome = |created: Result<crate::broker::Created, BrokerError>| match created {
        Ok(created) => Ok(CreatedChannel { generation: created.generation, uuid: created.uuid }),
        Err(error) => Err(reply::of_broker(&error)),
    };
    Ok(Answer::ChannelsCreated(created.into_iter().map(outcome).collect()))
}

fn wanted_channel(new: NewChannel) -> CreateChannel {
    let NewChannel { name, partitions, replicas, segment_bytes } = new;
    CreateChannel { name, partitions, replicas, segment_bytes }
}

/// What would spread replicas and leaders evenly; done too, unless it is only asked for.
pub(super) async fn rebalance(broker: &Arc<Broker>, dry_run: bool) -> Result<Answer, BrokerError> {
    let balance = broker.balance()?;
    if !dry_run {
        broker.rebalance(&balance).await?;
    }
    Ok(Answer::Balance {
        replicas: balance.replicas,
        leaders: balance
            .leaders
            .iter()
            .map(|moved| {
                format!("group {}: leader from node {} to node {}", moved.group, moved.from, moved.to)
            })
            .collect(),
    })
}
