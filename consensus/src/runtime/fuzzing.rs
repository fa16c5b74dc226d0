//! Doors for the fuzz targets: what one node asks of another beside raft.

use bytes::Bytes;

/// Whether a request to enter a node decodes.
#[must_use]
pub fn register_request(request: Bytes) -> bool {
    super::peers::decode_record(request).is_ok()
}
