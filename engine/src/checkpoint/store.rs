//! Checkpoint files in `DATA/checkpoints/<group>/`: written beside the old ones, two kept.
//!
//! Why a crash anywhere leaves at least what was there: a new file gets its name only when it is
//! synced, the name is synced before an older file is removed, and a leftover `.tmp` is not a name
//! that [`list`] knows.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidelog_wire::ids::{GroupId, RaftIndex, Term};

use super::table::{self, Row, Seen, Verdict};
use super::{CHECKPOINT_BYTES_MAX, Checkpoint, CheckpointFault, EntryId};
use crate::fields::wide;
use crate::storage::{EntryKind, OpenMode, Storage, create_dir_durably, read_whole, replace_file};

/// Checkpoints kept of a group.
pub(crate) const KEPT: usize = 2;

/// Why checkpoints could not be written or loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The disk refused.
    #[error(
        "E0220 {path}: cannot {action}: {source}; nothing was compacted: check the disk, then restart the node"
    )]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's own error.
        source: io::Error,
    },
    /// It would be larger than what is read. Nothing was written.
    #[error(
        "E0224 checkpoint of group {group}: {bytes} bytes, at most {max} are read back; nothing was written, the \
         older ones stand: delete channels that are not needed, or spread them over more groups"
    )]
    TooLarge {
        /// Whose it is.
        group: GroupId,
        /// Its length.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// A newer release wrote the newest one. Nothing was changed.
    #[error(
        "E0225 {path}: {fault}; group {group} does not start and nothing was changed: start the version that wrote it"
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        group: GroupId,
        /// Its format.
        fault: CheckpointFault,
    },
    /// None of a group's checkpoints can be read.
    #[error(
        "E0221 {dir}: none of the {count} checkpoints of group {group} is valid (newest: {fault}); \
         no replica starts from them and nothing was changed: put a backup of the directory back"
    )]
    AllBad {
        /// Where they are.
        dir: PathBuf,
        /// Whose they are.
        group: GroupId,
        /// How many there are.
        count: usize,
        /// What is wrong with the newest.
        fault: CheckpointFault,
    },
}

impl CheckpointError {
    /// The row of the table that decided so.
    pub(crate) const fn row(&self) -> &'static str {
        match self {
            Self::AllBad { .. } => "checkpoint_none_valid",
            Self::Newer { .. } => "checkpoint_newer_format",
            Self::Io { .. } | Self::TooLarge { .. } => "unlisted",
        }
    }

    /// Whether there are some and none can be read.
    pub(crate) const fn is_all_bad(&self) -> bool {
        matches!(self, Self::AllBad { .. })
    }

    /// Whether there was no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => crate::log::error::is_full(source),
            Self::TooLarge { .. } | Self::Newer { .. } | Self::AllBad { .. } => false,
        }
    }
}

/// How a load went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointVerdict {
    /// The newest file is valid.
    Newest,
    /// One or more newer files are bad; an older one is used. A longer replay follows.
    FellBack {
        /// The bad ones, newest first, and what is wrong with each.
        bad: Vec<(EntryId, CheckpointFault)>,
    },
}

/// What [`crate::Engine::load_checkpoint`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedCheckpoint {
    /// The newest valid one.
    pub newest: Checkpoint,
    /// The entry of the valid one before it. The raft log may be compacted to this, and to nothing
    /// if there is none.
    pub older: Option<EntryId>,
    /// How it went.
    pub verdict: CheckpointVerdict,
}

/// The checkpoint directory of a group.
pub(crate) fn group_dir(data: &Path, group: GroupId) -> PathBuf {
    data.join("checkpoints").join(group.to_string())
}

/// The file name of a checkpoint: index and term, 20 digits each.
pub(crate) fn file_name(entry: EntryId) -> String {
    format!("{:020}-{:020}.ckpt", entry.index.get(), entry.term.get())
}

fn parse_name(name: &str) -> Option<EntryId> {
    let (index, term) = name.strip_suffix(".ckpt")?.split_once('-')?;
    let entry = EntryId { index: RaftIndex(index.parse().ok()?), term: Term(term.parse().ok()?) };
    (file_name(entry) == name).then_some(entry)
}

/// The checkpoints of a group by name, newest first. Empty if the group has none.
pub(crate) fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<EntryId>, CheckpointError> {
    let entries = match storage.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(dir, "list the checkpoints", source)),
    };
    let mut found: Vec<EntryId> = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .filter_map(|entry| parse_name(&entry.name))
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    Ok(found)
}

/// Writes `checkpoint` durably beside the others. One that [`read`] would refuse is not written.
pub(crate) fn write(
    storage: &dyn Storage,
    data: &Path,
    checkpoint: &Checkpoint,
) -> Result<(), CheckpointError> {
    write_within(storage, data, checkpoint, CHECKPOINT_BYTES_MAX)
}

/// [`write()`] with a limit of its own.
pub(super) fn write_within(
    storage: &dyn Storage,
    data: &Path,
    checkpoint: &Checkpoint,
    bytes_max: u64,
) -> Result<(), CheckpointError> {
    let encoded = checkpoint.encode();
    let bytes = wide(encoded.len());
    if bytes > bytes_max {
        return Err(CheckpointError::TooLarge { group: checkpoint.group, bytes, max: bytes_max });
    }
    let dir = group_dir(data, checkpoint.group);
    create_dir_durably(storage, data, &dir).map_err(|source| failed(&dir, "make the directory", source))?;
    let path = dir.join(file_name(checkpoint.applied));
    replace_file(storage, &path, &encoded).map_err(|source| failed(&path, "write the checkpoint", source))
}

/// Whether a checkpoint that could not be written may have got its name nevertheless.
pub(crate) fn may_be_there(storage: &dyn Storage, data: &Path, checkpoint: &Checkpoint) -> bool {
    let path = group_dir(data, checkpoint.group).join(file_name(checkpoint.applied));
    !storage.open(&path, OpenMode::Read).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Removes the files of a group other than those in `kept`.
pub(crate) fn remove_others(
    storage: &dyn Storage,
    dir: &Path,
    kept: &[EntryId],
) -> Result<(), CheckpointError> {
    let mut removed = false;
    for entry in list(storage, dir)? {
        if !kept.contains(&entry) {
            let path = dir.join(file_name(entry));
            storage.remove(&path).map_err(|source| failed(&path, "remove an old checkpoint", source))?;
            removed = true;
        }
    }
    if removed {
        storage.sync_dir(dir).map_err(|source| failed(dir, "sync the directory", source))?;
    }
    Ok(())
}

/// Reads one file and holds it against its name.
pub(crate) fn read(
    storage: &dyn Storage,
    dir: &Path,
    group: GroupId,
    entry: EntryId,
) -> Result<Checkpoint, CheckpointFault> {
    let path = dir.join(file_name(entry));
    let bytes = match read_whole(storage, &path, CHECKPOINT_BYTES_MAX) {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => return Err(CheckpointFault::NotACheckpoint),
        Err(error) => return Err(CheckpointFault::Unreadable { kind: error.kind() }),
    };
    Checkpoint::decode(&bytes).and_then(|checkpoint| {
        if checkpoint.group == group && checkpoint.applied == entry {
            Ok(checkpoint)
        } else {
            Err(CheckpointFault::Misplaced)
        }
    })
}

/// Loads the newest valid checkpoint of a group.
pub(crate) fn load(
    storage: &dyn Storage,
    data: &Path,
    group: GroupId,
) -> Result<Option<Loaded>, CheckpointError> {
    let dir = group_dir(data, group);
    let entries = list(storage, &dir)?;
    let (mut valid, mut bad, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for entry in &entries {
        // Behind two valid ones a file is surplus whatever is in it.
        let read = (valid.len() < KEPT).then(|| read(storage, &dir, group, *entry));
        let (seen, fault) = match &read {
            Some(Err(fault)) => (Seen::of(*fault), Some(*fault)),
            Some(Ok(_)) | None => (Seen::Valid, None),
        };
        let row = table::decide(valid.len(), seen);
        rows.push(row.name);
        match (row.verdict, read, fault) {
            (Verdict::Newest | Verdict::Older, Some(Ok(checkpoint)), _) => valid.push(checkpoint),
            (Verdict::PassOver, _, Some(fault)) => bad.push((*entry, fault)),
            (Verdict::Refuse, _, Some(fault)) => {
                return Err(CheckpointError::Newer { path: dir.join(file_name(*entry)), group, fault });
            }
            (
                Verdict::Newest
                | Verdict::Older
                | Verdict::Surplus
                | Verdict::PassOver
                | Verdict::SetAside
                | Verdict::Remove
                | Verdict::Done
                | Verdict::FromFiles
                | Verdict::Refuse,
                _,
                _,
            ) => {}
        }
    }
    let end = table::decide(valid.len(), if bad.is_empty() { Seen::NoMore } else { Seen::NoMoreGood });
    rows.push(end.name);
    if let (Verdict::Refuse, Some((_, fault))) = (end.verdict, bad.first()) {
        return Err(CheckpointError::AllBad { dir, group, count: entries.len(), fault: *fault });
    }
    let mut valid = valid.into_iter();
    Ok(valid.next().map(|newest| Loaded { newest, older: valid.next(), bad, rows }))
}

/// What lies in a group's directory that is no checkpoint, with the row that decides about it.
pub(crate) fn strays(
    storage: &dyn Storage,
    dir: &Path,
) -> Result<Vec<(PathBuf, &'static Row)>, CheckpointError> {
    let entries = storage.list(dir).map_err(|source| failed(dir, "list", source))?;
    let mut found = Vec::new();
    for entry in entries {
        let unfinished = entry.name.strip_suffix(".tmp").is_some_and(|name| parse_name(name).is_some());
        let seen = match entry.kind {
            EntryKind::File if parse_name(&entry.name).is_some() => continue,
            EntryKind::File if unfinished => Seen::Unfinished,
            EntryKind::File | EntryKind::Directory | EntryKind::Other => Seen::UnknownName,
        };
        found.push((dir.join(&entry.name), table::decide(0, seen)));
    }
    Ok(found)
}

/// The two newest valid checkpoints.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) newest: Checkpoint,
    pub(crate) older: Option<Checkpoint>,
    /// Passed over, newest first.
    pub(crate) bad: Vec<(EntryId, CheckpointFault)>,
    /// The rows of the table that decided.
    pub(crate) rows: Vec<&'static str>,
}

impl From<Loaded> for LoadedCheckpoint {
    fn from(loaded: Loaded) -> Self {
        let bad: Vec<_> =
            loaded.bad.into_iter().filter(|(entry, _)| *entry > loaded.newest.applied).collect();
        let verdict =
            if bad.is_empty() { CheckpointVerdict::Newest } else { CheckpointVerdict::FellBack { bad } };
        Self { newest: loaded.newest, older: loaded.older.map(|older| older.applied), verdict }
    }
}

/// Makes durable which checkpoints a group has. After a killed process a new one may be in the cache
/// only; files are unlinked because it no longer names them, so it must not be lost afterwards.
pub(crate) fn sync_names(storage: &dyn Storage, data: &Path, group: GroupId) -> Result<(), CheckpointError> {
    let dir = group_dir(data, group);
    storage.sync_dir(&dir).map_err(|source| failed(&dir, "sync the directory", source))?;
    let dir = data.join("checkpoints");
    storage.sync_dir(&dir).map_err(|source| failed(&dir, "sync the directory", source))
}

/// The groups that have a checkpoint directory.
pub(crate) fn groups(storage: &dyn Storage, data: &Path) -> Result<Vec<GroupId>, CheckpointError> {
    let dir = data.join("checkpoints");
    match storage.list(&dir) {
        Ok(entries) => Ok(entries.iter().filter_map(|entry| entry.name.parse().ok().map(GroupId)).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(failed(&dir, "list", source)),
    }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> CheckpointError {
    CheckpointError::Io { path: path.to_path_buf(), action, source }
}
