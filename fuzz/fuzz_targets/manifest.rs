//! The manifest of a snapshot, as it is and with its checksum put right, and the checkpoint in it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_consensus::snapshot::Manifest;

fuzz_target!(|input: &[u8]| {
    let mut mended = input.to_vec();
    if let Some(covered) = mended.get(16..) {
        let crc = crc32c::crc32c(covered).to_le_bytes();
        mended[12..16].copy_from_slice(&crc);
    }
    for bytes in [Bytes::copy_from_slice(input), Bytes::from(mended)] {
        let Ok(manifest) = Manifest::decode(&bytes) else { continue };
        assert_eq!(manifest.encode(), bytes, "there is one way to write it");
        if let Ok(checkpoint) = manifest.checkpoint() {
            assert_eq!(checkpoint.encode(), manifest.checkpoint);
        }
        assert_eq!(manifest.files().map(|(_, file)| file.length).sum::<u64>(), manifest.file_bytes());
    }
});
