//! The receiving side: brings a snapshot into staging, whole and verified, and changes nothing else.
//!
//! A state machine: [`Fetcher::next_step`] says what to ask for, the caller hands the bytes to
//! [`Fetcher::arrived`] as they come and says with [`Fetcher::ended`] how the transfer ended, until
//! `next_step` says [`Next::Staged`]. Files go through the engine's storage trait; the network is the caller's.
//!
//! For each file of the manifest, in order: what lies here already is used (`super::reuse`), and only the rest is
//! fetched, from whoever delivers (`super::sources`).
//!
//! What was fetched counts only after the whole file verified by its chain, was synced and renamed. If it
//! does not verify, it is cut back to what does, and the rest is fetched from another node; if that does not
//! help, all of it, from one after the other, trusting nothing that was here. After that the attempt ends.
//!
//! Limits: rounds through all sources that bring not one byte, tries of a file, bytes by the manifest's own
//! lengths, room on the disk. In memory: one manifest, and what arrives at once.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_wire::ids::{ClusterId, LogId, NodeId, Offset};

use super::error::{SnapshotError, io};
use super::manifest::{Manifest, ManifestFault, SegmentFile, digest};
use super::request::{SnapshotPart, SnapshotRequest};
use super::reuse::{Found, Part, Trust, complete, cut_back, look};
use super::sources::Sources;
use super::staging::{Kind, Staging};
use super::verify::{Owner, is_same_sealed};
use crate::core::FetchSnapshot;

/// Bounds of one fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// Rounds in a row, through all that may be asked, that bring not one byte.
    pub attempts_max: u32,
    /// Bytes of the disk that stay free.
    pub reserve_bytes: u64,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self { attempts_max: 5, reserve_bytes: 64 << 20 }
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask `from` for `request`, from byte `position` on, and hand over what comes.
    Ask {
        /// The node.
        from: NodeId,
        /// For its bulk source.
        request: Bytes,
        /// First byte wanted.
        position: u64,
        /// Rounds before this one that brought nothing: wait a little longer each time.
        attempt: u32,
    },
    /// All of it lies in staging or in place.
    Staged(StagedSnapshot),
}

/// What was staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedSnapshot {
    /// The offer that was followed.
    pub offer: FetchSnapshot,
    /// Segments used where they lie: pin them until the switch is done.
    pub reused: Vec<(LogId, Offset)>,
    /// Bytes that came over the network.
    pub fetched_bytes: u64,
    /// Bytes of all its files: what was not fetched was here.
    pub file_bytes: u64,
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The other node sent all it has.
    Complete,
    /// It broke off, or was refused.
    Broken(String),
}

/// One fetch of one snapshot.
#[derive(Debug)]
pub struct Fetcher {
    staging: Staging,
    data_dir: PathBuf,
    cluster: ClusterId,
    offer: FetchSnapshot,
    limits: FetchLimits,
    state: State,
    /// Damaged here: segments that reach into these are fetched, whatever lies in the log.
    damage: Vec<(LogId, Range<Offset>)>,
    sources: Sources,
    progressed: bool,
    last_error: String,
    fetched_bytes: u64,
}

#[derive(Debug)]
enum State {
    /// The manifest, as far as it has come.
    Manifest(Vec<u8>),
    /// The files.
    Files(Files),
}

#[derive(Debug)]
struct Files {
    wanted: Vec<(LogId, SegmentFile)>,
    /// Which of them is next.
    at: usize,
    current: Option<Part>,
    reused: Vec<(LogId, Offset)>,
    /// The current file did not verify, not even with a beginning that does: nothing that was here is
    /// trusted any more.
    distrusted: bool,
}

impl Fetcher {
    /// Begins, or continues what an earlier attempt left in staging.
    ///
    /// # Errors
    /// [`SnapshotError::Io`], [`SnapshotError::NoRoom`].
    pub fn new(
        storage: Arc<dyn Storage>,
        data_dir: &Path,
        cluster: ClusterId,
        offer: FetchSnapshot,
        limits: FetchLimits,
    ) -> Result<Self, SnapshotError> {
        let staging = Staging::new(storage, data_dir, offer.group);
        staging.make()?;
        let mut fetcher = Self {
            staging,
            data_dir: data_dir.to_owned(),
            cluster,
            offer,
            limits,
            state: State::Manifest(Vec::new()),
            damage: Vec::new(),
            sources: Sources::new(offer.from),
            progressed: false,
            last_error: String::new(),
            fetched_bytes: 0,
        };
        if let Some((manifest, _)) = fetcher.staging.manifest(offer.digest)? {
            fetcher.begin_files(&manifest)?;
        }
        Ok(fetcher)
    }

    /// Names ranges that are damaged on this disk, so that no segment with one of them is used again:
    /// a sealed segment in place is otherwise taken for what its footer says.
    pub fn distrust(&mut self, damage: Vec<(LogId, Range<Offset>)>) {
        self.damage = damage;
    }

    /// Names the nodes that may be asked besides the one that made the offer. May change at any time.
    pub fn ask_also(&mut self, others: &[NodeId]) {
        self.sources.set_others(others);
    }

    /// What to do next, when no transfer is running.
    ///
    /// # Errors
    /// The fetch ends; what was fetched stays for the next one.
    pub fn next_step(&mut self) -> Result<Next, SnapshotError> {
        let attempts = self.sources.rounds();
        if attempts >= self.limits.attempts_max {
            let group = self.offer.group;
            return Err(SnapshotError::GaveUp { group, attempts, last: self.last_error.clone() });
        }
        let (part, position) = match &self.state {
            State::Manifest(bytes) => (SnapshotPart::Manifest, wide(bytes.len())),
            State::Files(_) => match self.settle_files()? {
                Some((log, file, position)) => (SnapshotPart::File { log, file }, position),
                None => return Ok(Next::Staged(self.staged())),
            },
        };
        self.progressed = false;
        let request = SnapshotRequest { group: self.offer.group, digest: self.offer.digest, part }.encode();
        let attempt = self.sources.rounds();
        Ok(Next::Ask { from: self.sources.now(), request, position, attempt })
    }

    /// The next bytes of what was asked for.
    ///
    /// # Errors
    /// The transfer must be broken off: more came than belongs there, or a file operation failed.
    pub fn arrived(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.progressed = true;
        self.fetched_bytes = self.fetched_bytes.saturating_add(wide(bytes.len()));
        let offer = self.offer;
        match &mut self.state {
            State::Manifest(held) => {
                if wide(held.len()).saturating_add(wide(bytes.len())) > offer.manifest_bytes {
                    held.clear();
                    return Err(bad_manifest(&offer, "it is longer than was offered"));
                }
                held.extend_from_slice(bytes);
                Ok(())
            }
            State::Files(files) => {
                let Some((log, wanted)) = files.wanted.get(files.at).copied() else { return Ok(()) };
                let Some(part) = &mut files.current else { return Ok(()) };
                let length = part.length.saturating_add(wide(bytes.len()));
                if length > wanted.length {
                    let max = wanted.length;
                    let found = format!("the other node sends more than the {max} bytes of the manifest");
                    return Err(SnapshotError::Unverified { log, base: wanted.base, found });
                }
                let path = self.staging.path(log, wanted.base, Kind::Part);
                part.file.write_at(Position(part.length), &[bytes]).map_err(io(path, "write to staging"))?;
                part.length = length;
                Ok(())
            }
        }
    }

    /// The transfer has ended, or could not begin.
    ///
    /// # Errors
    /// The fetch ends.
    pub fn ended(&mut self, how: Ended) -> Result<(), SnapshotError> {
        if let Ended::Broken(why) = how {
            self.last_error = why;
        }
        let manifest = match &mut self.state {
            State::Manifest(bytes) if wide(bytes.len()) == self.offer.manifest_bytes => {
                Some(Bytes::from(std::mem::take(bytes)))
            }
            State::Manifest(_) | State::Files(_) => None,
        };
        if let Some(bytes) = manifest {
            match check_manifest(&bytes, self.cluster, &self.offer) {
                Ok(manifest) => {
                    self.staging.keep_manifest(&bytes)?;
                    self.begin_files(&manifest)?;
                }
                Err(error) => {
                    self.last_error = error.to_string();
                    self.progressed = false;
                }
            }
        }
        if self.progressed {
            self.sources.brought();
        } else {
            self.sources.brought_nothing();
        }
        Ok(())
    }

    /// Bytes that came over the network so far, and bytes of all files once the manifest is known.
    #[must_use]
    pub fn progress(&self) -> (u64, Option<u64>) {
        let total = match &self.state {
            State::Manifest(_) => None,
            State::Files(files) => Some(files.bytes()),
        };
        (self.fetched_bytes, total)
    }

    fn begin_files(&mut self, manifest: &Manifest) -> Result<(), SnapshotError> {
        let wanted: Vec<_> = manifest.files().collect();
        self.staging.sweep(|log, base| wanted.iter().any(|(of, file)| *of == log && file.base == base))?;
        let dir = self.staging.dir();
        let free = self.staging.storage.free_bytes(dir).map_err(io(dir, "ask for free room"))?;
        let missing = wanted
            .iter()
            .filter(|(log, file)| !self.lies_somewhere(*log, file))
            .map(|(_, file)| file.length)
            .fold(0, u64::saturating_add);
        let needed = missing.saturating_add(self.limits.reserve_bytes);
        if needed > free {
            return Err(SnapshotError::NoRoom { group: self.offer.group, needed, free });
        }
        self.state =
            State::Files(Files { wanted, at: 0, current: None, reused: Vec::new(), distrusted: false });
        Ok(())
    }

    /// Whether the file is whole in staging or in its log, by a glance.
    fn lies_somewhere(&self, log: LogId, file: &SegmentFile) -> bool {
        let owner = Owner { cluster: self.cluster, log };
        let staged = self.staging.open(&self.staging.path(log, file.base, Kind::Whole), OpenMode::Read);
        let in_place = self.staging.open(&self.staging.place(log, file.base), OpenMode::Read);
        staged.ok().flatten().is_some()
            || in_place.ok().flatten().is_some_and(|held| is_same_sealed(&*held, owner, file))
    }

    /// Goes through the files until one needs bytes: which, and from where on. `None`: all are there.
    fn settle_files(&mut self) -> Result<Option<(LogId, SegmentFile, u64)>, SnapshotError> {
        loop {
            let State::Files(files) = &mut self.state else { return Ok(None) };
            let Some((log, wanted)) = files.wanted.get(files.at).copied() else { return Ok(None) };
            let owner = Owner { cluster: self.cluster, log };
            let length = match &files.current {
                Some(part) => part.length,
                None => {
                    let damaged = self.damage.iter().any(|(damaged, range)| {
                        *damaged == log && range.start < wanted.end && wanted.base < range.end
                    });
                    let trust = Trust { own: !damaged && !files.distrusted, part: !files.distrusted };
                    match look(&self.staging, owner, &wanted, trust)? {
                        Found::Staged => {
                            files.next_file();
                            self.sources.next_file();
                            continue;
                        }
                        Found::InPlace => {
                            files.reused.push((log, wanted.base));
                            files.next_file();
                            self.sources.next_file();
                            continue;
                        }
                        Found::Part(part) => files.current.insert(part).length,
                    }
                }
            };
            if length < wanted.length {
                return Ok(Some((log, wanted, length)));
            }
            match complete(&self.staging, owner, &wanted) {
                Ok(()) => {
                    files.next_file();
                    self.sources.next_file();
                }
                Err(error @ SnapshotError::Unverified { .. }) => self.try_again(owner, &wanted, error)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The current file does not verify: keeps what of it does for the first try, and nothing for those after it.
    fn try_again(
        &mut self,
        owner: Owner,
        wanted: &SegmentFile,
        error: SnapshotError,
    ) -> Result<(), SnapshotError> {
        let State::Files(files) = &mut self.state else { return Ok(()) };
        files.current = None;
        match self.sources.did_not_verify() {
            Some(1) => cut_back(&self.staging, owner, wanted)?,
            Some(_) => {
                files.distrusted = true;
                self.staging.remove(&self.staging.path(owner.log, wanted.base, Kind::Part))?;
            }
            None => {
                self.staging.remove(&self.staging.path(owner.log, wanted.base, Kind::Part))?;
                return Err(error);
            }
        }
        tracing::warn!(%error, next = %self.sources.now(), "fetching what does not verify again");
        Ok(())
    }

    fn staged(&self) -> StagedSnapshot {
        let (reused, file_bytes) = match &self.state {
            State::Manifest(_) => (Vec::new(), 0),
            State::Files(files) => (files.reused.clone(), files.bytes()),
        };
        StagedSnapshot { offer: self.offer, reused, fetched_bytes: self.fetched_bytes, file_bytes }
    }

    /// The data directory that is being filled.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

impl Files {
    fn next_file(&mut self) {
        self.at = self.at.saturating_add(1);
        self.current = None;
        self.distrusted = false;
    }

    fn bytes(&self) -> u64 {
        self.wanted.iter().map(|(_, file)| file.length).fold(0, u64::saturating_add)
    }
}

fn check_manifest(
    bytes: &Bytes,
    cluster: ClusterId,
    offer: &FetchSnapshot,
) -> Result<Manifest, SnapshotError> {
    if digest(bytes) != offer.digest {
        return Err(bad_manifest(offer, "its hash is not the one that was offered"));
    }
    let fault = |fault| SnapshotError::Manifest { group: offer.group, digest: offer.digest, fault };
    let manifest = Manifest::decode(bytes).map_err(fault)?;
    if manifest.cluster != cluster || manifest.group != offer.group || manifest.snapshot != offer.snapshot {
        return Err(bad_manifest(offer, "it is one of another cluster, group or entry"));
    }
    manifest.checkpoint().map_err(fault)?;
    Ok(manifest)
}

fn bad_manifest(offer: &FetchSnapshot, why: &'static str) -> SnapshotError {
    let fault = ManifestFault::Inconsistent(why);
    SnapshotError::Manifest { group: offer.group, digest: offer.digest, fault }
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
