//! Nodes over loopback, with real certificates.

mod bulk_transfers;
mod guests;
mod hostile;
mod rules;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tidelog_tls::{Authority, Credentials, PemFile};
use tidelog_wire::ids::{BootEpoch, ClusterId, GroupId, Incarnation, NodeId, RaftIndex};
use tidelog_wire::limits::MESSAGE_BYTES_MAX;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::core::Lane;

const CLUSTER: ClusterId = ClusterId(0xabcd);
const GROUP: GroupId = GroupId(3);
/// Far more than any of this takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Up(PeerHello),
    Message(NodeId, Lane, GroupId, Bytes),
    Down(NodeId, String),
}

struct Recorder(mpsc::UnboundedSender<Event>);

impl Recorder {
    fn tell(&self, event: Event) {
        // Nobody listens any more once a test is over.
        drop(self.0.send(event));
    }
}

impl PeerEvents for Recorder {
    fn up(&self, peer: &PeerHello) {
        self.tell(Event::Up(*peer));
    }

    fn message(&self, from: NodeId, lane: Lane, group: GroupId, bytes: Bytes) {
        self.tell(Event::Message(from, lane, group, bytes));
    }

    fn down(&self, node: NodeId, cause: &TransportError) {
        self.tell(Event::Down(node, cause.to_string()));
    }
}

/// Answers every question with the question.
struct Echo;

impl AskSource for Echo {
    fn ask(&self, _: Asker, request: Bytes) -> LaterAnswer {
        Box::pin(std::future::ready(Ok(request)))
    }
}

struct TestNode {
    transport: Transport,
    events: mpsc::UnboundedReceiver<Event>,
}

impl TestNode {
    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a transport")
    }

    async fn up(&mut self) -> PeerHello {
        match self.next().await {
            Event::Up(peer) => peer,
            other @ (Event::Message(..) | Event::Down(..)) => panic!("expected Up, got {other:?}"),
        }
    }

    /// Skips ups, downs and messages until the peer is connected in the given life.
    async fn up_with(&mut self, epoch: u64) {
        while !matches!(self.next().await, Event::Up(peer) if peer.boot_epoch == BootEpoch(epoch)) {}
    }

    async fn message(&mut self) -> (NodeId, Lane, Bytes) {
        loop {
            if let Event::Message(from, lane, _, bytes) = self.next().await {
                return (from, lane, bytes);
            }
        }
    }
}

fn hello(node: u64, epoch: u64) -> PeerHello {
    PeerHello {
        cluster: CLUSTER,
        node: NodeId(node),
        incarnation: Incarnation(u128::from(node) + 100),
        boot_epoch: BootEpoch(epoch),
    }
}

fn credentials(authority: &Authority, node: u64) -> Credentials {
    let pair = authority.issue_node(NodeId(node)).unwrap();
    let file = |text| PemFile { path: Path::new("test.pem"), text };
    Credentials::parse(&file(authority.cert_pem()), &file(&pair.cert), &file(&pair.key)).unwrap()
}

/// Addresses that are free, on an IP address of this test's own so that no other test takes them.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    static TESTS: AtomicU16 = AtomicU16::new(1);
    let [high, low] = TESTS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [.., process] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, process.max(1), high, low);
    let sockets = [(); N].map(|()| UdpSocket::bind((ip, 0)).unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

fn start_with(
    credentials: Credentials,
    hello: PeerHello,
    addresses: &[SocketAddr],
    bulk: Arc<dyn BulkSource>,
    tuning: TransportTuning,
) -> TestNode {
    let peers: BTreeMap<NodeId, SocketAddr> = (0..).map(NodeId).zip(addresses.iter().copied()).collect();
    let config = TransportConfig {
        listen: peers[&hello.node],
        hello,
        session: hello.node.get() + 1000 * hello.boot_epoch.get(),
        credentials,
        peers,
        directory: Directory::default(),
        tuning,
    };
    let (sender, events) = mpsc::unbounded_channel();
    let sources: (_, Arc<dyn AskSource>) = (bulk, Arc::new(Echo));
    let transport =
        Transport::start(config, Arc::new(Recorder(sender)), sources, &Handle::current()).unwrap();
    TestNode { transport, events }
}

fn start(authority: &Authority, hello: PeerHello, addresses: &[SocketAddr]) -> TestNode {
    let credentials = credentials(authority, hello.node.get());
    start_with(credentials, hello, addresses, Arc::new(NoBulk), patient())
}

/// A machine that runs many tests may keep one of them waiting for more than a second; only a test
/// about silence has the idle limit of a server.
fn patient() -> TransportTuning {
    TransportTuning {
        idle: Duration::from_secs(60),
        handshake: Duration::from_secs(10),
        ..TransportTuning::default()
    }
}

/// Two connected nodes. Only node 0 knows where the other is, so there is never a second connection.
async fn pair(authority: &Authority) -> (TestNode, TestNode) {
    let addresses = free_addresses::<2>();
    let [nowhere] = free_addresses::<1>();
    let mut zero = start(authority, hello(0, 1), &addresses);
    let mut one = start(authority, hello(1, 1), &[nowhere, addresses[1]]);
    assert_eq!(zero.up().await, hello(1, 1));
    assert_eq!(one.up().await, hello(0, 1));
    (zero, one)
}

fn numbered(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

/// Sends until one gets through: a pair may still be settling on one of two connections.
async fn reach(from: &TestNode, to: u64, other: &mut TestNode, text: &'static [u8]) {
    loop {
        let sent = from.transport.send(NodeId(to), Lane::Control, GROUP, Bytes::from_static(text));
        assert!(matches!(sent, Ok(()) | Err(Dropped::NotConnected)), "{sent:?}");
        let arrived = timeout(Duration::from_millis(100), other.message()).await;
        if arrived.is_ok_and(|(_, _, bytes)| bytes == text) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_on_each_lane() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, mut one) = pair(&authority).await;
    for number in 0..500 {
        for lane in [Lane::Control, Lane::Append] {
            zero.transport.send(NodeId(1), lane, GROUP, numbered(number)).unwrap();
        }
    }
    let (mut control, mut append) = (0, 0);
    while (control, append) != (500, 500) {
        let (from, lane, bytes) = one.message().await;
        let expected = if lane == Lane::Control { &mut control } else { &mut append };
        assert_eq!((from, bytes), (NodeId(0), numbered(*expected)), "on {lane:?}");
        *expected += 1;
    }
    let metrics = (zero.transport.metrics(), one.transport.metrics());
    assert_eq!((metrics.0.frames_sent.value(), metrics.1.frames_received.value()), (1000, 1000));
    assert_eq!(metrics.0.connected.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_echo_comes_back_and_raft_never_sees_it() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, mut one) = pair(&authority).await;
    zero.transport.echo(NodeId(1), &[7; 1024], PATIENCE).await.unwrap();
    one.transport.echo(NodeId(0), &[7; ECHO_BYTES_MAX], PATIENCE).await.unwrap();
    let refused = zero.transport.echo(NodeId(1), &[7; ECHO_BYTES_MAX + 1], PATIENCE).await;
    assert!(matches!(refused, Err(TransportError::TooLarge { .. })), "{refused:?}");
    let refused = zero.transport.echo(NodeId(5), &[7], PATIENCE).await;
    assert!(matches!(refused, Err(TransportError::NotConnected { .. })), "{refused:?}");
    zero.transport.send(NodeId(1), Lane::Append, GROUP, numbered(1)).unwrap();
    assert!(matches!(one.next().await, Event::Message(_, _, GROUP, bytes) if bytes == numbered(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_message_arrives_and_a_larger_one_is_not_sent() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, mut one) = pair(&authority).await;
    let largest = Bytes::from(vec![7; MESSAGE_BYTES_MAX]);
    zero.transport.send(NodeId(1), Lane::Append, GROUP, largest.clone()).unwrap();
    let (_, _, bytes) = one.message().await;
    assert!(bytes == largest, "{} bytes arrived", bytes.len());
    let larger = Bytes::from(vec![7; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(zero.transport.send(NodeId(1), Lane::Append, GROUP, larger), Err(Dropped::TooLarge));
}

/// Both dial at the same moment, over and over; each time they must settle on one connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_dial_each_other_settle_on_one_connection() {
    let authority = Authority::create(CLUSTER).unwrap();
    for _ in 0..10 {
        let addresses = free_addresses::<2>();
        let mut zero = start(&authority, hello(0, 1), &addresses);
        let mut one = start(&authority, hello(1, 1), &addresses);
        reach(&zero, 1, &mut one, b"there").await;
        reach(&one, 0, &mut zero, b"back").await;
        assert_eq!(zero.transport.connected(), [hello(1, 1)]);
        assert_eq!(one.transport.connected(), [hello(0, 1)]);
        zero.transport.stop().await;
        one.transport.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_restarts_is_connected_again_in_its_newer_life() {
    let authority = Authority::create(CLUSTER).unwrap();
    let addresses = free_addresses::<2>();
    let mut zero = start(&authority, hello(0, 1), &addresses);
    let one = start(&authority, hello(1, 1), &addresses);
    zero.up_with(1).await;
    one.transport.stop().await;
    drop(one);
    while !matches!(zero.next().await, Event::Down(NodeId(1), _)) {}
    assert_eq!(zero.transport.send(NodeId(1), Lane::Append, GROUP, Bytes::new()), Err(Dropped::NotConnected));
    let mut one = loop {
        // The old socket may take a moment to go.
        match UdpSocket::bind(addresses[1]) {
            Ok(free) => {
                drop(free);
                break start(&authority, hello(1, 2), &addresses);
            }
            Err(_) => tokio::task::yield_now().await,
        }
    };
    zero.up_with(2).await;
    reach(&zero, 1, &mut one, b"welcome back").await;
    assert!(zero.transport.metrics().dropped_down.value() > 0);
}

/// A process is killed, and the next one at its address answers for it: the connection is reset at
/// once, although nobody said goodbye and the idle limit here is a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_of_a_killed_process_is_reset_by_the_one_that_follows_it() {
    let authority = Authority::create(CLUSTER).unwrap();
    let addresses = free_addresses::<2>();
    let [nowhere] = free_addresses::<1>();
    let patient = patient();
    let mut zero = start_with(credentials(&authority, 0), hello(0, 1), &addresses, Arc::new(NoBulk), patient);
    let credentials = credentials(&authority, 1);
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let doomed = {
        let entered = process.enter();
        let addresses = [nowhere, addresses[1]];
        let one = start_with(credentials.clone(), hello(1, 1), &addresses, Arc::new(NoBulk), patient);
        drop(entered);
        one
    };
    zero.up_with(1).await;
    // From here on nobody acts for the process, so dropping what it held says no goodbye.
    let killed = tokio::task::spawn_blocking(move || process.shutdown_timeout(PATIENCE));
    killed.await.unwrap();
    drop(doomed);
    let socket = loop {
        match UdpSocket::bind(addresses[1]) {
            Ok(socket) => break socket,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let endpoint = tidelog_tls::endpoint_config(&credentials);
    let _next = quinn::Endpoint::new(endpoint, None, socket, Arc::new(quinn::TokioRuntime)).unwrap();
    match zero.next().await {
        Event::Down(NodeId(1), cause) => assert!(cause.contains("reset"), "{cause}"),
        other @ (Event::Up(_) | Event::Message(..) | Event::Down(..)) => {
            panic!("expected Down, got {other:?}")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_transport_lets_go_of_its_address_and_its_peers() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (zero, mut one) = pair(&authority).await;
    let address = zero.transport.local_addr().unwrap();
    drop(zero);
    while !matches!(one.next().await, Event::Down(NodeId(0), _)) {}
    while UdpSocket::bind(address).is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_in_use_is_an_error_that_names_it() {
    let authority = Authority::create(CLUSTER).unwrap();
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let config = TransportConfig {
        listen: taken.local_addr().unwrap(),
        hello: hello(0, 1),
        session: 1,
        credentials: credentials(&authority, 0),
        peers: BTreeMap::new(),
        directory: Directory::default(),
        tuning: TransportTuning::default(),
    };
    let (sender, _events) = mpsc::unbounded_channel();
    let started = Transport::start(
        config,
        Arc::new(Recorder(sender)),
        (Arc::new(NoBulk), Arc::new(NoAsks)),
        &Handle::current(),
    );
    let text = started.unwrap_err().to_string();
    assert!(text.starts_with(&format!("E1301 {}", taken.local_addr().unwrap())), "{text}");
}
