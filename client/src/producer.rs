//! A producer for one channel: routes records to partitions, and lets each partition have its own task.
//!
//! - A record with a key goes where Kafka's default partitioner would send it. One without goes to the partition that is
//!   filling a batch at the moment; the next batch fills in the next partition.
//! - [`Producer::send`] returns once the record is queued; it waits while [`ProducerOptions::buffer_bytes`] are under way.
//!   What came of the record is told by its [`Delivery`].
//! - Within a partition records are written in the order in which `send` was called. If one fails for good, those behind it
//!   that were handed in already fail too, rather than overtake it.
//!
//! How batches are sent and repeated is in `partition`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tidelog_wire::ids::{Generation, Offset, TimestampMs};
use tidelog_wire::limits;
use tidelog_wire::murmur2::partition_of;
use tidelog_wire::protocol::ChannelInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::error::ClientError;
use crate::options::{IN_FLIGHT_CAP, ProducerOptions};

mod flight;
mod partition;

/// What a record takes in memory besides its bytes.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// A record to be produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRecord {
    /// The partition, instead of the one that the key decides.
    pub partition: Option<u32>,
    /// Decides the partition.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Its time; now if `None`.
    pub timestamp: Option<TimestampMs>,
}

impl NewRecord {
    /// A record with nothing but a value.
    pub fn value(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// A record with key and value.
    pub fn keyed(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..Self::value(value) }
    }

    fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|(key, value)| key.len() + length(value));
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

/// Where a record is, durable on a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: Offset,
    /// The time at which its batch was appended.
    pub append_time: TimestampMs,
}

/// What will come of a record. Dropping it does not take the record back.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<Delivered, ClientError>>);

impl Delivery {
    /// Waits until the record is durable, or has failed for good. Ends within the delivery timeout of the records before it.
    ///
    /// # Errors
    /// Why it failed; [`ClientError::may_have_committed`] says whether it may be in the log nevertheless.
    pub async fn delivered(self) -> Result<Delivered, ClientError> {
        self.0.await.unwrap_or(Err(ClientError::Closed))
    }
}

/// What a producer has done in one partition so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionSummary {
    /// The partition.
    pub partition: u32,
    /// Records acknowledged.
    pub records: u64,
    /// Bytes of their keys, values and headers.
    pub bytes: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Offset of the first record acknowledged.
    pub first_offset: Option<Offset>,
    /// Offset of the last record acknowledged.
    pub last_offset: Option<Offset>,
    /// Batches that were sent again.
    pub retries: u64,
    /// Batches that turned out to be in the log already when they were sent again.
    pub duplicates: u64,
}

/// What a producer has done so far: what was acknowledged, whatever failed since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerSummary {
    /// One for each partition.
    pub partitions: Vec<PartitionSummary>,
}

impl ProducerSummary {
    fn sum(&self, part: impl Fn(&PartitionSummary) -> u64) -> u64 {
        self.partitions.iter().map(part).sum()
    }

    /// Records acknowledged.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.sum(|partition| partition.records)
    }

    /// Bytes of keys, values and headers acknowledged.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sum(|partition| partition.bytes)
    }

    /// Batches that were sent again.
    #[must_use]
    pub fn retries(&self) -> u64 {
        self.sum(|partition| partition.retries)
    }

    /// Batches that turned out to be in the log already.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.sum(|partition| partition.duplicates)
    }
}

/// On its way from [`Producer::send`] to a partition's task.
enum Queued {
    Record(QueuedRecord),
    /// To be answered when all before it has come to an end.
    Flush(oneshot::Sender<()>),
}

struct QueuedRecord {
    record: NewRecord,
    bytes: usize,
    /// Room in the buffer, given back when the record has come to an end.
    room: OwnedSemaphorePermit,
    outcome: oneshot::Sender<Result<Delivered, ClientError>>,
}

/// What the tasks of a producer share.
struct Shared {
    client: Client,
    channel: String,
    options: ProducerOptions,
    /// The partition for records without a key.
    sticky: AtomicUsize,
    partitions: usize,
    summaries: Vec<Mutex<PartitionSummary>>,
}

impl Shared {
    fn summary(&self, index: usize, change: impl FnOnce(&mut PartitionSummary)) {
        if let Some(summary) = self.summaries.get(index) {
            change(&mut summary.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// A batch was closed in a partition: records without a key go to the next one from now on.
    fn move_on(&self, from: usize) {
        let next = (from + 1) % self.partitions.max(1);
        // If it is elsewhere already, so much the better.
        let _moved = self.sticky.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Sends records to a channel. See the module of the same name.
///
/// Dropping it lets what is queued be sent; [`Producer::close`] waits for that.
pub struct Producer {
    shared: Arc<Shared>,
    generation: Generation,
    queues: Vec<mpsc::Sender<Queued>>,
    room: Arc<Semaphore>,
    tasks: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = out.debug_struct("Producer");
        shown
            .field("channel", &self.shared.channel)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Producer {
    pub(crate) fn start(
        client: Client,
        info: &ChannelInfo,
        mut options: ProducerOptions,
    ) -> Result<Self, ClientError> {
        check(&options)?;
        options.batch_bytes = options.batch_bytes.min(client.cluster.batch_bytes_max());
        let partitions = info.partitions.len();
        if partitions == 0 {
            return Err(ClientError::UnknownPartition {
                channel: info.name.clone(),
                partition: 0,
                partitions: 0,
            });
        }
        let summary =
            |number| Mutex::new(PartitionSummary { partition: number, ..PartitionSummary::default() });
        let shared = Arc::new(Shared {
            client,
            channel: info.name.clone(),
            sticky: AtomicUsize::new(0),
            partitions,
            summaries: (0..).take(partitions).map(summary).collect(),
            options,
        });
        let (mut queues, mut tasks) = (Vec::with_capacity(partitions), Vec::with_capacity(partitions));
        for (index, partition) in info.partitions.iter().enumerate() {
            let (queue, queued) = mpsc::channel(shared.options.queue_records);
            let task = partition::Task::new(shared.clone(), index, partition.log, queued);
            tasks.push(tokio::spawn(task.run()));
            queues.push(queue);
        }
        let room = Arc::new(Semaphore::new(shared.options.buffer_bytes));
        Ok(Self { shared, generation: info.generation, queues, room, tasks })
    }

    /// The channel's life that is written to.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// Queues a record; waits for room. Records that one caller sends to a partition one after the other keep that order.
    ///
    /// # Errors
    /// [`ClientError::UnknownPartition`], [`ClientError::Record`], [`ClientError::Closed`]: it was not queued.
    pub async fn send(&self, record: NewRecord) -> Result<Delivery, ClientError> {
        let index = self.route(&record)?;
        let bytes = record.bytes();
        let wanted = (bytes + RECORD_OVERHEAD_BYTES).min(self.shared.options.buffer_bytes);
        let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| ClientError::Closed)?;
        let (outcome, delivery) = oneshot::channel();
        let queue = self.queues.get(index).ok_or(ClientError::Closed)?;
        let queued = Queued::Record(QueuedRecord { record, bytes, room, outcome });
        queue.send(queued).await.map_err(|_| ClientError::Closed)?;
        Ok(Delivery(delivery))
    }

    fn route(&self, record: &NewRecord) -> Result<usize, ClientError> {
        let count = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        let chosen = match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, count).get(),
            (None, None) => return Ok(self.shared.sticky.load(Ordering::Relaxed)),
        };
        usize::try_from(chosen).ok().filter(|index| *index < self.queues.len()).ok_or_else(|| {
            let channel = self.shared.channel.clone();
            ClientError::UnknownPartition { channel, partition: chosen, partitions: count }
        })
    }

    /// Waits until every record that was queued before has come to an end, good or bad.
    pub async fn flush(&self) {
        let mut ends = Vec::with_capacity(self.queues.len());
        for queue in &self.queues {
            let (done, end) = oneshot::channel();
            if queue.send(Queued::Flush(done)).await.is_ok() {
                ends.push(end);
            }
        }
        for end in ends {
            // An error means that the task has ended, and all that it had with it.
            drop(end.await);
        }
    }

    /// What was acknowledged so far.
    #[must_use]
    pub fn summary(&self) -> ProducerSummary {
        let read =
            |summary: &Mutex<PartitionSummary>| *summary.lock().unwrap_or_else(PoisonError::into_inner);
        ProducerSummary { partitions: self.shared.summaries.iter().map(read).collect() }
    }

    /// Sends what is queued, waits for it, and tells what was acknowledged. Ends within the delivery timeout.
    pub async fn close(self) -> ProducerSummary {
        let Self { shared, queues, tasks, .. } = self;
        drop(queues);
        for task in tasks {
            // A task that panicked has dropped its records, whose deliveries say so.
            drop(task.await);
        }
        let read =
            |summary: &Mutex<PartitionSummary>| *summary.lock().unwrap_or_else(PoisonError::into_inner);
        ProducerSummary { partitions: shared.summaries.iter().map(read).collect() }
    }
}

fn check(options: &ProducerOptions) -> Result<(), ClientError> {
    let range = |name, found: usize, min: usize, max: usize, allowed| {
        if (min..=max).contains(&found) {
            Ok(())
        } else {
            Err(ClientError::Option { name, found: found.to_string(), allowed })
        }
    };
    range("in_flight", options.in_flight, 1, IN_FLIGHT_CAP, "1 to 5")?;
    range("batch_bytes", options.batch_bytes, 1024, limits::BATCH_BYTES_CAP, "1 KiB to 16 MiB")?;
    range(
        "batch_records",
        usize::try_from(options.batch_records).unwrap_or(0),
        1,
        limits::RECORDS_MAX,
        "1 to 1048576",
    )?;
    range("buffer_bytes", options.buffer_bytes, 64 * limits::KIB, 2048 * limits::MIB, "64 KiB to 2 GiB")?;
    range("queue_records", options.queue_records, 1, 1 << 24, "1 to 16777216")
}
