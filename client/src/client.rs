//! The client, and the one loop by which requests are repeated until they succeed, fail for good, or their time is up.
//!
//! | what came                          | what is done                                                     |
//! |------------------------------------|------------------------------------------------------------------|
//! | an answer                          | returned                                                         |
//! | refused, never to be repeated      | returned as an error: nothing was done                           |
//! | refused, here later                | pause as the node says, again                                    |
//! | refused, the leader does it        | the leader it names; else metadata, again                        |
//! | refused, unknown channel or offset | for a moment, again: a replica may be behind; then as "never"    |
//! | may have been done, or link lost   | again if repeating does no harm, else an error that says so      |
//! | not sent                           | another node, again                                              |

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_wire::ids::{LogId, NodeId, Partition};
use tidelog_wire::protocol::{
    AnswerFrame, ChannelInfo, ChannelState, ErrorCode, ErrorReply, MetadataInfo, Request, Retry,
};
use tokio::time::Instant;

use crate::cluster::{CallError, Cluster};
use crate::consumer::{Consumer, Start};
use crate::error::ClientError;
use crate::link::Lane;
use crate::options::{ClientOptions, ConsumerOptions, ProducerOptions};
use crate::producer::Producer;
use crate::profile::Profile;

/// How many times in a row a leader that was named is asked without a pause: two nodes may name each other.
pub(crate) const HINTS_MAX: u32 = 2;
/// Longest pause between repetitions, whatever a node says.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long nodes must say that a channel does not exist until one that was there is believed to be deleted.
pub(crate) const MISSING: Duration = Duration::from_secs(1);

/// A cluster, as seen from outside. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) cluster: Arc<Cluster>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Client").field("nodes", &self.cluster.nodes()).finish_non_exhaustive()
    }
}

/// Who is to answer.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Whichever node leads what is asked for; the answer of any node leads there.
    Any,
    /// This node and no other.
    Node(NodeId),
    /// The leader of a log.
    Leader { channel: String, log: LogId },
    /// Any node, each time the next, beginning anywhere: every replica may answer.
    Replica,
}

/// A request, and all that its repetitions need to know.
pub(crate) struct Call<'a> {
    pub(crate) target: Target,
    pub(crate) lane: Lane,
    pub(crate) request: &'a Request,
    /// What comes with it: nothing, or a batch.
    pub(crate) payload: Bytes,
    pub(crate) deadline: Instant,
    /// Longest wait for one answer.
    pub(crate) attempt: Duration,
    /// Repeating it does no harm.
    pub(crate) repeatable: bool,
}

/// What one call has met so far.
#[derive(Default)]
struct Tries {
    /// The leader that was named last.
    hint: Option<NodeId>,
    /// How many were named.
    hints: u32,
    /// Since when replicas seem to be behind.
    behind_since: Option<Instant>,
    /// An attempt ended without telling whether it was done.
    uncertain: bool,
}

impl Client {
    /// A client for the cluster of `profile`. Connects when it is first used; must be used inside a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError::Tls`], [`ClientError::Option`].
    pub fn new(profile: Profile, options: ClientOptions) -> Result<Self, ClientError> {
        Ok(Self { cluster: Cluster::new(profile, options)? })
    }

    /// Nodes and channels, with the leaders as far as the answering node knows. All channels if `channels` is `None`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::WrongCluster`].
    pub async fn metadata(&self, channels: Option<Vec<String>>) -> Result<MetadataInfo, ClientError> {
        let deadline = self.deadline();
        let mut pause = self.cluster.options.retry_pause;
        loop {
            match self.cluster.refresh(channels.clone(), deadline).await {
                Ok(info) => return Ok(info),
                Err(error @ ClientError::Unreachable { .. }) if Instant::now() + pause >= deadline => {
                    return Err(error);
                }
                Err(ClientError::Unreachable { .. }) => tokio::time::sleep(pause).await,
                Err(error) => return Err(error),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The channel called `name`, as a node knows it now.
    ///
    /// # Errors
    /// [`ClientError::UnknownChannel`], and those of [`Client::metadata`].
    pub async fn channel(&self, name: &str) -> Result<Arc<ChannelInfo>, ClientError> {
        let info = self.metadata(Some(vec![name.to_owned()])).await?;
        let found = info.channels.into_iter().find(|channel| channel.name == name);
        found.map(Arc::new).ok_or_else(|| ClientError::UnknownChannel { channel: name.to_owned() })
    }

    /// A producer for a channel. Waits until the channel is active.
    ///
    /// # Errors
    /// [`ClientError::UnknownChannel`], [`ClientError::Option`], and those of [`Client::metadata`].
    pub async fn producer(&self, channel: &str, options: ProducerOptions) -> Result<Producer, ClientError> {
        let info = self.active_channel(channel).await?;
        Producer::start(self.clone(), &info, options)
    }

    /// A consumer of one partition of a channel, which begins at `start`.
    ///
    /// # Errors
    /// [`ClientError::UnknownChannel`], [`ClientError::UnknownPartition`], and those of [`Client::metadata`] and
    /// [`Client::offset_at`].
    pub async fn consumer(
        &self,
        channel: &str,
        partition: u32,
        start: Start,
        options: ConsumerOptions,
    ) -> Result<Consumer, ClientError> {
        let info = self.active_channel(channel).await?;
        let log = log_of(&info, partition)?;
        Consumer::start(self.clone(), channel.to_owned(), log, start, options).await
    }

    /// The log of a channel's partition, as it is now.
    ///
    /// # Errors
    /// As [`Client::channel`], and [`ClientError::UnknownPartition`].
    pub async fn log(&self, channel: &str, partition: u32) -> Result<LogId, ClientError> {
        let info = self.channel(channel).await?;
        log_of(&info, partition)
    }

    async fn active_channel(&self, name: &str) -> Result<Arc<ChannelInfo>, ClientError> {
        let deadline = self.deadline();
        loop {
            let info = self.channel(name).await?;
            match info.state {
                ChannelState::Active => return Ok(info),
                ChannelState::Deleting => {
                    return Err(ClientError::UnknownChannel { channel: name.to_owned() });
                }
                ChannelState::Creating if Instant::now() >= deadline => {
                    return Err(
                        self.timed_out(&format!("opening channel `{name}`"), "its logs are being opened")
                    );
                }
                ChannelState::Creating => tokio::time::sleep(self.cluster.options.retry_pause).await,
            }
        }
    }

    /// Ends all connections. Close producers before: what they have not sent yet fails.
    pub async fn close(self) {
        self.cluster.close().await;
    }

    /// How long one node may take for an answer until another is asked.
    pub(crate) fn attempt(&self) -> Duration {
        self.cluster.options.request_timeout / 3
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.cluster.options.request_timeout
    }

    fn timed_out(&self, what: &str, last: &str) -> ClientError {
        let waited = self.cluster.options.request_timeout.as_millis();
        let waited_ms = u64::try_from(waited).unwrap_or(u64::MAX);
        ClientError::Timeout { what: what.to_owned(), waited_ms, last: last.to_owned() }
    }

    /// Repeats `call` by the table above. Returns who answered, too.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<(NodeId, AnswerFrame), ClientError> {
        let what = call.request.name();
        let mut last = "no node is known to lead".to_owned();
        let mut tries = Tries::default();
        for attempt in 0_usize.. {
            if attempt > 0 && Instant::now() >= call.deadline {
                break;
            }
            let Some(node) = self.pick(&call.target, tries.hint.take(), attempt, call.deadline).await? else {
                self.pause(self.cluster.options.retry_pause, call.deadline).await;
                continue;
            };
            let until = call.deadline.min(Instant::now() + call.attempt);
            let payload = call.payload.clone();
            let pause = match self.cluster.call(node, call.lane, call.request, payload, until).await {
                Ok(AnswerFrame { answer: Err(reply), .. }) => {
                    last = format!("node {node}: {reply}");
                    self.refused(call, node, reply, &mut tries)?
                }
                Ok(answered) => return Ok((node, answered)),
                Err(CallError::Fatal(error)) => return Err(*error),
                Err(CallError::Sent { reason }) if !call.repeatable => {
                    return Err(ClientError::MayHaveCommitted { what: what.to_owned(), last: reason });
                }
                Err(error @ (CallError::Sent { .. } | CallError::NotSent { .. })) => {
                    tries.uncertain |= matches!(error, CallError::Sent { .. });
                    last = error.to_string();
                    if let Target::Leader { channel, log } = &call.target {
                        self.cluster.heard_leader(channel, *log, None);
                    }
                    self.cluster.options.retry_pause
                }
            };
            self.pause(pause, call.deadline).await;
        }
        if tries.uncertain && call.request.changes_something() {
            return Err(ClientError::MayHaveCommitted { what: what.to_owned(), last });
        }
        Err(self.timed_out(what, &last))
    }

    /// How long to pause after a refusal, or why it is final. A leader that the node names goes to `tries`.
    fn refused(
        &self,
        call: &Call<'_>,
        node: NodeId,
        reply: ErrorReply,
        tries: &mut Tries,
    ) -> Result<Duration, ClientError> {
        let what = call.request.name().to_owned();
        let own = self.cluster.options.retry_pause;
        if is_behind(&call.target, &reply.code) {
            let since = *tries.behind_since.get_or_insert_with(Instant::now);
            if since.elapsed() < MISSING {
                return Ok(own);
            }
        }
        let heard = |leader| {
            if let Target::Leader { channel, log } = &call.target {
                self.cluster.heard_leader(channel, *log, leader);
            }
        };
        if let (ErrorCode::GenerationMismatch { .. }, Target::Leader { channel, .. }) =
            (&reply.code, &call.target)
        {
            return Err(ClientError::ChannelChanged { channel: channel.clone() });
        }
        match reply.retry {
            Retry::Never => Err(ClientError::Refused { node, what, reply }),
            Retry::Here { after_ms } => {
                if is_leaderless(&reply.code) {
                    heard(None);
                }
                Ok(Duration::from_millis(after_ms.into()).clamp(own, PAUSE_MAX))
            }
            Retry::MayHaveCommitted if !call.repeatable => {
                Err(ClientError::MayHaveCommitted { what, last: format!("node {node}: {reply}") })
            }
            Retry::MayHaveCommitted => {
                tries.uncertain = true;
                Ok(own)
            }
            Retry::Leader => {
                let leader = reply.leader().filter(|leader| *leader != node);
                heard(leader);
                tries.hint = leader;
                tries.hints += 1;
                let at_once = leader.is_some() && tries.hints <= HINTS_MAX;
                Ok(if at_once { Duration::ZERO } else { own })
            }
        }
    }

    /// The node to ask next. `None`: nobody leads at the moment.
    async fn pick(
        &self,
        target: &Target,
        hint: Option<NodeId>,
        attempt: usize,
        deadline: Instant,
    ) -> Result<Option<NodeId>, ClientError> {
        match target {
            Target::Node(node) => {
                if !self.cluster.nodes().contains(node) {
                    self.metadata(Some(Vec::new())).await?;
                }
                Ok(Some(*node))
            }
            Target::Any | Target::Replica => {
                if !self.cluster.is_linked() {
                    // All are asked at once, so the first that is alive is found without waiting for dead ones.
                    self.metadata(Some(Vec::new())).await?;
                }
                let nodes = self.cluster.nodes();
                Ok(hint.or_else(|| nodes.iter().cycle().nth(attempt % nodes.len().max(1)).copied()))
            }
            Target::Leader { channel, log } => self.leader(channel, *log, deadline).await,
        }
    }

    /// The node that leads a log, asking for metadata if that is not known. `None`: nobody does at the moment.
    pub(crate) async fn leader(
        &self,
        channel: &str,
        log: LogId,
        deadline: Instant,
    ) -> Result<Option<NodeId>, ClientError> {
        if let Some(leader) = self.cluster.known_leader(channel, log) {
            return Ok(Some(leader));
        }
        match self.cluster.refresh(Some(vec![channel.to_owned()]), deadline).await {
            Ok(_) => {}
            Err(ClientError::Unreachable { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        match self.cluster.known_channel(channel) {
            Some(info) if info.generation == log.generation => Ok(self.cluster.known_leader(channel, log)),
            Some(info) if info.generation > log.generation => {
                Err(ClientError::ChannelChanged { channel: channel.to_owned() })
            }
            // It was there, so a node that does not know it may only be behind.
            Some(_) => Ok(None),
            None if self.cluster.missing_for(channel) < MISSING => Ok(None),
            None => Err(ClientError::UnknownChannel { channel: channel.to_owned() }),
        }
    }

    async fn pause(&self, pause: Duration, deadline: Instant) {
        tokio::time::sleep_until((Instant::now() + pause).min(deadline)).await;
    }
}

/// The node does not lead, or cannot tell who does: to be asked of others.
pub(crate) const fn is_leaderless(code: &ErrorCode) -> bool {
    matches!(code, ErrorCode::NoQuorum | ErrorCode::NotReady | ErrorCode::ShuttingDown)
}

/// A refusal that may only mean that the replica has not applied yet what others have.
const fn is_behind(target: &Target, code: &ErrorCode) -> bool {
    match (target, code) {
        (Target::Any, _) => false,
        (_, ErrorCode::UnknownChannel) => true,
        (Target::Node(_) | Target::Replica, ErrorCode::OffsetOutOfRange { asked, end, .. }) => {
            asked.0 > end.0
        }
        (_, _) => false,
    }
}

pub(crate) fn log_of(info: &ChannelInfo, partition: u32) -> Result<LogId, ClientError> {
    let found = info.partitions.iter().find(|found| found.log.partition == Partition(partition));
    found.map(|found| found.log).ok_or_else(|| ClientError::UnknownPartition {
        channel: info.name.clone(),
        partition,
        partitions: u32::try_from(info.partitions.len()).unwrap_or(u32::MAX),
    })
}
