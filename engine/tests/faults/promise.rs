//! What a log was sent and what was promised of it, held against what it gives back.
//!
//! Nothing here asks the engine what is right. A batch that is not read is looked for on the disk: if
//! its frame lies there whole, in the place and the file where it belongs, it had to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tidelog_engine::log::{LogReader, ReadError};
use tidelog_engine::segment::LogTag;
use tidelog_engine::segment::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFIX_BYTES};
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{Position, read_whole};
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LogId, Offset};

use crate::outcome::{Outcome, Outcomes};
use crate::world::{CLUSTER, batch, log_dir};

/// Whether the fault destroys bytes that were promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It does not: everything promised must be read.
    None,
    /// It does: what is gone must be named, and nothing else may be gone.
    Destroys,
}

/// What may be seen at present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) harm: Harm,
    /// The fault has not been mended yet.
    pub(crate) disk_is_bad: bool,
    /// The fault struck what says where logs start.
    pub(crate) start_may_fall: bool,
    /// The log was opened for reading only, up to what the disk does not give.
    pub(crate) end_may_be_low: bool,
}

impl Now {
    fn may_lose(self) -> bool {
        self.disk_is_bad || self.harm == Harm::Destroys
    }
}

/// One life of a log. Batches are told by their numbers.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(crate) log: LogId,
    /// Per base offset, what may lie there.
    sent: BTreeMap<u64, BTreeSet<u64>>,
    /// Appended, and lost by a crash without a broken promise.
    written: BTreeMap<u64, u64>,
    kept: BTreeMap<u64, u64>,
    start_asked: u64,
    start_kept: u64,
}

impl Promise {
    pub(crate) fn new(log: LogId) -> Self {
        Self {
            log,
            sent: BTreeMap::new(),
            written: BTreeMap::new(),
            kept: BTreeMap::new(),
            start_asked: 0,
            start_kept: 0,
        }
    }

    /// Batch `number` is about to be appended at `base`.
    pub(crate) fn sends(&mut self, base: Offset, number: u64) {
        self.sent.entry(base.get()).or_default().insert(number);
    }

    /// It was appended.
    pub(crate) fn wrote(&mut self, base: Offset, number: u64) {
        self.written.insert(base.get(), number);
    }

    /// Everything appended so far is promised.
    pub(crate) fn keeps_all(&mut self) {
        self.kept.append(&mut self.written);
    }

    /// The log is opened again: what was not promised may be gone.
    pub(crate) fn reopens(&mut self) {
        self.written.clear();
    }

    pub(crate) fn asks_start(&mut self, to: u64) {
        self.start_asked = self.start_asked.max(to);
    }

    pub(crate) fn keeps_start(&mut self, to: u64) {
        self.start_kept = self.start_kept.max(to);
    }

    /// Reads the whole log and says what was told. What it shows is promised from now on.
    ///
    /// While the disk is bad a read may be refused, if it names what it does not give; never is it wrong.
    pub(crate) fn check(&mut self, reader: &LogReader, disk: &SimDisk, now: Now) -> Result<Outcomes, String> {
        let mut told = Outcomes::new();
        let start = reader.start().get();
        if start > self.start_asked {
            return Err(format!("{}: the start rose to {start} by itself", self.log));
        }
        if start < self.start_kept && !now.start_may_fall {
            return Err(format!("{}: the start fell from {} to {start}", self.log, self.start_kept));
        }
        let mut read = BTreeMap::new();
        let mut missing: Vec<Range<Offset>> = Vec::new();
        let mut at = reader.start();
        while at < reader.end() {
            match reader.read(at, 3_000) {
                Ok(found) if found.next > at => {
                    for bytes in &found.batches {
                        let (base, number) = self.recognise(bytes)?;
                        read.insert(base, number);
                    }
                    at = found.next;
                }
                Ok(_) => return Err(format!("{}: reading at {at} does not get on", self.log)),
                Err(ReadError::Damaged { range, .. }) if now.may_lose() && range.end > at => {
                    told.insert(Outcome::Damaged);
                    at = range.end;
                    missing.push(range);
                }
                Err(ReadError::Unreadable { range, .. }) if now.disk_is_bad && range.end > at => {
                    told.insert(Outcome::ReadFailed);
                    at = range.end;
                    missing.push(range);
                }
                Err(ReadError::Io { .. }) if now.disk_is_bad => {
                    told.insert(Outcome::ReadFailed);
                    return Ok(told);
                }
                Err(error) => return Err(format!("reading at {at}: {error}")),
            }
        }
        for (base, number) in self.kept.range(start..) {
            let is_missing = missing.iter().any(|range| range.contains(&Offset(*base)));
            match read.get(base) {
                Some(found) if found == number => {}
                Some(found) => return Err(format!("{}: batch {number} became {found}", self.log)),
                None if now.end_may_be_low && *base >= reader.end().get() => {}
                None if !is_missing => {
                    return Err(format!("{}: batch {number} at {base} is gone without a word", self.log));
                }
                None if !now.disk_is_bad && self.is_intact(disk, *base, *number) => {
                    return Err(format!(
                        "{}: batch {number} at {base} lies intact and is not read; missing: {missing:?}",
                        self.log
                    ));
                }
                None => {}
            }
        }
        if !now.disk_is_bad {
            self.kept.clear();
        }
        self.kept.append(&mut read);
        Ok(told)
    }

    /// Which batch this is, or that it is none that was sent here.
    fn recognise(&self, bytes: &bytes::Bytes) -> Result<(u64, u64), String> {
        let wrong = |what: &str| format!("{}: wrong data: {what}", self.log);
        let found =
            Batch::parse(bytes.clone(), BatchLimits::CAP).map_err(|error| wrong(&error.to_string()))?;
        let base = found.base_offset().ok_or_else(|| wrong("a negative offset"))?.get();
        let sent = self.sent.get(&base).ok_or_else(|| wrong(&format!("nothing was sent at {base}")))?;
        let same = |number: &u64| batch(*number).bytes().get(16..) == bytes.get(16..);
        let number = sent.iter().copied().find(same);
        number.map(|number| (base, number)).ok_or_else(|| wrong(&format!("no batch of those sent at {base}")))
    }

    /// Whether the frame of a batch lies whole in a file of this log.
    fn is_intact(&self, disk: &SimDisk, base: u64, number: u64) -> bool {
        let tag = LogTag::of(CLUSTER, self.log);
        let body = batch(number).bytes()[16..].to_vec();
        let files = disk.files().into_iter().filter(|path| path.starts_with(log_dir(self.log)));
        files.into_iter().any(|path| {
            let Ok(bytes) = read_whole(disk.storage().as_ref(), &path, 1 << 30) else { return false };
            let Some(at) = bytes.windows(body.len()).position(|window| window == body) else { return false };
            let Some(frame) = at.checked_sub(16 + FRAME_HEADER_BYTES) else { return false };
            let prefix = &bytes[frame + FRAME_HEADER_BYTES..][..PREFIX_BYTES];
            let position = Position(u64::try_from(frame).unwrap());
            prefix[..8] == base.to_be_bytes()
                && FrameHeader::decode(&bytes[frame..])
                    .is_ok_and(|header| header.verify(position, prefix, tag).is_ok())
        })
    }
}
