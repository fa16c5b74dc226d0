//! Holding a segment file against what a manifest says of it: whole, frame by frame, by its chain.
//!
//! Nothing that came over the network is put in place before this said yes. It reads a frame at a
//! time, so its memory is one frame.

use bytes::Bytes;
use tidelog_engine::segment::LogTag;
use tidelog_engine::segment::footer::{FOOTER_BYTES, Footer};
use tidelog_engine::segment::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFIX_BYTES, chain_after};
use tidelog_engine::segment::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use tidelog_engine::storage::{File, Position};
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{ClusterId, LogId, Offset};

use super::error::SnapshotError;
use super::manifest::SegmentFile;

/// Largest index that is read at once.
const INDEX_BYTES_MAX: u64 = 256 << 20;

/// Who a file must belong to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) cluster: ClusterId,
    pub(super) log: LogId,
}

/// Where and why a file is not what it should be.
type Fault = (u64, String);

/// Whether the first `expected.length` bytes of `file`, and nothing behind them, are that segment.
pub(super) fn verify(file: &dyn File, owner: Owner, expected: &SegmentFile) -> Result<(), SnapshotError> {
    check(file, owner, expected).map_err(|(position, found)| SnapshotError::Unverified {
        log: owner.log,
        base: expected.base,
        position,
        found,
    })
}

/// Whether `file` is the sealed segment `expected`, judged by its length, header and footer only: enough
/// for a file of our own, whose frames were verified when they were written.
pub(super) fn is_same_sealed(file: &dyn File, owner: Owner, expected: &SegmentFile) -> bool {
    expected.sealed
        && file.len().is_ok_and(|length| length == expected.length)
        && check_header(file, owner, expected).is_ok()
        && check_footer(file, owner, expected).is_ok()
}

/// Whether `file` begins as the segment `expected` does.
pub(super) fn begins_as(file: &dyn File, owner: Owner, expected: &SegmentFile) -> bool {
    check_header(file, owner, expected).is_ok()
}

/// Header and, if it is sealed, footer: what an offering node looks at.
pub(super) fn check_ends(file: &dyn File, owner: Owner, expected: &SegmentFile) -> Result<(), String> {
    check_header(file, owner, expected).map_err(|(_, found)| found)?;
    if expected.sealed {
        check_footer(file, owner, expected).map_err(|(_, found)| found)?;
    }
    Ok(())
}

/// The header of a segment, if it has one that verifies.
pub(super) fn header(file: &dyn File) -> Option<SegmentHeader> {
    let bytes = read(file, 0, SEGMENT_HEADER_BYTES).ok()?;
    SegmentHeader::decode(&bytes).ok()
}

fn check(file: &dyn File, owner: Owner, expected: &SegmentFile) -> Result<(), Fault> {
    let length = file.len().map_err(|error| (0, error.to_string()))?;
    if length != expected.length {
        return Err((length, format!("{length} bytes long, expected {}", expected.length)));
    }
    check_header(file, owner, expected)?;
    let frames_end = match expected.sealed {
        true => check_footer(file, owner, expected)?,
        false => expected.length,
    };
    let tag = LogTag::of(owner.cluster, owner.log);
    let mut at = wide(SEGMENT_HEADER_BYTES);
    let mut offset = expected.base;
    let mut chain = expected.chain_start;
    while at < frames_end {
        let head = read(file, at, FRAME_HEADER_BYTES)?;
        let frame = FrameHeader::decode(&head).map_err(|fault| (at, fault.to_string()))?;
        frame.check_length().map_err(|fault| (at, fault.to_string()))?;
        if frame.is_mark() || frame.end(Position(at)).get() > frames_end {
            return Err((at, "a frame that does not end within the frames, or a mark".to_owned()));
        }
        let batch_bytes = usize::try_from(frame.frame_len).unwrap_or(0).saturating_sub(FRAME_HEADER_BYTES);
        let bytes = read(file, at.saturating_add(wide(FRAME_HEADER_BYTES)), batch_bytes)?;
        frame
            .verify(Position(at), bytes.get(..PREFIX_BYTES).unwrap_or_default(), tag)
            .map_err(|fault| (at, fault.to_string()))?;
        let batch = Batch::parse(bytes, BatchLimits::CAP).map_err(|error| (at, error.to_string()))?;
        if batch.base_offset() != Some(offset) {
            return Err((at, format!("base offset {:?}, expected {offset}", batch.base_offset())));
        }
        chain = chain_after(chain, offset, &[batch.chain_input()]);
        if frame.chain != chain {
            return Err((at, format!("chain {:016x}, expected {:016x}", frame.chain.get(), chain.get())));
        }
        offset = batch.last_offset().map_or(offset, |last| Offset(last.get().saturating_add(1)));
        at = frame.end(Position(at)).get();
    }
    if offset != expected.end || chain != expected.chain_end {
        return Err((
            at,
            format!("ends at offset {offset}, expected {}, or with another chain", expected.end),
        ));
    }
    Ok(())
}

fn check_header(file: &dyn File, owner: Owner, expected: &SegmentFile) -> Result<(), Fault> {
    let bytes = read(file, 0, SEGMENT_HEADER_BYTES)?;
    let header = SegmentHeader::decode(&bytes).map_err(|fault| (0, fault.to_string()))?;
    let fits = header.cluster == owner.cluster
        && header.log == owner.log
        && header.base == expected.base
        && header.chain_start == expected.chain_start;
    if fits { Ok(()) } else { Err((0, format!("the header of another segment: {header:?}"))) }
}

/// Checks footer and index, and says where the frames end.
fn check_footer(file: &dyn File, owner: Owner, expected: &SegmentFile) -> Result<u64, Fault> {
    let at = expected.length.saturating_sub(wide(FOOTER_BYTES));
    let tag = LogTag::of(owner.cluster, owner.log);
    let footer = Footer::decode(&read(file, at, FOOTER_BYTES)?, expected.length, tag)
        .map_err(|fault| (at, fault.to_string()))?;
    let index_at = footer.index_position.get();
    let index_bytes = expected.length.saturating_sub(index_at);
    let index_bytes = usize::try_from(index_bytes.min(INDEX_BYTES_MAX)).unwrap_or(0);
    footer.decode_index(&read(file, index_at, index_bytes)?).map_err(|fault| (at, fault.to_string()))?;
    if footer.last_offset.get().checked_add(1) == Some(expected.end.get())
        && footer.chain_end == expected.chain_end
    {
        Ok(index_at)
    } else {
        Err((at, "the footer of another history".to_owned()))
    }
}

fn read(file: &dyn File, at: u64, length: usize) -> Result<Bytes, Fault> {
    let mut bytes = vec![0; length];
    file.read_at(Position(at), &mut bytes).map_err(|error| (at, error.to_string()))?;
    Ok(bytes.into())
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
