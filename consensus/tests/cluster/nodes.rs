//! Clusters to test with: how they are set up, broken and waited for.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidelog_consensus::apply::channel::ChannelState;
use tidelog_consensus::core::{GroupStatus, Role};
use tidelog_consensus::entry::{Command, MetaCommand, NewChannel};
use tidelog_consensus::metrics::NodeMetrics;
use tidelog_consensus::outcome::Outcome;
use tidelog_consensus::raft_log::EngineLogOptions;
use tidelog_consensus::runtime::{
    Addresses, Fatal, NewLife, Node, NodeConfig, NodeHandle, NodeTuning, ProposeError, Start, SystemClock,
};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_tls::{Authority, Credentials, PemFile};
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::{
    ChannelUuid, ClusterId, GroupId, Incarnation, LogId, NodeId, Offset, Partition, ReplicaId, TimestampMs,
};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed, Records};

/// How long a condition may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const CLUSTER: ClusterId = ClusterId(0x51de_1069);

/// Nodes on loopback, each with a directory of its own.
pub(crate) struct Cluster {
    configs: Vec<NodeConfig>,
    nodes: Vec<Option<NodeHandle>>,
    dirs: Vec<TempDir>,
    authority: Authority,
    /// Drawn so far.
    incarnations: u128,
}

impl Cluster {
    /// A new cluster of `count` nodes, once it serves.
    pub(crate) async fn bootstrap(count: usize) -> Self {
        Self::bootstrap_with(count, |_| {}).await
    }

    /// The same, with a change to every configuration.
    pub(crate) async fn bootstrap_with(count: usize, change: impl Fn(&mut NodeConfig)) -> Self {
        let dirs: Vec<_> = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
        let addresses = free_addresses(count);
        let authority = Authority::create(CLUSTER).unwrap();
        let configs: Vec<_> = (0..count)
            .map(|number| {
                let mut config = config(number, &addresses, dirs[number].path(), &authority);
                change(&mut config);
                config
            })
            .collect();
        let nodes = (0..count).map(|_| None).collect();
        let mut cluster = Self { configs, nodes, dirs, authority, incarnations: 1000 };
        for number in 0..count {
            cluster.start(number).await;
        }
        cluster.ready().await;
        cluster
    }

    /// Starts a node that does not run.
    pub(crate) async fn start(&mut self, number: usize) {
        let start = self.configs[number].start.clone();
        self.start_as(number, start).await;
    }

    /// The same, in another way than it is configured.
    pub(crate) async fn start_as(&mut self, number: usize, start: Start) {
        let mut config = self.configs[number].clone();
        self.incarnations += 1;
        config.incarnation = Incarnation(self.incarnations);
        config.session = u64::try_from(self.incarnations).unwrap();
        config.metrics = Arc::new(NodeMetrics::default());
        config.start = start;
        port_is_free(config.listen).await;
        self.nodes[number] = Some(Node::start(config).await.unwrap());
    }

    /// Starts one more node, which asks the others to let it in; its number.
    pub(crate) async fn join(&mut self) -> usize {
        let number = self.configs.len();
        let dir = tempfile::tempdir().unwrap();
        let mut addresses: Vec<_> = self.configs.iter().map(|config| config.listen).collect();
        addresses.extend(free_addresses(1));
        let mut config = config(number, &addresses, dir.path(), &self.authority);
        config.start = Start::Join;
        config.tuning = self.configs[0].tuning;
        self.configs.push(config);
        self.dirs.push(dir);
        self.nodes.push(None);
        self.start(number).await;
        number
    }

    /// What `tidelogd` does when a node demands a new life: ends it, and starts it again with one. The evidence.
    pub(crate) async fn begin_anew(&mut self, number: usize) -> String {
        let mut demanded = self.node(number).watch_new_life();
        let demanded = tokio::time::timeout(PATIENCE, demanded.wait_for(Option::is_some));
        let NewLife { given_up, why } = demanded.await.expect("it demands one").unwrap().clone().unwrap();
        self.kill(number).await;
        self.start_as(number, Start::Rejoin { given_up }).await;
        why
    }

    /// The data directory of a node.
    pub(crate) fn data(&self, number: usize) -> PathBuf {
        self.configs[number].data_dir.clone()
    }

    /// Ends once each group counts exactly the nodes `voters`, each with one replica, as its leader applied it; which
    /// replicas those are.
    pub(crate) async fn voters_are(&self, voters: &[usize]) -> BTreeMap<GroupId, Vec<ReplicaId>> {
        let expected: Vec<_> = voters.iter().map(|node| NodeId(u64::try_from(*node).unwrap())).collect();
        let there = async {
            loop {
                let found = self.members_by_leaders();
                let settled = |status: &GroupStatus| {
                    let members = &status.members;
                    let mut nodes: Vec<_> =
                        members.voters.iter().filter_map(|voter| members.node_of(*voter)).collect();
                    nodes.sort_unstable();
                    !members.is_joint() && members.learners.is_empty() && nodes == expected
                };
                let groups = self.running().next().unwrap().catalogue().groups().count();
                if found.len() == groups && found.values().all(|status| settled(status)) {
                    let voters = |status: &GroupStatus| status.members.voters.clone();
                    return found.iter().map(|(group, status)| (*group, voters(status))).collect();
                }
                self.something_changes().await;
            }
        };
        match tokio::time::timeout(PATIENCE, there).await {
            Ok(found) => found,
            Err(_) => panic!("{voters:?} are not the voters: {:#?}", self.members_by_leaders()),
        }
    }

    /// What every running node shows, for whoever waited in vain.
    pub(crate) fn seen(&self) -> String {
        let mut seen = String::new();
        for node in self.running() {
            let (identity, readiness) = (node.identity(), node.readiness());
            seen += &format!("\nnode {} {}: {readiness:?}", identity.node, identity.incarnation);
            seen += &format!("\n  reached: {:?}", node.transport().map(|transport| transport.reachable()));
            for status in node.group_status().iter() {
                let GroupStatus { group, replica, role, leader, term, committed, applied, members, .. } =
                    status.as_ref();
                seen += &format!(
                    "\n  group {group} replica {replica} {role:?} led by {leader:?} term {term} {committed} {applied} {members:?}"
                );
                seen += &format!("\n    {:?} {:?} {:?}", status.snapshot, status.peers, status.halted);
            }
            for (group, placement) in node.catalogue().groups() {
                seen += &format!("\n  wanted {group}: {:?} {:?}", placement.replicas, placement.reported);
            }
            for (id, known) in node.catalogue().members() {
                seen += &format!("\n  known {id}: {:?} {}", known.state, known.incarnation);
            }
        }
        seen
    }

    fn members_by_leaders(&self) -> BTreeMap<GroupId, Arc<GroupStatus>> {
        let mut found = BTreeMap::new();
        for node in self.running() {
            let led = node.group_status();
            let led = led.iter().filter(|status| status.role == Role::Leader && status.serves);
            found.extend(led.map(|status| (status.group, Arc::clone(status))));
        }
        found
    }

    /// Ends a node as a kill would.
    pub(crate) async fn kill(&mut self, number: usize) {
        self.nodes[number].take().unwrap().abandon().await;
    }

    /// Stops a node as an operator would.
    pub(crate) async fn stop(&mut self, number: usize) {
        self.nodes[number].take().unwrap().stop().await;
    }

    /// Where a node's data lie.
    pub(crate) fn data_dir(&self, number: usize) -> &Path {
        &self.configs[number].data_dir
    }

    /// Takes a node's segments away, as if their disk had lost them.
    pub(crate) fn forget_segments(&self, number: usize) {
        let logs = self.data_dir(number).join("logs");
        OsStorage.rename(&logs, &self.data_dir(number).join("logs.lost")).unwrap();
    }

    /// Takes a node's raft log away, as if its disk had lost it.
    pub(crate) fn forget_raft_log(&self, number: usize) {
        let raft = self.configs[number].data_dir.join("raft");
        OsStorage.rename(&raft, &self.configs[number].data_dir.join("raft.lost")).unwrap();
    }

    /// Writes over the middle of a node's oldest raft log file, as a failing disk might.
    pub(crate) fn damage_raft_log(&self, number: usize) {
        let raft = self.configs[number].data_dir.join("raft");
        let names = OsStorage.list(&raft).unwrap();
        let oldest = names.iter().find(|found| found.name.ends_with(".raftlog")).unwrap();
        let file = OsStorage.open(&raft.join(&oldest.name), OpenMode::ReadWrite).unwrap();
        file.write_at(Position(2_000), &[&[0x5a; 4_000]]).unwrap();
    }

    /// A node that runs.
    pub(crate) fn node(&self, number: usize) -> &NodeHandle {
        self.nodes[number].as_ref().unwrap()
    }

    /// A node's replica of a group, as it was a moment ago.
    pub(crate) fn status(&self, number: usize, group: GroupId) -> GroupStatus {
        self.node(number).group_status().iter().find(|status| status.group == group).unwrap().as_ref().clone()
    }

    /// Handles to all running nodes. While one is held, the directory of its node stays locked.
    pub(crate) fn handles(&self) -> Vec<NodeHandle> {
        self.running().cloned().collect()
    }

    fn running(&self) -> impl Iterator<Item = &NodeHandle> {
        self.nodes.iter().flatten()
    }

    /// Ends once every running node serves.
    pub(crate) async fn ready(&self) {
        for node in self.running() {
            let mut catalogue = node.watch_catalogue();
            let mut statuses = node.watch_statuses();
            let serves = async {
                while !node.readiness().ready {
                    tokio::select! {
                        changed = catalogue.changed() => changed.unwrap(),
                        changed = statuses.changed() => changed.unwrap(),
                    }
                }
            };
            if tokio::time::timeout(PATIENCE, serves).await.is_err() {
                panic!("node {:?} does not serve: {:?}", node.identity().node, node.readiness());
            }
        }
    }

    /// The group that carries a log, as some running node knows.
    pub(crate) fn group_of(&self, log: LogId) -> GroupId {
        let known = |node: &NodeHandle| node.catalogue().channel_of(log.generation)?.group(log.partition);
        self.running().find_map(known).expect("the channel is known")
    }

    /// The node that leads a log's group, as every running node sees it.
    pub(crate) async fn leader_of(&self, log: LogId) -> usize {
        let group = self.group_of(log);
        let node = self.running().next().unwrap();
        let mut statuses = node.watch_statuses();
        let led = statuses.wait_for(|statuses| {
            statuses.iter().any(|status| status.group == group && status.leader.is_some())
        });
        let statuses = tokio::time::timeout(PATIENCE, led).await.unwrap().unwrap();
        let status = statuses.iter().find(|status| status.group == group).unwrap();
        usize::try_from(status.leader.unwrap().get()).unwrap()
    }

    /// Proposes until some node leads and applies it. For commands that may safely be applied twice, or
    /// for tests that look at what is there afterwards.
    pub(crate) async fn propose(&self, group: GroupId, command: impl Fn() -> Command) -> Outcome {
        let tried = async {
            loop {
                for node in self.running() {
                    match node.submit(group, command(), Duration::from_secs(5)).await {
                        Ok(outcome) => return outcome,
                        Err(
                            ProposeError::NotLeader { .. }
                            | ProposeError::NotReady
                            | ProposeError::Busy { .. }
                            | ProposeError::Superseded,
                        ) => tokio::task::yield_now().await,
                        Err(error) => panic!("group {group}: {error}"),
                    }
                }
                self.something_changes().await;
            }
        };
        match tokio::time::timeout(PATIENCE, tried).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let seen: Vec<_> = self.running().map(|node| node.group_status()).collect();
                panic!("nothing took the command: {seen:#?}")
            }
        }
    }

    /// Ends when a node's view of its groups changed, which it does at every tick of a group that is not quiet; or soon.
    pub(crate) async fn something_changes(&self) {
        let mut statuses = self.running().next().unwrap().watch_statuses();
        if let Ok(changed) = tokio::time::timeout(Duration::from_millis(50), statuses.changed()).await {
            changed.unwrap();
        }
    }

    /// A new channel, once its logs are open on every running node; its first log.
    pub(crate) async fn create_channel(&self, name: &str, partitions: u32) -> LogId {
        self.create_channel_with(name, partitions, 1).await
    }

    /// The same, with a UUID of its own.
    pub(crate) async fn create_channel_with(&self, name: &str, partitions: u32, uuid: u128) -> LogId {
        let outcome = self
            .propose(GroupId::META, || {
                Command::Meta(MetaCommand::CreateChannels(vec![NewChannel {
                    name: name.to_owned(),
                    uuid: ChannelUuid(uuid),
                    partitions,
                    replicas: None,
                    segment_bytes: 1 << 20,
                }]))
            })
            .await;
        let Outcome::ChannelsCreated(created) = outcome else { panic!("{outcome:?}") };
        let generation = created[0].clone().unwrap();
        for node in self.running() {
            let mut catalogue = node.watch_catalogue();
            let active = catalogue.wait_for(|catalogue| {
                catalogue.channel_of(generation).is_some_and(|channel| channel.state == ChannelState::Active)
            });
            tokio::time::timeout(PATIENCE, active).await.expect("the channel becomes active").unwrap();
        }
        LogId { generation, partition: Partition(0) }
    }

    /// Appends one record and waits for its outcome.
    pub(crate) async fn append(&self, log: LogId, value: &str) -> Outcome {
        let group = self.group_of(log);
        self.propose(group, || Command::Append { log, append_time: TimestampMs(1), batch: batch(value) })
            .await
    }

    /// Ends once a node has applied everything below `end`.
    pub(crate) async fn caught_up(&self, number: usize, log: LogId, end: Offset) {
        let node = self.node(number);
        let mut statuses = node.watch_statuses();
        let there = async {
            while node.reader(log).is_none_or(|reader| reader.end() < end) {
                statuses.changed().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(PATIENCE, there).await.is_ok(), "node {number} did not catch up");
    }
}

/// Ends once nobody holds the port any more: what is left of a killed node's connections may, shortly.
async fn port_is_free(address: SocketAddr) {
    let free = async {
        while UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, free).await.is_ok(), "{address} is still in use");
}

fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

fn config(number: usize, addresses: &[SocketAddr], dir: &Path, authority: &Authority) -> NodeConfig {
    let node = NodeId(u64::try_from(number).unwrap());
    let ids: Vec<_> = (0..u64::try_from(addresses.len()).unwrap()).map(NodeId).collect();
    let all: BTreeMap<_, _> = ids.iter().copied().zip(addresses.iter().copied()).collect();
    let issued = authority.issue_node(node).unwrap();
    let pem = |text| PemFile { path: Path::new("test.pem"), text };
    let credentials =
        Credentials::parse(&pem(authority.cert_pem()), &pem(&issued.cert), &pem(&issued.key)).unwrap();
    let tuning = NodeTuning {
        raft_log: EngineLogOptions {
            file_bytes: 4 << 20,
            purge_bytes: 16 << 20,
            prefill_bytes: 0,
            ..EngineLogOptions::default()
        },
        ..NodeTuning::default()
    };
    NodeConfig {
        data_dir: dir.join("data"),
        storage: Arc::new(OsStorage),
        cluster: CLUSTER,
        node,
        start: Start::Bootstrap { voters: ids },
        incarnation: Incarnation(u128::from(node.get()) + 1),
        listen: addresses[number],
        peers: all.into_iter().filter(|(id, _)| *id != node).collect(),
        credentials: Some(credentials),
        data_groups: 2,
        addresses: Addresses {
            native: format!("127.0.0.1:{number}"),
            peer: addresses[number].to_string(),
            ..Addresses::default()
        },
        tuning,
        session: 7 + node.get(),
        seed: 7 + node.get(),
        clock: Arc::new(SystemClock::new()),
        metrics: Arc::new(NodeMetrics::default()),
        fatal: Fatal::new(|message| panic!("fatal: {message}")),
    }
}

/// A batch of one record.
pub(crate) fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    assert_eq!(builder.push(TimestampMs(1), None, Some(value.as_bytes()), &[]), Ok(Pushed::Taken));
    builder.build(None).unwrap().into_bytes()
}

/// The values of all records of a log, as a node serves them.
pub(crate) fn read_all(node: &NodeHandle, log: LogId) -> Vec<String> {
    let reader = node.reader(log).expect("the log is open");
    let mut values = Vec::new();
    let mut from = reader.start();
    while from < reader.end() {
        let read = reader.read(from, 1 << 20).unwrap();
        assert!(read.next > from, "reading goes on");
        from = read.next;
        values.extend(read.batches.into_iter().flat_map(values_of));
    }
    values
}

fn values_of(bytes: Bytes) -> Vec<String> {
    let batch = Batch::parse(bytes, BatchLimits::CAP).unwrap();
    let records = Records::of(&batch).unwrap();
    records.map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap()).collect()
}

/// Appends records until all are acknowledged; gives the offset of each. A record whose fate is unknown is
/// given another text and appended again.
pub(crate) async fn produce(
    nodes: Vec<NodeHandle>,
    group: GroupId,
    log: LogId,
    name: String,
    count: usize,
    progress: Arc<AtomicU64>,
) -> BTreeMap<u64, String> {
    let mut offsets = BTreeMap::new();
    let mut attempt = 0;
    let all = async {
        while offsets.len() < count {
            let value = format!("{name}, {}, attempt {attempt}", offsets.len());
            for node in &nodes {
                let command = Command::Append { log, append_time: TimestampMs(1), batch: batch(&value) };
                match node.submit(group, command, Duration::from_secs(2)).await {
                    Ok(Outcome::Appended { base_offset, .. }) => {
                        progress.fetch_add(1, Ordering::Relaxed);
                        offsets.insert(base_offset.get(), value.clone());
                        break;
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(ProposeError::MayHaveCommitted) => {
                        attempt += 1;
                        break;
                    }
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("everything is acknowledged in the end");
    offsets
}
