//! Crashes of the simulated raft log: what was synced stays, what was not may go, from the end only.

use std::path::Path;

use proptest::prelude::*;
use raft::eraftpb::Entry;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_wire::ids::{GroupId, RaftIndex};

use super::tests::new_disk;
use super::*;

fn dir() -> &'static Path {
    Path::new("/data/raft")
}

fn open(disk: &SimDisk, options: SimLogOptions) -> Result<SimLog, RaftLogError> {
    SimLog::open(disk.storage(), dir(), options)
}

fn write(index: u64, bytes: usize) -> GroupWrite {
    let entry = Entry { index, term: 1, data: vec![7; bytes].into(), ..Entry::default() };
    GroupWrite { entries: vec![entry], ..GroupWrite::new(GroupId(1)) }
}

fn last(log: &SimLog) -> u64 {
    log.load(GroupId(1)).unwrap().span.map_or(0, |span| span.last.get())
}

/// Appends entries, of which `synced` says whether each is synced; returns the last durable one.
fn append_until_stopped(log: &SimLog, synced: &[bool], first: u64) -> u64 {
    let mut durable = 0;
    for (sync, index) in synced.iter().zip(first..) {
        if log.write(&[write(index, 700)], *sync).is_err() {
            break;
        }
        if *sync {
            durable = index;
        }
        if index % 5 == 0 && (log.compact(GroupId(1), RaftIndex(index / 2)).is_err() || log.purge().is_err())
        {
            break;
        }
    }
    durable
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Stopped anywhere, at any fate of the unsynced bytes: all that was synced is there, without
    /// gaps; and what the log shows after opening is still there after a second power cut.
    #[test]
    fn a_power_cut_loses_only_what_was_not_synced(
        synced in prop::collection::vec(any::<bool>(), 1..40),
        stop in 1..120_u64,
        seed in any::<u64>(),
        process_only in any::<bool>(),
    ) {
        let options = SimLogOptions::rewriting_at(4096);
        let disk = new_disk();
        disk.stop_at(disk.changes() + stop);
        let durable = match open(&disk, options) {
            Ok(log) => append_until_stopped(&log, &synced, 1),
            Err(_) => 0,
        };
        disk.crash(if process_only { Crash::ProcessOnly } else { Crash::PowerCut { seed } });
        let shown = {
            let log = open(&disk, options).unwrap();
            prop_assert!(last(&log) >= durable, "entry {durable} was synced, the log ends at {}", last(&log));
            last(&log)
        };
        disk.crash(Crash::LoseUnsynced);
        prop_assert_eq!(last(&open(&disk, options).unwrap()), shown);
    }
}

/// A killed process leaves entries in the cache. Whoever reads them must sync them before it counts
/// on them: this is the defect that the simulator must catch when it is left out.
#[cfg(feature = "defects")]
#[test]
fn without_the_sync_of_the_recovered_tail_a_second_crash_takes_entries_back() {
    let disk = new_disk();
    let log = open(&disk, SimLogOptions::default()).unwrap();
    log.write(&[write(1, 10)], true).unwrap();
    log.write(&[write(2, 10)], false).unwrap();
    drop(log);
    disk.crash(Crash::ProcessOnly);
    crate::defects::play(Some(crate::defects::Defect::SkipRecoveredTailSync));
    assert_eq!(last(&open(&disk, SimLogOptions::default()).unwrap()), 2);
    crate::defects::play(None);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(last(&open(&disk, SimLogOptions::default()).unwrap()), 1);
}

#[test]
fn a_failed_sync_fences_the_log() {
    use tidelog_engine::sim_disk::{Failure, Fault, Operation};
    let disk = new_disk();
    let log = open(&disk, SimLogOptions::default()).unwrap();
    disk.inject(Fault::next(Operation::Sync, Failure::Io));
    assert!(log.write(&[write(1, 10)], true).is_err());
    assert!(log.write(&[write(1, 10)], true).is_err(), "nothing is written after a failed sync");
}

/// The same calls leave the same bytes.
#[test]
fn the_same_calls_leave_the_same_disk() {
    let run = || {
        let disk = new_disk();
        let log = open(&disk, SimLogOptions::rewriting_at(4096)).unwrap();
        append_until_stopped(&log, &[true, false, true, true, false, true], 1);
        (disk.trace(), disk.fingerprint())
    };
    assert_eq!(run(), run());
}
