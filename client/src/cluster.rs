//! What the client knows of the cluster: nodes, links to them, channels and leaders. All of it may be out of date, and is
//! mended by asking again.
//!
//! - A link is made when it is first needed, by one caller at a time for each node.
//! - Metadata is asked of all nodes that are known, at once: a dead node cannot delay it. The first answer that
//!   knows all channels asked for, and their leaders, is taken. One that lacks some may come from a node that is behind, or
//!   that has no replica of a group and so knows no leader of it: the others are given a moment, and answers complete each
//!   other.
//! - Nodes come and go. Those that an answer names are the cluster's; the profile's are asked too as long as they are among
//!   them, or nobody else answers.
//! - A node whose link was lost is *suspect* for a while. While it is, metadata that still calls it a leader is not
//!   believed, and it is not dialled for data: the others are asked again until they have elected somebody.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidelog_tls::{Protocol, client_config, expect_node, node_name};
use tidelog_wire::ids::{GroupId, LogId, NodeId};
use tidelog_wire::limits;
use tidelog_wire::protocol::{Answer, AnswerFrame, ChannelInfo, MetadataInfo, PartitionInfo, Request};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::error::ClientError;
use crate::link::{Lane, Link, LinkError};
use crate::options::ClientOptions;
use crate::profile::Profile;

/// Most nodes asked at once for metadata.
const ASKED_MAX: usize = 16;
/// Most channels kept; beyond, all are forgotten and asked for again.
const CHANNELS_MAX: usize = 10_000;
/// How long a better answer is waited for, once there is one that lacks a channel or a leader.
const BETTER: Duration = Duration::from_millis(40);
/// How long nodes may take to hear that the client is done.
const FAREWELL: Duration = Duration::from_millis(200);
/// How long a node whose link was lost is not believed to lead.
const SUSPECT: Duration = Duration::from_millis(600);

/// Why a request had no answer from one node.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It was not sent.
    #[error("{reason}")]
    NotSent { reason: String },
    /// It was sent, or half of it, and may have been done.
    #[error("{reason}")]
    Sent { reason: String },
    /// The node cannot be worked with; no use in trying again.
    #[error(transparent)]
    Fatal(Box<ClientError>),
}

#[derive(Default)]
struct View {
    /// The profile's nodes.
    seeds: BTreeMap<NodeId, String>,
    /// The cluster's nodes, as they were last heard of.
    learned: BTreeMap<NodeId, String>,
    channels: BTreeMap<String, Arc<ChannelInfo>>,
    /// Overrides what a channel's metadata says, since it is newer. `None`: the leader that metadata names does not lead.
    leaders: BTreeMap<GroupId, Option<NodeId>>,
    suspects: BTreeMap<NodeId, Instant>,
    /// Nodes to which there is a link, or was when it was last looked at, and the largest batch each takes.
    linked: BTreeMap<NodeId, u32>,
    /// Channels that were asked for and not found, since when.
    missing: BTreeMap<String, Instant>,
}

impl View {
    fn address(&self, node: NodeId) -> Option<&String> {
        self.learned.get(&node).or_else(|| self.seeds.get(&node))
    }

    /// The answer that knows more channels, with the leaders that only the other one knows.
    fn completed(&self, one: MetadataInfo, other: MetadataInfo) -> MetadataInfo {
        let (mut more, less) =
            if other.channels.len() > one.channels.len() { (other, one) } else { (one, other) };
        for channel in &mut more.channels {
            let Some(known) = less.channels.iter().find(|known| known.generation == channel.generation)
            else {
                continue;
            };
            for (partition, known) in channel.partitions.iter_mut().zip(&known.partitions) {
                let believed = known.leader.filter(|leader| !self.is_suspect(*leader));
                if partition.leader.is_none_or(|leader| self.is_suspect(leader)) {
                    partition.leader = believed.or(partition.leader);
                }
            }
        }
        more
    }

    fn is_suspect(&self, node: NodeId) -> bool {
        self.suspects.get(&node).is_some_and(|until| *until > Instant::now())
    }

    /// Whether `info` knows every channel asked for, and a leader that can be one for each partition.
    fn is_complete(&self, info: &MetadataInfo, asked: &[String]) -> bool {
        let led = |partition: &PartitionInfo| partition.leader.is_some_and(|leader| !self.is_suspect(leader));
        asked.iter().all(|name| info.channels.iter().any(|channel| channel.name == *name))
            && info.channels.iter().all(|channel| channel.partitions.iter().all(led))
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<Link>>>>;

pub(crate) struct Cluster {
    pub(crate) options: ClientOptions,
    profile: Profile,
    quic: quinn::ClientConfig,
    endpoint_v4: Mutex<Option<quinn::Endpoint>>,
    endpoint_v6: Mutex<Option<quinn::Endpoint>>,
    view: Mutex<View>,
    links: Mutex<BTreeMap<NodeId, Slot>>,
}

impl Cluster {
    pub(crate) fn new(profile: Profile, options: ClientOptions) -> Result<Arc<Self>, ClientError> {
        let mut quic = client_config(&profile.credentials, Protocol::Native)?;
        quic.transport_config(Arc::new(transport(&options)?));
        let seeds = profile.nodes.iter().map(|node| (node.id, node.native.clone())).collect();
        let view = Mutex::new(View { seeds, ..View::default() });
        let (endpoint_v4, endpoint_v6, links) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { options, profile, quic, endpoint_v4, endpoint_v6, view, links }))
    }

    /// The nodes to ask: those to which there is a link first, suspect ones last. If all are suspect, the profile's too.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        let view = self.view();
        let mut nodes: Vec<_> = view.learned.keys().copied().collect();
        if nodes.iter().all(|node| view.is_suspect(*node)) {
            nodes.extend(view.seeds.keys().filter(|node| !view.learned.contains_key(node)));
        }
        nodes.sort_by_key(|node| (view.is_suspect(*node), !view.linked.contains_key(node)));
        nodes
    }

    /// Whether there is a link to any node.
    pub(crate) fn is_linked(&self) -> bool {
        !self.view().linked.is_empty()
    }

    /// The largest batch that every node takes, as far as they have said.
    pub(crate) fn batch_bytes_max(&self) -> usize {
        let smallest = self.view().linked.values().min().copied();
        smallest.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(limits::BATCH_BYTES_CAP)
    }

    /// The channel as it was last heard of.
    pub(crate) fn known_channel(&self, name: &str) -> Option<Arc<ChannelInfo>> {
        self.view().channels.get(name).cloned()
    }

    /// The node that leads a log, unless it is unknown or suspect.
    pub(crate) fn known_leader(&self, channel: &str, log: LogId) -> Option<NodeId> {
        let view = self.view();
        let partition =
            view.channels.get(channel)?.partitions.iter().find(|partition| partition.log == log)?;
        let leader = view.leaders.get(&partition.group).copied().unwrap_or(partition.leader)?;
        (!view.is_suspect(leader)).then_some(leader)
    }

    /// A node said who leads, or that it does not: remember it for all logs of the group.
    pub(crate) fn heard_leader(&self, channel: &str, log: LogId, leader: Option<NodeId>) {
        let mut view = self.view();
        let group = view
            .channels
            .get(channel)
            .and_then(|info| info.partitions.iter().find(|partition| partition.log == log))
            .map(|partition| partition.group);
        if let Some(group) = group {
            let leader = leader.filter(|leader| view.address(*leader).is_some());
            view.leaders.insert(group, leader);
        }
    }

    /// How long nodes have been saying that the channel does not exist.
    pub(crate) fn missing_for(&self, channel: &str) -> Duration {
        self.view().missing.get(channel).map_or(Duration::ZERO, Instant::elapsed)
    }

    /// Asks all nodes for metadata, takes the best of the first answers, and remembers it.
    pub(crate) async fn refresh(
        self: &Arc<Self>,
        channels: Option<Vec<String>>,
        deadline: Instant,
    ) -> Result<MetadataInfo, ClientError> {
        let mut asked = JoinSet::new();
        // A better answer is waited for only from nodes that are not known to be silent.
        let mut hoped = 0_usize;
        for node in self.nodes().into_iter().take(ASKED_MAX) {
            let is_hoped = !self.view().is_suspect(node);
            hoped += usize::from(is_hoped);
            let (cluster, request) = (self.clone(), Request::Metadata { channels: channels.clone() });
            asked.spawn(async move {
                let answer = cluster.call(node, Lane::Control, &request, Bytes::new(), deadline).await;
                (is_hoped, metadata_of(node, answer))
            });
        }
        let names = channels.as_deref().unwrap_or_default();
        let (mut tried, mut fatal, mut best) = (Vec::new(), None, None::<MetadataInfo>);
        let mut until = deadline;
        while let Ok(Some(joined)) = tokio::time::timeout_at(until, asked.join_next()).await {
            let (is_hoped, answer) =
                joined.unwrap_or_else(|error| (false, Err(NoMetadata::Tried(error.to_string()))));
            hoped -= usize::from(is_hoped);
            match answer {
                Ok(info) => {
                    let info = match best.take() {
                        Some(best) => self.view().completed(best, info),
                        None => info,
                    };
                    let complete = self.view().is_complete(&info, names);
                    best = Some(info);
                    if complete {
                        break;
                    }
                    until = until.min(Instant::now() + BETTER);
                }
                Err(NoMetadata::Fatal(error)) => fatal = Some(*error),
                Err(NoMetadata::Tried(reason)) => tried.push(reason),
            }
            if best.is_some() && hoped == 0 {
                break;
            }
        }
        if let Some(info) = best {
            self.remember(&info, channels.as_deref());
            return Ok(info);
        }
        Err(fatal
            .filter(|_| tried.is_empty())
            .unwrap_or(ClientError::Unreachable { tried: tried.join("; ") }))
    }

    fn remember(&self, info: &MetadataInfo, asked: Option<&[String]>) {
        let mut view = self.view();
        if !info.nodes.is_empty() {
            view.learned = info.nodes.iter().map(|node| (node.node, node.native.clone())).collect();
        }
        for name in asked.unwrap_or_default() {
            view.channels.remove(name);
            if info.channels.iter().any(|channel| channel.name == *name) {
                view.missing.remove(name);
            } else if view.missing.len() < CHANNELS_MAX {
                view.missing.entry(name.clone()).or_insert_with(Instant::now);
            }
        }
        if asked.is_none() || view.channels.len() + info.channels.len() > CHANNELS_MAX {
            view.channels.clear();
        }
        let mut groups = Vec::new();
        for channel in &info.channels {
            groups.extend(channel.partitions.iter().map(|partition| partition.group));
            view.channels.insert(channel.name.clone(), Arc::new(channel.clone()));
        }
        for group in groups {
            view.leaders.remove(&group);
        }
    }

    /// One request to one node, and its answer.
    pub(crate) async fn call(
        &self,
        node: NodeId,
        lane: Lane,
        request: &Request,
        payload: Bytes,
        deadline: Instant,
    ) -> Result<AnswerFrame, CallError> {
        let link = self.link(node, deadline).await?;
        let late = |_| {
            self.suspect(node);
            CallError::Sent { reason: format!("node {node} did not answer in time") }
        };
        let no_room =
            |_| CallError::NotSent { reason: format!("too many fetches wait at node {node} already") };
        let _room = tokio::time::timeout_at(deadline, link.room(lane)).await.map_err(no_room)?;
        let sent =
            tokio::time::timeout_at(deadline, link.send(lane, request, payload)).await.map_err(late)?;
        let awaited = sent.map_err(|error| self.link_failed(&link, error))?;
        match tokio::time::timeout_at(deadline, awaited).await.map_err(late)? {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.link_failed(&link, error)),
            Err(_) => Err(CallError::Sent { reason: format!("the connection to node {node} ended") }),
        }
    }

    /// What a link's failure means; a lost one makes its node suspect.
    pub(crate) fn link_failed(&self, link: &Link, error: LinkError) -> CallError {
        let reason = error.to_string();
        match error {
            LinkError::Full { .. } => CallError::NotSent { reason },
            LinkError::Lost { .. } => {
                tracing::debug!(node = %link.node, %reason, "the connection is lost; other nodes are asked");
                link.close("lost");
                self.suspect(link.node);
                CallError::Sent { reason }
            }
            LinkError::Protocol { node, source } => {
                link.close("does not speak the protocol");
                CallError::Fatal(Box::new(ClientError::Protocol { node, source }))
            }
        }
    }

    /// The link to a node, made if there is none.
    pub(crate) async fn link(&self, node: NodeId, deadline: Instant) -> Result<Arc<Link>, CallError> {
        let not_sent = |reason: String| CallError::NotSent { reason };
        let slot = {
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.entry(node).or_default().clone()
        };
        let late = |_| not_sent(format!("no connection to node {node} in time"));
        let mut slot = tokio::time::timeout_at(deadline, slot.lock()).await.map_err(late)?;
        if let Some(link) = slot.as_ref().filter(|link| link.is_alive()) {
            return Ok(link.clone());
        }
        *slot = None;
        self.view().linked.remove(&node);
        let limit = self.options.connect_timeout.min(deadline.saturating_duration_since(Instant::now()));
        let made = timeout(limit, self.dial(node))
            .await
            .map_err(|_| not_sent(format!("no connection to node {node} within {} ms", limit.as_millis())));
        match made.and_then(|made| made) {
            Ok(link) => {
                let mut view = self.view();
                view.suspects.remove(&node);
                view.linked.insert(node, link.welcome.limits.batch_bytes_max);
                drop(view);
                tracing::debug!(%node, boot_epoch = %link.welcome.boot_epoch, "connected");
                *slot = Some(link.clone());
                Ok(link)
            }
            Err(error) => {
                self.suspect(node);
                Err(error)
            }
        }
    }

    async fn dial(&self, node: NodeId) -> Result<Arc<Link>, CallError> {
        let failed =
            |error: &dyn std::fmt::Display| CallError::NotSent { reason: format!("node {node}: {error}") };
        let fatal = |error: ClientError| CallError::Fatal(Box::new(error));
        let text = self.view().address(node).cloned();
        let text = text.ok_or_else(|| failed(&"its address is unknown"))?;
        let mut found = tokio::net::lookup_host(&text).await.map_err(|error| failed(&error))?;
        let address = found.next().ok_or_else(|| failed(&format!("{text} has no address")))?;
        let endpoint = self.endpoint(address).map_err(fatal)?;
        let name = node_name(node, self.profile.cluster);
        let connection = endpoint
            .connect_with(self.quic.clone(), address, &name)
            .map_err(|error| failed(&error))?
            .await
            .map_err(|error| failed(&format!("{text}: {error}")))?;
        expect_node(&connection, self.profile.cluster, node).map_err(|error| fatal(error.into()))?;
        let link = Link::greet(node, connection, &self.options.name, self.options.silence).await;
        let link = link.map_err(|error| match error {
            LinkError::Protocol { node, source } => fatal(ClientError::Protocol { node, source }),
            LinkError::Lost { .. } | LinkError::Full { .. } => failed(&error),
        })?;
        if link.welcome.cluster != self.profile.cluster {
            let (expected, found) = (self.profile.cluster, link.welcome.cluster);
            return Err(fatal(ClientError::WrongCluster { node, expected, found }));
        }
        Ok(link)
    }

    fn endpoint(&self, address: SocketAddr) -> Result<quinn::Endpoint, ClientError> {
        let (slot, any): (_, SocketAddr) = if address.is_ipv4() {
            (&self.endpoint_v4, (std::net::Ipv4Addr::UNSPECIFIED, 0).into())
        } else {
            (&self.endpoint_v6, (std::net::Ipv6Addr::UNSPECIFIED, 0).into())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let made = quinn::Endpoint::client(any);
        let endpoint = made.map_err(|source| ClientError::Socket { source: Arc::new(source) })?;
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }

    /// Ends all links and waits until the nodes have been told, but not for long.
    pub(crate) async fn close(&self) {
        let mut endpoints = Vec::new();
        for slot in [&self.endpoint_v4, &self.endpoint_v6] {
            endpoints.extend(slot.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        for endpoint in endpoints {
            endpoint.close(0_u32.into(), b"client is done");
            // A node that is dead cannot be told.
            drop(timeout(FAREWELL, endpoint.wait_idle()).await);
        }
    }

    pub(crate) fn suspect(&self, node: NodeId) {
        let mut view = self.view();
        view.suspects.insert(node, Instant::now() + SUSPECT);
        view.linked.remove(&node);
    }

    fn view(&self) -> std::sync::MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a node gave no metadata.
enum NoMetadata {
    Tried(String),
    Fatal(Box<ClientError>),
}

fn metadata_of(node: NodeId, answer: Result<AnswerFrame, CallError>) -> Result<MetadataInfo, NoMetadata> {
    let tried = |reason: String| Err(NoMetadata::Tried(format!("node {node}: {reason}")));
    match answer {
        Ok(AnswerFrame { answer: Ok(Answer::Metadata(info)), .. }) => Ok(info),
        Ok(AnswerFrame { answer: Ok(_), .. }) => tried("it answers with something else".to_owned()),
        Ok(AnswerFrame { answer: Err(reply), .. }) => tried(reply.to_string()),
        Err(CallError::Fatal(error)) => Err(NoMetadata::Fatal(error)),
        Err(error @ (CallError::NotSent { .. } | CallError::Sent { .. })) => tried(error.to_string()),
    }
}

fn transport(options: &ClientOptions) -> Result<quinn::TransportConfig, ClientError> {
    let window =
        |bytes: usize| quinn::VarInt::try_from(u64::try_from(bytes).unwrap_or(u64::MAX)).unwrap_or_default();
    let idle = quinn::IdleTimeout::try_from(options.idle).map_err(|_| ClientError::Option {
        name: "idle",
        found: format!("{:?}", options.idle),
        allowed: "less than 2^62 ms",
    })?;
    let mut transport = quinn::TransportConfig::default();
    transport
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(idle))
        .stream_receive_window(window(limits::STREAM_WINDOW_BYTES))
        .receive_window(window(2 * limits::STREAM_WINDOW_BYTES))
        .send_window(u64::try_from(2 * limits::STREAM_WINDOW_BYTES).unwrap_or(u64::MAX));
    Ok(transport)
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{ChannelUuid, ClusterId, Generation, Partition};
    use tidelog_wire::protocol::ChannelState;

    use super::*;

    fn metadata(leaders: &[Option<u64>]) -> MetadataInfo {
        let partition = |(number, leader): (u32, &Option<u64>)| PartitionInfo {
            log: LogId { generation: Generation(1), partition: Partition(number) },
            group: GroupId(u64::from(number) + 1),
            leader: leader.map(NodeId),
            replicas: Vec::new(),
        };
        MetadataInfo {
            cluster: ClusterId(1),
            nodes: Vec::new(),
            channels: vec![ChannelInfo {
                name: "flights".to_owned(),
                generation: Generation(1),
                uuid: ChannelUuid(1),
                state: ChannelState::Active,
                replicas: 1,
                segment_bytes: 1,
                partitions: (0..).zip(leaders).map(partition).collect(),
            }],
        }
    }

    /// A node knows leaders only of groups that it has a replica of. Where replica sets are smaller than the cluster, no
    /// single node may know all.
    #[test]
    fn answers_of_nodes_that_know_different_groups_complete_each_other() {
        let mut view = View::default();
        let names = ["flights".to_owned()];
        let whole = view.completed(metadata(&[Some(0), None]), metadata(&[None, Some(2)]));
        assert!(view.is_complete(&whole, &names));
        assert_eq!(whole.channels, metadata(&[Some(0), Some(2)]).channels);
        // A leader whose link was lost is believed only as long as nobody names another.
        view.suspects.insert(NodeId(0), Instant::now() + SUSPECT);
        let newer = view.completed(metadata(&[Some(0), Some(2)]), metadata(&[Some(1), None]));
        assert_eq!(newer.channels, metadata(&[Some(1), Some(2)]).channels);
        let unknown = view.completed(metadata(&[Some(0), Some(2)]), metadata(&[None, None]));
        assert!(!view.is_complete(&unknown, &names));
    }
}
