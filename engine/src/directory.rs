//! Looking at a data directory as a whole, before any log is opened: identity, checkpoints, names.
//!
//! 1. Of the identity's two copies the table says which is used. What stands in the place of a bad one is
//!    moved to quarantine before it is written again.
//! 2. Each group's checkpoints are read. Those that were passed over for an older one go to quarantine, so
//!    that no later checkpoint takes their place unseen. A group without a valid one keeps everything as it is.
//! 3. Names that no log and no checkpoint has are moved to quarantine.
//!
//! One bad group, log or name costs itself. Each finding has its row and is told in the report.

pub mod identity;
pub(crate) mod keep;
pub mod lock;
pub mod quarantine;
pub(crate) mod room;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tidelog_wire::ids::{Generation, GroupId, LogId, Partition, TimestampMs};

use crate::checkpoint::CheckpointError;
use crate::checkpoint::store::{self, KEPT};
use crate::checkpoint::table::{self, Verdict as CheckpointVerdict};
use crate::core::{Core, Mode};
use crate::directory::identity::{Identity, IdentityError, OpenedIdentity};
use crate::directory::quarantine::Quarantine;
use crate::engine::OpenError;
use crate::locks::PoisonError;
use crate::log::recovery::table::{Place, Seen, Verdict, decide};
use crate::report::DirectoryFinding;
use crate::storage::{EntryKind, Storage, parent};

/// Reads the identity, raises its boot epoch and heals a bad copy, which goes to quarantine first. A full
/// disk is given the room of the reserve.
pub(crate) fn take_identity(
    storage: &dyn Storage,
    dir: &Path,
    quarantine: &Quarantine,
    now: TimestampMs,
) -> Result<(OpenedIdentity, Vec<DirectoryFinding>), IdentityError> {
    let found = Identity::read(storage, dir)?;
    let mut findings = Vec::new();
    if let Some(path) = &found.healed {
        let why = "a copy of the identity that does not verify; it is written again from the other";
        let said = match quarantine.set_aside_file(storage, path, why, now) {
            Ok(aside) => format!("set aside as {}, written again", aside.path.display()),
            Err(error) if error.source.kind() == ErrorKind::NotFound => "missing, written again".to_owned(),
            Err(error) => format!("written again; {error}"),
        };
        findings.push(DirectoryFinding { row: found.row, path: path.clone(), said });
    }
    let opened = match Identity::open(storage, dir) {
        Err(error) if error.is_full() && room::give_away(storage, dir) => Identity::open(storage, dir),
        opened => opened,
    }?;
    Ok((OpenedIdentity { healed: found.healed, row: found.row, ..opened }, findings))
}

impl Core {
    /// Takes note of something about the directory as a whole.
    pub(crate) fn note(&self, row: &'static str, path: PathBuf, said: impl Into<String>) {
        let finding = DirectoryFinding { row, path, said: said.into() };
        tracing::warn!(row, path = %finding.path.display(), said = finding.said, "found in the data directory");
        self.report.lock().unwrap_or_else(PoisonError::into_inner).found(finding);
    }

    fn decided(&self, rows: impl IntoIterator<Item = &'static str>) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            let count = report.rows.entry(row).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Moves something that does not belong where it is, and tells so.
    pub(crate) fn displace(&self, row: &'static str, path: &Path, why: &str) {
        match self.set_aside_file(path, why) {
            Ok(aside) => {
                self.note(row, path.to_path_buf(), format!("{why}; set aside as {}", aside.piece.display()));
            }
            Err(error) => self.note(row, path.to_path_buf(), format!("{why}; it stays: {error}")),
        }
    }

    /// Reads every group's checkpoints, so that nothing they name is unlinked.
    pub(crate) fn look_at_checkpoints(&self) -> Result<(), CheckpointError> {
        let (storage, data) = (self.storage.as_ref(), self.data_dir.as_path());
        for group in store::groups(storage, data)? {
            store::sync_names(storage, data, group)?;
            let dir = store::group_dir(data, group);
            match store::load(storage, data, group) {
                Ok(Some(loaded)) => {
                    for checkpoint in loaded.older.iter().chain([&loaded.newest]) {
                        self.keep.named(checkpoint, KEPT);
                    }
                    self.decided(loaded.rows);
                    for (entry, fault) in &loaded.bad {
                        self.keep.blind();
                        let row = table::of_fault(*fault).name;
                        self.displace(row, &dir.join(store::file_name(*entry)), &fault.to_string());
                    }
                }
                Ok(None) => self.decided(["checkpoint_none"]),
                Err(error) => {
                    self.keep.blind();
                    let lost = self.mode == Mode::Embedded && group == GroupId::META && error.is_all_bad();
                    let row = if lost { table::decide(0, table::Seen::StartsLost).name } else { error.row() };
                    self.note(row, dir.clone(), error.to_string());
                }
            }
            self.look_at_strays(&dir);
        }
        Ok(())
    }

    fn look_at_strays(&self, dir: &Path) {
        let strays = match store::strays(self.storage.as_ref(), dir) {
            Ok(strays) => strays,
            Err(error) => return self.note("unlisted", dir.to_path_buf(), error.to_string()),
        };
        for (path, row) in strays {
            match row.verdict {
                CheckpointVerdict::Remove => {
                    let bytes = self.remove_counted(&path);
                    self.note(
                        row.name,
                        path,
                        bytes.map_or_else(
                            |error| format!("it stays: {error}"),
                            |bytes| format!("{bytes} bytes of a checkpoint that was never finished, removed"),
                        ),
                    );
                }
                CheckpointVerdict::SetAside => {
                    self.displace(row.name, &path, "its name is not that of a checkpoint");
                }
                CheckpointVerdict::Newest
                | CheckpointVerdict::Older
                | CheckpointVerdict::Surplus
                | CheckpointVerdict::PassOver
                | CheckpointVerdict::Done
                | CheckpointVerdict::FromFiles
                | CheckpointVerdict::Refuse => {}
            }
        }
    }

    fn remove_counted(&self, path: &Path) -> io::Result<u64> {
        let bytes = self.storage.open(path, crate::storage::OpenMode::Read)?.len()?;
        self.storage.remove(path)?;
        self.storage.sync_dir(parent(path))?;
        Ok(bytes)
    }

    /// The logs that have a directory. With `displacing` what else lies there is moved to quarantine; else it
    /// is passed over.
    pub(crate) fn logs_on_disk(&self, displacing: bool) -> Result<Vec<LogId>, OpenError> {
        let dir = self.logs_dir();
        let mut logs = Vec::new();
        for (generation, path) in self.numbered(&dir, displacing)? {
            match self.numbered(&path, displacing) {
                Ok(partitions) => logs.extend(partitions.into_iter().filter_map(|(partition, _)| {
                    let partition = Partition(u32::try_from(partition).ok()?);
                    Some(LogId { generation: Generation(generation), partition })
                })),
                // One bad directory costs its own logs; that nothing of theirs is removed, `blind` sees to.
                Err(error) if displacing => {
                    self.keep.blind();
                    self.note("unlisted", path, error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(logs)
    }

    /// The directories in `dir` whose names are numbers, plainly written.
    fn numbered(&self, dir: &Path, displacing: bool) -> Result<Vec<(u64, PathBuf)>, OpenError> {
        let entries = match self.storage.list(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(OpenError::Io { path: dir.to_path_buf(), action: "list the logs", source });
            }
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = dir.join(&entry.name);
            let number = entry.name.parse::<u64>().ok().filter(|number| number.to_string() == entry.name);
            match (entry.kind, number) {
                (EntryKind::Directory, Some(number)) => found.push((number, path)),
                (EntryKind::File | EntryKind::Directory | EntryKind::Other, _) => {
                    let row = decide(self.mode, Place::AboveMark, Seen::UnknownName);
                    if displacing && row.verdict == Verdict::SetAside {
                        self.displace(row.name, &path, "its name is not that of a log's directory");
                    }
                }
            }
        }
        Ok(found)
    }
}
