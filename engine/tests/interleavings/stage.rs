//! What the scenarios share: a disk, what was sent, and what must hold whenever somebody looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shuttle::sync::{Condvar, Mutex};
use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{AppendStamp, Appended, LogReader, LogWriter, ReadError, Visible};
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::{Engine, Options};
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LeaderEpoch, LogId, Offset, RaftIndex, TimestampMs};

use crate::world::{LOG, batch, data, formatted};

pub(crate) const NOW: TimestampMs = TimestampMs(5);

/// Segments of two frames.
pub(crate) const TINY: LogConfig = LogConfig { segment_bytes: LogConfig::SEGMENT_BYTES_MIN, epoch_base: 0 };

/// A small batch of one record, which says its number.
pub(crate) fn small(number: u64) -> Batch {
    batch(number, 1, 40)
}

/// Appends entry number `index`: a small batch, so that a segment takes two.
pub(crate) fn append_small(writer: &mut LogWriter, index: u64) {
    let stamp = AppendStamp { raft_index: RaftIndex(index), append_time: NOW, leader_epoch: LeaderEpoch(5) };
    writer.append(&small(index), stamp).unwrap();
}

pub(crate) fn embedded(disk: &SimDisk) -> Arc<Engine> {
    let options = Options { reserve_bytes: 0, ..Options::embedded(NOW) };
    Engine::open(disk.storage(), data(), options).unwrap()
}

pub(crate) fn disk() -> SimDisk {
    formatted(7)
}

pub(crate) fn shared_log(disk: &SimDisk) -> (Arc<Engine>, SharedLog) {
    let engine = embedded(disk);
    let (log, _) = engine.open_shared(LOG, TINY).unwrap();
    (engine, log)
}

/// What was appended: by offset, the records as they were sent.
#[derive(Default)]
pub(crate) struct Sent {
    batches: Mutex<BTreeMap<Offset, Bytes>>,
}

impl Sent {
    pub(crate) fn note(&self, appended: &Appended, batch: &Batch) {
        let before = self.batches.lock().unwrap().insert(appended.base_offset, batch.body());
        assert_eq!(before, None, "{} was given out twice", appended.base_offset);
    }

    /// Holds what was read against what was sent.
    pub(crate) fn check(&self, read: &[(Offset, Bytes)]) {
        let batches = self.batches.lock().unwrap();
        for (base, bytes) in read {
            let batch = Batch::parse(bytes.clone(), BatchLimits::CAP).unwrap();
            assert_eq!(batches.get(base), Some(&batch.body()), "batch at {base}");
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.batches.lock().unwrap().len()
    }
}

/// Looks at a log again and again: `start <= durable_end <= end`, and none ever falls.
#[derive(Default)]
pub(crate) struct Watcher {
    last: (Offset, Offset, Offset),
}

impl Watcher {
    pub(crate) fn look(&mut self, reader: &LogReader) {
        // Each may rise between two looks, so the one that must be lower is looked at first.
        let start = reader.start();
        let durable = reader.durable_end();
        let end = reader.seeing(Visible::Appended).end();
        assert!(start <= durable && durable <= end, "{start} {durable} {end}");
        let (last_start, last_durable, last_end) = self.last;
        assert!(last_start <= start && last_durable <= durable && last_end <= end);
        self.last = (start, durable, end);
    }
}

/// Rung by a callback, heard by a thread.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_all();
    }

    pub(crate) fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.heard.wait(rung).unwrap();
        }
    }
}

/// Waits until something at `offset` is visible to `reader`, or the log was removed.
pub(crate) fn wait_for(reader: &LogReader, offset: Offset) {
    let bell = Arc::new(Bell::default());
    let callback = Arc::clone(&bell);
    let subscription = reader.on_advance(offset, Box::new(move || callback.ring()));
    bell.wait();
    drop(subscription);
}

/// Reads on from `at`, whole batches in order and nothing that is not visible; waits at the end for more,
/// until `enough` is reached or the log is gone. Skips what is trimmed.
pub(crate) fn tail(reader: &LogReader, enough: Offset) -> (Vec<(Offset, Bytes)>, bool) {
    let mut watcher = Watcher::default();
    let mut all = Vec::new();
    let mut at = Offset::ZERO;
    while at < enough {
        watcher.look(reader);
        match reader.read(at, 300) {
            Ok(read) if read.batches.is_empty() => {
                assert_eq!(read.next, at);
                wait_for(reader, at);
                // A callback runs when something is there, not before.
                let there = reader.end() > at || matches!(reader.read(at, 1), Err(ReadError::Removed { .. }));
                assert!(there, "woken for nothing at {at}");
            }
            Ok(read) => {
                for bytes in read.batches {
                    let batch = Batch::parse(bytes.clone(), BatchLimits::CAP).unwrap();
                    assert_eq!(batch.base_offset(), Some(at), "no gap and no overlap");
                    all.push((at, bytes));
                    at = batch.last_offset().unwrap().plus(1);
                }
                assert_eq!(read.next, at);
                assert!(at <= reader.end(), "nothing is read that is not visible");
            }
            Err(ReadError::OutOfRange { start, .. }) => {
                assert!(start > at, "trimmed");
                at = start;
            }
            Err(ReadError::Removed { .. }) => return (all, true),
            Err(error) => panic!("{error}"),
        }
    }
    (all, false)
}

/// A copy of the disk as a power cut at this moment leaves it, and what was acknowledged before.
pub(crate) struct PowerCut {
    disk: SimDisk,
    acknowledged: Appended,
}

impl PowerCut {
    pub(crate) fn now(disk: &SimDisk, acknowledged: Appended) -> Self {
        let copy = disk.fork();
        copy.crash(Crash::LoseUnsynced);
        Self { disk: copy, acknowledged }
    }

    /// What was acknowledged is there, or was trimmed.
    pub(crate) fn check(&self, log: LogId, sent: &Sent) {
        let engine = embedded(&self.disk);
        let (log, recovery) = engine.open_shared(log, TINY).unwrap();
        assert_eq!(recovery.damage, []);
        let reader = log.reader();
        assert!(reader.end() > self.acknowledged.last_offset, "acknowledged and lost");
        let start = reader.start();
        sent.check(&crate::world::read_all(&reader, start).unwrap());
    }
}
