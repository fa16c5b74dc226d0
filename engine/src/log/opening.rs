//! Opening logs: one, or many at once within a bound, and told as it goes.
//!
//! A log is reserved, recovered and given its writer; of two that open it at once one is told so.
//!
//! Logs share nothing but the engine, so each thread takes the next one that nobody has and recovers it
//! by itself. What an opening waits for is the disk: more threads than processors pay off as long as the
//! device takes several requests. With one thread everything happens on the caller's, in the order
//! given, which makes a simulated start repeatable.
//!
//! How far it has come is counted here, whoever opens. A [`Progress`] is told after each log, and within a
//! long tail every [`TELL_EVERY_BYTES`]; never under a lock of the engine, so it may ask the engine back.
//!
//! Not here: what recovery decides about a log (`crate::log::recovery`).

use std::fmt;

use tidelog_wire::ids::LogId;

use crate::checkpoint::{LogConfig, LogState};
use crate::embedded::{EmbeddedError, SharedLog};
use crate::engine::Engine;
use crate::fields::wide;
use crate::locks::atomic::{AtomicU64, AtomicUsize, Ordering};
use crate::locks::{Arc, OnceLock, scope, spawn_in};
use crate::log::lives::Reservation;
use crate::log::recovery::{Recovered, recover_embedded, recover_under_consensus};
use crate::log::shared::{LogShared, View};
use crate::log::{LogError, LogRecovery, LogWriter};

/// Threads that open logs at once, unless told otherwise.
pub const OPEN_THREADS_DEFAULT: usize = 8;

/// Most threads that open logs at once, whatever is asked for.
pub const OPEN_THREADS_MAX: usize = 64;

/// Bytes walked until a [`Progress`] is told again within one log.
const TELL_EVERY_BYTES: u64 = 16 << 20;

/// How far opening has come. Counts only rise; the totals rise when more logs are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenProgress {
    /// Logs that were opened, or could not be.
    pub logs_done: u64,
    /// Logs that were asked for.
    pub logs: u64,
    /// Segments of the logs opened. Those below the mark cost a directory entry each.
    pub segments: u64,
    /// Bytes of tails that were walked and verified.
    pub bytes_walked: u64,
}

/// Whoever wants to know how far opening has come.
pub trait Progress: fmt::Debug + Send + Sync + 'static {
    /// Called on the threads that open, possibly several at once, and never under a lock of the engine.
    /// Counts of one call may be a little older than those of the call before. Opening waits for it.
    fn opening(&self, at: OpenProgress);
}

/// A log to open under consensus: see [`Engine::open_log`].
#[derive(Clone, Copy, Debug)]
pub struct LogToOpen<'a> {
    /// Which.
    pub log: LogId,
    /// What was fixed when it was made.
    pub config: LogConfig,
    /// What the checkpoint says of it. `None`: from offset 0.
    pub state: Option<&'a LogState>,
}

/// What opening a log under consensus comes to.
pub type OpenedLog = Result<(LogWriter, LogRecovery), LogError>;

/// What opening an embedded log comes to.
pub type OpenedSharedLog = Result<(SharedLog, LogRecovery), EmbeddedError>;

/// Counts what opening does, and tells.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    logs_done: AtomicU64,
    logs: AtomicU64,
    segments: AtomicU64,
    bytes_walked: AtomicU64,
    listener: Option<Arc<dyn Progress>>,
}

impl Tally {
    pub(crate) fn new(listener: Option<Arc<dyn Progress>>) -> Self {
        Self { listener, ..Self::default() }
    }

    pub(crate) fn read(&self) -> OpenProgress {
        OpenProgress {
            logs_done: self.logs_done.load(Ordering::Relaxed),
            logs: self.logs.load(Ordering::Relaxed),
            segments: self.segments.load(Ordering::Relaxed),
            bytes_walked: self.bytes_walked.load(Ordering::Relaxed),
        }
    }

    /// So many more logs are to be opened.
    pub(crate) fn asked_for(&self, logs: usize) {
        self.logs.fetch_add(wide(logs), Ordering::Relaxed);
    }

    /// A log of so many segments was opened, or could not be.
    pub(crate) fn log_done(&self, segments: usize) {
        self.segments.fetch_add(wide(segments), Ordering::Relaxed);
        self.logs_done.fetch_add(1, Ordering::Relaxed);
        self.tell();
    }

    /// Bytes of a tail were verified.
    pub(crate) fn walked(&self, bytes: u64) {
        let before = self.bytes_walked.fetch_add(bytes, Ordering::Relaxed);
        if before / TELL_EVERY_BYTES != before.saturating_add(bytes) / TELL_EVERY_BYTES {
            self.tell();
        }
    }

    fn tell(&self) {
        if let Some(listener) = &self.listener {
            listener.opening(self.read());
        }
    }
}

impl Engine {
    /// Opens a log at the state that a checkpoint says. `None`: from offset 0.
    ///
    /// Valid frames above the state stay on disk and are compared when their entries are applied
    /// again; the log's end is that of the state until then. What is kept is durable on return.
    ///
    /// # Errors
    /// [`LogError`]: the log is not open. Bytes were cut only if a durable copy is in quarantine.
    pub fn open_log(&self, log: LogId, config: LogConfig, state: Option<&LogState>) -> OpenedLog {
        self.core.tally.asked_for(1);
        self.open_under_consensus(LogToOpen { log, config, state })
    }

    /// Opens logs under consensus as [`Engine::open_log`] does, [`Options::open_threads`](crate::Options)
    /// of them at once. Answers each, in the order given; one that does not open keeps none of the others
    /// from opening.
    ///
    /// # Panics
    /// If one of the threads panicked: a bug in the engine.
    pub fn open_logs(&self, logs: &[LogToOpen<'_>]) -> Vec<OpenedLog> {
        self.core.tally.asked_for(logs.len());
        in_parallel(self.core.open_threads, logs, |log| self.open_under_consensus(*log))
    }

    /// Opens embedded logs as [`Engine::open_shared`] does, several at once as [`Engine::open_logs`] does.
    ///
    /// # Panics
    /// As both.
    pub fn open_shared_logs(self: &Arc<Self>, logs: &[(LogId, LogConfig)]) -> Vec<OpenedSharedLog> {
        self.core.tally.asked_for(logs.len());
        in_parallel(self.core.open_threads, logs, |(log, config)| self.open_shared_counted(*log, *config))
    }

    fn open_under_consensus(&self, LogToOpen { log, config, state }: LogToOpen<'_>) -> OpenedLog {
        let state = state.cloned().unwrap_or_default();
        self.start_log(log, config, || recover_under_consensus(&self.core, log, &state))
    }

    /// Opens an embedded log; the frames themselves say how far it was durable.
    pub(crate) fn open_embedded(
        &self,
        log: LogId,
        config: LogConfig,
        known: impl FnOnce() -> Result<LogState, LogError>,
    ) -> OpenedLog {
        self.start_log(log, config, || recover_embedded(&self.core, log, &known()?))
    }

    fn start_log(
        &self,
        log: LogId,
        config: LogConfig,
        recover: impl FnOnce() -> Result<Recovered, LogError>,
    ) -> OpenedLog {
        let opened = self.reserve(log, config).and_then(|reserved| {
            self.core.keep.opened(log);
            let started = self.give_writer(log, config, recover()?);
            drop(reserved);
            Ok(started)
        });
        self.core.tally.log_done(opened.as_ref().map_or(0, |(writer, _)| writer.segments()));
        opened
    }

    /// Of two that open a log at once one is told that it is open already: both would write to it.
    fn reserve(&self, log: LogId, config: LogConfig) -> Result<Reservation<'_>, LogError> {
        let (min, max) = (LogConfig::SEGMENT_BYTES_MIN, LogConfig::SEGMENT_BYTES_MAX);
        if !(min..=max).contains(&config.segment_bytes) {
            return Err(LogError::SegmentBytes { log, found: config.segment_bytes, min, max });
        }
        self.core.lives.reserve(log).ok_or(LogError::AlreadyOpen { log })
    }

    fn give_writer(&self, log: LogId, config: LogConfig, recovered: Recovered) -> (LogWriter, LogRecovery) {
        let dir_made = !recovered.segments.is_empty();
        let view = View {
            start: recovered.start,
            end: recovered.end,
            durable_end: recovered.end,
            chain: recovered.chain,
            segments: recovered.segments,
            ended: None,
        };
        let shared = Arc::new(LogShared::new(Arc::clone(&self.core), log, view, recovered.damage));
        if recovered.report.read_only.is_some() {
            shared.fence();
        }
        self.core.lives.opened(&shared);
        if !recovered.trimmed.is_empty() {
            self.core.keep.doom(log, &recovered.trimmed);
            self.core.unlink_unnamed_of(log);
        }
        let writer = LogWriter {
            shared,
            config,
            active: recovered.active,
            epochs: recovered.epochs,
            append_time: recovered.append_time,
            replay: recovered.replay,
            dir_made,
            planned: Vec::new(),
            done: Vec::new(),
        };
        self.core.log_recovered(&recovered.report);
        (writer, recovered.report)
    }

    /// How far the opening of logs has come.
    #[must_use]
    pub fn open_progress(&self) -> OpenProgress {
        self.core.tally.read()
    }
}

/// Does `work` for each of `items`, on `threads` threads of which the caller's is one. Results come in
/// the order of the items. If the system gives fewer threads, fewer do the same work.
pub(crate) fn in_parallel<T: Sync, R: Send + Sync>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = threads.clamp(1, OPEN_THREADS_MAX).min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let results: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
    let take_turns = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let (Some(item), Some(result)) = (items.get(at), results.get(at)) else { return };
            assert!(result.set(work(item)).is_ok(), "each item is taken once");
        }
    };
    scope(|scope| {
        for number in 1..threads {
            if let Err(error) = spawn_in(scope, format!("tidelog-open-{number}"), take_turns) {
                tracing::warn!(%error, "no more threads to open logs with; going on with {number}");
                break;
            }
        }
        take_turns();
    });
    results.into_iter().filter_map(OnceLock::into_inner).collect()
}

#[cfg(all(test, not(feature = "interleave")))]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items_however_many_threads() {
        let items: Vec<u64> = (0..1000).collect();
        for threads in [0, 1, 2, 7, 1000] {
            assert_eq!(in_parallel(threads, &items, |item| item + 1), (1..=1000).collect::<Vec<u64>>());
        }
        assert_eq!(in_parallel::<u64, u64>(4, &[], |item| *item), Vec::<u64>::new());
    }
}
