//! The native protocol: frames through QUIC streams, without any I/O.
//!
//! 1. A connection's first stream begins with a [`Hello`], answered by a [`Welcome`] or a refusal that names the
//!    versions spoken. The layout of these two never changes, so any two releases can at least refuse each other.
//! 2. From then on each bidirectional stream of the connection is a pipeline: [`RequestFrame`]s one way,
//!    [`AnswerFrame`]s the other. A frame is a small header and a raw payload, which is record batches, byte for
//!    byte. The correlation id ties an answer to its request; answers may come in any order.
//! 3. [`Frame::take`] cuts frames off received bytes. It looks at lengths before anything is allocated, and hands
//!    the payload out as a slice of what was received: no copy.
//! 4. Headers are bincode with a memory limit. What is left over behind a header is an error, as is a payload where
//!    none belongs.
//!
//! A broken header costs its request: the correlation id stands in front of it in a fixed place, so it can be
//! answered. A broken length costs the stream, since nobody knows where the next frame begins.
//!
//! Not here: streams, deadlines and flow control, which belong to whoever owns the sockets.

mod answer;
mod cluster;
mod codec;
mod error;
mod failure;
mod frame;
mod hello;
mod request;
#[cfg(test)]
mod tests;

pub use answer::{
    Answer, ChannelInfo, ChannelState, CreatedChannel, CursorInfo, DamagedRange, GroupInfo, LogInfo,
    MetadataInfo, NodeInfo, NodeStatus, PartitionInfo, PeerInfo, RecoveryProgress, ReplicaRole,
};
pub use cluster::{ClusterInfo, MemberGroup, MemberNode, NodeState, Want, WantedReplica};
pub use codec::{AnswerFrame, RequestFrame, encode_answer, encode_request};
pub use error::ProtocolError;
pub use failure::{ErrorCode, ErrorReply, Retry};
pub use frame::{Frame, FrameLimits, LENGTHS_BYTES};
pub use hello::{Hello, HelloAnswer, HelloRefusal, ServerLimits, Welcome};
pub use request::{CHANNELS_PER_REQUEST_MAX, FetchRequest, NewChannel, OffsetSpec, Request};

/// The oldest version of the protocol that this build speaks.
pub const VERSION_LOWEST: u16 = 1;
/// The newest version of the protocol that this build speaks.
pub const VERSION_HIGHEST: u16 = 1;
