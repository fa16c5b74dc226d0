//! Start and stop of a node, in order.
//!
//! Start: what can be wrong without touching anything is found first (directory, certificates, addresses). Then admin
//! HTTP serves, so that recovery can be watched; then consensus recovers and joins; then clients are let in; then the
//! addresses are written down, which says that they may be used.
//!
//! Stop: readiness falls and waiting fetches are answered; leadership is handed over, the rest is synced and
//! checkpointed; what is under way is answered, connections are told where to go; admin HTTP ends last. All of it
//! within `stop_seconds`, or until a second signal. However it ends, nothing that was acknowledged is lost.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidelog_consensus::core::Ticks;
use tidelog_consensus::metrics::NodeMetrics;
use tidelog_consensus::runtime::{
    Addresses, CheckpointPace, Fatal, NewLife, Node, NodeConfig, NodeHandle, NodeTuning, Start, SystemClock,
};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_tls::Credentials;
use tidelog_wire::ids::{BootEpoch, Incarnation, NodeId};
use tokio::task::JoinHandle;

use super::credentials::{self, PemPaths};
use super::directory;
use super::error::ServerError;
use super::node::RunningNode;
use super::ports::{self, ClaimError, Claimed};
use super::renewal::Renewal;
use super::signals::EndSignals;
use super::{logs, notices};
use crate::FrontEnd;
use crate::admin::AdminFrontEnd;
use crate::broker::{Broker, Limits};
use crate::config::{Configuration, Endpoints, Founding, Settings};
use crate::native::{NativeFrontEnd, NativeLimits};

/// How long a front-end may take to send answers once consensus has stopped. By then every request has its answer; who
/// does not read it must not keep the process.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How a node's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Stopped as asked.
    Stopped,
    /// Could not start, or could not go on.
    Failed,
    /// The disk failed a sync, or a write of the raft log.
    DiskFailed,
    /// Stopping took too long, or a second signal came.
    CutShort,
}

impl Ending {
    /// The exit code, as docs/operations/configuration.md lists them; 2 is a wrong configuration.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Failed => 1,
            Self::DiskFailed => 3,
            Self::CutShort => 4,
        }
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending.number())
    }
}

/// Runs a node until it is told to stop, and says how it ended. `founding` says what may be done to its directory.
#[must_use]
pub fn run(configuration: &Configuration, founding: Founding) -> Ending {
    logs::start(configuration.settings.log_format, configuration.settings.log_level);
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(workers())
        .thread_name("front-ends")
        .build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = ServerError::System { action: "start threads", source };
            tracing::error!("{error}");
            return Ending::Failed;
        }
    };
    let ending = runtime.block_on(live(configuration, founding)).unwrap_or_else(|error| {
        tracing::error!("{error}");
        Ending::Failed
    });
    // A read that hangs in a broken disk must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ending
}

/// Threads for everything that touches the network: half of the processors, since the disk's threads, apply and whoever else
/// uses this machine need some too. A task that wakes another on the same thread costs a tenth of one that wakes a thread.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// A node that serves.
struct Serving {
    broker: Arc<Broker>,
    handle: NodeHandle,
    admin: AdminFrontEnd,
    native: NativeFrontEnd,
    /// Looks for renewed certificates.
    renewal: JoinHandle<()>,
}

async fn live(configuration: &Configuration, founding: Founding) -> Result<Ending, ServerError> {
    let mut signals = EndSignals::listen()?;
    let mut again = None;
    loop {
        let starting = Box::pin(start(configuration, founding, again.take()));
        let mut serving = tokio::select! {
            serving = starting => serving?,
            signal = signals.next() => {
                // Nothing was promised to anyone yet, and recovery can be cut off anywhere.
                tracing::info!(signal, "stopped while starting");
                return Ok(Ending::Stopped);
            }
        };
        let signal = tokio::select! {
            signal = signals.next() => signal,
            new_life = serving.new_life() => {
                // What it promised is given up at the next start, so nobody has to be handed anything.
                serving.handle.abandon().await;
                stop(serving).await;
                again = Some(Start::Rejoin { given_up: new_life.given_up });
                continue;
            }
        };
        return Ok(end(configuration, serving, &mut signals, signal).await);
    }
}

/// Stops, within the time that the configuration gives or until a second signal.
async fn end(
    configuration: &Configuration,
    serving: Serving,
    signals: &mut EndSignals,
    signal: &'static str,
) -> Ending {
    let within = Duration::from_secs(configuration.settings.stop_seconds);
    tracing::info!(signal, seconds = within.as_secs(), "stopping; a second signal stops at once");
    tokio::select! {
        stopped = tokio::time::timeout(within, Box::pin(stop(serving))) => match stopped {
            Ok(()) => {
                tracing::info!("stopped");
                Ending::Stopped
            }
            Err(_) => {
                tracing::warn!("stopping took too long (stop_seconds) and is cut short; nothing acknowledged is lost");
                Ending::CutShort
            }
        },
        signal = signals.next() => {
            tracing::warn!(signal, "stopping is cut short; nothing acknowledged is lost");
            Ending::CutShort
        }
    }
}

impl Serving {
    /// Ends when the node has found that its directory must begin a new life.
    async fn new_life(&mut self) -> NewLife {
        let mut demanded = self.handle.watch_new_life();
        match demanded.wait_for(Option::is_some).await.map(|demanded| demanded.clone()) {
            Ok(Some(new_life)) => new_life,
            // The node is gone, which only a stop does.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

/// Everything that is known before consensus starts.
struct Prepared {
    storage: Arc<dyn Storage>,
    start: Start,
    credentials: Credentials,
    /// Where they were read.
    paths: PemPaths,
    /// The client's files, in a cluster of one that makes its own certificates.
    client: Option<PemPaths>,
}

/// Finds out what can be wrong, and makes the certificates of a cluster of one.
fn prepare(configuration: &Configuration, founding: Founding) -> Result<Prepared, ServerError> {
    let settings = &configuration.settings;
    let (node, data_dir) = (NodeId(settings.node), &settings.data_dir);
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let owner = directory::owner(storage.as_ref(), data_dir)?;
    let start = directory::decide(configuration, founding, owner)?;
    let (paths, client) = match credentials::given(settings) {
        Some(paths) => (paths, None),
        None => {
            if owner.is_none_or(|owner| owner.boot_epoch == BootEpoch::ZERO) {
                let cluster = match owner {
                    Some(owner) => owner.cluster,
                    None => directory::format(&storage, data_dir, node)?,
                };
                credentials::make_own(storage.as_ref(), data_dir, node, cluster)?;
            }
            (credentials::own_node(data_dir, node), Some(credentials::own_client(data_dir)))
        }
    };
    let credentials = credentials::load(storage.as_ref(), &paths, node)?;
    Ok(Prepared { storage, start, credentials, paths, client })
}

/// Starts the node; `again` is how, if it begins a new life in this process.
async fn start(
    configuration: &Configuration,
    founding: Founding,
    again: Option<Start>,
) -> Result<Serving, ServerError> {
    let settings = &configuration.settings;
    let mut prepared = prepare(configuration, founding)?;
    if let Some(start) = again {
        prepared.start = start;
    }
    let Claimed { endpoints, native, admin } = ports::claim(&configuration.endpoints())
        .map_err(|ClaimError { key, address, source }| ServerError::Address { key, address, source })?;
    let metrics = Arc::new(NodeMetrics::default());
    let broker = Arc::new(Broker::new(NodeId(settings.node), limits(settings), Arc::clone(&metrics)));
    broker.attach_credentials(prepared.credentials.clone());
    let mut admin = AdminFrontEnd::new(admin);
    admin.start(Arc::clone(&broker))?;

    let config = node_config(configuration, &prepared, endpoints, metrics)?;
    let handle = Node::start(config).await?;
    for note in handle.recovery_notes() {
        tracing::info!("recovery: {note}");
    }
    broker.attach(Arc::new(RunningNode::new(handle.clone())));
    let credentials = prepared.credentials.clone();
    let mut native = NativeFrontEnd::new(native, credentials, native_limits(settings));
    native.start(Arc::clone(&broker))?;
    announce(configuration, &handle, endpoints, prepared.storage.as_ref(), prepared.client.as_ref())?;
    let Prepared { storage, credentials, paths, .. } = prepared;
    let node = NodeId(settings.node);
    let renewal = Renewal { storage, paths, node, credentials, broker: Arc::clone(&broker) }.start()?;
    Ok(Serving { broker, handle, admin, native, renewal })
}

/// Says, in one line and in files, that this node runs and where.
fn announce(
    configuration: &Configuration,
    handle: &NodeHandle,
    endpoints: Endpoints,
    storage: &dyn Storage,
    client: Option<&PemPaths>,
) -> Result<(), ServerError> {
    let identity = handle.identity();
    let data_dir = &configuration.settings.data_dir;
    let profile: Option<PathBuf> = client
        .map(|client| {
            notices::write_profile(storage, data_dir, identity.cluster, identity.node, endpoints, client)
        })
        .transpose()?;
    let addresses = notices::write_addresses(storage, configuration, endpoints)?;
    tracing::info!(
        node = %identity.node,
        cluster = %identity.cluster,
        boot_epoch = %identity.boot_epoch,
        native = %endpoints.native,
        peers = %endpoints.peers,
        admin = %endpoints.admin,
        data_dir = %data_dir.display(),
        addresses = %addresses.display(),
        client_profile = %profile.map(|path| path.display().to_string()).unwrap_or_default(),
        version = env!("CARGO_PKG_VERSION"),
        "tidelogd runs"
    );
    Ok(())
}

async fn stop(mut serving: Serving) {
    serving.broker.begin_stop();
    serving.renewal.abort();
    serving.handle.stop().await;
    serving.native.stop(DRAIN_MAX).await;
    serving.admin.stop(DRAIN_MAX).await;
}

fn node_config(
    configuration: &Configuration,
    prepared: &Prepared,
    endpoints: Endpoints,
    metrics: Arc<NodeMetrics>,
) -> Result<NodeConfig, ServerError> {
    let settings = &configuration.settings;
    let node = NodeId(settings.node);
    let advertised = |address| configuration.advertised(address).to_string();
    Ok(NodeConfig {
        data_dir: settings.data_dir.clone(),
        storage: Arc::clone(&prepared.storage),
        cluster: prepared.credentials.cluster(),
        node,
        start: prepared.start.clone(),
        listen: endpoints.peers,
        peers: settings
            .peers
            .iter()
            .map(|(node, at)| (*node, *at))
            .filter(|(other, _)| *other != node)
            .collect(),
        // A cluster of one opens its port for others too, so that it can grow.
        credentials: Some(prepared.credentials.clone()),
        incarnation: Incarnation(super::random()?),
        data_groups: u32::try_from(settings.data_groups).unwrap_or(u32::MAX),
        addresses: Addresses {
            native: advertised(endpoints.native),
            kafka: None,
            // Admin HTTP is reached on the node's own machine only.
            admin: endpoints.admin.to_string(),
            peer: advertised(endpoints.peers),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        },
        tuning: tuning(settings),
        session: random_u64()?,
        seed: random_u64()?,
        clock: Arc::new(SystemClock::new()),
        metrics,
        fatal: Fatal::new(end_process),
    })
}

/// The low half of a random number is one.
fn random_u64() -> Result<u64, ServerError> {
    Ok(u64::try_from(super::random()? & u128::from(u64::MAX)).unwrap_or(0))
}

fn tuning(settings: &Settings) -> NodeTuning {
    let ticks = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    NodeTuning {
        tick: Duration::from_millis(settings.tick_ms),
        ticks: Ticks {
            heartbeat: ticks(settings.heartbeat_ticks),
            election_min: ticks(settings.election_ticks_min),
            election_max: ticks(settings.election_ticks_max),
            ..Ticks::default()
        },
        checkpoints: CheckpointPace {
            bytes: settings.checkpoint_bytes,
            interval: Duration::from_secs(settings.checkpoint_seconds),
        },
        ..NodeTuning::default()
    }
}

/// Ends the process at once: what is durable can no longer be vouched for, so nothing more may be acknowledged.
fn end_process(message: &str) {
    tracing::error!("{message}");
    std::process::exit(i32::from(Ending::DiskFailed.number()));
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        batch_bytes: size(settings.batch_bytes),
        fetch_bytes: size(settings.fetch_bytes),
        fetch_wait: Duration::from_millis(settings.fetch_wait_ms),
        request: Duration::from_millis(settings.request_ms),
        segment_bytes: settings.segment_bytes,
    }
}

fn native_limits(settings: &Settings) -> NativeLimits {
    NativeLimits {
        connections: size(settings.connections),
        requests: size(settings.in_flight),
        bytes: size(settings.in_flight_bytes),
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
