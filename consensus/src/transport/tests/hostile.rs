//! Peers that are not what they should be, or do not speak as they should.

use tidelog_tls::{Protocol, node_name};

use super::super::hello::{HELLO_LEN, HelloFrame};
use super::*;

/// The process that all strangers claim to be, unless they say otherwise.
const SESSION: u64 = 77;

/// A node under test, at node 0, whose configured peers 1 and 2 do not run.
fn lonely(authority: &Authority, tuning: TransportTuning) -> (TestNode, SocketAddr) {
    let addresses = free_addresses::<3>();
    let credentials = credentials(authority, 0);
    (start_with(credentials, hello(0, 1), &addresses, Arc::new(NoBulk), tuning), addresses[0])
}

/// Somebody who holds a certificate and speaks QUIC, but otherwise does as it likes.
struct Stranger {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
}

impl Stranger {
    async fn dial(credentials: &Credentials, address: SocketAddr) -> Result<Self, String> {
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let config = tidelog_tls::client_config(credentials, Protocol::Peer).unwrap();
        let name = node_name(NodeId(0), CLUSTER);
        let connecting = endpoint.connect_with(config, address, &name).unwrap();
        let connection = connecting.await.map_err(|error| error.to_string())?;
        Ok(Self { endpoint, connection })
    }

    /// Says hello; the answer, or the reason for which the connection was closed.
    async fn say(&self, bytes: &[u8]) -> Result<HelloFrame, String> {
        let closed = |_| self.connection.close_reason().map(|reason| reason.to_string()).unwrap_or_default();
        let (mut send, mut receive) = self.connection.open_bi().await.map_err(|error| error.to_string())?;
        send.write_all(bytes).await.map_err(|error| closed(error.to_string()))?;
        let mut answer = [0; HELLO_LEN];
        receive.read_exact(&mut answer).await.map_err(|error| closed(error.to_string()))?;
        Ok(HelloFrame::decode(&answer).unwrap())
    }

    async fn hello(&self, hello: PeerHello) -> Result<HelloFrame, String> {
        self.say(&introduction(hello).encode()).await
    }

    /// Waits until the other end has closed the connection.
    async fn closed(&self) -> String {
        timeout(PATIENCE, self.connection.closed()).await.unwrap().to_string()
    }
}

fn introduction(hello: PeerHello) -> HelloFrame {
    HelloFrame { versions: VERSIONS, hello, session: SESSION, founding: None, named_at: RaftIndex(0) }
}

/// A stranger as node `node`, greeted and connected.
async fn connected(authority: &Authority, address: SocketAddr, hello: PeerHello) -> Stranger {
    let stranger = Stranger::dial(&credentials(authority, hello.node.get()), address).await.unwrap();
    let answer = stranger.hello(hello).await.unwrap();
    assert_eq!((answer.versions, answer.hello), ((1, 1), super::hello(0, 1)));
    stranger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_is_refused_with_both_ids_on_either_side() {
    let (ours, theirs) = (Authority::create(CLUSTER).unwrap(), Authority::create(ClusterId(0xbad)).unwrap());
    let (node, address) = lonely(&ours, patient());
    let refusal = Stranger::dial(&credentials(&theirs, 1), address).await.err().unwrap();
    assert!(refusal.contains(&CLUSTER.to_string()), "{refusal}");
    assert!(refusal.contains(&ClusterId(0xbad).to_string()), "{refusal}");
    // The same id in the certificate, another in the hello.
    let stranger = Stranger::dial(&credentials(&ours, 1), address).await.unwrap();
    let refusal = stranger.hello(PeerHello { cluster: ClusterId(0xbad), ..hello(1, 1) }).await.unwrap_err();
    assert!(refusal.contains("E1302") && refusal.contains(&CLUSTER.to_string()), "{refusal}");
    assert!(refusal.contains(&ClusterId(0xbad).to_string()), "{refusal}");
    assert_eq!(node.transport.connected(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dials_into_another_cluster_says_which_two() {
    let (ours, theirs) = (Authority::create(CLUSTER).unwrap(), Authority::create(ClusterId(0xbad)).unwrap());
    let addresses = free_addresses::<2>();
    let zero = start(&ours, hello(0, 1), &addresses);
    let _one = start(&theirs, PeerHello { cluster: ClusterId(0xbad), ..hello(1, 1) }, &addresses);
    let dialled = handshake::dial(&zero.transport.shared, NodeId(1), addresses[1]).await;
    let text = dialled.err().unwrap().to_string();
    assert!(text.contains(&CLUSTER.to_string()), "{text}");
    assert!(text.contains(&ClusterId(0xbad).to_string()), "{text}");
    assert_eq!(zero.transport.connected(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_must_be_who_its_certificate_says() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (node, address) = lonely(&authority, patient());
    let impostor = Stranger::dial(&credentials(&authority, 2), address).await.unwrap();
    let refusal = impostor.hello(hello(1, 1)).await.unwrap_err();
    assert!(refusal.contains("E1407") && refusal.contains("node 1"), "{refusal}");
    assert!(refusal.contains("node 2"), "{refusal}");
    let twin = Stranger::dial(&credentials(&authority, 0), address).await.unwrap();
    let refusal = twin.hello(hello(0, 2)).await.unwrap_err();
    assert!(refusal.contains("E1322"), "{refusal}");
    assert_eq!(node.transport.connected(), []);
    assert!(node.transport.metrics().handshakes_failed.value() >= 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_of_no_common_version_or_of_garbage_is_refused() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (_node, address) = lonely(&authority, patient());
    let newer = Stranger::dial(&credentials(&authority, 1), address).await.unwrap();
    let frame = HelloFrame { versions: (7, 9), ..introduction(hello(1, 1)) };
    let refusal = newer.say(&frame.encode()).await.unwrap_err();
    assert!(refusal.contains("E1304") && refusal.contains("(7, 9)"), "{refusal}");
    let garbage = Stranger::dial(&credentials(&authority, 1), address).await.unwrap();
    let refusal = garbage.say(&[0xff; HELLO_LEN]).await.unwrap_err();
    assert!(refusal.contains("no hello"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_life_replaces_the_connection_and_an_older_one_is_refused() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (mut node, address) = lonely(&authority, patient());
    let first = connected(&authority, address, hello(1, 5)).await;
    assert_eq!(node.up().await, hello(1, 5));
    let second = connected(&authority, address, hello(1, 6)).await;
    assert!(matches!(node.next().await, Event::Down(NodeId(1), cause) if cause.starts_with("E1314")));
    assert_eq!(node.up().await, hello(1, 6));
    assert!(first.closed().await.contains("E1314"));
    let older = Stranger::dial(&credentials(&authority, 1), address).await.unwrap();
    let refusal = older.hello(hello(1, 5)).await.unwrap_err();
    assert!(refusal.contains("E1305 node 1"), "{refusal}");
    let copy = Stranger::dial(&credentials(&authority, 1), address).await.unwrap();
    let frame = HelloFrame { session: SESSION + 1, ..introduction(hello(1, 6)) };
    let refusal = copy.say(&frame.encode()).await.unwrap_err();
    assert!(refusal.contains("E1319 node 1"), "{refusal}");
    let formatted = PeerHello { incarnation: Incarnation(1), ..hello(1, 7) };
    let wiped = Stranger::dial(&credentials(&authority, 1), address).await.unwrap();
    let refusal = wiped.hello(formatted).await.unwrap_err();
    assert!(refusal.contains("E1306 node 1"), "{refusal}");
    assert_eq!(node.transport.connected(), [hello(1, 6)]);
    assert!(second.connection.close_reason().is_none());
    assert_eq!(node.transport.metrics().replaced.value(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_who_says_nothing_is_let_go_after_the_handshake_time() {
    let authority = Authority::create(CLUSTER).unwrap();
    let tuning = TransportTuning { handshake: Duration::from_millis(300), ..patient() };
    let (node, address) = lonely(&authority, tuning);
    let mute = loop {
        // On a busy machine TLS alone may take longer than that.
        match Stranger::dial(&credentials(&authority, 1), address).await {
            Ok(stranger) => break stranger,
            Err(refusal) => assert!(!refusal.is_empty()),
        }
    };
    mute.closed().await;
    assert_eq!(node.transport.connected(), []);
    assert!(node.transport.metrics().handshakes_failed.value() > 0);
}

/// What a peer may send wrongly after a good hello, and what it is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_and_oversized_frames_close_that_connection_and_nothing_else() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (mut node, address) = lonely(&authority, patient());
    let good = connected(&authority, address, hello(2, 1)).await;
    assert_eq!(node.up().await, hello(2, 1));
    let mut lane = good.connection.open_uni().await.unwrap();
    lane.write_all(&[1, 1, 0, 0]).await.unwrap();
    let huge = [&[1, 1, 0, 0][..], &u32::MAX.to_le_bytes(), &[0; 8]].concat();
    let cut_short = [&[2, 1, 0, 0][..], &100_u32.to_le_bytes(), &[0; 20]].concat();
    let cases: [(&[u8], &str); 5] = [
        (&[9, 9, 9, 9], "E1309"),
        (&[1, 2, 0, 0], "E1309"),
        (&[1], "E1309"),
        (&huge, "E1308"),
        (&cut_short, "E1309"),
    ];
    for (epoch, (bytes, told)) in (1..).zip(cases) {
        let bad = connected(&authority, address, hello(1, epoch)).await;
        assert_eq!(node.up().await, hello(1, epoch));
        let mut stream = bad.connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.finish().unwrap();
        let closed = bad.closed().await;
        assert!(closed.contains(told), "{bytes:?}: {closed}");
        assert!(matches!(node.next().await, Event::Down(NodeId(1), cause) if cause.starts_with(told)));
        // The other peer does not notice.
        lane.write_all(&[2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
        let expected = Event::Message(NodeId(2), Lane::Control, GROUP, Bytes::from_static(b"hi"));
        assert_eq!(node.next().await, expected);
    }
    assert_eq!(node.transport.metrics().violations.value(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_stream_of_a_lane_and_an_oversized_bulk_request_are_violations() {
    let authority = Authority::create(CLUSTER).unwrap();
    let (mut node, address) = lonely(&authority, patient());
    let twice = connected(&authority, address, hello(1, 1)).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = twice.connection.open_uni().await.unwrap();
        stream.write_all(&[1, 1, 0, 0]).await.unwrap();
        streams.push(stream);
    }
    assert!(twice.closed().await.contains("E1309"));
    node.up_with(1).await;
    let greedy = connected(&authority, address, hello(1, 2)).await;
    let (mut send, _receive) = greedy.connection.open_bi().await.unwrap();
    let head = [&[1, 0, 0, 0][..], &[0xff; 12]].concat();
    send.write_all(&head).await.unwrap();
    assert!(greedy.closed().await.contains("E1308"));
    let odd = connected(&authority, address, hello(1, 3)).await;
    let (mut send, _receive) = odd.connection.open_bi().await.unwrap();
    send.write_all(&[9; 16]).await.unwrap();
    assert!(odd.closed().await.contains("E1309"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_costs_a_bounded_queue() {
    let authority = Authority::create(CLUSTER).unwrap();
    let tuning = TransportTuning { queue_frames_max: 8, queue_bytes_max: 4 << 20, ..patient() };
    let (mut node, address) = lonely(&authority, tuning);
    let deaf = connected(&authority, address, hello(1, 1)).await;
    node.up_with(1).await;
    let message = Bytes::from(vec![0; 1 << 20]);
    let sent = (0..200).map(|_| node.transport.send(NodeId(1), Lane::Append, GROUP, message.clone()));
    let full = sent.filter(|sent| *sent == Err(Dropped::Full)).count();
    assert!(full > 100, "{full} of 200 MiB were dropped");
    assert_eq!(node.transport.metrics().dropped_full.value(), u64::try_from(full).unwrap());
    // Control messages have a queue of their own.
    node.transport.send(NodeId(1), Lane::Control, GROUP, Bytes::from_static(b"beat")).unwrap();
    assert_eq!(node.transport.send(NodeId(7), Lane::Control, GROUP, Bytes::new()), Err(Dropped::Unknown));
    drop(deaf.endpoint);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_given_up_after_the_idle_time() {
    let authority = Authority::create(CLUSTER).unwrap();
    let impatient = TransportTuning { idle: TransportTuning::default().idle, ..patient() };
    let (mut node, address) = lonely(&authority, impatient);
    let (sender, receiver) = std::sync::mpsc::sync_channel::<()>(0);
    let credentials = credentials(&authority, 1);
    // A runtime of its own, which stops polling: to the node it is a machine without power.
    let silent = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stranger = runtime.block_on(async {
            let stranger = Stranger::dial(&credentials, address).await.unwrap();
            stranger.hello(hello(1, 1)).await.unwrap();
            stranger
        });
        receiver.recv().unwrap();
        drop(stranger);
    });
    node.up_with(1).await;
    assert!(matches!(node.next().await, Event::Down(NodeId(1), cause) if cause.starts_with("E1310")));
    sender.send(()).unwrap();
    silent.join().unwrap();
}
