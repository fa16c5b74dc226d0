//! Reading a log: whole batches as they lie on disk, each verified before it is handed out.
//!
//! A [`LogReader`] never blocks the writer for longer than a look at how far it has come. What it
//! returns are slices of one read. Bytes that do not verify are never returned: their offsets are
//! marked damaged, and reading them fails and names the range.

use bytes::Bytes;
use tidelog_wire::ids::{Chain, LogId, Offset};

use super::ReadBatches;
use super::damage::Hole;
use super::error::ReadError;
use super::locate::{Hint, Located, read_failed};
use super::shared::{LogShared, Segment};
use super::watch::Subscription;
use crate::fields::{narrow, wide};
use crate::locks::Arc;
use crate::segment::LogTag;
use crate::segment::frame::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, PREFIX_BYTES};
use crate::segment::salvage::is_refusal;
use crate::segment::stored::StoredBatch;
use crate::storage::open_files::OpenSegment;
use crate::storage::{File, Position};

/// Most bytes that one read returns, unless a single batch is larger.
const READ_BYTES_MAX: usize = 32 << 20;

/// Most batches for which a read makes room before it has seen them.
const BATCHES_FORESEEN: usize = 1024;

/// Fewest bytes read at once: a search's neighbours come along for free.
const READ_BYTES_MIN: usize = 4 << 10;

/// Up to where a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visible {
    /// Everything appended. Under consensus all of it is committed.
    Appended,
    /// Only what is durable: what embedded readers get unless they ask otherwise.
    Durable,
}

/// A handle for reading a log. Clones are cheap and may be used from any thread.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(crate) shared: Arc<LogShared>,
    pub(crate) visible: Visible,
}

impl LogReader {
    /// Which log.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.shared.id
    }

    /// The same log, seen up to another point.
    #[must_use]
    pub fn seeing(&self, visible: Visible) -> Self {
        Self { shared: Arc::clone(&self.shared), visible }
    }

    /// Oldest offset kept.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.shared.view().start
    }

    /// Where reading ends: the first offset that is not visible to this reader.
    #[must_use]
    pub fn end(&self) -> Offset {
        let view = self.shared.view();
        match self.visible {
            Visible::Appended => view.end,
            Visible::Durable => view.durable_end,
        }
    }

    /// Everything below is durable on this node's own disk in the segment files.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.shared.view().durable_end
    }

    /// End and chain at it, taken at one moment.
    #[must_use]
    pub fn end_and_chain(&self) -> (Offset, Chain) {
        let view = self.shared.view();
        (view.end, view.chain)
    }

    /// The ranges known to be damaged on this node, rising.
    #[must_use]
    pub fn damage(&self) -> Vec<std::ops::Range<Offset>> {
        self.shared.damage()
    }

    /// Reads whole batches from the one that holds `from`, up to about `max_bytes` (at most 32 MiB),
    /// at least one if any is visible.
    ///
    /// Each batch's frame and its own checksum are verified. Batches that begin below `from` are
    /// returned whole: the consumer skips what it did not ask for.
    ///
    /// # Errors
    /// - [`ReadError::OutOfRange`]: `from` is below the log start or above what is visible.
    /// - [`ReadError::Damaged`]: the batch that holds `from` is damaged here; names exactly the range.
    /// - [`ReadError::Unreadable`]: the disk does not give it; names the range, and may pass.
    /// - [`ReadError::Removed`]: the log is gone. [`ReadError::Io`]: the disk refused.
    pub fn read(&self, from: Offset, max_bytes: usize) -> Result<ReadBatches, ReadError> {
        let mut at = from;
        let max_bytes = max_bytes.min(READ_BYTES_MAX);
        loop {
            let (segment, limit, next_base) = {
                let mut view = self.shared.view();
                self.shared.not_ended(&view)?;
                let limit = match self.visible {
                    Visible::Appended => view.end,
                    Visible::Durable => view.durable_end,
                };
                if at < view.start || at > limit {
                    return Err(self.out_of_range(from, view.start, limit));
                }
                if at == limit {
                    return Ok(ReadBatches { batches: Vec::new(), next: at });
                }
                (view.segment_for(at), limit, view.next_base(at))
            };
            match segment.as_ref().map_or(Ok(()), |segment| self.look_at(segment, at)) {
                Err(ReadError::OutOfRange { .. }) => continue,
                looked => looked?,
            }
            if let Some(range) = self.shared.damage_at(at) {
                return Err(ReadError::Damaged { log: self.shared.id, range });
            }
            let Some(segment) = segment.filter(|segment| segment.facts().end > at) else {
                return Err(self.damaged(at, next_base));
            };
            let within = limit.min(segment.facts().end);
            let read = match self.read_segment(&segment, at, within, max_bytes) {
                // Trimmed since the look: the next one tells where the log begins now.
                Err(ReadError::OutOfRange { .. }) => continue,
                Err(error) => return Err(self.named_unread(&segment, at, error)),
                Ok(read) => read,
            };
            if !read.batches.is_empty() {
                return Ok(read);
            }
            if read.next <= at {
                // The next segment begins within a batch of this one: whose the offsets are, nobody can say.
                if within < limit {
                    return Err(self.damaged(at, within));
                }
                return Ok(read);
            }
            at = read.next;
        }
    }

    /// The chain of the history below `offset`, which must be the end of a batch, or where the log or
    /// a segment begins.
    ///
    /// # Errors
    /// - [`ReadError::InsideBatch`]: the offset lies inside a batch; names the batch.
    /// - As [`LogReader::read`].
    pub fn chain_at(&self, offset: Offset) -> Result<Chain, ReadError> {
        let (segment, begins) = {
            let mut view = self.shared.view();
            self.shared.not_ended(&view)?;
            if offset == view.end {
                return Ok(view.chain);
            }
            if offset > view.end {
                return Err(self.out_of_range(offset, view.start, view.end));
            }
            if offset == Offset::ZERO {
                return Ok(Chain::ZERO);
            }
            let before = Offset(offset.get().saturating_sub(1));
            let end = view.end;
            (view.segment_for(before), view.segments.get(offset, end))
        };
        if let Some(chain) = begins.map(|segment| self.chain_before(&segment)).transpose()?.flatten() {
            return Ok(chain);
        }
        let before = Offset(offset.get().saturating_sub(1));
        if let Some(segment) = &segment {
            self.shared.look_at(segment)?;
        }
        let Some(segment) = segment.filter(|segment| segment.facts().end >= offset) else {
            let (start, end) = (self.start(), self.end());
            return Err(self.out_of_range(offset, start, end));
        };
        let open = self.shared.open_segment(&segment)?;
        match self.shared.locate(&segment, &open, before)? {
            Located::Frame(walked) => match walked.batch {
                Some(batch) if batch.end() == offset => Ok(walked.header.chain),
                Some(batch) => Err(ReadError::InsideBatch {
                    log: self.shared.id,
                    asked: offset,
                    batch: batch.base_offset..batch.end(),
                }),
                None => Err(self.damaged(before, offset)),
            },
            Located::Damaged(hole) => Err(self.damaged_in(&segment, &open, hole)),
        }
    }

    /// Looks at every segment that nobody has used since the log was opened, as the first read of each would:
    /// what is found is in [`Engine::report`](crate::Engine::report) afterwards, and mended or marked damaged.
    ///
    /// # Errors
    /// That of the first segment which cannot be used now; the others were looked at all the same.
    pub fn look_at_all(&self) -> Result<(), ReadError> {
        self.shared.look_at_all()
    }

    /// Runs `callback` once, as soon as something at or above `offset` is visible to this reader, or
    /// reading it fails because the log was removed or opened again: at once and on this thread if it is
    /// so already. It runs on the thread that made it visible, outside all locks of the engine, and should do no more than
    /// wake somebody: that thread's call returns after it. Dropping the subscription takes it back.
    pub fn on_advance(&self, offset: Offset, callback: Box<dyn FnOnce() + Send>) -> Subscription {
        let subscription = self.shared.watch.register(self.visible, offset, callback);
        self.shared.watch.advanced(self.visible, self.end());
        subscription
    }

    /// The chain of the history below a segment, if its header says it.
    fn chain_before(&self, segment: &Segment) -> Result<Option<Chain>, ReadError> {
        self.shared.look_at(segment)?;
        if segment.facts().end <= segment.base {
            return Ok(None);
        }
        let open = self.shared.open_segment(segment)?;
        let header = crate::segment::read_header(open.file.as_ref())
            .map_err(|source| read_failed(segment, "read the segment header", source))?;
        Ok(header.map(|header| header.chain_start))
    }

    fn read_segment(
        &self,
        segment: &Segment,
        from: Offset,
        limit: Offset,
        max_bytes: usize,
    ) -> Result<ReadBatches, ReadError> {
        let open = self.shared.open_segment(segment)?;
        let file = open.file.as_ref();
        let span = Span { from, limit, max_bytes };
        // Who reads on knows where. What lies there is verified as always, and if it does not hold it is
        // searched for like anything else.
        if let Some(position) = self.shared.hints.take(from, segment.base) {
            let taken = self.take(segment, file, position, 0, span)?;
            if let (false, Some(next)) = (taken.batches.is_empty(), taken.next) {
                return Ok(self.taken(segment, taken, next));
            }
        }
        let walked = match self.shared.locate(segment, &open, from)? {
            Located::Frame(walked) => walked,
            Located::Damaged(hole) => return Err(self.damaged_in(segment, &open, hole)),
        };
        let base = walked.batch.map_or(from, |batch| batch.base_offset);
        // Its successor says to begin within it, so one of the two is not what it seems.
        if walked.batch.is_some_and(|batch| batch.end() > limit) {
            return Err(self.damaged(base, limit));
        }
        let first_len = narrow(u64::from(walked.header.frame_len));
        let taken = self.take(segment, file, walked.position, first_len, Span { from: base, ..span })?;
        if taken.batches.is_empty() && taken.faulty {
            let to = self.shared.damage_end(segment, file, taken.position)?;
            let hole = Hole::between((base, taken.position), to);
            return Err(self.damaged_in(segment, &open, hole));
        }
        let next = taken.next.unwrap_or(from);
        Ok(self.taken(segment, taken, next))
    }

    /// Reads what `span` asks for from `position` on, at least `first_len` bytes, and verifies it.
    fn take(
        &self,
        segment: &Segment,
        file: &dyn File,
        position: Position,
        first_len: usize,
        span: Span,
    ) -> Result<Taken, ReadError> {
        let frames_end = segment.facts().end_position.get();
        let mut wanted = span.max_bytes.max(READ_BYTES_MIN).max(first_len);
        loop {
            let len = narrow(frames_end.saturating_sub(position.get())).min(wanted);
            let bytes =
                file.read(position, len).map_err(|source| read_failed(segment, "read batches", source))?;
            let taken = take_batches(&Bytes::from(bytes), position, self.shared.tag, span);
            match taken.longer {
                Some(longer) if taken.batches.is_empty() && longer > wanted => wanted = longer,
                Some(_) | None => return Ok(taken),
            }
        }
    }

    fn taken(&self, segment: &Segment, taken: Taken, next: Offset) -> ReadBatches {
        self.shared.hints.put(Hint { offset: next, base: segment.base, position: taken.position });
        ReadBatches { batches: taken.batches, next }
    }

    /// The first look at a segment that is to be read from `at` on.
    fn look_at(&self, segment: &Segment, at: Offset) -> Result<(), ReadError> {
        self.shared.look_at(segment).map_err(|error| self.named_unread(segment, at, error))
    }

    /// What could not be read because the disk does not give it is told so, and is no damage: the next read
    /// asks the disk again.
    fn named_unread(&self, segment: &Segment, at: Offset, error: ReadError) -> ReadError {
        let log = self.shared.id;
        let path = segment.path();
        match error {
            ReadError::Io { source, .. } if is_refusal(&source) => {
                let range = at..segment.facts().end;
                ReadError::Unreadable { log, range, path, said: source.to_string() }
            }
            error @ (ReadError::OutOfRange { .. }
            | ReadError::Damaged { .. }
            | ReadError::Unreadable { .. }
            | ReadError::Io { .. }
            | ReadError::InsideBatch { .. }
            | ReadError::Unusable(_)
            | ReadError::Removed { .. }
            | ReadError::Reopened { .. }) => error,
        }
    }

    /// A hole that `open` showed: damage, unless the disk refused to give some of those very bytes.
    fn damaged_in(&self, segment: &Segment, open: &OpenSegment, hole: Hole) -> ReadError {
        let said = open.file.refused(hole.bytes.clone());
        self.shared.mark_hole(&hole, said.as_deref());
        let (log, range) = (self.shared.id, hole.offsets);
        match said {
            None => ReadError::Damaged { log, range },
            Some(said) => ReadError::Unreadable { log, range, path: segment.path(), said },
        }
    }

    fn damaged(&self, from: Offset, to: Offset) -> ReadError {
        let range = from..to;
        self.shared.mark_damaged(range.clone());
        ReadError::Damaged { log: self.shared.id, range }
    }

    fn out_of_range(&self, asked: Offset, start: Offset, end: Offset) -> ReadError {
        ReadError::OutOfRange { log: self.shared.id, asked, start, end }
    }
}

/// What is to be taken: batches from the one that begins at `from` on.
#[derive(Clone, Copy)]
struct Span {
    from: Offset,
    limit: Offset,
    max_bytes: usize,
}

struct Taken {
    batches: Vec<Bytes>,
    /// Behind the last batch taken.
    next: Option<Offset>,
    /// Where the first frame that was not taken begins.
    position: Position,
    /// It was not taken because it does not verify.
    faulty: bool,
    /// It was not taken because the bytes end before; its header, unverified, says so many are needed.
    longer: Option<usize>,
}

/// Takes verified batches off `bytes`, which were read at `position`, until the limit, the budget or
/// the bytes end.
fn take_batches(bytes: &Bytes, position: Position, tag: LogTag, span: Span) -> Taken {
    let Span { from, limit, max_bytes } = span;
    let mut taken = Taken { batches: Vec::new(), next: None, position, faulty: false, longer: None };
    let mut at = 0;
    let mut sum = 0_usize;
    while let Some(frame) = bytes.get(at..).filter(|frame| frame.len() >= FRAME_HEADER_BYTES) {
        let frame_position = Position(position.get().saturating_add(wide(at)));
        let Ok(header) = FrameHeader::decode(frame) else { break };
        let len = u64::from(header.frame_len);
        if header.check_length().is_err() || len > FRAME_BYTES_MAX {
            taken.faulty = true;
            break;
        }
        let Some(frame) = frame.get(..narrow(len)) else {
            taken.longer = Some(narrow(len));
            break;
        };
        let batch_bytes = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let prefix = batch_bytes.get(..PREFIX_BYTES).unwrap_or_default();
        if header.verify(frame_position, prefix, tag).is_err() {
            taken.faulty = true;
            break;
        }
        if !header.is_mark() {
            let expected = taken.next.unwrap_or(from);
            let batch = StoredBatch::decode(batch_bytes).ok();
            let batch =
                batch.filter(|batch| batch.base_offset == expected && batch.matches(batch_bytes).is_ok());
            let Some(batch) = batch else {
                taken.faulty = true;
                break;
            };
            sum = sum.saturating_add(batch_bytes.len());
            if batch.end() > limit || (!taken.batches.is_empty() && sum > max_bytes) {
                break;
            }
            let begins = at.saturating_add(FRAME_HEADER_BYTES);
            if taken.batches.is_empty() {
                // As many as there would be of this length, if they are not tiny.
                taken.batches.reserve((bytes.len() / narrow(len)).min(BATCHES_FORESEEN));
            }
            taken.batches.push(bytes.slice(begins..at.saturating_add(narrow(len))));
            taken.next = Some(batch.end());
        }
        at = at.saturating_add(narrow(len));
        taken.position = Position(position.get().saturating_add(wide(at)));
    }
    taken
}
