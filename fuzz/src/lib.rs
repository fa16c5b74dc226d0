//! What several fuzz targets share: valid data directories, damage to them, and what must be true after recovery.
//!
//! 1. [`work`] makes a directory by the engine itself, on the simulated disk, and keeps a model of what was said.
//! 2. [`damage`] harms it: as a disk does (flips, zeroed sectors, cuts, files gone or doubled), or as no disk can, by
//!    changing a field and putting the checksums right ([`mend`]), so that the code behind a checksum is reached.
//! 3. [`check`] opens it and demands: no panic; every batch that is read verifies, and is one that was written (unless
//!    checksums were forged); offsets are dense; appends go on; opening again, after a power cut too, gives the same.
//!    A log begins where it was trimmed to and ends where its entries say, or not below what was promised.

pub mod check;
pub mod damage;
pub mod mend;
pub mod work;

use std::path::Path;
use std::sync::Arc;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{OpenMode, Position, Storage, parent};
use tidelog_engine::{Engine, Mode, NewIdentity, OpenError, Options};
use tidelog_wire::ids::{ClusterId, Generation, Incarnation, LogId, NodeId, Partition, TimestampMs};

/// The cluster of every directory here.
pub const CLUSTER: ClusterId = ClusterId(1);
/// The logs of every directory here.
pub const LOGS: [LogId; 2] = [
    LogId { generation: Generation(7), partition: Partition(3) },
    LogId { generation: Generation(8), partition: Partition(0) },
];
/// Small segments, so that there are many.
pub const CONFIG: LogConfig = LogConfig { segment_bytes: LogConfig::SEGMENT_BYTES_MIN, epoch_base: 0 };

/// The data directory.
pub fn data() -> &'static Path {
    Path::new("/data")
}

/// A disk with a formatted directory.
pub fn formatted() -> SimDisk {
    let disk = SimDisk::new(1);
    let new = NewIdentity { cluster: CLUSTER, node: NodeId(0), incarnation: Incarnation(2) };
    Engine::format(&disk.storage(), data(), new).expect("an empty directory is formatted");
    disk
}

/// Opens the engine.
pub fn open(disk: &SimDisk, mode: Mode) -> Result<Arc<Engine>, OpenError> {
    let options = Options { mode, reserve_bytes: 0, ..Options::consensus(TimestampMs(1_000)) };
    Engine::open(disk.storage(), data(), options)
}

/// The bytes of a file.
pub fn read(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    file.read_at(Position::ZERO, &mut bytes).ok()?;
    Some(bytes)
}

/// Makes the file at `path` hold `bytes`, durably, whatever was there. Does nothing if no file can be there.
pub fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = match disk.open(path, OpenMode::ReadWrite) {
        Ok(file) => file,
        Err(_) => match disk.create_dir(parent(path)).and_then(|()| disk.open(path, OpenMode::CreateNew)) {
            Ok(file) => file,
            Err(_) => return,
        },
    };
    file.truncate(0).and_then(|()| file.write_at(Position::ZERO, &[bytes])).expect("the disk has room");
}

/// Makes everything durable, so that a crash takes back nothing of what was done to the directory.
pub fn settle(disk: &SimDisk) {
    for path in disk.files() {
        disk.open(&path, OpenMode::ReadWrite).and_then(|file| file.sync()).expect("a file of the list");
    }
    let mut open = vec![Path::new("/").to_path_buf()];
    while let Some(dir) = open.pop() {
        disk.sync_dir(&dir).expect("a directory that was listed");
        for entry in disk.list(&dir).expect("a directory that was listed") {
            if entry.kind == tidelog_engine::storage::EntryKind::Directory {
                open.push(dir.join(entry.name));
            }
        }
    }
}
