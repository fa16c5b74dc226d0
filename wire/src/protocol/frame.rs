//! Frames: two lengths, a header, a payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::error::ProtocolError;
use crate::limits;

/// Bytes of a frame before its header.
pub const LENGTHS_BYTES: usize = 8;
/// Bytes of each length.
const LENGTH_BYTES: usize = 4;

/// What a reader accepts. Larger frames are refused by their lengths alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Largest header.
    pub header_bytes_max: usize,
    /// Largest payload.
    pub payload_bytes_max: usize,
}

impl FrameLimits {
    /// For whoever reads requests: their headers are small, their payload is one batch.
    pub const REQUESTS: Self =
        Self { header_bytes_max: 64 * limits::KIB, payload_bytes_max: limits::PROTOCOL_PAYLOAD_BYTES_MAX };
    /// For whoever reads answers.
    pub const ANSWERS: Self = Self {
        header_bytes_max: limits::PROTOCOL_HEADER_BYTES_MAX,
        payload_bytes_max: limits::PROTOCOL_PAYLOAD_BYTES_MAX,
    };
}

/// One frame. Both parts share the received bytes.
///
/// | at | size | field           | meaning                                              |
/// |---:|-----:|-----------------|------------------------------------------------------|
/// |  0 |    4 | `rest_bytes`    | little-endian: bytes of the frame behind this field  |
/// |  4 |    4 | `header_bytes`  | little-endian: bytes of the header                   |
/// |  8 |    . | header          | see [`super::Request`] and [`super::Answer`]         |
/// |  . |    . | payload         | the rest: record batches, or nothing                 |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Fixed and bincode parts.
    pub header: Bytes,
    /// Record batches, or nothing.
    pub payload: Bytes,
}

impl Frame {
    /// Cuts the first frame off `received`, without copying it. `None` until it is there whole.
    ///
    /// Reserves nothing: a reader that wants to read exactly what is missing asks [`Frame::missing_bytes`].
    ///
    /// # Errors
    /// [`ProtocolError::FrameTooLarge`], [`ProtocolError::FrameLengths`]: where the next frame begins is unknown, so the
    /// stream must be given up. `received` is as it was.
    pub fn take(received: &mut BytesMut, limits: FrameLimits) -> Result<Option<Self>, ProtocolError> {
        let Some((header_bytes, total)) = lengths(received, limits)? else { return Ok(None) };
        if received.len() < total {
            return Ok(None);
        }
        let mut rest = received.split_to(total).freeze();
        rest.advance(LENGTHS_BYTES);
        let header = rest.split_to(header_bytes);
        Ok(Some(Self { header, payload: rest }))
    }

    /// How many bytes `received` lacks, at the least, until [`Frame::take`] can give a frame; 0 when one is there.
    ///
    /// Never more than the limits allow, so a reader may reserve it.
    ///
    /// # Errors
    /// As [`Frame::take`].
    pub fn missing_bytes(received: &[u8], limits: FrameLimits) -> Result<usize, ProtocolError> {
        Ok(match lengths(received, limits)? {
            Some((_, total)) => total.saturating_sub(received.len()),
            None => LENGTHS_BYTES.saturating_sub(received.len()),
        })
    }

    /// To be called when the stream has ended: fails if it ended inside a frame.
    ///
    /// # Errors
    /// [`ProtocolError::CutShort`].
    pub const fn check_end(received: &[u8]) -> Result<(), ProtocolError> {
        if received.is_empty() { Ok(()) } else { Err(ProtocolError::CutShort { found: received.len() }) }
    }

    /// Appends a frame to `out`, except for its payload of `payload_bytes`, which the caller must send right behind.
    ///
    /// # Errors
    /// [`ProtocolError::HeaderTooLarge`], [`ProtocolError::PayloadTooLarge`]. `out` is as it was.
    pub fn put_head(header: &[u8], payload_bytes: usize, out: &mut BytesMut) -> Result<(), ProtocolError> {
        let (header_len, rest) = lengths_of(header.len(), payload_bytes)?;
        out.reserve(LENGTHS_BYTES + header.len());
        out.put_u32_le(rest);
        out.put_u32_le(header_len);
        out.put_slice(header);
        Ok(())
    }
}

/// Header bytes and bytes of the whole frame, checked; `None` while the lengths are not there.
fn lengths(received: &[u8], limits: FrameLimits) -> Result<Option<(usize, usize)>, ProtocolError> {
    let mut at = received;
    if at.remaining() < LENGTH_BYTES {
        return Ok(None);
    }
    let rest = usize_from(at.get_u32_le());
    let rest_max = LENGTH_BYTES + limits.header_bytes_max + limits.payload_bytes_max;
    if rest > rest_max {
        return Err(ProtocolError::FrameTooLarge { part: "frame", found: rest, max: rest_max });
    }
    if rest < LENGTH_BYTES {
        return Err(ProtocolError::FrameLengths { rest, header: 0 });
    }
    if at.remaining() < LENGTH_BYTES {
        return Ok(None);
    }
    let header = usize_from(at.get_u32_le());
    let Some(payload) = (rest - LENGTH_BYTES).checked_sub(header) else {
        return Err(ProtocolError::FrameLengths { rest, header });
    };
    if header > limits.header_bytes_max {
        return Err(ProtocolError::FrameTooLarge {
            part: "header",
            found: header,
            max: limits.header_bytes_max,
        });
    }
    if payload > limits.payload_bytes_max {
        return Err(ProtocolError::FrameTooLarge {
            part: "payload",
            found: payload,
            max: limits.payload_bytes_max,
        });
    }
    Ok(Some((header, LENGTH_BYTES + rest)))
}

fn lengths_of(header: usize, payload: usize) -> Result<(u32, u32), ProtocolError> {
    if payload > limits::PROTOCOL_PAYLOAD_BYTES_MAX {
        let max = limits::PROTOCOL_PAYLOAD_BYTES_MAX;
        return Err(ProtocolError::PayloadTooLarge { found: payload, max });
    }
    let too_large = ProtocolError::HeaderTooLarge { found: header, max: limits::PROTOCOL_HEADER_BYTES_MAX };
    if header > limits::PROTOCOL_HEADER_BYTES_MAX {
        return Err(too_large);
    }
    match (u32::try_from(header), u32::try_from(LENGTH_BYTES + header + payload)) {
        (Ok(header), Ok(rest)) => Ok((header, rest)),
        _ => Err(too_large),
    }
}

/// Every platform with sockets has at least 32 bits; what does not fit is refused as too large.
fn usize_from(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
