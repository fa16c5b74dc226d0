//! A checkpoint as a disk may give it back, and with its checksum put right.
//!
//! What decodes must encode to the very bytes it was read from: there is one way to write it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_engine::checkpoint::Checkpoint;
use tidelog_fuzz::mend;

fuzz_target!(|input: &[u8]| {
    let mut mended = input.to_vec();
    mend::checkpoint(&mut mended);
    for bytes in [Bytes::copy_from_slice(input), Bytes::from(mended)] {
        if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
            assert_eq!(checkpoint.encode(), bytes);
        }
    }
});
