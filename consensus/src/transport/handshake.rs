//! Hellos: who dials says who it is, who accepts answers in kind, or closes with the reason.
//!
//! TLS has by then proved that both belong to the same authority, and to the dialling end that the
//! other is the node it wanted. What is left to agree on is the version, and whether this life of
//! the peer may be talked to.

use std::sync::Arc;

use tidelog_tls::{expect_node, node_name};
use tidelog_wire::ids::{Incarnation, NodeId};
use tokio::time::timeout;

use super::error::Remote;
use super::frames::broken_off;
use super::hello::{HELLO_LEN, HelloFrame, PeerHello, VERSIONS, common_version};
use super::link::LinkFacts;
use super::{Shared, TransportError};

/// Dials a peer and exchanges hellos. The caller decides whether to keep the connection.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    node: NodeId,
    address: std::net::SocketAddr,
) -> Result<(quinn::Connection, LinkFacts), TransportError> {
    let peer = Remote::Node(node);
    let limit = shared.tuning.handshake;
    let attempt = async {
        let name = node_name(node, shared.hello.cluster);
        let connecting = shared
            .endpoint
            .connect(address, &name)
            .map_err(|error| TransportError::Refused { peer, reason: error.to_string() })?;
        let connection = connecting.await.map_err(|source| TransportError::from_closed(peer, source))?;
        let answer = exchange(shared, &connection, node).await;
        let answer = answer.inspect_err(|error| close(&connection, error))?;
        Ok((connection, LinkFacts::of(&answer, shared.hello.node)))
    };
    let action = "complete the handshake";
    timeout(limit, attempt).await.map_err(|_| TransportError::Timeout { peer, action, limit })?
}

pub(super) fn close(connection: &quinn::Connection, cause: &TransportError) {
    connection.close(cause.close_code().number(), cause.to_string().as_bytes());
}

async fn exchange(
    shared: &Shared,
    connection: &quinn::Connection,
    node: NodeId,
) -> Result<HelloFrame, TransportError> {
    let peer = Remote::Node(node);
    let lost = |source| TransportError::from_closed(peer, source);
    let (mut send, mut receive) = connection.open_bi().await.map_err(lost)?;
    let ours = shared.introduction(VERSIONS);
    let malformed = || TransportError::Malformed { node, what: "hello" };
    if send.write_all(&ours.encode()).await.is_err() {
        return Err(connection.close_reason().map_or_else(malformed, lost));
    }
    let mut bytes = [0; HELLO_LEN];
    receive.read_exact(&mut bytes).await.map_err(|error| broken_off(error, node))?;
    let theirs = HelloFrame::decode(&bytes).ok_or_else(malformed)?;
    check_cluster(shared, connection, &theirs)?;
    if theirs.hello.node != node {
        let (address, claimed) = (connection.remote_address(), theirs.hello.node);
        return Err(TransportError::WrongNode { address, expected: node, claimed });
    }
    common_version(VERSIONS, theirs.versions).ok_or(TransportError::Version {
        node,
        ours: VERSIONS,
        theirs: theirs.versions,
    })?;
    Ok(theirs)
}

fn check_cluster(
    shared: &Shared,
    connection: &quinn::Connection,
    theirs: &HelloFrame,
) -> Result<(), TransportError> {
    let PeerHello { cluster, node, .. } = theirs.hello;
    if cluster != shared.hello.cluster {
        let (address, ours) = (connection.remote_address(), shared.hello.cluster);
        return Err(TransportError::ForeignCluster { address, ours, theirs: cluster });
    }
    same_founding(node, shared.directory().founding, theirs.founding)
}

/// Fences a cluster that was made anew with the same authority.
pub(super) fn same_founding(
    node: NodeId,
    ours: Option<Incarnation>,
    theirs: Option<Incarnation>,
) -> Result<(), TransportError> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            Err(TransportError::OtherFounding { node, ours, theirs })
        }
        (Some(_) | None, _) => Ok(()),
    }
}

/// A connection that was accepted, its hello read and found good, and not answered yet.
pub(super) struct Greeted {
    pub(super) connection: quinn::Connection,
    pub(super) facts: LinkFacts,
    version: u16,
    send: quinn::SendStream,
}

impl Greeted {
    /// Answers the hello: from now on the dialling end uses the connection.
    pub(super) async fn answer(mut self, shared: &Shared) -> Result<quinn::Connection, TransportError> {
        let versions = (self.version, self.version);
        let ours = shared.introduction(versions);
        let node = self.facts.peer.node;
        match self.send.write_all(&ours.encode()).await {
            Ok(()) => Ok(self.connection),
            Err(_) => {
                let malformed = TransportError::Malformed { node, what: "hello: it was not awaited" };
                let lost = |source| TransportError::from_closed(Remote::Node(node), source);
                Err(self.connection.close_reason().map_or(malformed, lost))
            }
        }
    }
}

/// Completes TLS with somebody who dialled, and reads the hello.
pub(super) async fn greet(shared: &Shared, incoming: quinn::Incoming) -> Result<Greeted, TransportError> {
    let peer = Remote::Address(incoming.remote_address());
    let limit = shared.tuning.handshake;
    let lost = |source| TransportError::from_closed(peer, source);
    let attempt = async {
        let connection = incoming.accept().map_err(lost)?.await.map_err(lost)?;
        read_hello(shared, &connection).await.inspect_err(|error| close(&connection, error))
    };
    let action = "complete the handshake";
    timeout(limit, attempt).await.map_err(|_| TransportError::Timeout { peer, action, limit })?
}

async fn read_hello(shared: &Shared, connection: &quinn::Connection) -> Result<Greeted, TransportError> {
    let peer = Remote::Address(connection.remote_address());
    let (send, mut receive) =
        connection.accept_bi().await.map_err(|source| TransportError::from_closed(peer, source))?;
    let mut bytes = [0; HELLO_LEN];
    let no_hello = || TransportError::Refused { peer, reason: "it sent no hello".to_owned() };
    receive.read_exact(&mut bytes).await.map_err(|_| no_hello())?;
    let Some(theirs) = HelloFrame::decode(&bytes) else {
        shared.metrics.violations.add(1);
        return Err(no_hello());
    };
    let node = theirs.hello.node;
    check_cluster(shared, connection, &theirs)?;
    expect_node(connection, shared.hello.cluster, node)?;
    if node == shared.hello.node {
        let (address, expected) = (connection.remote_address(), node);
        return Err(TransportError::OurOwnNode { address, node: expected });
    }
    let version = common_version(VERSIONS, theirs.versions).ok_or(TransportError::Version {
        node,
        ours: VERSIONS,
        theirs: theirs.versions,
    })?;
    Ok(Greeted { connection: connection.clone(), facts: LinkFacts::of(&theirs, node), version, send })
}
