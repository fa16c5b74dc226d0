//! Walking the frames of a segment file, believing none before it verified.
//!
//! A [`Walk`] reads ahead in large pieces and hands out one frame at a time. At the first one that
//! does not verify it stops and says why; [`Walk::resync`] then looks for the next valid frame
//! behind it, byte by byte, which is safe because a frame's checksum covers its position and its
//! log: no frame passes anywhere else than where it was written.

use std::io;

use tidelog_wire::ids::{Chain, Offset};

use super::LogTag;
use super::frame::{FRAME_HEADER_BYTES, FrameFault, FrameHeader, PREFIX_BYTES, chain_after};
use super::stored::{BATCH_HEADER_BYTES, StoredBatch};
use crate::fields::{narrow, wide};
use crate::storage::{File, Position};

/// Bytes read at once.
const READ_AHEAD: usize = 256 << 10;

/// How much of each frame is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Header checksum and place: enough to find one's way.
    Headers,
    /// The batch's checksum, its offset and the chain as well.
    Full,
}

/// What must come next in the log's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) offset: Offset,
    pub(crate) chain: Chain,
}

/// A frame that verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    pub(crate) position: Position,
    pub(crate) header: FrameHeader,
    /// `None` for a mark.
    pub(crate) batch: Option<StoredBatch>,
}

impl Walked {
    pub(crate) fn end(&self) -> Position {
        self.header.end(self.position)
    }

    /// Where the log stands before it: a mark carries it, a batch is stamped with it.
    pub(crate) fn begins(&self) -> Offset {
        self.batch.map_or(Offset(self.header.raft_index.get()), |batch| batch.base_offset)
    }
}

/// What the walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A frame that verified.
    Frame(Walked),
    /// The end of what was to be walked, or nothing but zeros where a header would be.
    End,
    /// Bytes that are not the next frame.
    Fault(FrameFault),
}

/// A walk over the frames of one file.
pub(crate) struct Walk<'a> {
    file: &'a dyn File,
    tag: LogTag,
    depth: Depth,
    position: Position,
    /// Where the frames end at the latest.
    limit: u64,
    /// `None` after a resync, until a frame says where the log is.
    expected: Option<Expected>,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        file: &'a dyn File,
        tag: LogTag,
        depth: Depth,
        from: Position,
        limit: u64,
        expected: Option<Expected>,
    ) -> Self {
        Self { file, tag, depth, position: from, limit, expected, buffer: Vec::new(), buffer_at: 0 }
    }

    /// The next frame. After [`Step::End`] or [`Step::Fault`] it says the same again.
    pub(crate) fn step(&mut self) -> io::Result<Step> {
        let at = self.position.get();
        if at >= self.limit {
            return Ok(Step::End);
        }
        let Some(head) = self.bytes(at, FRAME_HEADER_BYTES)? else {
            return self.short_rest(at);
        };
        if head.iter().all(|byte| *byte == 0) {
            return Ok(Step::End);
        }
        match self.frame(at)? {
            Ok(walked) => {
                self.go_behind(&walked);
                Ok(Step::Frame(walked))
            }
            Err(fault) => Ok(Step::Fault(fault)),
        }
    }

    /// Fewer bytes than a header: nothing if they are zeros.
    fn short_rest(&mut self, at: u64) -> io::Result<Step> {
        let rest = narrow(self.limit.saturating_sub(at));
        let zeros = self.bytes(at, rest)?.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        Ok(if zeros { Step::End } else { Step::Fault(FrameFault::Short) })
    }

    /// Moves on to the next position behind a fault where a valid frame of this log lies, and
    /// returns that frame; the walk goes on behind it. `None`: there is none up to the limit.
    pub(crate) fn resync(&mut self) -> io::Result<Option<Walked>> {
        let mut at = match self.depth {
            // The count of records in a batch was not verified, so the frame behind it may be the good one.
            Depth::Headers => self.position.get(),
            Depth::Full => self.position.get().saturating_add(1),
        };
        while at.saturating_add(wide(FRAME_HEADER_BYTES)) <= self.limit {
            self.expected = None;
            let candidate = self.tag_at(at)?;
            if candidate && let Ok(walked) = self.frame(at)? {
                self.go_behind(&walked);
                return Ok(Some(walked));
            }
            at = at.saturating_add(1);
        }
        Ok(None)
    }

    fn go_behind(&mut self, walked: &Walked) {
        self.position = walked.end();
        let offset = walked.batch.map_or(Offset(walked.header.raft_index.get()), |batch| batch.end());
        self.expected = Some(Expected { offset, chain: walked.header.chain });
    }

    /// Whether a frame of this log could begin at `at`: a cheap look before any checksum.
    fn tag_at(&mut self, at: u64) -> io::Result<bool> {
        let tag = self.tag.0.to_le_bytes();
        let found = self.bytes(at, FRAME_HEADER_BYTES)?.and_then(|head| head.get(40..44));
        Ok(found == Some(&tag))
    }

    /// The frame at `at`. No more is read than its header and the few bytes of the batch that the header's checksum
    /// covers, before that checksum holds: a length that nobody vouches for costs nothing.
    fn frame(&mut self, at: u64) -> io::Result<Result<Walked, FrameFault>> {
        let position = Position(at);
        let tag = self.tag;
        let limit = self.limit;
        let Some(head) = self.bytes(at, FRAME_HEADER_BYTES)? else { return Ok(Err(FrameFault::Short)) };
        let header = match FrameHeader::decode(head) {
            Ok(header) => header,
            Err(fault) => return Ok(Err(fault)),
        };
        if let Err(fault) = header.check_length() {
            return Ok(Err(fault));
        }
        if header.is_mark() {
            let verified = header.verify(position, &[], tag).and_then(|()| self.verify_mark(&header));
            return Ok(verified.map(|()| Walked { position, header, batch: None }));
        }
        if header.end(position).get() > limit {
            return Ok(Err(FrameFault::Short));
        }
        let batch_at = at.saturating_add(wide(FRAME_HEADER_BYTES));
        let Some(prefix) = self.bytes(batch_at, PREFIX_BYTES)? else { return Ok(Err(FrameFault::Short)) };
        if let Err(fault) = header.verify(position, prefix, tag) {
            return Ok(Err(fault));
        }
        let batch_len = narrow(u64::from(header.frame_len)).saturating_sub(FRAME_HEADER_BYTES);
        let wanted = match self.depth {
            Depth::Headers => BATCH_HEADER_BYTES,
            Depth::Full => batch_len,
        };
        let (depth, expected) = (self.depth, self.expected);
        let Some(batch) = self.bytes(batch_at, wanted)? else { return Ok(Err(FrameFault::Short)) };
        Ok(verify_batch(&header, batch, batch_len, depth, expected).map(|batch| Walked {
            position,
            header,
            batch: Some(batch),
        }))
    }

    /// A mark stands where the log stood.
    fn verify_mark(&self, header: &FrameHeader) -> Result<(), FrameFault> {
        let found = Offset(header.raft_index.get());
        match (self.depth, self.expected) {
            (Depth::Full, Some(expected)) if expected.offset != found => {
                Err(FrameFault::BaseOffset { expected: expected.offset, found })
            }
            (Depth::Full, Some(expected)) if expected.chain != header.chain => {
                Err(FrameFault::Chain { expected: expected.chain.get(), found: header.chain.get() })
            }
            (Depth::Full | Depth::Headers, _) => Ok(()),
        }
    }

    /// `len` bytes at `at`, or `None` if the limit or the file comes before.
    fn bytes(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if at.saturating_add(wide(len)) > self.limit {
            return Ok(None);
        }
        let buffered = at
            .checked_sub(self.buffer_at)
            .is_some_and(|skip| skip.saturating_add(wide(len)) <= wide(self.buffer.len()));
        if !buffered {
            let whole = self.limit.saturating_sub(at).min(wide(READ_AHEAD.max(len)));
            self.buffer.resize(narrow(whole), 0);
            self.buffer_at = at;
            if let Err(error) = self.file.read_at(Position(at), &mut self.buffer) {
                self.buffer.clear();
                return Err(error);
            }
        }
        let skip = narrow(at.saturating_sub(self.buffer_at));
        Ok(self.buffer.get(skip..skip.saturating_add(len)))
    }
}

/// Holds a batch against its frame, which verified, and against what must come next.
fn verify_batch(
    header: &FrameHeader,
    bytes: &[u8],
    batch_len: usize,
    depth: Depth,
    expected: Option<Expected>,
) -> Result<StoredBatch, FrameFault> {
    let batch = StoredBatch::decode(bytes)?;
    if batch.len != wide(batch_len) {
        return Err(FrameFault::BatchLength { expected: wide(batch_len), found: batch.len });
    }
    if let Some(expected) = expected
        && batch.base_offset != expected.offset
    {
        return Err(FrameFault::BaseOffset { expected: expected.offset, found: batch.base_offset });
    }
    match depth {
        Depth::Headers => {}
        Depth::Full => {
            batch.matches(bytes).map_err(|found| FrameFault::BatchChecksum { expected: batch.crc, found })?;
            if let Some(expected) = expected {
                let tail = bytes.get(16..).unwrap_or_default();
                let chain = chain_after(expected.chain, batch.base_offset, &[tail]);
                if chain != header.chain {
                    return Err(FrameFault::Chain { expected: chain.get(), found: header.chain.get() });
                }
            }
        }
    }
    Ok(batch)
}

#[cfg(test)]
mod tests;
