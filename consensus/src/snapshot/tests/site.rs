//! Two sites: one that is ahead and offers, one that fetches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint, LogConfig, Members};
use tidelog_engine::log::{AppendStamp, LogWriter};
use tidelog_engine::producers::ProducerTable;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{Storage, read_whole};
use tidelog_engine::{Engine, NewIdentity, Options};
use tidelog_wire::batch::{Batch, Codec};
use tidelog_wire::ids::{
    ClusterId, Generation, GroupId, Incarnation, LeaderEpoch, LogId, NodeId, Offset, Partition, RaftIndex,
    ReplicaId, Term, TimestampMs,
};
use tidelog_wire::records::{BatchBuilder, BuilderLimits};

use super::super::*;
use crate::core::FetchSnapshot;
use crate::transport::{BulkObject, BulkSource};

pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(super) const GROUP: GroupId = GroupId(1);
pub(super) const CONFIG: LogConfig = LogConfig { segment_bytes: 4096, epoch_base: 0 };

pub(super) fn log(number: u32) -> LogId {
    LogId { generation: Generation(7), partition: Partition(number) }
}

pub(super) fn entry(index: u64, term: u64) -> EntryId {
    EntryId { index: RaftIndex(index), term: Term(term) }
}

/// The batch that every replica appends as the `number`th of a log.
pub(super) fn batch(number: u64) -> Batch {
    let mut builder = BatchBuilder::new(Codec::None, BuilderLimits::default());
    for record in 0..3 {
        let value = format!("record {record} of batch {number}, {}", "x".repeat(80));
        let time = TimestampMs(1_000 + i64::try_from(number).unwrap());
        assert!(matches!(
            builder.push(time, None, Some(value.as_bytes()), &[]),
            Ok(tidelog_wire::records::Pushed::Taken)
        ));
    }
    builder.build(None).unwrap()
}

/// A data directory with its logs open.
pub(super) struct Site {
    pub(super) disk: SimDisk,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: PathBuf,
    pub(super) engine: Option<Arc<Engine>>,
    pub(super) writers: Vec<LogWriter>,
    pub(super) config: LogConfig,
}

impl Site {
    pub(super) fn format(node: u64) -> Self {
        let disk = SimDisk::new(node);
        let storage = disk.storage();
        let dir = PathBuf::from("/data");
        storage.create_dir(&dir).unwrap();
        storage.sync_dir(Path::new("/")).unwrap();
        let new = NewIdentity { cluster: CLUSTER, node: NodeId(node), incarnation: Incarnation(node.into()) };
        Engine::format(&storage, &dir, new).unwrap();
        let mut site = Self { disk, storage, dir, engine: None, writers: Vec::new(), config: CONFIG };
        site.open();
        site
    }

    /// Opens the engine and, if there is a checkpoint, its logs.
    pub(super) fn open(&mut self) {
        self.storage = self.disk.storage();
        let options = Options { reserve_bytes: 0, ..Options::consensus(TimestampMs(0)) };
        let engine = Engine::open(Arc::clone(&self.storage), &self.dir, options).unwrap();
        self.engine = Some(engine);
        if let Some(loaded) = self.engine().load_checkpoint(GROUP).unwrap() {
            self.open_logs(&loaded.newest);
        }
    }

    pub(super) fn open_logs(&mut self, checkpoint: &Checkpoint) {
        self.writers.clear();
        for log in &checkpoint.logs {
            let (writer, _) = self.engine().open_log(log.log, log.config, Some(&log.state)).unwrap();
            self.writers.push(writer);
        }
    }

    pub(super) fn close(&mut self) {
        self.writers.clear();
        self.engine = None;
    }

    pub(super) fn engine(&self) -> Arc<Engine> {
        Arc::clone(self.engine.as_ref().unwrap())
    }

    pub(super) fn create_logs(&mut self, count: u32) {
        for number in 0..count {
            let (writer, _) = self.engine().open_log(log(number), self.config, None).unwrap();
            self.writers.push(writer);
        }
    }

    /// Applies batches `from..to` to every log but the last, which stays empty.
    pub(super) fn append(&mut self, from: u64, to: u64) {
        let count = self.writers.len() - 1;
        for number in from..to {
            for writer in &mut self.writers[..count] {
                let stamp = AppendStamp {
                    raft_index: RaftIndex(number + 2),
                    append_time: TimestampMs(5_000 + i64::try_from(number).unwrap()),
                    leader_epoch: LeaderEpoch(1),
                };
                writer.append(&batch(number), stamp).unwrap();
            }
        }
    }

    pub(super) fn checkpoint(&mut self, applied: EntryId, last_durable: EntryId) -> Checkpoint {
        for writer in &self.writers {
            writer.sync_target().run().unwrap();
        }
        let checkpoint = Checkpoint {
            group: GROUP,
            applied,
            last_durable,
            apply_version: 1,
            members: Members::of_voters((0..3).map(|node| (ReplicaId(node + 1), NodeId(node))).collect()),
            logs: self
                .writers
                .iter()
                .map(|writer| LogCheckpoint {
                    log: writer.log(),
                    config: self.config,
                    state: writer.state(),
                    producers: ProducerTable::new(),
                    damage: Vec::new(),
                    closed: false,
                })
                .collect(),
            state: Bytes::from_static(b"machine"),
        };
        self.engine().write_checkpoint(&checkpoint).unwrap();
        checkpoint
    }

    /// All batches of a log, as a reader gets them.
    pub(super) fn read_all(&self, number: usize) -> Vec<Bytes> {
        let reader = self.writers[number].reader();
        let mut out = Vec::new();
        let mut at = reader.start();
        while at < reader.end() {
            let read = reader.read(at, 1 << 20).unwrap();
            out.extend(read.batches);
            at = read.next;
        }
        out
    }

    pub(super) fn bytes(&self, path: &Path) -> Vec<u8> {
        read_whole(&*self.storage, path, 1 << 30).unwrap()
    }
}

/// A site that is ahead, what it offers, and the manifest of that.
pub(super) struct Offering {
    pub(super) site: Site,
    pub(super) exports: Exports,
    pub(super) manifest: Manifest,
    pub(super) offer: FetchSnapshot,
}

impl Offering {
    /// 60 batches in each of two logs are in the snapshot, 20 more came after it.
    pub(super) fn new() -> Self {
        Self::of(CONFIG)
    }

    /// The same with logs of another configuration.
    pub(super) fn of(config: LogConfig) -> Self {
        let mut site = Site { config, ..Site::format(0) };
        site.create_logs(3);
        site.append(0, 60);
        site.writers[1].set_log_start(Offset(100)).unwrap();
        let checkpoint = site.checkpoint(entry(61, 3), entry(80, 3));
        let manifest = build_manifest(&*site.storage, &site.dir, CLUSTER, &checkpoint).unwrap();
        site.append(60, 80);
        let exports = Exports::new(Arc::clone(&site.storage), &site.dir, ExportLimits::default());
        let pinned = site.engine().pin(manifest.files().map(|(log, file)| (log, file.base)).collect());
        let offered = exports.offer(manifest.clone(), Arc::new(pinned)).unwrap();
        let offer = FetchSnapshot {
            group: GROUP,
            from: NodeId(0),
            snapshot: offered.snapshot,
            digest: offered.digest,
            manifest_bytes: offered.manifest_bytes,
        };
        Self { site, exports, manifest, offer }
    }

    /// A follower that has applied the first `batches`, with a checkpoint of that.
    pub(super) fn follower(&self, batches: u64) -> Site {
        let mut site = self.peer(1, batches);
        site.checkpoint(entry(batches + 1, 1), entry(batches + 1, 1));
        site
    }

    /// A replica on `node` that has applied the first `batches`, and has no checkpoint of that.
    pub(super) fn peer(&self, node: u64, batches: u64) -> Site {
        let mut site = Site { config: self.site.config, ..Site::format(node) };
        site.create_logs(3);
        site.append(0, batches);
        site
    }

    pub(super) fn fetcher(&self, site: &Site) -> Fetcher {
        let limits = FetchLimits::default();
        Fetcher::new(Arc::clone(&site.storage), &site.dir, CLUSTER, self.offer, limits).unwrap()
    }

    /// Answers one ask, breaking off after `bytes_max`.
    pub(super) fn serve(
        &self,
        fetcher: &mut Fetcher,
        ask: &Next,
        bytes_max: u64,
    ) -> Result<(), SnapshotError> {
        serve(&self.exports, fetcher, ask, bytes_max)
    }

    /// Fetches to the end.
    pub(super) fn fetch(&self, site: &Site) -> Result<StagedSnapshot, SnapshotError> {
        let mut fetcher = self.fetcher(site);
        for _ in 0..1_000 {
            match fetcher.next_step()? {
                Next::Staged(staged) => return Ok(staged),
                ask @ Next::Ask { .. } => self.serve(&mut fetcher, &ask, u64::MAX)?,
            }
        }
        panic!("the fetch never ends");
    }
}

/// Answers one ask from what `exports` has, breaking off after `bytes_max`.
pub(super) fn serve(
    exports: &Exports,
    fetcher: &mut Fetcher,
    ask: &Next,
    bytes_max: u64,
) -> Result<(), SnapshotError> {
    let Next::Ask { request, position, .. } = ask else { panic!("{ask:?} asks for nothing") };
    let mut object = match exports.open(NodeId(1), request.clone()) {
        Ok(object) => object,
        Err(why) => return fetcher.ended(Ended::Broken(why)),
    };
    let end = object.total().min(position.saturating_add(bytes_max));
    if let Err(error) = pump(fetcher, &mut *object, *position, end) {
        return fetcher.ended(Ended::Broken(error.to_string()));
    }
    let how = if end == object.total() { Ended::Complete } else { Ended::Broken("cut off".to_owned()) };
    fetcher.ended(how)
}

fn pump(fetcher: &mut Fetcher, object: &mut dyn BulkObject, from: u64, to: u64) -> Result<(), SnapshotError> {
    let mut at = from;
    while at < to {
        let length = usize::try_from(to - at).unwrap().min(700);
        let bytes = object.read(at, length).unwrap();
        fetcher.arrived(&bytes)?;
        at += u64::try_from(bytes.len()).unwrap();
    }
    Ok(())
}
