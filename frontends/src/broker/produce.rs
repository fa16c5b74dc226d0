//! Batches in: validated once, submitted in the order of calls, answered once a quorum holds them.

use std::time::Duration;

use bytes::Bytes;
use tidelog_consensus::entry::Command;
use tidelog_consensus::outcome::{Outcome, Refusal};
use tidelog_wire::ids::{Chain, LogId, Offset, TimestampMs};

use super::batches::validated;
use super::{Broker, BrokerError, Later};
use crate::clock;
use crate::measure::FrontEndCounts;

/// How long a batch that finds no leader waits for one to be known before it is refused.
const PUT_OFF_MAX: Duration = Duration::from_millis(100);

/// A batch that is on a quorum's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The log's chain after it.
    pub chain: Chain,
    /// The time it was stamped with.
    pub append_time: TimestampMs,
    /// It was there already.
    pub duplicate: bool,
}

impl Broker {
    /// Appends the one batch in `batch` to `log`. The batch is proposed **before this returns**, so calls one after
    /// the other are appended in that order; the answer comes with the future, within the request limit.
    ///
    /// The future gives [`BrokerError`]; all but [`BrokerError::MayHaveCommitted`] say that nothing was appended.
    pub fn produce(
        self: &std::sync::Arc<Self>,
        log: LogId,
        batch: Bytes,
    ) -> Later<Result<Acknowledged, BrokerError>> {
        let started = clock::instant();
        let (bytes, submitted) = (batch.len(), self.submit_batch(log, batch));
        let broker = std::sync::Arc::clone(self);
        Box::pin(async move {
            let appended = async {
                let (records, group, answer) = submitted?;
                let outcome = answer.await.map_err(|error| BrokerError::of_submit(group, error))?;
                Ok((records, acknowledged(log, outcome)?))
            };
            let (records, acknowledged) = match appended.await {
                Ok(appended) => appended,
                Err(error) => return Err(broker.put_off(error).await),
            };
            broker.counts.count_append(&acknowledged, records, bytes);
            broker.counts.append_latency.observe(started.elapsed());
            Ok(acknowledged)
        })
    }

    /// What is answered for want of a leader is put off until one is known, but not for long: so a client is told where
    /// to go at the moment there is somebody, instead of asking around.
    async fn put_off(&self, error: BrokerError) -> BrokerError {
        let (BrokerError::NoQuorum { group }, Ok(consensus)) = (&error, self.open()) else { return error };
        let group = *group;
        // Whether it changed or not, what is known then is answered.
        drop(tokio::time::timeout(PUT_OFF_MAX, consensus.leader_change(group)).await);
        match consensus.leader(group) {
            Some(leader) if leader != self.node => BrokerError::NotLeader { group, leader },
            Some(_) | None => error,
        }
    }

    fn submit_batch(&self, log: LogId, batch: Bytes) -> Result<Submitted, BrokerError> {
        let consensus = self.open()?;
        let (batch, records) = validated(batch, self.limits.batch_bytes)?;
        let group = self.group_of(consensus.as_ref(), log)?;
        self.lead(consensus.as_ref(), group)?;
        let command = Command::Append { log, append_time: clock::wall(), batch };
        Ok((records, group, consensus.submit(group, command, self.limits.request)))
    }
}

type Submitted = (u64, tidelog_wire::ids::GroupId, Later<Result<Outcome, super::SubmitError>>);

impl FrontEndCounts {
    fn count_append(&self, acknowledged: &Acknowledged, records: u64, bytes: usize) {
        if acknowledged.duplicate {
            self.append_duplicates.add(1);
            return;
        }
        self.appends.add(1);
        self.append_records.add(records);
        self.append_bytes.add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

fn acknowledged(log: LogId, outcome: Outcome) -> Result<Acknowledged, BrokerError> {
    match outcome {
        Outcome::Appended { base_offset, last_offset, chain, append_time, duplicate } => {
            Ok(Acknowledged { base_offset, last_offset, chain, append_time, duplicate })
        }
        Outcome::Refused(refusal) => Err(refused(log, &refusal)),
        other @ (Outcome::LogsOpened
        | Outcome::LogsClosed
        | Outcome::LogStartSet { .. }
        | Outcome::ProducersExpired
        | Outcome::NodeRegistered
        | Outcome::CursorSet { .. }
        | Outcome::CursorDeleted
        | Outcome::ApplyVersionRaised { .. }
        | Outcome::Noted
        | Outcome::GroupCreated { .. }
        | Outcome::ReplicaPlaced { .. }
        | Outcome::ChannelsCreated(_)
        | Outcome::ChannelsDeleted(_)
        | Outcome::ProducerMinted(_)) => Err(BrokerError::Unexpected { outcome: format!("{other:?}") }),
    }
}

/// What a client is told when a command on `log` was agreed on and refused.
#[expect(clippy::wildcard_enum_match_arm, reason = "any other refusal is told in its own words")]
pub(super) fn refused(log: LogId, refusal: &Refusal) -> BrokerError {
    match refusal {
        Refusal::LogUnknown { .. } => BrokerError::NotReady { what: format!("log {log}") },
        Refusal::LogClosed { .. } => {
            BrokerError::UnknownLog { log, reason: "its channel was deleted".to_owned() }
        }
        Refusal::InvalidBatch { reason } => BrokerError::InvalidBatch { reason: reason.clone() },
        Refusal::OutOfOrderSequence { producer, found, .. } => {
            BrokerError::OutOfOrderSequence { producer: *producer, found: *found }
        }
        Refusal::ProducerFenced { producer, found, .. } => {
            BrokerError::ProducerFenced { producer: *producer, found: *found }
        }
        Refusal::OffsetOutOfRange { asked, start, end, .. } => {
            BrokerError::OffsetOutOfRange { log, asked: *asked, start: *start, end: *end }
        }
        other => BrokerError::InvalidRequest { reason: other.to_string() },
    }
}
