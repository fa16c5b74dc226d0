//! The one place that looks at the wall clock: for the times of records that were given none.

#![expect(clippy::disallowed_methods, reason = "owns the wall clock of the client")]

use std::time::{SystemTime, UNIX_EPOCH};

use tidelog_wire::ids::TimestampMs;

/// Now, in milliseconds since 1970. Before 1970 it is 1970.
pub(crate) fn now() -> TimestampMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
