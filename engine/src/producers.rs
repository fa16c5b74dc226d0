//! Idempotent producers of one log: tells a retry from a new batch, the same on every replica.
//!
//! A pure state machine: no clock, no log, no I/O. Apply calls [`ProducerTable::check`], appends if
//! told so, and calls [`ProducerTable::record`]; the table travels in checkpoints and snapshots. It
//! is never rebuilt from segments, which retention removes at another time than a producer expires.
//!
//! 1. Per producer it keeps the epoch and its last [`BATCHES_KEPT`] batches.
//! 2. A batch with the epoch and the exact sequences of a kept one is a duplicate: its old offsets
//!    are the answer. A batch that follows the last one is new. Anything else is out of order.
//! 3. A lower epoch is fenced. A higher one must begin at sequence 0 and resets the window.
//! 4. An unknown producer (new, or expired) may begin anywhere.
//! 5. At [`PRODUCERS_MAX`] the producer that was silent longest makes room, by log time, so that
//!    replicas agree.
//!
//! Not here: joining a retry to a batch that is still in flight. See the proposer.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{Chain, Offset, ProducerId, TimestampMs};

use crate::fields::{FieldWriter, Fields, Short};

/// Batches remembered per producer: as many as a client may have in flight.
pub const BATCHES_KEPT: usize = 5;

/// Producers remembered per log.
pub const PRODUCERS_MAX: usize = 8192;

/// Sequences are counted modulo this.
const SEQUENCES: i64 = 1 << 31;

/// A batch that a producer has appended, with what it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Chain up to and including it.
    pub chain: Chain,
    /// When it was appended, by the leader's clock.
    pub append_time: TimestampMs,
}

/// The producer fields of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerStamp {
    /// Who.
    pub id: ProducerId,
    /// Which session of it.
    pub epoch: i16,
    /// Sequence of the batch's first record.
    pub first_sequence: i32,
    /// Records in the batch, at least 1.
    pub count: u32,
}

impl ProducerStamp {
    /// The producer fields of `batch`; `None` if its producer is not idempotent.
    #[must_use]
    pub fn of(batch: &Batch) -> Option<Self> {
        let claim = batch.producer()?;
        Some(Self {
            id: claim.id,
            epoch: claim.epoch,
            first_sequence: claim.first_sequence,
            count: batch.count(),
        })
    }

    /// Sequence of the batch's last record; sequences go round from 2^31 - 1 to 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        let sum = i64::from(self.first_sequence)
            .saturating_add(i64::from(self.count))
            .saturating_sub(1)
            .rem_euclid(SEQUENCES);
        i32::try_from(sum).unwrap_or(0)
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: append it, then record it.
    Append,
    /// It is in the log already: answer with this.
    Duplicate(RecordedBatch),
    /// It neither follows the last batch nor repeats a kept one.
    OutOfOrder {
        /// The sequence that would be next.
        expected: i32,
    },
    /// A newer session of this producer has written.
    Fenced {
        /// Its epoch.
        current: i16,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Oldest first; 1..=[`BATCHES_KEPT`].
    batches: Vec<RecordedBatch>,
}

impl Producer {
    fn last(&self) -> Option<&RecordedBatch> {
        self.batches.last()
    }

    fn last_time(&self) -> TimestampMs {
        self.last().map_or(TimestampMs(i64::MIN), |batch| batch.append_time)
    }
}

/// The producers of one log. A copy for a checkpoint costs nothing until the table changes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTable {
    producers: Arc<BTreeMap<ProducerId, Producer>>,
}

impl ProducerTable {
    /// A table that knows nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether nobody is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Judges a batch. Changes nothing.
    #[must_use]
    pub fn check(&self, stamp: &ProducerStamp) -> Verdict {
        let Some(producer) = self.producers.get(&stamp.id) else { return Verdict::Append };
        let Some(last) = producer.last() else { return Verdict::Append };
        if stamp.epoch < producer.epoch {
            return Verdict::Fenced { current: producer.epoch };
        }
        if stamp.epoch > producer.epoch {
            return if stamp.first_sequence == 0 {
                Verdict::Append
            } else {
                Verdict::OutOfOrder { expected: 0 }
            };
        }
        let last_sequence = stamp.last_sequence();
        let same = producer
            .batches
            .iter()
            .find(|kept| kept.first_sequence == stamp.first_sequence && kept.last_sequence == last_sequence);
        if let Some(kept) = same {
            return Verdict::Duplicate(*kept);
        }
        let expected = following(last.last_sequence);
        if stamp.first_sequence == expected { Verdict::Append } else { Verdict::OutOfOrder { expected } }
    }

    /// Remembers a batch that was appended after [`ProducerTable::check`] said [`Verdict::Append`].
    pub fn record(
        &mut self,
        stamp: &ProducerStamp,
        base_offset: Offset,
        chain: Chain,
        append_time: TimestampMs,
    ) {
        let batch = RecordedBatch {
            first_sequence: stamp.first_sequence,
            last_sequence: stamp.last_sequence(),
            base_offset,
            last_offset: base_offset.plus(u64::from(stamp.count.saturating_sub(1))),
            chain,
            append_time,
        };
        if !self.producers.contains_key(&stamp.id) && self.producers.len() >= PRODUCERS_MAX {
            self.forget_most_silent();
        }
        let producer = Arc::make_mut(&mut self.producers)
            .entry(stamp.id)
            .or_insert_with(|| Producer { epoch: stamp.epoch, batches: Vec::new() });
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() >= BATCHES_KEPT {
            producer.batches.remove(0);
        }
        producer.batches.push(batch);
    }

    /// Forgets the producers whose last batch was appended before `before`, and says how many.
    pub fn expire(&mut self, before: TimestampMs) -> usize {
        let known = self.producers.len();
        Arc::make_mut(&mut self.producers).retain(|_, producer| producer.last_time() >= before);
        known.saturating_sub(self.producers.len())
    }

    /// When the producer that was silent longest appended last.
    #[must_use]
    pub fn oldest(&self) -> Option<TimestampMs> {
        self.producers.values().map(Producer::last_time).min()
    }

    fn forget_most_silent(&mut self) {
        let silent = self.producers.iter().map(|(id, producer)| (producer.last_time(), *id)).min();
        if let Some((_, id)) = silent {
            Arc::make_mut(&mut self.producers).remove(&id);
        }
    }

    /// Part of the checkpoint format: see `docs/formats/checkpoint.md`.
    pub(crate) fn encode(&self, out: &mut FieldWriter) {
        out.count(self.producers.len());
        for (id, producer) in self.producers.as_ref() {
            out.i64(id.get()).i16(producer.epoch).u16(u16::try_from(producer.batches.len()).unwrap_or(0));
            for batch in &producer.batches {
                out.i32(batch.first_sequence).i32(batch.last_sequence);
                out.u64(batch.base_offset.get()).u64(batch.last_offset.get());
                out.u64(batch.chain.get()).i64(batch.append_time.get());
            }
        }
    }

    /// The reverse of [`ProducerTable::encode`].
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Short> {
        let count = fields.count(12)?;
        if count > PRODUCERS_MAX {
            return Err(Short);
        }
        let mut producers = BTreeMap::new();
        for _ in 0..count {
            let id = ProducerId(fields.i64()?);
            let epoch = fields.i16()?;
            let kept = usize::from(fields.u16()?);
            if kept == 0 || kept > BATCHES_KEPT {
                return Err(Short);
            }
            let mut batches = Vec::with_capacity(BATCHES_KEPT);
            for _ in 0..kept {
                batches.push(RecordedBatch {
                    first_sequence: fields.i32()?,
                    last_sequence: fields.i32()?,
                    base_offset: Offset(fields.u64()?),
                    last_offset: Offset(fields.u64()?),
                    chain: Chain(fields.u64()?),
                    append_time: TimestampMs(fields.i64()?),
                });
            }
            if producers.last_key_value().is_some_and(|(before, _)| *before >= id) {
                return Err(Short);
            }
            producers.insert(id, Producer { epoch, batches });
        }
        Ok(Self { producers: Arc::new(producers) })
    }
}

/// The sequence after `sequence`.
const fn following(sequence: i32) -> i32 {
    match sequence.checked_add(1) {
        Some(next) => next,
        None => 0,
    }
}

#[cfg(test)]
mod tests;
