//! The network's floor: a request of the batch's size and a short answer, over QUIC with mutual TLS on
//! loopback, between two runtimes, as a client and a node or two nodes have them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use quinn::{Endpoint, RecvStream, SendStream};
use tidelog_tls::{Authority, Credentials, PemFile, PemPair, Protocol};
use tidelog_wire::ids::{ClusterId, NodeId};
use tidelog_wire::limits::STREAM_WINDOW_BYTES;
use tokio::runtime::{Builder, Runtime};

use crate::Failure;

/// Bytes of the answer: as many as an acknowledgement has.
const ANSWER_BYTES: usize = 64;

/// A peer that answers each request of a fixed size, and a stream to it.
#[derive(Debug)]
pub struct Echo {
    _server: Runtime,
    _endpoint: Endpoint,
    _connection: quinn::Connection,
    send: SendStream,
    receive: RecvStream,
    request: Vec<u8>,
}

impl Echo {
    /// Starts the peer on a runtime of its own and opens a stream to it.
    ///
    /// # Errors
    /// If certificates, sockets or the connection cannot be made.
    pub async fn start(protocol: Protocol, request_bytes: usize) -> Result<Self, Failure> {
        let cluster = ClusterId(1);
        let authority = Authority::create(cluster)?;
        let node = NodeId(0);
        let served = credentials(authority.cert_pem(), &authority.issue_node(node)?)?;
        let dialling = match protocol {
            Protocol::Peer => authority.issue_node(NodeId(1))?,
            Protocol::Native => authority.issue_client("bench")?,
        };
        let dialling = credentials(authority.cert_pem(), &dialling)?;

        let mut config = tidelog_tls::server_config(&served, protocol)?;
        config.transport_config(Arc::new(transport()?));
        let server = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = {
            let _inside = server.enter();
            Endpoint::server(config, loopback)?
        };
        let address = listening.local_addr()?;
        server.spawn(serve(listening, request_bytes));

        let mut config = tidelog_tls::client_config(&dialling, protocol)?;
        config.transport_config(Arc::new(transport()?));
        let mut endpoint = Endpoint::client(loopback)?;
        endpoint.set_default_client_config(config);
        let connection = endpoint.connect(address, &tidelog_tls::node_name(node, cluster))?.await?;
        let (send, receive) = connection.open_bi().await?;
        let request = vec![b'e'; request_bytes];
        Ok(Self { _server: server, _endpoint: endpoint, _connection: connection, send, receive, request })
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn turn(&mut self) -> Result<(), Failure> {
        self.send.write_all(&self.request).await?;
        let mut answer = [0; ANSWER_BYTES];
        Ok(self.receive.read_exact(&mut answer).await?)
    }

    /// Ends the peer without waiting for it, as a runtime inside a runtime must.
    pub fn stop(self) {
        self._server.shutdown_background();
    }
}

async fn serve(endpoint: Endpoint, request_bytes: usize) -> Result<(), Failure> {
    let incoming = endpoint.accept().await.ok_or("nobody connected")?;
    let connection = incoming.await?;
    let (mut send, mut receive) = connection.accept_bi().await?;
    let mut request = vec![0; request_bytes];
    loop {
        receive.read_exact(&mut request).await?;
        send.write_all(&[b'a'; ANSWER_BYTES]).await?;
    }
}

fn credentials(ca: &str, pair: &PemPair) -> Result<Credentials, Failure> {
    let file = |text| PemFile { path: Path::new("bench"), text };
    Ok(Credentials::parse(&file(ca), &file(&pair.cert), &file(&pair.key))?)
}

fn transport() -> Result<quinn::TransportConfig, Failure> {
    let window = quinn::VarInt::try_from(u64::try_from(STREAM_WINDOW_BYTES)?)?;
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(window).receive_window(window);
    Ok(transport)
}
