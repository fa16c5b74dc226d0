//! Scenarios of one batch on its way.

use super::*;

/// One record `v` of key null, with a producer's claim.
fn sample() -> Vec<u8> {
    let body = [0x0e, 0, 0, 0, 0x01, 0x02, b'v', 0];
    let mut header = BatchHeader {
        base_offset: 0,
        length: 49 + 8,
        leader_epoch: -1,
        magic: MAGIC,
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_000,
        producer_id: 7,
        producer_epoch: 0,
        base_sequence: 41,
        record_count: 1,
    };
    let mut bytes = header.encode().to_vec();
    bytes.extend_from_slice(&body);
    header.crc = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    bytes
}

fn resealed(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

fn parse(bytes: Vec<u8>) -> Result<Batch, BatchError> {
    Batch::parse(Bytes::from(bytes), BatchLimits::default())
}

#[test]
fn a_good_batch_is_taken_without_copying_it() {
    let bytes = Bytes::from(sample());
    let batch = Batch::parse(bytes.clone(), BatchLimits::default()).unwrap();
    assert_eq!(batch.bytes().as_ptr(), bytes.as_ptr(), "shared");
    assert_eq!(batch.count(), 1);
    assert_eq!(batch.codec(), Codec::None);
    assert_eq!(batch.producer(), Some(ProducerStamp { id: ProducerId(7), epoch: 0, first_sequence: 41 }));
}

#[test]
fn stamping_changes_twelve_bytes_and_neither_the_checksum_nor_the_chain() {
    let batch = parse(sample()).unwrap();
    let stamped = batch.stamped_bytes(Offset(5), LeaderEpoch(3));
    let again = Batch::parse(stamped, BatchLimits::default()).unwrap();
    assert_eq!(again.base_offset(), Some(Offset(5)));
    assert_eq!(again.last_offset(), Some(Offset(5)));
    assert_eq!(again.leader_epoch(), LeaderEpoch(3));
    assert_eq!(again.chain_input(), batch.chain_input());
    assert_eq!(again.header().crc, batch.header().crc);
    let (prefix, rest) = batch.stamped(Offset(5), LeaderEpoch(3));
    assert_eq!(prefix, again.bytes()[..PREFIX_BYTES]);
    assert_eq!(rest.as_ptr(), batch.bytes()[PREFIX_BYTES..].as_ptr(), "not copied");
}

#[test]
fn every_flipped_bit_under_the_checksum_is_noticed() {
    let good = sample();
    for at in 16..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(parse(bytes).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn every_cut_and_every_extra_byte_is_noticed() {
    let good = sample();
    for len in 0..good.len() {
        assert!(matches!(parse(good[..len].to_vec()), Err(BatchError::Truncated { .. })), "{len} bytes");
    }
    let mut longer = good;
    longer.push(0);
    assert!(matches!(parse(longer), Err(BatchError::Trailing { .. })));
}

#[test]
fn each_rule_has_its_own_error() {
    type Change = fn(&mut Vec<u8>);
    type Expected = fn(&BatchError) -> bool;
    let cases: [(Change, Expected); 11] = [
        (
            |b| b[8..12].copy_from_slice(&48_i32.to_be_bytes()),
            |e| matches!(e, BatchError::Length { length: 48 }),
        ),
        (|b| b[8..12].copy_from_slice(&(-1_i32).to_be_bytes()), |e| matches!(e, BatchError::Length { .. })),
        (|b| b[8..12].copy_from_slice(&i32::MAX.to_be_bytes()), |e| matches!(e, BatchError::TooLarge { .. })),
        (|b| b[16] = 1, |e| matches!(e, BatchError::Magic { found: 1 })),
        (|b| b[22] = 5, |e| matches!(e, BatchError::Codec { number: 5 })),
        (|b| b[22] = 0x20, |e| matches!(e, BatchError::Attributes { bits: 0x20 })),
        (|b| b[22] = 0x10, |e| matches!(e, BatchError::Attributes { bits: 0x10 })),
        (|b| b[60] = 0, |e| matches!(e, BatchError::Count { count: 0, .. })),
        (|b| b[60] = 2, |e| matches!(e, BatchError::Count { count: 2, .. })),
        (
            |b| {
                b[57..61].copy_from_slice(&100_i32.to_be_bytes());
                b[23..27].copy_from_slice(&99_i32.to_be_bytes());
            },
            |e| matches!(e, BatchError::Count { count: 100, .. }),
        ),
        (
            |b| b[53..57].copy_from_slice(&(-1_i32).to_be_bytes()),
            |e| matches!(e, BatchError::Producer { .. }),
        ),
    ];
    for (number, (change, expected)) in cases.into_iter().enumerate() {
        let mut bytes = sample();
        change(&mut bytes);
        let error = Batch::parse(resealed(bytes), BatchLimits::default()).unwrap_err();
        assert!(expected(&error), "case {number}: {error}");
    }
}

#[test]
fn batches_back_to_back_come_out_one_by_one() {
    let one = sample();
    let mut two = Bytes::from([one.clone(), one.clone()].concat());
    for _ in 0..2 {
        let batch = Batch::take_first(&mut two, BatchLimits::default()).unwrap().unwrap();
        assert_eq!(batch.bytes(), &one);
    }
    assert_eq!(Batch::take_first(&mut two, BatchLimits::default()), Ok(None));
    let mut cut = Bytes::copy_from_slice(&one[..one.len() - 1]);
    assert!(Batch::take_first(&mut cut, BatchLimits::default()).is_err());
    assert_eq!(cut.len(), one.len() - 1, "left as it was");
}
