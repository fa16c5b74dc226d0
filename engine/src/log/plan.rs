//! Framing a batch: everything about it that can be computed before a byte is written.

use bytes::Bytes;
use tidelog_wire::batch::Batch;
use tidelog_wire::ids::{Chain, Offset, RaftIndex, TimestampMs};

use super::{AppendStamp, Appended};
use crate::fields::wide;
use crate::segment::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFIX_BYTES, chain_after};
use crate::segment::stored::StoredBatch;
use crate::segment::{FORMAT, LogTag};
use crate::storage::Position;

/// Bytes of a frame that are not shared with the batch as it came in.
pub(crate) const HEAD_BYTES: usize = FRAME_HEADER_BYTES + PREFIX_BYTES;

/// A frame, ready to be written at its position.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) position: Position,
    pub(crate) header: FrameHeader,
    /// Frame header and the batch's first bytes.
    pub(crate) head: [u8; HEAD_BYTES],
    /// The rest of the batch, shared with whoever sent it.
    pub(crate) rest: Bytes,
    pub(crate) batch: StoredBatch,
    pub(crate) appended: Appended,
}

impl Planned {
    pub(crate) fn end(&self) -> Position {
        self.header.end(self.position)
    }
}

/// Where a log stands before a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) end: Offset,
    pub(crate) chain: Chain,
    pub(crate) append_time: TimestampMs,
    pub(crate) synced_to: Position,
    pub(crate) tag: LogTag,
}

/// Bytes of the frame around `batch`.
pub(crate) fn frame_bytes(batch: &Batch) -> u64 {
    wide(batch.bytes().len()).saturating_add(wide(FRAME_HEADER_BYTES))
}

/// Frames `batch` at `place`.
pub(crate) fn frame(place: &Place, batch: &Batch, stamp: &AppendStamp) -> Planned {
    let append_time = stamp.append_time.max(place.append_time);
    let (prefix, rest) = batch.stamped(place.end, stamp.leader_epoch);
    let chain = chain_after(place.chain, place.end, &[batch.chain_input()]);
    let header = FrameHeader {
        crc32c: 0,
        frame_len: u32::try_from(frame_bytes(batch)).unwrap_or(u32::MAX),
        raft_index: stamp.raft_index,
        append_time,
        chain,
        synced_to: place.synced_to,
        log_tag: place.tag,
        format: FORMAT,
        reserved: 0,
    }
    .sealed(place.position, &prefix);
    let mut head = [0; HEAD_BYTES];
    let (frame, stamped) = head.split_at_mut(FRAME_HEADER_BYTES);
    frame.copy_from_slice(&header.encode());
    stamped.copy_from_slice(&prefix);
    let stored = StoredBatch {
        base_offset: place.end,
        leader_epoch: stamp.leader_epoch,
        len: wide(batch.bytes().len()),
        crc: batch.header().crc,
        last_offset_delta: batch.count().saturating_sub(1),
        max_timestamp: batch.max_timestamp(),
    };
    let appended = Appended { base_offset: place.end, last_offset: stored.last(), chain, append_time };
    Planned { position: place.position, header, head, rest, batch: stored, appended }
}

/// A mark at `place`: says that everything before it is durable, and holds no batch.
pub(crate) fn mark(place: &Place) -> FrameHeader {
    FrameHeader {
        crc32c: 0,
        frame_len: 48,
        raft_index: RaftIndex(place.end.get()),
        append_time: place.append_time,
        chain: place.chain,
        synced_to: place.synced_to,
        log_tag: place.tag,
        format: FORMAT,
        reserved: 0,
    }
    .sealed(place.position, &[])
}
