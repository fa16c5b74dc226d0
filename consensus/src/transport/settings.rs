//! What a transport is started with, and the events it reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use tidelog_tls::Credentials;
use tidelog_wire::ids::{GroupId, NodeId};
use tidelog_wire::limits::{MIB, PEER_FRAME_BYTES_MAX, STREAM_WINDOW_BYTES};

use super::{Directory, PeerHello, TransportError};
use crate::core::Lane;

/// What a transport is started with.
#[derive(Clone, Debug)]
pub struct TransportConfig {
    /// Where peers dial this node (UDP).
    pub listen: SocketAddr,
    /// Who this node is.
    pub hello: PeerHello,
    /// Drawn at random for this process.
    pub session: u64,
    /// This node's certificate, and the authority it trusts.
    pub credentials: Credentials,
    /// Seeds: nodes to dial whatever the catalogue says. An entry for this node itself is ignored.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// What is known of the cluster at the start.
    pub directory: Directory,
    /// Bounds and times.
    pub tuning: TransportTuning,
}

/// Bounds and times of a transport. The defaults are those of a server.
#[derive(Clone, Copy, Debug)]
pub struct TransportTuning {
    /// Silence after which a connection is probed.
    pub keep_alive: Duration,
    /// Silence after which a connection is given up.
    pub idle: Duration,
    /// Time for a dial and both hellos.
    pub handshake: Duration,
    /// First and longest pause between two dials.
    pub redial: (Duration, Duration),
    /// Frames that wait to be sent to one peer on one lane; one more is dropped.
    pub queue_frames_max: usize,
    /// Bytes that wait to be sent to one peer on one lane.
    pub queue_bytes_max: usize,
    /// Bytes that one stream may carry before the other end has taken them.
    pub stream_window_bytes: usize,
    /// Bulk transfers served at once; one more is refused.
    pub bulk_served_max: usize,
    /// Bulk transfers fetched from one peer at once; one more waits.
    pub bulk_fetched_max: usize,
    /// Bytes a second of all bulk transfers served together; `None` for no limit.
    pub bulk_bytes_per_second: Option<u64>,
    /// Time without a byte after which a fetch is given up.
    pub bulk_stall: Duration,
}

impl Default for TransportTuning {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_millis(100),
            idle: Duration::from_secs(1),
            handshake: Duration::from_secs(1),
            redial: (Duration::from_millis(20), Duration::from_millis(500)),
            queue_frames_max: 4096,
            queue_bytes_max: 64 * MIB,
            stream_window_bytes: STREAM_WINDOW_BYTES,
            bulk_served_max: 3,
            bulk_fetched_max: 3,
            bulk_bytes_per_second: None,
            bulk_stall: Duration::from_secs(10),
        }
    }
}

/// Told about peers. Calls come from the transport's own tasks and must not block: a message that
/// cannot be taken at once is dropped by the callee, as the network might have.
///
/// For one peer, `up` comes before its messages, `down` after `up`, and the next `up` after `down`. Guests are not told of.
/// Messages of one lane come in the order they were sent, with gaps where a queue was full or a
/// connection broke.
pub trait PeerEvents: Send + Sync + 'static {
    /// A connection to a member is ready in both directions.
    fn up(&self, peer: &PeerHello);
    /// A peer sent this. `from` is proved by its certificate; the bytes are not trusted further.
    fn message(&self, from: NodeId, lane: Lane, group: GroupId, bytes: Bytes);
    /// The connection is gone or no member's any more, and messages sent lately may be lost.
    fn down(&self, node: NodeId, cause: &TransportError);
}

/// Streams of its own that a peer may have open towards us: one a lane.
const LANES: u32 = 2;
const LANES_LEN: usize = 2;
/// Bulk transfers of one peer in either direction, and the hello.
const BIDIRECTIONAL_STREAMS: u32 = 16;

const _: () = assert!(PEER_FRAME_BYTES_MAX <= STREAM_WINDOW_BYTES, "a frame must fit into a stream window");

impl TransportTuning {
    pub(super) fn quic(&self) -> Arc<quinn::TransportConfig> {
        // Room for every stream at once, so that bulk transfers whose readers are slow, and the windows of the
        // connection that all streams share, never keep a lane from sending.
        let window = |streams: usize| {
            let bytes = self.stream_window_bytes.saturating_mul(streams);
            VarInt::try_from(bytes).unwrap_or(VarInt::MAX)
        };
        let (served, fetched) = (self.bulk_served_max, self.bulk_fetched_max);
        let mut quic = quinn::TransportConfig::default();
        quic.keep_alive_interval(Some(self.keep_alive))
            .max_idle_timeout(quinn::IdleTimeout::try_from(self.idle).ok())
            // Nodes are near each other. The library's guess of a third of a second would make the loss
            // of a first packet cost a second.
            .initial_rtt(Duration::from_millis(20))
            .max_concurrent_uni_streams(VarInt::from_u32(LANES))
            .max_concurrent_bidi_streams(VarInt::from_u32(BIDIRECTIONAL_STREAMS))
            .stream_receive_window(window(1))
            .receive_window(window(LANES_LEN.saturating_add(fetched)))
            .send_window(window(LANES_LEN.saturating_add(served)).into_inner());
        Arc::new(quic)
    }
}
