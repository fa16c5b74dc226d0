//! Carrying a plan out.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};

use tidelog_wire::ids::TimestampMs;

use super::plan::plan;
use super::{Action, RepairError, Repaired, Step};
use crate::directory::lock;
use crate::directory::quarantine::{Limits, Quarantine};
use crate::fields::{narrow, wide};
use crate::log::recovery::files::is_zeros;
use crate::offline::error::{OfflineError, failed};
use crate::offline::target::find;
use crate::segment::header::SEGMENT_HEADER_BYTES;
use crate::segment::salvage::Salvage;
use crate::storage::{File, OpenMode, Position, Storage, create_dir_durably, parent};

/// Bytes copied at a time.
const STEP_BYTES: u64 = 1 << 20;

/// Nothing leaves quarantine for a repair.
const KEEP_ALL: Limits = Limits { bytes_max: u64::MAX, age_ms_max: u64::MAX };

/// Mends what lies at `path`, with the help of another copy at `from`, at the time `now`. Durable on return.
///
/// If the files lie in a data directory, its lock is held meanwhile. May be interrupted and called again. `progress` is told what
/// [`plan`] tells it.
///
/// # Errors
/// [`RepairError::Lock`]: nothing was changed. The others: some steps may have been done, each wholly or so that calling
/// again does it.
pub fn repair(
    storage: &dyn Storage,
    path: &Path,
    from: Option<&Path>,
    now: TimestampMs,
    progress: &mut dyn FnMut(u64),
) -> Result<Repaired, RepairError> {
    let data_dir = find(storage, path)?.data_dir;
    let held = data_dir.as_deref().map(|dir| lock::take(storage, dir)).transpose()?;
    let target = find(storage, path)?;
    let from = from.map(|from| find(storage, from)).transpose()?;
    let plan = plan(storage, &target, from.as_ref(), progress);
    let mut work = Work { storage, data_dir, now, backups: Vec::new() };
    for step in &plan.steps {
        work.step(step)?;
    }
    drop(held);
    Ok(Repaired { plan, backups: work.backups })
}

struct Work<'a> {
    storage: &'a dyn Storage,
    data_dir: Option<PathBuf>,
    now: TimestampMs,
    backups: Vec<PathBuf>,
}

impl Work<'_> {
    fn step(&mut self, step: &Step) -> Result<(), RepairError> {
        let path = step.path.as_path();
        match &step.action {
            Action::Header { bytes } => {
                let range = 0..wide(SEGMENT_HEADER_BYTES);
                self.back_up(path, &range, "a segment header that does not verify; it was made anew")?;
                let file = self.open(path)?;
                file.write_at(Position::ZERO, &[bytes]).map_err(failed(path, "write the header of"))?;
                file.sync().map_err(failed(path, "sync"))?;
            }
            Action::Fill { bytes, from, .. } => {
                self.back_up(path, bytes, "bytes that do not verify; they were filled from another copy")?;
                let file = self.open(path)?;
                let copy = self.storage.open(from, OpenMode::Read).map_err(failed(from, "open"))?;
                copy_range(copy.as_ref(), file.as_ref(), bytes).map_err(failed(path, "fill a hole of"))?;
                file.sync().map_err(failed(path, "sync"))?;
            }
            Action::Seal { at, bytes } => {
                self.back_up(path, &(*at..u64::MAX), "not the index and footer that follow from the frames")?;
                let file = self.open(path)?;
                file.write_at(Position(*at), &[bytes]).map_err(failed(path, "write the footer of"))?;
                let end = at.saturating_add(wide(bytes.len()));
                file.truncate(end).map_err(failed(path, "cut to size"))?;
                file.sync().map_err(failed(path, "sync"))?;
            }
            Action::CutTail { bytes, .. } => {
                self.back_up(
                    path,
                    bytes,
                    "a torn tail: bytes that nobody was promised and that do not verify",
                )?;
                let file = self.open(path)?;
                file.truncate(bytes.start).map_err(failed(path, "cut the torn tail of"))?;
                file.sync().map_err(failed(path, "sync"))?;
            }
            Action::SetAside => {
                let why = "it has no place here";
                let aside = self.quarantine(path).set_aside_file(self.storage, path, why, self.now)?;
                self.backups.push(aside.path);
            }
            Action::Rename { to } => self.rename(path, to)?,
            Action::Place { from, len, .. } => self.place(path, from, *len)?,
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> Result<std::sync::Arc<dyn File>, OfflineError> {
        self.storage.open(path, OpenMode::ReadWrite).map_err(failed(path, "open"))
    }

    /// The data directory, or the directory that holds that of the log.
    fn root<'a>(&'a self, path: &'a Path) -> &'a Path {
        self.data_dir.as_deref().unwrap_or_else(|| parent(parent(path)))
    }

    fn quarantine(&self, path: &Path) -> Quarantine {
        Quarantine::new(self.root(path), KEEP_ALL)
    }

    /// Copies what lies in a range to quarantine, durably; zeros are not worth a copy.
    fn back_up(&mut self, path: &Path, range: &Range<u64>, why: &str) -> Result<(), RepairError> {
        let file = Salvage::new(self.storage.open(path, OpenMode::Read).map_err(failed(path, "open"))?);
        let end = file.len().map_err(failed(path, "size"))?.min(range.end);
        if is_zeros(&file, Position(range.start), end).map_err(failed(path, "read"))? {
            return Ok(());
        }
        let (from, to) = (Position(range.start), Position(end));
        let aside = self.quarantine(path).set_aside_range(self.storage, path, from, to, why, self.now)?;
        self.backups.push(aside.path);
        Ok(())
    }

    /// Gives a file its own name, where nothing stands.
    fn rename(&self, path: &Path, to: &Path) -> Result<(), OfflineError> {
        let action = "rename a segment back to";
        match self.storage.open(to, OpenMode::Read) {
            Ok(_) => return Err(failed(to, action)(ErrorKind::AlreadyExists.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(to, action)(error)),
        }
        let dir = parent(to);
        self.storage.rename(path, to).map_err(failed(to, action))?;
        self.storage.sync_dir(dir).map_err(failed(dir, "sync the directory"))
    }

    /// Writes a copy aside and renames it into its place.
    fn place(&self, path: &Path, from: &Path, len: u64) -> Result<(), RepairError> {
        let storage = self.storage;
        let root = self.root(path);
        let (aside, dir) = (root.join("repair"), parent(path));
        let staged = aside.join("segment.part");
        create_dir_durably(storage, root, &aside).map_err(failed(&aside, "make the directory"))?;
        create_dir_durably(storage, root, dir).map_err(failed(dir, "make the directory"))?;
        match storage.remove(&staged) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(failed(&staged, "remove")(error).into());
            }
            Ok(()) | Err(_) => {}
        }
        let copy = storage.open(from, OpenMode::Read).map_err(failed(from, "open"))?;
        let file = storage.open(&staged, OpenMode::CreateNew).map_err(failed(&staged, "create"))?;
        copy_range(copy.as_ref(), file.as_ref(), &(0..len)).map_err(failed(&staged, "write"))?;
        file.sync().map_err(failed(&staged, "sync"))?;
        drop(file);
        storage.rename(&staged, path).map_err(failed(path, "put a segment in place"))?;
        storage.sync_dir(dir).map_err(failed(dir, "sync the directory"))?;
        storage.remove_dir(&aside).map_err(failed(&aside, "remove"))?;
        storage.sync_dir(root).map_err(failed(root, "sync the directory"))?;
        Ok(())
    }
}

/// Copies a range to the same place of another file.
fn copy_range(from: &dyn File, to: &dyn File, bytes: &Range<u64>) -> io::Result<()> {
    let mut at = bytes.start;
    while at < bytes.end {
        let step = bytes.end.saturating_sub(at).min(STEP_BYTES);
        let mut buffer = vec![0; narrow(step)];
        from.read_at(Position(at), &mut buffer)?;
        to.write_at(Position(at), &[&buffer])?;
        at = at.saturating_add(step);
    }
    Ok(())
}
