use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::log::{AppendError, ReadError};
use tidelog_engine::sim_disk::Crash;
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_wire::ids::{Chain, Offset, TimestampMs};

use crate::world::{
    CONFIG, LOG, append, batch, embedded_engine, engine, entry, formatted, log_files, make_checkpoint, open,
    read_all, read_file, segment_path, shared,
};

/// What is appended comes back byte for byte, apart from offset and epoch, whatever the offset asked for.
#[test]
fn batches_come_back_whole_from_any_offset_across_segments() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, recovery) = open(&engine, None);
    assert!(recovery.is_clean());
    let appended = append(&mut writer, 1..=100);
    let reader = writer.reader();
    assert!(log_files(&disk).len() > 5, "many segments");
    let all = read_all(&reader, Offset::ZERO).unwrap();
    assert_eq!(all.len(), 100);
    for (number, ((base, bytes), appended)) in all.iter().zip(&appended).enumerate() {
        let (sent, stamp) = entry(u64::try_from(number).unwrap() + 1);
        assert_eq!(*base, appended.base_offset);
        assert_eq!(*bytes, sent.stamped_bytes(*base, stamp.leader_epoch));
    }
    for offset in 0..200 {
        let read = reader.read(Offset(offset), 1).unwrap();
        assert_eq!(read.batches, [all[usize::try_from(offset / 2).unwrap()].1.clone()], "offset {offset}");
        assert_eq!(read.next, Offset(offset / 2 * 2 + 2));
    }
    assert!(reader.read(Offset(200), 1).unwrap().batches.is_empty());
    assert!(matches!(reader.read(Offset(201), 1), Err(ReadError::OutOfRange { .. })));
}

/// One write for many batches leaves the same files as one write for each.
#[test]
fn many_at_once_leave_the_same_bytes_as_one_at_a_time() {
    let (one, many) = (formatted(1), formatted(1));
    let (engine_one, engine_many) = (engine(&one), engine(&many));
    let (mut writer, _) = open(&engine_one, None);
    let singly = append(&mut writer, 1..=60);
    let (mut writer, _) = open(&engine_many, None);
    let entries: Vec<_> = (1..=60).map(entry).collect();
    let at_once: Vec<_> = entries.iter().map(|(batch, stamp)| (batch, *stamp)).collect();
    assert_eq!(writer.append_many(&at_once).unwrap(), singly);
    assert_eq!(log_files(&one), log_files(&many));
}

/// The chain depends on the batches alone, and every replica finds the same one at the same offset.
#[test]
fn the_chain_is_known_at_every_batch_end() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    let appended = append(&mut writer, 1..=50);
    let reader = writer.reader();
    assert_eq!(reader.chain_at(Offset::ZERO).unwrap(), Chain::ZERO);
    for one in &appended {
        assert_eq!(reader.chain_at(one.last_offset.plus(1)).unwrap(), one.chain);
    }
    assert!(matches!(reader.chain_at(Offset(51)), Err(ReadError::InsideBatch { .. })));
    assert!(matches!(reader.chain_at(Offset(101)), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn a_time_leads_to_the_first_batch_that_is_not_older() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=50);
    let reader = writer.reader();
    for number in 1..=50_u64 {
        let time = TimestampMs(i64::try_from(1_000 * number).unwrap());
        let before = TimestampMs(time.get() - 500);
        assert_eq!(reader.offset_at_time(time).unwrap(), Some((Offset(number * 2 - 2), time)));
        assert_eq!(reader.offset_at_time(before).unwrap(), Some((Offset(number * 2 - 2), time)));
    }
    assert_eq!(reader.offset_at_time(TimestampMs(50_001)).unwrap(), None);
}

/// Time never falls within a log, whatever the clocks of successive leaders say.
#[test]
fn append_time_never_falls() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    let (first, mut stamp) = entry(9);
    assert_eq!(writer.append(&first, stamp).unwrap().append_time, TimestampMs(90));
    stamp.append_time = TimestampMs(20);
    assert_eq!(writer.append(&first, stamp).unwrap().append_time, TimestampMs(90));
}

/// A waiting reader is woken once, by the append it waits for, and not after it has left.
#[test]
fn readers_are_woken_by_what_they_wait_for() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    let reader = writer.reader();
    let woken = Arc::new(AtomicUsize::new(0));
    let wake = |woken: &Arc<AtomicUsize>| {
        let woken = Arc::clone(woken);
        Box::new(move || {
            woken.fetch_add(1, Ordering::SeqCst);
        })
    };
    let _first = reader.on_advance(Offset(0), wake(&woken));
    let _third = reader.on_advance(Offset(3), wake(&woken));
    drop(reader.on_advance(Offset(0), wake(&woken)));
    assert_eq!(woken.load(Ordering::SeqCst), 0);
    append(&mut writer, 1..=1);
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    append(&mut writer, 2..=3);
    assert_eq!(woken.load(Ordering::SeqCst), 2);
    let _late = reader.on_advance(Offset(5), wake(&woken));
    assert_eq!(woken.load(Ordering::SeqCst), 3, "it was there already");
    let _never = reader.on_advance(Offset(6), wake(&woken));
    drop(writer);
    engine.remove_log(LOG).unwrap();
}

/// A batch larger than a segment is a segment of its own.
#[test]
fn a_large_batch_gets_a_segment_of_its_own() {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=1);
    let (_, stamp) = entry(2);
    let large = batch(2, 1, 100_000);
    writer.append(&large, stamp).unwrap();
    append(&mut writer, 3..=3);
    assert_eq!(log_files(&disk).len(), 3);
    assert_eq!(read_all(&writer.reader(), Offset::ZERO).unwrap().len(), 3);
}

/// When a replica syncs is its own affair; the bytes of its segments are not.
#[test]
fn syncing_leaves_no_trace_in_the_frames() {
    let (often, never) = (formatted(1), formatted(1));
    let (engine_often, engine_never) = (engine(&often), engine(&never));
    let (mut writer, _) = open(&engine_often, None);
    for index in 1..=30 {
        append(&mut writer, [index]);
        writer.sync_target().run().unwrap();
    }
    let (mut writer, _) = open(&engine_never, None);
    append(&mut writer, 1..=30);
    assert_eq!(log_files(&often), log_files(&never));
}

/// A write that finds the disk full leaves nothing behind: tried again, it ends in the same bytes.
#[test]
fn a_batch_refused_by_a_full_disk_is_appended_later_as_if_nothing_had_been() {
    let undisturbed = formatted(1);
    let (mut writer, _) = open(&engine(&undisturbed), None);
    append(&mut writer, 1..=40);
    for free in (0..16_000).step_by(331) {
        let disk = formatted(1);
        let engine = engine(&disk);
        let (mut writer, _) = open(&engine, None);
        disk.set_free_bytes(free);
        let mut refused = 0;
        for index in 1..=40 {
            let (batch, stamp) = entry(index);
            while let Err(error) = writer.append(&batch, stamp) {
                assert!(matches!(error, AppendError::DiskFull { .. }), "{error}");
                assert!(refused < 3, "resumes by itself");
                refused += 1;
                assert_eq!(
                    read_all(&writer.reader(), Offset::ZERO).unwrap().len(),
                    usize::try_from(index).unwrap() - 1
                );
                disk.set_free_bytes(1 << 30);
            }
        }
        assert_eq!(log_files(&disk), log_files(&undisturbed), "{free} bytes free");
    }
}

/// Readers of a reopened log get its index while its writer goes on.
#[test]
fn a_reopened_segment_is_indexed_while_it_is_written() {
    let disk = formatted(1);
    let state = {
        let first = engine(&disk);
        let (mut writer, _) = open(&first, None);
        append(&mut writer, 1..=9);
        make_checkpoint(&first, 9, &writer)
    };
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, Some(&state));
    let reader = writer.reader();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            for round in 0..200 {
                let at = Offset(round % 18);
                assert_eq!(reader.read(at, 1).unwrap().batches.len(), 1);
            }
        });
        append(&mut writer, 10..=200);
        reading.join().unwrap();
    });
    assert_eq!(read_all(&writer.reader(), Offset::ZERO).unwrap().len(), 200);
}

/// A bit of the count of records in a batch was turned over. The count is under the batch's own checksum, but was asked
/// before that: damage was named far beyond the batch, and beyond the log's end.
#[test]
fn a_batch_that_lies_about_its_count_costs_itself_only() {
    for bit in 0..8 {
        let disk = formatted(3);
        let (log, _) = shared(&disk);
        for number in 0..4 {
            log.append_durable(&batch(number, 2, 100), TimestampMs(5)).unwrap();
        }
        let file = read_file(&disk, &segment_path(0));
        let second = 80 + u64::from(u32::from_le_bytes(file[84..88].try_into().unwrap()));
        // Low byte of lastOffsetDelta, behind the frame header.
        disk.flip_bit(&segment_path(0), Position(second + 48 + 26), bit).unwrap();
        for offset in 2..4 {
            let error = log.reader().read(Offset(offset), 1 << 20).unwrap_err();
            assert!(
                matches!(&error, ReadError::Damaged { range, .. } if (range.start, range.end) == (Offset(2), Offset(4))),
                "{error}"
            );
        }
        assert_eq!(log.reader().read(Offset(4), 1 << 20).unwrap().batches.len(), 2, "bit {bit}");
        assert_eq!(log.reader().damage(), [Offset(2)..Offset(4)]);
    }
}

/// A segment was renamed into its predecessor's last batch. Reading that batch answered nothing and no error.
#[test]
fn a_batch_that_reaches_into_the_next_segment_is_named_not_passed_over() {
    let disk = formatted(3);
    let (log, _) = shared(&disk);
    for number in 0..12 {
        log.append_durable(&batch(number, 4, 400), TimestampMs(5)).unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    let bases: Vec<u64> =
        (0..48).filter(|base| disk.open(&segment_path(*base), OpenMode::Read).is_ok()).collect();
    disk.rename(&segment_path(bases[1]), &segment_path(bases[1] - 2)).unwrap();
    let (log, _) = shared(&disk);
    let mut at = Offset(0);
    while at < Offset(48) {
        match log.reader().read(at, 1 << 20) {
            Ok(read) => {
                assert!(!read.batches.is_empty() && read.next > at, "something is visible at {at}");
                at = read.next;
            }
            Err(ReadError::Damaged { range, .. }) => {
                assert!(range.contains(&at), "{at} is in {range:?}");
                at = range.end;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Behind a damaged batch lay a mark, and behind that an intact batch, which was named with the damage: the search
/// behind the mark began one byte too late.
#[test]
fn a_batch_behind_a_mark_is_not_named_with_the_damage_before_it() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..3 {
        log.append_durable(&batch(number, 2, 100), TimestampMs(5)).unwrap();
        log.idle().unwrap();
    }
    disk.flip_bit(&segment_path(0), Position(80 + 48 + 61 + 20), 1).unwrap();
    let error = log.reader().read(Offset(0), 1).unwrap_err();
    assert!(
        matches!(&error, ReadError::Damaged { range, .. } if *range == (Offset(0)..Offset(2))),
        "{error}"
    );
    assert_eq!(read_all(&log.reader(), Offset(2)).unwrap().len(), 2);
}

/// Whether the disk had refused bytes was asked of the whole segment: one refused block in it made broken bytes elsewhere pass
/// for refused ones. And a look at the chain did not ask at all: it called damaged for good what the disk gave again later.
/// The bytes of a hole decide, and only the handle that read them is asked.
#[test]
fn refused_and_broken_bytes_of_one_segment_are_told_apart() {
    let disk = formatted(3);
    let config = LogConfig { segment_bytes: 1 << 20, ..CONFIG };
    let (log, _) = embedded_engine(&disk).open_shared(LOG, config).unwrap();
    for number in 0..60 {
        log.append_durable(&batch(number, 1, 1_000), TimestampMs(5)).unwrap();
    }
    let (path, whole) = (segment_path(0), read_file(&disk, &segment_path(0)));
    let frame = 48 + u64::try_from(batch(0, 1, 1_000).bytes().len()).unwrap();
    let refused = 80 + 10 * frame + 200;
    disk.spoil(&path, refused..refused + 1).unwrap();
    disk.flip_bit(&path, Position(80 + 50 * frame + 48 + 70), 2).unwrap();
    let reader = log.reader();
    assert!(matches!(reader.chain_at(Offset(11)), Err(ReadError::Unreadable { .. })));
    assert!(matches!(reader.read(Offset(10), 10), Err(ReadError::Unreadable { .. })));
    let broken = Offset(50)..Offset(51);
    let error = reader.read(Offset(50), 10).unwrap_err();
    assert!(matches!(&error, ReadError::Damaged { range, .. } if *range == broken), "{error}");
    assert_eq!(reader.damage(), [broken]);
    let block = refused / 4_096 * 4_096;
    let given = &whole[usize::try_from(block).unwrap()..][..4_096];
    disk.open(&path, OpenMode::ReadWrite).unwrap().write_at(Position(block), &[given]).unwrap();
    assert_eq!(reader.read(Offset(10), 10).unwrap().batches.len(), 1, "the disk gives it again");
}

/// A batch that says too few records was passed by its count, so the damage behind it was said to begin where that count
/// ends: offsets of the batch itself were left out.
#[test]
fn damage_begins_where_a_batch_begins_that_says_too_few_records() {
    let disk = formatted(3);
    let (log, _) = shared(&disk);
    for number in 0..4 {
        log.append_durable(&batch(number, 2, 100), TimestampMs(5)).unwrap();
    }
    let file = read_file(&disk, &segment_path(0));
    let second = 80 + u64::from(u32::from_le_bytes(file[84..88].try_into().unwrap()));
    disk.flip_bit(&segment_path(0), Position(second + 48 + 26), 0).unwrap();
    let error = log.reader().read(Offset(3), 1 << 20).unwrap_err();
    let lost = Offset(2)..Offset(4);
    assert!(matches!(&error, ReadError::Damaged { range, .. } if *range == lost), "{error}");
    assert_eq!(log.reader().damage(), [lost]);
}
