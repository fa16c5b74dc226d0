//! One connection: handshake, greeting, then its streams.
//!
//! | what comes | what happens |
//! |---|---|
//! | no certificate, a foreign one, another ALPN | the TLS handshake fails; counted as refused |
//! | no greeting within [`GREETING_MAX`] | closed: not greeted |
//! | bytes that are no greeting | closed: protocol, with the error as reason |
//! | a greeting without a version in common | the refusal that names ours, then closed: protocol |
//! | a stream whose lengths cannot be right | closed: protocol, with the error as reason |

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use tidelog_tls::Holder;
use tidelog_wire::limits::TEXT_BYTES_MAX;
use tidelog_wire::protocol::{
    FrameLimits, Hello, HelloAnswer, HelloRefusal, ProtocolError, ServerLimits, Welcome,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::stream::{self, FrameReader, StreamEnd};
use super::{CloseCode, FRAME_BYTES_MAX, Shared};

/// How long the TLS handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// How long the greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(2);
/// How long a refused client may take to read why.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// A greeting is small.
const GREETING_LIMITS: FrameLimits =
    FrameLimits { header_bytes_max: TEXT_BYTES_MAX + 64, payload_bytes_max: 0 };

/// A greeted connection: what its streams share.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    /// Unanswered requests.
    pub(super) requests: Arc<Semaphore>,
    /// Bytes of frames received and not answered.
    pub(super) bytes: Arc<Semaphore>,
    /// Bytes of answers being read and sent.
    pub(super) answer_bytes: Arc<Semaphore>,
}

impl Peer {
    fn new(connection: Connection, shared: Arc<Shared>) -> Self {
        let bytes = shared.limits.bytes.max(FRAME_BYTES_MAX);
        let requests = Arc::new(Semaphore::new(shared.limits.requests));
        let (bytes, answer_bytes) = (Arc::new(Semaphore::new(bytes)), Arc::new(Semaphore::new(bytes)));
        Self { connection, shared, requests, bytes, answer_bytes }
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(incoming: Incoming, shared: Arc<Shared>) {
    let from = incoming.remote_address();
    let connection = match timeout(HANDSHAKE_MAX, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%from, %error, "a native connection was refused");
            return shared.broker.counts().connections_refused.add(1);
        }
        Err(_) => return shared.broker.counts().connections_refused.add(1),
    };
    let counts = shared.broker.counts();
    let holder = match tidelog_tls::peer_holder(&connection, shared.cluster) {
        Ok(holder) => name(&holder),
        Err(error) => {
            counts.connections_refused.add(1);
            return close(&connection, CloseCode::Protocol, &error.to_string());
        }
    };
    counts.connections_opened.add(1);
    tracing::debug!(%from, %holder, "a native connection is open");
    let peer = Arc::new(Peer::new(connection.clone(), Arc::clone(&shared)));
    if let Err(error) = converse(&peer).await {
        counts.connections_broken.add(1);
        tracing::info!(%from, %holder, %error, "a native connection did not keep to the protocol and is closed");
        close(&connection, CloseCode::Protocol, &error.to_string());
    }
    counts.connections_closed.add(1);
}

fn name(holder: &Holder) -> String {
    match holder {
        Holder::Authority => "authority".to_owned(),
        Holder::Node(node) => format!("node {node}"),
        Holder::Client(name) => format!("client {name}"),
    }
}

pub(super) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    connection.close(VarInt::from_u32(code.number()), reason.as_bytes());
}

/// Greets, then takes streams until the connection ends.
async fn converse(peer: &Arc<Peer>) -> Result<(), ProtocolError> {
    let Ok(greeted) = timeout(GREETING_MAX, greet(peer)).await else {
        close(&peer.connection, CloseCode::NotGreeted, "no greeting came within 2 s");
        return Ok(());
    };
    let Some((send, reader)) = greeted? else { return Ok(()) };
    tokio::spawn(stream::serve(Arc::clone(peer), send, reader));
    while let Ok((send, receive)) = peer.connection.accept_bi().await {
        let reader = FrameReader::new(receive, FrameLimits::REQUESTS);
        tokio::spawn(stream::serve(Arc::clone(peer), send, reader));
    }
    Ok(())
}

/// Reads the greeting and answers it. `None`: the connection is over, and the client knows why.
async fn greet(peer: &Peer) -> Result<Option<(SendStream, FrameReader<RecvStream>)>, ProtocolError> {
    let Ok((send, receive)) = peer.connection.accept_bi().await else { return Ok(None) };
    let mut reader = FrameReader::new(receive, GREETING_LIMITS);
    let frame = match reader.next(None).await {
        Ok(Some((frame, _))) => frame,
        Ok(None) | Err(StreamEnd::Gone) => return Ok(None),
        Err(StreamEnd::Broken(error)) => return Err(error),
    };
    let hello = Hello::decode(&frame)?;
    let Some(identity) = peer.shared.broker.identity() else {
        close(&peer.connection, CloseCode::NotGreeted, "this node is not ready yet: try again shortly");
        return Ok(None);
    };
    let version = match hello.choose_version() {
        Ok(version) => version,
        Err(refusal) => {
            farewell(send, refusal).await?;
            return Err(ProtocolError::Version {
                asked_lowest: hello.version_lowest,
                asked_highest: hello.version_highest,
                spoken_lowest: refusal.version_lowest,
                spoken_highest: refusal.version_highest,
            });
        }
    };
    let welcome = Welcome {
        version,
        cluster: identity.cluster,
        node: identity.node,
        incarnation: identity.incarnation,
        boot_epoch: identity.boot_epoch,
        limits: server_limits(peer),
    };
    let mut send = send;
    if !put(&mut send, &HelloAnswer::Welcome(welcome)).await? {
        return Ok(None);
    }
    reader.set_limits(FrameLimits::REQUESTS);
    Ok(Some((send, reader)))
}

fn server_limits(peer: &Peer) -> ServerLimits {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let limits = peer.shared.broker.limits();
    ServerLimits {
        batch_bytes_max: count(limits.batch_bytes),
        fetch_bytes_max: count(limits.fetch_bytes),
        requests_max: count(peer.shared.limits.requests),
    }
}

/// Tells a client which versions are spoken, and gives it a moment to read that.
async fn farewell(mut send: SendStream, refusal: HelloRefusal) -> Result<(), ProtocolError> {
    if put(&mut send, &HelloAnswer::Refused(refusal)).await? && send.finish().is_ok() {
        drop(timeout(FAREWELL_MAX, send.stopped()).await);
    }
    Ok(())
}

/// Sends an answer to a greeting; false if the client is gone.
async fn put(send: &mut SendStream, answer: &HelloAnswer) -> Result<bool, ProtocolError> {
    let mut bytes = BytesMut::new();
    answer.encode(&mut bytes)?;
    Ok(send.write_all(&bytes).await.is_ok())
}
