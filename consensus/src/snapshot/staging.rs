//! `DATA/staging/<group>/`: where a snapshot gathers before anything of it is used.
//!
//! | name | holds |
//! |---|---|
//! | `manifest` | the manifest that is being fetched, whole |
//! | `<generation>-<partition>-<base>.part` | a file on its way; its length says how far it has come |
//! | `<generation>-<partition>-<base>.seg` | a file that is whole, verified and synced |
//!
//! A `.part` may hold anything after a crash: it is verified as a whole before it becomes a `.seg`. A
//! `.seg` of an older manifest is verified again, or continued. Names that are none of these are removed.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::segment;
use tidelog_engine::storage::{File, OpenMode, Storage, create_dir_durably, read_whole, replace_file};
use tidelog_wire::ids::{Generation, GroupId, LogId, Offset, Partition};

use super::error::{SnapshotError, io, unsynced};
use super::manifest::{Manifest, digest};
use crate::core::MANIFEST_BYTES_MAX;

/// The staging directory of one group.
#[derive(Clone, Debug)]
pub(super) struct Staging {
    pub(super) storage: Arc<dyn Storage>,
    data_dir: PathBuf,
    dir: PathBuf,
}

/// How far a file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Part,
    Whole,
}

impl Staging {
    pub(super) fn new(storage: Arc<dyn Storage>, data_dir: &Path, group: GroupId) -> Self {
        let dir = data_dir.join("staging").join(group.to_string());
        Self { storage, data_dir: data_dir.to_owned(), dir }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `DATA/logs/<generation>/<partition>/<base>.seg`.
    pub(super) fn place(&self, log: LogId, base: Offset) -> PathBuf {
        place(&self.data_dir, log, base)
    }

    /// Makes a segment durable where it lies, with every name on the way to it.
    pub(super) fn sync_in_place(&self, log: LogId, base: Offset) -> Result<(), SnapshotError> {
        let path = self.place(log, base);
        let file = self.storage.open(&path, OpenMode::ReadWrite).map_err(io(&path, "open the file"))?;
        file.sync().map_err(unsynced(&path))?;
        let dir = log_dir(&self.data_dir, log);
        create_dir_durably(&*self.storage, &self.data_dir, &dir).map_err(unsynced(&dir))?;
        self.storage.sync_dir(&dir).map_err(unsynced(&dir))
    }

    pub(super) fn path(&self, log: LogId, base: Offset, kind: Kind) -> PathBuf {
        let name = segment::file_name(base);
        let stem = name.strip_suffix(".seg").unwrap_or(&name);
        let suffix = match kind {
            Kind::Part => "part",
            Kind::Whole => "seg",
        };
        self.dir.join(format!("{}-{}-{stem}.{suffix}", log.generation, log.partition))
    }

    pub(super) fn make(&self) -> Result<(), SnapshotError> {
        create_dir_durably(&*self.storage, &self.data_dir, &self.dir)
            .map_err(io(&self.dir, "make the directory"))
    }

    /// The manifest with that digest, if it is here and whole.
    pub(super) fn manifest(&self, expected: u64) -> Result<Option<(Manifest, Bytes)>, SnapshotError> {
        let path = self.dir.join("manifest");
        let bytes = match read_whole(&*self.storage, &path, MANIFEST_BYTES_MAX) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::FileTooLarge => {
                return Ok(None);
            }
            Err(source) => return Err(SnapshotError::Io { path, action: "read the manifest", source }),
        };
        if digest(&bytes) != expected {
            return Ok(None);
        }
        Ok(Manifest::decode(&bytes).ok().map(|manifest| (manifest, bytes)))
    }

    pub(super) fn keep_manifest(&self, bytes: &[u8]) -> Result<(), SnapshotError> {
        let path = self.dir.join("manifest");
        replace_file(&*self.storage, &path, bytes).map_err(io(&path, "write the manifest"))
    }

    /// Opens a file, or `None` if there is none.
    pub(super) fn open(&self, path: &Path, mode: OpenMode) -> Result<Option<Arc<dyn File>>, SnapshotError> {
        match self.storage.open(path, mode) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SnapshotError::Io { path: path.to_owned(), action: "open the file", source }),
        }
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), SnapshotError> {
        self.storage.rename(from, to).map_err(io(from, "rename the file"))?;
        self.storage.sync_dir(&self.dir).map_err(unsynced(&self.dir))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), SnapshotError> {
        match self.storage.remove(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(source) => {
                Err(SnapshotError::Io { path: path.to_owned(), action: "remove the file", source })
            }
        }
    }

    /// Every file here that `wanted` does not claim is removed.
    pub(super) fn sweep(&self, wanted: impl Fn(LogId, Offset) -> bool) -> Result<(), SnapshotError> {
        let entries = self.storage.list(&self.dir).map_err(io(&self.dir, "list the directory"))?;
        for entry in entries {
            let claimed = entry.name == "manifest"
                || parse_name(&entry.name).is_some_and(|(log, base)| wanted(log, base));
            if !claimed {
                self.remove(&self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }

    /// Removes everything, once it was used. What cannot be removed costs space and nothing else.
    pub(super) fn discard(&self) -> io::Result<()> {
        let entries = match self.storage.list(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            self.storage.remove(&self.dir.join(entry.name))?;
        }
        self.storage.remove_dir(&self.dir)
    }
}

/// Groups of which something lies in staging.
#[must_use]
pub fn staged_groups(storage: &dyn Storage, data_dir: &Path) -> Vec<GroupId> {
    let entries = storage.list(&data_dir.join("staging")).unwrap_or_default();
    entries.iter().filter_map(|entry| entry.name.parse().ok()).map(GroupId).collect()
}

/// Removes all that lies in staging of a group. Nothing may be fetched into it or switched to meanwhile.
///
/// # Errors
/// The system's; some may be left.
pub fn discard_staged(storage: &Arc<dyn Storage>, data_dir: &Path, group: GroupId) -> io::Result<()> {
    Staging::new(Arc::clone(storage), data_dir, group).discard()
}

/// `DATA/logs/<generation>/<partition>/<base>.seg`.
pub(super) fn place(data_dir: &Path, log: LogId, base: Offset) -> PathBuf {
    log_dir(data_dir, log).join(segment::file_name(base))
}

/// `DATA/logs/<generation>/<partition>`.
pub(super) fn log_dir(data_dir: &Path, log: LogId) -> PathBuf {
    data_dir.join("logs").join(log.generation.to_string()).join(log.partition.to_string())
}

pub(super) fn parse_name(name: &str) -> Option<(LogId, Offset)> {
    let stem = name.strip_suffix(".part").or_else(|| name.strip_suffix(".seg"))?;
    let mut parts = stem.splitn(3, '-');
    let generation = Generation(parts.next()?.parse().ok()?);
    let partition = Partition(parts.next()?.parse().ok()?);
    let base = Offset(parts.next()?.parse().ok()?);
    Some((LogId { generation, partition }, base))
}
