//! The world that faults strike: one disk, one data directory, batches that say which they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::segment;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::{Engine, NewIdentity, OpenError, Options};
use tidelog_wire::batch::{Batch, Codec};
use tidelog_wire::ids::{ClusterId, Generation, Incarnation, LogId, NodeId, Offset, Partition, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

pub(crate) const CLUSTER: ClusterId = ClusterId(1);
/// The log whose files the faults strike.
pub(crate) const VICTIM: LogId = LogId { generation: Generation(7), partition: Partition(3) };
/// A log beside it, which must not notice.
pub(crate) const NEIGHBOUR: LogId = LogId { generation: Generation(9), partition: Partition(0) };
pub(crate) const CONFIG: LogConfig = LogConfig { segment_bytes: 4 << 10, epoch_base: 0 };
pub(crate) const NOW: TimestampMs = TimestampMs(1_000);
pub(crate) const RESERVE_BYTES: u64 = 64 << 10;

pub(crate) fn data() -> &'static Path {
    Path::new("/data")
}

pub(crate) fn log_dir(log: LogId) -> PathBuf {
    data().join("logs").join(log.generation.to_string()).join(log.partition.to_string())
}

pub(crate) fn segment_path(log: LogId, base: u64) -> PathBuf {
    log_dir(log).join(segment::file_name(Offset(base)))
}

pub(crate) fn new_identity() -> NewIdentity {
    NewIdentity { cluster: CLUSTER, node: NodeId(0), incarnation: Incarnation(2) }
}

pub(crate) fn formatted() -> SimDisk {
    let disk = SimDisk::new(7);
    Engine::format(&disk.storage(), data(), new_identity()).unwrap();
    disk
}

/// Opens the engine of a node in the mode of `options`, with a reserve that is small.
pub(crate) fn try_engine(disk: &SimDisk, options: Options) -> Result<Arc<Engine>, OpenError> {
    Engine::open(disk.storage(), data(), Options { reserve_bytes: RESERVE_BYTES, ..options })
}

/// Batch `number`: one to three records that say so, about 500 bytes.
pub(crate) fn batch(number: u64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for record in 0..=number % 3 {
        let mut value = format!("batch {number} record {record}.").into_bytes();
        value.resize(if number.is_multiple_of(3) { 500 } else { 200 }, b'x');
        let time = TimestampMs(i64::try_from(1_000 * number).unwrap());
        assert_eq!(builder.push(time, None, Some(&value), &[]), Ok(Pushed::Taken));
    }
    builder.build(None).unwrap()
}
