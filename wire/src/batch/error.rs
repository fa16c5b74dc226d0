//! What can be wrong with a batch, each with its code.

/// Why bytes are not a batch that may be stored or served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header, or than its length field, says.
    #[error(
        "E1501 batch: {found} bytes, expected at least {expected}: it was cut short; send it again, whole"
    )]
    Truncated {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// More bytes than one batch.
    #[error("E1502 batch: {found} bytes, but it says it has {expected}: send exactly one batch a request")]
    Trailing {
        /// Bytes there are.
        found: usize,
        /// Bytes of the first batch.
        expected: usize,
    },
    /// The length field cannot be true.
    #[error(
        "E1503 batch: byte 8: length {length}, expected at least 49: the bytes are not a batch; check the client"
    )]
    Length {
        /// The field as read.
        length: i32,
    },
    /// Larger than allowed.
    #[error(
        "E1504 batch: {bytes} bytes, at most {max} are allowed: send smaller batches, or raise the limit"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Not format 2.
    #[error(
        "E1505 batch: byte 16: magic {found}, expected 2: use a client that writes record batches of version 2"
    )]
    Magic {
        /// The field as read.
        found: u8,
    },
    /// The checksum does not match the bytes.
    #[error(
        "E1506 batch: byte 17: checksum {expected:#010x}, but the bytes have {found:#010x}: \
         they changed on the way or on a disk; send or read them again"
    )]
    Crc {
        /// Of the bytes.
        found: u32,
        /// As the header says.
        expected: u32,
    },
    /// No record, a hole, or more records than the bytes can hold.
    #[error(
        "E1507 batch: byte 57: {count} records with last offset delta {last_delta}: at least one record, \
         no holes, and no more than the bytes can hold; check the client"
    )]
    Count {
        /// The field as read.
        count: i32,
        /// The field as read.
        last_delta: i32,
    },
    /// A codec that is not known.
    #[error("E1508 batch: byte 21: codec {number}, expected 0 to 4: use none, gzip, snappy, lz4 or zstd")]
    Codec {
        /// Its number.
        number: u16,
    },
    /// A control, transactional or unknown flag.
    #[error(
        "E1509 batch: byte 21: attribute bits {bits:#06x} may not be set by a producer: \
         send neither control batches nor transactions"
    )]
    Attributes {
        /// The bits in question.
        bits: u16,
    },
    /// A producer id without epoch or sequence.
    #[error(
        "E1510 batch: byte 43: producer {id} with epoch {epoch} and sequence {sequence}: \
         give all three from 0 on, or -1 for none"
    )]
    Producer {
        /// The field as read.
        id: i64,
        /// The field as read.
        epoch: i16,
        /// The field as read.
        sequence: i32,
    },
}
