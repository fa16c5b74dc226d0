//! The network's floors: echoes over QUIC with mutual TLS on loopback, between two tokio runtimes.
//!
//! No acknowledgement can come sooner than the request can travel and a small answer come back. One [`Echo`] is set up as a
//! client and a node are, the other as two nodes are: the same library, TLS, timeouts and windows, one stream, the same bytes. What
//! the other end does with a request is to count its bytes.
//!
//! The settings are those of `tidelog_client`, `tidelog_frontends::native` and `tidelog_consensus::transport`; where they name no
//! public constant, the values stand here again.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use quinn::{Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt};
use tidelog_client::ClientOptions;
use tidelog_consensus::transport::TransportTuning;
use tidelog_tls::{Authority, Credentials, PemFile, PemPair, Protocol};
use tidelog_wire::ids::{ClusterId, NodeId};
use tidelog_wire::limits::STREAM_WINDOW_BYTES;
use tokio::runtime::Handle;

use crate::clock;
use crate::error::{BenchError, Doing as _};
use crate::rounds::Operation;

/// Name of the operations in reports.
pub(crate) const CLIENT_ECHO: &str = "client echo";
/// Name of the operations in reports.
pub(crate) const PEER_ECHO: &str = "peer echo";

/// Bytes of an answer: about what an acknowledgement takes.
const ANSWER_BYTES: usize = 64;
/// Read at once.
const READ_BYTES: usize = 64 * 1024;
/// The node that answers.
const NODE: NodeId = NodeId(0);

/// Sends the same bytes again and again and waits for the answer to each.
pub(crate) struct Echo {
    name: &'static str,
    client: Handle,
    request: Bytes,
    send: SendStream,
    receive: RecvStream,
    _endpoints: [Endpoint; 2],
}

impl Echo {
    /// Between a client and a node. The client's end runs in `client`, the other in `node`.
    pub(crate) fn client(client: &Handle, node: &Handle, bytes: &Bytes) -> Result<Self, BenchError> {
        let authority = Authority::create(ClusterId(1)).doing("make an authority")?;
        let dials = authority.issue_client("bench").doing("make a certificate")?;
        let (dials, answers) = (credentials(&authority, &dials)?, node_credentials(&authority, NODE)?);
        let ends = (client_transport()?, native_transport());
        Self::start(CLIENT_ECHO, (client, node), Protocol::Native, (&dials, &answers), ends, bytes)
    }

    /// Between two nodes.
    pub(crate) fn peer(client: &Handle, node: &Handle, bytes: &Bytes) -> Result<Self, BenchError> {
        let authority = Authority::create(ClusterId(1)).doing("make an authority")?;
        let (dials, answers) =
            (node_credentials(&authority, NodeId(1))?, node_credentials(&authority, NODE)?);
        let ends = (peer_transport()?, peer_transport()?);
        Self::start(PEER_ECHO, (client, node), Protocol::Peer, (&dials, &answers), ends, bytes)
    }

    fn start(
        name: &'static str,
        (client, node): (&Handle, &Handle),
        protocol: Protocol,
        (dials, answers): (&Credentials, &Credentials),
        (dialling, answering): (TransportConfig, TransportConfig),
        bytes: &Bytes,
    ) -> Result<Self, BenchError> {
        let mut server = tidelog_tls::server_config(answers, protocol).doing("configure an echo")?;
        server.transport_config(Arc::new(answering));
        let answering = endpoint(node, answers, Some(server))?;
        let address = answering.local_addr().doing("open an echo")?;
        node.spawn(answer(answering.clone(), bytes.len()));
        let mut config = tidelog_tls::client_config(dials, protocol).doing("configure an echo")?;
        config.transport_config(Arc::new(dialling));
        let dialling = endpoint(client, dials, None)?;
        let server_name = tidelog_tls::node_name(NODE, dials.cluster());
        let opened = client.block_on(async {
            let connection = dialling
                .connect_with(config, address, &server_name)
                .doing("dial an echo")?
                .await
                .doing("reach an echo")?;
            connection.open_bi().await.doing("open a stream to an echo")
        });
        let (send, receive) = opened?;
        let request = bytes.clone();
        Ok(Self { name, client: client.clone(), request, send, receive, _endpoints: [dialling, answering] })
    }
}

impl Operation for Echo {
    fn name(&self) -> &'static str {
        self.name
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let Self { client, request, send, receive, .. } = self;
        let echo = async {
            send.write_chunk(request.clone()).await.doing("send to an echo")?;
            receive.read_exact(&mut [0; ANSWER_BYTES]).await.doing("hear from an echo")
        };
        let (echoed, took) = clock::timed(|| client.block_on(echo));
        echoed.map(|()| took)
    }
}

/// Answers every `request_bytes` bytes on the first stream of the first connection, until it ends.
async fn answer(endpoint: Endpoint, request_bytes: usize) {
    let Some(incoming) = endpoint.accept().await else { return };
    let Ok(connection) = incoming.await else { return };
    let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
    let answer = Bytes::from_static(&[0; ANSWER_BYTES]);
    let mut received = 0;
    // Put together in one buffer, as a node does before it can look at a batch.
    let mut request = BytesMut::with_capacity(request_bytes);
    while let Ok(Some(chunk)) = receive.read_chunk(READ_BYTES, true).await {
        request.put(chunk.bytes.as_ref());
        received += request.len();
        request.clear();
        while received >= request_bytes {
            received -= request_bytes;
            if send.write_chunk(answer.clone()).await.is_err() {
                return;
            }
        }
    }
}

fn endpoint(
    runtime: &Handle,
    own: &Credentials,
    server: Option<quinn::ServerConfig>,
) -> Result<Endpoint, BenchError> {
    let _inside = runtime.enter();
    let socket =
        UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).doing("open a port for an echo")?;
    let config = tidelog_tls::endpoint_config(own);
    Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime)).doing("open an echo")
}

fn node_credentials(authority: &Authority, node: NodeId) -> Result<Credentials, BenchError> {
    credentials(authority, &authority.issue_node(node).doing("make a certificate")?)
}

fn credentials(authority: &Authority, pair: &PemPair) -> Result<Credentials, BenchError> {
    let file = |name, text| PemFile { path: Path::new(name), text };
    let ca = file("ca.pem", authority.cert_pem());
    Credentials::parse(&ca, &file("cert.pem", &pair.cert), &file("key.pem", &pair.key))
        .doing("read a certificate")
}

fn window(bytes: usize) -> VarInt {
    VarInt::try_from(bytes).unwrap_or(VarInt::MAX)
}

fn idle(length: Duration) -> Result<Option<IdleTimeout>, BenchError> {
    IdleTimeout::try_from(length).map(Some).doing("configure an echo")
}

/// As `tidelog_client` sets it.
fn client_transport() -> Result<TransportConfig, BenchError> {
    let options = ClientOptions::default();
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(idle(options.idle)?)
        .stream_receive_window(window(STREAM_WINDOW_BYTES))
        .receive_window(window(2 * STREAM_WINDOW_BYTES))
        .send_window(window(2 * STREAM_WINDOW_BYTES).into_inner());
    Ok(transport)
}

/// As `tidelog_frontends::native` sets it, but for its limits on hostile clients.
fn native_transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(2000))))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(window(STREAM_WINDOW_BYTES))
        .receive_window(window(2 * STREAM_WINDOW_BYTES));
    transport
}

/// As `tidelog_consensus::transport` sets it, for two streams and no bulk transfers.
fn peer_transport() -> Result<TransportConfig, BenchError> {
    let tuning = TransportTuning::default();
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(tuning.keep_alive))
        .max_idle_timeout(idle(tuning.idle)?)
        .initial_rtt(Duration::from_millis(20))
        .stream_receive_window(window(tuning.stream_window_bytes))
        .receive_window(window(2 * tuning.stream_window_bytes))
        .send_window(window(2 * tuning.stream_window_bytes).into_inner());
    Ok(transport)
}
