//! A file that has no place in a log says nothing about the files that have one.

use std::ops::{ControlFlow, Range};

use tidelog_engine::offline::{self, Dumped};
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{LogId, Offset, Partition, TimestampMs};

use crate::harm::{Harm, inflict};
use crate::offline_doubts::mend;
use crate::offline_repair::{frames, replace};
use crate::world::{CONFIG, LOG, batch, data, embedded_engine, formatted, read_file, segment_path};

/// Offsets of what a dump hands out.
fn dumped(disk: &SimDisk) -> Vec<Range<Offset>> {
    let storage = disk.storage();
    let target = offline::find(storage.as_ref(), &data().join("logs/7/3")).unwrap();
    let mut found = Vec::new();
    let all = Offset::ZERO..Offset(u64::MAX);
    offline::dump(storage.as_ref(), &target.logs[0], &all, &mut |_| {}, &mut |dumped| {
        if let Dumped::Batch { bytes, .. } = dumped {
            let batch = tidelog_wire::batch::Batch::parse(bytes, tidelog_wire::batch::BatchLimits::default());
            let batch = batch.unwrap();
            let base = batch.base_offset().unwrap();
            found.push(base..base.plus(u64::from(batch.count())));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

/// Found by fuzzing. With another log's segment behind it, the last segment of a log was taken for one that a successor
/// had ended: what lay behind a broken frame in it counted. Once a repair had set the stranger aside it did not, so less
/// could be read after the repair than before.
#[test]
fn a_stranger_behind_the_last_segment_does_not_end_it() {
    let disk = formatted(1);
    let engine = embedded_engine(&disk);
    let other = LogId { partition: Partition(4), ..LOG };
    for log in [LOG, other] {
        let (log, _) = engine.open_shared(log, CONFIG).unwrap();
        for number in 1..=4 {
            log.append(&batch(number, 2, 100), TimestampMs(1)).unwrap();
        }
        log.sync().unwrap();
    }
    drop(engine);
    let path = segment_path(0);
    let mut bytes = read_file(&disk, &path);
    inflict(&mut bytes, &Harm::Flip(frames(&disk, &path)[1].start + 9, 1));
    replace(&disk, &path, &bytes);
    let alone = dumped(&disk);

    let name = path.file_name().unwrap();
    let stranger = read_file(&disk, &data().join("logs/7/4").join(name));
    let file = disk.storage().open(&segment_path(50), OpenMode::CreateNew).unwrap();
    file.write_at(Position::ZERO, &[&stranger]).unwrap();
    assert_eq!(dumped(&disk), alone);
    let done = mend(&disk, data(), None);
    assert!(!done.steps.is_empty(), "{done:#?}");
    assert_eq!(dumped(&disk), alone);
}
