//! Segment files as they lie on the simulated disks, taken apart by what docs/formats says of them: not a checker, but
//! what several look at. Nothing here asks the engine what it thinks is in a file.

use bytes::Bytes;
use tidelog_engine::segment::LogTag;
use tidelog_engine::segment::footer::{FOOTER_BYTES, Footer};
use tidelog_engine::segment::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFIX_BYTES, chain_after};
use tidelog_engine::segment::header::{SEGMENT_HEADER_BYTES, SegmentHeader};
use tidelog_engine::storage::Position;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{Chain, ClusterId};

use super::history::{Read, read_of};

/// One segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its header.
    pub header: SegmentHeader,
    /// Its frames.
    pub frames: Vec<Frame>,
    /// Whether it ends in a footer.
    pub sealed: bool,
}

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The batch in it.
    pub read: Read,
    /// The chain that it says.
    pub said: Chain,
    /// The chain that its bytes give.
    pub computed: Chain,
}

/// Whether the file ends in a footer, by its last bytes alone.
#[must_use]
pub fn is_sealed(cluster: ClusterId, bytes: &[u8]) -> bool {
    let Ok(header) = SegmentHeader::decode(bytes) else { return false };
    frames_end(&header, cluster, bytes).1
}

/// Takes a segment file apart.
///
/// # Errors
/// What does not verify, and where.
pub fn walk(cluster: ClusterId, bytes: &Bytes) -> Result<Segment, String> {
    let header = SegmentHeader::decode(bytes).map_err(|fault| fault.to_string())?;
    let tag = LogTag::of(cluster, header.log);
    let (end, sealed) = frames_end(&header, cluster, bytes);
    let mut frames = Vec::new();
    let (mut at, mut chain) = (SEGMENT_HEADER_BYTES, header.chain_start);
    while at < end {
        let wrong = |why: &dyn std::fmt::Display| format!("frame at byte {at}: {why}");
        let rest = bytes.slice(at..end);
        let frame = FrameHeader::decode(&rest).map_err(|fault| wrong(&fault))?;
        let batch_bytes = usize::try_from(frame.frame_len)
            .ok()
            .filter(|len| *len > FRAME_HEADER_BYTES && *len <= rest.len())
            .map(|len| rest.slice(FRAME_HEADER_BYTES..len))
            .ok_or_else(|| wrong(&format!("length {}, {} bytes are left", frame.frame_len, rest.len())))?;
        let prefix = batch_bytes.get(..PREFIX_BYTES).unwrap_or_default();
        let position = Position(u64::try_from(at).unwrap_or(u64::MAX));
        frame.verify(position, prefix, tag).map_err(|fault| wrong(&fault))?;
        let batch = Batch::parse(batch_bytes, BatchLimits::CAP).map_err(|fault| wrong(&fault))?;
        let read = read_of(&batch).ok_or_else(|| wrong(&"a batch without offset"))?;
        chain = chain_after(chain, read.first, &[batch.chain_input()]);
        frames.push(Frame { read, said: frame.chain, computed: chain });
        at = usize::try_from(frame.end(position).get()).map_err(|fault| wrong(&fault))?;
    }
    Ok(Segment { header, frames, sealed })
}

/// Where the frames end, and whether a footer says so.
fn frames_end(header: &SegmentHeader, cluster: ClusterId, bytes: &[u8]) -> (usize, bool) {
    let footer_at = bytes.len().saturating_sub(FOOTER_BYTES);
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let footer =
        bytes.get(footer_at..).map(|last| Footer::decode(last, len, LogTag::of(cluster, header.log)));
    match footer {
        Some(Ok(footer)) => (usize::try_from(footer.index_position.get()).unwrap_or(footer_at), true),
        Some(Err(_)) | None => (bytes.len(), false),
    }
}
