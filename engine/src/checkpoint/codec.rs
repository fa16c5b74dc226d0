//! The bytes of a checkpoint, format 1.
//!
//! | at      | size | field      | meaning                                              |
//! |--------:|-----:|------------|------------------------------------------------------|
//! |       0 |    8 | magic      | `TIDECKPT`                                           |
//! |       8 |    2 | `format`   | 1; a reader refuses every value it does not know     |
//! |      10 |    2 | reserved   | zero, enforced                                       |
//! |      12 |    8 | `body_len` | bytes of the body; the file is 24 longer             |
//! |      20 |   .. | `body`     | its tables are in `docs/formats/checkpoint.md`       |
//! | end - 4 |    4 | crc32c     | of everything before it                              |

use std::ops::Range;

use bytes::Bytes;
use tidelog_wire::ids::{
    Chain, Generation, GroupId, LeaderEpoch, LogId, Offset, Partition, RaftIndex, Term, TimestampMs,
};

use super::{Checkpoint, EntryId, LogCheckpoint, LogConfig, LogState, Members};
use crate::fields::{FieldWriter, Fields, Short, wide};
use crate::producers::ProducerTable;
use crate::storage::Position;

/// The format that is written, and the only one that is read so far.
pub const FORMAT: u16 = 1;

/// A checkpoint file longer than this is not read.
pub const CHECKPOINT_BYTES_MAX: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"TIDECKPT";
const HEAD_BYTES: usize = 20;
const CRC_BYTES: usize = 4;

/// Why bytes are not a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// Too short, or it does not begin as a checkpoint does.
    #[error("it does not begin as a checkpoint does")]
    NotACheckpoint,
    /// A format that this version does not know.
    #[error("format {found}, this version reads {FORMAT}")]
    UnknownFormat {
        /// The format it names.
        found: u16,
    },
    /// The length it states is not the length it has.
    #[error("{found} bytes, its header says {expected}")]
    Length {
        /// What the header says.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// The checksum does not match.
    #[error("checksum {found:#010x}, expected {expected:#010x}")]
    Checksum {
        /// What the file says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// The checksum matches and a field still makes no sense, or a reserved byte is not zero.
    #[error("a field makes no sense although the checksum matches")]
    Nonsense,
    /// The disk does not give the bytes.
    #[error("it cannot be read: {kind}")]
    Unreadable {
        /// The kind of the system's error.
        kind: std::io::ErrorKind,
    },
    /// It is a checkpoint, of another group or entry than the name of its file says.
    #[error("its content is that of another checkpoint than its file name says")]
    Misplaced,
}

impl From<Short> for CheckpointFault {
    fn from(_: Short) -> Self {
        Self::Nonsense
    }
}

impl Checkpoint {
    /// The bytes of a checkpoint file.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut body = FieldWriter::new();
        body.u64(self.group.get());
        entry(&mut body, self.applied);
        entry(&mut body, self.last_durable);
        body.u16(self.apply_version).u16(0).u32(0);
        self.members.encode(&mut body);
        body.count(self.logs.len());
        for log in &self.logs {
            encode_log(&mut body, log);
        }
        body.count(self.state.len()).bytes(&self.state);

        let mut out = FieldWriter::new();
        out.bytes(&MAGIC).u16(FORMAT).u16(0).u64(wide(body.len())).bytes(body.as_slice());
        let crc = crc32c::crc32c(out.as_slice());
        out.u32(crc);
        out.finish()
    }

    /// Reads a checkpoint, believing nothing before its checksum.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, CheckpointFault> {
        let mut head = Fields::new(bytes);
        let magic: [u8; 8] = head.array().map_err(|_| CheckpointFault::NotACheckpoint)?;
        if magic != MAGIC {
            return Err(CheckpointFault::NotACheckpoint);
        }
        let format = head.u16().map_err(|_| CheckpointFault::NotACheckpoint)?;
        if format != FORMAT {
            // Every format ends in the checksum of what is before it: so a flipped bit is no newer release.
            let (checked, crc) =
                bytes.split_last_chunk::<CRC_BYTES>().ok_or(CheckpointFault::NotACheckpoint)?;
            let (expected, found) = (u32::from_le_bytes(*crc), crc32c::crc32c(checked));
            return Err(if expected == found {
                CheckpointFault::UnknownFormat { found: format }
            } else {
                CheckpointFault::Checksum { expected, found }
            });
        }
        let reserved = head.u16().map_err(|_| CheckpointFault::NotACheckpoint)?;
        let body_len = head.u64().map_err(|_| CheckpointFault::NotACheckpoint)?;
        let expected = body_len.saturating_add(wide(HEAD_BYTES + CRC_BYTES));
        let found = wide(bytes.len());
        if expected != found {
            return Err(CheckpointFault::Length { expected, found });
        }
        let (checked, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(CheckpointFault::NotACheckpoint)?;
        let expected = u32::from_le_bytes(*crc);
        let found = crc32c::crc32c(checked);
        if expected != found {
            return Err(CheckpointFault::Checksum { expected, found });
        }
        if reserved != 0 {
            return Err(CheckpointFault::Nonsense);
        }
        let body = checked.get(HEAD_BYTES..).ok_or(CheckpointFault::Nonsense)?;
        decode_body(body)
    }
}

fn entry(out: &mut FieldWriter, entry: EntryId) {
    out.u64(entry.index.get()).u64(entry.term.get());
}

fn encode_log(out: &mut FieldWriter, log: &LogCheckpoint) {
    out.u64(log.log.generation.get()).u32(log.log.partition.get()).u32(u32::from(log.closed));
    out.u64(log.config.segment_bytes).i32(log.config.epoch_base).u32(0);
    let state = &log.state;
    out.u64(state.start.get()).u64(state.end.get());
    out.u64(state.active_base.get()).u64(state.active_position.get());
    out.u64(state.chain.get()).i64(state.append_time.get());
    out.count(state.epochs.len());
    for (epoch, first) in &state.epochs {
        out.i32(epoch.get()).u64(first.get());
    }
    out.count(log.damage.len());
    for range in &log.damage {
        out.u64(range.start.get()).u64(range.end.get());
    }
    log.producers.encode(out);
}

fn decode_body(body: &[u8]) -> Result<Checkpoint, CheckpointFault> {
    let mut fields = Fields::new(body);
    let group = GroupId(fields.u64()?);
    let applied = decode_entry(&mut fields)?;
    let last_durable = decode_entry(&mut fields)?;
    let apply_version = fields.u16()?;
    if fields.u16()? != 0 || fields.u32()? != 0 {
        return Err(CheckpointFault::Nonsense);
    }
    let members = Members::decode(&mut fields)?;
    let mut logs: Vec<LogCheckpoint> = Vec::new();
    for _ in 0..fields.count(92)? {
        let log = decode_log(&mut fields)?;
        if logs.last().is_some_and(|previous| previous.log >= log.log) {
            return Err(CheckpointFault::Nonsense);
        }
        logs.push(log);
    }
    let state_len = fields.count(1)?;
    let state = Bytes::copy_from_slice(fields.bytes(state_len)?);
    if !fields.is_empty() {
        return Err(CheckpointFault::Nonsense);
    }
    Ok(Checkpoint { group, applied, last_durable, apply_version, members, logs, state })
}

fn decode_entry(fields: &mut Fields<'_>) -> Result<EntryId, Short> {
    Ok(EntryId { index: RaftIndex(fields.u64()?), term: Term(fields.u64()?) })
}

fn decode_log(fields: &mut Fields<'_>) -> Result<LogCheckpoint, CheckpointFault> {
    let log = LogId { generation: Generation(fields.u64()?), partition: Partition(fields.u32()?) };
    let closed = match fields.u32()? {
        0 => false,
        1 => true,
        _ => return Err(CheckpointFault::Nonsense),
    };
    let config = LogConfig { segment_bytes: fields.u64()?, epoch_base: fields.i32()? };
    if fields.u32()? != 0 {
        return Err(CheckpointFault::Nonsense);
    }
    let start = Offset(fields.u64()?);
    let end = Offset(fields.u64()?);
    let active_base = Offset(fields.u64()?);
    let active_position = Position(fields.u64()?);
    let chain = Chain(fields.u64()?);
    let append_time = TimestampMs(fields.i64()?);
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
    for _ in 0..fields.count(12)? {
        epochs.push((LeaderEpoch(fields.i32()?), Offset(fields.u64()?)));
    }
    let mut damage: Vec<Range<Offset>> = Vec::new();
    for _ in 0..fields.count(16)? {
        damage.push(Offset(fields.u64()?)..Offset(fields.u64()?));
    }
    let producers = ProducerTable::decode(fields)?;
    let rising = epochs.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1);
    if start > end || active_base > end || !rising || damage.iter().any(|range| range.start >= range.end) {
        return Err(CheckpointFault::Nonsense);
    }
    let state = LogState { start, end, active_base, active_position, chain, epochs, append_time };
    Ok(LogCheckpoint { log, config, state, producers, damage, closed })
}
