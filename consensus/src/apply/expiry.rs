//! When a log's idempotent producers are to be forgotten.
//!
//! By the log's own time: a producer that has not appended for [`EXPIRY_MS`] of it is gone for good. So nothing can
//! become due but by an append, and that is where it is looked at; a log that nobody appends to costs nothing. What is
//! due is kept until the group's leader has had it expired by an entry, since apply itself looks at no clock and
//! every replica must forget at the same entry.
//!
//! Looking costs as much as the log has producers. So the oldest append that any of them can have made last is
//! remembered, and looked up again only once that could be due. Expiring forgets an hour's worth at once.

use tidelog_engine::producers::ProducerTable;
use tidelog_wire::ids::TimestampMs;

/// A producer is forgotten this long after its last append: seven days.
pub const EXPIRY_MS: i64 = 7 * 24 * 3_600_000;
/// But not before this much more has passed, so that many go at once.
const SLACK_MS: i64 = 3_600_000;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Expiry {
    /// No producer's last append is older.
    oldest: Option<TimestampMs>,
}

impl Expiry {
    pub(super) fn of(producers: &ProducerTable) -> Self {
        Self { oldest: producers.oldest() }
    }

    /// After an append of a producer at `now` in the log's time: whether any is due.
    pub(super) fn is_due(&mut self, producers: &ProducerTable, now: TimestampMs) -> bool {
        let due =
            |oldest: TimestampMs| now.get().saturating_sub(oldest.get()) > EXPIRY_MS.saturating_add(SLACK_MS);
        if self.oldest.is_none_or(due) {
            self.oldest = producers.oldest();
        }
        self.oldest.is_some_and(due)
    }
}

/// Producers whose last append is older than this are to be forgotten when the log's time is `now`.
pub(super) fn expire_before(now: TimestampMs) -> TimestampMs {
    TimestampMs(now.get().saturating_sub(EXPIRY_MS))
}
