//! The batches of a log as they lie in its files, past whatever is damaged.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use bytes::Bytes;
use tidelog_wire::ids::Offset;

use super::error::{OfflineError, failed};
use super::label::{Label, Part, SegmentMap};
use super::map::Detail;
use super::target::LogFiles;
use super::verify::{Finding, LogVerdict, Look, is_asked};
use crate::fields::{narrow, wide};
use crate::segment::frame::FRAME_HEADER_BYTES;
use crate::segment::walk::{Depth, Step, Walk};
use crate::storage::{OpenMode, Position, Storage};

/// What a dump comes across.
#[derive(Debug)]
pub enum Dumped<'a> {
    /// A batch that verifies, whole.
    Batch {
        /// In which file.
        path: &'a Path,
        /// Where its frame begins.
        position: Position,
        /// As it was stored.
        bytes: Bytes,
    },
    /// Something that is damaged; it is passed over.
    Damage(Finding),
}

/// Hands out every intact batch of a log with records in `wanted`, in order, and what is damaged, until `out` breaks. A
/// segment is read when its turn comes, and told to `progress` when it is done.
///
/// # Errors
/// [`OfflineError::Io`]: what was handed out until then is good.
pub fn dump(
    storage: &dyn Storage,
    files: &LogFiles,
    wanted: &Range<Offset>,
    progress: &mut dyn FnMut(u64),
    out: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<(), OfflineError> {
    let mut look = Look::new(files);
    let mut done = 0;
    for (at, segment) in files.segments.iter().enumerate() {
        let next = files.next_base(at);
        let below = next.is_some_and(|next| next <= wanted.start);
        if let Some(next) = next.filter(|_| below || !files.is_asked(segment.base)) {
            look.skip(next);
        } else {
            look.segment(storage, at, segment, Detail::Runs);
        }
        let mut dumping = Dumping { storage, files, wanted, out };
        if dumping.take(&mut look.verdict, &mut done)?.is_break() {
            return Ok(());
        }
        progress(segment.len);
        if next.is_some_and(|next| next >= wanted.end) {
            return Ok(());
        }
    }
    look.end_of_log();
    let mut dumping = Dumping { storage, files, wanted, out };
    dumping.take(&mut look.verdict, &mut done).map(|_| ())
}

struct Dumping<'a> {
    storage: &'a dyn Storage,
    files: &'a LogFiles,
    wanted: &'a Range<Offset>,
    out: &'a mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
}

impl Dumping<'_> {
    /// Hands out what was found since the last time; `done` maps were handed out then.
    fn take(&mut self, verdict: &mut LogVerdict, done: &mut usize) -> Result<ControlFlow<()>, OfflineError> {
        let wanted = self.wanted;
        let inside = |finding: &Finding| {
            finding.offsets.as_ref().is_none_or(|lost| lost.end > wanted.start && lost.start < wanted.end)
        };
        for finding in verdict.damage.drain(..).filter(inside) {
            if is_asked(self.files, &finding.path) && (self.out)(Dumped::Damage(finding)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for (segment, _, map) in verdict.maps.get(*done..).unwrap_or_default() {
            *done = done.saturating_add(1);
            if self.files.is_asked(segment.base) && self.segment(&segment.path, map)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn segment(&mut self, path: &Path, map: &SegmentMap) -> Result<ControlFlow<()>, OfflineError> {
        let (Some(tag), wanted) = (map.tag, self.wanted) else { return Ok(ControlFlow::Continue(())) };
        let file = self.storage.open(path, OpenMode::Read).map_err(failed(path, "open"))?;
        for Part { bytes: range, label } in &map.parts {
            let Label::Frames { records, .. } = label else { continue };
            if records.end <= wanted.start || records.start >= wanted.end {
                continue;
            }
            let mut walk =
                Walk::new(file.as_ref(), tag, Depth::Headers, Position(range.start), range.end, None);
            while let Step::Frame(walked) = walk.step().map_err(failed(path, "read"))? {
                let Some(batch) = walked.batch else { continue };
                if batch.end() <= wanted.start || batch.base_offset >= wanted.end {
                    continue;
                }
                let at = walked.position.get().saturating_add(wide(FRAME_HEADER_BYTES));
                let mut bytes = vec![0; narrow(batch.len)];
                file.read_at(Position(at), &mut bytes).map_err(failed(path, "read"))?;
                let found = Dumped::Batch { path, position: walked.position, bytes: Bytes::from(bytes) };
                if (self.out)(found).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
