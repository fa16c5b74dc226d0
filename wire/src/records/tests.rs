//! Scenarios of records going into a batch and coming out again.

use proptest::prelude::*;

use super::*;
use crate::batch::{BatchHeader, BatchLimits, HEADER_BYTES, PREFIX_BYTES, ProducerStamp};
use crate::ids::{LeaderEpoch, ProducerId};

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;
type Plain = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Headers);

fn plain() -> impl Strategy<Value = Plain> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let headers = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4);
    (0..1_i64 << 45, proptest::option::of(bytes()), proptest::option::of(bytes()), headers)
}

fn codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

fn push(builder: &mut BatchBuilder, (time, key, value, headers): &Plain) -> Result<Pushed, BuildError> {
    let headers: Vec<_> = headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
    builder.push(TimestampMs(*time), key.as_deref(), value.as_deref(), &headers)
}

fn build(codec: Codec, records: &[Plain]) -> Batch {
    let mut builder = BatchBuilder::new(codec, BuilderLimits::default());
    for record in records {
        assert_eq!(push(&mut builder, record), Ok(Pushed::Taken));
    }
    builder.build(Some(ProducerStamp { id: ProducerId(7), epoch: 1, first_sequence: 41 })).unwrap()
}

fn read(batch: &Batch) -> Result<Vec<Plain>, RecordsError> {
    Records::of(batch)?.map(|record| record.map(to_plain)).collect()
}

fn to_plain(record: Record) -> Plain {
    let vec = |bytes: Bytes| bytes.to_vec();
    let headers = record.headers.into_iter().map(|header| (vec(header.key), header.value.map(vec))).collect();
    (record.timestamp.get(), record.key.map(vec), record.value.map(vec), headers)
}

/// A batch of one given body, with every other field in order.
fn around(codec: Codec, count: i32, body: &[u8]) -> Batch {
    let mut header = BatchHeader {
        base_offset: 0,
        length: i32::try_from(HEADER_BYTES - 12 + body.len()).unwrap(),
        leader_epoch: -1,
        magic: 2,
        crc: 0,
        attributes: codec.number(),
        last_offset_delta: count - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: count,
    };
    header.crc = crc32c::crc32c(&[&header.encode()[PREFIX_BYTES..], body].concat());
    Batch::parse([&header.encode()[..], body].concat().into(), BatchLimits::CAP).unwrap()
}

fn golden_records() -> Vec<Plain> {
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let long = "the same words again and again, ".repeat(20);
    vec![
        (1_700_000_000_000, text("AA11"), text("JFK,LAX,2475"), vec![]),
        (
            1_700_000_000_005,
            None,
            text(&long),
            vec![(b"trace".to_vec(), None), (b"trace".to_vec(), text("2"))],
        ),
        (1_699_999_999_999, text(""), None, vec![]),
    ]
}

/// What stands in testdata was written once; every later build must read it. Compressors may change what they write.
#[test]
fn format_1_batches_are_read_for_ever() {
    let kept: [(Codec, &[u8]); 5] = [
        (Codec::None, include_bytes!("../../testdata/format-1/batch-none.bin")),
        (Codec::Gzip, include_bytes!("../../testdata/format-1/batch-gzip.bin")),
        (Codec::Snappy, include_bytes!("../../testdata/format-1/batch-snappy.bin")),
        (Codec::Lz4, include_bytes!("../../testdata/format-1/batch-lz4.bin")),
        (Codec::Zstd, include_bytes!("../../testdata/format-1/batch-zstd.bin")),
    ];
    for (codec, bytes) in kept {
        let batch = Batch::parse(Bytes::from_static(bytes), BatchLimits::default()).unwrap();
        assert_eq!(batch.codec(), codec);
        assert_eq!(read(&batch), Ok(golden_records()), "{codec:?}");
    }
    assert_eq!(build(Codec::None, &golden_records()).bytes().as_ref(), kept[0].1);
}

#[test]
fn offsets_follow_the_stamp_and_largest_time_is_found() {
    let batch = build(Codec::Zstd, &golden_records());
    assert_eq!(batch.max_timestamp(), TimestampMs(1_700_000_000_005));
    let stamped = batch.stamped_bytes(Offset(1000), LeaderEpoch(3));
    let batch = Batch::parse(stamped, BatchLimits::default()).unwrap();
    let offsets: Vec<_> = Records::of(&batch).unwrap().map(|record| record.unwrap().offset.get()).collect();
    assert_eq!(offsets, [1000, 1001, 1002]);
}

#[test]
fn a_full_batch_refuses_the_next_record_and_keeps_what_it_has() {
    let limits = BuilderLimits { batch_bytes_max: 200, records_max: 3 };
    let mut builder = BatchBuilder::new(Codec::None, limits);
    let value = |len: usize| (0, None, Some(vec![7; len]), vec![]);
    assert!(matches!(push(&mut builder, &value(140)), Err(BuildError::RecordTooLarge { max: 139, .. })));
    assert_eq!(push(&mut builder, &value(60)), Ok(Pushed::Taken));
    assert_eq!(push(&mut builder, &value(90)), Ok(Pushed::Full));
    assert_eq!(push(&mut builder, &value(1)), Ok(Pushed::Taken));
    assert!(!builder.is_full());
    assert_eq!(push(&mut builder, &value(1)), Ok(Pushed::Taken));
    assert!(builder.is_full());
    assert_eq!(push(&mut builder, &value(1)), Ok(Pushed::Full), "three records at most");
    assert_eq!(read(&builder.build(None).unwrap()).unwrap().len(), 3);
    assert_eq!(BatchBuilder::new(Codec::None, limits).build(None), Err(BuildError::Empty));
}

#[test]
fn what_does_not_shrink_is_left_uncompressed() {
    let one = [(0, None, Some(vec![1]), vec![])];
    assert_eq!(build(Codec::Gzip, &one).codec(), Codec::None);
}

#[test]
fn snappy_without_framing_is_read_too() {
    let plain = build(Codec::None, &golden_records());
    let raw = compress::raw_snappy(&plain.body());
    let read_back: Vec<_> =
        Records::of(&around(Codec::Snappy, 3, &raw)).unwrap().map(Result::unwrap).collect();
    assert_eq!(read_back.len(), 3);
}

#[test]
fn a_bomb_is_refused_at_the_limit() {
    let zeros = vec![0; 1 << 20];
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = around(codec, 1, &compress::compress(codec, &zeros).unwrap());
        let error = Records::of_at_most(&bomb, 1 << 16).unwrap_err();
        assert_eq!(error, RecordsError::TooLarge { codec, max: 1 << 16 });
    }
    let lie = around(Codec::Snappy, 1, &[0xff, 0xff, 0xff, 0x1f, 0]); // promises 64 MiB - 1
    assert!(matches!(Records::of(&lie), Err(RecordsError::Decompress { .. })));
}

#[test]
fn malformed_records_are_named_and_end_the_iteration() {
    let good = [0x0e, 0, 0, 0, 0x01, 0x02, b'v', 0];
    let with = |at: usize, byte: u8| {
        let mut body = good;
        body[at] = byte;
        let mut records = Records::of(&around(Codec::None, 1, &body)).unwrap();
        let error = records.next().unwrap().unwrap_err();
        assert!(records.next().is_none());
        error
    };
    assert!(matches!(with(0, 0x7e), RecordsError::Malformed { what: "length", record: 0, at: 0 }));
    assert!(matches!(with(0, 1), RecordsError::Malformed { what: "length", .. }));
    assert!(matches!(with(3, 2), RecordsError::Malformed { what: "offset delta", .. }));
    assert!(matches!(with(4, 0x7e), RecordsError::Malformed { what: "key", .. }));
    assert!(matches!(with(5, 3), RecordsError::Malformed { what: "value", .. }));
    assert!(matches!(with(7, 0x7e), RecordsError::Malformed { what: "header count", .. }));
    let longer = [&good[..], &[9]].concat();
    let last = Records::of(&around(Codec::None, 1, &longer)).unwrap().last().unwrap();
    assert_eq!(last, Err(RecordsError::Trailing { count: 1, extra: 1 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_built_is_read(codec in codec(), records in proptest::collection::vec(plain(), 1..40)) {
        prop_assert_eq!(read(&build(codec, &records)), Ok(records));
    }

    #[test]
    fn every_flipped_bit_is_detected(codec in codec(), records in proptest::collection::vec(plain(), 1..4)) {
        let good = build(codec, &records).into_bytes();
        for at in 16..good.len() {
            for bit in 0..8_u8 {
                let mut bytes = good.to_vec();
                bytes[at] ^= 1_u8 << bit;
                prop_assert!(Batch::parse(bytes.into(), BatchLimits::CAP).is_err(), "byte {}, bit {}", at, bit);
            }
        }
    }

    #[test]
    fn arbitrary_bodies_never_do_more_than_fail(
        codec in codec(), body in proptest::collection::vec(any::<u8>(), 70..400), framed in any::<bool>(),
    ) {
        let starts: &[u8] = match codec {
            Codec::None => &[],
            Codec::Gzip => &[0x1f, 0x8b, 8, 0],
            Codec::Snappy => &[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
            Codec::Lz4 => &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82],
            Codec::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        };
        let body = if framed { [starts, &body].concat() } else { body };
        if let Ok(records) = Records::of_at_most(&around(codec, 10, &body), 1 << 16) {
            prop_assert!(records.body_bytes <= 1 << 16 || codec == Codec::None);
            for record in records {
                drop(record);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_batch_and_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Batch::parse(bytes.into(), BatchLimits::CAP).is_err());
    }
}
