//! Builds a batch from records, within limits.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::BuildError;
use super::{compress, varint};
use crate::batch::{
    Batch, BatchHeader, BatchLimits, Codec, HEADER_BYTES, MAGIC, PREFIX_BYTES, ProducerStamp,
};
use crate::ids::TimestampMs;
use crate::limits;

/// How full a batch may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuilderLimits {
    /// Most bytes of the batch, header included, before compression. Not above [`limits::BATCH_BYTES_CAP`].
    pub batch_bytes_max: usize,
    /// Most records.
    pub records_max: u32,
}

impl Default for BuilderLimits {
    fn default() -> Self {
        Self { batch_bytes_max: limits::BATCH_BYTES_DEFAULT, records_max: 100_000 }
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It is in the batch.
    Taken,
    /// The batch is full; the record goes into the next one.
    Full,
}

/// Collects records for one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    codec: Codec,
    limits: BuilderLimits,
    body: BytesMut,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty one.
    #[must_use]
    pub fn new(codec: Codec, limits: BuilderLimits) -> Self {
        let batch_bytes_max = limits.batch_bytes_max.clamp(HEADER_BYTES, limits::BATCH_BYTES_CAP);
        let records_max = limits.records_max.max(1);
        let limits = BuilderLimits { batch_bytes_max, records_max };
        Self { codec, limits, body: BytesMut::new(), count: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    /// Adds a record behind the others, if there is room.
    ///
    /// # Errors
    /// [`BuildError::RecordTooLarge`], [`BuildError::TooManyHeaders`], [`BuildError::Timestamp`]. Nothing was added.
    pub fn push(
        &mut self,
        time: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Result<Pushed, BuildError> {
        if headers.len() > limits::RECORD_HEADERS_MAX {
            return Err(BuildError::TooManyHeaders { found: headers.len(), max: limits::RECORD_HEADERS_MAX });
        }
        let first = if self.is_empty() { time.get() } else { self.base_timestamp };
        let time_delta =
            time.get().checked_sub(first).ok_or(BuildError::Timestamp { found: time.get(), first })?;
        let fields = 1
            + varint::len(time_delta)
            + varint::len(i64::from(self.count))
            + sized_len(key)
            + sized_len(value)
            + varint::len(length(headers.len()))
            + headers.iter().map(|(key, value)| sized_len(Some(key)) + sized_len(*value)).sum::<usize>();
        let whole = varint::len(length(fields)) + fields;
        let room = self.limits.batch_bytes_max - HEADER_BYTES;
        if whole > room {
            return Err(BuildError::RecordTooLarge { bytes: whole, max: room });
        }
        if self.body.len() + whole > room || self.count() >= self.limits.records_max {
            return Ok(Pushed::Full);
        }
        varint::put(length(fields), &mut self.body);
        self.body.put_u8(0);
        varint::put(time_delta, &mut self.body);
        varint::put(i64::from(self.count), &mut self.body);
        self.put_sized(key);
        self.put_sized(value);
        varint::put(length(headers.len()), &mut self.body);
        for (key, value) in headers {
            self.put_sized(Some(key));
            self.put_sized(*value);
        }
        self.max_timestamp = if self.is_empty() { time.get() } else { self.max_timestamp.max(time.get()) };
        self.base_timestamp = first;
        self.count += 1;
        Ok(Pushed::Taken)
    }

    /// How many records it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.count).unwrap_or_default()
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether no record at all can be added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count() >= self.limits.records_max
            || self.bytes() + limits::RECORD_BYTES_MIN > self.limits.batch_bytes_max
    }

    /// Bytes of the batch, before compression.
    #[must_use]
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The batch, compressed if that makes it smaller, with its checksum, and unstamped: base offset 0, leader epoch -1.
    ///
    /// # Errors
    /// [`BuildError::Empty`], [`BuildError::Compress`], [`BuildError::Rules`].
    pub fn build(self, producer: Option<ProducerStamp>) -> Result<Batch, BuildError> {
        let Some(last_offset_delta) = self.count.checked_sub(1).filter(|last| *last >= 0) else {
            return Err(BuildError::Empty);
        };
        let compressed = match self.codec {
            Codec::None => None,
            codec @ (Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd) => {
                Some(compress::compress(codec, &self.body)?).filter(|bytes| bytes.len() < self.body.len())
            }
        };
        let (codec, body) = match compressed {
            Some(bytes) => (self.codec, Bytes::from(bytes)),
            None => (Codec::None, self.body.freeze()),
        };
        let total = HEADER_BYTES + body.len();
        let too_large = BuildError::RecordTooLarge { bytes: total, max: limits::BATCH_BYTES_CAP };
        let mut header = BatchHeader {
            base_offset: 0,
            length: i32::try_from(total - 12).map_err(|_| too_large)?,
            leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: codec.number(),
            last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: producer.map_or(-1, |stamp| stamp.id.get()),
            producer_epoch: producer.map_or(-1, |stamp| stamp.epoch),
            base_sequence: producer.map_or(-1, |stamp| stamp.first_sequence),
            record_count: self.count,
        };
        let bare = header.encode();
        let crc = crc32c::crc32c(bare.get(PREFIX_BYTES..).unwrap_or_default());
        header.crc = crc32c::crc32c_append(crc, &body);
        let mut bytes = BytesMut::with_capacity(total);
        bytes.put_slice(&header.encode());
        bytes.put_slice(&body);
        Ok(Batch::parse(bytes.freeze(), BatchLimits::CAP)?)
    }

    fn put_sized(&mut self, bytes: Option<&[u8]>) {
        varint::put(bytes.map_or(-1, |bytes| length(bytes.len())), &mut self.body);
        self.body.put_slice(bytes.unwrap_or_default());
    }
}

fn sized_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::len(length(bytes.len())) + bytes.len())
}

/// A length in memory, which always fits.
fn length(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
