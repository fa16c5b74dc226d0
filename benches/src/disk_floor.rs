//! The disk's floor: the same bytes written to a file that is there already, and synced, one at a time.

use std::path::Path;
use std::sync::Arc;

use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{File, OpenMode, Position, Storage};

use crate::Failure;

/// A file full of zeros, written over from its beginning.
#[derive(Debug)]
pub struct DiskFloor {
    file: Arc<dyn File>,
    bytes: Vec<u8>,
    at: u64,
    len: u64,
}

impl DiskFloor {
    /// A file at `path` with room for `operations` of `bytes` each, zeros and synced.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn new(path: &Path, bytes: usize, operations: usize) -> Result<Self, Failure> {
        let len = u64::try_from(bytes.saturating_mul(operations.saturating_add(1)))?;
        let file = OsStorage.open(path, OpenMode::CreateNew)?;
        file.prefill(Position::ZERO, len)?;
        file.sync()?;
        Ok(Self { file, bytes: vec![b'f'; bytes], at: 0, len })
    }

    /// One write and one sync.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&mut self) -> Result<(), Failure> {
        let bytes = u64::try_from(self.bytes.len())?;
        if self.at.saturating_add(bytes) > self.len {
            self.at = 0;
        }
        self.file.write_at(Position(self.at), &[&self.bytes])?;
        self.at = self.at.saturating_add(bytes);
        Ok(self.file.sync()?)
    }
}
