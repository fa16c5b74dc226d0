//! Taking in a segment file that was made elsewhere: byte-identical on every replica, so a copy of
//! another's is as good as one's own.

use std::io::{self, ErrorKind};
use std::path::Path;

use tidelog_wire::ids::{LogId, Offset};

use crate::core::Core;
use crate::directory::quarantine::QuarantineError;
use crate::engine::Engine;
use crate::fields::{narrow, wide};
use crate::segment;
use crate::storage::{File, OpenMode, Position, create_dir_durably, parent};

/// Bytes compared at once.
const STEP: u64 = 64 << 10;

impl Engine {
    /// Puts the file `from`, on the same file system, into the place of segment `base` of `log`. What lies
    /// there goes to quarantine, unless `from` begins with the same bytes. Durable on return, and repeatable
    /// as long as `from` is there.
    ///
    /// The file must be whole, verified and synced. The log must not be open for appends; readers see
    /// the file when the log is opened again.
    ///
    /// # Errors
    /// The system's, also for the quarantine. The file is in one of the two places, whole.
    pub fn adopt_segment(&self, log: LogId, base: Offset, from: &Path) -> io::Result<()> {
        let core = &self.core;
        let dir = core.log_dir(log);
        create_dir_durably(core.storage.as_ref(), &core.data_dir, &dir)?;
        core.keep.spare(&[(log, base)]);
        let to = dir.join(segment::file_name(base));
        core.make_way(from, &to).map_err(|error| io::Error::new(error.source.kind(), error))?;
        core.storage.rename(from, &to)?;
        core.open_files.close((log, base));
        core.storage.sync_dir(&dir)?;
        core.storage.sync_dir(parent(from))
    }
}

impl Core {
    /// Before the file `from` takes the place `to`: moves what lies there to quarantine, unless all its bytes
    /// are at the head of `from`, as those of a replica that fell behind are.
    pub(crate) fn make_way(&self, from: &Path, to: &Path) -> Result<(), QuarantineError> {
        let old = match self.storage.open(to, OpenMode::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened,
        };
        // What cannot be compared is kept.
        let compared = old.and_then(|old| {
            let new = self.storage.open(from, OpenMode::Read)?;
            begins_with(new.as_ref(), old.as_ref())
        });
        if !compared.unwrap_or(false) {
            self.set_aside_file(to, "a snapshot's file of other bytes takes its place")?;
        }
        Ok(())
    }
}

/// Whether all bytes of `part` are those at the head of `whole`.
fn begins_with(whole: &dyn File, part: &dyn File) -> io::Result<bool> {
    let len = part.len()?;
    if len > whole.len()? {
        return Ok(false);
    }
    let mut at = 0;
    while at < len {
        let step = narrow(len.saturating_sub(at).min(STEP));
        if whole.read(Position(at), step)? != part.read(Position(at), step)? {
            return Ok(false);
        }
        at = at.saturating_add(wide(step));
    }
    Ok(true)
}
