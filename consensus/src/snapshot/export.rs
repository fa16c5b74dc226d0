//! The offering side: a manifest of the newest checkpoint, and its files served while it is offered.
//!
//! A manifest is built from a kept checkpoint, so its files are there; the engine's pin that the caller
//! hands over keeps them there while the export lasts. An export ends when nobody has fetched from it
//! for a while, when it grows too old, or when a newer one of its group takes its place. Then the core
//! is told, and offers it no longer.
//!
//! Only what a manifest lists is served, and only by group, log and offset: no peer names a path.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, LogCheckpoint};
use tidelog_engine::segment;
use tidelog_engine::storage::{File, OpenMode, Position, Storage};
use tidelog_wire::ids::{ClusterId, GroupId, NodeId, Offset};

use super::error::SnapshotError;
use super::manifest::{LogFiles, Manifest, SegmentFile, digest};
use super::request::{SnapshotPart, SnapshotRequest};
use super::staging::{log_dir, place};
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now_ms: u64,
    exports: BTreeMap<GroupId, Export>,
}

struct Export {
    manifest: Arc<Manifest>,
    bytes: Bytes,
    digest: u64,
    since_ms: u64,
    used_ms: u64,
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
        Self { storage, data_dir: data_dir.to_owned(), limits, state: Mutex::default() }
    }

    /// Offers `manifest`, in place of what its group offered before. `pin` keeps its files.
    ///
    /// Returns what the core needs for [`Input::SnapshotExported`](crate::core::Input), or `None` if it
    /// would exceed the limits.
    pub fn offer(&self, manifest: Manifest, pin: Arc<dyn Send + Sync>) -> Option<SnapshotOffer> {
        let checkpoint = manifest.checkpoint().ok()?;
        let bytes = manifest.encode();
        let manifest_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut state = self.state();
        let others = state.exports.iter().filter(|(group, _)| **group != manifest.group);
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
        let now = state.now_ms;
        let group = manifest.group;
        let export = Export { manifest: Arc::new(manifest), bytes, digest, since_ms: now, used_ms: now, pin };
        state.exports.insert(group, export);
        Some(offer)
    }

    /// Tells the time, and ends what has lasted long enough: for
    /// [`Input::SnapshotWithdrawn`](crate::core::Input).
    pub fn expire(&self, now_ms: u64) -> Vec<(GroupId, EntryId)> {
        let mut state = self.state();
        state.now_ms = now_ms;
        let limits = self.limits;
        let over = |export: &Export| {
            now_ms.saturating_sub(export.used_ms) > limits.idle_ms_max
                || now_ms.saturating_sub(export.since_ms) > limits.age_ms_max
        };
        let ended: Vec<_> = state
            .exports
            .iter()
            .filter(|(_, export)| over(export))
            .map(|(group, export)| (*group, export.manifest.snapshot))
            .collect();
        state.exports.retain(|_, export| !over(export));
        ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BulkSource for Exports {
    fn open(&self, peer: NodeId, request: Bytes) -> Result<Box<dyn BulkObject>, String> {
        let request = SnapshotRequest::decode(&request).map_err(|error| error.to_string())?;
        let mut state = self.state();
        let now = state.now_ms;
        let export = state
            .exports
            .get_mut(&request.group)
            .filter(|export| export.digest == request.digest)
            .ok_or_else(|| "that snapshot is not offered, or no longer".to_owned())?;
        export.used_ms = now;
        let (bytes, manifest, pin) =
            (export.bytes.clone(), Arc::clone(&export.manifest), Arc::clone(&export.pin));
        drop(state);
        let (log, base) = match request.part {
            SnapshotPart::Manifest => return Ok(Box::new(Whole(bytes))),
            SnapshotPart::File { log, base } => (log, base),
        };
        let listed = manifest
            .files()
            .find(|(of, file)| *of == log && file.base == base)
            .ok_or_else(|| format!("segment {base} of log {log} is not part of that snapshot"))?;
        let path = place(&self.data_dir, log, base);
        let file = open(&*self.storage, &path).map_err(|error| format!("{}: {error}", path.display()))?;
        tracing::debug!(peer = peer.get(), path = %path.display(), "serving a segment of a snapshot");
        Ok(Box::new(Prefix { file, total: listed.1.length, _pin: pin }))
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

/// The first bytes of a file.
struct Prefix {
    file: Arc<dyn File>,
    total: u64,
    _pin: Arc<dyn Send + Sync>,
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
        Ok(bytes.into())
    }
}
