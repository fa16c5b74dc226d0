//! Two logs of others, with the same durability: what an append returns is synced.
//!
//! - `raft-engine`, as a server of ours configures it, which is the fastest that we found: files of 32 MiB that are recycled,
//!   64 MiB of them filled with zeros ahead, no compression. A write is synced (`fdatasync`), and threads that write at once
//!   share one. What was written is compacted away and purged now and then, outside of what is measured.
//! - `okaywal`: a write-ahead log that syncs (`fdatasync`) before a commit returns and shares syncs as well. Files of
//!   64 MiB filled with zeros ahead, a checkpoint at 48 MiB, which throws away and recycles, a buffer of 128 KiB.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use okaywal::{Configuration, LogVoid, WriteAheadLog};
use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use crate::clock;
use crate::error::{BenchError, Doing as _};
use crate::rounds::Operation;

/// Name of the operation in reports.
pub(super) const RAFT_ENGINE: &str = "raft-engine append + sync";
/// Name of the operation in reports.
pub(super) const OKAYWAL: &str = "okaywal append + sync";

/// Appends between two compactions.
const COMPACT_EVERY: u64 = 1024;

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// A raft-engine, one region for each thread that writes.
pub(super) struct RaftEngine {
    engine: Engine,
    bytes: Bytes,
    /// The next index of each region.
    next: Vec<AtomicU64>,
}

impl RaftEngine {
    pub(super) fn open(dir: &Path, bytes: Bytes, regions: usize) -> Result<Self, BenchError> {
        let dir = dir.to_str().ok_or("its name is not UTF-8").doing("open raft-engine")?;
        let config = Config {
            dir: dir.to_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize::mb(32),
            purge_threshold: ReadableSize::mb(256),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize::mb(64)),
            ..Config::default()
        };
        let engine = Engine::open(config).doing("open raft-engine")?;
        // The first file was made empty: move on to one that is filled with zeros.
        engine.purge_manager().must_purge_all_stale();
        let next = (0..regions).map(|_| AtomicU64::new(1)).collect();
        Ok(Self { engine, bytes, next })
    }

    /// Appends once to the region, synced. Only one thread at a time may do so to one region.
    pub(super) fn append(&self, region: usize) -> Result<(), BenchError> {
        let next = self.next.get(region).ok_or("there is no such region").doing("append to raft-engine")?;
        let index = next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { index, term: 1, data: self.bytes.clone(), ..Entry::default() };
        let mut batch = LogBatch::with_capacity(1);
        let region = u64::try_from(region).unwrap_or(u64::MAX).saturating_add(1);
        batch.add_entries::<Entries>(region, &[entry]).doing("append to raft-engine")?;
        self.engine.write(&mut batch, true).doing("append to raft-engine")?;
        Ok(())
    }

    /// Throws away what was written.
    pub(super) fn compact(&self) -> Result<(), BenchError> {
        for (region, next) in (1..).zip(&self.next) {
            self.engine.compact_to(region, next.load(Ordering::Relaxed).saturating_sub(1));
        }
        self.engine.purge_expired_files().doing("purge raft-engine")?;
        Ok(())
    }
}

impl Operation for RaftEngine {
    fn name(&self) -> &'static str {
        RAFT_ENGINE
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let written = self.next.first().map_or(0, |next| next.load(Ordering::Relaxed));
        if written.is_multiple_of(COMPACT_EVERY) {
            self.compact()?;
        }
        let (appended, took) = clock::timed(|| self.append(0));
        appended?;
        Ok(took)
    }
}

/// An okaywal.
pub(super) struct OkayWal {
    log: WriteAheadLog,
    bytes: Bytes,
}

impl OkayWal {
    pub(super) fn open(dir: &Path, bytes: Bytes) -> Result<Self, BenchError> {
        let log = Configuration::default_for(dir)
            .preallocate_bytes(64 << 20)
            .checkpoint_after_bytes(48 << 20)
            .buffer_bytes(128 << 10)
            .open(LogVoid)
            .doing("open okaywal")?;
        Ok(Self { log, bytes })
    }

    /// Appends once, synced.
    pub(super) fn append(&self) -> Result<(), BenchError> {
        let mut entry = self.log.begin_entry().doing("append to okaywal")?;
        entry.write_chunk(&self.bytes).doing("append to okaywal")?;
        entry.commit().doing("append to okaywal")?;
        Ok(())
    }
}

impl Operation for OkayWal {
    fn name(&self) -> &'static str {
        OKAYWAL
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let (appended, took) = clock::timed(|| self.append());
        appended?;
        Ok(took)
    }
}
