//! What a peer sends: its hello, the heads of lanes and frames, requests for parts of a snapshot, offers, its record.
//!
//! What decodes encodes to the bytes it was read from; no length is believed beyond its limit.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_consensus::core::fuzzing::offer;
use tidelog_consensus::runtime::fuzzing::question;
use tidelog_consensus::snapshot::SnapshotRequest;
use tidelog_consensus::snapshot::fuzzing::staged_name;
use tidelog_consensus::transport::fuzzing::{frame_length, hello, lane};
use tidelog_wire::limits::MESSAGE_BYTES_MAX;

fuzz_target!(|input: &[u8]| {
    let mut mended = input.to_vec();
    if let Some(magic) = mended.get_mut(..8) {
        magic.copy_from_slice(b"tidelgPR");
    }
    for bytes in [input, &mended] {
        if let Some(bytes) = bytes.first_chunk() {
            assert!(hello(bytes).is_none_or(|again| again == *bytes));
        }
    }
    if let Some(head) = input.first_chunk() {
        assert!(lane(*head).is_none_or(|again| again == *head));
    }
    if let Some(head) = input.first_chunk() {
        assert!(frame_length(*head).is_none_or(|length| length <= MESSAGE_BYTES_MAX));
    }
    assert!(offer(input).is_none_or(|again| again == input));
    if let Ok(request) = SnapshotRequest::decode(input) {
        let again = SnapshotRequest::decode(&request.encode());
        assert_eq!(again.ok(), Some(request));
    }
    // Any answer will do but a panic.
    std::hint::black_box(question(Bytes::copy_from_slice(input)));
    if let Ok(name) = std::str::from_utf8(input) {
        std::hint::black_box(staged_name(name));
    }
});
