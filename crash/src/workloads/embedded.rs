//! Embedded logs: appends of many sizes, rolls, marks, trims, an orderly stop, an end and a new life.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, Options};
use tidelog_wire::ids::{Generation, LeaderEpoch, LogId, Offset, Partition, TimestampMs};

use super::records::{LogPromise, batch};
use crate::scenario::{Broken, Scenario, data};

/// Small, so that making the reserve is a few operations like any other.
const RESERVE_BYTES: u64 = 4 << 10;

/// Whether a file is one of those that a start leaves as they are.
pub(super) fn is_steady(path: &Path) -> bool {
    let is_file = path.extension().is_some_and(|extension| extension != "tmp");
    is_file && (path.starts_with("/data/logs") || path.starts_with("/data/checkpoints"))
}

/// The log with this generation and partition.
pub(super) const fn log(generation: u64, partition: u32) -> LogId {
    LogId { generation: Generation(generation), partition: Partition(partition) }
}

/// One thing that a workload does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Opens or creates a log.
    Open(LogId),
    /// Appends a batch of so many records of so many bytes each, without waiting.
    Append(LogId, u32, usize),
    /// The same, and waits until it is durable.
    Durable(LogId, u32, usize),
    /// Everything appended is synced and witnessed by a mark.
    Idle(LogId),
    /// Trims to the middle of what is left.
    Trim(LogId),
    /// Trims everything away.
    Purge(LogId),
    /// Removes the log, for good.
    Remove(LogId),
    /// An orderly stop and a new start.
    Restart,
}

/// Which steps, in which order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Embedded {
    pub(super) name: &'static str,
    pub(super) steps: &'static [Step],
    pub(super) segment_bytes: u64,
    /// Recovery does not sync what it keeps (a build with the feature `defects`).
    #[cfg_attr(
        not(feature = "defects"),
        expect(dead_code, reason = "the engine has its defects in that build only")
    )]
    pub(super) skips_recovered_sync: bool,
}

/// What is promised of each log that has not been removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    logs: BTreeMap<LogId, LogPromise>,
    /// Batches sent so far, over all logs: each has a number of its own.
    sent: u64,
}

/// A running engine.
pub(super) struct Running {
    engine: Arc<Engine>,
    logs: BTreeMap<LogId, SharedLog>,
}

impl Embedded {
    /// Over segments of the smallest size.
    pub(super) const fn small(name: &'static str, steps: &'static [Step]) -> Self {
        Self { name, steps, segment_bytes: LogConfig::SEGMENT_BYTES_MIN, skips_recovered_sync: false }
    }

    fn start(&self, storage: &Arc<dyn Storage>) -> Result<Running, Broken> {
        let options = Options { reserve_bytes: RESERVE_BYTES, ..Options::embedded(TimestampMs(1)) };
        #[cfg(feature = "defects")]
        let options = Options {
            defects: tidelog_engine::Defects { skip_recovered_tail_sync: self.skips_recovered_sync },
            ..options
        };
        let engine =
            Engine::open(Arc::clone(storage), data(), options).map_err(Broken::by("open the engine"))?;
        Ok(Running { engine, logs: BTreeMap::new() })
    }

    fn open_log(&self, running: &mut Running, log: LogId) -> Result<SharedLog, Broken> {
        let config = LogConfig { segment_bytes: self.segment_bytes, epoch_base: 0 };
        let (shared, _) =
            running.engine.open_shared(log, config).map_err(Broken::by(&format!("open log {log}")))?;
        running.logs.insert(log, shared.clone());
        Ok(shared)
    }

    /// Appends one batch and tells what may be there, and then what must.
    fn append(
        running: &Running,
        promise: &mut Promise,
        (log, records, bytes, durable): (LogId, u32, usize, bool),
        tell: &dyn Fn(Promise),
    ) -> Result<(), Broken> {
        let failed = || format!("append to log {log}");
        let shared = running.logs.get(&log).ok_or_else(|| Broken(format!("log {log} is not open")))?;
        promise.sent = promise.sent.saturating_add(1);
        let batch = batch(promise.sent, records, bytes)?;
        let of_log = promise.logs.entry(log).or_default();
        let base = of_log.send(&batch, LeaderEpoch::ZERO);
        tell(promise.clone());
        let now = TimestampMs(i64::try_from(promise.sent).unwrap_or(i64::MAX));
        let appended = if durable { shared.append_durable(&batch, now) } else { shared.append(&batch, now) };
        let appended = appended.map_err(Broken::by(&failed()))?;
        if appended.base_offset != base {
            return Err(Broken(format!("{}: offset {} instead of {base}", failed(), appended.base_offset)));
        }
        if durable {
            promise.logs.entry(log).or_default().all_durable();
            tell(promise.clone());
        }
        Ok(())
    }

    fn trim(
        running: &Running,
        promise: &mut Promise,
        log: LogId,
        to: impl Fn(&LogPromise) -> Offset,
        tell: &dyn Fn(Promise),
    ) -> Result<(), Broken> {
        let shared = running.logs.get(&log).ok_or_else(|| Broken(format!("log {log} is not open")))?;
        let of_log = promise.logs.entry(log).or_default();
        let to = to(of_log);
        of_log.ask_start(to);
        tell(promise.clone());
        shared.trim(to).map_err(Broken::by(&format!("trim log {log} to {to}")))?;
        let of_log = promise.logs.entry(log).or_default();
        // Nothing is removed before everything is synced.
        of_log.all_durable();
        of_log.start_raised();
        tell(promise.clone());
        Ok(())
    }

    fn step(
        &self,
        running: &mut Running,
        promise: &mut Promise,
        step: Step,
        tell: &dyn Fn(Promise),
    ) -> Result<(), Broken> {
        match step {
            Step::Open(log) => {
                promise.logs.entry(log).or_default();
                tell(promise.clone());
                self.open_log(running, log).map(drop)
            }
            Step::Append(log, records, bytes) => {
                Self::append(running, promise, (log, records, bytes, false), tell)
            }
            Step::Durable(log, records, bytes) => {
                Self::append(running, promise, (log, records, bytes, true), tell)
            }
            Step::Idle(log) => {
                let shared =
                    running.logs.get(&log).ok_or_else(|| Broken(format!("log {log} is not open")))?;
                shared.idle().map_err(Broken::by(&format!("idle of log {log}")))?;
                promise.logs.entry(log).or_default().all_durable();
                tell(promise.clone());
                Ok(())
            }
            Step::Trim(log) => Self::trim(running, promise, log, LogPromise::middle, tell),
            Step::Purge(log) => Self::trim(running, promise, log, LogPromise::end, tell),
            Step::Remove(log) => {
                promise.logs.remove(&log);
                tell(promise.clone());
                running.logs.remove(&log);
                running.engine.remove_log(log).map_err(Broken::by(&format!("remove log {log}")))
            }
            Step::Restart => Ok(()),
        }
    }
}

impl Scenario for Embedded {
    type Promise = Promise;
    type Held = Running;

    fn name(&self) -> &'static str {
        self.name
    }

    fn work(&self, storage: &Arc<dyn Storage>, tell: &dyn Fn(Promise)) -> Result<(), Broken> {
        let mut promise = Promise::default();
        let mut running = self.start(storage)?;
        for step in self.steps {
            if matches!(step, Step::Restart) {
                for log in promise.logs.keys().copied().collect::<Vec<_>>() {
                    self.step(&mut running, &mut promise, Step::Idle(log), tell)?;
                }
                (running, promise) = self.restart(running, storage, &promise, tell)?;
            } else {
                self.step(&mut running, &mut promise, *step, tell)?;
            }
        }
        Ok(())
    }

    fn open(&self, storage: &Arc<dyn Storage>, promise: &Promise) -> Result<(Running, Promise), Broken> {
        let mut running = self.start(storage)?;
        let mut shown = Promise { logs: BTreeMap::new(), sent: promise.sent };
        for (log, of_log) in &promise.logs {
            let opened = self.open_log(&mut running, *log)?;
            shown.logs.insert(*log, of_log.check(&opened.reader())?);
        }
        Ok((running, shown))
    }

    fn go_on(
        &self,
        held: &mut Running,
        promise: &Promise,
        tell: &dyn Fn(Promise),
    ) -> Result<Promise, Broken> {
        let mut promise = promise.clone();
        for log in promise.logs.keys().copied().collect::<Vec<_>>() {
            Self::append(held, &mut promise, (log, 1, 40, false), tell)?;
            Self::append(held, &mut promise, (log, 2, 700, true), tell)?;
            let reader = held.logs.get(&log).map(SharedLog::reader);
            let reader = reader.ok_or_else(|| Broken(format!("log {log} is not open")))?;
            if let Some(of_log) = promise.logs.get(&log) {
                of_log.check(&reader)?;
            }
        }
        Ok(promise)
    }

    fn is_steady(&self, path: &Path) -> bool {
        is_steady(path)
    }
}
