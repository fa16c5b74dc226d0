//! A consumer of one partition: fetches batches, checks them, and hands their records out in order.
//!
//! Every batch's checksum is verified again here, at the far end of the way, and its offsets must follow the last ones
//! without a gap. The first batch of an answer may begin before the offset asked for, since batches are served whole;
//! its earlier records are dropped.
//!
//! A range that the leader has lost to damage is read from another replica, which is as good: replicas are equal.
//!
//! What one poll hands out is bounded, whatever small batches decompress to: the rest waits, as it came, for the next poll.
//!
//! While records are handed out and there are more, the next fetch is under way already.
//!
//! Whatever fails leaves the consumer where it was: nothing is skipped, and [`Consumer::poll`] may be called again.

use std::collections::VecDeque;
use std::future::Future;

use bytes::Bytes;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LogId, NodeId, Offset, TimestampMs};
use tidelog_wire::protocol::{Answer, AnswerFrame, ErrorCode, FetchRequest, OffsetSpec, Request};
use tidelog_wire::records::{Record, Records, RecordsError};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::admin::leader_of;
use crate::client::{Call, Client, Target};
use crate::error::ClientError;
use crate::link::Lane;
use crate::options::ConsumerOptions;

/// Decompressed bytes after which a poll hands out no further batch.
const HANDED_OUT_BYTES: usize = 32 << 20;
/// Records after which a poll hands out no further batch.
const HANDED_OUT_RECORDS: usize = 1 << 18;

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record kept.
    Earliest,
    /// Behind the newest record committed.
    Latest,
    /// At an offset.
    Offset(Offset),
    /// At the first record of that time or later.
    Time(TimestampMs),
}

/// What one poll brought.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Records in order. Empty if none came in time.
    pub records: Vec<Record>,
    /// First offset that is not committed yet, as far as the answering node knows.
    pub high_watermark: Offset,
    /// Oldest offset kept.
    pub log_start: Offset,
    /// The node that answered.
    pub node: NodeId,
}

/// A reader of one partition.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    channel: String,
    log: LogId,
    next: Offset,
    options: ConsumerOptions,
    ahead: Option<Ahead>,
    /// Fetched and checked, not yet handed out.
    held: VecDeque<(Offset, Batch)>,
    /// What the fetch that brought them said.
    told: Option<Told>,
}

/// What an answer says besides its batches.
#[derive(Clone, Copy, Debug)]
struct Told {
    high_watermark: Offset,
    log_start: Offset,
    node: NodeId,
}

type Answered = Result<(NodeId, AnswerFrame), ClientError>;

/// A fetch that was begun before it was asked for. Given up when dropped.
#[derive(Debug)]
struct Ahead {
    from: Offset,
    task: JoinHandle<Answered>,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Consumer {
    pub(crate) async fn start(
        client: Client,
        channel: String,
        log: LogId,
        start: Start,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let mut consumer = Self {
            client,
            channel,
            log,
            next: Offset::ZERO,
            options,
            ahead: None,
            held: VecDeque::new(),
            told: None,
        };
        let spec = match start {
            Start::Offset(offset) => {
                consumer.next = offset;
                return Ok(consumer);
            }
            Start::Earliest => OffsetSpec::Earliest,
            Start::Latest => OffsetSpec::Latest,
            Start::Time(time) => OffsetSpec::Time(time),
        };
        // Only a node that is named is asked itself: others may be behind.
        let target = match consumer.options.node {
            Some(node) => Target::Node(NodeId(node)),
            None => leader_of(&consumer.channel, log),
        };
        consumer.next = consumer.client.offset_from(target, log, spec).await?;
        Ok(consumer)
    }

    /// The offset of the next record.
    #[must_use]
    pub const fn position(&self) -> Offset {
        self.next
    }

    /// The log that is read.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// Goes on at another offset.
    pub fn seek(&mut self, offset: Offset) {
        self.next = offset;
        self.ahead = None;
        self.held.clear();
    }

    /// The next records, as soon as there are any; none if none came within `max_wait`.
    ///
    /// # Errors
    /// - [`ClientError::Refused`]: such as [`tidelog_wire::protocol::ErrorCode::OffsetOutOfRange`], which names what there is.
    /// - [`ClientError::BadBatch`], [`ClientError::BadRecords`], [`ClientError::Discontinuity`]: what came is not what was
    ///   acknowledged; nothing was skipped.
    /// - [`ClientError::ChannelChanged`], [`ClientError::UnknownChannel`]: the channel was deleted.
    /// - [`ClientError::Timeout`], [`ClientError::Unreachable`]: nobody answered in time.
    pub async fn poll(&mut self) -> Result<Fetched, ClientError> {
        let told = match self.told.filter(|_| !self.held.is_empty()) {
            Some(told) => told,
            None => self.fill().await?,
        };
        let records = self.hand_out()?;
        let Told { high_watermark, log_start, node } = told;
        Ok(Fetched { records, high_watermark, log_start, node })
    }

    /// Fetches, checks and holds the next batches.
    async fn fill(&mut self) -> Result<Told, ClientError> {
        let answered = match self.ahead.take().filter(|ahead| ahead.from == self.next) {
            Some(mut ahead) => {
                let joined = (&mut ahead.task).await;
                match joined {
                    Ok(answered) => answered,
                    // A task that panicked is a bug; ask again.
                    Err(_) => self.fetch(self.next, None).await,
                }
            }
            None => self.fetch(self.next, None).await,
        };
        let (node, answered) = match answered {
            Ok(answered) => answered,
            Err(error) => self.elsewhere(error).await?,
        };
        let Ok(Answer::Fetched { high_watermark, log_start, next_offset: _ }) = answered.answer else {
            return Err(ClientError::UnexpectedAnswer { node, what: "Fetch".to_owned() });
        };
        let (batches, next) = check_batches(answered.payload, self.log, self.next, node)?;
        if next > self.next && next < high_watermark {
            self.ahead = Some(Ahead { from: next, task: tokio::spawn(self.fetch(next, None)) });
        }
        let told = Told { high_watermark, log_start, node };
        (self.held, self.told) = (batches, Some(told));
        Ok(told)
    }

    /// Records of held batches, until they are enough. If a later batch cannot be read, the next call says so.
    fn hand_out(&mut self) -> Result<Vec<Record>, ClientError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some((base, batch)) = self.held.front() {
            if bytes > HANDED_OUT_BYTES || records.len() > HANDED_OUT_RECORDS {
                break;
            }
            let (base, last) = (*base, batch.last_offset());
            match read_batch(batch, self.next) {
                Ok((mut read, read_bytes)) => {
                    records.append(&mut read);
                    bytes += read_bytes;
                }
                Err(_) if !records.is_empty() => break,
                Err(source) => return Err(ClientError::BadRecords { log: self.log, offset: base, source }),
            }
            self.next = last.map_or(self.next, |last| last.plus(1));
            self.held.pop_front();
        }
        Ok(records)
    }

    /// What is damaged at one node is read from another, unless a node was named. Else it is the error that was given.
    async fn elsewhere(&self, error: ClientError) -> Answered {
        let ClientError::Refused { node: damaged, reply, .. } = &error else { return Err(error) };
        if !matches!(reply.code, ErrorCode::DamagedRange { .. }) || self.options.node.is_some() {
            return Err(error);
        }
        for node in self.client.cluster.nodes().into_iter().filter(|node| node != damaged) {
            if let Ok(answered) = self.fetch(self.next, Some(node)).await {
                return Ok(answered);
            }
        }
        Err(error)
    }

    /// Asks for batches from `offset` on, at the node of the options, or else `at`, or else the leader. Borrows nothing, so it
    /// can be a task of its own.
    fn fetch(&self, offset: Offset, at: Option<NodeId>) -> impl Future<Output = Answered> + Send + use<> {
        let named = self.options.node.map(NodeId).or(at);
        let request = Request::Fetch(FetchRequest {
            log: self.log,
            offset,
            max_bytes: self.options.max_bytes,
            min_bytes: self.options.min_bytes,
            max_wait_ms: u32::try_from(self.options.max_wait.as_millis()).unwrap_or(u32::MAX),
            any_replica: self.options.any_replica || named.is_some(),
        });
        let target = match named {
            Some(node) => Target::Node(node),
            None if self.options.any_replica => Target::Replica,
            None => leader_of(&self.channel, self.log),
        };
        let (client, wait) = (self.client.clone(), self.options.max_wait);
        async move {
            let deadline = Instant::now() + wait + client.cluster.options.request_timeout;
            let attempt = wait + client.attempt();
            let call = Call {
                target,
                lane: Lane::Fetch,
                request: &request,
                payload: Bytes::new(),
                deadline,
                attempt,
                repeatable: true,
            };
            client.call(&call).await
        }
    }
}

/// Batches back to back, which must go on at offset `from`, and the offset behind them.
fn check_batches(
    mut payload: Bytes,
    log: LogId,
    from: Offset,
    node: NodeId,
) -> Result<(VecDeque<(Offset, Batch)>, Offset), ClientError> {
    let mut batches = VecDeque::new();
    let mut next = from;
    let bad = |offset| move |source| ClientError::BadBatch { log, offset, node, source };
    while let Some(batch) = Batch::take_first(&mut payload, BatchLimits::CAP).map_err(bad(next))? {
        let gap = |found| ClientError::Discontinuity { log, node, expected: next, found };
        let base = batch.base_offset().ok_or_else(|| gap(Offset(u64::MAX)))?;
        let last = batch.last_offset().ok_or_else(|| gap(base))?;
        // Only the first batch may begin earlier than asked, and even it must reach the asked offset.
        let may_begin = base == next || (base < next && next == from);
        if last < next || !may_begin {
            return Err(gap(base));
        }
        batches.push_back((base, batch));
        next = last.plus(1);
    }
    Ok((batches, next))
}

/// The records of `batch` from offset `from` on, and their bytes.
fn read_batch(batch: &Batch, from: Offset) -> Result<(Vec<Record>, usize), RecordsError> {
    let records = Records::of(batch)?;
    let bytes = records.bytes();
    let wanted = records.filter(|record| record.as_ref().map_or(true, |record| record.offset >= from));
    Ok((wanted.collect::<Result<_, _>>()?, bytes))
}

#[cfg(test)]
mod tests {
    use tidelog_wire::batch::Codec;
    use tidelog_wire::ids::{Generation, LeaderEpoch, Partition};
    use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

    use super::*;

    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    fn batch_at(base: u64, records: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
        for _ in 0..records {
            assert_eq!(builder.push(TimestampMs(1), None, Some(b"value"), &[]), Ok(Pushed::Taken));
        }
        builder.build(None).unwrap().stamped_bytes(Offset(base), LeaderEpoch(1)).to_vec()
    }

    fn read(batches: &[Vec<u8>], from: u64) -> Result<(Vec<u64>, u64), ClientError> {
        let (batches, next) = check_batches(batches.concat().into(), LOG, Offset(from), NodeId(2))?;
        let records: Vec<_> =
            batches.iter().flat_map(|(_, batch)| read_batch(batch, Offset(from)).unwrap().0).collect();
        Ok((records.iter().map(|record| record.offset.get()).collect(), next.get()))
    }

    #[test]
    fn records_before_the_asked_offset_are_dropped() {
        assert_eq!(read(&[batch_at(10, 5), batch_at(15, 1)], 13).unwrap(), (vec![13, 14, 15], 16));
        assert_eq!(read(&[], 13).unwrap(), (vec![], 13));
    }

    #[test]
    fn a_gap_a_repetition_and_a_wrong_start_are_noticed() {
        for (batches, from) in [
            (vec![batch_at(11, 2)], 10),
            (vec![batch_at(5, 2)], 10),
            (vec![batch_at(10, 2), batch_at(13, 2)], 10),
            (vec![batch_at(10, 2), batch_at(11, 2)], 10),
        ] {
            assert!(matches!(read(&batches, from), Err(ClientError::Discontinuity { node: NodeId(2), .. })));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut batch = batch_at(10, 2);
        let last = batch.len() - 1;
        batch[last] ^= 1;
        assert!(matches!(read(&[batch], 10), Err(ClientError::BadBatch { offset: Offset(10), .. })));
    }
}
