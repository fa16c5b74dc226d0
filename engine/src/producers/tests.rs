use proptest::prelude::*;

use super::*;

fn stamp(epoch: i16, first_sequence: i32, count: u32) -> ProducerStamp {
    ProducerStamp { id: ProducerId(7), epoch, first_sequence, count }
}

/// Checks and, if told so, records; the way apply does it.
fn offer(table: &mut ProducerTable, stamp: ProducerStamp, end: &mut u64) -> Verdict {
    let verdict = table.check(&stamp);
    if verdict == Verdict::Append {
        table.record(&stamp, Offset(*end), Chain(*end), TimestampMs(1));
        *end += u64::from(stamp.count);
    }
    verdict
}

/// A retry of any of the last five batches is answered with its old offsets; a sixth is too old.
#[test]
fn retries_within_the_window_are_duplicates() {
    let mut table = ProducerTable::new();
    let mut end = 0;
    for batch in 0..6 {
        assert_eq!(offer(&mut table, stamp(0, batch * 10, 10), &mut end), Verdict::Append);
    }
    for batch in 1..6 {
        let Verdict::Duplicate(kept) = table.check(&stamp(0, batch * 10, 10)) else {
            panic!("not a duplicate")
        };
        assert_eq!(kept.base_offset, Offset(u64::try_from(batch).unwrap() * 10));
        assert_eq!(kept.last_offset, Offset(u64::try_from(batch).unwrap() * 10 + 9));
    }
    assert_eq!(table.check(&stamp(0, 0, 10)), Verdict::OutOfOrder { expected: 60 });
    assert_eq!(
        table.check(&stamp(0, 10, 9)),
        Verdict::OutOfOrder { expected: 60 },
        "another batch, same start"
    );
}

/// With five in flight, the failure of one makes those behind it fail too.
#[test]
fn a_gap_is_out_of_order() {
    let mut table = ProducerTable::new();
    let mut end = 0;
    offer(&mut table, stamp(0, 0, 1), &mut end);
    assert_eq!(offer(&mut table, stamp(0, 2, 1), &mut end), Verdict::OutOfOrder { expected: 1 });
    assert_eq!(offer(&mut table, stamp(0, 1, 1), &mut end), Verdict::Append);
}

#[test]
fn an_old_epoch_is_fenced_and_a_new_one_begins_at_zero() {
    let mut table = ProducerTable::new();
    let mut end = 0;
    offer(&mut table, stamp(3, 100, 1), &mut end);
    assert_eq!(offer(&mut table, stamp(2, 101, 1), &mut end), Verdict::Fenced { current: 3 });
    assert_eq!(offer(&mut table, stamp(4, 101, 1), &mut end), Verdict::OutOfOrder { expected: 0 });
    assert_eq!(offer(&mut table, stamp(4, 0, 1), &mut end), Verdict::Append);
    assert_eq!(
        offer(&mut table, stamp(4, 100, 1), &mut end),
        Verdict::OutOfOrder { expected: 1 },
        "window reset"
    );
}

#[test]
fn sequences_go_round() {
    let mut table = ProducerTable::new();
    let mut end = 0;
    assert_eq!(offer(&mut table, stamp(0, i32::MAX - 1, 4), &mut end), Verdict::Append);
    assert_eq!(stamp(0, i32::MAX - 1, 4).last_sequence(), 1);
    assert_eq!(offer(&mut table, stamp(0, 2, 1), &mut end), Verdict::Append);
}

#[test]
fn a_silent_producer_expires_and_may_begin_anywhere() {
    let mut table = ProducerTable::new();
    table.record(&stamp(0, 0, 1), Offset(0), Chain(1), TimestampMs(10));
    assert_eq!(table.expire(TimestampMs(10)), 0);
    assert_eq!(table.expire(TimestampMs(11)), 1);
    assert_eq!(table.check(&stamp(0, 55, 1)), Verdict::Append);
}

#[test]
fn the_producer_silent_longest_makes_room() {
    let mut table = ProducerTable::new();
    for id in 0..=i64::try_from(PRODUCERS_MAX).unwrap() {
        let stamp = ProducerStamp { id: ProducerId(id), epoch: 0, first_sequence: 0, count: 1 };
        table.record(&stamp, Offset(0), Chain(0), TimestampMs(1_000 - (id % 7)));
    }
    assert_eq!(table.len(), PRODUCERS_MAX);
    assert_eq!(
        table.check(&ProducerStamp { id: ProducerId(6), epoch: 0, first_sequence: 9, count: 1 }),
        Verdict::Append
    );
}

proptest! {
    /// However a client retries, each batch gets offsets once, and a retry hears the same ones.
    #[test]
    fn no_batch_is_appended_twice(sends in prop::collection::vec((0_usize..20, 1_u32..4), 1..60)) {
        let mut table = ProducerTable::new();
        let mut end = 0;
        let mut first_sequences = vec![0_i32];
        let mut counts: Vec<u32> = Vec::new();
        let mut answers: Vec<Offset> = Vec::new();
        for (back, count) in sends {
            let number = answers.len().saturating_sub(back);
            if number == answers.len() {
                counts.push(count);
                let sent = stamp(0, first_sequences[number], count);
                let base = Offset(end);
                prop_assert_eq!(offer(&mut table, sent, &mut end), Verdict::Append);
                answers.push(base);
                first_sequences.push(first_sequences[number] + i32::try_from(count).unwrap());
            } else {
                let before = end;
                match offer(&mut table, stamp(0, first_sequences[number], counts[number]), &mut end) {
                    Verdict::Duplicate(kept) => prop_assert_eq!(kept.base_offset, answers[number]),
                    Verdict::OutOfOrder { .. } => prop_assert!(answers.len() - number > BATCHES_KEPT),
                    other @ (Verdict::Append | Verdict::Fenced { .. }) => prop_assert!(false, "{other:?}"),
                }
                prop_assert_eq!(end, before);
            }
        }
    }

    /// What was encoded decodes to the same table; cut short, it decodes to none.
    #[test]
    fn a_table_survives_its_bytes(batches in prop::collection::vec((0_i64..9, 0_i16..3, 1_u32..5, 0_i64..99), 0..40)) {
        let mut table = ProducerTable::new();
        for (id, epoch, count, time) in batches {
            let stamp = ProducerStamp { id: ProducerId(id), epoch, first_sequence: 0, count };
            table.record(&stamp, Offset(5), Chain(6), TimestampMs(time));
        }
        let mut out = FieldWriter::new();
        table.encode(&mut out);
        let bytes = out.finish();
        prop_assert_eq!(ProducerTable::decode(&mut Fields::new(&bytes)), Ok(table));
        let short = bytes.slice(..bytes.len() - 1);
        prop_assert!(ProducerTable::decode(&mut Fields::new(&short)).is_err());
    }
}

/// A table that named a producer twice, or in another order, was taken and encoded to other bytes than it was read
/// from. There is one way to write a table.
#[test]
fn producers_that_do_not_rise_are_refused() {
    let of = |ids: &[i64]| {
        let mut out = FieldWriter::new();
        out.count(ids.len());
        for id in ids {
            out.i64(*id).i16(0).u16(1).i32(0).i32(0).u64(0).u64(0).u64(0).i64(0);
        }
        out.finish()
    };
    assert!(ProducerTable::decode(&mut Fields::new(&of(&[3, 4]))).is_ok());
    assert_eq!(ProducerTable::decode(&mut Fields::new(&of(&[4, 4]))), Err(Short));
    assert_eq!(ProducerTable::decode(&mut Fields::new(&of(&[4, 3]))), Err(Short));
}
