//! Where two copies of a log begin to differ, found without reading them.
//!
//! The chain of a frame is a hash of all history up to it. So two copies are equal up to a frame if it has the same chain in
//! both, and from the first difference on all chains differ: the place is found by bisection over offsets. A frame is found
//! by the sparse index, or, in a segment that has none, by bisection over bytes, since a frame's checksum covers its own
//! position: from any byte the next frame behind it can be told. Reads grow with the logarithm of the log's length.
//!
//! Damaged frames are passed over: they are no difference of history. `verify` names them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_wire::ids::{Chain, Offset};

use super::error::{OfflineError, failed};
use super::target::LogFiles;
use crate::fields::wide;
use crate::locks::atomic::{AtomicU64, Ordering};
use crate::log::locate::load_sealed;
use crate::segment::summary::FIRST_FRAME;
use crate::segment::walk::{Depth, Step, Walk, Walked};
use crate::segment::{LogTag, header_of};
use crate::storage::{File, OpenMode, Position, Storage};

/// Frames closer together than this are found by walking.
const WALK_BYTES: u64 = 128 << 10;

/// Holes of either copy that are stepped over in one look.
const STEPS_MAX: usize = 64;

/// A frame of one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameAt {
    /// In which file.
    pub path: PathBuf,
    /// Where it begins.
    pub position: Position,
    /// Its records.
    pub records: Range<Offset>,
    /// Chain up to and including it.
    pub chain: Chain,
}

/// How two copies of a log compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The records that each copy has.
    pub ranges: [Range<Offset>; 2],
    /// Up to here the histories are equal; `None` if they differ from the first common frame on.
    pub equal_to: Option<Offset>,
    /// The first frames that differ. `None`: all that both have is equal.
    pub difference: Option<[FrameAt; 2]>,
    /// Reads that it took.
    pub reads: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
}

/// Finds the first difference between two copies of a log.
///
/// # Errors
/// [`OfflineError::Io`], [`OfflineError::NothingHere`] if a copy has no segment whose owner can be told.
pub fn compare(storage: &dyn Storage, one: &LogFiles, other: &LogFiles) -> Result<Comparison, OfflineError> {
    let counter = Arc::new(Counter::default());
    let mut pair =
        Pair { one: Copied::open(storage, one, &counter)?, other: Copied::open(storage, other, &counter)? };
    let ranges = [pair.one.range()?, pair.other.range()?];
    let [a, b] = &ranges;
    let (start, end) = (a.start.max(b.start), a.end.min(b.end));
    let (mut equal_to, mut difference) = (None, None);
    if start < end {
        (equal_to, difference) = pair.bisect(start, end)?;
    }
    Ok(Comparison {
        ranges,
        equal_to,
        difference,
        reads: counter.reads.load(Ordering::Relaxed),
        read_bytes: counter.bytes.load(Ordering::Relaxed),
    })
}

struct Pair<'a> {
    one: Copied<'a>,
    other: Copied<'a>,
}

enum Look {
    /// The frame at the offset has one chain in both; it ends here.
    Same(Offset),
    Differs([FrameAt; 2]),
    /// One of them has no intact frame there or behind.
    Unknown,
}

impl Pair<'_> {
    fn bisect(
        &mut self,
        start: Offset,
        end: Offset,
    ) -> Result<(Option<Offset>, Option<[FrameAt; 2]>), OfflineError> {
        let (mut low, mut high) = (start, end);
        let (mut equal_to, mut difference) = (None, None);
        // The last offset first: equal there is equal everywhere.
        let mut at = Offset(end.get().saturating_sub(1));
        while low < high {
            match self.look(at)? {
                Look::Same(end) => {
                    low = end.max(at.plus(1));
                    equal_to = equal_to.max(Some(end));
                }
                Look::Differs(frames) => {
                    let [one, other] = &frames;
                    high = at.min(one.records.start.max(other.records.start));
                    difference = Some(frames);
                }
                Look::Unknown => high = at,
            }
            at = Offset(low.get().midpoint(high.get().max(low.get())));
        }
        Ok((equal_to, difference))
    }

    fn look(&mut self, offset: Offset) -> Result<Look, OfflineError> {
        let mut at = offset;
        for _ in 0..STEPS_MAX {
            let Some(one) = self.one.frame_at(at)? else { return Ok(Look::Unknown) };
            let Some(other) = self.other.frame_at(one.records.start)? else { return Ok(Look::Unknown) };
            if other.records.start >= one.records.end {
                // The other one has a hole here.
                at = other.records.start;
                continue;
            }
            let same = one.records == other.records && one.chain == other.chain;
            return Ok(if same { Look::Same(one.records.end) } else { Look::Differs([one, other]) });
        }
        Ok(Look::Unknown)
    }
}

/// One segment of a copy, opened when it is first asked.
struct Rungs {
    base: Offset,
    path: PathBuf,
    opened: Option<Opened>,
}

struct Opened {
    file: Arc<dyn File>,
    /// Where the frames end at the latest.
    limit: u64,
    /// Frames that are known, by offset.
    known: BTreeMap<Offset, u64>,
}

struct Copied<'a> {
    storage: &'a dyn Storage,
    counter: Arc<Counter>,
    tag: LogTag,
    segments: Vec<Rungs>,
}

impl<'a> Copied<'a> {
    fn open(
        storage: &'a dyn Storage,
        files: &LogFiles,
        counter: &Arc<Counter>,
    ) -> Result<Self, OfflineError> {
        let asked = files.segments.iter().filter(|segment| files.is_asked(segment.base));
        let segments: Vec<Rungs> = asked
            .map(|segment| Rungs { base: segment.base, path: segment.path.clone(), opened: None })
            .collect();
        let nothing = || OfflineError::NothingHere { path: files.dir.clone() };
        // A log of another cluster has other tags, and may have the same history all the same.
        let tag = match files.tag() {
            Some(tag) => Some(tag),
            None => segments.first().map(|first| owner(storage, &first.path)).transpose()?.flatten(),
        };
        let tag = tag.filter(|_| !segments.is_empty()).ok_or_else(nothing)?;
        Ok(Self { storage, counter: Arc::clone(counter), tag, segments })
    }

    /// From the first segment's base to the end of the last intact frame.
    fn range(&mut self) -> Result<Range<Offset>, OfflineError> {
        let start = self.segments.first().map_or(Offset::ZERO, |first| first.base);
        for at in (0..self.segments.len()).rev() {
            if let Some(last) = self.last_frame(at)? {
                return Ok(start..last);
            }
        }
        Ok(start..start)
    }

    fn opened(&mut self, at: usize) -> Result<Option<(&mut Opened, &Path)>, OfflineError> {
        let (storage, tag) = (self.storage, self.tag);
        let Some(rungs) = self.segments.get_mut(at) else { return Ok(None) };
        if rungs.opened.is_none() {
            let path = &rungs.path;
            let inner = storage.open(path, OpenMode::Read).map_err(failed(path, "open"))?;
            let file: Arc<dyn File> = Arc::new(Counted { inner, counter: Arc::clone(&self.counter) });
            let len = file.len().map_err(failed(path, "size"))?;
            let sealed =
                load_sealed(file.as_ref(), tag).map_err(failed(path, "read index and footer of"))?.ok();
            let limit = sealed.as_ref().map_or(len, |(footer, _)| footer.index_position.get());
            let index = sealed.map(|(_, index)| index).unwrap_or_default();
            let known = index.into_iter().map(|entry| (entry.offset, entry.position.get())).collect();
            rungs.opened = Some(Opened { file, limit, known });
        }
        let path = rungs.path.as_path();
        Ok(rungs.opened.as_mut().map(|opened| (opened, path)))
    }

    /// The intact frame that holds `offset`, or the next one behind it.
    fn frame_at(&mut self, offset: Offset) -> Result<Option<FrameAt>, OfflineError> {
        let behind = self.segments.partition_point(|segment| segment.base <= offset);
        for at in behind.saturating_sub(1)..self.segments.len() {
            let tag = self.tag;
            let Some((opened, path)) = self.opened(at)? else { break };
            if let Some(walked) = opened.find(tag, offset).map_err(failed(path, "read"))? {
                return Ok(frame(path, &walked));
            }
        }
        Ok(None)
    }

    /// Where the last intact frame of a segment ends.
    fn last_frame(&mut self, at: usize) -> Result<Option<Offset>, OfflineError> {
        let tag = self.tag;
        let Some((opened, path)) = self.opened(at)? else { return Ok(None) };
        opened.find(tag, Offset(u64::MAX)).map_err(failed(path, "read"))?;
        let Some((_, last)) = opened.known.last_key_value() else { return Ok(None) };
        let mut walk = opened.walk(tag, *last);
        let mut end = None;
        while let Step::Frame(walked) = walk.step().map_err(failed(path, "read"))? {
            end = walked.batch.map(|batch| batch.end()).or(end);
        }
        Ok(end)
    }
}

impl Opened {
    fn walk(&self, tag: LogTag, from: u64) -> Walk<'_> {
        Walk::new(self.file.as_ref(), tag, Depth::Headers, Position(from), self.limit, None)
    }

    /// The first intact batch that ends above `offset`.
    fn find(&mut self, tag: LogTag, offset: Offset) -> io::Result<Option<Walked>> {
        let (mut low, mut high) = (FIRST_FRAME.get(), self.limit);
        loop {
            if let Some((_, position)) = self.known.range(..=offset).next_back() {
                low = low.max(*position);
            }
            if offset < Offset(u64::MAX)
                && let Some((_, position)) = self.known.range(offset.plus(1)..).next()
            {
                high = high.min(*position);
            }
            if high.saturating_sub(low) <= WALK_BYTES {
                break;
            }
            let middle = low.midpoint(high);
            let next = self.walk(tag, middle).resync()?.filter(|walked| walked.position.get() < high);
            match next {
                Some(walked) => {
                    self.known.insert(walked.begins(), walked.position.get());
                    if walked.begins() > offset {
                        high = middle;
                    }
                }
                None => high = middle,
            }
        }
        let mut walk = self.walk(tag, low);
        let mut last = None;
        let found = loop {
            let walked = match walk.step()? {
                Step::Frame(walked) => Some(walked),
                Step::End | Step::Fault(_) => walk.resync()?,
            };
            let Some(walked) = walked else { break None };
            if let Some(batch) = walked.batch {
                if batch.end() > offset {
                    break Some(walked);
                }
                last = Some(walked);
            }
        };
        // The last frame seen is where the next look goes on.
        if let (None, Some(last)) = (&found, last) {
            self.known.insert(last.begins(), last.position.get());
        }
        Ok(found)
    }
}

fn frame(path: &Path, walked: &Walked) -> Option<FrameAt> {
    let batch = walked.batch?;
    let records = batch.base_offset..batch.end();
    Some(FrameAt { path: path.to_path_buf(), position: walked.position, records, chain: walked.header.chain })
}

/// The tag of a segment's log, by its header.
fn owner(storage: &dyn Storage, path: &Path) -> Result<Option<LogTag>, OfflineError> {
    let file = storage.open(path, OpenMode::Read).map_err(failed(path, "open"))?;
    let header = header_of(file.as_ref()).map_err(failed(path, "read the header of"))?;
    Ok(header.ok().map(|header| LogTag::of(header.cluster, header.log)))
}

#[derive(Debug, Default)]
struct Counter {
    reads: AtomicU64,
    bytes: AtomicU64,
}

/// A file whose reads are counted.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn File>,
    counter: Arc<Counter>,
}

impl File for Counted {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        self.counter.reads.fetch_add(1, Ordering::Relaxed);
        self.counter.bytes.fetch_add(wide(buf.len()), Ordering::Relaxed);
        self.inner.read_at(position, buf)
    }

    fn write_at(&self, _: Position, _: &[&[u8]]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
