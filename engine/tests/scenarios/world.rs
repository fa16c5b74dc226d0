//! A small world for scenarios: one simulated disk, one formatted directory, one log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint, LogConfig, LogState, Members};
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{AppendStamp, Appended, LogReader, LogRecovery, LogWriter, ReadError};
use tidelog_engine::producers::ProducerTable;
use tidelog_engine::segment;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::batch::{Batch, BatchLimits, Codec};
use tidelog_wire::ids::{
    ClusterId, Generation, GroupId, Incarnation, LeaderEpoch, LogId, NodeId, Offset, Partition, RaftIndex,
    Term, TimestampMs,
};
use tidelog_wire::records::{BatchBuilder, BuilderLimits, Pushed};

pub(crate) const LOG: LogId = LogId { generation: Generation(7), partition: Partition(3) };
pub(crate) const GROUP: GroupId = GroupId(1);
pub(crate) const CONFIG: LogConfig = LogConfig { segment_bytes: 4 << 10, epoch_base: 0 };

pub(crate) fn data() -> &'static Path {
    Path::new("/data")
}

pub(crate) fn segment_path(base: u64) -> PathBuf {
    data().join("logs/7/3").join(segment::file_name(Offset(base)))
}

pub(crate) fn formatted(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
    Engine::format(&disk.storage(), data(), new).unwrap();
    disk
}

pub(crate) fn options() -> Options {
    Options { reserve_bytes: 0, ..Options::consensus(TimestampMs(1_000)) }
}

pub(crate) fn engine(disk: &SimDisk) -> Arc<Engine> {
    Engine::open(disk.storage(), data(), options()).unwrap()
}

/// A batch of `count` records whose values say which batch it is, each of about `value_bytes`.
pub(crate) fn batch(number: u64, count: u32, value_bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for record in 0..count {
        let mut value = format!("{number}.{record}.").into_bytes();
        value.resize(value_bytes.max(value.len()), b'x');
        let time = TimestampMs(i64::try_from(1_000 * number).unwrap());
        assert_eq!(builder.push(time, None, Some(&value), &[]), Ok(Pushed::Taken));
    }
    builder.build(None).unwrap()
}

/// What entry number `index` says: two records in about 300 bytes, epoch 5.
pub(crate) fn entry(index: u64) -> (Batch, AppendStamp) {
    let stamp = AppendStamp {
        raft_index: RaftIndex(index),
        append_time: TimestampMs(i64::try_from(10 * index).unwrap()),
        leader_epoch: LeaderEpoch(5),
    };
    (batch(index, 2, 100), stamp)
}

pub(crate) fn append(writer: &mut LogWriter, indexes: impl IntoIterator<Item = u64>) -> Vec<Appended> {
    indexes
        .into_iter()
        .map(|index| {
            let (batch, stamp) = entry(index);
            writer.append(&batch, stamp).unwrap()
        })
        .collect()
}

pub(crate) fn open(engine: &Engine, state: Option<&LogState>) -> (LogWriter, LogRecovery) {
    engine.open_log(LOG, CONFIG, state).unwrap()
}

/// What was found out about the one log, at its opening and since.
pub(crate) fn found_late(engine: &Engine) -> LogRecovery {
    engine.report().logs.into_iter().find(|log| log.log == LOG).unwrap()
}

/// A checkpoint of the one log, at `index`.
pub(crate) fn checkpoint(index: u64, writer: &LogWriter) -> Checkpoint {
    Checkpoint {
        group: GROUP,
        applied: EntryId { index: RaftIndex(index), term: Term(1) },
        last_durable: EntryId { index: RaftIndex(index), term: Term(1) },
        apply_version: 1,
        members: Members::default(),
        logs: vec![LogCheckpoint {
            log: LOG,
            config: CONFIG,
            state: writer.state(),
            producers: ProducerTable::new(),
            damage: writer.damage(),
            closed: false,
        }],
        state: bytes::Bytes::new(),
    }
}

/// Syncs and checkpoints, as a node does.
pub(crate) fn make_checkpoint(engine: &Engine, index: u64, writer: &LogWriter) -> LogState {
    let checkpoint = checkpoint(index, writer);
    writer.sync_target().run().unwrap();
    engine.write_checkpoint(&checkpoint).unwrap();
    writer.state()
}

/// Everything from `from` on: base offset and bytes of each batch. Checks that offsets have no gaps.
pub(crate) fn read_all(reader: &LogReader, from: Offset) -> Result<Vec<(Offset, bytes::Bytes)>, ReadError> {
    let mut at = from;
    let mut all = Vec::new();
    loop {
        let read = reader.read(at, 1_000)?;
        if read.batches.is_empty() {
            assert_eq!(read.next, reader.end());
            return Ok(all);
        }
        for bytes in read.batches {
            let batch = Batch::parse(bytes.clone(), BatchLimits::CAP).unwrap();
            let base = batch.base_offset().unwrap();
            assert!(all.last().is_none_or(|(last, _): &(Offset, bytes::Bytes)| *last < base));
            at = batch.last_offset().unwrap().plus(1);
            all.push((base, bytes));
        }
        assert_eq!(read.next, at);
    }
}

/// The content of a file, which shows itself in one line.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content(pub(crate) Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} bytes, crc {:08x}", self.0.len(), crc32c::crc32c(&self.0))
    }
}

/// The whole content of every file of the log.
pub(crate) fn log_files(disk: &SimDisk) -> Vec<(PathBuf, Content)> {
    let storage = disk.storage();
    disk.files()
        .into_iter()
        .filter(|path| path.starts_with(data().join("logs")))
        .map(|path| {
            let bytes = tidelog_engine::storage::read_whole(storage.as_ref(), &path, 1 << 30).unwrap();
            (path, Content(bytes))
        })
        .collect()
}

pub(crate) fn embedded_engine(disk: &SimDisk) -> Arc<Engine> {
    let options = Options { reserve_bytes: 0, ..Options::embedded(TimestampMs(1_000)) };
    Engine::open(disk.storage(), data(), options).unwrap()
}

/// The same while the machine may stop at any moment.
pub(crate) fn try_shared(disk: &SimDisk) -> Option<SharedLog> {
    let options = Options { reserve_bytes: 0, ..Options::embedded(TimestampMs(1_000)) };
    let engine = Engine::open(disk.storage(), data(), options).ok()?;
    engine.open_shared(LOG, CONFIG).ok().map(|(log, _)| log)
}

pub(crate) fn shared(disk: &SimDisk) -> (SharedLog, LogRecovery) {
    embedded_engine(disk).open_shared(LOG, CONFIG).unwrap()
}

pub(crate) fn read_file(disk: &SimDisk, path: &Path) -> Vec<u8> {
    tidelog_engine::storage::read_whole(disk.storage().as_ref(), path, 1 << 30).unwrap()
}
