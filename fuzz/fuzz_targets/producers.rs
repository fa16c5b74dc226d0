//! The producers of a log: as a checkpoint holds them, and as batches come.
//!
//! What decodes encodes to the bytes it was read from. Whatever a table holds, it tells a retry from a new batch.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tidelog_engine::fuzzing::producers;
use tidelog_engine::producers::{PRODUCERS_MAX, ProducerStamp, ProducerTable, Verdict};
use tidelog_wire::ids::{Chain, Offset, ProducerId, TimestampMs};

#[derive(Arbitrary, Debug)]
struct Case<'a> {
    bytes: &'a [u8],
    sends: Vec<(i64, i16, i32, u16, i64)>,
}

fuzz_target!(|case: Case<'_>| {
    let mut table = ProducerTable::new();
    if let Some((decoded, bytes)) = producers(case.bytes) {
        assert_eq!(bytes, case.bytes[..bytes.len()], "there is one way to write it");
        table = decoded;
    }
    for (id, epoch, first_sequence, count, time) in case.sends.into_iter().take(256) {
        let stamp = ProducerStamp {
            id: ProducerId(id),
            epoch,
            first_sequence: first_sequence.max(0),
            count: u32::from(count).max(1),
        };
        if table.check(&stamp) == Verdict::Append {
            table.record(&stamp, Offset(u64::from(count)), Chain(1), TimestampMs(time));
            assert!(matches!(table.check(&stamp), Verdict::Duplicate(_)), "a retry is told from a new batch");
        }
        assert!(table.len() <= PRODUCERS_MAX);
    }
});
