//! The one place that calls bincode: always with a limit, never leaving bytes over.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::{Decode, Encode};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::answer::Answer;
use super::error::ProtocolError;
use super::failure::ErrorReply;
use super::frame::Frame;
use super::request::Request;
use crate::limits;

/// Memory that decoding one header may claim: a few times its bytes, since structures are wider than their encoding.
const DECODED_BYTES_MAX: usize = 8 * limits::PROTOCOL_HEADER_BYTES_MAX;

const CONFIG: Configuration<LittleEndian, Varint, Limit<DECODED_BYTES_MAX>> =
    bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();

/// A request as received.
///
/// Its header is, before the bincode of [`Request`]: `u64` little-endian correlation id, chosen by the client.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestFrame {
    /// Chosen by the client, unique among its unanswered requests of the stream.
    pub correlation: u64,
    /// What is asked for.
    pub request: Request,
    /// The batch of [`Request::Produce`], otherwise empty. Shares the received bytes.
    pub payload: Bytes,
}

impl RequestFrame {
    /// Reads a request out of a frame.
    ///
    /// # Errors
    /// [`ProtocolError::Header`], [`ProtocolError::Trailing`], [`ProtocolError::Payload`]. If
    /// [`ProtocolError::correlation`] is known, the stream can go on once the error is answered.
    pub fn decode(frame: Frame) -> Result<Self, ProtocolError> {
        let (correlation, request) = decode_numbered::<Request>("a request", frame.header)?;
        if frame.payload.is_empty() == request.takes_payload() {
            return Err(ProtocolError::Payload {
                what: request.name(),
                correlation,
                found: frame.payload.len(),
            });
        }
        Ok(Self { correlation, request, payload: frame.payload })
    }
}

/// An answer as received.
///
/// Its header is, before the bincode of `Result<Answer, ErrorReply>`: `u64` little-endian correlation id.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerFrame {
    /// Of the request.
    pub correlation: u64,
    /// What came of it.
    pub answer: Result<Answer, ErrorReply>,
    /// The batches of [`Answer::Fetched`], otherwise empty. Shares the received bytes.
    pub payload: Bytes,
}

impl AnswerFrame {
    /// Reads an answer out of a frame.
    ///
    /// # Errors
    /// As [`RequestFrame::decode`].
    pub fn decode(frame: Frame) -> Result<Self, ProtocolError> {
        let (correlation, answer) = decode_numbered::<Result<Answer, ErrorReply>>("an answer", frame.header)?;
        if !frame.payload.is_empty() && !answer.as_ref().is_ok_and(Answer::may_have_payload) {
            return Err(ProtocolError::Payload {
                what: "an answer",
                correlation,
                found: frame.payload.len(),
            });
        }
        Ok(Self { correlation, answer, payload: frame.payload })
    }
}

/// Appends a request to `out`, except for its payload of `payload_bytes`, which must be sent right behind.
///
/// # Errors
/// [`ProtocolError::HeaderTooLarge`], [`ProtocolError::PayloadTooLarge`]. `out` is as it was.
pub fn encode_request(
    correlation: u64,
    request: &Request,
    payload_bytes: usize,
    out: &mut BytesMut,
) -> Result<(), ProtocolError> {
    encode_numbered("a request", correlation, request, payload_bytes, out)
}

/// Appends an answer to `out`, except for its payload of `payload_bytes`, which must be sent right behind.
///
/// # Errors
/// [`ProtocolError::HeaderTooLarge`], [`ProtocolError::PayloadTooLarge`]. `out` is as it was.
pub fn encode_answer(
    correlation: u64,
    answer: &Result<Answer, ErrorReply>,
    payload_bytes: usize,
    out: &mut BytesMut,
) -> Result<(), ProtocolError> {
    encode_numbered("an answer", correlation, answer, payload_bytes, out)
}

fn decode_numbered<T: Decode<()>>(what: &'static str, mut header: Bytes) -> Result<(u64, T), ProtocolError> {
    if header.len() < size_of::<u64>() {
        let reason = format!("{} bytes, expected at least 8", header.len());
        return Err(ProtocolError::Header { what, correlation: None, reason });
    }
    let correlation = header.get_u64_le();
    Ok((correlation, decode_all(what, Some(correlation), &header)?))
}

fn encode_numbered<T: Encode>(
    what: &'static str,
    correlation: u64,
    value: &T,
    payload_bytes: usize,
    out: &mut BytesMut,
) -> Result<(), ProtocolError> {
    let mut header = BytesMut::with_capacity(128);
    header.put_u64_le(correlation);
    put(what, Some(correlation), value, &mut header)?;
    Frame::put_head(&header, payload_bytes, out)
}

/// Decodes `bytes`, all of them.
pub(super) fn decode_all<T: Decode<()>>(
    what: &'static str,
    correlation: Option<u64>,
    bytes: &[u8],
) -> Result<T, ProtocolError> {
    let (value, used) = bincode::decode_from_slice::<T, _>(bytes, CONFIG)
        .map_err(|error| ProtocolError::Header { what, correlation, reason: error.to_string() })?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(value),
        extra => Err(ProtocolError::Trailing { what, correlation, extra }),
    }
}

/// Appends the encoding of `value`.
pub(super) fn put<T: Encode>(
    what: &'static str,
    correlation: Option<u64>,
    value: &T,
    out: &mut BytesMut,
) -> Result<(), ProtocolError> {
    bincode::encode_into_std_write(value, &mut out.writer(), CONFIG)
        .map(|_bytes| ())
        .map_err(|error| ProtocolError::Header { what, correlation, reason: error.to_string() })
}
