//! Both checkpoints of where the embedded logs start are bad: every log comes back by its own files, and no offset is
//! handed out twice.

use std::path::PathBuf;

use tidelog_engine::offline;
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Lasting, Operation, SimDisk};
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

/// The good checkpoints of [`logs`] are spoiled.
fn lost() -> (SimDisk, Chain) {
    let (disk, chain) = logs();
    spoil_starts(&disk);
    (disk, chain)
}

/// Three logs: one trimmed within its third segment, one purged at 6, one never trimmed. Also the chain at the end of the
/// purged one.
fn logs() -> (SimDisk, Chain) {
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

fn aside(disk: &SimDisk) -> usize {
    let aside = disk.files().into_iter().filter(|path| path.starts_with("/data/quarantine"));
    aside.filter(|path| path.extension().is_some_and(|it| it == "piece")).count()
}

/// The story: a disk refused both checkpoints for a moment, so it was taken from the files where the logs start. The
/// checkpoints that could be read again by then were not set aside but unlinked, and with them what was trimmed.
#[test]
fn checkpoints_that_the_disk_refuses_for_a_moment_are_used_when_it_gives_them() {
    for refused in 0..=7 {
        let (disk, _) = logs();
        for _ in 0..refused {
            disk.inject(Fault::next(Operation::Open, Failure::NoHandles).on_path(".ckpt"));
        }
        let engine = embedded_engine(&disk);
        disk.clear_faults();
        // The start asks three times for each of the two.
        let (start, lost) = if refused < 6 { (Offset(5), 0) } else { (Offset(4), 2) };
        assert_eq!(engine.open_shared(LOG, CONFIG).unwrap().0.reader().start(), start, "{refused} refused");
        let (other, _) = engine.open_shared(UNTOUCHED, CONFIG).unwrap();
        for _ in 0..3 {
            other.trim(Offset(1)).unwrap();
        }
        let doubted = match refused {
            1 | 3 => 1,
            _ => lost,
        };
        assert_eq!(aside(&disk), doubted, "{refused} refused: what was not used is not unlinked");
        drop((other, engine));
        disk.crash(Crash::LoseUnsynced);
        for (log, start) in [(LOG, start), (UNTOUCHED, Offset(1)), (PURGED, Offset(6))] {
            let (log, recovery) = embedded_engine(&disk).open_shared(log, CONFIG).unwrap();
            assert_eq!((log.reader().start(), log.reader().end()), (start, Offset(6)), "{refused} refused");
            assert_eq!(recovery.damage, []);
        }
    }
}

/// The story: the new checkpoint could not be written, and the next trim wrote one and unlinked the bad ones with the old.
#[test]
fn bad_checkpoints_go_to_quarantine_also_if_the_first_new_one_fails() {
    let (disk, _) = lost();
    disk.inject(Fault::next(Operation::Create, Failure::Io).on_path("checkpoints"));
    let engine = embedded_engine(&disk);
    assert_eq!((starts(&disk).len(), aside(&disk)), (2, 0));
    // Nor are they unlinked if the quarantine does not take them.
    let full = Fault::next(Operation::Rename, Failure::Io).on_path("quarantine");
    let bad = starts(&disk);
    let (log, _) = engine.open_shared(UNTOUCHED, CONFIG).unwrap();
    disk.inject(Fault { lasting: Lasting::Always, ..full });
    log.trim(Offset(1)).unwrap();
    let moved = |disk: &SimDisk| bad.iter().filter(|path| !disk.files().contains(path)).count();
    assert_eq!(moved(&disk), aside(&disk), "none was unlinked");
    disk.clear_faults();
    log.trim(Offset(2)).unwrap();
    assert_eq!((starts(&disk).len(), aside(&disk)), (2, 2));
}

/// The story: a log that could not be listed for a moment was recorded as one without a start. The next start took it to
/// begin at 0, and marked as damaged what had been trimmed.
#[test]
fn nothing_is_recorded_while_a_log_cannot_be_listed() {
    let (disk, chain) = lost();
    let unlisted = || {
        let fault = Fault::next(Operation::List, Failure::Io).on_path("logs/7/3");
        disk.inject(Fault { lasting: Lasting::Always, ..fault });
    };
    unlisted();
    let bad = starts(&disk);
    let engine = embedded_engine(&disk);
    assert_eq!(starts(&disk), bad);
    assert!(engine.open_shared(LOG, CONFIG).is_err());
    let (other, _) = engine.open_shared(UNTOUCHED, CONFIG).unwrap();
    assert!(other.trim(Offset(3)).is_err(), "it would record all logs but one");
    assert_eq!((other.reader().start(), starts(&disk)), (Offset(0), bad));
    drop((other, engine));
    disk.clear_faults();
    check(&disk.fork(), chain);

    // The log itself, and a trim of another, look again.
    unlisted();
    let engine = embedded_engine(&disk);
    disk.clear_faults();
    let (log, recovery) = engine.open_shared(LOG, CONFIG).unwrap();
    assert_eq!((log.reader().start(), recovery.damage), (Offset(4), vec![]));
    engine.open_shared(UNTOUCHED, CONFIG).unwrap().0.trim(Offset(0)).unwrap();
    assert_eq!((starts(&disk).len(), aside(&disk)), (2, 2));
    drop((log, engine));
    check(&disk, chain);
}
