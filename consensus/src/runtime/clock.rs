//! Time, as the runtime sees it. The one file of this crate that asks the system.
#![expect(clippy::disallowed_methods, reason = "this is the file that owns the clock")]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tidelog_wire::ids::TimestampMs;

/// Where time comes from.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Time since some moment in the past; never falls.
    fn now(&self) -> Duration;
    /// The time of day, which may jump.
    fn wall(&self) -> TimestampMs;
}

/// The clock, lent to the engine, which has none.
#[derive(Debug)]
pub(super) struct EngineClock(pub(super) Arc<dyn Clock>);

impl tidelog_engine::clock::Clock for EngineClock {
    fn micros(&self) -> u64 {
        u64::try_from(self.0.now().as_micros()).unwrap_or(u64::MAX)
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wall(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
