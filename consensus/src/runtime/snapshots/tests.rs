//! The door and a disk that fails it.

use std::io::Error;
use std::path::Path;

use tidelog_engine::sim_disk::SimDisk;

use super::super::one_log::{GROUP, machines_with_a_batch};
use super::*;
use crate::raft_log::{SimLog, SimLogOptions};

/// After a failed sync of a staged or adopted file the kernel may call the lost bytes clean: a second try
/// would switch to a snapshot that is not on disk. Whatever else goes wrong is tried again.
#[tokio::test]
async fn a_failed_sync_ends_the_process_and_nothing_else_about_a_snapshot_does() {
    let disk = SimDisk::new(1);
    let (engine, _machines) = machines_with_a_batch(&disk);
    let raft_log: Arc<dyn RaftLog> =
        Arc::new(SimLog::open(disk.storage(), Path::new("/data/raft"), SimLogOptions::default()).unwrap());
    let ended: Arc<Mutex<Vec<String>>> = Arc::default();
    let says = Arc::clone(&ended);
    let fatal = Fatal::new(move |message| says.lock().unwrap().push(message.to_owned()));
    let wiring = DoorWiring {
        inbox: Arc::new(Inbox::new()),
        apply: Arc::new(ApplyBox::new()),
        metrics: Arc::default(),
        runtime: Handle::current(),
        fatal,
    };
    let door = SnapshotDoor::new(engine, raft_log, wiring);

    door.told(&SnapshotError::NoRoom { group: GROUP, needed: 10, free: 1 });
    let path = PathBuf::from("/data/staging/1");
    let unreadable = SnapshotError::Io { path: path.clone(), action: "read", source: Error::other("gone") };
    door.told(&unreadable);
    assert!(ended.lock().unwrap().is_empty());

    let told = door.told(&SnapshotError::SyncFailed { path, source: Error::other("gone") });
    assert!(told.starts_with("E1239 /data/staging/1"), "{told}");
    assert_eq!(*ended.lock().unwrap(), [told]);
}
