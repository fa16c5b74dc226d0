//! One segment file: its bytes, how to walk and seal them, and which states it goes through.
//!
//! ```text
//! header | frame | frame | ... | frame | index | footer        sealed
//! header | frame | ... | frame | zeros (embedded: prefill)      active
//! ```
//!
//! Everything after the header is a function of the frames, so sealing can be repeated from any
//! state and ends in the same bytes. A frame carries its own position and the tag of its log under
//! its checksum: bytes that a disk put into the wrong place never pass for ours.
//!
//! Not here: which segments make up a log, and what recovery decides about them (`crate::log`).

pub mod footer;
pub mod frame;
pub mod header;
pub(crate) mod salvage;
pub mod state;
pub(crate) mod stored;
pub(crate) mod summary;
pub(crate) mod walk;

#[cfg(test)]
mod layout_tests;
#[cfg(test)]
mod tests;

use std::io;

use tidelog_wire::ids::{ClusterId, LogId, Offset};
use xxhash_rust::xxh3::xxh3_64;

use crate::storage::{File, Position};

/// The format of segment files that is written, and the only one that is read so far.
pub const FORMAT: u16 = 1;

/// Ends the name of a segment file.
const SUFFIX: &str = ".seg";

/// The file name of the segment that begins at `base`: the offset in 20 digits.
#[must_use]
pub fn file_name(base: Offset) -> String {
    format!("{:020}{SUFFIX}", base.get())
}

/// The base offset that a file name states, if it is the name of a segment.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<Offset> {
    let base = Offset(name.strip_suffix(SUFFIX)?.parse().ok()?);
    (file_name(base) == name).then_some(base)
}

/// Marks the frames of one log of one cluster, so that a stray write never passes for ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTag(pub u32);

impl LogTag {
    /// The low half of the xxh3 hash of cluster id, generation and partition, little-endian.
    #[must_use]
    pub fn of(cluster: ClusterId, log: LogId) -> Self {
        let mut bytes = [0; 28];
        let parts = [
            cluster.0.to_le_bytes().as_slice(),
            &log.generation.get().to_le_bytes(),
            &log.partition.get().to_le_bytes(),
        ]
        .concat();
        bytes.copy_from_slice(&parts);
        let hash = xxh3_64(&bytes) & u64::from(u32::MAX);
        Self(u32::try_from(hash).unwrap_or(0))
    }
}

/// The header of an open segment file: `None` if it does not verify.
pub(crate) fn read_header(file: &dyn File) -> io::Result<Option<header::SegmentHeader>> {
    Ok(header_of(file)?.ok())
}

/// The header of an open segment file, or what is wrong with it.
pub(crate) fn header_of(file: &dyn File) -> io::Result<Result<header::SegmentHeader, header::HeaderFault>> {
    if file.len()? < crate::fields::wide(header::SEGMENT_HEADER_BYTES) {
        return Ok(Err(header::HeaderFault::Short));
    }
    let mut bytes = [0; header::SEGMENT_HEADER_BYTES];
    file.read_at(Position::ZERO, &mut bytes)?;
    Ok(header::SegmentHeader::decode(&bytes))
}
