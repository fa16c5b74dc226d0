//! The few fields of a stored batch that the engine reads: where it stands and what it weighs.
//!
//! Not here: whether the batch is well formed. It was judged by `tidelog_wire::batch` before it came
//! in, and its checksums say that it is still the same.

use tidelog_wire::ids::{LeaderEpoch, Offset, TimestampMs};

use crate::fields::{Fields, Short, wide};

/// Bytes of a batch's fixed header.
pub(crate) const BATCH_HEADER_BYTES: usize = 61;

/// The length field of a batch counts from byte 12 on.
const LENGTH_FROM: u64 = 12;

/// Facts of a batch header (big-endian, as Kafka lays it out).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredBatch {
    pub(crate) base_offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Bytes of the whole batch.
    pub(crate) len: u64,
    /// CRC-32C of bytes 21 on.
    pub(crate) crc: u32,
    pub(crate) last_offset_delta: u32,
    pub(crate) max_timestamp: TimestampMs,
}

impl StoredBatch {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Short> {
        let mut fields = Fields::new(bytes);
        let base_offset = u64::from_be_bytes(fields.array()?);
        let length = u32::from_be_bytes(fields.array()?);
        let leader_epoch = i32::from_be_bytes(fields.array()?);
        let _magic: [u8; 1] = fields.array()?;
        let crc = u32::from_be_bytes(fields.array()?);
        let _attributes: [u8; 2] = fields.array()?;
        let last_offset_delta = u32::from_be_bytes(fields.array()?);
        let _base_timestamp: [u8; 8] = fields.array()?;
        let max_timestamp = i64::from_be_bytes(fields.array()?);
        let _rest: [u8; 18] = fields.array()?;
        if base_offset > i64::MAX.unsigned_abs() {
            return Err(Short);
        }
        Ok(Self {
            base_offset: Offset(base_offset),
            leader_epoch: LeaderEpoch(leader_epoch),
            len: u64::from(length).saturating_add(LENGTH_FROM),
            crc,
            last_offset_delta,
            max_timestamp: TimestampMs(max_timestamp),
        })
    }

    pub(crate) fn last(&self) -> Offset {
        self.base_offset.plus(u64::from(self.last_offset_delta))
    }

    pub(crate) fn end(&self) -> Offset {
        self.last().plus(1)
    }

    /// Whether `bytes`, the whole batch, have its length and checksum.
    pub(crate) fn matches(&self, bytes: &[u8]) -> Result<(), u32> {
        let found = crc_fast::crc32_iscsi(bytes.get(21..).unwrap_or_default());
        if found == self.crc && self.len == wide(bytes.len()) { Ok(()) } else { Err(found) }
    }
}
