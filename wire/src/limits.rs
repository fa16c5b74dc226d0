//! How large things may be, and that what must fit into another thing does.
//!
//! A batch travels as raft entry data, inside a message, inside a frame, through a stream. A limit that is larger
//! than the one around it would let a client hand in a batch that no follower can ever receive. The
//! assertions at the end make such a build impossible.

/// Bytes in one KiB.
pub const KIB: usize = 1024;
/// Bytes in one MiB.
pub const MIB: usize = 1024 * KIB;

/// Largest batch a node accepts unless configured otherwise.
pub const BATCH_BYTES_DEFAULT: usize = MIB;
/// Largest batch that any configuration may allow.
pub const BATCH_BYTES_CAP: usize = 16 * MIB;
/// Largest raft entry: a batch and its routing, or a command of the meta group.
pub const ENTRY_BYTES_MAX: usize = BATCH_BYTES_CAP + 64 * KIB;
/// Largest raft message. Several small entries share one message; one entry of the largest size always fits.
pub const MESSAGE_BYTES_MAX: usize = ENTRY_BYTES_MAX + MIB;
/// Largest frame between two nodes: a message and its envelope.
pub const PEER_FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 4 * KIB;
/// Flow-control window of one QUIC stream, between nodes and to clients.
pub const STREAM_WINDOW_BYTES: usize = 32 * MIB;
/// Proposed and not yet committed bytes that one group may hold.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 * MIB;

/// Largest bincode header of a frame of the native protocol. The answer that needs most is the cluster's metadata.
pub const PROTOCOL_HEADER_BYTES_MAX: usize = 4 * MIB;
/// Largest payload of a frame of the native protocol: one batch, or fetched batches back to back.
pub const PROTOCOL_PAYLOAD_BYTES_MAX: usize = BATCH_BYTES_CAP;
/// Largest frame of the native protocol: both lengths, header and payload.
pub const PROTOCOL_FRAME_BYTES_MAX: usize = 8 + PROTOCOL_HEADER_BYTES_MAX + PROTOCOL_PAYLOAD_BYTES_MAX;
/// Largest answer to a fetch. A single batch always fits, so a reader can always advance.
pub const FETCH_BYTES_MAX: usize = PROTOCOL_PAYLOAD_BYTES_MAX;

/// Most bytes that the records of one batch may take once decompressed. What inflates to more is refused, not inflated.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 * MIB;
/// Fewest bytes that a record can take: length, attributes, timestamp, offset, key, value, headers, one byte each.
pub const RECORD_BYTES_MIN: usize = 7;
/// Most records in one batch. A record is some hundred bytes wide once read, however few it took in the batch, so this
/// bounds what a reader of a small and well compressed batch may be made to hold.
pub const RECORDS_MAX: usize = 1 << 20;
/// Most headers of one record.
pub const RECORD_HEADERS_MAX: usize = 16 * KIB;

/// Longest channel name, in bytes. Names are ASCII letters, digits, `.`, `_` and `-`.
pub const CHANNEL_NAME_BYTES_MAX: usize = 249;
/// Longest text that a peer may send as its name, version or message.
pub const TEXT_BYTES_MAX: usize = 16 * KIB;

const _: () = assert!(BATCH_BYTES_DEFAULT <= BATCH_BYTES_CAP, "the default batch exceeds the cap");
const _: () = assert!(BATCH_BYTES_CAP < ENTRY_BYTES_MAX, "a batch must fit into an entry");
const _: () = assert!(ENTRY_BYTES_MAX < MESSAGE_BYTES_MAX, "an entry must fit into a message");
const _: () = assert!(MESSAGE_BYTES_MAX < PEER_FRAME_BYTES_MAX, "a message must fit into a peer frame");
const _: () =
    assert!(PEER_FRAME_BYTES_MAX <= STREAM_WINDOW_BYTES, "a peer frame must fit into a stream window");
const _: () = assert!(ENTRY_BYTES_MAX <= UNCOMMITTED_BYTES_MAX, "the largest entry must be proposable");
const _: () = assert!(BATCH_BYTES_CAP <= PROTOCOL_PAYLOAD_BYTES_MAX, "a batch must fit into a request");
const _: () = assert!(BATCH_BYTES_CAP <= FETCH_BYTES_MAX, "a batch must fit into an answer");
const _: () =
    assert!(PROTOCOL_FRAME_BYTES_MAX <= STREAM_WINDOW_BYTES, "a frame must fit into a stream window");
const _: () =
    assert!(RECORDS_MAX * RECORD_BYTES_MIN <= DECOMPRESSED_BYTES_MAX, "as many records must be readable");
const _: () = assert!(BATCH_BYTES_CAP <= DECOMPRESSED_BYTES_MAX, "an uncompressed batch must be readable");
