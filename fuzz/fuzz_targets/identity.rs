//! A copy of a data directory's identity, as it is and with its checksum put right.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidelog_engine::identity::Identity;

fuzz_target!(|input: &[u8]| {
    let mut mended = input.to_vec();
    if let Some(covered) = mended.get(12..) {
        let crc = crc32c::crc32c(covered).to_le_bytes();
        mended[8..12].copy_from_slice(&crc);
    }
    for bytes in [input, &mended] {
        if let Ok(identity) = Identity::decode(bytes) {
            assert_eq!(identity.encode().as_slice(), bytes, "there is one way to write it");
        }
    }
});
