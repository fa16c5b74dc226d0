//! Many writers: each waits for each of its own appends, all of 1 KiB records.
//!
//! The cases take turns in slices of time, several each, so that they meet the same states of the disk. Appends and syncs
//! of all slices of a case are added up.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_wire::batch::Batch;

use super::others::{OkayWal, RaftEngine};
use super::ours;
use crate::clock::{self, Limit};
use crate::error::{BenchError, Doing as _};
use crate::payload::Payload;
use crate::report::Shared;
use crate::storage::CountedStorage;

/// Turns of each case.
const TURNS: u32 = 6;
/// Most writers at once.
const WRITERS_MAX: usize = 64;

/// What `writers` threads append to in a case.
enum To<'a> {
    OneLog(&'a SharedLog),
    LogEach(&'a [SharedLog]),
    RaftEngine(&'a RaftEngine),
    OkayWal(&'a OkayWal),
}

struct Case<'a> {
    name: &'static str,
    to: To<'a>,
    writers: usize,
}

/// Measures all cases for about `length` each. Data goes to `folder`.
pub(super) fn measure(folder: &Path, payload: &Payload, length: Duration) -> Result<Vec<Shared>, BenchError> {
    let storage = CountedStorage::default();
    let logs = |name: &str, count| {
        ours::embedded(&folder.join(name), Arc::new(storage.clone()), LogConfig::default(), count)
    };
    let (one, each) = (logs("many-one", 1)?, logs("many-each", 64)?);
    let one = one.first().ok_or("there is none").doing("open a log")?;
    let bytes = payload.batch.bytes();
    let raft_engine = RaftEngine::open(&folder.join("many-raft-engine"), bytes.clone(), WRITERS_MAX)?;
    let okaywal = OkayWal::open(&folder.join("many-okaywal"), bytes.clone())?;
    let case = |name, to, writers| Case { name, to, writers };
    let cases = [
        case("engine, one log", To::OneLog(one), 1),
        case("engine, one log", To::OneLog(one), 4),
        case("engine, one log", To::OneLog(one), 16),
        case("engine, one log", To::OneLog(one), 64),
        case("engine, 64 logs", To::LogEach(&each), 64),
        case("raft-engine", To::RaftEngine(&raft_engine), 1),
        case("raft-engine", To::RaftEngine(&raft_engine), 64),
        case("okaywal", To::OkayWal(&okaywal), 1),
        case("okaywal", To::OkayWal(&okaywal), 64),
    ];
    let mut sums: Vec<Shared> = cases.iter().map(|case| Shared::none(case.name, case.writers)).collect();
    for _ in 0..TURNS {
        for (case, sum) in cases.iter().zip(&mut sums) {
            let before = storage.calls();
            let (appends, took) = case.turn(&payload.batch, length / TURNS)?;
            let counted = matches!(case.to, To::OneLog(_) | To::LogEach(_));
            sum.add(appends, took, counted.then(|| storage.calls().since(before).syncs));
        }
        raft_engine.compact()?;
    }
    Shared::compare(&mut sums);
    Ok(sums)
}

impl Case<'_> {
    /// All writers append for some time; how often they did, and how long it took until the last was done.
    fn turn(&self, batch: &Batch, length: Duration) -> Result<(u64, Duration), BenchError> {
        let limit = Limit::of(length);
        let work = |writer: usize| {
            let mut appends = 0_u64;
            while !limit.is_over() {
                self.append(writer, batch)?;
                appends += 1;
            }
            Ok::<_, BenchError>(appends)
        };
        let (ended, took) = clock::timed(|| {
            std::thread::scope(|scope| {
                let work = &work;
                let threads: Vec<_> =
                    (0..self.writers).map(|writer| scope.spawn(move || work(writer))).collect();
                threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
            })
        });
        let mut appends = 0;
        for thread in ended {
            appends += thread.map_err(|_| "a thread panicked").doing("append")??;
        }
        Ok((appends, took))
    }

    fn append(&self, writer: usize, batch: &Batch) -> Result<(), BenchError> {
        let log = match self.to {
            To::RaftEngine(engine) => return engine.append(writer),
            To::OkayWal(log) => return log.append(),
            To::OneLog(log) => log,
            To::LogEach(logs) => logs.get(writer).ok_or("it has no log").doing("let a writer append")?,
        };
        log.append_durable(batch, clock::wall()).doing("append")?;
        Ok(())
    }
}
