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

/// A batch of these values, as good as any client's to everyone who does not look into records.
#[cfg(test)]
pub(crate) fn batch_of(values: &[&str]) -> Bytes {
    use tidelog_wire::batch::BatchHeader;

    let body: Vec<u8> = values.iter().flat_map(|value| format!("{value:>7}").into_bytes()).collect();
    let count = i32::try_from(values.len()).unwrap();
    let mut header = BatchHeader {
        base_offset: 0,
        length: i32::try_from(49 + body.len()).unwrap(),
        leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: count,
    };
    let bytes = |header: &BatchHeader| [header.encode().to_vec(), body.clone()].concat();
    // An attempt to parse tells the checksum that is expected.
    header.crc = match Batch::parse(bytes(&header).into(), BatchLimits::CAP) {
        Err(BatchError::Crc { found, .. }) => found,
        other => panic!("a wrong checksum was expected: {other:?}"),
    };
    bytes(&header).into()
}
