//! Index and footer: what sealing adds behind the frames.
//!
//! A valid footer **is** the sealed state. Its checksum covers the index too, so a valid footer means
//! a valid index.

use tidelog_wire::ids::{Chain, Offset, TimestampMs};

use super::summary::{FIRST_FRAME, INDEX_EVERY};
use super::{FORMAT, LogTag};
use crate::fields::{FieldWriter, Fields, Short, wide};
use crate::storage::Position;

/// Bytes of a footer.
pub const FOOTER_BYTES: usize = 64;

/// Bytes of an index entry.
pub const INDEX_ENTRY_BYTES: usize = 24;

const MAGIC: [u8; 8] = *b"TIDEFOOT";
const CRC_AT: usize = 60;

/// One entry of the sparse index: a frame, and the newest record before it.
///
/// | at | size | field        | meaning                                                          |
/// |---:|-----:|--------------|------------------------------------------------------------------|
/// |  0 |    8 | `offset`     | base offset of the frame's batch                                 |
/// |  8 |    8 | `position`   | where the frame begins                                           |
/// | 16 |    8 | `max_before` | largest record timestamp in the segment's frames before this one; `i64::MIN` if none |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Base offset of the batch.
    pub offset: Offset,
    /// Where its frame begins.
    pub position: Position,
    /// Largest timestamp in the frames before it.
    pub max_before: TimestampMs,
}

/// Footer of a sealed segment: 64 bytes, little-endian, the last of the file.
///
/// | at | size | field            | meaning                                                |
/// |---:|-----:|------------------|--------------------------------------------------------|
/// |  0 |    8 | magic            | `TIDEFOOT`                                             |
/// |  8 |    2 | `format`         | 1; a reader refuses every value it does not know       |
/// | 10 |    2 | reserved         | zero, enforced                                         |
/// | 12 |    4 | `index_entries`  | entries between `index_position` and the footer        |
/// | 16 |    8 | `record_count`   | records in the segment                                 |
/// | 24 |    8 | `last_offset`    | offset of its last record                              |
/// | 32 |    8 | `max_timestamp`  | largest record timestamp                               |
/// | 40 |    8 | `chain_end`      | hash of all history up to and including `last_offset`  |
/// | 48 |    8 | `index_position` | where the frames end and the index begins              |
/// | 56 |    4 | `log_tag`        | whose it is                                            |
/// | 60 |    4 | crc32c           | of the index, then of bytes 0..60                      |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Entries of the index.
    pub index_entries: u32,
    /// Records in the segment.
    pub record_count: u64,
    /// Offset of the last one.
    pub last_offset: Offset,
    /// Largest record timestamp.
    pub max_timestamp: TimestampMs,
    /// Chain at the end.
    pub chain_end: Chain,
    /// Where the index begins.
    pub index_position: Position,
    /// Whose it is.
    pub log_tag: LogTag,
}

/// Why a file does not end in a footer of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterFault {
    /// There is none: the segment is not sealed.
    #[error("the file does not end in a footer")]
    Absent,
    /// A footer of a format that this version does not know.
    #[error("footer format {found}, this version reads {FORMAT}")]
    UnknownFormat {
        /// What it says.
        found: u16,
    },
    /// There is one, and its checksum, place or content is wrong.
    #[error("the footer does not fit the file")]
    Bad,
}

impl From<Short> for FooterFault {
    fn from(_: Short) -> Self {
        Self::Bad
    }
}

impl Footer {
    /// Index and footer, as they are written behind the frames.
    #[must_use]
    pub fn encode(&self, index: &[IndexEntry]) -> Vec<u8> {
        let mut out = FieldWriter::new();
        for entry in index {
            out.u64(entry.offset.get()).u64(entry.position.get()).i64(entry.max_before.get());
        }
        out.bytes(&MAGIC).u16(FORMAT).u16(0).u32(self.index_entries);
        out.u64(self.record_count).u64(self.last_offset.get()).i64(self.max_timestamp.get());
        out.u64(self.chain_end.get()).u64(self.index_position.get()).u32(self.log_tag.0);
        let crc = crc32c::crc32c(out.as_slice());
        out.u32(crc);
        out.finish().into()
    }

    /// Reads the footer of a file of `file_len` bytes from its last 64, as far as that can be told
    /// without the index: [`Footer::decode_index`] checks the checksum.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8], file_len: u64, tag: LogTag) -> Result<Self, FooterFault> {
        let mut fields = Fields::new(bytes);
        if bytes.len() != FOOTER_BYTES || fields.array::<8>()? != MAGIC {
            return Err(FooterFault::Absent);
        }
        let format = fields.u16()?;
        if format != FORMAT {
            return Err(FooterFault::UnknownFormat { found: format });
        }
        let reserved = fields.u16()?;
        let footer = Self {
            index_entries: fields.u32()?,
            record_count: fields.u64()?,
            last_offset: Offset(fields.u64()?),
            max_timestamp: TimestampMs(fields.i64()?),
            chain_end: Chain(fields.u64()?),
            index_position: Position(fields.u64()?),
            log_tag: LogTag(fields.u32()?),
        };
        let expected_len = footer
            .index_position
            .get()
            .checked_add(footer.index_bytes())
            .and_then(|len| len.checked_add(wide(FOOTER_BYTES)));
        // Entries stand apart, so few frames cannot have many: what is read of an index has a limit.
        let frame_bytes = footer.index_position.get().checked_sub(FIRST_FRAME.get());
        let entries_max = frame_bytes.map(|bytes| (bytes / INDEX_EVERY).saturating_add(1));
        let entries_fit = entries_max.is_some_and(|max| u64::from(footer.index_entries) <= max);
        if reserved == 0 && footer.log_tag == tag && entries_fit && expected_len == Some(file_len) {
            Ok(footer)
        } else {
            Err(FooterFault::Bad)
        }
    }

    /// Bytes of the index.
    #[must_use]
    pub fn index_bytes(&self) -> u64 {
        u64::from(self.index_entries).saturating_mul(wide(INDEX_ENTRY_BYTES))
    }

    /// Checks and reads the index: `bytes` are those from `index_position` to the end of the file.
    ///
    /// # Errors
    /// [`FooterFault::Bad`] if the checksum over index and footer does not match.
    pub fn decode_index(&self, bytes: &[u8]) -> Result<Vec<IndexEntry>, FooterFault> {
        let (checked, crc) = bytes.split_last_chunk::<4>().ok_or(FooterFault::Bad)?;
        if crc32c::crc32c(checked) != u32::from_le_bytes(*crc) {
            return Err(FooterFault::Bad);
        }
        let index_len = checked.len().checked_sub(CRC_AT).ok_or(FooterFault::Bad)?;
        let mut fields = Fields::new(checked.get(..index_len).ok_or(FooterFault::Bad)?);
        let mut entries = Vec::with_capacity(index_len.div_ceil(INDEX_ENTRY_BYTES));
        while !fields.is_empty() {
            entries.push(IndexEntry {
                offset: Offset(fields.u64()?),
                position: Position(fields.u64()?),
                max_before: TimestampMs(fields.i64()?),
            });
        }
        if wide(entries.len()) == u64::from(self.index_entries) { Ok(entries) } else { Err(FooterFault::Bad) }
    }
}
