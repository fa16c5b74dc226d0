//! Doors for the fuzz targets: what one node asks of another beside raft.

use bytes::Bytes;

/// Whether a question decodes.
#[must_use]
pub fn question(request: Bytes) -> bool {
    super::asks::decode_question(request).is_ok()
}
