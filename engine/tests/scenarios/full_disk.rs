//! Embedded logs on a disk without room, and the reserve that keeps them going.

use std::sync::Arc;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::EmbeddedError;
use tidelog_engine::log::AppendError;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::{Engine, Options};
use tidelog_wire::ids::{LogId, Offset, Partition, TimestampMs};

use crate::world::{CONFIG, LOG, batch, data, embedded_engine, formatted, read_all, read_file, segment_path};

const NOW: TimestampMs = TimestampMs(5);

/// With the disk full writes are refused, reads and trims go on, and writes resume by themselves.
#[test]
fn a_full_disk_refuses_writes_and_resumes_by_itself() {
    let disk = formatted(7);
    disk.set_free_bytes(20 << 20);
    let reserve = 8 << 20;
    let options = Options { reserve_bytes: reserve, ..Options::embedded(NOW) };
    let engine = Engine::open(disk.storage(), data(), options).unwrap();
    assert!(engine.room().reserve_held);
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    let mut acknowledged: usize = 0;
    let refused = loop {
        match log.append_durable(&batch(1, 1, 500_000), NOW) {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100);
    };
    assert!(matches!(refused, EmbeddedError::Append(AppendError::DiskFull { .. })), "{refused}");
    assert!(engine.room().refuses_writes);
    assert_eq!(read_all(&log.reader(), Offset(0)).unwrap().len(), acknowledged);
    log.trim(Offset(2)).unwrap();
    disk.set_free_bytes(100 << 20);
    log.append_durable(&batch(2, 1, 10), NOW).unwrap();
    assert!(engine.room().reserve_held, "taken again");
}

/// There was room again, and the next append wrote and synced a new reserve before it was written itself; whoever came
/// meanwhile waited as well.
#[test]
fn an_append_does_not_pay_for_the_reserve() {
    let disk = formatted(7);
    disk.set_free_bytes(20 << 20);
    let engine = with_reserve(&disk);
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    let reserve = data().join("reserve");
    let held = || disk.files().contains(&reserve);
    // The last one that fits uses the reserve.
    while log.append_durable(&batch(1, 1, 900_000), NOW).is_ok() {}
    assert!(!held());
    disk.set_free_bytes(100 << 20);
    disk.note_calls();
    log.append_durable(&batch(2, 1, 10), NOW).unwrap();
    assert!(disk.calls().iter().all(|call| call.path != reserve), "the append has nothing to do with it");
    log.idle().unwrap();
    assert!(held(), "taken when there is time");
    assert!(!engine.room().refuses_writes);
}

/// A restart forgot the reserve that lay there whole: unless there was room for it twice over, the node
/// refused writes, and on a full disk it had nothing to give.
#[test]
fn the_reserve_of_an_earlier_run_is_held_without_room_for_another() {
    let disk = formatted(7);
    let open = || {
        let options = Options { reserve_bytes: 8 << 20, ..Options::embedded(NOW) };
        Engine::open(disk.storage(), data(), options).unwrap()
    };
    assert!(open().room().reserve_held);
    disk.set_free_bytes(2 << 20);
    let room = open().room();
    assert!(room.reserve_held && !room.refuses_writes, "{room:?}");
}

fn with_reserve(disk: &SimDisk) -> Arc<Engine> {
    let options = Options { reserve_bytes: 4 << 20, ..Options::embedded(NOW) };
    Engine::open(disk.storage(), data(), options).unwrap()
}

/// On a full disk an append was given the reserve, and the same commit filled it with zeros ahead of the next
/// one; all other logs went on to append up to 1 MiB before they asked. So nothing was left of it for the
/// checkpoint of the trim that was to make room.
#[test]
fn the_reserve_is_not_filled_with_zeros_nor_by_logs_that_have_not_asked() {
    let disk = formatted(7);
    disk.set_free_bytes(100 << 20);
    let engine = with_reserve(&disk);
    let config = LogConfig { segment_bytes: 64 << 20, ..CONFIG };
    let (log, _) = engine.open_shared(LOG, config).unwrap();
    let (other, _) = engine.open_shared(LogId { partition: Partition(4), ..LOG }, config).unwrap();
    log.append_durable(&batch(1, 1, 500_000), NOW).unwrap();
    other.append_durable(&batch(1, 1, 10), NOW).unwrap();
    disk.set_free_bytes(0);
    while engine.room().reserve_held {
        log.append_durable(&batch(2, 1, 500_000), NOW).unwrap();
    }
    let free = engine.room().free_bytes;
    assert!(free > 3 << 20, "{free} bytes are left of the reserve");
    let refused = other.append(&batch(2, 1, 10), NOW);
    assert!(matches!(refused, Err(EmbeddedError::Append(AppendError::DiskFull { .. }))), "{refused:?}");
    log.trim(Offset(1)).unwrap();
}

/// After a full disk, which cut the file back, zeros were still taken to be there: until the frames had passed
/// the place where they had ended, each sync wrote a new length too.
#[test]
fn after_a_full_disk_zeros_are_written_ahead_again() {
    let disk = formatted(7);
    let engine = embedded_engine(&disk);
    let config = LogConfig { segment_bytes: 64 << 20, ..CONFIG };
    let (log, _) = engine.open_shared(LOG, config).unwrap();
    log.append_durable(&batch(1, 1, 400_000), NOW).unwrap();
    disk.set_free_bytes(0);
    let many: Vec<_> = (2..5).map(|number| batch(number, 1, 200_000)).collect();
    assert!(matches!(log.append_many(&many, NOW).unwrap_err().error, AppendError::DiskFull { .. }));
    disk.set_free_bytes(100 << 20);
    log.append_durable(&batch(5, 1, 10), NOW).unwrap();
    let len = read_file(&disk, &segment_path(0)).len();
    assert!(len > 700_000, "{len} bytes, zeros and all");
}
