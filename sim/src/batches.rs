//! Batches that producers send: valid ones, of random sizes, each unlike any other.

use bytes::{BufMut, Bytes, BytesMut};
use tidelog_wire::batch::{Batch, BatchHeader, BatchLimits, MAGIC};
use tidelog_wire::ids::ProducerId;

use crate::chance::Chance;

/// Bytes from the length field's end on that a header has.
const HEADER_AFTER_LENGTH: usize = 49;
/// Bytes that each record of ours takes.
const RECORD_BYTES: usize = 16;

/// A batch of `producer` with records from `sequence` on, how many is drawn.
///
/// Its records are noise: nothing between a producer and a consumer reads them.
#[must_use]
pub(crate) fn batch(producer: ProducerId, sequence: i32, chance: &mut Chance) -> Option<Batch> {
    let count = chance.between(1, 6);
    let noise = if chance.one_in(20) { 2_000 } else { 120 };
    let extra = usize::try_from(chance.below(noise)).ok()?;
    let records = usize::try_from(count).ok()?.checked_mul(RECORD_BYTES)?.checked_add(extra)?;
    let mut body = BytesMut::with_capacity(records);
    while body.len() < records {
        body.put_u64(chance.draw());
    }
    body.truncate(records);
    let count = i32::try_from(count).ok()?;
    let mut header = BatchHeader {
        base_offset: 0,
        length: i32::try_from(HEADER_AFTER_LENGTH.checked_add(records)?).ok()?,
        leader_epoch: -1,
        magic: MAGIC,
        crc: 0,
        attributes: 0,
        last_offset_delta: count.checked_sub(1)?,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: producer.get(),
        producer_epoch: 0,
        base_sequence: sequence,
        record_count: count,
    };
    let head = header.encode();
    let (_, covered) = head.split_at_checked(21)?;
    header.crc = crc32c::crc32c_append(crc32c::crc32c(covered), &body);
    let mut bytes = BytesMut::from(header.encode().as_slice());
    bytes.extend_from_slice(&body);
    Batch::parse(Bytes::from(bytes), BatchLimits::CAP).ok()
}
