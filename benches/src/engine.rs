//! `engine`: a durable append to the embedded engine, beside writing and syncing the same bytes.
//!
//! - One caller, one append at a time, each durable before the next.
//! - The append under consensus, which is not synced: what apply costs, since there the raft log is the durable copy.
//! - Many threads that append at once: how many appends one sync serves decides how many there are a second.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{AppendStamp, LogWriter};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, Options as EngineOptions};
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{
    ClusterId, Generation, Incarnation, LeaderEpoch, LogId, NodeId, Partition, RaftIndex,
};

use crate::clock::{self, Limit};
use crate::error::{BenchError, Doing as _};
use crate::floors::{SYNC, SyncFloor};
use crate::options::Options;
use crate::payload::{Payload, SIZES};
use crate::report::{Report, Shared, Subject};
use crate::rounds::{Operation, Stop, measure};

/// Name of the operation in reports.
const APPEND: &str = "engine append + sync";
/// Name of the operation in reports.
const APPLY: &str = "engine append, not synced";
/// How many threads share syncs.
const THREADS: [u64; 3] = [4, 16, 64];

const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

/// Measures both for every size of batch. Data goes to a folder of its own below `folder`, which is removed again.
///
/// # Errors
/// [`BenchError`]; nothing is measured then.
pub fn run(options: &Options, folder: &Path) -> Result<Report, BenchError> {
    let stop = Stop::default();
    let mut report = Report::new("engine");
    for size in SIZES {
        let payload = Payload::of(size)?;
        let folder =
            tempfile::Builder::new().prefix("bench-engine-").tempdir_in(folder).doing("make a folder")?;
        let mut floor = SyncFloor::prepare(folder.path(), payload.batch.bytes().clone())?;
        let mut append = Append::open(&folder.path().join("embedded"), payload.batch.clone())?;
        let mut apply = Apply::open(&folder.path().join("applied"), payload.batch.clone())?;
        let measured = measure(&mut [&mut floor, &mut append, &mut apply], options, &stop)?;
        let subjects = [Subject { name: APPEND, floors: &[SYNC] }, Subject { name: APPLY, floors: &[] }];
        let section = report.add(size, payload.batch.bytes().len(), &measured, &[SYNC], &subjects)?;
        for threads in THREADS {
            section.shared.push(append.shared(threads, options.shared_time())?);
        }
    }
    Ok(report)
}

/// Appends the same batch again and again.
struct Append {
    log: SharedLog,
    batch: Batch,
}

impl Append {
    fn open(dir: &Path, batch: Batch) -> Result<Self, BenchError> {
        let engine = engine(dir, EngineOptions::embedded(clock::wall()))?;
        let (log, _recovery) = engine.open_shared(LOG, LogConfig::default()).doing("open a log")?;
        Ok(Self { log, batch })
    }

    /// Appends from `threads` threads at once for some time, each thread waiting for each of its own.
    fn shared(&self, threads: u64, length: Duration) -> Result<Shared, BenchError> {
        let limit = Limit::of(length);
        let work = || {
            let mut appends = 0_u64;
            while !limit.is_over() {
                self.log.append_durable(&self.batch, clock::wall()).doing("append")?;
                appends += 1;
            }
            Ok::<_, BenchError>(appends)
        };
        let (ended, took) = clock::timed(|| {
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                workers.into_iter().map(|worker| worker.join()).collect::<Vec<_>>()
            })
        });
        let mut appends = 0;
        for thread in ended {
            appends += thread.map_err(|_| "a thread panicked").doing("append")??;
        }
        Ok(Shared::of(threads, appends, took))
    }
}

fn engine(dir: &Path, options: EngineOptions) -> Result<Arc<Engine>, BenchError> {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
    Engine::format(&storage, dir, new).doing("format a data directory")?;
    Engine::open(storage, dir, options).doing("open the engine")
}

/// Appends the same batch again and again as a replica does, without a sync.
struct Apply {
    writer: LogWriter,
    batch: Batch,
    next: u64,
}

impl Apply {
    fn open(dir: &Path, batch: Batch) -> Result<Self, BenchError> {
        let engine = engine(dir, EngineOptions::consensus(clock::wall()))?;
        let (writer, _recovery) = engine.open_log(LOG, LogConfig::default(), None).doing("open a log")?;
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
