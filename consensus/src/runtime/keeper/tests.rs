//! The keeper and a disk that fails it.

use std::path::Path;
use std::sync::Mutex;

use tidelog_engine::sim_disk::{Failure, Fault, Operation, SimDisk};
use tidelog_engine::{NewIdentity, Options};
use tidelog_wire::batch::Codec;
use tidelog_wire::ids::{
    ClusterId, Generation, GroupId, Incarnation, LogId, NodeId, Partition, RaftIndex, Term, TimestampMs,
};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use super::super::clock::SystemClock;
use super::super::raft_thread::Inbox;
use super::*;
use crate::apply::{Catalogue, Machines, genesis_checkpoint};
use crate::core::{ApplyTask, Committed, EntryId};
use crate::entry::{self, Command, OpenLog};
use crate::raft_log::{SimLog, SimLogOptions};

const GROUP: GroupId = GroupId(1);
const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

fn committed(index: u64, command: Command) -> Committed {
    let (context, data) = entry::encode(command);
    let mut entry = raft::eraftpb::Entry { index, term: 2, ..raft::eraftpb::Entry::default() };
    entry.context = context.into();
    entry.data = data;
    Committed { index: RaftIndex(index), term: Term(2), token: None, entry }
}

/// A node's engine on `disk`, with one log that holds a batch nobody has synced yet.
fn machines_with_a_batch(disk: &SimDisk) -> (Arc<Engine>, Machines) {
    let identity = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
    Engine::format(&disk.storage(), Path::new("/data"), identity).unwrap();
    let options = Options { reserve_bytes: 0, ..Options::consensus(TimestampMs(0)) };
    let engine = Engine::open(disk.storage(), Path::new("/data"), options).unwrap();
    for group in [GroupId::META, GROUP] {
        engine.write_checkpoint(&genesis_checkpoint(group, &[NodeId(0)], &[GROUP])).unwrap();
    }
    let mut machines = Machines::open(Arc::clone(&engine), &[GroupId::META, GROUP]).unwrap();
    let mut batch = BatchBuilder::new(Codec::None, BuilderLimits::default());
    let pushed = batch.push(TimestampMs(1), None, Some(b"paid"), &[]).unwrap();
    assert_eq!(pushed, Pushed::Taken);
    let batch = batch.build(None).unwrap().into_bytes();
    let open = Command::OpenLogs { logs: vec![OpenLog { log: LOG, segment_bytes: 1 << 20, epoch_base: 0 }] };
    let append = Command::Append { log: LOG, append_time: TimestampMs(1), batch };
    let entries = vec![committed(2, open), committed(3, append)];
    assert!(machines.apply(ApplyTask { group: GROUP, entries }).stopped.is_none());
    (engine, machines)
}

/// The story: the error of a failed sync got a variant of its own, the keeper went on looking for the old
/// one, and a node whose disk had lied would have gone on.
#[tokio::test]
async fn a_failed_sync_of_a_segment_ends_the_process() {
    let disk = SimDisk::new(1);
    let (engine, machines) = machines_with_a_batch(&disk);
    let job = machines.checkpoint_job(GROUP, EntryId { index: RaftIndex(3), term: Term(2) }).unwrap();
    let storage = disk.storage();
    let raft_log: Arc<dyn RaftLog> =
        Arc::new(SimLog::open(storage, Path::new("/data/raft"), SimLogOptions::default()).unwrap());
    let ended: Arc<Mutex<Vec<String>>> = Arc::default();
    let says = Arc::clone(&ended);
    let mailbox: Arc<KeeperBox> = Arc::new(Mailbox::new(0, 0));
    let inbox = Arc::new(Inbox::new());
    let runtime = tokio::runtime::Handle::current();
    let fatal = Fatal::new(move |message| says.lock().unwrap().push(message.to_owned()));
    let keeper = Keeper {
        mailbox: Arc::clone(&mailbox),
        apply: Arc::new(Mailbox::new(0, 0)),
        raft_log: Arc::clone(&raft_log),
        engine: Arc::clone(&engine),
        board: Arc::new(Board::new(&[GROUP], Arc::new(Catalogue::genesis(vec![GROUP], 1)), Vec::new())),
        door: SnapshotDoor::new(engine, raft_log, inbox, runtime, fatal.clone()),
        metrics: Arc::new(NodeMetrics::default()),
        clock: Arc::new(SystemClock::new()),
        fatal,
    };

    disk.inject(Fault::next(Operation::Sync, Failure::Io).on_path(".seg"));
    mailbox.push(KeeperInput::Checkpoint(Box::new(job)));
    std::thread::spawn(move || keeper.run()).join().unwrap();

    let ended = ended.lock().unwrap();
    assert!(matches!(ended.as_slice(), [message] if message.starts_with("E1270 ")), "{ended:?}");
}
