//! Records through a batch of every codec and back; then the batch damaged, with its checksum put right.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::TimestampMs;
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed, Records};

/// Most bytes that a batch may unpack to.
const UNPACKED_MAX: usize = 1 << 20;

#[derive(Arbitrary, Debug)]
struct Case {
    codec: u8,
    records: Vec<(i64, Option<Vec<u8>>, Option<Vec<u8>>)>,
    repeat: u8,
    damage: Vec<(u16, u8)>,
}

fuzz_target!(|case: Case| {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    let codec = codecs[usize::from(case.codec) % codecs.len()];
    let mut builder = BatchBuilder::new(codec, BuilderLimits::default());
    let mut taken = Vec::new();
    for (time, key, value) in case.records.iter().take(64) {
        // Some that compress well.
        let value = value.as_ref().map(|value| value.repeat(1 + usize::from(case.repeat % 16)));
        let pushed = builder.push(TimestampMs(*time), key.as_deref(), value.as_deref(), &[]);
        if pushed == Ok(Pushed::Taken) {
            taken.push((key.clone(), value));
        }
    }
    let Ok(batch) = builder.build(None) else { return };
    let read: Vec<_> = Records::of_at_most(&batch, UNPACKED_MAX)
        .expect("what was built is small")
        .map(|record| record.expect("what was built can be read"))
        .map(|record| (record.key.map(|key| key.to_vec()), record.value.map(|value| value.to_vec())))
        .collect();
    assert_eq!(read, taken);

    let mut bytes = batch.bytes().to_vec();
    for (at, value) in case.damage {
        let len = bytes.len();
        bytes[21 + usize::from(at) % (len - 21)] ^= value;
    }
    let crc = crc32c::crc32c(&bytes[21..]).to_be_bytes();
    bytes[17..21].copy_from_slice(&crc);
    let Ok(batch) = Batch::parse(Bytes::from(bytes), BatchLimits::default()) else { return };
    if let Ok(records) = Records::of_at_most(&batch, UNPACKED_MAX) {
        assert!(records.take_while(Result::is_ok).count() <= UNPACKED_MAX);
    }
});
