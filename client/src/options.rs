//! What can be chosen, and what is chosen if nobody does.

use std::time::Duration;

use tidelog_wire::batch::Codec;
use tidelog_wire::limits;

/// Most batches that may be in flight for one partition: as many as a node remembers to recognise a repetition.
pub(crate) const IN_FLIGHT_CAP: usize = 5;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Name in the nodes' logs.
    pub name: String,
    /// A node that owes an answer and is silent for so long counts as dead.
    pub silence: Duration,
    /// Longest attempt to connect to one node.
    pub connect_timeout: Duration,
    /// How long a request that is not a produced batch is repeated.
    pub request_timeout: Duration,
    /// Pause before a repetition, unless the node names one.
    pub retry_pause: Duration,
    /// Between sends that keep an idle connection alive.
    pub keep_alive: Duration,
    /// A connection over which nothing comes for so long is closed.
    pub idle: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            name: concat!("tidelog-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            silence: Duration::from_millis(150),
            connect_timeout: Duration::from_millis(1000),
            request_timeout: Duration::from_secs(10),
            retry_pause: Duration::from_millis(20),
            keep_alive: Duration::from_millis(50),
            idle: Duration::from_secs(2),
        }
    }
}

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Compression of batches.
    pub codec: Codec,
    /// Most bytes of a batch, before compression. Never more than the nodes take.
    pub batch_bytes: usize,
    /// Most records of a batch.
    pub batch_records: u32,
    /// How long a batch that is not full waits for more records. Even without, records gather while batches are in flight.
    pub linger: Duration,
    /// Most batches in flight for one partition, 1 to 5.
    pub in_flight: usize,
    /// How long a record is tried, from the moment its batch is first sent or waits for a leader.
    pub delivery_timeout: Duration,
    /// How long one attempt waits for its answer before the batch is sent again.
    pub attempt_timeout: Duration,
    /// Most bytes of records that wait or are in flight, over all partitions; [`crate::Producer::send`] waits for room.
    pub buffer_bytes: usize,
    /// Most records that wait in one partition's queue.
    pub queue_records: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            codec: Codec::None,
            batch_bytes: limits::BATCH_BYTES_DEFAULT / 2,
            batch_records: 10_000,
            linger: Duration::ZERO,
            in_flight: IN_FLIGHT_CAP,
            delivery_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(5),
            buffer_bytes: 32 * limits::MIB,
            queue_records: 16 * 1024,
        }
    }
}

/// How a consumer behaves.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Most bytes of an answer. One batch comes even if it is larger.
    pub max_bytes: u32,
    /// The node waits for so many bytes, or for `max_wait`.
    pub min_bytes: u32,
    /// Longest wait at the node. What is new at once is answered at once.
    pub max_wait: Duration,
    /// Read from this node's replica, whether it leads or not. It may be behind.
    pub node: Option<u64>,
    /// Read from any replica instead of the leader.
    pub any_replica: bool,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            max_bytes: 4 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            node: None,
            any_replica: false,
        }
    }
}
