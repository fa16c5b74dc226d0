//! Frames of the two lanes, and the queues that they wait in.
//!
//! Each end opens one unidirectional stream a lane. It begins with 4 bytes that name the lane; then
//! frames follow, 12 bytes and a message each. All integers are little-endian.
//!
//! | at | size | field     | meaning                                             |
//! |---:|-----:|-----------|-----------------------------------------------------|
//! |  0 |    4 | `length`  | of the message; checked before anything is allocated |
//! |  4 |    8 | `group`   | the raft group                                      |
//! | 12 |   .. | `message` | a raft message, in its own encoding                 |
//!
//! There is no checksum: QUIC authenticates every packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{BufMut as _, Bytes, BytesMut};
use tidelog_wire::ids::{GroupId, NodeId};
use tidelog_wire::limits::{KIB, MESSAGE_BYTES_MAX, PEER_FRAME_BYTES_MAX};
use tokio::sync::mpsc;

use super::TransportError;
use super::error::Remote;
use super::metrics::TransportMetrics;
use crate::core::Lane;

pub(super) const FRAME_HEAD: usize = 12;
const _: () =
    assert!(FRAME_HEAD + MESSAGE_BYTES_MAX <= PEER_FRAME_BYTES_MAX, "head and message make a frame");

/// What a read asks for at most, before the rest of a frame has shown up.
const READ_STEP: usize = 64 * KIB;

/// The first bytes of a lane's stream: lane, version, two reserved zeros.
pub(super) const fn lane_head(lane: Lane) -> [u8; 4] {
    match lane {
        Lane::Control => [1, 1, 0, 0],
        Lane::Append => [2, 1, 0, 0],
    }
}

pub(super) fn lane_of(head: [u8; 4]) -> Option<Lane> {
    [Lane::Control, Lane::Append].into_iter().find(|lane| lane_head(*lane) == head)
}

/// Streams of higher priority are sent first. Bulk streams have -10.
pub(super) const fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 20,
        Lane::Append => 10,
    }
}

pub(super) fn encode_head(group: GroupId, message: &Bytes) -> Option<Bytes> {
    if message.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    let mut head = BytesMut::with_capacity(FRAME_HEAD);
    head.put_u32_le(u32::try_from(message.len()).ok()?);
    head.put_u64_le(group.get());
    Some(head.freeze())
}

/// Length of the message, and its group.
pub(super) fn decode_head(head: [u8; FRAME_HEAD], node: NodeId) -> Result<(usize, GroupId), TransportError> {
    let (length, group) = match head.split_first_chunk() {
        Some((length, group)) => (u32::from_le_bytes(*length), group.first_chunk()),
        None => (u32::MAX, None),
    };
    let group = GroupId(group.copied().map_or(0, u64::from_le_bytes));
    match usize::try_from(length) {
        Ok(length) if length <= MESSAGE_BYTES_MAX => Ok((length, group)),
        Ok(_) | Err(_) => Err(TransportError::TooLarge {
            node,
            what: "message",
            bytes: u64::from(length),
            max: u64::try_from(MESSAGE_BYTES_MAX).unwrap_or(u64::MAX),
        }),
    }
}

/// A frame that waits.
#[derive(Debug)]
struct Waiting {
    head: Bytes,
    message: Bytes,
}

/// The sending half of a lane's queue. Never waits.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// The half that a lane's stream is fed from.
#[derive(Debug)]
pub(super) struct Drain {
    receiver: mpsc::Receiver<Waiting>,
    bytes: Arc<AtomicUsize>,
}

pub(super) fn queue(frames_max: usize, bytes_max: usize) -> (Queue, Drain) {
    let (sender, receiver) = mpsc::channel(frames_max.max(1));
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { sender, bytes: Arc::clone(&bytes), bytes_max }, Drain { receiver, bytes })
}

impl Queue {
    /// False if the queue is full or its connection is gone.
    pub(super) fn push(&self, head: Bytes, message: Bytes) -> bool {
        let len = message.len();
        let before = self.bytes.fetch_add(len, Ordering::Relaxed);
        // An empty queue takes any message, so that none is too large for ever.
        let fits = before == 0 || before.saturating_add(len) <= self.bytes_max;
        let pushed = fits && self.sender.try_send(Waiting { head, message }).is_ok();
        if !pushed {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
        }
        pushed
    }
}

/// Sends what waits, until the connection ends. The reason is the return value.
pub(super) async fn send_lane(
    connection: quinn::Connection,
    node: NodeId,
    lane: Lane,
    mut drain: Drain,
    metrics: Arc<TransportMetrics>,
) -> TransportError {
    let peer = Remote::Node(node);
    let lost = |source| TransportError::from_closed(peer, source);
    let mut stream = match connection.open_uni().await {
        Ok(stream) => stream,
        Err(source) => return lost(source),
    };
    let refused = TransportError::Malformed { node, what: "end of a lane" };
    if stream.set_priority(priority(lane)).is_err() || stream.write_all(&lane_head(lane)).await.is_err() {
        return connection.close_reason().map_or(refused, lost);
    }
    while let Some(Waiting { head, message }) = drain.receiver.recv().await {
        let len = message.len();
        let sent = stream.write_all_chunks(&mut [head, message]).await;
        drain.bytes.fetch_sub(len, Ordering::Relaxed);
        if sent.is_err() {
            return connection.close_reason().map_or(refused, lost);
        }
        metrics.frames_sent.add(1);
        metrics.bytes_sent.add_len(len.saturating_add(FRAME_HEAD));
    }
    TransportError::Stopped
}

/// Reads one frame. Memory is taken as bytes arrive, not as they are announced.
pub(super) async fn read_frame(
    stream: &mut quinn::RecvStream,
    node: NodeId,
) -> Result<(GroupId, Bytes), TransportError> {
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head).await.map_err(|error| broken_off(error, node))?;
    let (length, group) = decode_head(head, node)?;
    let message = read_bytes(stream, length, node).await?;
    Ok((group, message))
}

/// Reads exactly `length` bytes, which the caller has checked.
pub(super) async fn read_bytes(
    stream: &mut quinn::RecvStream,
    length: usize,
    node: NodeId,
) -> Result<Bytes, TransportError> {
    let mut gathered = BytesMut::new();
    while gathered.len() < length {
        let left = length.saturating_sub(gathered.len());
        let chunk = match stream.read_chunk(left.min(READ_STEP), true).await {
            Ok(Some(chunk)) => chunk.bytes,
            Ok(None) => {
                return Err(TransportError::Malformed { node, what: "frame: the stream ended in it" });
            }
            Err(error) => return Err(broken_off(quinn::ReadExactError::ReadError(error), node)),
        };
        if gathered.is_empty() && chunk.len() == length {
            return Ok(chunk);
        }
        if gathered.is_empty() {
            gathered.reserve(length.min(1024 * KIB));
        }
        gathered.extend_from_slice(&chunk);
    }
    Ok(gathered.freeze())
}

/// A read that ended early: the connection is gone, or the peer ended the stream.
pub(super) fn broken_off(error: quinn::ReadExactError, node: NodeId) -> TransportError {
    match error {
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(source)) => {
            TransportError::from_closed(Remote::Node(node), source)
        }
        quinn::ReadExactError::ReadError(_) | quinn::ReadExactError::FinishedEarly(_) => {
            TransportError::Malformed { node, what: "stream: it ended early" }
        }
    }
}
