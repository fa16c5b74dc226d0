//! The one place that looks at a clock, and the one that waits: measuring is what benchmarks are for.

#![expect(clippy::disallowed_methods, reason = "owns the clocks of the benchmarks")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidelog_wire::ids::TimestampMs;

/// Runs `work` and tells how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    let done = work();
    (done, begun.elapsed())
}

/// Lets the machine settle for so long.
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Now, in milliseconds since 1970.
pub(crate) fn wall() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A stretch of time that is over at some point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    begun: Instant,
    length: Duration,
}

impl Limit {
    /// Begins now.
    pub(crate) fn of(length: Duration) -> Self {
        Self { begun: Instant::now(), length }
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.begun.elapsed() >= self.length
    }
}
