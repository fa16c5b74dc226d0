//! Doors for the fuzz targets to what is private: the walk over a file's frames, the search in an
//! index, the producers of a checkpoint. Compiled for them and for tests only, and no part of the API.
//!
//! Each returns plain facts that the target holds against what must be true of any bytes.

use std::io;

use tidelog_wire::ids::{Offset, TimestampMs};

use crate::fields::{FieldWriter, Fields};
use crate::log::locate::load_sealed;
use crate::producers::ProducerTable;
use crate::segment::LogTag;
use crate::segment::footer::IndexEntry;
use crate::segment::summary::{FIRST_FRAME, entry_for_offset, entry_for_time};
use crate::segment::walk::{Depth, Step, Walk};
use crate::storage::{File, Position};

/// A frame that a walk handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub position: Position,
    /// Where it ends.
    pub end: Position,
    /// First and next offset of its batch; `None` for a mark.
    pub offsets: Option<(Offset, Offset)>,
}

/// Walks a whole file as recovery does, searching on behind every fault.
///
/// # Errors
/// As the file's.
pub fn walk(file: &dyn File, tag: LogTag, deep: bool) -> io::Result<Vec<Span>> {
    let depth = if deep { Depth::Full } else { Depth::Headers };
    let mut spans = Vec::new();
    let mut walk = Walk::new(file, tag, depth, FIRST_FRAME, file.len()?, None);
    loop {
        let walked = match walk.step()? {
            Step::Frame(walked) => Some(walked),
            Step::End | Step::Fault(_) => walk.resync()?,
        };
        let Some(walked) = walked else { return Ok(spans) };
        let offsets = walked.batch.map(|batch| (batch.base_offset, batch.end()));
        spans.push(Span { position: walked.position, end: walked.end(), offsets });
    }
}

/// The index of a file that ends in a valid footer.
///
/// # Errors
/// As the file's.
pub fn index_of(file: &dyn File, tag: LogTag) -> io::Result<Option<Vec<IndexEntry>>> {
    Ok(load_sealed(file, tag)?.ok().map(|(_, index)| index))
}

/// Where a search for an offset and for a time begin.
#[must_use]
pub fn search(
    index: &[IndexEntry],
    offset: Offset,
    time: TimestampMs,
) -> (Option<IndexEntry>, Option<IndexEntry>) {
    (entry_for_offset(index, offset), entry_for_time(index, time))
}

/// The producers that `bytes` begin with, and the bytes that encode them again.
#[must_use]
pub fn producers(bytes: &[u8]) -> Option<(ProducerTable, Vec<u8>)> {
    let table = ProducerTable::decode(&mut Fields::new(bytes)).ok()?;
    let mut out = FieldWriter::new();
    table.encode(&mut out);
    Some((table, out.finish().into()))
}
