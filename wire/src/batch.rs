//! The record batch: what a client sends, a log stores and a consumer gets, byte for byte.
//!
//! The format is Kafka's RecordBatch v2, big-endian. Its CRC-32C covers bytes 21 to the end, so that the two fields
//! that a node must set, base offset and leader epoch, can be patched without touching what the producer vouched for.
//!
//! 1. [`BatchHeader::parse`] reads the 61 bytes and trusts nothing.
//! 2. [`Batch::parse`] checks a whole batch once: lengths, checksum, and the rules below. Whoever holds a
//!    [`Batch`] need not check again.
//! 3. [`Batch::stamped`] gives the batch as it lies in a log: 21 fresh bytes, and the rest shared.
//!
//! The rules, each with an error of its own: exactly one batch; size within the limit; magic 2; checksum right; at
//! least one record and no holes (`lastOffsetDelta + 1 == recordCount`); a known codec; no control, transactional
//! or unknown attribute bit; a producer id comes with epoch and sequence.
//!
//! Not here: the records inside, see [`crate::records`]. Nothing on the way from producer to consumer parses them.

use bytes::{Buf, BufMut as _, Bytes};

use crate::ids::{LeaderEpoch, Offset, ProducerId, TimestampMs};
use crate::limits;

mod error;
#[cfg(test)]
mod tests;

pub use error::BatchError;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes at the start of a batch that its CRC does not cover, the CRC itself included.
pub const PREFIX_BYTES: usize = 21;
/// Where the bytes start that the chain covers: behind base offset, length and leader epoch.
pub const CHAIN_FROM: usize = 16;
/// The only magic there is.
pub const MAGIC: u8 = 2;
/// `length` counts from byte 12 on.
const LENGTH_FROM: usize = 12;
const CODEC_MASK: u16 = 0b0111;
const LOG_APPEND_TIME: u16 = 0b1000;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As they are.
    None,
    /// gzip.
    Gzip,
    /// snappy, in the framing of the Java library, or a raw block.
    Snappy,
    /// lz4 frame.
    Lz4,
    /// zstd.
    Zstd,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in the attributes.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    const fn from_attributes(attributes: u16) -> Option<Self> {
        match attributes & CODEC_MASK {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Limits that a batch is checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Largest batch accepted, header included.
    pub batch_bytes_max: usize,
}

impl BatchLimits {
    /// What any configuration may allow: for batches that were accepted once, such as those read back.
    pub const CAP: Self = Self { batch_bytes_max: limits::BATCH_BYTES_CAP };
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { batch_bytes_max: limits::BATCH_BYTES_DEFAULT }
    }
}

/// An idempotent producer's claim about a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerStamp {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch, from 0.
    pub epoch: i16,
    /// Sequence number of the batch's first record, from 0, wrapping after `i32::MAX`.
    pub first_sequence: i32,
}

/// Header of a batch: 61 bytes, big-endian, then the records or one compressed blob of them.
///
/// | at | size | field              | in CRC | meaning                                                        |
/// |---:|-----:|--------------------|--------|----------------------------------------------------------------|
/// |  0 |    8 | `base_offset`      | no     | offset of the first record; set by the node that appends       |
/// |  8 |    4 | `length`           | no     | bytes from 12 to the end                                       |
/// | 12 |    4 | `leader_epoch`     | no     | epoch of the append; set by the node that appends              |
/// | 16 |    1 | `magic`            | no     | 2                                                              |
/// | 17 |    4 | `crc`              | -      | CRC-32C of bytes 21 to the end                                 |
/// | 21 |    2 | `attributes`       | yes    | bits 0-2 codec, 3 time of append; the others must be zero      |
/// | 23 |    4 | `last_offset_delta`| yes    | `record_count - 1`                                             |
/// | 27 |    8 | `base_timestamp`   | yes    | ms since 1970 that the records' times are relative to          |
/// | 35 |    8 | `max_timestamp`    | yes    | largest time of a record                                       |
/// | 43 |    8 | `producer_id`      | yes    | -1 if none                                                     |
/// | 51 |    2 | `producer_epoch`   | yes    | -1 if none                                                     |
/// | 53 |    4 | `base_sequence`    | yes    | -1 if none                                                     |
/// | 57 |    4 | `record_count`     | yes    | at least 1                                                     |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record, as the bytes say.
    pub base_offset: i64,
    /// Bytes from 12 to the end.
    pub length: i32,
    /// Epoch of the append.
    pub leader_epoch: i32,
    /// 2.
    pub magic: u8,
    /// CRC-32C of bytes 21 to the end.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: u16,
    /// Offset of the last record less that of the first.
    pub last_offset_delta: i32,
    /// What the records' times are relative to.
    pub base_timestamp: i64,
    /// Largest time of a record.
    pub max_timestamp: i64,
    /// -1 if none.
    pub producer_id: i64,
    /// -1 if none.
    pub producer_epoch: i16,
    /// -1 if none.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the first 61 bytes, field by field. Only their presence and the magic are checked.
    ///
    /// # Errors
    /// [`BatchError::Truncated`], [`BatchError::Magic`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated { found: bytes.len(), expected: HEADER_BYTES });
        };
        let mut at = head.as_slice();
        let header = Self {
            base_offset: at.get_i64(),
            length: at.get_i32(),
            leader_epoch: at.get_i32(),
            magic: at.get_u8(),
            crc: at.get_u32(),
            attributes: at.get_u16(),
            last_offset_delta: at.get_i32(),
            base_timestamp: at.get_i64(),
            max_timestamp: at.get_i64(),
            producer_id: at.get_i64(),
            producer_epoch: at.get_i16(),
            base_sequence: at.get_i32(),
            record_count: at.get_i32(),
        };
        if header.magic != MAGIC {
            return Err(BatchError::Magic { found: header.magic });
        }
        Ok(header)
    }

    /// The 61 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = bytes.as_mut_slice();
        let out: &mut dyn bytes::BufMut = &mut at;
        out.put_i64(self.base_offset);
        out.put_i32(self.length);
        out.put_i32(self.leader_epoch);
        out.put_u8(self.magic);
        out.put_u32(self.crc);
        out.put_u16(self.attributes);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.record_count);
        bytes
    }

    /// Size of the whole batch in bytes, checked against `limits`; to be called before anything is allocated for it.
    ///
    /// # Errors
    /// [`BatchError::Length`], [`BatchError::TooLarge`].
    pub fn total_bytes(&self, limits: BatchLimits) -> Result<usize, BatchError> {
        let total = usize::try_from(self.length)
            .ok()
            .and_then(|length| length.checked_add(LENGTH_FROM))
            .filter(|total| *total >= HEADER_BYTES)
            .ok_or(BatchError::Length { length: self.length })?;
        if total > limits.batch_bytes_max {
            return Err(BatchError::TooLarge { bytes: total, max: limits.batch_bytes_max });
        }
        Ok(total)
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// [`BatchError::Codec`]: its number is not known.
    pub const fn codec(&self) -> Result<Codec, BatchError> {
        match Codec::from_attributes(self.attributes) {
            Some(codec) => Ok(codec),
            None => Err(BatchError::Codec { number: self.attributes & CODEC_MASK }),
        }
    }

    fn check_rules(&self, body_bytes: usize) -> Result<(u32, Codec, Option<ProducerStamp>), BatchError> {
        let codec = self.codec()?;
        let unknown = self.attributes & !(CODEC_MASK | LOG_APPEND_TIME);
        if unknown != 0 {
            return Err(BatchError::Attributes { bits: unknown });
        }
        let bad_count = BatchError::Count { count: self.record_count, last_delta: self.last_offset_delta };
        let Ok(count) = usize::try_from(self.record_count) else { return Err(bad_count) };
        let fits = codec != Codec::None || count <= body_bytes / limits::RECORD_BYTES_MIN;
        if count == 0
            || count > limits::RECORDS_MAX
            || !fits
            || self.last_offset_delta.checked_add(1) != Some(self.record_count)
        {
            return Err(bad_count);
        }
        let count = u32::try_from(count).map_err(|_| bad_count)?;
        Ok((count, codec, self.producer()?))
    }

    fn producer(&self) -> Result<Option<ProducerStamp>, BatchError> {
        match (self.producer_id, self.producer_epoch, self.base_sequence) {
            (-1, _, _) => Ok(None),
            (0.., 0.., 0..) => Ok(Some(ProducerStamp {
                id: ProducerId(self.producer_id),
                epoch: self.producer_epoch,
                first_sequence: self.base_sequence,
            })),
            (id, epoch, sequence) => Err(BatchError::Producer { id, epoch, sequence }),
        }
    }
}

/// One whole batch that has been checked: lengths, checksum and rules.
///
/// Cheap to clone: the bytes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Bytes,
    header: BatchHeader,
    count: u32,
    codec: Codec,
    producer: Option<ProducerStamp>,
}

impl Batch {
    /// Checks that `bytes` are exactly one batch that may be stored, without copying them.
    ///
    /// # Errors
    /// The first rule that is broken; see [`BatchError`]. Nothing is kept.
    pub fn parse(bytes: Bytes, limits: BatchLimits) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let total = header.total_bytes(limits)?;
        if bytes.len() < total {
            return Err(BatchError::Truncated { found: bytes.len(), expected: total });
        }
        if bytes.len() > total {
            return Err(BatchError::Trailing { found: bytes.len(), expected: total });
        }
        let covered = bytes.get(PREFIX_BYTES..).unwrap_or_default();
        let crc = crc_fast::crc32_iscsi(covered);
        if crc != header.crc {
            return Err(BatchError::Crc { found: crc, expected: header.crc });
        }
        let (count, codec, producer) = header.check_rules(total - HEADER_BYTES)?;
        Ok(Self { bytes, header, count, codec, producer })
    }

    /// Takes the first batch off `bytes`, which hold batches back to back, as a log or an answer to a fetch does.
    ///
    /// `None` when nothing is left. After an error `bytes` are as they were.
    ///
    /// # Errors
    /// As for [`Batch::parse`].
    pub fn take_first(bytes: &mut Bytes, limits: BatchLimits) -> Result<Option<Self>, BatchError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let total = BatchHeader::parse(bytes)?.total_bytes(limits)?;
        if bytes.len() < total {
            return Err(BatchError::Truncated { found: bytes.len(), expected: total });
        }
        let batch = Self::parse(bytes.slice(..total), limits)?;
        bytes.advance(total);
        Ok(Some(batch))
    }

    /// The whole batch.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, given away.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The header, field by field.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Number of records, at least 1.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The codec of the records.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The idempotent producer's claim, if there is one.
    #[must_use]
    pub const fn producer(&self) -> Option<ProducerStamp> {
        self.producer
    }

    /// Largest time of a record, as the producer says; -1 if it gave none.
    #[must_use]
    pub const fn max_timestamp(&self) -> TimestampMs {
        TimestampMs(self.header.max_timestamp)
    }

    /// Offset of the first record: meaningful once stamped. `None` if the bytes hold a negative number.
    #[must_use]
    pub fn base_offset(&self) -> Option<Offset> {
        u64::try_from(self.header.base_offset).ok().map(Offset)
    }

    /// Offset of the last record, as [`Batch::base_offset`].
    #[must_use]
    pub fn last_offset(&self) -> Option<Offset> {
        let delta = u64::from(self.count).checked_sub(1)?;
        self.base_offset()?.get().checked_add(delta).map(Offset)
    }

    /// Epoch of the append: meaningful once stamped.
    #[must_use]
    pub const fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.header.leader_epoch)
    }

    /// The records, possibly compressed: the bytes behind the header.
    #[must_use]
    pub fn body(&self) -> Bytes {
        self.bytes.slice(HEADER_BYTES.min(self.bytes.len())..)
    }

    /// What the chain covers: the bytes from 16 on, which are the same in every log that holds this batch.
    #[must_use]
    pub fn chain_input(&self) -> &[u8] {
        self.bytes.get(CHAIN_FROM..).unwrap_or_default()
    }

    /// The batch as it lies in a log at `base`: its first 21 bytes, and the rest, which is shared and not copied.
    ///
    /// # Panics
    /// If `base` is beyond `i64::MAX`, which the format cannot say and no log reaches.
    #[must_use]
    pub fn stamped(&self, base: Offset, epoch: LeaderEpoch) -> ([u8; PREFIX_BYTES], Bytes) {
        let base_offset = i64::try_from(base.get());
        assert!(base_offset.is_ok(), "offset {base} beyond i64");
        let mut prefix = [0; PREFIX_BYTES];
        let mut at = prefix.as_mut_slice();
        at.put_i64(base_offset.unwrap_or(i64::MAX));
        at.put_i32(self.header.length);
        at.put_i32(epoch.get());
        at.put_u8(self.header.magic);
        at.put_u32(self.header.crc);
        (prefix, self.bytes.slice(PREFIX_BYTES.min(self.bytes.len())..))
    }

    /// The batch as it lies in a log at `base`, in one piece. Copies; for tests and for small batches.
    ///
    /// # Panics
    /// As [`Batch::stamped`].
    #[must_use]
    pub fn stamped_bytes(&self, base: Offset, epoch: LeaderEpoch) -> Bytes {
        let (prefix, rest) = self.stamped(base, epoch);
        let mut whole = bytes::BytesMut::with_capacity(self.bytes.len());
        whole.extend_from_slice(&prefix);
        whole.extend_from_slice(&rest);
        whole.freeze()
    }
}
