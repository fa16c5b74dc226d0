//! The codecs, with one rule for all: never more than the limit comes out, whatever the input promises.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};

use super::error::{BuildError, RecordsError};
use crate::batch::Codec;

/// How the Java library begins its snappy streams; blocks follow, each behind its length. Two version numbers of four bytes follow.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_BYTES: usize = 16;
/// Both version numbers of the framing: 1.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Uncompressed bytes of a block that we write, as the Java library does.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// No snappy element makes more than 64 bytes out of one, so a block that promises more is a lie.
const SNAPPY_RATIO_MAX: usize = 64;
/// Largest zstd window, as a power of two: the limit on decompressed bytes makes more pointless.
const ZSTD_WINDOW_LOG_MAX: u32 = 26;
const ZSTD_LEVEL: i32 = 3;

/// Decompresses `body` into at most `bytes_max` bytes.
pub(super) fn decompress(codec: Codec, body: &Bytes, bytes_max: usize) -> Result<Bytes, RecordsError> {
    let failed = |error: io::Error| RecordsError::Decompress { codec, reason: error.to_string() };
    match codec {
        Codec::None if body.len() > bytes_max => Err(RecordsError::TooLarge { codec, max: bytes_max }),
        Codec::None => Ok(body.clone()),
        Codec::Gzip => read_limited(codec, flate2::read::MultiGzDecoder::new(body.as_ref()), bytes_max),
        Codec::Snappy => snappy(body, bytes_max),
        Codec::Lz4 => read_limited(codec, lz4_flex::frame::FrameDecoder::new(body.as_ref()), bytes_max),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(body.as_ref()).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
            read_limited(codec, decoder, bytes_max)
        }
    }
}

/// Compresses `body`.
pub(super) fn compress(codec: Codec, body: &[u8]) -> Result<Vec<u8>, BuildError> {
    let failed = |error: io::Error| BuildError::Compress { codec, reason: error.to_string() };
    match codec {
        Codec::None => Ok(body.to_vec()),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).and_then(|()| encoder.finish()).map_err(failed)
        }
        Codec::Snappy => put_snappy(body),
        Codec::Lz4 => {
            // Consumers in other languages read independent blocks only.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(body).map_err(failed)?;
            encoder.finish().map_err(|error| failed(error.into()))
        }
        Codec::Zstd => zstd::stream::encode_all(body, ZSTD_LEVEL).map_err(failed),
    }
}

fn read_limited(codec: Codec, decoder: impl Read, bytes_max: usize) -> Result<Bytes, RecordsError> {
    let one_more = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut out = Vec::new();
    decoder
        .take(one_more)
        .read_to_end(&mut out)
        .map_err(|error| RecordsError::Decompress { codec, reason: error.to_string() })?;
    if out.len() > bytes_max {
        return Err(RecordsError::TooLarge { codec, max: bytes_max });
    }
    Ok(out.into())
}

fn snappy(body: &Bytes, bytes_max: usize) -> Result<Bytes, RecordsError> {
    let mut out = Vec::new();
    if !body.starts_with(&XERIAL_MAGIC) {
        snappy_block(body, bytes_max, &mut out)?;
        return Ok(out.into());
    }
    let cut_short = || snappy_failed("a block is cut short");
    let mut rest = body.get(XERIAL_HEADER_BYTES..).ok_or_else(cut_short)?;
    while !rest.is_empty() {
        if rest.len() < 4 {
            return Err(cut_short());
        }
        let length = usize::try_from(rest.get_u32()).map_err(|_| cut_short())?;
        let (block, behind) = rest.split_at_checked(length).ok_or_else(cut_short)?;
        snappy_block(block, bytes_max, &mut out)?;
        rest = behind;
    }
    Ok(out.into())
}

/// Appends what `block` holds to `out`, which stays within `bytes_max`.
fn snappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<(), RecordsError> {
    let length = snap::raw::decompress_len(block).map_err(|error| snappy_failed(&error.to_string()))?;
    let have = out.len();
    if length > bytes_max.saturating_sub(have) {
        return Err(RecordsError::TooLarge { codec: Codec::Snappy, max: bytes_max });
    }
    if length > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(snappy_failed("a block promises more than it can hold"));
    }
    out.resize(have + length, 0);
    let room = out.get_mut(have..).unwrap_or_default();
    snap::raw::Decoder::new().decompress(block, room).map_err(|error| snappy_failed(&error.to_string()))?;
    Ok(())
}

fn snappy_failed(reason: &str) -> RecordsError {
    RecordsError::Decompress { codec: Codec::Snappy, reason: reason.to_owned() }
}

fn put_snappy(body: &[u8]) -> Result<Vec<u8>, BuildError> {
    let failed = |reason: String| BuildError::Compress { codec: Codec::Snappy, reason };
    let mut out = Vec::with_capacity(XERIAL_HEADER_BYTES + body.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in body.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block).map_err(|error| failed(error.to_string()))?;
        let length = u32::try_from(compressed.len()).map_err(|error| failed(error.to_string()))?;
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

#[cfg(test)]
pub(super) fn raw_snappy(body: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(body).unwrap()
}
