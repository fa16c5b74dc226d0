//! What bytes that do not verify still tell: whose they are, and where they would.

use std::collections::BTreeSet;
use std::io;

use tidelog_wire::ids::Offset;

use super::label::{Label, Part, Why};
use crate::fields::wide;
use crate::segment::LogTag;
use crate::segment::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFIX_BYTES};
use crate::segment::stored::{BATCH_HEADER_BYTES, StoredBatch};
use crate::segment::summary::FIRST_FRAME;
use crate::storage::{File, Position};

/// Holes of one file that are held against each other.
const HOLES_MAX: usize = 256;

/// A frame header and the batch's fixed header behind it.
const HEAD_BYTES: usize = FRAME_HEADER_BYTES + BATCH_HEADER_BYTES;

/// Frame header and batch header at a position, if there is room for them.
fn head_at(
    file: &dyn File,
    at: u64,
    limit: u64,
) -> io::Result<Option<(FrameHeader, [u8; BATCH_HEADER_BYTES])>> {
    if at.saturating_add(wide(HEAD_BYTES)) > limit {
        return Ok(None);
    }
    let (mut head, mut batch) = ([0; FRAME_HEADER_BYTES], [0; BATCH_HEADER_BYTES]);
    file.read_at(Position(at), &mut head)?;
    file.read_at(Position(at.saturating_add(wide(FRAME_HEADER_BYTES))), &mut batch)?;
    Ok(FrameHeader::decode(&head)
        .ok()
        .filter(|header| header.check_length().is_ok())
        .map(|header| (header, batch)))
}

/// Tag and base offset that the first frame of a file states, if it verifies in its place.
pub(super) fn first_frame(file: &dyn File, len: u64) -> io::Result<Option<(LogTag, Offset)>> {
    let Some((header, batch)) = head_at(file, FIRST_FRAME.get(), len)? else { return Ok(None) };
    let prefix = batch.get(..PREFIX_BYTES).unwrap_or_default();
    let verified = header.verify(FIRST_FRAME, prefix, header.log_tag).is_ok();
    let stored = StoredBatch::decode(&batch).ok().filter(|_| verified);
    Ok(stored.map(|stored| (header.log_tag, stored.base_offset)))
}

/// The header of the frame at `at`, if it verifies there, whatever its batch is now.
pub(super) fn frame_header(file: &dyn File, at: u64, tag: LogTag) -> io::Result<Option<FrameHeader>> {
    let Some((header, batch)) = head_at(file, at, file.len()?)? else { return Ok(None) };
    let prefix = batch.get(..PREFIX_BYTES).unwrap_or_default();
    Ok(Some(header).filter(|header| !header.is_mark() && header.verify(Position(at), prefix, tag).is_ok()))
}

/// Where the frame at `at`, whose header verifies, ends.
pub(super) fn frame_end(file: &dyn File, at: u64, limit: u64) -> io::Result<u64> {
    let mut head = [0; FRAME_HEADER_BYTES];
    file.read_at(Position(at), &mut head)?;
    let end = FrameHeader::decode(&head).map_or(limit, |header| header.end(Position(at)).get());
    // A walk goes on behind it, so it must move.
    Ok(end.min(limit).max(at.saturating_add(1)))
}

/// Finds frames of this log that lie where another one should: each hole is tried at the places of all
/// others, which is how frames that were swapped show.
pub(super) fn name_displaced(file: &dyn File, tag: LogTag, parts: &mut [Part]) -> io::Result<()> {
    let mut holes = Vec::new();
    for (at, part) in parts.iter().enumerate().filter(|(_, part)| is_hole(part)).take(HOLES_MAX) {
        if let Some((header, batch)) = head_at(file, part.bytes.start, part.bytes.end)? {
            holes.push((at, part.bytes.clone(), header, batch));
        }
    }
    let mut places: BTreeSet<u64> = BTreeSet::new();
    for (_, bytes, header, _) in &holes {
        let len = u64::from(header.frame_len);
        places.extend([bytes.start, bytes.start.saturating_add(len), bytes.end.saturating_sub(len)]);
    }
    for (at, bytes, header, batch) in &holes {
        let prefix = batch.get(..PREFIX_BYTES).unwrap_or_default();
        let Ok(stored) = StoredBatch::decode(batch) else { continue };
        let fits =
            |place: &&u64| **place != bytes.start && header.verify(Position(**place), prefix, tag).is_ok();
        if let Some(place) = places.iter().find(fits)
            && let Some(Part { label: Label::Damage { why, .. }, .. }) = parts.get_mut(*at)
        {
            *why = Why::Displaced { belongs: *place, offsets: stored.base_offset..stored.end() };
        }
    }
    Ok(())
}

fn is_hole(part: &Part) -> bool {
    matches!(part.label, Label::Damage { why: Why::Frame(_), .. })
}
