//! Doors for the fuzz targets: what a peer sends before anything of it is believed.

use tidelog_wire::ids::NodeId;

use super::frames::{self, FRAME_HEAD};
use super::hello::{HELLO_LEN, HelloFrame};

/// Bytes of a hello.
pub const HELLO_BYTES: usize = HELLO_LEN;
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = FRAME_HEAD;

/// A hello, decoded and encoded again.
#[must_use]
pub fn hello(bytes: &[u8; HELLO_BYTES]) -> Option<[u8; HELLO_BYTES]> {
    HelloFrame::decode(bytes).map(|hello| hello.encode())
}

/// Length of the message that a frame's head announces, if one may be that long.
#[must_use]
pub fn frame_length(head: [u8; HEAD_BYTES]) -> Option<usize> {
    frames::decode_head(head, NodeId(1)).ok().map(|(length, _)| length)
}

/// The head of a lane, decoded and encoded again.
#[must_use]
pub fn lane(head: [u8; 4]) -> Option<[u8; 4]> {
    frames::lane_of(head).map(frames::lane_head)
}
