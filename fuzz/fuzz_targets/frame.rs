//! A frame header and the batch behind it, as they are and with their checksums put right.
#![no_main]

use libfuzzer_sys::arbitrary;
use libfuzzer_sys::fuzz_target;
use tidelog_engine::segment::LogTag;
use tidelog_engine::segment::frame::{FRAME_HEADER_BYTES, FrameHeader, PREFIX_BYTES};
use tidelog_engine::storage::Position;

fuzz_target!(|input: (LogTag32, u64, &[u8])| {
    let (LogTag32(tag), position, bytes) = input;
    let (tag, position) = (LogTag(tag), Position(position));
    let Ok(header) = FrameHeader::decode(bytes) else { return };
    assert_eq!(header.encode(), bytes[..FRAME_HEADER_BYTES], "taking apart loses nothing");
    let batch = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
    let prefix = &batch[..batch.len().min(PREFIX_BYTES)];
    let _ = header.check_length();
    let _ = header.verify(position, prefix, tag);
    let sealed = FrameHeader { log_tag: tag, format: 1, reserved: 0, ..header }.sealed(position, prefix);
    assert_eq!(sealed.verify(position, prefix, tag).is_ok(), sealed.synced_to <= position);
    // It passes nowhere else, for no one else, and before no other batch.
    let elsewhere = Position(position.get().wrapping_add(1));
    assert!(sealed.verify(elsewhere, prefix, tag).is_err());
    assert!(sealed.verify(position, prefix, LogTag(tag.0 ^ 1)).is_err());
    if let Some((first, rest)) = prefix.split_first() {
        let other = [&[*first ^ 0x10], rest].concat();
        assert!(sealed.verify(position, &other, tag).is_err());
    }
});

/// A tag, so that the input reads as what it is.
#[derive(arbitrary::Arbitrary, Debug)]
struct LogTag32(u32);
