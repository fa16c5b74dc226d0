//! What a node is started with, and why it may not start.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidelog_engine::OpenError;
use tidelog_engine::checkpoint::CheckpointError;
use tidelog_engine::identity::IdentityError;
use tidelog_engine::quarantine::QuarantineError;
use tidelog_engine::storage::Storage;
use tidelog_tls::Credentials;
use tidelog_wire::ids::{ClusterId, Incarnation, NodeId};

use super::clock::Clock;
use super::fatal::Fatal;
use super::pace::CheckpointPace;
use crate::core::{CoreError, CoreLimits, Ticks};
use crate::metrics::NodeMetrics;
use crate::raft_log::{EngineLogOptions, RaftLogError};
use crate::transport::{TransportError, TransportTuning};
use crate::votes::VotesError;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The operating system's files. raft-engine opens its own beside them.
    pub storage: Arc<dyn Storage>,
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// What to do if the data directory is new.
    pub start: Start,
    /// A random number: the directory gets it when it is formatted, or begins a new life.
    pub incarnation: Incarnation,
    /// Where other nodes reach this one (UDP).
    pub listen: SocketAddr,
    /// The other nodes.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// This node's certificate and key, and the authority it trusts. A node without peers may do without;
    /// then it opens no port.
    pub credentials: Option<Credentials>,
    /// Groups that carry logs. Fixed when the cluster is bootstrapped.
    pub data_groups: u32,
    /// What other nodes and clients read in the catalogue about this one.
    pub addresses: Addresses,
    /// Sizes and times.
    pub tuning: NodeTuning,
    /// Drawn at random for this process: tells it from another that claims the same start.
    pub session: u64,
    /// From it election timeouts are drawn: best random.
    pub seed: u64,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Filled from the start on, so that recovery can be watched.
    pub metrics: Arc<NodeMetrics>,
    /// Ends the process.
    pub fatal: Fatal,
}

/// What to do with the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is that of a running cluster's node. A directory that was never formatted is refused.
    Resume,
    /// Format it if it is new, as a voter of a new cluster. One that is formatted already is resumed.
    Bootstrap {
        /// All nodes of the new cluster; the same list on each of them.
        voters: Vec<NodeId>,
    },
    /// Format it if it is new, and ask the peers to let the node into their cluster. One that is formatted already is resumed.
    Join,
    /// Give it a new life, whatever is in it, and ask the peers to let it in again. What is given up goes to quarantine.
    Rejoin {
        /// How much of it.
        given_up: GivenUp,
    },
}

/// What a data directory gives up when it begins a new life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// What its replicas have promised: raft log and votes. Checkpoints and segments stay, to be reused.
    Promises,
    /// All of it, since it is of another cluster.
    Everything,
}

/// Addresses of a node, for the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of the native protocol.
    pub native: String,
    /// Of the Kafka protocol, if served.
    pub kafka: Option<String>,
    /// Of admin HTTP.
    pub admin: String,
    /// For other nodes.
    pub peer: String,
    /// Release of the program.
    pub version: String,
}

/// Sizes and times. The defaults are those of a server.
#[derive(Clone, Copy, Debug)]
pub struct NodeTuning {
    /// Length of a tick.
    pub tick: Duration,
    /// Timing in ticks.
    pub ticks: Ticks,
    /// Bounds of the core.
    pub limits: CoreLimits,
    /// When groups are checkpointed.
    pub checkpoints: CheckpointPace,
    /// Sizes of the raft log.
    pub raft_log: EngineLogOptions,
    /// Bounds and times of the transport.
    pub transport: TransportTuning,
}

impl Default for NodeTuning {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(25),
            ticks: Ticks::default(),
            limits: CoreLimits::default(),
            checkpoints: CheckpointPace::default(),
            raft_log: EngineLogOptions::default(),
            transport: TransportTuning::default(),
        }
    }
}

/// Why a node did not start. Nothing runs then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine did not open the data directory.
    #[error(transparent)]
    Engine(#[from] OpenError),
    /// The identity cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A checkpoint of a new cluster could not be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The raft log did not open.
    #[error(transparent)]
    RaftLog(#[from] RaftLogError),
    /// Setting the raft log aside failed.
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    /// The votes file did not open.
    #[error(transparent)]
    Votes(#[from] VotesError),
    /// The core refuses its settings.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The transport did not start.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The data directory belongs to another node or cluster.
    #[error(
        "E1120 {dir}: belongs to node {found_node} of cluster {found_cluster}, but this is node {node} of cluster \
         {cluster}: name the right directory, or format a new one and start with `--bootstrap`"
    )]
    Foreign {
        /// The data directory.
        dir: PathBuf,
        /// As configured.
        node: NodeId,
        /// As configured.
        cluster: ClusterId,
        /// As found.
        found_node: NodeId,
        /// As found.
        found_cluster: ClusterId,
    },
    /// There are other nodes, but no certificate to prove anything to them.
    #[error(
        "E1124 node {node} has {peers} peers and no certificate: make one with `tidelog certs`, and name it in \
         the configuration"
    )]
    NoCredentials {
        /// This node.
        node: NodeId,
        /// How many others there are.
        peers: usize,
    },
    /// The list of voters cannot be.
    #[error(
        "E1121 the voters of the new cluster are {voters:?}; expected distinct nodes, and node {node} among them: \
         correct the list, the same on every node"
    )]
    BadVoters {
        /// As configured.
        voters: Vec<NodeId>,
        /// This node.
        node: NodeId,
    },
    /// A thread could not be started.
    #[error("E1122 cannot start thread {name}: {source}: raise the limit of threads, then start again")]
    Thread {
        /// Which.
        name: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The task that recovers the node ended before it was done.
    #[error("E1123 recovery was interrupted: {reason}; start again")]
    Interrupted {
        /// What happened.
        reason: String,
    },
}
