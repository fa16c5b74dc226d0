//! The batches of a log as they lie in its files, past whatever is damaged.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use bytes::Bytes;
use tidelog_wire::ids::Offset;

use super::error::{OfflineError, failed};
use super::label::{Label, Part};
use super::map::Detail;
use super::target::LogFiles;
use super::verify::{Finding, verify_log};
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

/// Hands out every intact batch of a log with records in `wanted`, in order, and what is damaged, until `out` breaks.
///
/// # Errors
/// [`OfflineError::Io`]: what was handed out until then is good.
pub fn dump(
    storage: &dyn Storage,
    files: &LogFiles,
    wanted: &Range<Offset>,
    out: &mut dyn FnMut(Dumped<'_>) -> ControlFlow<()>,
) -> Result<(), OfflineError> {
    let mut verdict = verify_log(storage, files, Detail::Runs, &mut |_| {});
    let outside = |finding: &Finding| {
        finding.offsets.as_ref().is_some_and(|lost| lost.end <= wanted.start || lost.start >= wanted.end)
    };
    verdict.damage.retain(|finding| !outside(finding));
    let Some(tag) = files.tag() else { return Ok(()) };
    for finding in verdict.damage {
        if out(Dumped::Damage(finding)).is_break() {
            return Ok(());
        }
    }
    for (segment, _, map) in &verdict.maps {
        let path = &segment.path;
        let file = storage.open(path, OpenMode::Read).map_err(failed(path, "open"))?;
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
                if out(found).is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
