//! The header of a segment file: whose it is and where in the log it begins.

use tidelog_wire::ids::{Chain, ClusterId, Generation, LogId, Offset, Partition, TimestampMs};

use super::FORMAT;
use crate::fields::{FieldWriter, Fields, Short};

/// Bytes of a segment header. The first frame begins here.
pub const SEGMENT_HEADER_BYTES: usize = 80;

const MAGIC: [u8; 8] = *b"TIDESEGM";
const CRC_AT: usize = 76;

/// Header of a segment: 80 bytes, little-endian.
///
/// | at | size | field         | meaning                                                     |
/// |---:|-----:|---------------|-------------------------------------------------------------|
/// |  0 |    8 | magic         | `TIDESEGM`                                                  |
/// |  8 |    2 | `format`      | 1; a reader refuses every value it does not know            |
/// | 10 |    2 | flags         | zero, enforced; bit 0 is reserved for compacted segments    |
/// | 12 |    4 | `partition`   | with `generation`, the log                                  |
/// | 16 |   16 | `cluster`     | cluster id                                                  |
/// | 32 |    8 | `generation`  | the life of the channel                                     |
/// | 40 |    8 | `base`        | first offset; also the name of the file                     |
/// | 48 |    8 | `chain_start` | hash of all history before `base`                           |
/// | 56 |    8 | `append_time` | of its first frame, in ms since 1970                        |
/// | 64 |   12 | reserved      | zero, enforced                                              |
/// | 76 |    4 | crc32c        | of bytes 0..76                                              |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster that wrote it.
    pub cluster: ClusterId,
    /// The log it is part of.
    pub log: LogId,
    /// Its first offset.
    pub base: Offset,
    /// Chain of the log before `base`.
    pub chain_start: Chain,
    /// Append time of its first frame.
    pub append_time: TimestampMs,
}

/// Why bytes are not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// The file ends inside it.
    #[error("the file ends inside the segment header")]
    Short,
    /// It does not begin as a segment does.
    #[error("it does not begin as a segment does")]
    Magic,
    /// The checksum does not match.
    #[error("segment header checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// A valid header of a format that this version does not know.
    #[error("segment format {found}, this version reads {FORMAT}")]
    UnknownFormat {
        /// What it says.
        found: u16,
    },
    /// A flag or a reserved byte is set.
    #[error("reserved bytes of the segment header are not zero")]
    Reserved,
}

impl From<Short> for HeaderFault {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl SegmentHeader {
    /// The 80 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = FieldWriter::new();
        out.bytes(&MAGIC).u16(FORMAT).u16(0).u32(self.log.partition.get());
        out.u128(self.cluster.0).u64(self.log.generation.get()).u64(self.base.get());
        out.u64(self.chain_start.get()).i64(self.append_time.get());
        out.bytes(&[0; 12]);
        let crc = crc32c::crc32c(out.as_slice());
        out.u32(crc);
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes.copy_from_slice(out.as_slice());
        bytes
    }

    /// Reads a header, believing nothing before its checksum.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let mut fields = Fields::new(bytes);
        let whole = fields.bytes(SEGMENT_HEADER_BYTES)?;
        let mut fields = Fields::new(whole);
        if fields.array::<8>()? != MAGIC {
            return Err(HeaderFault::Magic);
        }
        let (checked, crc) = whole.split_at_checked(CRC_AT).ok_or(HeaderFault::Short)?;
        let expected = Fields::new(crc).u32()?;
        let found = crc32c::crc32c(checked);
        if expected != found {
            return Err(HeaderFault::Checksum { expected, found });
        }
        let format = fields.u16()?;
        if format != FORMAT {
            return Err(HeaderFault::UnknownFormat { found: format });
        }
        let flags = fields.u16()?;
        let partition = Partition(fields.u32()?);
        let header = Self {
            cluster: ClusterId(fields.u128()?),
            log: LogId { generation: Generation(fields.u64()?), partition },
            base: Offset(fields.u64()?),
            chain_start: Chain(fields.u64()?),
            append_time: TimestampMs(fields.i64()?),
        };
        if flags != 0 || fields.array::<12>()? != [0; 12] {
            return Err(HeaderFault::Reserved);
        }
        Ok(header)
    }
}
