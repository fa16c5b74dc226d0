//! The broker: the only object that front-ends see. It answers in channels, offsets and errors.
//!
//! 1. A front-end hands over what a client asked. The broker checks limits, validates a batch once, finds the log's
//!    group by its generation, and asks consensus.
//! 2. What cannot be done is answered by a [`BrokerError`] that says what happened, whether to repeat, and where.
//!
//! The broker exists before consensus has started, so that operators can watch a recovery: until [`Broker::attach`] it
//! answers that it is not ready. From [`Broker::begin_stop`] on it takes no new work, and waiting fetches end at once.
//!
//! | file | does |
//! |---|---|
//! | `produce` | batches in |
//! | `fetch` | batches and offsets out, waiting for new ones without polling |
//! | `channels` | create, delete, trim, producer ids |
//! | `cursors` | durable named positions |
//! | `members` | nodes that leave, replicas and leaders spread |
//! | `status` | readiness and the views of node and cluster |
//! | `echo` | measures the way to this node and to others |
//! | `consensus` | what is needed of consensus |
//!
//! Not here: protocols (`crate::native`, `crate::admin`), and raft: no front-end knows of it.

mod batches;
mod channels;
mod consensus;
mod cursors;
mod echo;
mod error;
#[cfg(test)]
mod fake;
mod fetch;
mod members;
mod produce;
mod status;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tidelog_consensus::metrics::NodeMetrics;
use tidelog_tls::Credentials;
use tidelog_wire::ids::{GroupId, LogId, NodeId, TimestampMs};
use tokio::sync::watch;

pub use channels::{CreateChannel, Created, ProducerLease};
pub use consensus::{
    ChannelStage, ChannelView, Consensus, Later, LogView, NodeIdentity, Place, ReadBatches, ReadFailure,
    SubmitError,
};
pub use error::BrokerError;
pub use fetch::{FetchRequest, Fetched, When};
pub use members::{Balance, LeaderMove};
pub use produce::Acknowledged;
pub use status::{ClusterView, GroupView, Leaders, LogStanding, Readiness, Stage};
#[cfg(test)]
pub(crate) use {batches::batch_of, fake::FakeConsensus};

use crate::measure::FrontEndCounts;

/// The limits that the broker enforces, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch taken.
    pub batch_bytes: usize,
    /// Most bytes in one answer to a fetch; a single larger batch is still served.
    pub fetch_bytes: usize,
    /// Longest wait of a fetch.
    pub fetch_wait: Duration,
    /// Longest wait for a quorum.
    pub request: Duration,
    /// Segment size of channels that do not say.
    pub segment_bytes: u64,
}

/// What front-ends see of a node.
pub struct Broker {
    node: NodeId,
    limits: Limits,
    counts: FrontEndCounts,
    metrics: Arc<NodeMetrics>,
    consensus: OnceLock<Arc<dyn Consensus>>,
    credentials: OnceLock<Credentials>,
    stopping: watch::Sender<bool>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Broker")
            .field("node", &self.node)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker of node `node` that is not ready yet. `metrics` are filled by consensus, from recovery on.
    #[must_use]
    pub fn new(node: NodeId, limits: Limits, metrics: Arc<NodeMetrics>) -> Self {
        Self {
            node,
            limits,
            counts: FrontEndCounts::default(),
            metrics,
            consensus: OnceLock::new(),
            credentials: OnceLock::new(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Begins to serve through `consensus`. A second call changes nothing.
    pub fn attach(&self, consensus: Arc<dyn Consensus>) {
        if self.consensus.set(consensus).is_err() {
            tracing::warn!("a broker was attached twice");
        }
    }

    /// Tells what the node shows to others, so that its expiry can be asked for. A second call changes nothing.
    pub fn attach_credentials(&self, credentials: Credentials) {
        if self.credentials.set(credentials).is_err() {
            tracing::warn!("a broker was given credentials twice");
        }
    }

    /// When the certificate that the node shows now expires; `None` if it does not.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<TimestampMs> {
        self.credentials.get().and_then(Credentials::expires)
    }

    /// Takes no new work from now on. Waiting fetches are answered with what there is.
    pub fn begin_stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether [`Broker::begin_stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Ends once [`Broker::begin_stop`] is called, or was.
    pub(crate) fn stopped(&self) -> Later<()> {
        let mut stopping = self.stopping.subscribe();
        Box::pin(async move {
            // An error means that the broker is gone, which is as good a reason to stop.
            drop(stopping.wait_for(|stopping| *stopping).await);
        })
    }

    /// The number of this node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The limits it enforces.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is counted here.
    #[must_use]
    pub fn counts(&self) -> &FrontEndCounts {
        &self.counts
    }

    /// What is measured below the front-ends.
    #[must_use]
    pub fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    /// Who this node is; `None` until it is ready to say.
    #[must_use]
    pub fn identity(&self) -> Option<NodeIdentity> {
        self.consensus.get().map(|consensus| consensus.identity())
    }

    /// Consensus, for work that may begin now.
    fn open(&self) -> Result<&Arc<dyn Consensus>, BrokerError> {
        if self.is_stopping() {
            return Err(BrokerError::Stopping);
        }
        self.consensus.get().ok_or_else(|| BrokerError::NotReady { what: format!("node {}", self.node) })
    }

    /// The group of a log that is in use.
    fn group_of(&self, consensus: &dyn Consensus, log: LogId) -> Result<GroupId, BrokerError> {
        match consensus.place(log) {
            Place::Group(group) => Ok(group),
            Place::Opening(_) => Err(BrokerError::NotReady { what: format!("log {log}") }),
            Place::Closing => {
                Err(BrokerError::UnknownLog { log, reason: "its channel is being deleted".to_owned() })
            }
            Place::NoPartition { partitions } => Err(BrokerError::UnknownLog {
                log,
                reason: format!("the channel has {partitions} partitions, counted from 0"),
            }),
            Place::Gone { current: Some(current) } => {
                Err(BrokerError::GenerationMismatch { asked: log.generation, current })
            }
            Place::Gone { current: None } => Err(BrokerError::UnknownLog {
                log,
                reason: "no channel has this generation, so it was deleted or never existed".to_owned(),
            }),
        }
    }

    /// Checks that this node leads `group`.
    fn lead(&self, consensus: &dyn Consensus, group: GroupId) -> Result<(), BrokerError> {
        match consensus.leader(group) {
            Some(leader) if leader == self.node => Ok(()),
            Some(leader) => Err(BrokerError::NotLeader { group, leader }),
            None => Err(BrokerError::NoQuorum { group }),
        }
    }
}
