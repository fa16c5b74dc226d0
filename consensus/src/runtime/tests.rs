//! The raft thread and the log writer among themselves: three of each, connected in memory, with a raft
//! log that can be held up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Entry, Message, MessageType};
use tidelog_engine::checkpoint::EntryId;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::apply_desk::ApplyBox;
use super::apply_thread::ApplyInput;
use super::board::Board;
use super::clock::SystemClock;
use super::fatal::Fatal;
use super::mailbox::Mailbox;
use super::raft_thread::{Inbox, Peers, RaftThread};
use super::waiters::Waiters;
use super::writer::{Writer, WriterBox};
use crate::apply::Catalogue;
use crate::core::{
    CheckpointFacts, CoreConfig, CoreLimits, ExportRequest, FetchSnapshot, GroupStatus, Input, Lane, Members,
    NodeCore, ReplicaStart, Role, Ticks,
};
use crate::metrics::NodeMetrics;
use crate::raft_log::{GroupLog, GroupWrite, RaftLog, RaftLogError, SimLog, SimLogOptions};
use crate::votes::Votes;

const GROUP: GroupId = GroupId(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// A raft log whose writes can be held up, or made to fail.
#[derive(Debug)]
struct SlowLog {
    log: SimLog,
    held: Mutex<bool>,
    changed: Condvar,
    fails: Mutex<bool>,
    full: Mutex<bool>,
}

impl SlowLog {
    fn hold(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.changed.notify_all();
    }
}

impl RaftLog for SlowLog {
    fn write(&self, writes: &[GroupWrite], sync: bool) -> Result<(), RaftLogError> {
        drop(self.changed.wait_while(self.held.lock().unwrap(), |held| *held).unwrap());
        if *self.fails.lock().unwrap() {
            let source = std::io::Error::other("gone");
            return Err(RaftLogError::Io { path: "raft".into(), action: "write a batch", source });
        }
        if *self.full.lock().unwrap() {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(RaftLogError::Full { path: "raft".into(), source });
        }
        self.log.write(writes, sync)
    }

    fn load(&self, group: GroupId) -> Result<GroupLog, RaftLogError> {
        self.log.load(group)
    }

    fn entries(
        &self,
        group: GroupId,
        low: RaftIndex,
        high: RaftIndex,
        bytes_max: u64,
    ) -> Result<Vec<Entry>, RaftLogError> {
        self.log.entries(group, low, high, bytes_max)
    }

    fn compact(&self, group: GroupId, first_kept: RaftIndex) -> Result<(), RaftLogError> {
        self.log.compact(group, first_kept)
    }

    fn purge(&self) -> Result<Vec<GroupId>, RaftLogError> {
        self.log.purge()
    }

    fn groups(&self) -> Vec<GroupId> {
        self.log.groups()
    }

    fn disk_bytes(&self) -> u64 {
        self.log.disk_bytes()
    }
}

/// The wires: what one node sends is put into the inbox of another.
#[derive(Default)]
struct Wires {
    inboxes: OnceLock<Vec<Arc<Inbox>>>,
    heartbeats: AtomicU64,
}

struct Wire {
    from: NodeId,
    wires: Arc<Wires>,
}

impl Peers for Wire {
    fn send(&self, to: NodeId, _lane: Lane, group: GroupId, message: Bytes) {
        let message = Message::parse_from_carllerche_bytes(&message).unwrap();
        if message.msg_type == MessageType::MsgHeartbeat {
            self.wires.heartbeats.fetch_add(1, Ordering::Relaxed);
        }
        let Some(inboxes) = self.wires.inboxes.get() else { return };
        let inbox = &inboxes[usize::try_from(to.get()).unwrap()];
        let input = Input::Message { from: self.from, group, message: Box::new(message) };
        inbox.push_input(input);
    }

    fn fetch(&self, _fetch: FetchSnapshot) {}

    fn abandon(&self, _group: GroupId) {}

    fn export(&self, _request: ExportRequest) {}
}

struct TestNode {
    log: Arc<SlowLog>,
    inbox: Arc<Inbox>,
    writer: Arc<WriterBox>,
    apply: Arc<ApplyBox>,
    board: Arc<Board>,
    ended: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl TestNode {
    fn start(number: u64, wires: &Arc<Wires>) -> Self {
        let disk = SimDisk::new(number);
        let storage = disk.storage();
        storage.create_dir("/data".as_ref()).unwrap();
        let log =
            SimLog::open(Arc::clone(&storage), "/data/raft".as_ref(), SimLogOptions::default()).unwrap();
        let log = Arc::new(SlowLog {
            log,
            held: Mutex::default(),
            changed: Condvar::new(),
            fails: Mutex::default(),
            full: Mutex::default(),
        });
        let (votes, _) = Votes::open(storage.as_ref(), "/data".as_ref()).unwrap();
        let catalogue = Arc::new(Catalogue::genesis(&[GROUP], &[0, 1, 2].map(NodeId)));
        let board = Arc::new(Board::new(catalogue, Vec::new()));
        let inbox = Arc::new(Inbox::new());
        let writer = Arc::new(Mailbox::new());
        let apply = Arc::new(ApplyBox::new());
        let metrics = Arc::new(NodeMetrics::default());
        let ended: Arc<Mutex<Vec<String>>> = Arc::default();
        let says = Arc::clone(&ended);
        let raft_log: Arc<dyn RaftLog> = Arc::<SlowLog>::clone(&log);
        let writing = Writer {
            mailbox: Arc::clone(&writer),
            raft_log: Arc::clone(&raft_log),
            votes,
            raft: Arc::clone(&inbox),
            metrics: Arc::clone(&metrics),
            fatal: Fatal::new(move |message| says.lock().unwrap().push(message.to_owned())),
        };
        let raft = RaftThread {
            core: core(number, &raft_log),
            inbox: Arc::clone(&inbox),
            writer: Arc::clone(&writer),
            apply: Arc::clone(&apply),
            keeper: Arc::new(Mailbox::new()),
            peers: Arc::new(Wire { from: NodeId(number), wires: Arc::clone(wires) }),
            waiters: Arc::new(Waiters::default()),
            board: Arc::clone(&board),
            metrics,
            clock: Arc::new(SystemClock::new()),
            tick: Duration::from_millis(10),
            installs: VecDeque::new(),
            settling: BTreeSet::new(),
        };
        let applied = (Arc::clone(&apply), Arc::clone(&inbox));
        let threads = vec![
            std::thread::spawn(move || writing.run()),
            std::thread::spawn(move || raft.run()),
            std::thread::spawn(move || apply_nothing(&applied.0, &applied.1)),
        ];
        Self { log, inbox, writer, apply, board, ended, threads }
    }

    fn status(&self) -> Option<GroupStatus> {
        self.board.status(GROUP).map(|status| status.as_ref().clone())
    }

    fn end(self) {
        self.log.hold(false);
        self.inbox.close();
        self.writer.close();
        self.apply.close();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn core(number: u64, raft_log: &Arc<dyn RaftLog>) -> NodeCore {
    let first = EntryId { index: RaftIndex(1), term: Term(1) };
    let checkpoint = CheckpointFacts {
        applied: first,
        last_durable: first,
        members: Members::of_voters((0..3).map(|node| (ReplicaId(node + 1), NodeId(node))).collect()),
    };
    let replica = ReplicaId(number + 1);
    let start = ReplicaStart { group: GROUP, replica, checkpoint, log: GroupLog::default(), vote: None };
    let config = CoreConfig {
        node: NodeId(number),
        boot: BootEpoch(1),
        groups: vec![start],
        // These look at what a leader does all the time, so no group may sleep.
        ticks: Ticks { quiet: u32::MAX, ..Ticks::default() },
        limits: CoreLimits::default(),
        seed: number,
    };
    NodeCore::new(config, raft_log).unwrap()
}

/// Says of everything committed that it is applied.
fn apply_nothing(desk: &ApplyBox, raft: &Arc<Inbox>) {
    while desk.wait(PATIENCE) == super::desk::Waited::Open {
        for input in desk.taken() {
            if let ApplyInput::Apply(task) = input {
                let index = task.entries.last().unwrap().index;
                raft.push_input(Input::Applied { group: task.group, index });
            }
        }
    }
}

fn start_three() -> (Vec<TestNode>, Arc<Wires>) {
    let wires = Arc::new(Wires::default());
    let nodes: Vec<_> = (0..3).map(|number| TestNode::start(number, &wires)).collect();
    wires.inboxes.set(nodes.iter().map(|node| Arc::clone(&node.inbox)).collect()).unwrap();
    (nodes, wires)
}

/// Waits for a condition on what the nodes show, and returns what it found.
async fn until<T>(
    nodes: &[TestNode],
    mut found: impl FnMut(&BTreeMap<usize, GroupStatus>) -> Option<T>,
) -> T {
    let mut shown = nodes[0].board.statuses.subscribe();
    let wait = async {
        loop {
            let statuses =
                nodes.iter().enumerate().filter_map(|(number, node)| Some((number, node.status()?)));
            if let Some(found) = found(&statuses.collect()) {
                return found;
            }
            // Every node shows its status at each tick.
            shown.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the condition comes true")
}

fn leader(statuses: &BTreeMap<usize, GroupStatus>) -> Option<(usize, Term)> {
    let mut leading = statuses.iter().filter(|(_, status)| status.role == Role::Leader && status.serves);
    leading.next().map(|(number, status)| (*number, status.term))
}

/// The disk of a leader hangs for many election timeouts. Its heartbeats go on, so nobody deposes it.
#[tokio::test]
async fn a_leader_whose_disk_hangs_goes_on_sending_heartbeats() {
    let (nodes, wires) = start_three();
    let (number, term) = until(&nodes, leader).await;
    nodes[number].log.hold(true);
    // Two followers, a heartbeat each every 2 ticks: 200 of them are some 8 of the longest timeouts.
    let enough = wires.heartbeats.load(Ordering::Relaxed) + 200;
    until(&nodes, |_| (wires.heartbeats.load(Ordering::Relaxed) >= enough).then_some(())).await;
    let status = nodes[number].status().unwrap();
    assert_eq!((status.role, status.term), (Role::Leader, term));
    for node in nodes {
        node.end();
    }
}

/// A full disk holds up what the node can promise, but does not end it, and passes by itself.
#[tokio::test]
async fn a_full_disk_is_waited_for() {
    let (nodes, _) = start_three();
    let (number, _) = until(&nodes, leader).await;
    *nodes[number].log.full.lock().unwrap() = true;
    let entry = crate::core::Proposal { context: Bytes::new(), data: Bytes::from_static(b"x") };
    let proposal = Input::Propose { group: GROUP, token: crate::core::Token(1), entry };
    nodes[number].inbox.offer_input(proposal, 1).unwrap();
    // The two others are a quorum: the entry is committed, though it is not durable here.
    let committed = until(&nodes, |statuses| {
        let status = &statuses[&number];
        (status.committed > status.durable.index).then_some(status.committed)
    });
    let committed = committed.await;
    *nodes[number].log.full.lock().unwrap() = false;
    until(&nodes, |statuses| (statuses[&number].durable.index >= committed).then_some(())).await;
    assert!(nodes[number].ended.lock().unwrap().is_empty());
    for node in nodes {
        node.end();
    }
}

/// A raft log that cannot be written ends the process: nobody knows what is durable.
#[tokio::test]
async fn a_failed_write_of_the_raft_log_is_fatal() {
    let (nodes, _) = start_three();
    let (number, _) = until(&nodes, leader).await;
    *nodes[number].log.fails.lock().unwrap() = true;
    let entry = crate::core::Proposal { context: Bytes::new(), data: Bytes::from_static(b"x") };
    let proposal = Input::Propose { group: GROUP, token: crate::core::Token(1), entry };
    nodes[number].inbox.offer_input(proposal, 1).unwrap();
    until(&nodes, |_| nodes[number].ended.lock().unwrap().first().cloned())
        .await
        .strip_prefix("E1101 ")
        .expect("the message carries its code");
    for node in nodes {
        node.end();
    }
}
