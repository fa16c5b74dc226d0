//! A checkpoint and an identity as a disk may give them back.
//!
//! What decodes must encode to the very bytes it was read from: there is one way to write each.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_engine::checkpoint::Checkpoint;
use tidelog_engine::identity::Identity;

fuzz_target!(|input: &[u8]| {
    if let Ok(identity) = Identity::decode(input) {
        assert_eq!(identity.encode().as_slice(), input);
    }
    // The checksum at the end is put right, so that what lies behind it is reached.
    let mut bytes = input.to_vec();
    if let Some(body) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..body]).to_le_bytes();
        bytes[body..].copy_from_slice(&crc);
    }
    for bytes in [Bytes::copy_from_slice(input), Bytes::from(bytes)] {
        if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
            assert_eq!(checkpoint.encode(), bytes);
        }
    }
});
