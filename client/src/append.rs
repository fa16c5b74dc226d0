//! Batches appended as they are, for whoever copies a log: no batching, no stamping, no repetition.

use bytes::Bytes;
use tidelog_wire::ids::{Chain, LogId, Offset};
use tidelog_wire::protocol::{Answer, Request};

use crate::admin::{leader_of, unexpected};
use crate::client::{Call, Client};
use crate::error::ClientError;
use crate::link::Lane;

/// Where a batch is, durable on a quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The log's chain after it.
    pub chain: Chain,
}

impl Client {
    /// Appends one record batch, byte for byte but for its base offset and epoch, which the log assigns. Not repeated if it
    /// is unknown whether it was done: whoever copies looks at the log's end and chain first.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::ChannelChanged`], [`ClientError::Timeout`]: nothing was appended.
    /// [`ClientError::MayHaveCommitted`]: it may have been, or may still be.
    pub async fn append(&self, channel: &str, log: LogId, batch: Bytes) -> Result<Appended, ClientError> {
        let request = Request::Produce { log };
        let call = Call {
            target: leader_of(channel, log),
            lane: Lane::Produce,
            request: &request,
            payload: batch,
            deadline: self.deadline(),
            attempt: self.cluster.options.request_timeout,
            repeatable: false,
        };
        let (node, answered) = self.call(&call).await?;
        match answered.answer {
            Ok(Answer::Produced { base_offset, last_offset, chain, .. }) => {
                Ok(Appended { base_offset, last_offset, chain })
            }
            Ok(_) | Err(_) => Err(unexpected(node, &request)),
        }
    }
}
