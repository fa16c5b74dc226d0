//! Taking in a segment file that was made elsewhere: byte-identical on every replica, so a copy of
//! another's is as good as one's own.

use std::io;
use std::path::Path;

use tidelog_wire::ids::{LogId, Offset};

use crate::engine::Engine;
use crate::segment;
use crate::storage::{create_dir_durably, parent};

impl Engine {
    /// Puts the file `from`, on the same file system, into the place of segment `base` of `log`, over
    /// what is there. Durable on return, and repeatable as long as `from` is there.
    ///
    /// The file must be whole, verified and synced. The log must not be open for appends; readers see
    /// the file when the log is opened again.
    ///
    /// # Errors
    /// The system's. The file is in one of the two places, whole.
    pub fn adopt_segment(&self, log: LogId, base: Offset, from: &Path) -> io::Result<()> {
        let core = &self.core;
        let dir = core.log_dir(log);
        create_dir_durably(core.storage.as_ref(), &core.data_dir, &dir)?;
        core.keep.spare(&[(log, base)]);
        core.storage.rename(from, &dir.join(segment::file_name(base)))?;
        core.open_files.close((log, base));
        core.storage.sync_dir(&dir)?;
        core.storage.sync_dir(parent(from))
    }
}
