//! Segments as files, for snapshots: what a checkpoint names, read raw, verified and adopted elsewhere.
//!
//! Segments of one log are the same bytes on every replica, so moving a log is moving files.
//! 1. The sender lists the files up to a checkpoint and pins them.
//! 2. The receiver fetches them into a staging directory and verifies each against the manifest:
//!    owner, place, every frame, the chain at both ends, and that index and footer follow from the frames.
//! 3. Adopting renames them into the log's directory, where a file of other bytes makes way to quarantine. Called
//!    again after a crash it goes on where it
//!    stopped, because a file that is no longer staged is in place.
//!
//! Not here: the manifest's bytes, fetching, and when to switch over (`consensus`).

mod adopt;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidelog_wire::ids::{Chain, ClusterId, LogId, Offset};

use crate::checkpoint::LogState;
use crate::directory::keep::Pin;
use crate::engine::Engine;
use crate::fields::narrow;
use crate::log::locate::{load_sealed, verified_summary};
use crate::log::{LogError, ReadError};
use crate::segment::header::HeaderFault;
use crate::segment::walk::{Expected, Step};
use crate::segment::{self, LogTag};
use crate::storage::{File, OpenMode, Position, create_dir_durably};

/// Most bytes that one raw read returns.
pub const RAW_READ_BYTES_MAX: usize = 4 << 20;

/// One file of a log, as a manifest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Which log.
    pub log: LogId,
    /// Its first offset.
    pub base: Offset,
    /// Offset behind its last record.
    pub end: Offset,
    /// Bytes that count: the whole file if sealed, else up to the end of the last frame.
    pub len: u64,
    /// Chain of the log before `base`.
    pub chain_start: Chain,
    /// Chain of the log at `end`.
    pub chain_end: Chain,
    /// Whether it ends in index and footer.
    pub sealed: bool,
}

impl Engine {
    /// Where the segment of a log that begins at `base` lies.
    #[must_use]
    pub fn segment_path(&self, log: LogId, base: Offset) -> PathBuf {
        self.core.log_dir(log).join(segment::file_name(base))
    }

    /// The files that hold a log from its start up to `state`, in order. They stay as they are while
    /// they are pinned: see [`Engine::pin`].
    ///
    /// # Errors
    /// - [`LogError::CannotServe`]: a part is missing or damaged here; another replica must serve it.
    /// - [`LogError::Io`].
    pub fn segment_files(&self, log: LogId, state: &LogState) -> Result<Vec<SegmentFile>, LogError> {
        if let Some(shared) = self.core.lives.latest(log) {
            // What nobody has used since the start may lack a footer, or not belong here.
            shared.look_at_all().map_err(|error| match error {
                ReadError::Io { path, action, source } => LogError::Io { path, action, source },
                ReadError::Unusable(error) => *error,
                ReadError::OutOfRange { .. }
                | ReadError::Damaged { .. }
                | ReadError::Unreadable { .. }
                | ReadError::InsideBatch { .. }
                | ReadError::Reopened { .. }
                | ReadError::Removed { .. } => LogError::CannotServe { log, base: state.start },
            })?;
        }
        let dir = self.core.log_dir(log);
        let entries = match self.core.storage.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(failed(&dir, "list", source)),
        };
        let has_active = state.active_position > Position::ZERO;
        let bases = entries.iter().filter_map(|entry| segment::parse_file_name(&entry.name));
        let mut files: Vec<SegmentFile> = Vec::new();
        for base in bases.filter(|base| *base < state.end) {
            let file = if has_active && base == state.active_base {
                self.active_file(log, base, state)?
            } else if has_active && base > state.active_base {
                continue;
            } else {
                let file = match self.sealed_file(log, base)? {
                    // What the disk did not give while it was to be sealed it may give now.
                    None if self.look_again(log, base) => self.sealed_file(log, base)?,
                    file => file,
                };
                file.ok_or(LogError::CannotServe { log, base })?
            };
            if file.end > state.start {
                files.push(file);
            }
        }
        let mut at = state.start;
        for file in &files {
            if file.base > at {
                return Err(LogError::CannotServe { log, base: at });
            }
            at = file.end;
        }
        if at < state.end { Err(LogError::CannotServe { log, base: at }) } else { Ok(files) }
    }

    /// Looks once more at a segment without a footer, if its log is open: says whether that may have sealed it.
    fn look_again(&self, log: LogId, base: Offset) -> bool {
        let open = self.core.lives.latest(log);
        open.is_some_and(|shared| match shared.look_again(base) {
            Ok(looked) => looked,
            Err(error) => {
                tracing::warn!(%log, %base, %error, "a segment without a footer cannot be sealed yet");
                false
            }
        })
    }

    fn active_file(&self, log: LogId, base: Offset, state: &LogState) -> Result<SegmentFile, LogError> {
        let path = self.segment_path(log, base);
        let file = self.open_read(&path)?;
        let header = segment::read_header(file.as_ref()).map_err(|source| failed(&path, "read", source))?;
        let len = file.len().map_err(|source| failed(&path, "size", source))?;
        let Some(header) = header.filter(|_| len >= state.active_position.get()) else {
            return Err(LogError::CannotServe { log, base });
        };
        Ok(SegmentFile {
            log,
            base,
            end: state.end,
            len: state.active_position.get(),
            chain_start: header.chain_start,
            chain_end: state.chain,
            sealed: false,
        })
    }

    fn sealed_file(&self, log: LogId, base: Offset) -> Result<Option<SegmentFile>, LogError> {
        let path = self.segment_path(log, base);
        let file = self.open_read(&path)?;
        let io = |source| failed(&path, "read", source);
        let header = segment::read_header(file.as_ref()).map_err(io)?;
        let tag = LogTag::of(self.core.identity.cluster, log);
        let sealed = load_sealed(file.as_ref(), tag).map_err(io)?;
        let (Some(header), Ok((footer, _))) = (header, sealed) else { return Ok(None) };
        Ok(Some(SegmentFile {
            log,
            base,
            end: footer.last_offset.plus(1),
            len: file.len().map_err(io)?,
            chain_start: header.chain_start,
            chain_end: footer.chain_end,
            sealed: true,
        }))
    }

    /// Bytes of a segment file as they lie on disk, at most [`RAW_READ_BYTES_MAX`], fewer at its end.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn read_raw(&self, log: LogId, base: Offset, at: Position, len: usize) -> Result<Bytes, LogError> {
        let path = self.segment_path(log, base);
        let io = |source| failed(&path, "read", source);
        let file = self.open_read(&path)?;
        let left = file.len().map_err(io)?.saturating_sub(at.get());
        let mut bytes = vec![0; narrow(left).min(len).min(RAW_READ_BYTES_MAX)];
        file.read_at(at, &mut bytes).map_err(io)?;
        Ok(Bytes::from(bytes))
    }

    /// Verifies a file as [`verify_file`] does.
    ///
    /// # Errors
    /// As there, and [`LogError::Io`] if it cannot be opened.
    pub fn verify_staged(&self, path: &Path, expected: &SegmentFile) -> Result<(), LogError> {
        let file = self.open_read(path)?;
        verify_file(file.as_ref(), path, self.core.identity.cluster, expected)
    }

    /// Moves the staged files of a log into its directory, durably. `manifest` names all files the log
    /// is to have; those that are not in `staging` (under their own file names) must be in place
    /// already. Verify all of them before. Other files of the log are set aside.
    ///
    /// The log must not be open. The files are kept until the pin is dropped: hold it until the
    /// checkpoint that names them is written. May be called again after a crash.
    ///
    /// # Errors
    /// [`LogError::AlreadyOpen`], [`LogError::CannotServe`] if a file is neither staged nor in place,
    /// [`LogError::Io`], [`LogError::Quarantine`]. Files may have been moved; call it again.
    pub fn adopt(&self, log: LogId, manifest: &[SegmentFile], staging: &Path) -> Result<Pin, LogError> {
        // Held to the end: nobody opens the log while its files are moved.
        let _reserved = self.core.lives.reserve(log).ok_or(LogError::AlreadyOpen { log })?;
        let storage = self.core.storage.as_ref();
        let keys: Vec<(LogId, Offset)> = manifest.iter().map(|file| (log, file.base)).collect();
        let pin = self.core.pin(keys.clone());
        self.core.keep.spare(&keys);
        self.core.open_files.close_log(log);
        let dir = self.core.log_dir(log);
        create_dir_durably(storage, &self.core.data_dir, &dir)
            .map_err(|source| failed(&dir, "make the directory", source))?;
        for entry in storage.list(&dir).map_err(|source| failed(&dir, "list", source))? {
            let base = segment::parse_file_name(&entry.name);
            if !base.is_some_and(|base| manifest.iter().any(|file| file.base == base)) {
                let why = "a snapshot that does not name it replaces the log";
                self.core.set_aside_file(&dir.join(&entry.name), why)?;
            }
        }
        for file in manifest {
            let from = staging.join(segment::file_name(file.base));
            let to = dir.join(segment::file_name(file.base));
            match storage.open(&from, OpenMode::ReadWrite) {
                Ok(staged) => {
                    staged.sync().map_err(|source| failed(&from, "sync", source))?;
                    drop(staged);
                    self.core.make_way(&from, &to)?;
                    storage.rename(&from, &to).map_err(|source| failed(&from, "adopt", source))?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if storage.open(&to, OpenMode::Read).is_err() {
                        return Err(LogError::CannotServe { log, base: file.base });
                    }
                }
                Err(source) => return Err(failed(&from, "open", source)),
            }
        }
        storage.sync_dir(&dir).map_err(|source| failed(&dir, "sync", source))?;
        Ok(pin)
    }

    fn open_read(&self, path: &Path) -> Result<crate::locks::Arc<dyn File>, LogError> {
        self.core.storage.open(path, OpenMode::Read).map_err(|source| failed(path, "open", source))
    }
}

/// Verifies the whole of `file`, which lies at `path`, against what a manifest says of it: header, every frame, the
/// chain from start to end, and for a sealed one that index and footer follow from the frames. A file
/// that is not sealed may hold more behind `len`, which is not looked at.
///
/// # Errors
/// [`LogError::Staged`], [`LogError::StagedHeader`], [`LogError::StagedFrame`]: it is not that
/// file. [`LogError::ForeignCluster`], [`LogError::Io`].
pub fn verify_file(
    file: &dyn File,
    path: &Path,
    cluster: ClusterId,
    expected: &SegmentFile,
) -> Result<(), LogError> {
    let io = |source| failed(path, "read", source);
    let differs = |what, expected, found| differs(path, what, expected, found);
    let len = file.len().map_err(io)?;
    if expected.sealed || len < expected.len {
        differs("its length", expected.len, len)?;
    }
    verify_header(file, path, cluster, expected)?;
    let tag = LogTag::of(cluster, expected.log);
    let limit = match expected.sealed {
        true => match load_sealed(file, tag).map_err(io)? {
            Ok((footer, _)) => footer.index_position.get(),
            Err(_) => return differs("its footer", 1, 0),
        },
        false => expected.len,
    };
    let begin = Expected { offset: expected.base, chain: expected.chain_start };
    let (summary, step) = verified_summary(file, tag, begin, limit).map_err(io)?;
    if let Step::Fault(fault) = step {
        return Err(LogError::StagedFrame {
            path: path.to_path_buf(),
            position: summary.end_position,
            fault,
        });
    }
    differs("the end of its frames", limit, summary.end_position.get())?;
    // Embedded logs only have them, and what is on one node only is on no manifest.
    differs("the number of its marks", 0, summary.marks)?;
    differs("its end", expected.end.get(), summary.end.get())?;
    differs("the chain at its end", expected.chain_end.get(), summary.chain.get())?;
    if expected.sealed {
        let mut tail = vec![0; narrow(len.saturating_sub(limit))];
        file.read_at(Position(limit), &mut tail).map_err(io)?;
        differs("that its footer follows from its frames", 1, u64::from(tail == summary.seal_bytes(tag)))?;
    }
    Ok(())
}

/// How many bytes from the beginning of `file` verify as those of `expected`: its header and the frames behind it that
/// join each other. All of a file that cannot be a part of it counts as nothing.
///
/// # Errors
/// The system's.
pub fn verified_prefix(
    file: &dyn File,
    path: &Path,
    cluster: ClusterId,
    expected: &SegmentFile,
) -> io::Result<u64> {
    match verify_header(file, path, cluster, expected) {
        Ok(()) => {}
        Err(LogError::Io { source, .. }) => return Err(source),
        Err(_) => return Ok(0),
    }
    let begin = Expected { offset: expected.base, chain: expected.chain_start };
    let limit = file.len()?.min(expected.len);
    let (summary, _) = verified_summary(file, LogTag::of(cluster, expected.log), begin, limit)?;
    let of_another =
        summary.end > expected.end || summary.end == expected.end && summary.chain != expected.chain_end;
    Ok(if of_another { 0 } else { summary.end_position.get() })
}

fn verify_header(
    file: &dyn File,
    path: &Path,
    cluster: ClusterId,
    expected: &SegmentFile,
) -> Result<(), LogError> {
    let header = segment::header_of(file)
        .map_err(|source| failed(path, "read", source))?
        .map_err(|fault| LogError::StagedHeader { path: path.to_path_buf(), fault })?;
    if header.cluster != cluster {
        let found = header.cluster;
        return Err(LogError::ForeignCluster { path: path.to_path_buf(), expected: cluster, found });
    }
    if header.log != expected.log {
        return Err(LogError::StagedHeader { path: path.to_path_buf(), fault: HeaderFault::Magic });
    }
    differs(path, "its base offset", expected.base.get(), header.base.get())?;
    differs(path, "the chain at its start", expected.chain_start.get(), header.chain_start.get())
}

fn differs(path: &Path, what: &'static str, expected: u64, found: u64) -> Result<(), LogError> {
    if expected == found {
        Ok(())
    } else {
        Err(LogError::Staged { path: path.to_path_buf(), what, expected, found })
    }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> LogError {
    LogError::Io { path: path.to_path_buf(), action, source }
}
