//! The frame around a batch: what binds it to its place, its log and its history.

use std::hash::Hasher;

use tidelog_wire::ids::{Chain, Offset, RaftIndex, TimestampMs};
use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

use super::{FORMAT, LogTag};
use crate::fields::{Fields, Short, wide};
use crate::storage::Position;

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 48;

/// Batch bytes that the batch's own CRC leaves out and the frame's takes in.
pub const PREFIX_BYTES: usize = 21;

/// Longest frame. A longer one is not believed, whatever its checksum says.
pub const FRAME_BYTES_MAX: u64 = 48 + BATCH_LIMIT;

const BATCH_LIMIT: u64 = 16 << 20;

/// Header of a frame: 48 bytes, little-endian, then one record batch.
///
/// | at | size | field         | meaning                                                           |
/// |---:|-----:|---------------|-------------------------------------------------------------------|
/// |  0 |    4 | `crc32c`      | of bytes 4..48, this frame's position (8 bytes), and the 21 batch bytes that the batch's own CRC omits |
/// |  4 |    4 | `frame_len`   | whole frame in bytes; checked against the limit before allocating; 48 is a mark without a batch |
/// |  8 |    8 | `raft_index`  | entry that carried the batch; 0 when embedded; in a mark the log's end offset |
/// | 16 |    8 | `append_time` | leader's, in ms since 1970; never falls within a log              |
/// | 24 |    8 | `chain`       | hash of all history up to and including this frame                |
/// | 32 |    8 | `synced_to`   | position known durable at this write; 0 under consensus           |
/// | 40 |    4 | `log_tag`     | hash of cluster, generation, partition: a stray write never passes |
/// | 44 |    2 | `format`      | 1; a reader refuses every value it does not know                  |
/// | 46 |    2 | reserved      | zero, enforced, so that it can be given a meaning later           |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Checksum of the header, the position and the batch's first bytes.
    pub crc32c: u32,
    /// Length of header and batch.
    pub frame_len: u32,
    /// The raft entry that carried the batch; in a mark, the log's end offset.
    pub raft_index: RaftIndex,
    /// When the leader took the batch.
    pub append_time: TimestampMs,
    /// Hash of the log's history, this batch included.
    pub chain: Chain,
    /// How far the file was durable when this was written.
    pub synced_to: Position,
    /// Whose frame it is.
    pub log_tag: LogTag,
    /// Version of this layout.
    pub format: u16,
    /// Not in use yet.
    pub reserved: u16,
}

/// Why bytes at a position are not a frame of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The file ends inside it.
    #[error("the file ends inside the frame")]
    Short,
    /// Its length is no length that a frame can have.
    #[error("frame length {found} is not possible")]
    Length {
        /// What the header says.
        found: u32,
    },
    /// The checksum over header, position and first batch bytes does not match.
    #[error("header checksum {found:#010x}, expected {expected:#010x}")]
    HeaderChecksum {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// It belongs to another log or cluster.
    #[error("log tag {found:#010x}, expected {expected:#010x}: it is a frame of another log")]
    Tag {
        /// This log's.
        expected: u32,
        /// The frame's.
        found: u32,
    },
    /// A valid frame of a format that this version does not know.
    #[error("frame format {found}, this version reads {FORMAT}")]
    UnknownFormat {
        /// What it says.
        found: u16,
    },
    /// A reserved byte is not zero.
    #[error("reserved bytes are {found:#06x}, not zero")]
    Reserved {
        /// What is there.
        found: u16,
    },
    /// `synced_to` lies beyond the frame itself.
    #[error("synced_to {found} lies beyond the frame")]
    SyncedTo {
        /// What it says.
        found: Position,
    },
    /// The batch's length is not the frame's.
    #[error("the batch inside is {found} bytes long, the frame has room for {expected}")]
    BatchLength {
        /// What the frame has.
        expected: u64,
        /// What the batch says.
        found: u64,
    },
    /// The batch's own checksum does not match.
    #[error("batch checksum {found:#010x}, expected {expected:#010x}")]
    BatchChecksum {
        /// What the batch says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// It is not the batch that comes next.
    #[error("base offset {found}, expected {expected}")]
    BaseOffset {
        /// What comes next.
        expected: Offset,
        /// What is there.
        found: Offset,
    },
    /// It does not continue this log's history.
    #[error("chain {found:#018x}, expected {expected:#018x}")]
    Chain {
        /// What the history gives.
        expected: u64,
        /// What the frame says.
        found: u64,
    },
}

impl From<Short> for FrameFault {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl FrameHeader {
    /// The 48 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let mut rest = bytes.as_mut_slice();
        let fields: [&[u8]; 9] = [
            &self.crc32c.to_le_bytes(),
            &self.frame_len.to_le_bytes(),
            &self.raft_index.get().to_le_bytes(),
            &self.append_time.get().to_le_bytes(),
            &self.chain.get().to_le_bytes(),
            &self.synced_to.get().to_le_bytes(),
            &self.log_tag.0.to_le_bytes(),
            &self.format.to_le_bytes(),
            &self.reserved.to_le_bytes(),
        ];
        for field in fields {
            let (slot, behind) = rest.split_at_mut(field.len());
            slot.copy_from_slice(field);
            rest = behind;
        }
        bytes
    }

    /// Takes the fields apart and checks none of them: see [`FrameHeader::verify`].
    ///
    /// # Errors
    /// [`FrameFault::Short`] if there are fewer than 48 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameFault> {
        let mut fields = Fields::new(bytes);
        Ok(Self {
            crc32c: fields.u32()?,
            frame_len: fields.u32()?,
            raft_index: RaftIndex(fields.u64()?),
            append_time: TimestampMs(fields.i64()?),
            chain: Chain(fields.u64()?),
            synced_to: Position(fields.u64()?),
            log_tag: LogTag(fields.u32()?),
            format: fields.u16()?,
            reserved: fields.u16()?,
        })
    }

    /// This header with the checksum that belongs at `position`, before a batch that begins with `prefix`.
    #[must_use]
    pub fn sealed(mut self, position: Position, prefix: &[u8]) -> Self {
        self.crc32c = self.checksum(position, prefix);
        self
    }

    /// The checksum of a frame at `position` whose batch begins with `prefix`.
    #[must_use]
    pub fn checksum(&self, position: Position, prefix: &[u8]) -> u32 {
        let header = self.encode();
        let (_, checked) = header.split_at(4);
        // In one piece, which costs less than going on from part to part.
        let mut covered = [0; FRAME_HEADER_BYTES + 4 + PREFIX_BYTES];
        let (to_header, behind) = covered.split_at_mut(checked.len());
        let (to_position, to_prefix) = behind.split_at_mut(8);
        to_header.copy_from_slice(checked);
        to_position.copy_from_slice(&position.get().to_le_bytes());
        if prefix.len() == PREFIX_BYTES {
            to_prefix.copy_from_slice(prefix);
            return crc32c::crc32c(&covered);
        }
        let (before, _) = covered.split_at(FRAME_HEADER_BYTES + 4);
        crc32c::crc32c_append(crc32c::crc32c(before), prefix)
    }

    /// Whether the length can be one: a mark, or a header and a batch within the limits.
    ///
    /// # Errors
    /// [`FrameFault::Length`].
    pub fn check_length(&self) -> Result<(), FrameFault> {
        let len = u64::from(self.frame_len);
        if self.is_mark() || (len >= wide(FRAME_HEADER_BYTES) + 61 && len <= FRAME_BYTES_MAX) {
            Ok(())
        } else {
            Err(FrameFault::Length { found: self.frame_len })
        }
    }

    /// Whether this is a header of the log `tag` for `position`, before a batch that begins with
    /// `prefix` (empty for a mark). Checksum first: nothing else of it is believed before.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, position: Position, prefix: &[u8], tag: LogTag) -> Result<(), FrameFault> {
        let found = self.checksum(position, prefix);
        if found != self.crc32c {
            return Err(FrameFault::HeaderChecksum { expected: self.crc32c, found });
        }
        if self.format != FORMAT {
            return Err(FrameFault::UnknownFormat { found: self.format });
        }
        if self.reserved != 0 {
            return Err(FrameFault::Reserved { found: self.reserved });
        }
        if self.log_tag != tag {
            return Err(FrameFault::Tag { expected: tag.0, found: self.log_tag.0 });
        }
        if self.synced_to > position {
            return Err(FrameFault::SyncedTo { found: self.synced_to });
        }
        Ok(())
    }

    /// Whether this is a mark: a witness of what was durable, without a batch.
    #[must_use]
    pub fn is_mark(&self) -> bool {
        u64::from(self.frame_len) == wide(FRAME_HEADER_BYTES)
    }

    /// Where the next frame begins.
    #[must_use]
    pub fn end(&self, position: Position) -> Position {
        Position(position.get().saturating_add(u64::from(self.frame_len)))
    }
}

/// The chain after a batch: `xxh3_64(seed = chain before, base offset, batch bytes from 16 on)`, the
/// base offset little-endian.
#[must_use]
pub fn chain_after(before: Chain, base_offset: Offset, from_byte_16: &[&[u8]]) -> Chain {
    // The hasher takes whatever the processor has for it, and lies on the stack.
    let Ok(state) = SecretBuffer::with_seed(before.get(), [0; DEFAULT_SECRET_LENGTH]) else {
        unreachable!("the secret is as long as the hasher says itself");
    };
    let mut hash = RawHasher::new(state);
    hash.write(&base_offset.get().to_le_bytes());
    for part in from_byte_16 {
        hash.write(part);
    }
    Chain(hash.finish())
}
