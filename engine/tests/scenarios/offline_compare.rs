use std::ops::{ControlFlow, Range};

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::offline::{self, Dumped, Why};
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::Position;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::Offset;

use crate::offline_repair::{bases, copy_tree, frames, other, replace, stopped};
use crate::world::{LOG, batch, data, engine, entry, formatted, log_files, segment_path};

/// A log of so many batches, one of which is another one than in all others.
fn write(differs_at: u64, count: u64) -> SimDisk {
    let config = LogConfig { segment_bytes: 1 << 20, epoch_base: 0 };
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = engine.open_log(LOG, config, None).unwrap();
    for index in 1..=count {
        let (_, stamp) = entry(index);
        let number = if index == differs_at { index + 5_000 } else { index };
        writer.append(&batch(number, 2, 300), stamp).unwrap();
    }
    drop((writer, engine));
    disk
}

/// The story: a segment that was not sealed and held a single batch was compared as an empty one, and two copies of a log with
/// different records as equal.
#[test]
fn a_log_of_one_batch_is_not_empty() {
    let disk = write(0, 1);
    copy_tree(&disk);
    let compared = |disk: &SimDisk| {
        let storage = disk.storage();
        let [one, two] = [data(), other()].map(|dir| offline::find(storage.as_ref(), dir).unwrap());
        offline::compare(storage.as_ref(), &one.logs[0], &two.logs[0]).unwrap()
    };
    let same = compared(&disk);
    assert_eq!(same.ranges, [Offset(0)..Offset(2), Offset(0)..Offset(2)]);
    assert_eq!((same.equal_to, same.difference), (Some(Offset(2)), None));
    for (path, bytes) in log_files(&write(1, 1)) {
        replace(&disk, &other().join(path.strip_prefix(data()).unwrap()), &bytes.0);
    }
    assert!(compared(&disk).difference.is_some());
}

/// Copies that part in one batch; found in few reads, however long they are.
#[test]
fn the_first_difference_of_two_copies_is_found_in_logarithmic_reads() {
    let count = 8_000;
    let healthy = write(0, count);
    copy_tree(&healthy);
    for differs_at in [0, 1, 2, 1_700, 4_001, count - 1, count] {
        let disk = write(differs_at, count);
        let storage = healthy.storage();
        for (path, bytes) in log_files(&disk) {
            replace(&healthy, &other().join(path.strip_prefix(data()).unwrap()), &bytes.0);
        }
        let one = offline::find(storage.as_ref(), data()).unwrap();
        let two = offline::find(storage.as_ref(), other()).unwrap();
        let found = offline::compare(storage.as_ref(), &one.logs[0], &two.logs[0]).unwrap();
        let records = 2 * count;
        assert_eq!(found.ranges.clone().map(|range| range.end), [Offset(records), Offset(records)]);
        if differs_at == 0 {
            assert_eq!((found.equal_to, &found.difference), (Some(Offset(records)), &None));
        } else {
            let first = 2 * (differs_at - 1);
            let [a, b] = found.difference.clone().unwrap();
            assert_eq!((a.records.clone(), b.records), (Offset(first)..Offset(first + 2), a.records));
            assert_eq!(found.equal_to, (differs_at > 1).then_some(Offset(first)));
        }
        let log = u64::from(records.ilog2());
        assert!(found.reads <= 6 * log, "{} reads for {records} records", found.reads);
    }
}

#[test]
fn damage_is_no_difference_and_a_shorter_copy_is_equal_as_far_as_it_goes() {
    let disk = stopped();
    let bases = bases(&disk);
    disk.flip_bit(&segment_path(0), Position(300), 1).unwrap();
    disk.storage()
        .remove(&other().join("logs/7/3").join(segment_path(*bases.last().unwrap()).file_name().unwrap()))
        .unwrap();
    let storage = disk.storage();
    let one = offline::find(storage.as_ref(), data()).unwrap();
    let two = offline::find(storage.as_ref(), other()).unwrap();
    let found = offline::compare(storage.as_ref(), &one.logs[0], &two.logs[0]).unwrap();
    assert_eq!(found.difference, None);
    assert_eq!(found.equal_to, Some(Offset(*bases.last().unwrap())));
}

#[test]
fn a_dump_goes_past_damage_and_says_so() {
    let disk = stopped();
    let path = segment_path(0);
    let frame = frames(&disk, &path)[3].clone();
    disk.flip_bit(&path, Position(frame.start + 70), 2).unwrap();
    let storage = disk.storage();
    let target = offline::find(storage.as_ref(), data()).unwrap();
    let dumped = |wanted: Range<Offset>| {
        let (mut batches, mut damage) = (Vec::new(), Vec::new());
        offline::dump(storage.as_ref(), &target.logs[0], &wanted, &mut |_| {}, &mut |dumped| {
            match dumped {
                Dumped::Batch { bytes, .. } => {
                    batches.push(Batch::parse(bytes, BatchLimits::CAP).unwrap().base_offset().unwrap().get());
                }
                Dumped::Damage(finding) => damage.push(finding.why),
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        (batches, damage)
    };
    let (batches, damage) = dumped(Offset(0)..Offset(u64::MAX));
    let expected: Vec<u64> = (0..50).map(|at| 2 * at).filter(|base| *base != 6).collect();
    assert_eq!(batches, expected);
    assert!(matches!(damage[..], [Why::Frame(_)]), "{damage:?}");
    let (batches, damage) = dumped(Offset(21)..Offset(25));
    assert_eq!((batches, damage), (vec![20, 22, 24], vec![]));
}
