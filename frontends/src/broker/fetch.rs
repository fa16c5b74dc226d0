//! Batches out, and the offsets to ask for. Committed batches only, whole, as they lie on disk.
//!
//! A fetch that finds too little waits for the high watermark to move, which wakes it; it never polls. The wait is
//! begun before the log is read, so that a batch which arrives in between is not missed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_wire::ids::{Chain, LogId, Offset, TimestampMs};

use super::consensus::{LogView, ReadBatches, ReadFailure};
use super::{Broker, BrokerError};

/// What to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// From which log.
    pub log: LogId,
    /// From the batch that holds this offset.
    pub offset: Offset,
    /// Most bytes; one batch is given even if it is larger.
    pub bytes_max: usize,
    /// Bytes to wait for.
    pub bytes_min: usize,
    /// How long to wait for them.
    pub wait: Duration,
    /// Whether a replica that does not lead may answer. It may lag behind.
    pub any_replica: bool,
}

/// What a fetch gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// First offset that was not committed and applied here.
    pub high_watermark: Offset,
    /// Oldest offset kept.
    pub log_start: Offset,
    /// Where to go on.
    pub next_offset: Offset,
    /// Whole batches, in order.
    pub batches: Vec<Bytes>,
}

/// Which offset to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The oldest that is kept.
    Earliest,
    /// The one after the last that was acknowledged before the question.
    Latest,
    /// The first of a batch with a record of this time or later.
    Time(TimestampMs),
}

impl Broker {
    /// Reads committed batches, waiting for them up to the asked time and this node's limit.
    ///
    /// `allow` is asked once, for the most bytes that will be read, when there is something to read; what it gives is
    /// handed back, so that a caller may bound the bytes of answers under way. A fetch that waits holds nothing.
    ///
    /// # Errors
    /// [`BrokerError`]: nothing was read.
    pub async fn fetch<A, F: Future<Output = A>>(
        &self,
        request: FetchRequest,
        allow: impl FnOnce(usize) -> F,
    ) -> Result<(Fetched, Option<A>), BrokerError> {
        let (view, may_lag) = self.view(request.log, request.any_replica)?;
        let bytes_max = request.bytes_max.min(self.limits.fetch_bytes);
        let deadline = tokio::time::Instant::now() + request.wait.min(self.limits.fetch_wait);
        let mut gathering = Gathering {
            log: request.log,
            view: Arc::clone(&view),
            may_lag,
            bytes_min: request.bytes_min.min(bytes_max).max(1),
            bytes_max,
            gathered: ReadBatches { batches: Vec::new(), next: request.offset },
            bytes: 0,
        };
        let (mut stopped, mut allow, mut held) = (self.stopped(), Some(allow), None);
        let mut woken = false;
        loop {
            // Watched from before the look, so that no batch slips in between.
            let mut grown = view.past(gathering.gathered.next);
            // Woken with nothing to read: this view has ended, and reading says how.
            if gathering.is_behind()? || woken {
                woken = false;
                if let Some(allow) = allow.take() {
                    held = Some(allow(bytes_max).await);
                }
                if gathering.read().await? {
                    break;
                }
                continue;
            }
            tokio::select! {
                () = &mut grown => woken = true,
                () = tokio::time::sleep_until(deadline) => break,
                () = &mut stopped => break,
            }
        }
        let Gathering { gathered, bytes, .. } = gathering;
        self.counts.fetches.add(1);
        self.counts.fetch_bytes.add(u64::try_from(bytes).unwrap_or(u64::MAX));
        let fetched = Fetched {
            high_watermark: view.high_watermark(),
            log_start: view.start(),
            next_offset: gathered.next,
            batches: gathered.batches,
        };
        Ok((fetched, held))
    }

    /// Looks up an offset, on the leader. [`When::Latest`] asks a quorum, so that no leader of the past answers it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn offset_at(&self, log: LogId, when: When) -> Result<Offset, BrokerError> {
        let (view, _) = self.view(log, when == When::Latest)?;
        match when {
            When::Earliest => Ok(view.start()),
            When::Latest => {
                let consensus = Arc::clone(self.open()?);
                let group = self.group_of(consensus.as_ref(), log)?;
                self.lead(consensus.as_ref(), group)?;
                let barrier = consensus.read_barrier(group, self.limits.request);
                barrier.await.map_err(|error| BrokerError::of_read(group, error))?;
                Ok(view.high_watermark())
            }
            When::Time(time) => blocking(log, move || view.offset_at(time)).await,
        }
    }

    /// The chain of everything before `offset`, on this replica.
    ///
    /// # Errors
    /// [`BrokerError`]; `offset` must be where a batch ends.
    pub async fn chain_at(&self, log: LogId, offset: Offset) -> Result<Chain, BrokerError> {
        let (view, _) = self.view(log, true)?;
        blocking(log, move || view.chain_at(offset)).await
    }

    /// The log, and whether this replica may lack what was acknowledged.
    fn view(&self, log: LogId, any_replica: bool) -> Result<(Arc<dyn LogView>, bool), BrokerError> {
        let consensus = self.open()?;
        let group = self.group_of(consensus.as_ref(), log)?;
        let may_lag = !consensus.serves(group);
        if may_lag && !any_replica {
            self.lead(consensus.as_ref(), group)?;
            return Err(BrokerError::NotReady { what: format!("group {group}, whose leader is new,") });
        }
        let view = consensus.log(log).ok_or_else(|| BrokerError::NotReady { what: format!("log {log}") })?;
        Ok((view, may_lag))
    }
}

/// What a fetch has read so far.
struct Gathering {
    log: LogId,
    view: Arc<dyn LogView>,
    /// Whether offsets beyond the end may exist all the same, elsewhere.
    may_lag: bool,
    bytes_min: usize,
    bytes_max: usize,
    gathered: ReadBatches,
    bytes: usize,
}

impl Gathering {
    /// Whether there is more to read. An offset outside of the log is an error, unless something was read already, or
    /// this replica may yet come to it.
    fn is_behind(&self) -> Result<bool, BrokerError> {
        let (asked, start, end) = (self.gathered.next, self.view.start(), self.view.high_watermark());
        let beyond = asked > end && !self.may_lag;
        if (asked < start || beyond) && self.gathered.batches.is_empty() {
            return Err(BrokerError::OffsetOutOfRange { log: self.log, asked, start, end });
        }
        Ok(asked < end)
    }

    /// Reads on; true when that is enough. What was read before the log ended or broke is still good.
    async fn read(&mut self) -> Result<bool, BrokerError> {
        let (log, from) = (self.log, self.gathered.next);
        let (view, bytes_max) = (Arc::clone(&self.view), self.bytes_max.saturating_sub(self.bytes));
        let read = blocking(log, move || view.read(from, bytes_max)).await;
        let more = match read {
            Ok(more) if more.batches.is_empty() || more.next <= from => {
                // Without progress this would be asked for ever.
                Err(BrokerError::ReadFailed { log, reason: format!("no batch at offset {from}") })
            }
            Err(BrokerError::OffsetOutOfRange { start, end, .. }) => {
                Err(BrokerError::OffsetOutOfRange { log, asked: from, start, end })
            }
            other => other,
        };
        let first = self.gathered.batches.is_empty();
        let more = match more {
            Ok(more) => more,
            Err(error) if first => return Err(error),
            Err(_) => return Ok(true),
        };
        let more_bytes = more.batches.iter().map(Bytes::len).sum::<usize>();
        if !first && more_bytes > bytes_max {
            return Ok(true);
        }
        self.bytes += more_bytes;
        self.gathered.next = more.next;
        self.gathered.batches.extend(more.batches);
        Ok(self.bytes >= self.bytes_min)
    }
}

/// Runs a read of the disk where blocking is allowed.
async fn blocking<T: Send + 'static>(
    log: LogId,
    read: impl FnOnce() -> Result<T, ReadFailure> + Send + 'static,
) -> Result<T, BrokerError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.map_err(|failure| read_error(log, failure)),
        Err(error) => Err(BrokerError::ReadFailed { log, reason: error.to_string() }),
    }
}

fn read_error(log: LogId, failure: ReadFailure) -> BrokerError {
    match failure {
        ReadFailure::OutOfRange { start, end } => {
            BrokerError::OffsetOutOfRange { log, asked: start, start, end }
        }
        ReadFailure::Damaged { range } => {
            BrokerError::DamagedRange { log, start: range.start, end: range.end }
        }
        ReadFailure::Unreadable { range, said } => {
            BrokerError::UnreadableRange { log, start: range.start, end: range.end, said }
        }
        ReadFailure::Reopened => {
            BrokerError::NotReady { what: format!("log {log}, which was just opened again,") }
        }
        ReadFailure::InsideBatch { batch } => BrokerError::InvalidRequest {
            reason: format!("the offset lies inside a batch: take {} or {}", batch.start, batch.end),
        },
        ReadFailure::Closed => BrokerError::UnknownLog { log, reason: "its channel was deleted".to_owned() },
        ReadFailure::Failed(reason) => BrokerError::ReadFailed { log, reason },
    }
}
