//! The batches that are measured: of records of one size, whose bytes do not compress.

use bytes::Bytes;
use tidelog_wire::batch::{Batch, Codec};
use tidelog_wire::ids::TimestampMs;
use tidelog_wire::limits::{KIB, MIB};
use tidelog_wire::records::{BatchBuilder, BuilderLimits};

use crate::error::{BenchError, Doing as _};

/// Sizes of the record's value, which is all the payload that a batch has.
pub(crate) const SIZES: [usize; 2] = [KIB, 64 * KIB];

/// What is written, sent and appended in one operation.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    /// The record's value.
    pub(crate) value: Bytes,
    /// The batch around it: the bytes that floors write and send.
    pub(crate) batch: Batch,
}

impl Payload {
    /// A batch of one record of `size` bytes.
    pub(crate) fn of(size: usize) -> Result<Self, BenchError> {
        Self::of_records(1, size)
    }

    /// A batch of `count` records of `size` bytes.
    pub(crate) fn of_records(count: usize, size: usize) -> Result<Self, BenchError> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let value: Bytes = std::iter::repeat_with(&mut next).flatten().take(size).collect();
        let limits = BuilderLimits { batch_bytes_max: 2 * MIB, ..BuilderLimits::default() };
        let mut builder = BatchBuilder::new(Codec::None, limits);
        for _ in 0..count {
            let pushed = builder.push(TimestampMs::ZERO, None, Some(&value), &[]);
            // What the limits are well above of is never `Full`.
            let _taken = pushed.doing("make a record")?;
        }
        let batch = builder.build(None).doing("make a batch")?;
        Ok(Self { value, batch })
    }
}

/// A size as people write it.
pub(crate) fn shown(bytes: usize) -> String {
    format!("{} KiB", bytes / KIB)
}
