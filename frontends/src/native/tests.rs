mod echoes;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tidelog_tls::{Authority, Credentials, PemFile, Protocol};
use tidelog_wire::ids::{ClusterId, Generation, GroupId, LogId, NodeId, Offset, Partition};
use tidelog_wire::protocol::{
    Answer, AnswerFrame, ErrorCode, FetchRequest, Frame, FrameLimits, Hello, HelloAnswer, OffsetSpec,
    Request, Retry, encode_request,
};

use super::*;
use crate::broker::{FakeConsensus, Limits, ReadFailure, SubmitError, batch_of};

const CLUSTER: ClusterId = ClusterId(7);

struct Served {
    front_end: NativeFrontEnd,
    address: SocketAddr,
    authority: Authority,
    consensus: Arc<FakeConsensus>,
    broker: Arc<Broker>,
}

fn credentials(authority: &Authority, pair: &tidelog_tls::PemPair) -> Credentials {
    let file = |text| PemFile { path: "test.pem".as_ref(), text };
    Credentials::parse(&file(authority.cert_pem()), &file(&pair.cert), &file(&pair.key)).unwrap()
}

fn serve() -> Served {
    serve_with(NativeLimits { connections: 8, requests: 16, bytes: 32 << 20 })
}

fn serve_with(limits: NativeLimits) -> Served {
    let broker_limits = Limits {
        batch_bytes: 64 << 10,
        fetch_bytes: 1 << 20,
        fetch_wait: Duration::from_secs(30),
        request: Duration::from_secs(5),
        segment_bytes: 1 << 20,
    };
    let broker = Arc::new(Broker::new(NodeId(0), broker_limits, Arc::default()));
    let consensus = FakeConsensus::new(NodeId(0));
    let attached: Arc<FakeConsensus> = Arc::clone(&consensus);
    broker.attach(attached);
    let authority = Authority::create(CLUSTER).unwrap();
    let own = credentials(&authority, &authority.issue_node(NodeId(0)).unwrap());
    let mut front_end = NativeFrontEnd::new(UdpSocket::bind("127.0.0.1:0").unwrap(), own, limits);
    let address = front_end.start(Arc::clone(&broker)).unwrap();
    Served { front_end, address, authority, consensus, broker }
}

/// A client that knows the bytes and nothing else.
struct Client {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Client {
    async fn connect(served: &Served) -> Self {
        let own = credentials(&served.authority, &served.authority.issue_client("test").unwrap());
        let config = tidelog_tls::client_config(&own, Protocol::Native).unwrap();
        Self::connect_with(served.address, config).await.unwrap()
    }

    async fn connect_with(address: SocketAddr, config: quinn::ClientConfig) -> Result<Self, ConnectionError> {
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = tidelog_tls::node_name(NodeId(0), CLUSTER);
        let connection = endpoint.connect_with(config, address, &name).unwrap().await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Sends raw bytes on a new stream.
    async fn send_raw(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        (send, receive)
    }

    async fn greet(&self) -> Pipeline {
        let mut hello = BytesMut::new();
        Hello::new("test").encode(&mut hello).unwrap();
        let (send, receive) = self.send_raw(&hello).await;
        let mut pipeline = Pipeline { send, receive, received: BytesMut::new() };
        let HelloAnswer::Welcome(welcome) = HelloAnswer::decode(&pipeline.frame().await.unwrap()).unwrap()
        else {
            panic!("refused")
        };
        assert_eq!(
            (welcome.cluster, welcome.node, welcome.limits.batch_bytes_max),
            (CLUSTER, NodeId(0), 64 << 10)
        );
        pipeline
    }

    async fn stream(&self) -> Pipeline {
        let (send, receive) = self.connection.open_bi().await.unwrap();
        Pipeline { send, receive, received: BytesMut::new() }
    }

    /// Waits until the node closes the connection, and gives its code and reason.
    async fn closed(&self) -> (u64, String) {
        let ended = self.connection.closed().await;
        let ConnectionError::ApplicationClosed(close) = ended else {
            panic!("closed in another way: {ended}")
        };
        (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
    }
}

struct Pipeline {
    send: SendStream,
    receive: RecvStream,
    received: BytesMut,
}

impl Pipeline {
    async fn send(&mut self, correlation: u64, request: &Request, payload: &[u8]) {
        let mut bytes = BytesMut::new();
        encode_request(correlation, request, payload.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        self.send.write_all(&bytes).await.unwrap();
    }

    async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::take(&mut self.received, FrameLimits::ANSWERS).unwrap() {
                return Some(frame);
            }
            let chunk = self.receive.read_chunk(usize::MAX, true).await.ok().flatten()?;
            self.received.extend_from_slice(&chunk.bytes);
        }
    }

    async fn answer(&mut self) -> AnswerFrame {
        AnswerFrame::decode(self.frame().await.unwrap()).unwrap()
    }

    async fn ask(&mut self, request: Request, payload: &[u8]) -> AnswerFrame {
        self.send(1, &request, payload).await;
        self.answer().await
    }

    async fn create(&mut self, name: &str) -> LogId {
        let request = Request::CreateChannel {
            name: name.to_owned(),
            partitions: 1,
            replicas: None,
            segment_bytes: None,
        };
        match self.ask(request, &[]).await.answer {
            Ok(Answer::ChannelCreated { generation, .. }) => LogId { generation, partition: Partition(0) },
            other => panic!("{other:?}"),
        }
    }
}

fn fetch(log: LogId, max_wait_ms: u32) -> Request {
    Request::Fetch(FetchRequest {
        log,
        offset: Offset(0),
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms,
        any_replica: false,
    })
}

fn error_of(frame: &AnswerFrame) -> (ErrorCode, Retry) {
    let error = frame.answer.as_ref().unwrap_err();
    assert!(error.message.starts_with('E'), "every message begins with its code: {}", error.message);
    (error.code.clone(), error.retry)
}

#[tokio::test]
async fn a_batch_travels_in_and_out_as_it_is() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let log = pipeline.create("orders").await;
    let batch = batch_of(&["paid", "shipped"]);
    let produced = pipeline.ask(Request::Produce { log }, &batch).await.answer.unwrap();
    assert!(matches!(produced, Answer::Produced { base_offset: Offset(0), last_offset: Offset(1), .. }));
    // On another stream of the same connection, which needs no greeting.
    let mut other = client.stream().await;
    let fetched = other.ask(fetch(log, 0), &[]).await;
    assert_eq!(fetched.payload, batch);
    assert!(matches!(fetched.answer, Ok(Answer::Fetched { next_offset: Offset(2), .. })));
    let latest = other.ask(Request::OffsetAt { log, at: OffsetSpec::Latest }, &[]).await.answer;
    assert_eq!(latest, Ok(Answer::Offset { offset: Offset(2) }));
}

/// Fifty batches sent without waiting for an answer lie in the log in the order in which they were sent.
#[tokio::test]
async fn pipelined_batches_of_one_stream_keep_their_order() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let log = pipeline.create("orders").await;
    let batches: Vec<Bytes> = (0..50).map(|number| batch_of(&[&number.to_string()])).collect();
    for (number, batch) in (0..).zip(&batches) {
        pipeline.send(number, &Request::Produce { log }, batch).await;
    }
    let mut offsets = vec![None; batches.len()];
    for _ in &batches {
        let answer = pipeline.answer().await;
        let Ok(Answer::Produced { base_offset, .. }) = answer.answer else { panic!("{answer:?}") };
        offsets[usize::try_from(answer.correlation).unwrap()] = Some(base_offset);
    }
    let expected: Vec<_> = (0..50).map(|offset| Some(Offset(offset))).collect();
    assert_eq!(offsets, expected);
    let fetched = pipeline.ask(fetch(log, 0), &[]).await;
    assert_eq!(fetched.payload, batches.concat());
}

#[tokio::test]
async fn a_waiting_fetch_holds_up_nobody_and_is_answered_when_its_batch_comes() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let log = pipeline.create("orders").await;
    pipeline.send(70, &fetch(log, 20_000), &[]).await;
    pipeline.send(71, &Request::Metadata { channels: None }, &[]).await;
    assert_eq!(pipeline.answer().await.correlation, 71);
    pipeline.send(72, &Request::Produce { log }, &batch_of(&["x"])).await;
    let mut answered = [pipeline.answer().await.correlation, pipeline.answer().await.correlation];
    answered.sort_unstable();
    assert_eq!(answered, [70, 72]);
}

#[tokio::test]
async fn errors_say_what_is_wrong_and_whether_to_repeat() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let log = pipeline.create("orders").await;
    let batch = batch_of(&["x"]);

    let unknown = LogId { generation: Generation(77), partition: Partition(0) };
    let answer = pipeline.ask(Request::Produce { log: unknown }, &batch).await;
    assert_eq!(error_of(&answer), (ErrorCode::UnknownChannel, Retry::Never));

    let large = batch_of(&["x".repeat(65 << 10).as_str()]);
    let answer = pipeline.ask(Request::Produce { log }, &large).await;
    let bytes = u64::try_from(large.len()).unwrap();
    assert_eq!(error_of(&answer), (ErrorCode::BatchTooLarge { bytes, max: 64 << 10 }, Retry::Never));

    let answer = pipeline.ask(Request::Produce { log }, b"what is this").await;
    assert_eq!(error_of(&answer), (ErrorCode::InvalidBatch, Retry::Never));

    let mut damaged = batch.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let answer = pipeline.ask(Request::Produce { log }, &damaged).await;
    assert_eq!(error_of(&answer).0, ErrorCode::CorruptBatch);

    served.consensus.fail_next(SubmitError::MayHaveCommitted);
    let answer = pipeline.ask(Request::Produce { log }, &batch).await;
    assert_eq!(error_of(&answer), (ErrorCode::TimedOutMayHaveCommitted, Retry::MayHaveCommitted));

    pipeline.ask(Request::Produce { log }, &batch).await.answer.unwrap();
    let fake = served.consensus.fake_log(log);
    let (range, said) = (Offset(0)..Offset(1), "0.seg: input/output error".to_owned());
    fake.fail(range.clone(), ReadFailure::Unreadable { range, said });
    let answer = pipeline.ask(fetch(log, 0), &[]).await;
    // The code upon which a client asks another replica.
    let refused = ErrorCode::DamagedRange { start: Offset(0), end: Offset(1) };
    assert_eq!(error_of(&answer), (refused, Retry::Never));
    assert!(answer.answer.unwrap_err().message.starts_with("E2122"));
    fake.end(ReadFailure::Reopened);
    let answer = pipeline.ask(fetch(log, 0), &[]).await;
    assert_eq!(error_of(&answer), (ErrorCode::NotReady, Retry::Here { after_ms: 50 }));

    served.consensus.set_leader(GroupId(1), Some(NodeId(4)));
    let answer = pipeline.ask(Request::Produce { log }, &batch).await;
    assert_eq!(error_of(&answer), (ErrorCode::NotLeader { leader: Some(NodeId(4)) }, Retry::Leader));
}

#[tokio::test]
async fn a_channel_lives_its_life_over_the_wire() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let log = pipeline.create("orders").await;
    pipeline.ask(Request::Produce { log }, &batch_of(&["a", "b"])).await.answer.unwrap();
    let named = Request::Metadata { channels: Some(vec!["orders".to_owned(), "nothing".to_owned()]) };
    let Ok(Answer::Metadata(metadata)) = pipeline.ask(named, &[]).await.answer else { panic!("no metadata") };
    assert_eq!(metadata.channels.len(), 1);
    assert_eq!(metadata.channels[0].partitions[0].leader, Some(NodeId(0)));
    let trimmed = pipeline.ask(Request::Trim { log, to: Offset(2) }, &[]).await.answer;
    assert_eq!(trimmed, Ok(Answer::Trimmed { log_start: Offset(2) }));
    let answer = pipeline.ask(Request::NodeStatus { with_logs: true }, &[]).await.answer;
    let Ok(Answer::NodeStatus(status)) = answer else { panic!("{answer:?}") };
    assert!(status.ready);
    assert_eq!((status.logs[0].log_start, status.logs[0].end), (Offset(2), Offset(2)));
    let deletion = Request::DeleteChannel { name: "orders".to_owned(), generation: Some(log.generation) };
    let deleted = pipeline.ask(deletion, &[]).await.answer;
    assert_eq!(deleted, Ok(Answer::ChannelDeleted { generation: log.generation }));
    let answer = pipeline.ask(fetch(log, 0), &[]).await;
    assert_eq!(error_of(&answer).0, ErrorCode::UnknownChannel);
}

#[tokio::test]
async fn bytes_that_are_no_greeting_close_the_connection_with_the_reason() {
    let served = serve();
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[8, 0, 0, 0, 4, 0, 0, 0, b'x', b'y', b'z', b'!']]
    {
        let client = Client::connect(&served).await;
        let streams = client.send_raw(garbage).await;
        let (code, reason) = client.closed().await;
        assert_eq!(code, 1);
        assert!(reason.starts_with("E15"), "{reason}");
        drop(streams);
    }
    Client::connect(&served).await.greet().await;
    assert_eq!(served.broker.counts().connections_broken.value(), 3);
}

#[tokio::test]
async fn a_client_of_another_version_is_told_which_are_spoken() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut hello = BytesMut::new();
    let newer = Hello { version_lowest: 40, version_highest: 41, client: "newer".to_owned() };
    newer.encode(&mut hello).unwrap();
    let (send, receive) = client.send_raw(&hello).await;
    let mut pipeline = Pipeline { send, receive, received: BytesMut::new() };
    let answer = HelloAnswer::decode(&pipeline.frame().await.unwrap()).unwrap();
    let HelloAnswer::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!((refusal.version_lowest, refusal.version_highest), (1, 1));
    drop(pipeline);
    assert!(client.closed().await.1.contains("40..=41"));
}

#[tokio::test]
async fn an_oversized_frame_closes_the_connection_and_harms_no_other() {
    let served = serve();
    let (bad, good) = (Client::connect(&served).await, Client::connect(&served).await);
    let mut pipeline = good.greet().await;
    let _greeted = bad.greet().await;
    let streams = bad.send_raw(&[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]).await;
    let (code, reason) = bad.closed().await;
    assert_eq!(code, 1);
    assert!(reason.starts_with("E1521"), "{reason}");
    pipeline.create("orders").await;
    drop(streams);
}

#[tokio::test]
async fn a_frame_that_is_cut_short_costs_its_stream_alone() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let (mut send, mut receive) = client.send_raw(&[100, 0, 0, 0, 50, 0, 0, 0, 1, 2, 3]).await;
    send.finish().unwrap();
    assert_eq!(receive.read_to_end(100).await.unwrap_or_default(), Vec::<u8>::new());
    pipeline.create("orders").await;
}

/// A kind of request that this release does not know, as a newer client may send, is answered; the stream goes on.
#[tokio::test]
async fn an_unknown_request_is_answered_and_the_stream_goes_on() {
    let served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let mut bytes = BytesMut::new();
    let header = [&9_u64.to_le_bytes()[..], &[250, 1, 2, 3]].concat();
    Frame::put_head(&header, 0, &mut bytes).unwrap();
    pipeline.send.write_all(&bytes).await.unwrap();
    let answer = pipeline.answer().await;
    assert_eq!((answer.correlation, error_of(&answer).0), (9, ErrorCode::InvalidRequest));
    // A payload where none belongs.
    let answer = pipeline.ask(Request::InitProducer, b"surplus").await;
    assert_eq!(error_of(&answer).0, ErrorCode::InvalidRequest);
    pipeline.create("orders").await;
}

/// A client that believes the cluster's authority, and shows `own` or nothing.
fn stranger(authority: &Authority, own: Option<&tidelog_tls::PemPair>) -> quinn::ClientConfig {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.cert_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let cert = CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![cert], key).unwrap()
        }
    };
    tls.alpn_protocols = vec![Protocol::Native.alpn().as_bytes().to_vec()];
    quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap()))
}

/// Without a certificate, with one of another authority, or with another protocol nobody gets as far as a greeting.
#[tokio::test]
async fn strangers_are_turned_away_before_a_byte_is_read() {
    let served = serve();
    let foreign = Authority::create(CLUSTER).unwrap().issue_client("test").unwrap();
    let own = served.authority.issue_client("test").unwrap();
    let other_protocol =
        tidelog_tls::client_config(&credentials(&served.authority, &own), Protocol::Peer).unwrap();
    let configs =
        [stranger(&served.authority, None), stranger(&served.authority, Some(&foreign)), other_protocol];
    for config in configs {
        // A client may believe for a moment that it is connected, until the refusal arrives.
        if let Ok(client) = Client::connect_with(served.address, config).await {
            let ended = client.connection.closed().await;
            assert!(matches!(ended, ConnectionError::ConnectionClosed(_)), "{ended}");
        }
    }
    let believed = stranger(&served.authority, Some(&own));
    Client::connect_with(served.address, believed).await.unwrap().greet().await;
    assert_eq!(served.broker.counts().connections_opened.value(), 1);
    assert_eq!(served.broker.counts().connections_refused.value(), 3);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_and_those_there_go_on() {
    let served = serve_with(NativeLimits { connections: 1, requests: 16, bytes: 32 << 20 });
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let own = credentials(&served.authority, &served.authority.issue_client("test").unwrap());
    let config = tidelog_tls::client_config(&own, Protocol::Native).unwrap();
    assert!(Client::connect_with(served.address, config).await.is_err());
    pipeline.create("orders").await;
}

/// More requests than a connection may have unanswered are not lost: they are taken once there is a slot.
#[tokio::test]
async fn a_flood_of_requests_is_held_back_and_answered_in_the_end() {
    let served = serve_with(NativeLimits { connections: 8, requests: 2, bytes: 32 << 20 });
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    for number in 0..100 {
        pipeline.send(number, &Request::InitProducer, &[]).await;
    }
    let mut answered = Vec::new();
    for _ in 0..100 {
        answered.push(pipeline.answer().await.correlation);
    }
    answered.sort_unstable();
    assert_eq!(answered, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stopping_node_answers_what_is_under_way_and_says_goodbye() {
    let mut served = serve();
    let client = Client::connect(&served).await;
    let mut pipeline = client.greet().await;
    let log = pipeline.create("orders").await;
    pipeline.send(5, &fetch(log, 30_000), &[]).await;
    // The fetch is under way once a later request on the same stream was answered.
    pipeline.send(6, &Request::InitProducer, &[]).await;
    assert_eq!(pipeline.answer().await.correlation, 6);
    served.broker.begin_stop();
    let stopping = served.front_end.stop(Duration::from_secs(10));
    let ((), answer) = tokio::join!(stopping, pipeline.answer());
    assert_eq!(answer.correlation, 5);
    assert!(answer.answer.is_ok() && answer.payload.is_empty());
    assert_eq!(client.closed().await.0, u64::from(CloseCode::Stopping.number()));
}

/// A client that asks and never reads keeps nobody else waiting, and a stopping node no longer than it allows.
#[tokio::test]
async fn a_client_that_does_not_read_cannot_keep_a_node_from_stopping() {
    let mut served = serve();
    let (deaf, client) = (Client::connect(&served).await, Client::connect(&served).await);
    let mut pipeline = client.greet().await;
    let log = pipeline.create("orders").await;
    let batch = batch_of(&["x".repeat(60 << 10).as_str()]);
    for _ in 0..17 {
        pipeline.ask(Request::Produce { log }, &batch).await.answer.unwrap();
    }
    let mut unread = deaf.greet().await;
    for number in 0..16 {
        unread.send(number, &fetch(log, 0), &[]).await;
    }
    // 16 MiB are asked for, and far less fits into the windows of a client that does not read.
    assert_eq!(pipeline.ask(fetch(log, 0), &[]).await.payload.len(), 17 * batch.len());
    served.broker.begin_stop();
    let stopping = served.front_end.stop(Duration::from_millis(300));
    tokio::time::timeout(Duration::from_secs(10), stopping).await.expect("it stops");
}
