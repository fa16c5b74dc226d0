//! The Rust client: produces and consumes records over QUIC with mutual TLS, and follows leaders.
//!
//! ```no_run
//! # async fn example() -> Result<(), tidelog_client::ClientError> {
//! use tidelog_client::{Client, ClientOptions, ConsumerOptions, NewRecord, ProducerOptions, Profile, Start};
//!
//! let profile = Profile::load("cluster/client.toml".as_ref())?;
//! let client = Client::new(profile, ClientOptions::default())?;
//! let producer = client.producer("flights", ProducerOptions::default()).await?;
//! let delivery = producer.send(NewRecord::value("AA11,JFK,LAX")).await?;
//! println!("durable at offset {}", delivery.delivered().await?.offset);
//!
//! let mut consumer = client.consumer("flights", 0, Start::Earliest, ConsumerOptions::default()).await?;
//! for record in consumer.poll().await?.records {
//!     println!("{}: {:?}", record.offset, record.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! 1. [`Profile`] names a cluster: its nodes' addresses, its authority, and the caller's certificate.
//! 2. [`Client`] connects to whichever node answers, learns the others and the leaders from it, and asks again whenever
//!    one turns out to be wrong. A node that is silent for 150 ms while it owes an answer counts as dead, and others are asked.
//! 3. [`Producer`] sends batches to the leaders, several in flight and in order, and repeats what was not answered
//!    until its deadline. Its producer id and sequence numbers let a node recognise a repetition, so a retry never duplicates.
//! 4. [`Consumer`] reads one partition, checks every batch's checksum, and that no offset is missing.
//!
//! Every wait has a deadline, every queue a limit. An error says whether what it was about may have been done
//! nevertheless: [`ClientError::may_have_committed`].
//!
//! The clock is tokio's, except for records' times, see `clock`. There is no randomness: pauses between retries are fixed,
//! which is fair enough since a leader is one node and answers `Busy` with a pause of its choice.
//!
//! Not here: consumer groups; there are none yet. A cursor ([`Client::set_cursor`]) keeps one reader's position.

mod admin;
mod append;
mod client;
mod clock;
mod cluster;
mod consumer;
mod error;
mod link;
mod members;
mod options;
mod producer;
mod profile;
#[cfg(test)]
mod tests;

pub use append::Appended;
pub use client::Client;
pub use consumer::{Consumer, Fetched, Start};
pub use error::ClientError;
pub use members::Balance;
pub use options::{ClientOptions, ConsumerOptions, ProducerOptions};
pub use producer::{Delivered, Delivery, NewRecord, PartitionSummary, Producer, ProducerSummary};
pub use profile::{Profile, ProfileNode};
pub use tidelog_wire::batch::Codec;
pub use tidelog_wire::protocol::{
    ChannelInfo, ChannelState, ClusterInfo, CreatedChannel, CursorInfo, ErrorCode, ErrorReply, MemberGroup,
    MemberNode, MetadataInfo, NewChannel, NodeInfo, NodeState, NodeStatus, PartitionInfo, Retry, Want,
    WantedReplica,
};
pub use tidelog_wire::records::{Record, RecordHeader};
