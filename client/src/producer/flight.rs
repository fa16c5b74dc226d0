//! A batch on its way, and the records that wait for it.

use std::sync::Arc;

use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{Offset, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuildError, Pushed};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::{Delivered, Queued, QueuedRecord};
use crate::clock;
use crate::error::ClientError;
use crate::link::{Awaited, Link};

/// Who waits for the end of a batch.
pub(super) struct Waiters {
    outcomes: Vec<oneshot::Sender<Result<Delivered, ClientError>>>,
    flushes: Vec<oneshot::Sender<()>>,
    /// Room in the producer's buffer, given back at the end.
    room: Option<OwnedSemaphorePermit>,
    /// Bytes of the records.
    pub(super) bytes: u64,
}

impl Waiters {
    const fn new() -> Self {
        Self { outcomes: Vec::new(), flushes: Vec::new(), room: None, bytes: 0 }
    }

    pub(super) fn flush(&mut self, done: oneshot::Sender<()>) {
        self.flushes.push(done);
    }

    /// Takes over who waits for a batch that came to nothing.
    pub(super) fn take_over(&mut self, empty: Self) {
        self.flushes.extend(empty.flushes);
    }

    /// Tells every record where it is.
    pub(super) fn deliver(self, partition: u32, base: Offset, append_time: TimestampMs) {
        for (number, outcome) in (0..).zip(self.outcomes) {
            // Whoever dropped its delivery does not want to know.
            drop(outcome.send(Ok(Delivered { partition, offset: base.plus(number), append_time })));
        }
        finish(self.flushes);
    }

    /// Tells every record why it failed.
    pub(super) fn fail(self, error: &ClientError) {
        for outcome in self.outcomes {
            drop(outcome.send(Err(error.clone())));
        }
        finish(self.flushes);
    }
}

pub(super) fn finish(flushes: Vec<oneshot::Sender<()>>) {
    for done in flushes {
        // Whoever gave up waiting does not want to know.
        let _told = done.send(());
    }
}

/// A batch that is still being filled.
pub(super) struct Open {
    pub(super) builder: BatchBuilder,
    pub(super) waiters: Waiters,
    pub(super) since: Instant,
    /// Somebody waits for it: no more lingering.
    pub(super) hurried: bool,
}

impl Open {
    pub(super) fn new(builder: BatchBuilder) -> Self {
        Self { builder, waiters: Waiters::new(), since: Instant::now(), hurried: false }
    }

    /// Takes a record, gives it back if the batch is full, or tells it that it cannot be sent.
    pub(super) fn take(&mut self, queued: QueuedRecord) -> Option<QueuedRecord> {
        match self.push(&queued) {
            Ok(Pushed::Full) => Some(queued),
            Ok(Pushed::Taken) => {
                let QueuedRecord { bytes, room, outcome, record: _ } = queued;
                self.waiters.bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
                self.waiters.outcomes.push(outcome);
                match &mut self.waiters.room {
                    Some(whole) => whole.merge(room),
                    none @ None => *none = Some(room),
                }
                None
            }
            Err(error) => {
                drop(queued.outcome.send(Err(error.into())));
                None
            }
        }
    }

    fn push(&mut self, queued: &QueuedRecord) -> Result<Pushed, BuildError> {
        let record = &queued.record;
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (key.as_ref(), value.as_deref())).collect();
        let time = record.timestamp.unwrap_or_else(clock::now);
        self.builder.push(time, record.key.as_deref(), record.value.as_deref(), &headers)
    }
}

/// An attempt that waits for its answer.
pub(super) struct Attempt {
    pub(super) link: Arc<Link>,
    pub(super) awaited: Awaited,
    pub(super) until: Instant,
}

/// A closed batch that is sent until it is acknowledged or its time is up.
pub(super) struct Flight {
    pub(super) batch: Batch,
    pub(super) waiters: Waiters,
    /// When it is given up.
    pub(super) deadline: Instant,
    pub(super) attempt: Option<Attempt>,
    /// It was sent at least once.
    pub(super) sent: bool,
    /// An attempt ended without an answer that says it was not done.
    pub(super) uncertain: bool,
}

impl Flight {
    /// It failed for `cause`, which is about this very batch.
    pub(super) fn fail(self, cause: &ClientError) {
        let error = if self.uncertain { may_have(cause) } else { cause.clone() };
        self.waiters.fail(&error);
    }

    /// One before it failed for `cause`, so it is not sent any more.
    pub(super) fn fail_behind(self, cause: &ClientError) {
        let error = if self.sent { may_have(cause) } else { behind(cause) };
        self.waiters.fail(&error);
    }
}

/// Tells what is still queued that something before it failed.
pub(super) fn refuse(queued: Queued, cause: &ClientError) {
    match queued {
        Queued::Record(record) => drop(record.outcome.send(Err(behind(cause)))),
        Queued::Flush(done) => finish(vec![done]),
    }
}

pub(super) fn behind(cause: &ClientError) -> ClientError {
    ClientError::EarlierFailed { cause: cause.to_string() }
}

fn may_have(cause: &ClientError) -> ClientError {
    ClientError::MayHaveCommitted { what: "Produce".to_owned(), last: cause.to_string() }
}
