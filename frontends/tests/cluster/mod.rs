//! Real `tidelogd` processes on loopback, and a client that knows the protocol's bytes and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidelog_tls::{Authority, Credentials, PemFile, Protocol};
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::{Chain, ClusterId, LogId, NodeId, Offset, Partition, TimestampMs};
use tidelog_wire::protocol::{
    Answer, AnswerFrame, ErrorReply, FetchRequest, Frame, FrameLimits, Hello, HelloAnswer, MetadataInfo,
    NodeStatus, Request, encode_request,
};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed, Records};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until `ask` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let asked = async {
        loop {
            pace.tick().await;
            if let Some(found) = ask().await {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// A process, killed when dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) native: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: PathBuf,
}

/// Runs `tidelogd` to its end.
pub(crate) async fn run(arguments: &[&str]) -> std::process::Output {
    let run = Command::new(env!("CARGO_BIN_EXE_tidelogd")).args(arguments).kill_on_drop(true).output();
    tokio::time::timeout(PATIENCE, run).await.expect("tidelogd ends").unwrap()
}

impl Node {
    /// Starts a process and waits until it has written its addresses; `Err` with its log if it ends before.
    pub(crate) async fn start(data: &Path, arguments: &[&str]) -> Result<Self, String> {
        let log = data.with_extension("log");
        let out = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        // A process inherits that a signal is ignored: a write beyond the limit of a file's size then fails instead of
        // ending the process, see `Node::refuse_writes`.
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tidelogd"), "--data-dir"])
            .arg(data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(out)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        let waited = async {
            loop {
                pace.tick().await;
                if child.try_wait().unwrap().is_some() {
                    return None;
                }
                let text = std::fs::read_to_string(data.join("addresses.json")).unwrap_or_default();
                let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
                if json["pid"].as_u64() == child.id().map(u64::from) {
                    return Some(json);
                }
            }
        };
        let found = tokio::time::timeout(PATIENCE, waited).await.expect("a start or an end");
        let json = found.ok_or_else(|| std::fs::read_to_string(&log).unwrap())?;
        let address = |name: &str| json[name].as_str().unwrap().parse().unwrap();
        Ok(Self { child, native: address("native"), admin: address("admin"), log })
    }

    /// Waits until `/readyz` says 200.
    pub(crate) async fn ready(&self) {
        until(&format!("readiness; {}", self.log.display()), || async {
            (get(self.admin, "/readyz").await?.0 == 200).then_some(())
        })
        .await;
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).unwrap();
    }

    /// SIGTERM, and how the process ended.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.ended().await
    }

    /// From now on every write to a file fails, as on a disk that broke.
    pub(crate) fn refuse_writes(&self) {
        let limit = rustix::process::Rlimit { current: Some(1), maximum: Some(1) };
        rustix::process::prlimit(Some(self.pid()), rustix::process::Resource::Fsize, limit).unwrap();
    }

    fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap()
    }

    /// How the process ends by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// What the process has logged.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

/// Status and body of a `GET`; `None` if nobody answers.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Three nodes with one authority, each below its own folder.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    base_port: u16,
    pub(crate) nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    /// Makes certificates and starts three new nodes.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(ClusterId(0xabc)).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", authority.cert_pem());
        for node in 0..3 {
            let pair = authority.issue_node(NodeId(node)).unwrap();
            write(&format!("node-{node}.pem"), &pair.cert);
            write(&format!("node-{node}.key"), &pair.key);
        }
        let pair = authority.issue_client("test").unwrap();
        write("client.pem", &pair.cert);
        write("client.key", &pair.key);
        let mut made = Self { folder, base_port: free_ports(), nodes: BTreeMap::new() };
        for node in 0..3 {
            made.start_node(node, &["--bootstrap"]).await;
        }
        made.ready().await;
        made
    }

    pub(crate) async fn ready(&self) {
        for node in self.nodes.values() {
            node.ready().await;
        }
    }

    /// Starts a node that does not run.
    pub(crate) async fn start_node(&mut self, node: u64, more: &[&str]) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let peers: Vec<_> =
            (0..3).map(|node| format!("{node}=127.0.0.1:{}", self.base_port + 10 * node + 1)).collect();
        let mut arguments = vec![
            "--node".to_owned(),
            node.to_string(),
            "--base-port".to_owned(),
            self.base_port.to_string(),
            "--peers".to_owned(),
            peers.join(","),
            "--tls-ca".to_owned(),
            path("ca.pem"),
            "--tls-cert".to_owned(),
            path(&format!("node-{node}.pem")),
            "--tls-key".to_owned(),
            path(&format!("node-{node}.key")),
        ];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let data = self.folder.path().join(format!("data-{node}"));
        let started =
            Node::start(&data, &arguments).await.unwrap_or_else(|log| panic!("node {node} ended: {log}"));
        self.nodes.insert(node, started);
    }

    /// A connection to a node.
    pub(crate) async fn client(&self, node: u64) -> Client {
        Client::connect(self.nodes[&node].native, NodeId(node), self.folder.path(), "").await
    }
}

/// Thirty ports in a row that nobody uses right now.
fn free_ports() -> u16 {
    let free = |port: u16| {
        std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
    };
    (0..100)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
        .find(|first| *first < 65_000 && (*first..*first + 30).all(free))
        .expect("thirty free ports")
}

/// One connection and one stream of the native protocol.
pub(crate) struct Client {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    received: BytesMut,
}

impl Client {
    /// Connects with `ca.pem`, `client.pem` and `client.key` of the folder `certificates`, below `dir`.
    pub(crate) async fn connect(address: SocketAddr, node: NodeId, certificates: &Path, dir: &str) -> Self {
        let read = |name: &str| std::fs::read_to_string(certificates.join(dir).join(name)).unwrap();
        let (ca, cert, key) = (read("ca.pem"), read("client.pem"), read("client.key"));
        let file = |text| PemFile { path: certificates, text };
        let credentials = Credentials::parse(&file(&ca), &file(&cert), &file(&key)).unwrap();
        let config = tidelog_tls::client_config(&credentials, Protocol::Native).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = tidelog_tls::node_name(node, credentials.cluster());
        let connection = endpoint.connect_with(config, address, &name).unwrap().await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let mut hello = BytesMut::new();
        Hello::new("test").encode(&mut hello).unwrap();
        send.write_all(&hello).await.unwrap();
        let mut client = Self { connection, _endpoint: endpoint, send, receive, received: BytesMut::new() };
        let greeted = HelloAnswer::decode(&client.frame().await.unwrap()).unwrap();
        assert!(matches!(greeted, HelloAnswer::Welcome(_)));
        client
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

    /// Sends a request without waiting; false if the node is gone.
    pub(crate) async fn send(&mut self, correlation: u64, request: &Request, payload: &[u8]) -> bool {
        let mut bytes = BytesMut::new();
        encode_request(correlation, request, payload.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(payload);
        self.send.write_all(&bytes).await.is_ok()
    }

    /// The next answer; `None` if the node is gone.
    pub(crate) async fn answer(&mut self) -> Option<AnswerFrame> {
        self.frame().await.map(|frame| AnswerFrame::decode(frame).unwrap())
    }

    /// Asks, and waits for the answer and its payload.
    pub(crate) async fn ask(
        &mut self,
        request: Request,
        payload: &[u8],
    ) -> (Result<Answer, ErrorReply>, Bytes) {
        assert!(self.send(0, &request, payload).await, "the node is gone");
        let frame = self.answer().await.expect("the node is gone");
        (frame.answer, frame.payload)
    }

    pub(crate) async fn metadata(&mut self) -> MetadataInfo {
        match self.ask(Request::Metadata { channels: None }, &[]).await.0 {
            Ok(Answer::Metadata(metadata)) => metadata,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn status(&mut self) -> NodeStatus {
        match self.ask(Request::NodeStatus { with_logs: true }, &[]).await.0 {
            Ok(Answer::NodeStatus(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn create(&mut self, name: &str) -> Result<LogId, ErrorReply> {
        let request = Request::CreateChannel {
            name: name.to_owned(),
            partitions: 1,
            replicas: None,
            segment_bytes: Some(64 << 10),
        };
        let answer = self.ask(request, &[]).await.0?;
        let Answer::ChannelCreated { generation, .. } = answer else { panic!("{answer:?}") };
        Ok(LogId { generation, partition: Partition(0) })
    }

    pub(crate) async fn produce(&mut self, log: LogId, values: &[String]) -> Result<Offset, ErrorReply> {
        let answer = self.ask(Request::Produce { log }, &batch_of(values)).await.0?;
        let Answer::Produced { base_offset, .. } = answer else { panic!("{answer:?}") };
        Ok(base_offset)
    }

    /// Every value from `offset` to the high watermark, as this node has it.
    pub(crate) async fn values(&mut self, log: LogId) -> Vec<String> {
        let (mut values, mut offset) = (Vec::new(), Offset(0));
        loop {
            let fetch = FetchRequest {
                log,
                offset,
                max_bytes: 1 << 20,
                min_bytes: 1,
                max_wait_ms: 0,
                any_replica: true,
            };
            let (answer, mut payload) = self.ask(Request::Fetch(fetch), &[]).await;
            let Ok(Answer::Fetched { next_offset, .. }) = answer else { panic!("{answer:?}") };
            if next_offset == offset {
                return values;
            }
            offset = next_offset;
            while let Some(batch) = Batch::take_first(&mut payload, BatchLimits::CAP).unwrap() {
                assert_eq!(batch.base_offset(), Some(Offset(u64::try_from(values.len()).unwrap())));
                for record in Records::of(&batch).unwrap() {
                    values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
                }
            }
        }
    }

    pub(crate) async fn chain_at(&mut self, log: LogId, offset: Offset) -> Chain {
        match self.ask(Request::ChainAt { log, offset }, &[]).await.0 {
            Ok(Answer::Chain { chain }) => chain,
            other => panic!("{other:?}"),
        }
    }

    /// Whether the connection still stands.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}

pub(crate) fn batch_of(values: &[String]) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for value in values {
        let pushed = builder.push(TimestampMs(1), None, Some(value.as_bytes()), &[]).unwrap();
        assert_eq!(pushed, Pushed::Taken);
    }
    builder.build(None).unwrap().into_bytes()
}

/// A cluster of one, ready, and a connection to it.
pub(crate) async fn alone(data: &Path) -> (Node, Client) {
    let node = Node::start(data, &["--base-port", "0"]).await.unwrap_or_else(|log| panic!("{log}"));
    node.ready().await;
    let client = Client::connect(node.native, NodeId(0), data, "tls").await;
    (node, client)
}

/// A value for each number.
pub(crate) fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("value {number}")).collect()
}
