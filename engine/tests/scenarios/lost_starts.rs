//! Both checkpoints of where the embedded logs start are bad: every log comes back by its own files, and no offset is
//! handed out twice.

use std::path::PathBuf;

use tidelog_engine::offline;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{Chain, LogId, Offset, Partition, TimestampMs};

use crate::world::{
    CONFIG, LOG, batch, data, embedded_engine, formatted, log_files, read_all, segment_path, shared,
    try_shared,
};

const NOW: TimestampMs = TimestampMs(5);
const PURGED: LogId = LogId { partition: Partition(4), ..LOG };
const UNTOUCHED: LogId = LogId { partition: Partition(5), ..LOG };

fn starts(disk: &SimDisk) -> Vec<PathBuf> {
    let checkpoints = disk.files().into_iter().filter(|path| path.starts_with("/data/checkpoints"));
    checkpoints.filter(|path| path.extension().is_some_and(|it| it == "ckpt")).collect()
}

fn spoil_starts(disk: &SimDisk) {
    for path in starts(disk) {
        disk.flip_bit(&path, Position(40), 3).unwrap();
    }
}

/// Three logs: one trimmed within its third segment, one purged at 6, one never trimmed. Both checkpoints are bad.
/// Also the chain at the end of the purged one.
fn lost() -> (SimDisk, Chain) {
    let disk = formatted(7);
    let engine = embedded_engine(&disk);
    let logs = [LOG, PURGED, UNTOUCHED].map(|log| engine.open_shared(log, CONFIG).unwrap().0);
    for log in &logs {
        for number in 0..6 {
            log.append_durable(&batch(number, 1, 1_500), NOW).unwrap();
        }
    }
    // Twice: what the older checkpoint names is not unlinked.
    for _ in 0..2 {
        logs[0].trim(Offset(5)).unwrap();
        logs[1].trim(Offset(6)).unwrap();
    }
    for log in [LOG, PURGED, UNTOUCHED] {
        // What was unlinked stays so, whatever crash comes.
        disk.storage().sync_dir(&data().join(format!("logs/7/{}", log.partition))).unwrap();
    }
    let chain = logs[1].reader().end_and_chain().1;
    drop((logs, engine));
    disk.crash(Crash::ProcessOnly);
    assert_eq!(starts(&disk).len(), 2);
    spoil_starts(&disk);
    (disk, chain)
}

/// What each of the three logs is to be found as: its start and its end.
fn check(disk: &SimDisk, chain: Chain) {
    let engine = embedded_engine(disk);
    let found = [LOG, PURGED, UNTOUCHED].map(|log| {
        let (log, recovery) = engine.open_shared(log, CONFIG).unwrap();
        assert_eq!((recovery.damage, recovery.read_only), (vec![], None));
        let reader = log.reader();
        assert_eq!(
            read_all(&reader, reader.start()).unwrap().len(),
            usize::try_from(reader.end().get() - reader.start().get()).unwrap()
        );
        if log.reader().log() == PURGED {
            assert_eq!(reader.end_and_chain().1, chain);
        }
        (reader.start(), reader.end())
    });
    let expected = [(Offset(4), Offset(6)), (Offset(6), Offset(6)), (Offset(0), Offset(6))];
    assert_eq!(found, expected, "the first begins where its file does");
}

/// Two bad files, and no log of the engine opened any more: a log without a file might have been purged, and begin again
/// at offset 0. Now a purged log has a file that says where it ended.
#[test]
fn every_log_comes_back_by_itself_and_goes_on_where_it_ended() {
    let (disk, chain) = lost();
    let engine = embedded_engine(&disk);
    assert!(engine.report().findings.iter().any(|finding| finding.row == "checkpoint_starts_lost"));
    drop(engine);
    assert_eq!(starts(&disk).len(), 2, "recorded twice again");
    let aside = disk.files().into_iter().filter(|path| path.starts_with("/data/quarantine"));
    assert_eq!(aside.filter(|path| path.extension().is_some_and(|it| it == "piece")).count(), 2);
    check(&disk, chain);
    disk.crash(Crash::LoseUnsynced);
    check(&disk, chain);
    let engine = embedded_engine(&disk);
    assert!(engine.report().findings.is_empty(), "{:?}", engine.report().findings);
    let new = LogId { partition: Partition(9), ..LOG };
    for (log, next) in [(LOG, 6), (PURGED, 6), (UNTOUCHED, 6), (new, 0)] {
        let (log, _) = engine.open_shared(log, CONFIG).unwrap();
        assert_eq!(log.append_durable(&batch(7, 1, 10), NOW).unwrap().base_offset, Offset(next));
        log.trim(Offset(next)).unwrap();
        assert_eq!(log.reader().start(), Offset(next));
    }
}

#[test]
fn a_crash_anywhere_on_the_way_back_is_recovered_from() {
    let (lost, chain) = lost();
    let mut points = 0;
    loop {
        let stopped = lost.fork();
        stopped.stop_at(lost.changes() + points);
        let log = try_shared(&stopped);
        if log.is_some() && !stopped.is_stopped() {
            break;
        }
        drop(log);
        for crash in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::PowerCut { seed: points }] {
            let disk = stopped.fork();
            disk.crash(crash);
            check(&disk, chain);
            check(&disk, chain);
        }
        points += 1;
    }
    assert!(points > 15, "{points} points");
}

/// A purge is cut short anywhere, and then both checkpoints are bad: what was durable keeps its offsets.
#[test]
fn a_crash_anywhere_in_a_purge_and_lost_starts_hand_out_no_offset_twice() {
    let clean = formatted(7);
    let (log, _) = shared(&clean);
    for number in 0..6 {
        log.append_durable(&batch(number, 1, 1_500), NOW).unwrap();
    }
    log.trim(Offset(1)).unwrap();
    drop(log);
    clean.crash(Crash::ProcessOnly);
    let mut points = 0;
    loop {
        let stopped = clean.fork();
        stopped.stop_at(clean.changes() + points);
        let done = try_shared(&stopped)
            .is_some_and(|log| log.trim(Offset(6)).is_ok() && log.trim(Offset(6)).is_ok());
        for seed in 0..4 {
            let disk = stopped.fork();
            disk.crash(if seed == 0 {
                Crash::LoseUnsynced
            } else {
                Crash::PowerCut { seed: points * 10 + seed }
            });
            spoil_starts(&disk);
            for next in [6, 7] {
                let (log, _) = shared(&disk);
                let appended = log.append_durable(&batch(9, 1, 10), NOW).unwrap();
                assert_eq!(appended.base_offset, Offset(next), "point {points}, seed {seed}");
                drop(log);
                disk.crash(Crash::ProcessOnly);
            }
        }
        if done {
            break;
        }
        points += 1;
    }
    assert!(points > 20, "{points} points");
}

/// The older checkpoint still named a file of a log that was purged since: the file ended below what had been handed out.
#[test]
fn a_file_that_outlived_its_purge_does_not_say_where_the_log_ends() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..2 {
        log.append_durable(&batch(number, 1, 1_500), NOW).unwrap();
    }
    log.trim(Offset(1)).unwrap();
    for number in 2..6 {
        log.append_durable(&batch(number, 1, 1_500), NOW).unwrap();
    }
    log.trim(Offset(6)).unwrap();
    drop(log);
    disk.crash(Crash::ProcessOnly);
    assert_eq!(log_files(&disk).len(), 2, "{:?}", log_files(&disk));
    spoil_starts(&disk);
    let (log, _) = shared(&disk);
    let reader = log.reader();
    assert_eq!((reader.start(), reader.end()), (Offset(0), Offset(6)));
    assert_eq!(reader.read(Offset(0), 10_000).unwrap().next, Offset(2));
    assert!(reader.read(Offset(2), 1).is_err(), "trimmed or lost: nothing says which");
    assert_eq!(log.append_durable(&batch(9, 1, 10), NOW).unwrap().base_offset, Offset(6));
    log.trim(Offset(6)).unwrap();
    assert_eq!(read_all(&reader, Offset(6)).unwrap().len(), 1);
}

/// Of what a log lost at its end the checkpoint alone knew. Its files are made to say it, so the next loss is none.
#[test]
fn an_end_that_only_the_checkpoint_knew_is_written_down_in_the_log() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..6 {
        log.append_durable(&batch(number, 1, 1_500), NOW).unwrap();
    }
    log.trim(Offset(1)).unwrap();
    drop(log);
    disk.crash(Crash::ProcessOnly);
    disk.storage().remove(&segment_path(4)).unwrap();
    let (log, recovery) = shared(&disk);
    assert_eq!(recovery.damage, [Offset(4)..Offset(6)]);
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    spoil_starts(&disk);
    let (log, recovery) = shared(&disk);
    assert_eq!(recovery.damage, [Offset(4)..Offset(6)], "by what the file before the last says");
    assert_eq!(log.append_durable(&batch(9, 1, 10), NOW).unwrap().base_offset, Offset(6));
}

/// Even the header that said where the log ended is damaged: its name says it too. A file of zeros says nothing.
#[test]
fn a_damaged_witness_is_believed_by_its_name_and_a_file_of_zeros_is_not() {
    let (disk, _) = lost();
    let witness = PathBuf::from("/data/logs/7/4").join(segment_path(6).file_name().unwrap());
    disk.flip_bit(&witness, Position(30), 3).unwrap();
    let zeros = disk.storage().open(&segment_path(900), OpenMode::CreateNew).unwrap();
    zeros.write_at(Position::ZERO, &[&[0; 200]]).unwrap();
    let engine = embedded_engine(&disk);
    for log in [PURGED, LOG] {
        let (log, _) = engine.open_shared(log, CONFIG).unwrap();
        assert_eq!(log.append_durable(&batch(9, 1, 10), NOW).unwrap().base_offset, Offset(6));
    }
}

/// The offline tools know such a file: a purged log is sound, and there is nothing to repair.
#[test]
fn a_purged_log_is_sound_to_the_offline_tools() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..6 {
        log.append_durable(&batch(number, 1, 1_500), NOW).unwrap();
    }
    for _ in 0..2 {
        log.trim(Offset(6)).unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    assert_eq!(log_files(&disk).len(), 1);
    let target = offline::find(disk.storage().as_ref(), data()).unwrap();
    let verified = offline::verify(disk.storage().as_ref(), &target, &mut |_| {});
    assert!(
        verified.damage.is_empty() && verified.torn.is_empty() && verified.below_start.is_empty(),
        "{verified:?}"
    );
}
