//! Batches of a given size.

use tidelog_wire::batch::{Batch, Codec};
use tidelog_wire::ids::TimestampMs;
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use crate::Failure;

/// Bytes of a value such that a batch with that one record has `batch_bytes`, give or take a few.
#[must_use]
pub const fn value_bytes(batch_bytes: usize) -> usize {
    batch_bytes.saturating_sub(61 + 10)
}

/// A batch of one uncompressed record, of `batch_bytes`, give or take a few.
///
/// # Errors
/// If no such batch can be built.
pub fn batch(batch_bytes: usize) -> Result<Batch, Failure> {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    let value = vec![b'v'; value_bytes(batch_bytes)];
    match builder.push(TimestampMs(1_790_000_000_000), None, Some(&value), &[])? {
        Pushed::Taken => Ok(builder.build(None)?),
        Pushed::Full => Err("the batch does not take its only record".into()),
    }
}
