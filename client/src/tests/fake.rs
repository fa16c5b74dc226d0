//! A cluster of three fake nodes: they speak the protocol over real QUIC, share one log, and fail on demand.
//!
//! The log keeps the rules that a real one keeps: offsets without gaps, sequence numbers of producers, the last five
//! batches remembered. Each node stands behind a small UDP forwarder that can be cut, which is how a node dies: in silence.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{Profile, ProfileNode};
use bytes::{Bytes, BytesMut};
use tidelog_tls::{Authority, Credentials, PemFile, PemPair, Protocol, server_config};
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::*;
use tidelog_wire::protocol::*;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(super) const CLUSTER: ClusterId = ClusterId(0x7ea);
pub(super) const CHANNEL: &str = "flights";
pub(super) const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

/// What happens to the next produce request instead of the usual.
pub(super) enum Fault {
    /// Appended, but the connection ends before the answer.
    LoseAnswer,
    /// Not appended, and the connection ends.
    LoseRequest,
    /// Neither appended nor ever answered.
    Ignore,
    /// Answered twice.
    AnswerTwice,
    /// Not appended, refused.
    Refuse(ErrorReply),
    /// Appended, and answered that it may have been.
    DoneButUncertain,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) leader: u64,
    pub(super) batches: Vec<Bytes>,
    pub(super) end: u64,
    pub(super) faults: VecDeque<Fault>,
    /// Every produce request is treated so, once the faults are used up.
    pub(super) always: Option<ErrorReply>,
    /// Flip a bit in the next fetched bytes.
    pub(super) corrupt_fetch: bool,
    /// Node 0 says that it leads, and believes it, whatever happens.
    pub(super) stubborn: bool,
    /// Fetches at node 0 are refused as damaged.
    pub(super) damaged: bool,
    /// Move the leadership to node 1 when the log has so many records.
    pub(super) move_at: Option<u64>,
    pub(super) produced: u64,
    /// Requests that a connection may have under way; beyond, its streams are not read from. 0: 256.
    pub(super) requests_max: u32,
    producers: BTreeMap<ProducerId, VecDeque<(i32, i32, u64)>>,
    next_producer: i64,
}

pub(super) struct FakeCluster {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) profile: Profile,
    cut: Vec<Arc<AtomicBool>>,
}

fn credentials(authority: &Authority, pair: &PemPair) -> Credentials {
    let file = |text| PemFile { path: Path::new("test.pem"), text };
    Credentials::parse(&file(authority.cert_pem()), &file(&pair.cert), &file(&pair.key)).unwrap()
}

impl FakeCluster {
    pub(super) async fn start() -> Self {
        let authority = Authority::create(CLUSTER).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let grown = Arc::new(watch::Sender::new(0));
        let (mut addresses, mut cut) = (Vec::new(), Vec::new());
        for id in 0..3 {
            let pair = authority.issue_node(NodeId(id)).unwrap();
            let config = server_config(&credentials(&authority, &pair), Protocol::Native).unwrap();
            let endpoint = quinn::Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
            let (address, silent) = forwarder(endpoint.local_addr().unwrap()).await;
            addresses.push(address);
            cut.push(silent);
            tokio::spawn(serve(endpoint, Node { id, grown: grown.clone(), state: state.clone() }));
        }
        let nodes = addresses.iter().zip(0..).map(|(address, id)| ProfileNode {
            id: NodeId(id),
            native: address.to_string(),
            admin: String::new(),
        });
        let client = credentials(&authority, &authority.issue_client("test").unwrap());
        let profile = Profile { cluster: CLUSTER, nodes: nodes.collect(), credentials: client };
        Self { state, profile, cut }
    }

    /// From now on nothing reaches the node, and nothing comes from it.
    pub(super) fn kill(&self, node: usize) {
        self.cut[node].store(true, Ordering::SeqCst);
    }

    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// The values in the log, in order.
    pub(super) fn values(&self) -> Vec<String> {
        self.with(|state| {
            let batches =
                state.batches.iter().map(|bytes| Batch::parse(bytes.clone(), BatchLimits::CAP).unwrap());
            let records = batches.flat_map(|batch| tidelog_wire::records::Records::of(&batch).unwrap());
            records
                .map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap())
                .collect()
        })
    }
}

/// Passes datagrams between clients and `server` until it is cut.
async fn forwarder(server: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let outer = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    let address = outer.local_addr().unwrap();
    let cut = Arc::new(AtomicBool::new(false));
    let silent = cut.clone();
    tokio::spawn(async move {
        let mut inner: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
        let mut datagram = vec![0; 65536];
        loop {
            let Ok((length, client)) = outer.recv_from(&mut datagram).await else { continue };
            if silent.load(Ordering::SeqCst) {
                continue;
            }
            let socket = match inner.get(&client) {
                Some(socket) => socket.clone(),
                None => {
                    let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
                    inner.insert(client, socket.clone());
                    tokio::spawn(back(socket.clone(), outer.clone(), client, silent.clone()));
                    socket
                }
            };
            drop(socket.send_to(&datagram[..length], server).await);
        }
    });
    (address, cut)
}

async fn back(inner: Arc<UdpSocket>, outer: Arc<UdpSocket>, client: SocketAddr, silent: Arc<AtomicBool>) {
    let mut datagram = vec![0; 65536];
    while let Ok((length, _)) = inner.recv_from(&mut datagram).await {
        if !silent.load(Ordering::SeqCst) {
            drop(outer.send_to(&datagram[..length], client).await);
        }
    }
}

#[derive(Clone)]
struct Node {
    id: u64,
    /// The end of the log, for fetches that wait.
    grown: Arc<watch::Sender<u64>>,
    state: Arc<Mutex<State>>,
}

async fn serve(endpoint: quinn::Endpoint, node: Node) {
    while let Some(incoming) = endpoint.accept().await {
        let node = node.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let slots = Arc::new(Semaphore::new(usize::try_from(node.requests_max()).unwrap()));
            let shared = Shared { node, connection: connection.clone(), slots };
            let mut first = true;
            while let Ok((send, receive)) = connection.accept_bi().await {
                tokio::spawn(stream(shared.clone(), send, receive, first));
                first = false;
            }
        });
    }
}

/// What the streams of a connection share: slots for requests that are under way.
#[derive(Clone)]
struct Shared {
    node: Node,
    connection: quinn::Connection,
    slots: Arc<Semaphore>,
}

/// As a real node does: a request is begun when there is a slot for it, and until then the stream is not read from. Only
/// fetches are answered out of order here.
async fn stream(shared: Shared, send: quinn::SendStream, mut receive: quinn::RecvStream, mut greet: bool) {
    let mut received = BytesMut::new();
    let send = Arc::new(tokio::sync::Mutex::new(send));
    loop {
        while let Some(frame) = Frame::take(&mut received, FrameLimits::REQUESTS).unwrap() {
            if std::mem::take(&mut greet) {
                let version = Hello::decode(&frame).unwrap().choose_version().unwrap();
                let mut out = BytesMut::new();
                HelloAnswer::Welcome(shared.node.welcome(version)).encode(&mut out).unwrap();
                send.lock().await.write_all(&out).await.unwrap();
                continue;
            }
            let slot = shared.slots.clone().acquire_owned().await.unwrap();
            let request = RequestFrame::decode(frame).unwrap();
            let is_fetch = matches!(request.request, Request::Fetch(_));
            let answering = answer(shared.clone(), send.clone(), request, slot);
            if is_fetch {
                tokio::spawn(answering);
            } else if !answering.await {
                return;
            }
        }
        match receive.read_chunk(1 << 20, true).await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk.bytes),
            Ok(None) | Err(_) => return,
        }
    }
}

/// False: the stream is over.
async fn answer(
    shared: Shared,
    send: Arc<tokio::sync::Mutex<quinn::SendStream>>,
    request: RequestFrame,
    _slot: OwnedSemaphorePermit,
) -> bool {
    if let Request::Fetch(fetch) = &request.request {
        let enough = async {
            let mut grown = shared.node.grown.subscribe();
            grown.wait_for(|end| *end > fetch.offset.get()).await.unwrap();
        };
        drop(tokio::time::timeout(Duration::from_millis(fetch.max_wait_ms.into()), enough).await);
    }
    let Some(answers) = shared.node.answer(&request) else {
        shared.connection.close(9_u32.into(), b"fault");
        return false;
    };
    let mut out = BytesMut::new();
    for (answer, payload) in answers {
        encode_answer(request.correlation, &answer, payload.len(), &mut out).unwrap();
        out.extend_from_slice(&payload);
    }
    send.lock().await.write_all(&out).await.is_ok()
}

type Answers = Vec<(Result<Answer, ErrorReply>, Bytes)>;

fn plain(answer: Result<Answer, ErrorReply>) -> Option<Answers> {
    Some(vec![(answer, Bytes::new())])
}

pub(super) fn refusal(code: ErrorCode, retry: Retry) -> ErrorReply {
    ErrorReply { message: format!("E2199 {code:?}"), code, retry }
}

impl Node {
    fn requests_max(&self) -> u32 {
        match self.state.lock().unwrap().requests_max {
            0 => 256,
            max => max,
        }
    }

    fn welcome(&self, version: u16) -> Welcome {
        let limits = ServerLimits {
            batch_bytes_max: 1 << 20,
            fetch_bytes_max: 1 << 24,
            requests_max: self.requests_max(),
        };
        let (node, incarnation, boot_epoch) = (NodeId(self.id), Incarnation(1), BootEpoch(1));
        Welcome { version, cluster: CLUSTER, node, incarnation, boot_epoch, limits }
    }

    /// `None`: the connection ends instead.
    fn answer(&self, frame: &RequestFrame) -> Option<Answers> {
        match &frame.request {
            Request::Metadata { .. } => plain(Ok(Answer::Metadata(self.metadata()))),
            Request::Cluster => {
                let current = self.state.lock().unwrap().leader == self.id;
                let info = ClusterInfo { cluster: CLUSTER, current, nodes: vec![], groups: vec![] };
                plain(Ok(Answer::Cluster(Box::new(info))))
            }
            Request::InitProducer => {
                let mut state = self.state.lock().unwrap();
                state.next_producer += 1;
                plain(Ok(Answer::Producer { id: ProducerId(state.next_producer), epoch: 0 }))
            }
            Request::Produce { .. } => self.produce(frame.payload.clone()),
            Request::Fetch(fetch) => self.fetch(fetch),
            Request::OffsetAt { at, .. } => {
                let end = self.state.lock().unwrap().end;
                let offset = if matches!(at, OffsetSpec::Latest) { Offset(end) } else { Offset(0) };
                plain(Ok(Answer::Offset { offset }))
            }
            Request::CreateChannel { .. } => plain(Err(refusal(ErrorCode::ChannelExists, Retry::Never))),
            Request::DeleteChannel { .. }
            | Request::Trim { .. }
            | Request::NodeStatus { .. }
            | Request::ChainAt { .. }
            | Request::TransferLeader { .. }
            | Request::CreateChannels { .. }
            | Request::DrainNode { .. }
            | Request::ForgetNode { .. }
            | Request::Rebalance { .. }
            | Request::SetCursor { .. }
            | Request::Cursors { .. }
            | Request::Echo { .. } => plain(Err(refusal(ErrorCode::Unsupported, Retry::Never))),
        }
    }

    fn metadata(&self) -> MetadataInfo {
        let state = self.state.lock().unwrap();
        let leader = NodeId(if state.stubborn && self.id == 0 { 0 } else { state.leader });
        drop(state);
        let partition = PartitionInfo { log: LOG, group: GroupId(1), leader: Some(leader), replicas: vec![] };
        let channel = ChannelInfo {
            name: CHANNEL.to_owned(),
            generation: Generation(1),
            uuid: ChannelUuid(1),
            state: ChannelState::Active,
            replicas: 3,
            segment_bytes: 1 << 20,
            partitions: vec![partition],
        };
        MetadataInfo { cluster: CLUSTER, nodes: vec![], channels: vec![channel] }
    }

    fn not_leader(&self, state: &State) -> Option<Answers> {
        let stubborn = state.stubborn && self.id == 0;
        (state.leader != self.id && !stubborn).then(|| {
            let leader = Some(NodeId(state.leader));
            vec![(Err(refusal(ErrorCode::NotLeader { leader }, Retry::Leader)), Bytes::new())]
        })
    }

    fn produce(&self, payload: Bytes) -> Option<Answers> {
        let mut state = self.state.lock().unwrap();
        let answers = self.produced(&mut state, payload);
        self.grown.send_replace(state.end);
        answers
    }

    fn produced(&self, state: &mut State, payload: Bytes) -> Option<Answers> {
        state.produced += 1;
        if let Some(refused) = self.not_leader(state) {
            return Some(refused);
        }
        let batch = Batch::parse(payload, BatchLimits::default()).unwrap();
        match state.faults.pop_front() {
            None => {
                if let Some(reply) = state.always.clone() {
                    return plain(Err(reply));
                }
                let answer = state.append(&batch);
                plain(answer)
            }
            Some(Fault::LoseAnswer) => {
                state.append(&batch).unwrap();
                None
            }
            Some(Fault::LoseRequest) => None,
            Some(Fault::Ignore) => Some(Vec::new()),
            Some(Fault::AnswerTwice) => {
                let answer = state.append(&batch);
                Some(vec![(answer.clone(), Bytes::new()), (answer, Bytes::new())])
            }
            Some(Fault::Refuse(reply)) => plain(Err(reply)),
            Some(Fault::DoneButUncertain) => {
                state.append(&batch).unwrap();
                plain(Err(refusal(ErrorCode::TimedOutMayHaveCommitted, Retry::MayHaveCommitted)))
            }
        }
    }

    fn fetch(&self, fetch: &FetchRequest) -> Option<Answers> {
        let mut state = self.state.lock().unwrap();
        if !fetch.any_replica
            && let Some(refused) = self.not_leader(&state)
        {
            return Some(refused);
        }
        if state.damaged && self.id == 0 {
            let (start, end) = (fetch.offset, fetch.offset.plus(1));
            return plain(Err(refusal(ErrorCode::DamagedRange { start, end }, Retry::Never)));
        }
        let max_bytes = usize::try_from(fetch.max_bytes).unwrap();
        let mut payload = BytesMut::new();
        let mut next_offset = fetch.offset;
        for bytes in &state.batches {
            let batch = Batch::parse(bytes.clone(), BatchLimits::CAP).unwrap();
            if batch.last_offset().unwrap() >= fetch.offset && payload.len() < max_bytes {
                payload.extend_from_slice(bytes);
                next_offset = batch.last_offset().unwrap().plus(1);
            }
        }
        if std::mem::take(&mut state.corrupt_fetch) {
            let last = payload.len() - 1;
            payload[last] ^= 1;
        }
        let fetched =
            Answer::Fetched { high_watermark: Offset(state.end), log_start: Offset(0), next_offset };
        Some(vec![(Ok(fetched), payload.freeze())])
    }
}

impl State {
    /// By the rules of an idempotent producer.
    fn append(&mut self, batch: &Batch) -> Result<Answer, ErrorReply> {
        let stamp = batch.producer().unwrap();
        let count = i32::try_from(batch.count()).unwrap();
        let range = (stamp.first_sequence, stamp.first_sequence + count - 1);
        let window = self.producers.entry(stamp.id).or_default();
        if let Some((.., base)) = window.iter().find(|(first, last, _)| (*first, *last) == range) {
            return Ok(produced(*base, batch, true));
        }
        if window.back().is_some_and(|(_, last, _)| last + 1 != range.0) {
            return Err(refusal(ErrorCode::OutOfOrderSequence, Retry::Never));
        }
        let base = self.end;
        window.push_back((range.0, range.1, base));
        if window.len() > 5 {
            window.pop_front();
        }
        self.end += u64::from(batch.count());
        self.batches.push(batch.stamped_bytes(Offset(base), LeaderEpoch(1)));
        if self.move_at.is_some_and(|at| self.end >= at) {
            (self.leader, self.move_at) = (1, None);
        }
        Ok(produced(base, batch, false))
    }
}

fn produced(base: u64, batch: &Batch, duplicate: bool) -> Answer {
    Answer::Produced {
        base_offset: Offset(base),
        last_offset: Offset(base + u64::from(batch.count()) - 1),
        chain: Chain(0),
        append_time: TimestampMs(1),
        duplicate,
    }
}
