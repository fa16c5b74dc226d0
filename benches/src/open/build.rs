//! The data that is opened: built fast, without the syncs that a node would make, and synced at once.

use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint, LogConfig, Members};
use tidelog_engine::log::{AppendStamp, LogWriter};
use tidelog_engine::os::OsStorage;
use tidelog_engine::producers::ProducerTable;
use tidelog_engine::storage::{EntryKind, OpenMode, Position, Storage};
use tidelog_engine::{Engine, Mode, NewIdentity, Options};
use tidelog_wire::ids::{
    ClusterId, Generation, GroupId, Incarnation, LeaderEpoch, LogId, NodeId, Partition, RaftIndex, Term,
};

use crate::clock;
use crate::error::{BenchError, Doing as _};
use crate::payload::Payload;
use crate::storage::CountedStorage;

/// The group whose checkpoint names the logs.
pub(crate) const GROUP: GroupId = GroupId(1);

/// Of logs that are many: each batch fills a segment.
pub(crate) const CONFIG_SMALL: LogConfig =
    LogConfig { segment_bytes: LogConfig::SEGMENT_BYTES_MIN, epoch_base: 0 };

/// Of the log that is large.
pub(crate) const CONFIG_LARGE: fn(u64) -> LogConfig =
    |segment_bytes| LogConfig { segment_bytes, epoch_base: 0 };

/// Records of 1 KiB in a batch of the large log.
const RECORDS_LARGE: usize = 64;
/// Bytes between two syncs of the large log: what is above the last one was promised to nobody.
const SYNC_EVERY: u64 = 16 << 20;
/// Batches between two syncs of a log with a batch in each segment.
const SYNC_SEGMENTS: u64 = 1_000;
/// Bytes cut off the last frame.
const TORN_BYTES: u64 = 1_000;
/// Partitions of a channel.
const PARTITIONS: u64 = 100;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// A data directory.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) root: PathBuf,
    pub(crate) mode: Mode,
}

fn log(number: u64) -> LogId {
    let partition = Partition(u32::try_from(number % PARTITIONS).unwrap_or(0));
    LogId { generation: Generation(number / PARTITIONS + 1), partition }
}

impl Directory {
    pub(crate) fn embedded(root: PathBuf) -> Result<Self, BenchError> {
        Self::format(root, Mode::Embedded)
    }

    pub(crate) fn consensus(root: PathBuf) -> Result<Self, BenchError> {
        Self::format(root, Mode::Consensus)
    }

    fn format(root: PathBuf, mode: Mode) -> Result<Self, BenchError> {
        let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(1) };
        let storage: Arc<dyn Storage> = Arc::new(OsStorage);
        Engine::format(&storage, &root, new).doing("format a data directory")?;
        Ok(Self { root, mode })
    }

    fn engine(&self) -> Result<Arc<Engine>, BenchError> {
        let options = match self.mode {
            Mode::Consensus => Options::consensus(clock::wall()),
            Mode::Embedded => Options::embedded(clock::wall()),
        };
        Engine::open(Arc::new(CountedStorage::unsynced()), &self.root, options).doing("open the engine")
    }

    /// Lets the one log grow until it has `segments`, the last almost full. It is left without a word.
    pub(crate) fn grow_large(&self, config: LogConfig, segments: u64) -> Result<(), BenchError> {
        let engine = self.engine()?;
        let (log, _) = engine.open_shared(log(0), config).doing("open a log")?;
        let payload = Payload::of_records(RECORDS_LARGE, 1 << 10)?;
        let bytes = u64::try_from(payload.batch.bytes().len()).unwrap_or(u64::MAX);
        // A frame has a header of 48 bytes, and a segment one of 80.
        let batches = (config.segment_bytes - 80) / (bytes + 48) * segments;
        let records = u64::try_from(RECORDS_LARGE).unwrap_or(u64::MAX);
        let mut unsynced = 0;
        for _ in log.reader().end().get() / records..batches.saturating_sub(1) {
            log.append(&payload.batch, clock::wall()).doing("append")?;
            unsynced += bytes;
            if unsynced >= SYNC_EVERY {
                log.sync().doing("sync")?;
                unsynced = 0;
            }
        }
        Ok(())
    }

    /// The file that the large log ends in.
    pub(crate) fn last_segment(&self) -> Result<PathBuf, BenchError> {
        let dir = self.root.join("logs").join(log(0).generation.to_string()).join("0");
        let names = OsStorage.list(&dir).doing("list the segments")?;
        let last = names.last().ok_or("there is none").doing("find the last segment")?;
        Ok(dir.join(&last.name))
    }

    /// Cuts into the last frame of a file, as a crash may.
    pub(crate) fn tear(&self, path: &Path) -> Result<(), BenchError> {
        let doing = "tear the last frame";
        let file = OsStorage.open(path, OpenMode::ReadWrite).doing(doing)?;
        let mut end = file.len().doing(doing)?;
        let mut bytes = [0; 4 << 10];
        while let Some(at) = end.checked_sub(4 << 10) {
            file.read_at(Position(at), &mut bytes).doing(doing)?;
            if bytes.iter().any(|byte| *byte != 0) {
                break;
            }
            end = at;
        }
        file.truncate(end.saturating_sub(TORN_BYTES)).doing(doing)
    }

    /// Adds logs with a few batches each.
    pub(crate) fn grow_shared_logs(&self, numbers: Range<u64>) -> Result<(), BenchError> {
        let engine = self.engine()?;
        let payload = Payload::of(200)?;
        for number in numbers {
            let (log, _) = engine.open_shared(log(number), CONFIG_SMALL).doing("open a log")?;
            log.append(&payload.batch, clock::wall()).doing("append")?;
            log.idle().doing("close a log")?;
        }
        Ok(())
    }

    /// The same under consensus, with a checkpoint of all of them.
    pub(crate) fn grow_logs(&self, numbers: Range<u64>) -> Result<(), BenchError> {
        let engine = self.engine()?;
        let mut logs = self.checkpointed(&engine)?;
        let payload = Payload::of(200)?;
        for number in numbers {
            let (mut writer, _) = engine.open_log(log(number), CONFIG_SMALL, None).doing("open a log")?;
            append(&mut writer, &payload, 1)?;
            logs.push(of(&writer)?);
        }
        self.checkpoint(&engine, logs)
    }

    /// Lets the one log under consensus grow until it has `segments`, each of one batch.
    pub(crate) fn grow_segments(&self, segments: u64) -> Result<(), BenchError> {
        let engine = self.engine()?;
        let known = self.checkpointed(&engine)?.pop();
        let state = known.as_ref().map(|log| &log.state);
        let (mut writer, _) = engine.open_log(log(0), CONFIG_SMALL, state).doing("open a log")?;
        let payload = Payload::of(500)?;
        let there = writer.state().end.get();
        append(&mut writer, &payload, segments.saturating_sub(there))?;
        let log = of(&writer)?;
        self.checkpoint(&engine, vec![log])
    }

    fn checkpointed(&self, engine: &Engine) -> Result<Vec<LogCheckpoint>, BenchError> {
        let loaded = engine.load_checkpoint(GROUP).doing("load the checkpoint")?;
        Ok(loaded.map(|loaded| loaded.newest.logs).unwrap_or_default())
    }

    fn checkpoint(&self, engine: &Engine, logs: Vec<LogCheckpoint>) -> Result<(), BenchError> {
        let index = u64::try_from(logs.len())
            .unwrap_or(u64::MAX)
            .max(logs.iter().map(|log| log.state.end.get()).max().unwrap_or(0));
        let entry = EntryId { index: RaftIndex(index), term: Term(1) };
        let checkpoint = Checkpoint {
            group: GROUP,
            applied: entry,
            last_durable: entry,
            apply_version: 1,
            members: Members::default(),
            logs,
            state: Bytes::new(),
        };
        engine.write_checkpoint(&checkpoint).doing("write a checkpoint")
    }
}

fn append(writer: &mut LogWriter, payload: &Payload, batches: u64) -> Result<(), BenchError> {
    let from = writer.state().end.get();
    for index in from..from.saturating_add(batches) {
        let stamp = AppendStamp {
            raft_index: RaftIndex(index + 1),
            append_time: clock::wall(),
            leader_epoch: LeaderEpoch(1),
        };
        writer.append(&payload.batch, stamp).doing("append")?;
        // Each segment that is not synced holds a descriptor.
        if index % SYNC_SEGMENTS == 0 {
            writer.sync_target().run().doing("sync a log")?;
        }
    }
    Ok(())
}

fn of(writer: &LogWriter) -> Result<LogCheckpoint, BenchError> {
    writer.sync_target().run().doing("sync a log")?;
    Ok(LogCheckpoint {
        log: writer.log(),
        config: writer.config(),
        state: writer.state(),
        producers: ProducerTable::new(),
        damage: Vec::new(),
        closed: false,
    })
}

/// Reads a file from its beginning to its end.
#[expect(
    clippy::disallowed_methods,
    reason = "a floor does by itself what the engine does through its trait"
)]
pub(crate) fn read_through(path: &Path) -> Result<Duration, BenchError> {
    let (read, took) = clock::timed(|| {
        let mut file = std::fs::File::open(path)?;
        let mut bytes = vec![0; READ_BYTES];
        while file.read(&mut bytes)? > 0 {}
        io::Result::Ok(())
    });
    read.doing("read the last segment")?;
    Ok(took)
}

/// Makes everything durable.
pub(crate) fn settle(root: &Path) -> Result<(), BenchError> {
    let doing = "sync the file system";
    let identity = root.join("identity");
    #[expect(clippy::disallowed_methods, reason = "syncs the whole file system, which the engine never does")]
    let file = std::fs::File::open(identity).doing(doing)?;
    rustix::fs::syncfs(&file).doing(doing)
}

/// Asks the system to forget what the files below `root` hold. What was not synced it keeps.
pub(crate) fn forget(root: &Path) -> Result<(), BenchError> {
    let doing = "make the system forget a file";
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in OsStorage.list(&dir).doing(doing)? {
            let path = dir.join(&entry.name);
            match entry.kind {
                EntryKind::Directory => dirs.push(path),
                EntryKind::File => {
                    #[expect(clippy::disallowed_methods, reason = "advice needs the system's own file")]
                    let file = std::fs::File::open(&path).doing(doing)?;
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).doing(doing)?;
                }
                EntryKind::Other => {}
            }
        }
    }
    Ok(())
}
