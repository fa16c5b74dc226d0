//! What lies at a path: a data directory, a part of one, the copy of a log, or a single segment.
//!
//! A log's directory is `<generation>/<partition>`; if those lie below the `logs` of a data directory, its identity says
//! which cluster the files must belong to, and its checkpoints how far each log was durable. A copy that lies anywhere
//! else speaks for itself: whose it is, most of its headers say.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tidelog_wire::ids::{ClusterId, Generation, GroupId, LogId, Offset, Partition};

use super::error::{OfflineError, failed};
use super::label::{Part, Why};
use super::verify::Finding;
use crate::checkpoint::store::{self, CheckpointError};
use crate::checkpoint::{Checkpoint, LogState};
use crate::directory::identity::{Identity, IdentityError};
use crate::fields::wide;
use crate::segment::header::SegmentHeader;
use crate::segment::walk::{Depth, Step, Walk};
use crate::segment::{self, LogTag, header_of};
use crate::storage::{DirEntry, EntryKind, OpenMode, Position, Storage, parent};

/// How deep directories are looked into for logs: `logs/<generation>/<partition>`.
const DEPTH_MAX: usize = 3;

/// What was found at a path.
#[derive(Clone, Debug)]
pub struct Target {
    /// What was named.
    pub path: PathBuf,
    /// The data directory that it is, or lies in.
    pub data_dir: Option<PathBuf>,
    /// Whose that is, if its identity is good.
    pub identity: Option<Identity>,
    /// The groups' newest valid checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// The logs, rising by id.
    pub logs: Vec<LogFiles>,
    /// What is wrong with checkpoints and identity.
    pub findings: Vec<Finding>,
    /// All checkpoints could be read, and one is of a data group: a log that none names has all of it in a raft log.
    pub(super) is_complete: bool,
}

/// What is known, without the files, of how far a log was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: no checkpoint is at hand.
    Nothing,
    /// There are checkpoints of data groups, all valid, and none names it.
    Unnamed,
    /// What the newest checkpoint says.
    Checkpoint {
        /// Its state of the log.
        state: LogState,
        /// Whether a raft log stands behind it; else the log is embedded.
        consensus: bool,
    },
}

/// The files of one log.
#[derive(Clone, Debug)]
pub struct LogFiles {
    /// Where they lie.
    pub dir: PathBuf,
    /// Which log, as far as names or headers tell.
    pub log: Option<LogId>,
    /// Which cluster.
    pub cluster: Option<ClusterId>,
    /// Whether the identity of a data directory and the log's place in it say so, and not the files.
    pub is_identified: bool,
    /// What is known from elsewhere.
    pub known: Known,
    /// Whether its frames came through a raft log.
    pub consensus: bool,
    /// The segments, rising by base.
    pub segments: Vec<SegmentPath>,
    /// Names in the directory that no segment has.
    pub strangers: Vec<DirEntry>,
    /// Only this one is asked about.
    pub only: Option<Offset>,
}

/// One segment file by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPath {
    /// Its first offset, by its name.
    pub base: Offset,
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub len: u64,
    /// A valid header says that it is a segment of another log or base: it tells nothing about its neighbours.
    pub is_misplaced: bool,
}

impl LogFiles {
    /// Where the records of a segment end, as far as a segment behind it says so.
    pub(super) fn next_base(&self, at: usize) -> Option<Offset> {
        let behind = self.segments.get(at.saturating_add(1)..)?;
        behind.iter().find(|segment| !segment.is_misplaced).map(|segment| segment.base)
    }

    /// The tag of its frames, if it is known whose it is.
    #[must_use]
    pub fn tag(&self) -> Option<LogTag> {
        Some(LogTag::of(self.cluster?, self.log?))
    }

    /// Whether a segment is asked about.
    #[must_use]
    pub fn is_asked(&self, base: Offset) -> bool {
        self.only.is_none_or(|only| only == base)
    }
}

/// Looks what lies at `path`. Nothing but directories, checkpoints and headers is read.
///
/// # Errors
/// [`OfflineError::NothingHere`], [`OfflineError::Io`].
pub fn find(storage: &dyn Storage, path: &Path) -> Result<Target, OfflineError> {
    let mut target = Target {
        path: path.to_path_buf(),
        data_dir: None,
        identity: None,
        checkpoints: Vec::new(),
        logs: Vec::new(),
        findings: Vec::new(),
        is_complete: false,
    };
    let mut dirs = Vec::new();
    let only = match storage.list(path) {
        Ok(entries) => {
            if entries.iter().any(|entry| entry.kind == EntryKind::Directory && entry.name == "logs") {
                target.data_dir = Some(path.to_path_buf());
                log_dirs(storage, &path.join("logs"), &mut dirs)?;
            } else {
                log_dirs(storage, path, &mut dirs)?;
            }
            None
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::InvalidInput) => {
            dirs.push(parent(path).to_path_buf());
            Some(path)
        }
        Err(source) => return Err(failed(path, "list")(source)),
    };
    if target.data_dir.is_none() {
        target.data_dir = dirs.first().and_then(|dir| data_dir_of(storage, dir));
    }
    if target.data_dir.is_none() && only.is_none() && is_logs_of_data(storage, path) {
        target.data_dir = Some(parent(path).to_path_buf());
    }
    let whole = target
        .data_dir
        .as_deref()
        .is_some_and(|data| data == path || (only.is_none() && data.join("logs") == path));
    target.read_data_dir(storage);
    for dir in dirs {
        let log = target.log_files(storage, dir, only)?;
        target.logs.push(log);
    }
    if target.logs.is_empty() && !whole {
        return Err(OfflineError::NothingHere { path: path.to_path_buf() });
    }
    if whole {
        target.add_lost_logs();
    }
    target.logs.sort_by_key(|files| files.log);
    Ok(target)
}

/// The directories at or below `root` that hold segments, or stand where a log's directory does.
fn log_dirs(storage: &dyn Storage, root: &Path, found: &mut Vec<PathBuf>) -> Result<(), OfflineError> {
    let mut waiting = vec![(root.to_path_buf(), 0_usize)];
    while let Some((dir, depth)) = waiting.pop() {
        let entries = storage.list(&dir).map_err(failed(&dir, "list"))?;
        if entries.iter().any(|entry| segment::parse_file_name(&entry.name).is_some()) {
            found.push(dir);
            continue;
        }
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            if depth < DEPTH_MAX && entry.name.parse::<u64>().is_ok() {
                waiting.push((dir.join(&entry.name), depth.saturating_add(1)));
            }
        }
    }
    found.sort();
    Ok(())
}

/// The log that a directory is named for.
fn log_of(dir: &Path) -> Option<LogId> {
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u64>().ok();
    let partition = u32::try_from(number(dir)?).ok()?;
    Some(LogId { generation: Generation(number(parent(dir))?), partition: Partition(partition) })
}

/// The data directory that a log's directory lies in, if it does.
fn data_dir_of(storage: &dyn Storage, dir: &Path) -> Option<PathBuf> {
    log_of(dir)?;
    let logs = parent(parent(dir));
    is_logs_of_data(storage, logs).then(|| parent(logs).to_path_buf())
}

/// Whether a directory is the `logs` of a data directory.
fn is_logs_of_data(storage: &dyn Storage, logs: &Path) -> bool {
    let named = logs.file_name().is_some_and(|name| name == "logs");
    named && storage.list(&parent(logs).join("identity")).is_ok()
}

impl Target {
    /// Reads identity and checkpoints.
    fn read_data_dir(&mut self, storage: &dyn Storage) {
        let Some(data) = &self.data_dir else { return };
        let mut of_identity = None;
        match Identity::read(storage, data) {
            Ok(opened) => {
                self.identity = Some(opened.identity);
                let error =
                    "this copy of the identity is not valid; the next start makes it anew from the other one";
                of_identity = opened.healed.map(|path| (path, error.to_owned(), false));
            }
            Err(IdentityError::Missing { .. }) => {}
            Err(error) => {
                let is_newer = matches!(error, IdentityError::UnknownFormat { .. });
                of_identity = Some((data.join("identity"), error.to_string(), is_newer));
            }
        }
        let groups = store::groups(storage, data).unwrap_or_else(|error| {
            self.findings.extend(unlisted(error));
            Vec::new()
        });
        for group in groups {
            let dir = store::group_dir(data, group);
            let mut newest = None;
            let entries = store::list(storage, &dir).unwrap_or_else(|error| {
                self.findings.extend(unlisted(error));
                Vec::new()
            });
            for entry in entries {
                match store::read(storage, &dir, group, entry) {
                    Ok(checkpoint) => newest = newest.or(Some(checkpoint)),
                    Err(fault) => {
                        let path = dir.join(store::file_name(entry));
                        let len = length(storage, &path);
                        let why = Why::CheckpointFile(fault);
                        self.findings.push(Finding { path, log: None, bytes: 0..len, offsets: None, why });
                    }
                }
            }
            self.checkpoints.extend(newest);
        }
        let of_data = |checkpoint: &Checkpoint| checkpoint.group != GroupId::META;
        // A bad checkpoint may have named what the others do not.
        self.is_complete = self.findings.is_empty() && self.checkpoints.iter().any(of_data);
        self.findings.extend(of_identity.map(|(path, error, is_newer)| {
            let why = Why::Identity { error, is_newer };
            Finding { path, log: None, bytes: NOWHERE, offsets: None, why }
        }));
    }

    /// What the checkpoints say of a log.
    fn known(&self, log: LogId) -> Known {
        for checkpoint in &self.checkpoints {
            if let Some(found) = checkpoint.logs.iter().find(|found| found.log == log) {
                let consensus = checkpoint.group != GroupId::META;
                return Known::Checkpoint { state: found.state.clone(), consensus };
            }
        }
        if self.is_complete { Known::Unnamed } else { Known::Nothing }
    }

    fn log_files(
        &self,
        storage: &dyn Storage,
        dir: PathBuf,
        only: Option<&Path>,
    ) -> Result<LogFiles, OfflineError> {
        let (mut segments, mut strangers, mut asked) = (Vec::new(), Vec::new(), None);
        let listed = match storage.list(&dir) {
            Ok(entries) => entries,
            Err(_) if only.is_some() => Vec::new(),
            Err(source) => return Err(failed(&dir, "list")(source)),
        };
        for entry in listed {
            let path = dir.join(&entry.name);
            match segment::parse_file_name(&entry.name) {
                Some(base) if entry.kind == EntryKind::File => {
                    if only == Some(path.as_path()) {
                        asked = Some(base);
                    }
                    segments.push(SegmentPath {
                        base,
                        len: length(storage, &path),
                        path,
                        is_misplaced: false,
                    });
                }
                Some(_) | None => strangers.push(entry),
            }
        }
        if let Some(path) = only.filter(|_| asked.is_none()) {
            // A file of another name: it stands alone.
            let file = storage.open(path, OpenMode::Read).map_err(failed(path, "open"))?;
            let header = header_of(file.as_ref()).map_err(failed(path, "read the header of"))?.ok();
            let base = header.map(|header| header.base).unwrap_or_default();
            let len = file.len().map_err(failed(path, "size"))?;
            segments = vec![SegmentPath { base, path: path.to_path_buf(), len, is_misplaced: false }];
            asked = Some(base);
            strangers.clear();
        }
        segments.sort_by_key(|segment| segment.base);
        let headers: Vec<_> = segments.iter().map(|segment| header_at(storage, &segment.path)).collect();
        let (cluster, log, consensus) = whose(storage, &dir, &segments, &headers);
        let here = self.data_dir.as_ref().and_then(|_| log_of(&dir));
        let log = here.or(log);
        let known = log.map_or(Known::Nothing, |log| self.known(log));
        let consensus = match &known {
            Known::Checkpoint { consensus, .. } => *consensus,
            // There is a checkpoint of data, and embedded engines write none.
            Known::Unnamed => true,
            Known::Nothing => consensus,
        };
        let is_identified = here.is_some() && self.identity.is_some();
        let cluster = self.identity.map(|identity| identity.cluster).or(cluster);
        for (segment, header) in segments.iter_mut().zip(headers) {
            segment.is_misplaced = header.is_some_and(|header| {
                (Some(header.cluster), Some(header.log), header.base) != (cluster, log, segment.base)
            });
        }
        Ok(LogFiles { dir, log, cluster, is_identified, known, consensus, segments, strangers, only: asked })
    }

    /// Logs that a checkpoint names and that have no files: all of it is missing, as verifying will say.
    fn add_lost_logs(&mut self) {
        let Some(data) = &self.data_dir else { return };
        for checkpoint in &self.checkpoints {
            for found in &checkpoint.logs {
                let (log, state) = (found.log, &found.state);
                if state.start >= state.end || self.logs.iter().any(|files| files.log == Some(log)) {
                    continue;
                }
                let consensus = checkpoint.group != GroupId::META;
                self.logs.push(LogFiles {
                    dir: data.join("logs").join(log.generation.to_string()).join(log.partition.to_string()),
                    log: Some(log),
                    cluster: self.identity.map(|identity| identity.cluster),
                    is_identified: self.identity.is_some(),
                    known: Known::Checkpoint { state: state.clone(), consensus },
                    consensus,
                    segments: Vec::new(),
                    strangers: Vec::new(),
                    only: None,
                });
            }
        }
    }
}

/// Length of a file; 0 if the system does not say, which verifying will find.
fn length(storage: &dyn Storage, path: &Path) -> u64 {
    storage.open(path, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0)
}

/// A directory that cannot be listed: what it holds is unknown, which is not the same as nothing.
fn unlisted(error: CheckpointError) -> Option<Finding> {
    match error {
        CheckpointError::Io { path, source, .. } => {
            let why = Why::unreadable(&source);
            Some(Finding { path, log: None, bytes: NOWHERE, offsets: None, why })
        }
        CheckpointError::TooLarge { .. } | CheckpointError::Newer { .. } | CheckpointError::AllBad { .. } => {
            None
        }
    }
}

/// The header of the segment file at `path`, if it is valid and can be read.
fn header_at(storage: &dyn Storage, path: &Path) -> Option<SegmentHeader> {
    let file = storage.open(path, OpenMode::Read).ok()?;
    header_of(file.as_ref()).ok()?.ok()
}

/// Whose the segments are by most of their headers, where as many speak for two by the name of the directory; and whether
/// their frames came through a raft log.
fn whose(
    storage: &dyn Storage,
    dir: &Path,
    segments: &[SegmentPath],
    headers: &[Option<SegmentHeader>],
) -> (Option<ClusterId>, Option<LogId>, bool) {
    let headers = segments.iter().zip(headers).filter_map(|(segment, header)| Some((segment, (*header)?)));
    let headers: Vec<(&SegmentPath, SegmentHeader)> = headers.collect();
    let named = log_of(dir);
    let mut votes: Vec<((ClusterId, LogId), usize)> = Vec::new();
    for (_, header) in &headers {
        let owner = (header.cluster, header.log);
        match votes.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => votes.push((owner, 1)),
        }
    }
    // Of equals the first one stands: the last of the reversed is what `max_by_key` takes.
    let most = votes.iter().rev().max_by_key(|((_, log), count)| (*count, named == Some(*log)));
    let Some(((cluster, log), _)) = most.copied() else { return (None, None, false) };
    let tag = LogTag::of(cluster, log);
    for (segment, _) in headers.iter().filter(|(_, header)| (header.cluster, header.log) == (cluster, log)) {
        let Ok(file) = storage.open(&segment.path, OpenMode::Read) else { continue };
        let from = segment::summary::FIRST_FRAME;
        let mut walk = Walk::new(file.as_ref(), tag, Depth::Headers, from, segment.len, None);
        if let Ok(Step::Frame(walked)) = walk.step()
            && walked.batch.is_some()
        {
            return (Some(cluster), Some(log), walked.header.raft_index.get() != 0);
        }
    }
    (Some(cluster), Some(log), false)
}

/// A part as a finding about the file at `path`.
pub(super) fn finding(path: &Path, log: Option<LogId>, part: &Part) -> Option<Finding> {
    use super::label::Label;
    let (why, offsets) =
        if let Label::TornTail { why } = &part.label { (why, None) } else { part.label.bad()? };
    let (path, why, offsets) = (path.to_path_buf(), why.clone(), offsets.cloned());
    Some(Finding { path, log, bytes: part.bytes.clone(), offsets, why })
}

/// The first byte of a file that is not there.
pub(super) const NOWHERE: std::ops::Range<u64> = 0..0;

impl Target {
    /// The segments that are asked about.
    fn asked(&self) -> impl Iterator<Item = &SegmentPath> {
        self.logs
            .iter()
            .flat_map(|files| files.segments.iter().filter(|segment| files.is_asked(segment.base)))
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.asked().map(|segment| segment.len).sum()
    }

    /// Their number.
    #[must_use]
    pub fn files(&self) -> u64 {
        wide(self.asked().count())
    }
}

/// A position in the segment that was active at a checkpoint.
pub(super) fn active_position(state: &LogState) -> Option<(Offset, Position)> {
    (state.active_position > Position::ZERO).then_some((state.active_base, state.active_position))
}
