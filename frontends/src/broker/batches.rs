//! The one place where a client's batch is validated. Whatever passes is stored as it is.

use bytes::Bytes;
use tidelog_wire::batch::{Batch, BatchError, BatchLimits};

use super::BrokerError;

/// The batch in `bytes`, if it is exactly one that may be stored, and how many records it has.
pub(super) fn validated(bytes: Bytes, bytes_max: usize) -> Result<(Bytes, u64), BrokerError> {
    let batch = Batch::parse(bytes, BatchLimits { batch_bytes_max: bytes_max }).map_err(refusal)?;
    let records = u64::from(batch.count());
    Ok((batch.bytes().clone(), records))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other fault breaks a rule, and says which")]
fn refusal(error: BatchError) -> BrokerError {
    let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    match error {
        BatchError::TooLarge { bytes, max } => {
            BrokerError::BatchTooLarge { bytes: count(bytes), max: count(max) }
        }
        BatchError::Crc { .. } => BrokerError::CorruptBatch { reason: error.to_string() },
        other => BrokerError::InvalidBatch { reason: other.to_string() },
    }
}

/// A batch of these values, as a client makes it.
#[cfg(test)]
pub(crate) fn batch_of(values: &[&str]) -> Bytes {
    use tidelog_wire::batch::Codec;
    use tidelog_wire::ids::TimestampMs;
    use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for value in values {
        let pushed = builder.push(TimestampMs(0), None, Some(value.as_bytes()), &[]).unwrap();
        assert_eq!(pushed, Pushed::Taken);
    }
    builder.build(None).unwrap().into_bytes()
}
