//! A record batch as any client may send it.
//!
//! The checksum is put right first, so that the rules behind it are reached. What is accepted must keep its promises:
//! the bytes come back unchanged, and stamping changes nothing but the 12 bytes that are the broker's.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LeaderEpoch, Offset};
use tidelog_wire::records::Records;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    if let Some(covered) = bytes.get(21..) {
        let crc = crc32c::crc32c(covered).to_be_bytes();
        bytes[17..21].copy_from_slice(&crc);
    }
    let bytes = Bytes::from(bytes);
    let Ok(batch) = Batch::parse(bytes.clone(), BatchLimits::default()) else { return };
    assert_eq!(batch.bytes(), &bytes);
    let stamped = batch.stamped_bytes(Offset(7), LeaderEpoch(3));
    let again = Batch::parse(stamped.clone(), BatchLimits::default()).expect("a stamped batch is a batch");
    assert_eq!(again.base_offset(), Some(Offset(7)));
    assert_eq!(stamped.slice(16..), bytes.slice(16..));
    // Its records come out, or the first bad one is told; never more memory than allowed, never more records than said.
    if let Ok(records) = Records::of_at_most(&batch, 1 << 20) {
        assert!(records.take_while(Result::is_ok).count() <= bytes.len().max(1 << 20));
    }
});
