//! Holding a segment file against what a manifest says of it.
//!
//! - Whole, by the engine's own verification: frame by frame, by its chain, and that index and footer follow from
//!   the frames. Nothing that came over the network is put in place before this said yes.
//! - By its ends only, for files of our own.

use std::path::Path;

use bytes::Bytes;
use tidelog_engine::segment::LogTag;
use tidelog_engine::segment::footer::{FOOTER_BYTES, Footer};
use tidelog_engine::segment::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use tidelog_engine::storage::{File, Position};
use tidelog_engine::transfer;
use tidelog_wire::ids::{ClusterId, LogId};

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

/// Whether `file`, which lies at `path`, is that segment, and nothing behind it.
pub(super) fn verify(
    file: &dyn File,
    path: &Path,
    owner: Owner,
    expected: &SegmentFile,
) -> Result<(), SnapshotError> {
    let SegmentFile { base, length, .. } = *expected;
    let unverified = |found: String| SnapshotError::Unverified { log: owner.log, base, found };
    let held = file.len().map_err(|error| unverified(error.to_string()))?;
    if held != length {
        return Err(unverified(format!("{held} bytes long, expected {length}")));
    }
    transfer::verify_file(file, path, owner.cluster, &named(owner, expected))
        .map_err(|error| unverified(error.to_string()))
}

/// The file as the engine names it.
fn named(owner: Owner, file: &SegmentFile) -> transfer::SegmentFile {
    let SegmentFile { base, end, length, chain_start, chain_end, sealed } = *file;
    transfer::SegmentFile { log: owner.log, base, end, len: length, chain_start, chain_end, sealed }
}

/// How many bytes from the beginning of `file` verify as that segment's.
pub(super) fn verified_prefix(
    file: &dyn File,
    path: &Path,
    owner: Owner,
    expected: &SegmentFile,
) -> std::io::Result<u64> {
    transfer::verified_prefix(file, path, owner.cluster, &named(owner, expected))
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
