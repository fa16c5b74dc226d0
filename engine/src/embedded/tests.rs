use std::io;
use std::path::Path;

use tidelog_wire::batch::Codec;
use tidelog_wire::ids::{ClusterId, Generation, Incarnation, NodeId, Partition};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

use super::*;
use crate::embedded::group_commit::Outcome;
use crate::storage::sim_disk::{Crash, Failure, Fault, Lasting, Operation, SimDisk, Written};
use crate::storage::{File, Position};
use crate::{NewIdentity, Options};

const LOG: LogId = LogId { generation: Generation(7), partition: Partition(3) };
const NOW: TimestampMs = TimestampMs(5);
/// A segment takes one batch.
const CONFIG: LogConfig = LogConfig { segment_bytes: LogConfig::SEGMENT_BYTES_MIN, epoch_base: 0 };

/// What became of a wish: where its batch begins, if it had one, or what its error says.
type Told = Option<Result<Option<Offset>, String>>;

fn batch(number: u8) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    assert_eq!(builder.push(NOW, None, Some(&[number; 300]), &[]), Ok(Pushed::Taken));
    builder.build(None).unwrap()
}

fn open(disk: &SimDisk) -> SharedLog {
    let options = Options { reserve_bytes: 0, ..Options::embedded(NOW) };
    let engine = Engine::open(disk.storage(), Path::new("/data"), options).unwrap();
    engine.open_shared(LOG, CONFIG).unwrap().0
}

/// What lies in the log, told by the numbers of the batches.
fn numbers(log: &SharedLog) -> Vec<u8> {
    let mut numbers = Vec::new();
    let reader = log.reader();
    let mut at = reader.start();
    while at < reader.end() {
        let read = reader.read(at, 1 << 20).unwrap();
        numbers.extend(read.batches.iter().filter_map(|bytes| bytes.last_chunk::<2>().map(|last| last[0])));
        at = read.next;
    }
    numbers
}

/// Three durable appends and one that waits for what was before share a group. A segment takes one batch, so the
/// group needs a file for each, and the disk fails while the second is begun.
fn outcomes_of_a_group(fault: Fault) -> (SimDisk, SharedLog, Vec<Told>) {
    let disk = SimDisk::new(1);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
    Engine::format(&disk.storage(), Path::new("/data"), new).unwrap();
    let log = open(&disk);
    let queue = Queue::new(LOG, Arc::default());
    let batches = [1, 2, 3].map(batch);
    let [first, second, third] = batches.each_ref().map(|batch| Some((batch, NOW)));
    let mut group = queue.group_of(&[first, second, third, None]);
    disk.inject(fault);
    log.commit(&mut group);
    disk.clear_faults();
    let told = |outcome: &Outcome| match outcome {
        Ok(appended) => Ok(appended.map(|appended| appended.base_offset)),
        Err(error) => Err(error.to_string()),
    };
    let told = group.wishes.iter().map(|wish| wish.outcome.as_ref().map(told)).collect();
    drop(group);
    (disk, log, told)
}

/// No test had ever made one batch of a group fail: who is told what, if the disk is full for the second of three
/// only? Each is told of its own batch, and the third is appended behind the first.
#[test]
fn a_batch_of_a_group_that_found_no_room_fails_alone() {
    let second = Fault::next(Operation::Write, Failure::NoSpace).on_path("00000000000000000001.seg");
    let (disk, log, told) = outcomes_of_a_group(second);
    let [first, second, third, waited] = told.try_into().unwrap();
    assert_eq!(first, Some(Ok(Some(Offset(0)))));
    assert!(second.unwrap().unwrap_err().starts_with("E01"), "the disk is full");
    assert_eq!(third, Some(Ok(Some(Offset(1)))));
    assert_eq!(waited, Some(Ok(None)));
    assert_eq!(numbers(&log), [1, 3]);
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(numbers(&open(&disk)), [1, 3], "what was acknowledged is durable");
}

/// The same disk, but it refuses for good: nobody of the group is told that all is well whose batch might be gone.
#[test]
fn a_group_in_which_a_write_failed_promises_nothing_that_may_be_gone() {
    let second = Fault::next(Operation::Write, Failure::Io).on_path("00000000000000000001.seg");
    let (disk, log, told) = outcomes_of_a_group(Fault { lasting: Lasting::Always, ..second });
    let kept: Vec<u8> = (1..)
        .zip(&told)
        .filter_map(|(number, told)| matches!(told, Some(Ok(Some(_)))).then_some(number))
        .collect();
    assert!(told.iter().skip(1).all(|told| matches!(told, Some(Err(_)))), "{told:?}");
    assert!(log.append_durable(&batch(4), NOW).is_err(), "fenced");
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let there = numbers(&open(&disk));
    assert!(kept.iter().all(|number| there.contains(number)), "{there:?}, told {told:?}");
}

/// One write carried the batches of a whole group and failed after its bytes had landed. Only the first caller was told that
/// nobody knows; the others heard "nothing was written", and after a restart their batches were there.
#[test]
fn after_a_failed_write_nobody_of_the_group_hears_that_nothing_was_written() {
    let disk = SimDisk::new(1);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
    Engine::format(&disk.storage(), Path::new("/data"), new).unwrap();
    let options = Options { reserve_bytes: 0, ..Options::embedded(NOW) };
    let engine = Engine::open(disk.storage(), Path::new("/data"), options).unwrap();
    let log = engine.open_shared(LOG, LogConfig { segment_bytes: 1 << 20, ..CONFIG }).unwrap().0;
    let queue = Queue::new(LOG, Arc::default());
    let batches = [1, 2, 3].map(batch);
    let mut group = queue.group_of(&batches.each_ref().map(|batch| Some((batch, NOW))));
    let write = Fault::next(Operation::Write, Failure::Io).on_path(".seg");
    disk.inject(Fault { written: Written::All, ..write });
    log.commit(&mut group);
    for wish in &group.wishes {
        let told = wish.outcome.as_ref().unwrap();
        assert!(
            matches!(told, Err(EmbeddedError::Sync(_) | EmbeddedError::Append(AppendError::Io { .. }))),
            "{told:?}"
        );
    }
    drop((group, log, engine));
    disk.crash(Crash::ProcessOnly);
    assert_eq!(numbers(&open(&disk)), [1, 2, 3], "they are there");
}

/// A file on which every write runs into a bug.
#[derive(Debug)]
struct PanickingFile;

impl File for PanickingFile {
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn read_at(&self, _position: Position, _buf: &mut [u8]) -> io::Result<()> {
        Ok(())
    }

    fn write_at(&self, _position: Position, _parts: &[&[u8]]) -> io::Result<()> {
        panic!("a bug")
    }

    fn truncate(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A panic in the middle of an append left the writer half changed; others were told that the log is fenced, and the next of
/// them went on with that writer.
#[test]
fn a_panic_within_an_append_fences_the_log() {
    type Append = fn(&SharedLog);
    let appends: [Append; 4] = [
        |log| drop(log.append(&batch(2), NOW)),
        |log| drop(log.append_many(&[batch(2)], NOW)),
        |log| drop(log.append_durable(&batch(2), NOW)),
        |log| drop(log.idle()),
    ];
    for (number, append) in appends.into_iter().enumerate() {
        let disk = SimDisk::new(1);
        let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
        Engine::format(&disk.storage(), Path::new("/data"), new).unwrap();
        let options = Options { reserve_bytes: 0, ..Options::embedded(NOW) };
        let engine = Engine::open(disk.storage(), Path::new("/data"), options).unwrap();
        let log = engine.open_shared(LOG, LogConfig::default()).unwrap().0;
        log.append_durable(&batch(1), NOW).unwrap();
        log.state().writer.active.as_mut().unwrap().file = Arc::new(PanickingFile);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| append(&log)));
        assert!(panicked.is_err(), "way {number} writes");
        let next = log.append_durable(&batch(2), NOW);
        assert!(matches!(next, Err(EmbeddedError::Append(AppendError::Fenced { .. }))), "{number}: {next:?}");
    }
}
