//! Transport: messages and files between the nodes of a cluster, over QUIC with mutual TLS.
//!
//! Each pair of nodes shares one connection. Both dial; `link` says which connection is kept. Every
//! connection begins with hellos (`handshake`): cluster, node, incarnation, boot epoch, version. Then
//! each end opens two streams (`frames`): control for votes and heartbeats, which goes first, and
//! append for the rest. Bulk transfers and asks (`bulk`) have streams of their own, which go last.
//!
//! Sending never waits. A message that finds its queue full, or its peer not connected, is dropped and
//! counted: raft sends again. A broken connection is dialled again, with pauses that grow to a limit.
//! Whatever a peer sends is checked before memory is taken for it; a violation closes that
//! connection and harms nothing else.
//!
//! Not here: what messages and requests mean, and who may join. The node's runtime decides.

mod bulk;
mod error;
mod frames;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handshake;
mod hello;
mod link;
mod metrics;
mod pairing;
mod session;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_tls::Protocol;
use tidelog_wire::ids::{GroupId, NodeId};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub use self::bulk::{ASK_ANSWER_BYTES_MAX, BULK_REQUEST_BYTES_MAX, BulkObject, BulkReader, BulkSource, NoBulk};
pub use self::error::{Remote, TransportError};
pub use self::hello::{PeerHello, VERSIONS};
pub use self::metrics::{Counter, TransportMetrics};
pub use self::settings::{PeerEvents, TransportConfig, TransportTuning};

use self::bulk::Pace;
use self::error::CloseCode;
use self::frames::encode_head;
use self::pairing::Peer;
use crate::core::Lane;

/// Handshakes of accepted connections at once; more are refused.
const HANDSHAKES_MAX: usize = 64;
/// Asks answered at once; more are refused.
const ASKS_MAX: usize = 16;
/// Time for peers to hear that this node stops.
const GOODBYE: Duration = Duration::from_millis(300);

/// Why a message was not queued. It will not arrive; raft sends what matters again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The queue of that peer and lane is full.
    Full,
    /// The peer is not connected.
    NotConnected,
    /// No such peer is configured.
    Unknown,
    /// Larger than any frame may be: a bug in the caller.
    TooLarge,
}

/// The connections of one node to all others. Clones are handles to the same; when the last is
/// dropped, or [`Transport::stop`] is called, they are closed.
#[derive(Clone, Debug)]
pub struct Transport {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

/// Everything that the tasks of a transport share.
struct Shared {
    hello: PeerHello,
    /// Drawn at random for this process, and shown in its hellos.
    session: u64,
    endpoint: quinn::Endpoint,
    tuning: TransportTuning,
    events: Arc<dyn PeerEvents>,
    bulk: Arc<dyn BulkSource>,
    peers: BTreeMap<NodeId, Peer>,
    metrics: Arc<TransportMetrics>,
    bulk_slots: Semaphore,
    ask_slots: Semaphore,
    handshake_slots: Arc<Semaphore>,
    pace: Pace,
    stopping: watch::Sender<bool>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Transport").field("hello", &self.hello).finish_non_exhaustive()
    }
}

/// Stops the tasks, which keep `Shared` alive, when the last handle goes.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        self.stopping.send_replace(true);
        self.endpoint.close(CloseCode::Stopping.number(), b"this node stops");
    }

    /// Returns once the transport is being stopped.
    async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        if stopping.wait_for(|stopping| *stopping).await.is_err() {
            tracing::debug!("the stop signal is gone");
        }
    }
}

impl Transport {
    /// Binds the address for peers, starts dialling them and accepting their dials, on `runtime`.
    ///
    /// Returns at once; [`PeerEvents::up`] tells of each connection.
    ///
    /// # Errors
    /// [`TransportError::Listen`] if the address cannot be bound or the system has no randomness, [`TransportError::Tls`] if the
    /// credentials cannot be used. Nothing is running then.
    pub fn start(
        config: TransportConfig,
        events: Arc<dyn PeerEvents>,
        bulk: Arc<dyn BulkSource>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, TransportError> {
        let TransportConfig { listen, hello, credentials, peers, tuning } = config;
        let quic = tuning.quic();
        let mut server = tidelog_tls::server_config(&credentials, Protocol::Peer)?;
        server.transport_config(Arc::clone(&quic));
        let mut client = tidelog_tls::client_config(&credentials, Protocol::Peer)?;
        client.transport_config(quic);
        let failed = |source| TransportError::Listen { address: listen, source };
        let socket = UdpSocket::bind(listen).map_err(failed)?;
        let entered = runtime.enter();
        let endpoint_config = tidelog_tls::endpoint_config(&credentials);
        let quinn_runtime = Arc::new(quinn::TokioRuntime);
        let mut endpoint =
            quinn::Endpoint::new(endpoint_config, Some(server), socket, quinn_runtime).map_err(failed)?;
        drop(entered);
        endpoint.set_default_client_config(client);
        let mut session = [0; 8];
        let random = rustls::crypto::ring::default_provider().secure_random;
        random.fill(&mut session).map_err(|_| failed(std::io::ErrorKind::Unsupported.into()))?;
        let fetched_max = tuning.bulk_fetched_max;
        let others = peers.into_iter().filter(|(node, _)| *node != hello.node);
        let shared = Arc::new(Shared {
            hello,
            session: u64::from_le_bytes(session),
            endpoint,
            tuning,
            events,
            bulk,
            peers: others.map(|(node, address)| (node, Peer::new(address, fetched_max))).collect(),
            metrics: Arc::new(TransportMetrics::default()),
            bulk_slots: Semaphore::new(tuning.bulk_served_max),
            ask_slots: Semaphore::new(ASKS_MAX),
            handshake_slots: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            pace: Pace::new(tuning.bulk_bytes_per_second),
            stopping: watch::Sender::new(false),
        });
        runtime.spawn(pairing::accept(Arc::clone(&shared)));
        for node in shared.peers.keys() {
            runtime.spawn(pairing::keep_connected(Arc::clone(&shared), *node));
        }
        let owner = Arc::new(Owner { shared: Arc::clone(&shared) });
        Ok(Self { shared, _owner: owner })
    }

    /// The address that peers dial.
    ///
    /// # Errors
    /// The system's, if the socket is gone.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// Queues a message. Never waits, and does not say whether it arrives.
    ///
    /// # Errors
    /// [`Dropped`], which is counted too: the message does not arrive.
    pub fn send(&self, to: NodeId, lane: Lane, group: GroupId, message: Bytes) -> Result<(), Dropped> {
        let peer = self.shared.peers.get(&to).ok_or(Dropped::Unknown)?;
        let head = encode_head(group, &message).ok_or(Dropped::TooLarge)?;
        let pushed = peer.push(lane, head, message);
        match pushed {
            Ok(()) => {}
            Err(Dropped::Full) => self.shared.metrics.dropped_full.add(1),
            Err(Dropped::NotConnected | Dropped::Unknown | Dropped::TooLarge) => {
                self.shared.metrics.dropped_down.add(1);
            }
        }
        pushed
    }

    /// Asks a peer's [`BulkSource`] for what `request` names, from byte `position` on. Waits while as
    /// many transfers from that peer as are allowed are under way; each ends when its reader is dropped.
    ///
    /// # Errors
    /// [`TransportError::NotConnected`] at once; [`TransportError::BulkRefused`] with the peer's
    /// reason; [`TransportError::Timeout`] or [`TransportError::Lost`] if no answer comes.
    pub async fn fetch(
        &self,
        from: NodeId,
        request: Bytes,
        position: u64,
    ) -> Result<BulkReader, TransportError> {
        let peer = self.shared.peers.get(&from).ok_or(TransportError::UnknownNode { node: from })?;
        let limit = self.shared.tuning.bulk_stall;
        let slot = timeout(limit, peer.fetches().acquire_owned()).await.map_err(|_| {
            TransportError::Timeout { peer: Remote::Node(from), action: "finish other bulk transfers", limit }
        })?;
        // The slots are never closed.
        let slot = slot.map_err(|_| TransportError::Stopped)?;
        let connection = peer.connection().ok_or(TransportError::NotConnected { node: from })?;
        bulk::fetch(&self.shared, &connection, from, request, position, Some(slot)).await
    }

    /// Asks a peer's [`BulkSource`] for something short, at most [`ASK_ANSWER_BYTES_MAX`]. Waits for no transfer
    /// and takes no slot of one.
    ///
    /// # Errors
    /// As [`Transport::fetch`], and [`TransportError::TooLarge`] if the answer is longer.
    pub async fn ask(&self, to: NodeId, request: Bytes) -> Result<Bytes, TransportError> {
        let peer = self.shared.peers.get(&to).ok_or(TransportError::UnknownNode { node: to })?;
        let connection = peer.connection().ok_or(TransportError::NotConnected { node: to })?;
        bulk::ask(&self.shared, &connection, to, request).await
    }

    /// The peers that are connected now, and in which life.
    #[must_use]
    pub fn connected(&self) -> Vec<PeerHello> {
        self.shared.peers.values().filter_map(Peer::hello).collect()
    }

    /// What this transport has done so far.
    #[must_use]
    pub fn metrics(&self) -> Arc<TransportMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Closes all connections, tells the peers, and returns when they know or a short time is over.
    pub async fn stop(&self) {
        self.shared.close();
        if timeout(GOODBYE, self.shared.endpoint.wait_idle()).await.is_err() {
            tracing::debug!("a peer did not hear the goodbye");
        }
    }
}
