//! What can be wrong with the records of a batch, or with putting some into one.

use crate::batch::{BatchError, Codec};

/// Why the records of a batch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordsError {
    /// A field that cannot be true.
    #[error(
        "E1511 batch: record {record}, byte {at} of the records: {what} is malformed: \
         the producer wrote it so, since the batch's checksum holds; skip the batch, and check the producer"
    )]
    Malformed {
        /// Which record, from 0.
        record: u32,
        /// Where it begins, behind the header and decompressed.
        at: usize,
        /// Which field.
        what: &'static str,
    },
    /// The codec refuses the bytes.
    #[error(
        "E1512 batch: {codec:?} does not decompress: {reason}: \
         the producer wrote it so, since the batch's checksum holds; skip the batch, and check the producer"
    )]
    Decompress {
        /// The codec.
        codec: Codec,
        /// What it says.
        reason: String,
    },
    /// More would come out than anybody should hold.
    #[error(
        "E1513 batch: {codec:?} decompresses to more than {max} bytes: skip the batch, or send smaller ones"
    )]
    TooLarge {
        /// The codec.
        codec: Codec,
        /// The limit.
        max: usize,
    },
    /// Bytes behind the last record.
    #[error(
        "E1514 batch: {extra} bytes behind its {count} records: \
         the producer wrote it so, since the batch's checksum holds; check the producer"
    )]
    Trailing {
        /// Records as the header says.
        count: u32,
        /// Bytes left.
        extra: usize,
    },
}

/// Why a batch cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The record does not even fit into an empty batch. It was not taken.
    #[error(
        "E1515 record: {bytes} bytes, at most {max} fit into a batch: send smaller records, or raise the limit"
    )]
    RecordTooLarge {
        /// Its size, encoded.
        bytes: usize,
        /// What fits.
        max: usize,
    },
    /// Too many headers. The record was not taken.
    #[error("E1516 record: {found} headers, at most {max} are allowed: put them into the value")]
    TooManyHeaders {
        /// How many.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A time that the format cannot say beside the first record's. The record was not taken.
    #[error(
        "E1517 record: time {found} ms is too far from {first} ms, the batch's first: give milliseconds since 1970"
    )]
    Timestamp {
        /// As given.
        found: i64,
        /// Of the batch's first record.
        first: i64,
    },
    /// Nothing to build from.
    #[error("E1518 batch: no record in it: add one before building")]
    Empty,
    /// The codec failed.
    #[error("E1519 batch: {codec:?} does not compress: {reason}: use another codec")]
    Compress {
        /// The codec.
        codec: Codec,
        /// What it says.
        reason: String,
    },
    /// The built batch breaks a rule, such as a producer's negative sequence.
    #[error("E1520 batch: built against the rules: {0}")]
    Rules(#[from] BatchError),
}
