//! The offering side: a manifest of the newest checkpoint, and its files served while it is offered.
//!
//! A manifest is built from a kept checkpoint, so its files are there; the engine's pin that the caller
//! hands over keeps them there while the export lasts. An export ends when nobody has fetched from it
//! for a while, when it grows too old, or when a newer one of its group takes its place. Then the core
//! is told, and offers it no longer.
//!
//! A node that offers nothing serves all the same: any segment that it has and that is the one asked for, by log, base,
//! length and the chain before it. So a follower needs no particular peer. What the segment holds is verified by
//! whoever fetches it. No peer names a path.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint};
use tidelog_engine::segment;
use tidelog_engine::storage::{File, OpenMode, Position, Storage};
use tidelog_wire::ids::{ClusterId, GroupId, LogId, NodeId, Offset};

use super::error::SnapshotError;
use super::manifest::{LogFiles, Manifest, SegmentFile, digest};
use super::request::{SnapshotPart, SnapshotRequest};
use super::staging::{Staging, log_dir, place};
use super::verify::{Owner, check_ends, header};
use crate::core::{MANIFEST_BYTES_MAX, SnapshotOffer};
use crate::transport::{BulkObject, BulkSource};

/// How long an export lasts, and how much it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportLimits {
    /// Without a fetch.
    pub idle_ms_max: u64,
    /// In all.
    pub age_ms_max: u64,
    /// Bytes of files held by all exports.
    pub bytes_max: u64,
}

impl Default for ExportLimits {
    fn default() -> Self {
        Self { idle_ms_max: 60_000, age_ms_max: 3_600_000, bytes_max: 1 << 42 }
    }
}

/// Lists what `checkpoint` needs. It must be the newest kept one, and its files be pinned or kept.
///
/// # Errors
/// [`SnapshotError::Damaged`] if a range is damaged here; [`SnapshotError::NotOffered`] if a file is not
/// what the checkpoint says; [`SnapshotError::Io`].
pub fn build_manifest(
    storage: &dyn Storage,
    data_dir: &Path,
    cluster: ClusterId,
    checkpoint: &Checkpoint,
) -> Result<Manifest, SnapshotError> {
    let mut logs = Vec::new();
    for log in &checkpoint.logs {
        if !log.damage.is_empty() {
            return Err(SnapshotError::Damaged { log: log.log });
        }
        let files = list_files(storage, data_dir, cluster, log)?;
        if !files.is_empty() {
            logs.push(LogFiles { log: log.log, files });
        }
    }
    // What is true of this replica only must not be in it.
    let shared = Checkpoint { last_durable: checkpoint.applied, ..checkpoint.clone() };
    let checkpoint = shared.encode();
    Ok(Manifest { cluster, group: shared.group, snapshot: shared.applied, logs, checkpoint })
}

fn list_files(
    storage: &dyn Storage,
    data_dir: &Path,
    cluster: ClusterId,
    log: &LogCheckpoint,
) -> Result<Vec<SegmentFile>, SnapshotError> {
    let state = &log.state;
    let has_active = state.active_position.get() > 0;
    if state.start == state.end && !has_active {
        return Ok(Vec::new());
    }
    let dir = log_dir(data_dir, log.log);
    let listed = storage.list(&dir).map_err(super::error::io(&dir, "list the log"))?;
    let bases: Vec<Offset> = listed
        .iter()
        .filter_map(|entry| segment::parse_file_name(&entry.name))
        .filter(|base| *base < state.end)
        .collect();
    let mut files: Vec<SegmentFile> = Vec::new();
    let owner = Owner { cluster, log: log.log };
    // From the newest to the oldest: each says where the one before it ends.
    let (mut end, mut chain_end) = (state.end, state.chain);
    for base in bases.into_iter().rev() {
        let needed = end > state.start || (has_active && base == state.active_base);
        if !needed {
            break;
        }
        let refuse = |found: String| SnapshotError::NotOffered { log: log.log, base, found };
        let file =
            open(storage, &place(data_dir, log.log, base)).map_err(|error| refuse(error.to_string()))?;
        let length = file.len().map_err(|error| refuse(error.to_string()))?;
        let chain_start =
            header(&*file).ok_or_else(|| refuse("its header does not verify".to_owned()))?.chain_start;
        let sealed = !(has_active && base == state.active_base);
        let length = if sealed { length } else { state.active_position.get() };
        let listed = SegmentFile { base, end, length, chain_start, chain_end, sealed };
        check_ends(&*file, owner, &listed).map_err(refuse)?;
        files.push(listed);
        (end, chain_end) = (base, chain_start);
    }
    if end > state.start && !files.is_empty() || files.is_empty() {
        let found = format!("segments before it, back to offset {}, are missing", state.start);
        return Err(SnapshotError::NotOffered { log: log.log, base: end, found });
    }
    files.reverse();
    Ok(files)
}

fn open(storage: &dyn Storage, path: &Path) -> io::Result<Arc<dyn File>> {
    storage.open(path, OpenMode::Read)
}

/// All that this node offers now.
pub struct Exports {
    storage: Arc<dyn Storage>,
    data_dir: PathBuf,
    limits: ExportLimits,
    /// As it was told last.
    now_ms: Arc<AtomicU64>,
    exports: Mutex<BTreeMap<GroupId, Export>>,
}

struct Export {
    manifest: Arc<Manifest>,
    bytes: Bytes,
    digest: u64,
    since_ms: u64,
    /// When bytes of it were read last.
    used_ms: Arc<AtomicU64>,
    /// Held for as long as files are being served, too.
    pin: Arc<dyn Send + Sync>,
}

impl fmt::Debug for Exports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Exports").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Exports {
    /// Nothing is offered yet.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, data_dir: &Path, limits: ExportLimits) -> Self {
        Self {
            storage,
            data_dir: data_dir.to_owned(),
            limits,
            now_ms: Arc::default(),
            exports: Mutex::default(),
        }
    }

    /// Offers `manifest`, in place of what its group offered before. `pin` keeps its files.
    ///
    /// Returns what the core needs for [`Input::SnapshotExported`](crate::core::Input), or `None` if it
    /// would exceed the limits.
    pub fn offer(&self, manifest: Manifest, pin: Arc<dyn Send + Sync>) -> Option<SnapshotOffer> {
        let checkpoint = manifest.checkpoint().ok()?;
        let bytes = manifest.encode();
        let manifest_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut exports = self.exports();
        let others = exports.iter().filter(|(group, _)| **group != manifest.group);
        let held = others.map(|(_, export)| export.manifest.file_bytes()).fold(0, u64::saturating_add);
        let held = held.saturating_add(manifest.file_bytes());
        if held > self.limits.bytes_max || manifest_bytes > MANIFEST_BYTES_MAX {
            return None;
        }
        let digest = digest(&bytes);
        let offer = SnapshotOffer {
            snapshot: manifest.snapshot,
            digest,
            manifest_bytes,
            members: checkpoint.members,
        };
        let (now, group) = (self.now_ms.load(Ordering::Relaxed), manifest.group);
        let used_ms = Arc::new(AtomicU64::new(now));
        exports.insert(
            group,
            Export { manifest: Arc::new(manifest), bytes, digest, since_ms: now, used_ms, pin },
        );
        Some(offer)
    }

    /// Tells the time, and ends what has lasted long enough: for
    /// [`Input::SnapshotWithdrawn`](crate::core::Input).
    pub fn expire(&self, now_ms: u64) -> Vec<(GroupId, EntryId)> {
        self.now_ms.store(now_ms, Ordering::Relaxed);
        let limits = self.limits;
        let over = |export: &Export| {
            now_ms.saturating_sub(export.used_ms.load(Ordering::Relaxed)) > limits.idle_ms_max
                || now_ms.saturating_sub(export.since_ms) > limits.age_ms_max
        };
        let mut exports = self.exports();
        let over = exports.extract_if(.., |_, export| over(export));
        over.map(|(group, export)| (group, export.manifest.snapshot)).collect()
    }

    /// The newest entry of the group that is offered now.
    #[must_use]
    pub fn offered(&self, group: GroupId) -> Option<EntryId> {
        self.exports().get(&group).map(|export| export.manifest.snapshot)
    }

    fn exports(&self) -> MutexGuard<'_, BTreeMap<GroupId, Export>> {
        self.exports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment that no manifest offered here lists, if it is the one asked for.
    fn unlisted(&self, log: LogId, asked: &SegmentFile) -> Result<Box<dyn BulkObject>, String> {
        let path = place(&self.data_dir, log, asked.base);
        let file = open(&*self.storage, &path).map_err(|error| format!("{}: {error}", path.display()))?;
        let length = file.len().map_err(|error| error.to_string())?;
        let cluster = header(&*file).ok_or("the header of that segment does not verify")?.cluster;
        check_ends(&*file, Owner { cluster, log }, asked)?;
        if length < asked.length {
            return Err(format!("this replica has {length} bytes of that segment, not {} yet", asked.length));
        }
        Ok(Box::new(Prefix { file, total: asked.length, kept: None }))
    }
}

impl BulkSource for Exports {
    fn open(&self, peer: NodeId, request: Bytes) -> Result<Box<dyn BulkObject>, String> {
        let request = SnapshotRequest::decode(&request).map_err(|error| error.to_string())?;
        let kept = self.exports().get(&request.group).filter(|export| export.digest == request.digest).map(
            |export| {
                let kept = Kept {
                    used_ms: Arc::clone(&export.used_ms),
                    now_ms: Arc::clone(&self.now_ms),
                    _pin: Arc::clone(&export.pin),
                };
                kept.used();
                (Arc::clone(&export.manifest), export.bytes.clone(), kept)
            },
        );
        let (log, asked) = match (request.part, &kept) {
            (SnapshotPart::Manifest, Some((_, bytes, _))) => return Ok(Box::new(Whole(bytes.clone()))),
            (SnapshotPart::Manifest, None) => {
                let staging = Staging::new(Arc::clone(&self.storage), &self.data_dir, request.group);
                let staged = staging.manifest(request.digest).map_err(|error| error.to_string())?;
                let (_, bytes) = staged.ok_or("that snapshot is not offered here, or no longer")?;
                return Ok(Box::new(Whole(bytes)));
            }
            (SnapshotPart::File { log, file }, _) => (log, file),
        };
        tracing::debug!(%peer, %log, base = %asked.base, "serving a segment of a snapshot");
        match kept {
            Some((manifest, _, kept)) if manifest.files().any(|file| file == (log, asked)) => {
                let path = place(&self.data_dir, log, asked.base);
                let file =
                    open(&*self.storage, &path).map_err(|error| format!("{}: {error}", path.display()))?;
                Ok(Box::new(Prefix { file, total: asked.length, kept: Some(kept) }))
            }
            Some(_) | None => self.unlisted(log, &asked),
        }
    }
}

/// Bytes in memory.
struct Whole(Bytes);

impl BulkObject for Whole {
    fn total(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    fn read(&mut self, position: u64, bytes_max: usize) -> io::Result<Bytes> {
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(self.0.len());
        let to = from.saturating_add(bytes_max).min(self.0.len());
        Ok(self.0.slice(from..to))
    }
}

/// Keeps an export from ending while its bytes are read.
struct Kept {
    used_ms: Arc<AtomicU64>,
    now_ms: Arc<AtomicU64>,
    _pin: Arc<dyn Send + Sync>,
}

impl Kept {
    fn used(&self) {
        self.used_ms.fetch_max(self.now_ms.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The first bytes of a file. It is open, so they can be read even if its name goes meanwhile.
struct Prefix {
    file: Arc<dyn File>,
    total: u64,
    /// None if no export lists it.
    kept: Option<Kept>,
}

impl BulkObject for Prefix {
    fn total(&self) -> u64 {
        self.total
    }

    fn read(&mut self, position: u64, bytes_max: usize) -> io::Result<Bytes> {
        let left = self.total.saturating_sub(position);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes_max);
        let mut bytes = vec![0; length];
        self.file.read_at(Position(position), &mut bytes)?;
        if let Some(kept) = &self.kept {
            kept.used();
        }
        Ok(bytes.into())
    }
}
