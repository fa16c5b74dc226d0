//! What sealing needs to know of the frames: gathered frame by frame, the same however often.

use tidelog_wire::ids::{Chain, Offset, TimestampMs};

use super::LogTag;
use super::footer::{Footer, IndexEntry};
use super::header::SEGMENT_HEADER_BYTES;
use super::stored::StoredBatch;
use crate::fields::wide;
use crate::storage::Position;

/// A frame gets an index entry when it begins at least this far behind the last one that has one.
pub(crate) const INDEX_EVERY: u64 = 64 << 10;

/// Where the first frame of a segment begins.
pub(crate) const FIRST_FRAME: Position = Position(80);
const _: () = assert!(SEGMENT_HEADER_BYTES == 80, "the first frame begins behind the header");

/// The frames of a segment, summed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) base: Offset,
    /// Offset behind the last frame.
    pub(crate) end: Offset,
    /// End of the last frame, marks included.
    pub(crate) end_position: Position,
    pub(crate) chain: Chain,
    pub(crate) max_timestamp: TimestampMs,
    pub(crate) index: Vec<IndexEntry>,
    /// Marks among the frames.
    pub(crate) marks: u64,
    /// Every frame was verified whole before it was taken in: only then may a seal be made of it.
    pub(crate) verified: bool,
}

impl Summary {
    /// Of a segment that begins at `base` and holds no frame yet.
    pub(crate) const fn new(base: Offset, chain_start: Chain) -> Self {
        Self {
            base,
            end: base,
            end_position: FIRST_FRAME,
            chain: chain_start,
            max_timestamp: TimestampMs(i64::MIN),
            index: Vec::new(),
            marks: 0,
            verified: true,
        }
    }

    /// Takes in the batch whose frame lies at `position` and ends at `end_position`.
    pub(crate) fn add(
        &mut self,
        position: Position,
        end_position: Position,
        batch: &StoredBatch,
        chain: Chain,
    ) {
        let due = self
            .index
            .last()
            .is_none_or(|last| position.get().saturating_sub(last.position.get()) >= INDEX_EVERY);
        if due {
            self.index.push(IndexEntry {
                offset: batch.base_offset,
                position,
                max_before: self.max_timestamp,
            });
        }
        self.end = batch.end();
        self.end_position = end_position;
        self.chain = chain;
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp);
    }

    /// Takes in a mark, which says where the log stands.
    pub(crate) fn add_mark(&mut self, end_position: Position, end: Offset, chain: Chain) {
        self.end_position = end_position;
        self.end = end;
        self.chain = chain;
        self.marks = self.marks.saturating_add(1);
    }

    /// Index and footer, as they belong behind the frames.
    pub(crate) fn seal_bytes(&self, tag: LogTag) -> Vec<u8> {
        let footer = Footer {
            index_entries: u32::try_from(self.index.len()).unwrap_or(u32::MAX),
            record_count: self.end.get().saturating_sub(self.base.get()),
            last_offset: Offset(self.end.get().saturating_sub(1)),
            max_timestamp: self.max_timestamp,
            chain_end: self.chain,
            index_position: self.end_position,
            log_tag: tag,
        };
        footer.encode(&self.index)
    }

    /// Length of the sealed file.
    pub(crate) fn sealed_len(&self) -> u64 {
        let index = wide(self.index.len()).saturating_mul(24);
        self.end_position.get().saturating_add(index).saturating_add(64)
    }
}

/// The last entry whose frame begins at or below `offset`.
pub(crate) fn entry_for_offset(index: &[IndexEntry], offset: Offset) -> Option<IndexEntry> {
    let behind = index.partition_point(|entry| entry.offset <= offset);
    index.get(behind.checked_sub(1)?).copied()
}

/// The last entry before which every record is older than `time`.
pub(crate) fn entry_for_time(index: &[IndexEntry], time: TimestampMs) -> Option<IndexEntry> {
    let behind = index.partition_point(|entry| entry.max_before < time);
    index.get(behind.checked_sub(1)?).copied()
}
