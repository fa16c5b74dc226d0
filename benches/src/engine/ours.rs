//! The embedded engine and the engine under consensus, each append on its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{AppendStamp, LogWriter};
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, Options as EngineOptions};
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{
    ClusterId, Generation, Incarnation, LeaderEpoch, LogId, NodeId, Partition, RaftIndex,
};

use crate::clock;
use crate::error::{BenchError, Doing as _};
use crate::rounds::Operation;
use crate::storage::{Calls, CountedStorage};

/// Name of the operation in reports.
pub(super) const APPEND: &str = "engine append + sync";
/// Name of the operation in reports.
pub(super) const APPLY: &str = "engine append, not synced";

/// The log of a partition.
pub(super) const fn log_id(partition: u32) -> LogId {
    LogId { generation: Generation(1), partition: Partition(partition) }
}

/// Formats a data directory in `dir` and opens it.
pub(super) fn engine(
    dir: &Path,
    storage: Arc<dyn Storage>,
    options: EngineOptions,
) -> Result<Arc<Engine>, BenchError> {
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
    Engine::format(&storage, dir, new).doing("format a data directory")?;
    Engine::open(storage, dir, options).doing("open the engine")
}

/// Opens `logs` embedded logs in one new engine.
pub(super) fn embedded(
    dir: &Path,
    storage: Arc<dyn Storage>,
    config: LogConfig,
    logs: u32,
) -> Result<Vec<SharedLog>, BenchError> {
    let engine = engine(dir, storage, EngineOptions::embedded(clock::wall()))?;
    let open = |partition| {
        let (log, _recovery) = engine.open_shared(log_id(partition), config).doing("open a log")?;
        Ok(log)
    };
    (0..logs).map(open).collect()
}

/// Appends the same batch again and again, each durable before the next.
pub(super) struct Append {
    log: SharedLog,
    batch: Batch,
    storage: CountedStorage,
}

impl Append {
    pub(super) fn open(dir: &Path, batch: Batch) -> Result<Self, BenchError> {
        let storage = CountedStorage::default();
        let logs = embedded(dir, Arc::new(storage.clone()), LogConfig::default(), 1)?;
        let log = logs.into_iter().next().ok_or("there is none").doing("open a log")?;
        Ok(Self { log, batch, storage })
    }

    /// What `count` appends ask of the disk and of the allocator.
    pub(super) fn calls_of(&self, count: u64) -> Result<Calls, BenchError> {
        let before = self.storage.calls();
        for _ in 0..count {
            self.log.append_durable(&self.batch, clock::wall()).doing("append")?;
        }
        Ok(self.storage.calls().since(before))
    }
}

impl Operation for Append {
    fn name(&self) -> &'static str {
        APPEND
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let now = clock::wall();
        let (appended, took) = clock::timed(|| self.log.append_durable(&self.batch, now));
        appended.doing("append")?;
        Ok(took)
    }
}

/// Appends the same batch again and again as a replica does, without a sync.
pub(super) struct Apply {
    writer: LogWriter,
    batch: Batch,
    next: u64,
}

impl Apply {
    pub(super) fn open(dir: &Path, batch: Batch) -> Result<Self, BenchError> {
        let storage = Arc::new(CountedStorage::default());
        let engine = engine(dir, storage, EngineOptions::consensus(clock::wall()))?;
        let (writer, _recovery) =
            engine.open_log(log_id(0), LogConfig::default(), None).doing("open a log")?;
        Ok(Self { writer, batch, next: 1 })
    }
}

impl Operation for Apply {
    fn name(&self) -> &'static str {
        APPLY
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let stamp = AppendStamp {
            raft_index: RaftIndex(self.next),
            append_time: clock::wall(),
            leader_epoch: LeaderEpoch(1),
        };
        self.next += 1;
        let (appended, took) = clock::timed(|| self.writer.append(&self.batch, stamp));
        appended.doing("append")?;
        Ok(took)
    }
}
