//! The records inside a batch: varints, headers, codecs.
//!
//! Only the two ends of the way look in here: a producer through [`BatchBuilder`], a consumer through [`Records`].
//!
//! 1. [`Records::of`] decompresses the body, up to [`limits::DECOMPRESSED_BYTES_MAX`] and not a byte further,
//!    whatever the body promises. An uncompressed body is not copied.
//! 2. Iterating cuts records out of it: keys, values and headers share its memory. Each length is checked against the bytes
//!    that are left before it is used.
//! 3. The iteration ends with an error if the bytes hold anything but the number of records that the batch's header says,
//!    so a consumer never skips a record in silence.
//!
//! Integers inside records are zigzag varints, low seven bits first.

use bytes::{Buf, Bytes};

use crate::batch::{Batch, Codec};
use crate::ids::{Offset, TimestampMs};
use crate::limits;

mod builder;
mod compress;
mod error;
#[cfg(test)]
mod tests;
mod varint;

pub use builder::{BatchBuilder, BuilderLimits, Pushed};
pub use error::{BuildError, RecordsError};

/// Attributes bit of a batch whose records all carry its largest time.
const LOG_APPEND_TIME: u16 = 0b1000;

/// A record as a consumer sees it. Key, value and headers share the memory of their batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number in the log, if the batch was stamped.
    pub offset: Offset,
    /// Its time, as the producer gave it.
    pub timestamp: TimestampMs,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value, if it has one.
    pub value: Option<Bytes>,
    /// Its headers, in order. A key may stand there more than once.
    pub headers: Vec<RecordHeader>,
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its key, by convention UTF-8.
    pub key: Bytes,
    /// Its value, if it has one.
    pub value: Option<Bytes>,
}

/// The records of one batch, in order.
#[derive(Clone, Debug)]
pub struct Records {
    body: Bytes,
    body_bytes: usize,
    base_offset: u64,
    base_timestamp: i64,
    append_time: Option<TimestampMs>,
    count: u32,
    next: u32,
    failed: bool,
}

impl Records {
    /// Decompresses `batch`, if it is compressed.
    ///
    /// # Errors
    /// [`RecordsError::Decompress`], [`RecordsError::TooLarge`].
    pub fn of(batch: &Batch) -> Result<Self, RecordsError> {
        Self::of_at_most(batch, limits::DECOMPRESSED_BYTES_MAX)
    }

    /// [`Records::of`] with a limit of the caller's on the decompressed bytes.
    ///
    /// # Errors
    /// As [`Records::of`].
    pub fn of_at_most(batch: &Batch, bytes_max: usize) -> Result<Self, RecordsError> {
        let body = match batch.codec() {
            Codec::None => batch.body(),
            codec @ (Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd) => {
                compress::decompress(codec, &batch.body(), bytes_max)?
            }
        };
        let header = batch.header();
        Ok(Self {
            body_bytes: body.len(),
            body,
            base_offset: batch.base_offset().unwrap_or_default().get(),
            base_timestamp: header.base_timestamp,
            append_time: (header.attributes & LOG_APPEND_TIME != 0).then_some(batch.max_timestamp()),
            count: batch.count(),
            next: 0,
            failed: false,
        })
    }

    /// Bytes that the records take, decompressed.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.body_bytes
    }

    fn next_record(&mut self) -> Result<Record, RecordsError> {
        let at = self.body_bytes - self.body.len();
        let malformed = |what| RecordsError::Malformed { record: self.next, at, what };
        let mut rest = self.body.clone();
        let bytes = take_sized(&mut rest).map_err(malformed)?.ok_or_else(|| malformed("length"))?;
        let (delta, record) = read_record(bytes, self.base_timestamp).map_err(malformed)?;
        if delta != i64::from(self.next) {
            return Err(malformed("offset delta"));
        }
        let offset =
            self.base_offset.checked_add(u64::from(self.next)).ok_or_else(|| malformed("offset delta"))?;
        self.body = rest;
        self.next += 1;
        let timestamp = self.append_time.unwrap_or(record.timestamp);
        Ok(Record { offset: Offset(offset), timestamp, ..record })
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = if self.next < self.count {
            self.next_record()
        } else if self.body.is_empty() {
            return None;
        } else {
            Err(RecordsError::Trailing { count: self.count, extra: self.body.len() })
        };
        self.failed = item.is_err();
        Some(item)
    }
}

/// One record's fields behind its length, and its offset delta. An error names the field.
fn read_record(mut bytes: Bytes, base_timestamp: i64) -> Result<(i64, Record), &'static str> {
    if bytes.is_empty() {
        return Err("attributes");
    }
    let _unused_attributes = bytes.get_u8();
    let time_delta = varint::take(&mut bytes).ok_or("time delta")?;
    let offset_delta = varint::take(&mut bytes).ok_or("offset delta")?;
    let key = take_sized(&mut bytes).map_err(|_| "key")?;
    let value = take_sized(&mut bytes).map_err(|_| "value")?;
    let headers = read_headers(&mut bytes)?;
    if !bytes.is_empty() {
        return Err("bytes behind the headers");
    }
    let timestamp = TimestampMs(base_timestamp.checked_add(time_delta).ok_or("time delta")?);
    Ok((offset_delta, Record { offset: Offset::ZERO, timestamp, key, value, headers }))
}

fn read_headers(bytes: &mut Bytes) -> Result<Vec<RecordHeader>, &'static str> {
    let count = varint::take(bytes).and_then(|count| usize::try_from(count).ok()).ok_or("header count")?;
    // A header takes two bytes at least, so the reservation is bounded by what was received.
    if count > limits::RECORD_HEADERS_MAX || count > bytes.len() / 2 {
        return Err("header count");
    }
    let mut headers = Vec::with_capacity(count);
    for _ in 0..count {
        let key = take_sized(bytes).map_err(|_| "header key")?.ok_or("header key")?;
        let value = take_sized(bytes).map_err(|_| "header value")?;
        headers.push(RecordHeader { key, value });
    }
    Ok(headers)
}

/// A varint length and that many bytes; `None` for the length -1.
fn take_sized(bytes: &mut Bytes) -> Result<Option<Bytes>, &'static str> {
    let length = varint::take(bytes).ok_or("length")?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| "length")?;
    if length > bytes.len() {
        return Err("length");
    }
    Ok(Some(bytes.split_to(length)))
}
