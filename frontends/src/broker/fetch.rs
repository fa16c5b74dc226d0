//! Batches out, and the offsets to ask for. Committed batches only, whole, as they lie on disk.
//!
//! A fetch that finds too little waits for the high watermark to move, which wakes it; it never polls. The wait is
//! begun before the log is read, so that a batch which arrives in between is not missed.

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
    /// The first that was appended at or after this time.
    Time(TimestampMs),
}

impl Broker {
    /// Reads committed batches, waiting for them up to the asked time and this node's limit.
    ///
    /// # Errors
    /// [`BrokerError`]: nothing was read.
    pub async fn fetch(&self, request: FetchRequest) -> Result<Fetched, BrokerError> {
        let view = self.view(request.log, request.any_replica)?;
        let bytes_max = request.bytes_max.min(self.limits.fetch_bytes);
        let bytes_min = request.bytes_min.min(bytes_max);
        let deadline = tokio::time::Instant::now() + request.wait.min(self.limits.fetch_wait);
        let mut stopped = self.stopped();
        let mut gathered = ReadBatches { batches: Vec::new(), next: request.offset };
        let mut bytes = 0;
        loop {
            let mut grown = view.past(gathered.next);
            let read = read_more(request.log, &view, &gathered, bytes_max.saturating_sub(bytes)).await;
            match read {
                Ok(more) => {
                    let more_bytes = more.batches.iter().map(Bytes::len).sum::<usize>();
                    if !gathered.batches.is_empty() && bytes + more_bytes > bytes_max {
                        break;
                    }
                    bytes += more_bytes;
                    gathered.next = more.next;
                    gathered.batches.extend(more.batches);
                }
                // What was read before the log ended or broke is still good.
                Err(_) if !gathered.batches.is_empty() => break,
                Err(error) => return Err(error),
            }
            if bytes >= bytes_min.max(1) || bytes >= bytes_max {
                break;
            }
            if gathered.next < view.high_watermark() {
                continue;
            }
            tokio::select! {
                () = &mut grown => {}
                () = tokio::time::sleep_until(deadline) => break,
                () = &mut stopped => break,
            }
        }
        self.counts.fetches.add(1);
        self.counts.fetch_bytes.add(u64::try_from(bytes).unwrap_or(u64::MAX));
        Ok(Fetched {
            high_watermark: view.high_watermark(),
            log_start: view.start(),
            next_offset: gathered.next,
            batches: gathered.batches,
        })
    }

    /// Looks up an offset, on the leader. [`When::Latest`] asks a quorum, so that no leader of the past answers it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn offset_at(&self, log: LogId, when: When) -> Result<Offset, BrokerError> {
        let view = self.view(log, false)?;
        match when {
            When::Earliest => Ok(view.start()),
            When::Latest => {
                let consensus = Arc::clone(self.open()?);
                let group = self.group_of(consensus.as_ref(), log)?;
                let barrier = consensus.read_barrier(group, self.limits.request);
                barrier.await.map_err(|error| match error {
                    // A read that was not answered changed nothing: it may simply be repeated.
                    super::SubmitError::MayHaveCommitted => BrokerError::NoQuorum { group },
                    other => BrokerError::of_submit(group, other),
                })?;
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
        let view = self.view(log, true)?;
        blocking(log, move || view.chain_at(offset)).await
    }

    fn view(&self, log: LogId, any_replica: bool) -> Result<Arc<dyn LogView>, BrokerError> {
        let consensus = self.open()?;
        let group = self.group_of(consensus.as_ref(), log)?;
        if !any_replica {
            self.lead(consensus.as_ref(), group)?;
        }
        consensus.log(log).ok_or_else(|| BrokerError::NotReady { what: format!("log {log}") })
    }
}

/// Reads on from what was gathered. An empty rest of the log is no error; an offset outside of it is.
async fn read_more(
    log: LogId,
    view: &Arc<dyn LogView>,
    gathered: &ReadBatches,
    bytes_max: usize,
) -> Result<ReadBatches, BrokerError> {
    let (from, start, end) = (gathered.next, view.start(), view.high_watermark());
    if from < start || from > end {
        return Err(BrokerError::OffsetOutOfRange { log, asked: from, start, end });
    }
    if from == end {
        return Ok(ReadBatches { batches: Vec::new(), next: from });
    }
    let view = Arc::clone(view);
    let read = blocking(log, move || view.read(from, bytes_max)).await;
    match read {
        Err(BrokerError::OffsetOutOfRange { log, start, end, .. }) => {
            Err(BrokerError::OffsetOutOfRange { log, asked: from, start, end })
        }
        // Without progress the caller would ask for ever.
        Ok(read) if read.batches.is_empty() || read.next <= from => {
            Err(BrokerError::ReadFailed { log, reason: format!("no batch at {from}, below the end {end}") })
        }
        other => other,
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
        ReadFailure::Closed => BrokerError::UnknownLog { log, reason: "its channel was deleted".to_owned() },
        ReadFailure::Failed(reason) => BrokerError::ReadFailed { log, reason },
    }
}
