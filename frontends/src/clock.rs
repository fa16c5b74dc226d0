//! The clock of the front-ends: the one place that reads the time.
#![expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the time")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tidelog_wire::ids::TimestampMs;

/// Now, for measuring how long something takes.
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// Now, as batches are stamped. A clock set before 1970 reads as 1970: stamps never fall within a log anyway.
pub(crate) fn wall() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
