//! Transport: messages and files between the nodes of a cluster, over QUIC with mutual TLS.
//!
//! Each pair of nodes shares one connection. Both dial; `link` says which connection is kept. Every
//! connection begins with hellos (`handshake`): cluster, node, incarnation, boot epoch, version. Then
//! each end opens two streams (`frames`): control for votes and heartbeats, which goes first, and
//! append for the rest. Bulk transfers (`bulk`) have streams of their own, which go last.
//!
//! Sending never waits. A message that finds its queue full, or its peer not connected, is dropped and
//! counted: raft sends again. A broken connection is dialled again, with pauses that grow to a limit.
//! Whatever a peer sends is checked before memory is taken for it; a violation closes that
//! connection and harms nothing else.
//!
//! Peers come and go at run time ([`Transport::know`]): the catalogue's nodes beside the configured seeds. Whoever has a
//! certificate of the cluster may connect; one whose life the catalogue does not name is a guest (`directory`), which
//! may ask and no more.
//!
//! Not here: what messages and requests mean, and who may join. The node's runtime decides.

mod asks;
mod bulk;
mod directory;
mod echo;
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
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use bytes::Bytes;
use tidelog_tls::Protocol;
use tidelog_wire::ids::{GroupId, NodeId};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub use self::asks::{ANSWER_BYTES_MAX, AskSource, Asker, LaterAnswer, NoAsks};
pub use self::bulk::{BULK_REQUEST_BYTES_MAX, BulkObject, BulkReader, BulkSource, NoBulk};
pub use self::directory::{Directory, KnownLife, KnownNode, Seen};
pub use self::echo::ECHO_BYTES_MAX;
pub use self::error::{Remote, TransportError};
pub use self::hello::{PeerHello, VERSIONS};
pub use self::metrics::{Counter, TransportMetrics};
pub use self::settings::{PeerEvents, TransportConfig, TransportTuning};

use self::asks::{ANSWERED_MAX, ASKS_MAX};
use self::bulk::Pace;
use self::echo::Echoes;
use self::error::CloseCode;
use self::frames::encode_head;
use self::hello::HelloFrame;
use self::pairing::{Peer, Route};
use crate::core::Lane;

/// Handshakes of accepted connections at once; more are refused.
const HANDSHAKES_MAX: usize = 64;
/// Nodes that are known or are guests at once; more guests are refused.
const PEERS_MAX: usize = 2048;
/// Time for peers to hear that this node stops.
const GOODBYE: Duration = Duration::from_millis(300);

/// Why a message was not queued. It will not arrive; raft sends what matters again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The queue of that peer and lane is full.
    Full,
    /// The peer is not connected.
    NotConnected,
    /// The peer is a guest.
    Guest,
    /// No such peer is known.
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
    asks: Arc<dyn AskSource>,
    /// Configured.
    seeds: BTreeMap<NodeId, SocketAddr>,
    directory: RwLock<Directory>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    metrics: Arc<TransportMetrics>,
    bulk_slots: Semaphore,
    ask_slots: Semaphore,
    handshake_slots: Arc<Semaphore>,
    pace: Pace,
    runtime: tokio::runtime::Handle,
    echoes: Echoes,
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
    fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers(&self) -> RwLockReadGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers().get(&node).cloned()
    }

    /// The peer of this number, entered as a guest if nobody knows it; `None` if there are too many already.
    fn peer_or_guest(&self, node: NodeId) -> Option<Arc<Peer>> {
        let mut peers = self.peers_mut();
        if !peers.contains_key(&node) && peers.len() >= PEERS_MAX {
            return None;
        }
        let fetched_max = self.tuning.bulk_fetched_max;
        let peer = peers.entry(node).or_insert_with(|| Arc::new(Peer::new(node, fetched_max)));
        Some(Arc::clone(peer))
    }

    /// Forgets a peer that nobody knows, once its connection has ended.
    fn forget_guest(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers_mut();
        let node = peer.node();
        let known = self.seeds.contains_key(&node) || self.directory().nodes.contains_key(&node);
        if !known && !peer.is_connected() && peers.get(&node).is_some_and(|kept| Arc::ptr_eq(kept, peer)) {
            peers.remove(&node);
            peer.set_route(Route::Gone);
        }
    }

    /// Where a node is dialled.
    fn route(&self, node: NodeId) -> Route {
        let directory = self.directory();
        let known = directory.nodes.get(&node);
        if known.is_some_and(|known| matches!(known.life, KnownLife::Removed(_))) {
            return Route::Wait;
        }
        let address = known.and_then(|known| known.address).or_else(|| self.seeds.get(&node).copied());
        address.map_or(Route::Wait, Route::Dial)
    }

    /// What this node says first.
    fn introduction(&self, versions: (u16, u16)) -> HelloFrame {
        let directory = self.directory();
        let (founding, named_at) = (directory.founding, directory.named_at);
        HelloFrame { versions, hello: self.hello, session: self.session, founding, named_at }
    }

    fn close(&self) {
        self.stopping.send_replace(true);
        self.endpoint.close(CloseCode::Stopping.number(), b"this node stops");
    }

    /// Queues a message for a peer, and counts one that is dropped.
    fn push(&self, to: NodeId, lane: Lane, group: GroupId, message: Bytes) -> Result<(), Dropped> {
        let head = encode_head(group, &message).ok_or(Dropped::TooLarge)?;
        let pushed = self.peers().get(&to).ok_or(Dropped::Unknown)?.push(lane, head, message);
        match pushed {
            Ok(()) => {}
            Err(Dropped::Full) => self.metrics.dropped_full.add(1),
            Err(Dropped::Guest) => self.metrics.dropped_guest.add(1),
            Err(Dropped::NotConnected | Dropped::Unknown | Dropped::TooLarge) => {
                self.metrics.dropped_down.add(1);
            }
        }
        pushed
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
        (bulk, asks): (Arc<dyn BulkSource>, Arc<dyn AskSource>),
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, TransportError> {
        let TransportConfig { listen, hello, session, credentials, peers, directory, tuning } = config;
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
        let seeds = peers.into_iter().filter(|(node, _)| *node != hello.node).collect();
        let shared = Arc::new(Shared {
            hello,
            session,
            endpoint,
            tuning,
            events,
            bulk,
            asks,
            seeds,
            directory: RwLock::default(),
            peers: RwLock::default(),
            metrics: Arc::new(TransportMetrics::default()),
            bulk_slots: Semaphore::new(tuning.bulk_served_max),
            ask_slots: Semaphore::new(ANSWERED_MAX),
            handshake_slots: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            pace: Pace::new(tuning.bulk_bytes_per_second),
            runtime: runtime.clone(),
            echoes: Echoes::default(),
            stopping: watch::Sender::new(false),
        });
        shared.know(directory);
        runtime.spawn(pairing::accept(Arc::clone(&shared)));
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

    /// Takes over what is known of the cluster now: dials nodes that are new or moved, forgets those that are known no
    /// more, and judges every connection anew.
    pub fn know(&self, directory: Directory) {
        self.shared.know(directory);
    }

    /// Ends all connections, to introduce this node anew: to be called once when a catalogue names it for the first
    /// time, since only hellos tell that to peers whose own catalogue is behind.
    pub fn introduce_anew(&self) {
        let peers: Vec<_> = self.shared.peers().values().cloned().collect();
        for peer in peers {
            peer.disconnect(&TransportError::Introduced { node: self.shared.hello.node });
        }
    }

    /// Queues a message. Never waits, and does not say whether it arrives.
    ///
    /// # Errors
    /// [`Dropped`], which is counted too: the message does not arrive.
    pub fn send(&self, to: NodeId, lane: Lane, group: GroupId, message: Bytes) -> Result<(), Dropped> {
        self.shared.push(to, lane, group, message)
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
        let peer = self.shared.peer(from).ok_or(TransportError::UnknownNode { node: from })?;
        let limit = self.shared.tuning.bulk_stall;
        let slot = timeout(limit, peer.fetches().acquire_owned()).await.map_err(|_| {
            TransportError::Timeout { peer: Remote::Node(from), action: "finish other bulk transfers", limit }
        })?;
        // The slots are never closed.
        let slot = slot.map_err(|_| TransportError::Stopped)?;
        let connection = peer.connection().ok_or(TransportError::NotConnected { node: from })?;
        bulk::fetch(&self.shared, &connection, from, request, position, slot).await
    }

    /// The members that are connected now, and in which life.
    #[must_use]
    pub fn connected(&self) -> Vec<PeerHello> {
        self.reachable().into_iter().filter_map(|(hello, member)| member.then_some(hello)).collect()
    }

    /// Everybody who is connected now and can be asked, and whether as a member.
    #[must_use]
    pub fn reachable(&self) -> Vec<(PeerHello, bool)> {
        self.shared.peers().values().filter_map(|peer| peer.hello()).collect()
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
