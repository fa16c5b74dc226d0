//! What a record must be: a function of its log's generation, its writer and its number among that writer's records.
//!
//! A writer numbers its records in a log from 0, and waits for each answer. So whoever reads a log from any offset on must
//! see each writer's numbers rise by one, every byte as computed here, and offsets without a gap: a record that is
//! lost, doubled, changed, moved or taken from another life of the log breaks one of these.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::{Generation, Offset, TimestampMs};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed, Records};

/// Something that must not be.
pub(crate) type Violation = String;

/// Bytes of a record before those that only fill it: generation, writer, number.
const HEAD_BYTES: usize = 24;

/// A small generator, so that a seed is the same work on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).checked_rem(limit.max(1)).unwrap_or(0)
    }
}

/// The value of one record.
fn value(generation: Generation, writer: u64, number: u64) -> Vec<u8> {
    let mut dice = Dice::new(generation.get() ^ (writer << 40) ^ (number << 8));
    let fill = usize::try_from(dice.below(600)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + fill + 8);
    for part in [generation.get(), writer, number] {
        bytes.extend_from_slice(&part.to_le_bytes());
    }
    while bytes.len() < HEAD_BYTES + fill {
        bytes.extend_from_slice(&dice.below(u64::MAX).to_le_bytes());
    }
    bytes
}

/// `count` records of a writer from `number` on.
pub(crate) fn batch(
    generation: Generation,
    writer: u64,
    number: u64,
    count: u64,
    time: TimestampMs,
) -> Result<Batch, Violation> {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for number in number..number + count {
        let pushed = builder.push(time, None, Some(&value(generation, writer, number)), &[]);
        if pushed != Ok(Pushed::Taken) {
            return Err(format!("a record cannot be built: {pushed:?}"));
        }
    }
    builder.build(None).map_err(|error| format!("a batch cannot be built: {error}"))
}

/// A way through a log, record by record.
#[derive(Clone, Debug)]
pub(crate) struct Follower {
    generation: Generation,
    /// Where it goes on.
    pub(crate) next: Offset,
    numbers: BTreeMap<u64, u64>,
    /// Records verified.
    pub(crate) verified: u64,
}

impl Follower {
    /// Begins at `from`, where every writer may be anywhere.
    pub(crate) const fn new(generation: Generation, from: Offset) -> Self {
        Self { generation, next: from, numbers: BTreeMap::new(), verified: 0 }
    }

    /// Verifies the batches that a read at [`Follower::next`] gave.
    pub(crate) fn take(&mut self, batches: Vec<Bytes>) -> Result<(), Violation> {
        for bytes in batches {
            let batch = Batch::parse(bytes, BatchLimits::default())
                .map_err(|error| format!("what was read at {} is no batch: {error}", self.next))?;
            let base = batch.base_offset().ok_or("a batch without its offset was read")?;
            let records = Records::of(&batch).map_err(|error| format!("the batch at {base}: {error}"))?;
            let mut at = base;
            for record in records {
                let record = record.map_err(|error| format!("the record at {at}: {error}"))?;
                // A batch that begins below is returned whole.
                if at >= self.next {
                    self.record(at, record.value.as_deref().unwrap_or_default())?;
                }
                at = at.plus(1);
            }
        }
        Ok(())
    }

    fn record(&mut self, at: Offset, found: &[u8]) -> Result<(), Violation> {
        if at != self.next {
            return Err(format!("offset {at} follows {}", self.next));
        }
        let mut parts = found.chunks_exact(8).filter_map(|part| part.try_into().ok().map(u64::from_le_bytes));
        let (Some(generation), Some(writer), Some(number)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(format!("offset {at}: a record of {} bytes", found.len()));
        };
        if generation != self.generation.get() {
            return Err(format!("offset {at} of generation {} is one of {generation}", self.generation));
        }
        if found != value(self.generation, writer, number) {
            return Err(format!("offset {at}: record {number} of writer {writer} has other bytes"));
        }
        let expected = self.numbers.insert(writer, number + 1);
        if expected.is_some_and(|expected| expected != number) {
            return Err(format!("offset {at}: record {number} of writer {writer}, expected {expected:?}"));
        }
        self.next = self.next.plus(1);
        self.verified += 1;
        Ok(())
    }

    /// How many records of each writer there were at the end, as far as they were seen.
    pub(crate) const fn numbers(&self) -> &BTreeMap<u64, u64> {
        &self.numbers
    }
}
