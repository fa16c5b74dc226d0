//! The engine's durable append against the raw write and sync of the same bytes, taking turns.

use std::path::Path;
use std::sync::Arc;

use tidelog_benches::disk_floor::DiskFloor;
use tidelog_benches::latency::{Latency, now, print_heading, print_ratio, print_row};
use tidelog_benches::{BATCH_BYTES, Failure, batches, is_trial};
use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::AppendStamp;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{
    ClusterId, Generation, Incarnation, LeaderEpoch, LogId, NodeId, Partition, RaftIndex, TimestampMs,
};

const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };
const NOW: TimestampMs = TimestampMs(1_790_000_000_000);
/// Bytes of a frame's header, which the raw write writes too.
const FRAME_BYTES: usize = 48;

fn main() -> Result<(), Failure> {
    let operations = if is_trial() { 20 } else { 3_000 };
    for bytes in BATCH_BYTES {
        run(bytes, operations)?;
    }
    for threads in [4, 16, 64] {
        shared_sync(threads, if is_trial() { 5 } else { 400 })?;
    }
    Ok(())
}

fn run(bytes: usize, operations: usize) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let log = embedded(&dir.path().join("embedded"))?;
    let engine = engine(&dir.path().join("written"), Options::consensus(NOW))?;
    let (mut writer, _) = engine.open_log(LOG, LogConfig::default(), None)?;
    let batch = batches::batch(bytes)?;
    let mut disk = DiskFloor::new(&dir.path().join("floor"), batch.bytes().len() + FRAME_BYTES, operations)?;
    let mut floor = Latency::new("raw write + fdatasync, prefilled file")?;
    let mut durable = Latency::new("engine append + sync, durable")?;
    let mut written = Latency::new("engine append under consensus, not synced")?;
    let stamp = AppendStamp { raft_index: RaftIndex(1), append_time: NOW, leader_epoch: LeaderEpoch(1) };
    for _ in 0..operations {
        let began = now();
        disk.write()?;
        floor.since(began);
        let began = now();
        log.append_durable(&batch, NOW)?;
        durable.since(began);
        let began = now();
        writer.append(&batch, stamp)?;
        written.since(began);
    }
    print_heading(&format!("batch of {} bytes, one at a time", batch.bytes().len()));
    print_row(&floor);
    print_row(&durable);
    print_ratio(&durable, &[&floor]);
    print_row(&written);
    Ok(())
}

/// Many threads append at once, and each sync serves all that wait.
fn shared_sync(threads: usize, each: usize) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let log = embedded(&dir.path().join("embedded"))?;
    let batch = batches::batch(1 << 10)?;
    let mut all = Latency::new(format!("engine append + sync, {threads} threads"))?;
    let began = now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| appends(&log, &batch, each))).collect();
        for worker in workers {
            worker.join().map_err(|_| "a thread panicked")??;
        }
        Ok::<(), Failure>(())
    })?;
    all.since(began);
    let total = u64::try_from(threads.saturating_mul(each))?;
    let per_second = total.saturating_mul(1_000_000_000).checked_div(all.at(1.0)).unwrap_or(0);
    println!("\n{threads} threads, 1 KiB batches, each waits for its sync: {per_second} appends a second");
    Ok(())
}

fn appends(log: &SharedLog, batch: &Batch, count: usize) -> Result<(), Failure> {
    for _ in 0..count {
        log.append_durable(batch, NOW)?;
    }
    Ok(())
}

fn embedded(dir: &Path) -> Result<SharedLog, Failure> {
    Ok(engine(dir, Options::embedded(NOW))?.open_shared(LOG, LogConfig::default())?.0)
}

fn engine(dir: &Path, options: Options) -> Result<Arc<Engine>, Failure> {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
    Engine::format(&storage, dir, new)?;
    Ok(Engine::open(storage, dir, options)?)
}
