use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::EmbeddedError;
use tidelog_engine::log::recovery::table::{Seen, Verdict};
use tidelog_engine::log::{AppendError, ReadError, Visible};
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Operation};
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_wire::ids::{GroupId, LogId, Offset, Partition, TimestampMs};

use crate::world::{
    CONFIG, LOG, batch, embedded_engine, formatted, log_files, read_all, read_file, segment_path, shared,
};

const NOW: TimestampMs = TimestampMs(5);

/// Acknowledged means durable; what was merely appended is gone, and its offset is handed out again.
#[test]
fn crash_before_sync_loses_only_the_unsynced_batch() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 1, 10), NOW).unwrap();
    let lost = log.append(&batch(2, 1, 10), NOW).unwrap();
    assert_eq!(log.reader().end(), Offset(1), "readers stop at what is durable");
    assert_eq!(log.reader().seeing(Visible::Appended).end(), Offset(2));
    disk.crash(Crash::LoseUnsynced);
    let (log, recovery) = shared(&disk);
    assert_eq!(recovery.damage, []);
    assert_eq!(read_all(&log.reader(), Offset(0)).unwrap().len(), 1);
    assert_eq!(log.append_durable(&batch(3, 1, 10), NOW).unwrap().base_offset, lost.base_offset);
}

/// Many threads wait for few syncs, and each is told the truth.
#[test]
fn one_sync_serves_all_threads_that_wait() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    let appended = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (log, appended) = (log.clone(), &appended);
            scope.spawn(move || {
                for number in 0..25 {
                    let sent = batch(thread * 100 + number, 1, 50);
                    let at = log.append_durable(&sent, NOW).unwrap();
                    assert!(log.reader().durable_end() > at.last_offset);
                    appended.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    disk.crash(Crash::LoseUnsynced);
    let (log, _) = shared(&disk);
    assert_eq!(read_all(&log.reader(), Offset(0)).unwrap().len(), 200);
    assert_eq!(appended.into_inner(), 200);
}

/// A failed sync fences: nobody is told that anything is durable, now or later.
#[test]
fn a_failed_sync_fences_and_is_not_retried() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 1, 10), NOW).unwrap();
    disk.inject(Fault::next(Operation::Sync, Failure::Io).on_path(".seg"));
    assert!(matches!(log.append_durable(&batch(2, 1, 10), NOW), Err(EmbeddedError::Sync(_))));
    let fenced = log.append_durable(&batch(3, 1, 10), NOW);
    assert!(matches!(fenced, Err(EmbeddedError::Append(AppendError::Fenced { .. }))));
    assert!(matches!(log.sync(), Err(EmbeddedError::Sync(_))));
    assert_eq!(log.reader().end(), Offset(1));
}

/// Damage below what a later frame witnesses is a range, not a torn tail; the log stays up.
#[test]
fn damage_below_the_synced_mark_is_corruption() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..3 {
        log.append_durable(&batch(number, 2, 10), NOW).unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    disk.flip_bit(&segment_path(0), Position(80 + 48 + 70), 2).unwrap();
    let (log, recovery) = shared(&disk);
    assert_eq!(recovery.damage, [Offset(0)..Offset(2)]);
    assert!(recovery.findings.iter().any(|one| one.seen == Seen::Broken && one.verdict == Verdict::Corrupt));
    assert!(
        matches!(log.reader().read(Offset(0), 10), Err(ReadError::Damaged { range, .. }) if range == (Offset(0)..Offset(2)))
    );
    assert_eq!(read_all(&log.reader(), Offset(2)).unwrap().len(), 2);
    assert_eq!(log.append_durable(&batch(9, 1, 10), NOW).unwrap().base_offset, Offset(6));
}

/// The last group has no witness of its own; a mark written when idle is one.
#[test]
fn a_mark_witnesses_the_last_group() {
    for marked in [false, true] {
        let disk = formatted(7);
        let (log, _) = shared(&disk);
        log.append_durable(&batch(1, 2, 10), NOW).unwrap();
        let last = log.append_durable(&batch(2, 2, 10), NOW).unwrap();
        if marked {
            log.idle().unwrap();
            let before = log_files(&disk);
            log.idle().unwrap();
            assert_eq!(log_files(&disk), before, "one mark is enough");
        }
        drop(log);
        disk.crash(Crash::ProcessOnly);
        let frame = 48 + u64::try_from(batch(1, 2, 10).bytes().len()).unwrap();
        disk.flip_bit(&segment_path(0), Position(80 + frame + 48 + 70), 2).unwrap();
        let (log, recovery) = shared(&disk);
        if marked {
            assert_eq!(recovery.damage, [last.base_offset..last.last_offset.plus(1)]);
            assert_eq!(log.append_durable(&batch(3, 1, 1), NOW).unwrap().base_offset, Offset(4));
        } else {
            assert_eq!(recovery.damage, []);
            assert!(recovery.cut_bytes > 0, "the documented window: it looks like a torn tail");
        }
    }
}

/// The file is filled with zeros ahead, which recovery takes for what they are.
#[test]
fn prefilled_zeros_are_not_a_torn_tail() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 1, 10), NOW).unwrap();
    let file = read_file(&disk, &segment_path(0));
    assert!(file.ends_with(&[0; 512]), "{} bytes without zeros at the end", file.len());
    drop(log);
    disk.crash(Crash::PowerCut { seed: 3 });
    let (_, recovery) = shared(&disk);
    assert!(recovery.is_clean(), "{recovery:?}");
}

/// A trim is durable before anything is unlinked, and survives a restart.
#[test]
fn a_trim_survives_a_restart() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..60 {
        log.append_durable(&batch(number, 1, 300), NOW).unwrap();
    }
    let files = log_files(&disk).len();
    for to in [20, 30, 41] {
        log.trim(Offset(to)).unwrap();
    }
    assert!(log_files(&disk).len() < files);
    assert!(matches!(log.trim(Offset(61)), Err(EmbeddedError::Log(_))));
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let (log, recovery) = shared(&disk);
    assert_eq!(recovery.damage, []);
    assert_eq!(log.reader().start(), Offset(41));
    assert_eq!(read_all(&log.reader(), Offset(41)).unwrap().len(), 19);
    assert!(matches!(log.reader().read(Offset(40), 1), Err(ReadError::OutOfRange { .. })));
}

/// A purge leaves a header and no frame; offsets and chain go on.
#[test]
fn after_a_purge_offsets_and_chain_go_on() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    let last = log.append_durable(&batch(1, 3, 10), NOW).unwrap();
    for _ in 0..3 {
        log.trim(Offset(3)).unwrap();
    }
    assert_eq!(log_files(&disk).iter().map(|(_, content)| content.0.len()).collect::<Vec<_>>(), [80]);
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let (log, recovery) = shared(&disk);
    assert_eq!(recovery.damage, []);
    assert_eq!(log.reader().end_and_chain(), (Offset(3), last.chain));
    assert_eq!(log.append_durable(&batch(2, 1, 10), NOW).unwrap().base_offset, Offset(3));
}

/// Two readers of one log waited together, whatever they saw: one for what is appended was not woken before
/// a sync, and one for what is durable was woken, once and for nothing, when the other looked.
#[test]
fn each_reader_is_woken_by_what_it_sees_itself() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    let woken = [AtomicU64::new(0), AtomicU64::new(0)].map(Arc::new);
    let wait = |number: usize, visible, offset| {
        let woken = Arc::clone(&woken[number]);
        let wake = move || {
            woken.fetch_add(1, Ordering::SeqCst);
        };
        log.reader().seeing(visible).on_advance(Offset(offset), Box::new(wake))
    };
    let counts = || [0, 1].map(|number: usize| woken[number].load(Ordering::SeqCst));
    let _durable = wait(0, Visible::Durable, 0);
    let _early = wait(1, Visible::Appended, 0);
    log.append(&batch(1, 1, 10), NOW).unwrap();
    assert_eq!(counts(), [0, 1], "by the append");
    let _early = wait(1, Visible::Appended, 0);
    assert_eq!(counts(), [0, 2], "it was there already, for this one");
    log.sync().unwrap();
    assert_eq!(counts(), [1, 2], "by the sync");
}

/// The end of a segment makes it durable. If its successor could not be made, nobody told those who waited.
#[test]
fn who_waits_is_woken_by_the_end_of_a_segment_even_without_a_next_one() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append(&batch(1, 1, 3_000), NOW).unwrap();
    let woken = Arc::new(AtomicU64::new(0));
    let counts = Arc::clone(&woken);
    let wake = move || {
        counts.fetch_add(1, Ordering::SeqCst);
    };
    let _waiting = log.reader().on_advance(Offset(0), Box::new(wake));
    disk.inject(Fault::next(Operation::Create, Failure::NoSpace).on_path(".seg"));
    let refused = log.append(&batch(2, 1, 3_000), NOW);
    assert!(matches!(refused, Err(EmbeddedError::Append(AppendError::DiskFull { .. }))));
    assert_eq!((log.reader().end(), woken.load(Ordering::SeqCst)), (Offset(1), 1));
}

/// A log that had been trimmed once was named by every later checkpoint, so when it was removed its files stayed for
/// ever, and each deleted channel made every later trim write a longer checkpoint.
#[test]
fn a_removed_log_gives_its_files_back_though_it_was_trimmed() {
    let disk = formatted(7);
    let engine = embedded_engine(&disk);
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    for number in 0..40 {
        log.append_durable(&batch(number, 1, 500), NOW).unwrap();
    }
    log.trim(Offset(5)).unwrap();
    assert!(!log_files(&disk).is_empty());
    drop(log);
    engine.remove_log(LOG).unwrap();
    assert_eq!(log_files(&disk), []);
    let kept = engine.load_checkpoint(GroupId::META).unwrap().unwrap();
    assert!(kept.newest.logs.is_empty(), "nor is its start recorded any more");
}

/// After a restart that found the last segment sealed, the leader epoch stood twice in the log's state; the next two
/// trims wrote it into both kept checkpoints, which then made no sense to the reader, and no log opened any more.
#[test]
fn what_a_trim_records_after_a_restart_on_a_sealed_segment_can_be_read() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..20 {
        log.append_durable(&batch(number, 1, 500), NOW).unwrap();
    }
    log.trim(Offset(1)).unwrap();
    drop(log);
    // The successor is gone, as after a crash just before it was made.
    disk.crash(Crash::ProcessOnly);
    let last = log_files(&disk).into_iter().map(|(path, _)| path).max().unwrap();
    disk.remove(&last).unwrap();
    for start in 2..5 {
        let (log, _) = shared(&disk);
        log.trim(Offset(start)).unwrap();
        drop(log);
        disk.crash(Crash::ProcessOnly);
    }
    assert_eq!(shared(&disk).0.reader().start(), Offset(4));
}

/// A file of other bytes stood under the name of a far segment. Its name was believed: the log jumped to there, all between
/// was called damaged, and when the file had been set aside the next start handed out the offsets in between.
#[test]
fn a_file_in_which_nothing_verifies_says_nothing_about_the_log() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 2, 100), NOW).unwrap();
    drop(log);
    disk.crash(Crash::ProcessOnly);
    let file = disk.open(&segment_path(139), OpenMode::CreateNew).unwrap();
    file.write_at(Position::ZERO, &[&[9; 300]]).unwrap();
    for next in 2..5 {
        let (log, recovery) = shared(&disk);
        assert_eq!(recovery.damage, []);
        assert_eq!(log.append_durable(&batch(next, 1, 100), NOW).unwrap().base_offset, Offset(next));
        drop(log);
        disk.crash(Crash::ProcessOnly);
    }
}

/// Damage was known from a header alone, whose file was then set aside since no frame of it verified. The next start
/// knew nothing of it and handed the lost offsets out again.
#[test]
fn damage_that_only_a_file_set_aside_had_shown_is_remembered() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..20 {
        log.append_durable(&batch(number, 1, 500), NOW).unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    let mut files: Vec<_> = log_files(&disk).into_iter().map(|(path, _)| path).collect();
    files.sort();
    let last = files.pop().unwrap();
    for path in &files {
        disk.remove(path).unwrap();
    }
    disk.open(&last, OpenMode::ReadWrite).unwrap().truncate(100).unwrap();
    let (log, recovery) = shared(&disk);
    let (end, damage) = (log.reader().seeing(Visible::Appended).end(), recovery.damage);
    assert!(end > Offset(0) && damage == [Offset(0)..end], "{end} {damage:?}");
    drop(log);
    disk.crash(Crash::ProcessOnly);
    let (log, recovery) = shared(&disk);
    assert_eq!((log.reader().seeing(Visible::Appended).end(), recovery.damage), (end, damage));
}

/// At every hole in the last segment all that lay behind it was searched for a witness again, with every checksum: a
/// segment with many holes took as many walks to start from. One search says how far the file was durable, for all of
/// them.
#[test]
fn a_last_segment_with_many_holes_is_read_twice_and_not_once_for_each() {
    let disk = formatted(7);
    let config = LogConfig { segment_bytes: 64 << 20, ..CONFIG };
    let (log, _) = embedded_engine(&disk).open_shared(LOG, config).unwrap();
    for number in 0..400 {
        log.append(&batch(number, 1, 20_000), NOW).unwrap();
    }
    log.sync().unwrap();
    log.idle().unwrap();
    drop(log);
    disk.crash(Crash::ProcessOnly);
    let frame = 48 + u64::try_from(batch(0, 1, 20_000).bytes().len()).unwrap();
    let holes: Vec<u64> = (5..400).step_by(20).collect();
    for hole in &holes {
        disk.flip_bit(&segment_path(0), Position(80 + hole * frame + 48 + 70), 2).unwrap();
    }
    let len = u64::try_from(read_file(&disk, &segment_path(0)).len()).unwrap();
    disk.note_calls();
    let (log, recovery) = embedded_engine(&disk).open_shared(LOG, config).unwrap();
    drop(log);
    let lost: Vec<_> = holes.iter().map(|hole| Offset(*hole)..Offset(hole + 1)).collect();
    assert_eq!(recovery.damage, lost);
    let reads = disk.calls().into_iter().filter(|call| call.operation == Operation::Read);
    let read: u64 = reads.filter(|call| call.path == segment_path(0)).map(|call| call.bytes).sum();
    assert!(read < 4 * len, "{read} bytes were read of {len}, zeros ahead included");
}

/// Zeros could not be written ahead of frames that were. The first caller was told as if its batch were not in the log.
#[test]
fn when_zeros_cannot_be_written_ahead_the_batch_is_not_called_unwritten() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    // The first write is that of the batch.
    disk.inject(Fault { after: 1, ..Fault::next(Operation::Write, Failure::Io).on_path(".seg") });
    let told = log.append_durable(&batch(1, 1, 10), NOW);
    assert!(matches!(told, Err(EmbeddedError::Sync(_))), "{told:?}");
}

/// A trim whose start could not be recorded said that nothing was removed. The start stayed in memory, went out with the
/// next trim of another log, and held after a restart.
#[test]
fn a_trim_that_failed_does_not_take_effect_with_another_logs_trim() {
    let disk = formatted(7);
    let other = LogId { partition: Partition(4), ..LOG };
    let engine = embedded_engine(&disk);
    let logs = [LOG, other].map(|log| engine.open_shared(log, CONFIG).unwrap().0);
    for log in &logs {
        for number in 0..60 {
            log.append_durable(&batch(number, 1, 300), NOW).unwrap();
        }
    }
    disk.inject(Fault::next(Operation::Create, Failure::Io).on_path("checkpoints"));
    assert!(matches!(logs[0].trim(Offset(40)), Err(EmbeddedError::Checkpoint(_))));
    logs[1].trim(Offset(5)).unwrap();
    drop((logs, engine));
    disk.crash(Crash::ProcessOnly);
    let (log, _) = shared(&disk);
    assert_eq!((log.reader().start(), read_all(&log.reader(), Offset(0)).unwrap().len()), (Offset(0), 60));
}

/// A purge recorded the new start, and then could not end the active segment: it failed, and the next start had purged.
#[test]
fn a_purge_that_cannot_end_its_segment_records_nothing() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 3, 10), NOW).unwrap();
    disk.inject(Fault::next(Operation::Write, Failure::Io).on_path(".seg"));
    assert!(matches!(log.trim(Offset(3)), Err(EmbeddedError::Log(_))));
    drop(log);
    disk.crash(Crash::ProcessOnly);
    assert_eq!(shared(&disk).0.reader().start(), Offset(0));
}

/// Every start forgot that the last frame was a mark, and the next quiet moment wrote another one behind it.
#[test]
fn one_mark_is_enough_across_restarts() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    log.append_durable(&batch(1, 1, 10), NOW).unwrap();
    log.idle().unwrap();
    drop(log);
    disk.crash(Crash::ProcessOnly);
    let (log, _) = shared(&disk);
    let before = log_files(&disk);
    log.idle().unwrap();
    assert_eq!(log_files(&disk), before);
}

/// After the first trim there was one checkpoint of log starts. One flipped bit in it, and no log of the engine opened.
#[test]
fn one_damaged_checkpoint_of_log_starts_does_no_harm() {
    for trims in 1..4 {
        let disk = formatted(7);
        let (log, _) = shared(&disk);
        for number in 0..60 {
            log.append_durable(&batch(number, 1, 300), NOW).unwrap();
        }
        for to in 1..=trims {
            log.trim(Offset(10 * to)).unwrap();
        }
        drop(log);
        disk.crash(Crash::ProcessOnly);
        let damage_newest = || {
            let starts =
                disk.files().into_iter().filter(|path| path.extension().is_some_and(|it| it == "ckpt"));
            disk.flip_bit(&starts.max().unwrap(), Position(40), 3).unwrap();
        };
        damage_newest();
        let (log, recovery) = shared(&disk);
        assert_eq!(recovery.damage, []);
        let start = log.reader().start();
        assert!(start >= Offset(10 * trims.saturating_sub(1).max(1)), "{start}");
        // What is left is one again, and the next trim makes it two.
        log.trim(Offset(45)).unwrap();
        drop(log);
        disk.crash(Crash::ProcessOnly);
        damage_newest();
        assert_eq!(shared(&disk).0.reader().start(), Offset(45));
    }
}
