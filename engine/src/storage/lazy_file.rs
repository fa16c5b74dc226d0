//! The writer's handle of a segment that nothing has been appended to since the start.
//!
//! Most logs of a node that starts are idle, and a descriptor for each would be what bounds their number. So the
//! file is opened by the first operation, and stays open from then on: whoever wrote must hear, by the same
//! handle, that the system failed to write back.

use std::io;
use std::path::PathBuf;

use tidelog_wire::ids::Offset;

use crate::locks::{Arc, OnceLock};
use crate::segment;
use crate::storage::{File, OpenMode, Position, Storage};

/// See the module.
#[derive(Debug)]
pub(crate) struct LazyFile {
    storage: Arc<dyn Storage>,
    dir: Arc<PathBuf>,
    base: Offset,
    opened: OnceLock<Arc<dyn File>>,
}

impl LazyFile {
    /// The file of the segment `base` in `dir`, which is there.
    pub(crate) fn new(storage: &Arc<dyn Storage>, dir: &Arc<PathBuf>, base: Offset) -> Self {
        Self { storage: Arc::clone(storage), dir: Arc::clone(dir), base, opened: OnceLock::new() }
    }

    fn file(&self) -> io::Result<&Arc<dyn File>> {
        if let Some(file) = self.opened.get() {
            return Ok(file);
        }
        let file = self.storage.open(&self.dir.join(segment::file_name(self.base)), OpenMode::ReadWrite)?;
        Ok(self.opened.get_or_init(|| file))
    }
}

impl File for LazyFile {
    fn ready(&self) -> io::Result<()> {
        self.file().map(drop)
    }

    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }

    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        self.file()?.read_at(position, buf)
    }

    fn read(&self, position: Position, len: usize) -> io::Result<Vec<u8>> {
        self.file()?.read(position, len)
    }

    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()> {
        self.file()?.write_at(position, parts)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file()?.truncate(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file()?.sync()
    }

    fn prefill(&self, position: Position, bytes: u64) -> io::Result<()> {
        self.file()?.prefill(position, bytes)
    }
}
