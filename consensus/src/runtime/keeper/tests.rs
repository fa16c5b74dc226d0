//! The keeper and a disk that fails it.

use std::path::Path;
use std::sync::Mutex;

use tidelog_engine::sim_disk::{Failure, Fault, Operation, SimDisk};
use tidelog_wire::ids::{RaftIndex, Term};

use super::super::clock::SystemClock;
use super::super::one_log::{GROUP, machines_with_a_batch};
use super::super::raft_thread::Inbox;
use super::super::snapshots::DoorWiring;
use super::*;
use crate::apply::Catalogue;
use crate::core::EntryId;
use crate::raft_log::{SimLog, SimLogOptions};

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
    let mailbox: Arc<KeeperBox> = Arc::new(Mailbox::new());
    let fatal = Fatal::new(move |message| says.lock().unwrap().push(message.to_owned()));
    let apply = Arc::new(ApplyBox::new());
    let wiring = DoorWiring {
        inbox: Arc::new(Inbox::new()),
        apply: Arc::clone(&apply),
        metrics: Arc::default(),
        runtime: tokio::runtime::Handle::current(),
        fatal: fatal.clone(),
    };
    let keeper = Keeper {
        mailbox: Arc::clone(&mailbox),
        apply,
        raft_log: Arc::clone(&raft_log),
        engine: Arc::clone(&engine),
        board: Arc::new(Board::new(
            Arc::new(Catalogue::genesis(&[GROUP], &[tidelog_wire::ids::NodeId(0)])),
            Vec::new(),
        )),
        door: SnapshotDoor::new(engine, raft_log, wiring),
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
