//! The native protocol: QUIC, with certificates on both ends.
//!
//! 1. A connection shows a certificate of the cluster, or is refused in the TLS handshake.
//! 2. Its first stream begins with a greeting (`connection`). Whatever is no greeting closes the connection.
//! 3. Each stream is a pipeline (`stream`): requests are taken in order and answered in any order. Batches of one
//!    stream are proposed in the order in which they came.
//! 4. What a client may have under way is bounded in requests and bytes; beyond it, its streams are not read from, so
//!    QUIC's own flow control holds it back. Nobody else notices.
//!
//! A connection that is silent for 2 s is dropped, and keep-alives every 500 ms see to it that a living one is not.
//!
//! Not here: what requests mean (`requests`, and behind it [`crate::broker`]), and the bytes of frames
//! ([`tidelog_wire::protocol`]).

mod connection;
mod members;
mod reply;
mod requests;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, IdleTimeout, TransportConfig, VarInt};
use tidelog_tls::{Credentials, Protocol};
use tidelog_wire::ids::ClusterId;
use tidelog_wire::limits::STREAM_WINDOW_BYTES;
use tidelog_wire::protocol::FrameLimits;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::broker::Broker;
use crate::{FrontEnd, StartError, Stopping};

/// How long a connection may be silent.
const IDLE_MS: u32 = 2_000;
/// How often a connection without other traffic shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Streams of one connection at a time.
const STREAMS_MAX: u32 = 16;
/// Largest frame that a client may send.
const FRAME_BYTES_MAX: usize =
    8 + FrameLimits::REQUESTS.header_bytes_max + FrameLimits::REQUESTS.payload_bytes_max;

/// Why this node closes a connection: the code that the client sees. The reason beside it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// What came was not the protocol.
    Protocol,
    /// The node is stopping: ask another one.
    Stopping,
    /// No greeting came in time, or the node is not ready to answer one.
    NotGreeted,
}

impl CloseCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Stopping => 2,
            Self::NotGreeted => 3,
        }
    }
}

/// What connections may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NativeLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Unanswered requests of one connection.
    pub requests: usize,
    /// Bytes of frames received and not answered, and again as many of answers, of one connection.
    pub bytes: usize,
}

/// What connections share.
#[derive(Debug)]
struct Shared {
    broker: Arc<Broker>,
    cluster: ClusterId,
    limits: NativeLimits,
    /// Requests taken and not answered.
    under_way: watch::Sender<usize>,
}

/// The native front-end, before or after its start.
pub struct NativeFrontEnd {
    socket: Option<UdpSocket>,
    credentials: Credentials,
    limits: NativeLimits,
    running: Option<Running>,
}

struct Running {
    endpoint: Endpoint,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl std::fmt::Debug for NativeFrontEnd {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("NativeFrontEnd").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl NativeFrontEnd {
    /// A front-end that will serve on `socket`, showing `credentials`.
    #[must_use]
    pub fn new(socket: UdpSocket, credentials: Credentials, limits: NativeLimits) -> Self {
        Self { socket: Some(socket), credentials, limits, running: None }
    }

    fn open(&mut self) -> io::Result<Endpoint> {
        let socket = self.socket.take().ok_or(io::ErrorKind::NotConnected)?;
        let mut config =
            tidelog_tls::server_config(&self.credentials, Protocol::Native).map_err(io::Error::other)?;
        config.transport_config(Arc::new(transport(self.limits)));
        let endpoint = tidelog_tls::endpoint_config(&self.credentials);
        Endpoint::new(endpoint, Some(config), socket, Arc::new(quinn::TokioRuntime))
    }
}

fn transport(limits: NativeLimits) -> TransportConfig {
    let window =
        |bytes: usize| VarInt::from_u64(u64::try_from(bytes).unwrap_or(u64::MAX)).unwrap_or(VarInt::MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(window(STREAM_WINDOW_BYTES))
        .receive_window(window(limits.bytes.max(STREAM_WINDOW_BYTES)));
    transport
}

impl FrontEnd for NativeFrontEnd {
    fn name(&self) -> &'static str {
        "native"
    }

    fn start(&mut self, broker: Arc<Broker>) -> Result<SocketAddr, StartError> {
        let failed = |source| StartError { front_end: "native", source };
        let endpoint = self.open().map_err(failed)?;
        let address = endpoint.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            broker,
            cluster: self.credentials.cluster(),
            limits: self.limits,
            under_way: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(endpoint.clone(), Arc::clone(&shared)));
        self.running = Some(Running { endpoint, shared, accepting });
        Ok(address)
    }

    fn stop(&mut self, within: Duration) -> Stopping<'_> {
        Box::pin(async move {
            let Some(Running { endpoint, shared, accepting }) = self.running.take() else { return };
            let deadline = tokio::time::Instant::now() + within;
            // New connections are turned away; those there are get answers until nothing is under way.
            endpoint.set_server_config(None);
            let mut under_way = shared.under_way.subscribe();
            let answered = under_way.wait_for(|requests| *requests == 0);
            if tokio::time::timeout_at(deadline, answered).await.is_err() {
                tracing::warn!("native requests are cut off: stopping took too long");
            }
            let code = VarInt::from_u32(CloseCode::Stopping.number());
            endpoint.close(code, b"this node is stopping: ask another one");
            accepting.abort();
            // A moment for clients to hear of it; one that does not will notice by itself.
            drop(tokio::time::timeout_at(deadline, endpoint.wait_idle()).await);
        })
    }
}

/// Takes connections until the endpoint is closed.
async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    let slots = Arc::new(Semaphore::new(shared.limits.connections));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            shared.broker.counts().connections_refused.add(1);
            incoming.refuse();
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            connection::serve(incoming, shared).await;
            drop(slot);
        });
    }
}
