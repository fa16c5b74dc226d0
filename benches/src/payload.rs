//! The batches that are measured: one record each, of bytes that do not compress.

use bytes::Bytes;
use tidelog_wire::batch::{Batch, Codec};
use tidelog_wire::ids::TimestampMs;
use tidelog_wire::limits::KIB;
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
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let value: Bytes = std::iter::repeat_with(&mut next).flatten().take(size).collect();
        let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
        let pushed = builder.push(TimestampMs::ZERO, None, Some(&value), &[]);
        // A first record that does not fit is an error, never `Full`.
        let _taken = pushed.doing("make a record")?;
        let batch = builder.build(None).doing("make a batch")?;
        Ok(Self { value, batch })
    }
}

/// A size as people write it.
pub(crate) fn shown(bytes: usize) -> String {
    format!("{} KiB", bytes / KIB)
}
