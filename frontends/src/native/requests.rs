//! Requests of the native protocol as calls of the broker, and its answers back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_consensus::core::{GroupStatus, Role};
use tidelog_consensus::entry::NodeRecord;
use tidelog_wire::ids::{GroupId, LogId, NodeId};
use tidelog_wire::protocol::{
    Answer, ChannelInfo, ChannelState, CursorInfo, DamagedRange, ErrorReply, FetchRequest, GroupInfo,
    LogInfo, MetadataInfo, NodeInfo, NodeStatus, OffsetSpec, PartitionInfo, PeerInfo, RecoveryProgress,
    ReplicaRole, Request,
};
use tokio::sync::OwnedSemaphorePermit;

use super::connection::Peer;
use super::members;
use super::reply;
use super::stream::acquire;
use crate::broker::{
    self, Acknowledged, Broker, BrokerError, ChannelStage, ChannelView, CreateChannel, Leaders, LogStanding,
    Stage, When,
};

/// An answer and the batches behind it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) answer: Result<Answer, ErrorReply>,
    pub(super) payload: Vec<Bytes>,
}

impl Reply {
    pub(super) fn error(error: ErrorReply) -> Self {
        Self { answer: Err(error), payload: Vec::new() }
    }

    fn of(answer: Result<Answer, BrokerError>) -> Self {
        Self { answer: answer.map_err(|error| reply::of_broker(&error)), payload: Vec::new() }
    }
}

/// A reply to come, and the allowance for its bytes, to be held until it is sent.
pub(super) type LaterReply = Pin<Box<dyn Future<Output = (Reply, Option<OwnedSemaphorePermit>)> + Send>>;

/// Begins a request. A batch is proposed before this returns; the rest happens in the future.
pub(super) fn begin(peer: &Arc<Peer>, request: Request, payload: Bytes) -> LaterReply {
    let broker = Arc::clone(&peer.shared.broker);
    if let Request::Produce { log } = request {
        let acknowledged = broker.produce(log, payload);
        return Box::pin(async move { (Reply::of(acknowledged.await.map(produced)), None) });
    }
    let peer = Arc::clone(peer);
    Box::pin(async move {
        if let Request::Fetch(request) = request {
            return fetch(&peer, &broker, request).await;
        }
        if let Request::Echo { through } = request {
            return (echo(&broker, through, payload).await, None);
        }
        (Reply::of(answer(&broker, request).await), None)
    })
}

fn produced(acknowledged: Acknowledged) -> Answer {
    let Acknowledged { base_offset, last_offset, chain, append_time, duplicate } = acknowledged;
    Answer::Produced { base_offset, last_offset, chain, append_time, duplicate }
}

/// Everything but batches in and out.
async fn answer(broker: &Arc<Broker>, request: Request) -> Result<Answer, BrokerError> {
    match request {
        Request::Metadata { channels } => metadata(broker, channels.as_deref()),
        Request::CreateChannel { name, partitions, replicas, segment_bytes } => {
            let wanted = CreateChannel { name, partitions, replicas, segment_bytes };
            let created = broker.create_channel(wanted).await?;
            Ok(Answer::ChannelCreated { generation: created.generation, uuid: created.uuid })
        }
        Request::DeleteChannel { name, generation } => {
            let generation = broker.delete_channel(&name, generation).await?;
            Ok(Answer::ChannelDeleted { generation })
        }
        Request::Trim { log, to } => {
            broker.trim(log, to).await.map(|log_start| Answer::Trimmed { log_start })
        }
        Request::InitProducer => {
            let lease = broker.init_producer().await?;
            Ok(Answer::Producer { id: lease.producer, epoch: lease.epoch })
        }
        Request::OffsetAt { log, at } => {
            let when = match at {
                OffsetSpec::Earliest => When::Earliest,
                OffsetSpec::Latest => When::Latest,
                OffsetSpec::Time(time) => When::Time(time),
            };
            broker.offset_at(log, when).await.map(|offset| Answer::Offset { offset })
        }
        Request::NodeStatus { with_logs } => node_status(broker, with_logs).await,
        Request::ChainAt { log, offset } => {
            broker.chain_at(log, offset).await.map(|chain| Answer::Chain { chain })
        }
        Request::TransferLeader { group, to } => {
            broker.transfer_leader(group, to).await.map(|()| Answer::TransferStarted)
        }
        Request::CreateChannels { channels } => members::create_channels(broker, channels).await,
        Request::Cluster => members::cluster(broker).await,
        Request::DrainNode { node } => broker.drain_node(node).await.map(|()| Answer::Done),
        Request::ForgetNode { node } => broker.forget_node(node).await.map(|()| Answer::Done),
        Request::Rebalance { dry_run } => members::rebalance(broker, dry_run).await,
        Request::SetCursor { log, name, offset } => {
            broker.set_cursor(log, name, offset).await.map(|()| Answer::Done)
        }
        Request::Cursors { log, name } => {
            let cursors = broker.cursors(log, name.as_deref()).await?;
            let info = |(name, offset)| CursorInfo { name, offset };
            Ok(Answer::Cursors(cursors.into_iter().map(info).collect()))
        }
        // Batches in and out are dealt with before.
        Request::Produce { .. } | Request::Fetch(_) | Request::Echo { .. } => {
            Err(BrokerError::InvalidRequest { reason: "it is no question".to_owned() })
        }
    }
}

/// The payload, sent back, if need be after it has been at another node.
async fn echo(broker: &Broker, through: Option<NodeId>, payload: Bytes) -> Reply {
    match broker.echo(through, &payload).await {
        Ok(peer_ns) => Reply { answer: Ok(Answer::Echoed { peer_ns }), payload: vec![payload] },
        Err(error) => Reply::error(reply::of_broker(&error)),
    }
}

/// The wait for records takes no allowance; the bytes of the answer do, until they are sent.
async fn fetch(peer: &Peer, broker: &Broker, request: FetchRequest) -> (Reply, Option<OwnedSemaphorePermit>) {
    let wanted = broker::FetchRequest {
        log: request.log,
        offset: request.offset,
        bytes_max: usize_of(request.max_bytes),
        bytes_min: usize_of(request.min_bytes),
        wait: Duration::from_millis(u64::from(request.max_wait_ms)),
        any_replica: request.any_replica,
    };
    let fetched = broker.fetch(wanted, |bytes| async move { acquire(&peer.answer_bytes, bytes).await.ok() });
    match fetched.await {
        Ok((fetched, held)) => {
            let answer = Answer::Fetched {
                high_watermark: fetched.high_watermark,
                log_start: fetched.log_start,
                next_offset: fetched.next_offset,
            };
            (Reply { answer: Ok(answer), payload: fetched.batches }, held.flatten())
        }
        Err(error) => (Reply::error(reply::of_broker(&error)), None),
    }
}

fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn metadata(broker: &Broker, wanted: Option<&[String]>) -> Result<Answer, BrokerError> {
    let (nodes, channels, leaders) = broker.catalogue()?;
    let identity = broker.identity().ok_or(BrokerError::Stopping)?;
    let is_wanted = |channel: &&ChannelView| wanted.is_none_or(|names| names.contains(&channel.name));
    let channels = channels.iter().filter(is_wanted).map(|channel| channel_info(channel, &leaders));
    Ok(Answer::Metadata(MetadataInfo {
        cluster: identity.cluster,
        channels: channels.collect(),
        nodes: nodes.into_iter().map(node_info).collect(),
    }))
}

pub(super) fn node_info(record: NodeRecord) -> NodeInfo {
    NodeInfo {
        node: record.node,
        native: record.native,
        kafka: record.kafka,
        admin: record.admin,
        version: record.version,
    }
}

fn channel_info(channel: &ChannelView, leaders: &Leaders) -> ChannelInfo {
    let partition = |(log, group): (LogId, GroupId)| PartitionInfo {
        log,
        group,
        leader: leaders.of(group),
        replicas: leaders.members(group),
    };
    ChannelInfo {
        name: channel.name.clone(),
        generation: channel.generation,
        uuid: channel.uuid,
        state: match channel.stage {
            ChannelStage::Creating => ChannelState::Creating,
            ChannelStage::Active => ChannelState::Active,
            ChannelStage::Deleting => ChannelState::Deleting,
        },
        replicas: channel.replicas,
        segment_bytes: channel.segment_bytes,
        partitions: channel.partitions().map(partition).collect(),
    }
}

async fn node_status(broker: &Broker, with_logs: bool) -> Result<Answer, BrokerError> {
    let (nodes, _, _) = broker.catalogue()?;
    let identity = broker.identity().ok_or(BrokerError::Stopping)?;
    let readiness = broker.readiness();
    let logs = if with_logs { broker.log_standings().await? } else { Vec::new() };
    let info = nodes.into_iter().find(|record| record.node == identity.node).map(node_info);
    let phase = match readiness.stage {
        Stage::Recovering => "recovering",
        Stage::Joining => "joining",
        Stage::Serving => "serving",
        Stage::Stopping => "stopping",
    };
    Ok(Answer::NodeStatus(Box::new(NodeStatus {
        // Until the node has registered, the one who asks knows its address already.
        info: info.unwrap_or_else(|| NodeInfo {
            node: identity.node,
            native: String::new(),
            kafka: None,
            admin: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
        incarnation: identity.incarnation,
        boot_epoch: identity.boot_epoch,
        pid: std::process::id(),
        ready: readiness.ready,
        recovery: RecoveryProgress {
            phase: phase.to_owned(),
            done: readiness.recovery.groups_done,
            total: readiness.recovery.groups,
        },
        groups: broker.groups().iter().map(group_info).collect(),
        logs: logs.iter().map(log_info).collect(),
        certificate_expires: broker.certificate_expires(),
    })))
}

fn group_info(status: &GroupStatus) -> GroupInfo {
    let peers = status.peers.iter().map(|peer| PeerInfo {
        node: peer.node,
        replica: peer.replica,
        match_index: peer.matched,
        active: peer.active,
        learner: peer.learner,
    });
    GroupInfo {
        group: status.group,
        replica: status.replica,
        role: match status.role {
            Role::Follower => ReplicaRole::Follower,
            Role::PreCandidate | Role::Candidate => ReplicaRole::Candidate,
            Role::Leader => ReplicaRole::Leader,
            Role::Learner => ReplicaRole::Learner,
            Role::Halted => ReplicaRole::Halted,
            Role::Removed => ReplicaRole::Removed,
        },
        term: status.term,
        committed: status.committed,
        applied: status.applied,
        leader: status.leader,
        peers: peers.collect(),
    }
}

fn log_info(standing: &LogStanding) -> LogInfo {
    let damaged = standing.damaged.iter().map(|range| DamagedRange { start: range.start, end: range.end });
    LogInfo {
        log: standing.log,
        group: standing.group,
        log_start: standing.start,
        end: standing.end,
        chain: standing.chain,
        damaged: damaged.collect(),
    }
}
