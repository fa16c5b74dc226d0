//! The one place of the soak that looks at a clock and waits.

#![expect(clippy::disallowed_methods, reason = "owns the clock of the soak")]

use std::time::{Duration, Instant};

use tidelog_wire::ids::TimestampMs;

/// When something began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun(Instant);

impl Begun {
    /// Now.
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The same as a time to hand to the engine, which has no clock.
    pub(crate) fn time(self) -> TimestampMs {
        TimestampMs(i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// Lets the others work for so long.
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}
