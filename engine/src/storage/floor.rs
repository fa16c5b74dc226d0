//! What the disk can do at its best: the same bytes written to a file that is there already, and synced.
//!
//! No log can make a batch durable with less. The file is filled with zeros and synced beforehand, so a sync has no
//! metadata to write; the writes go through it from front to back and begin again at the end. It is what every
//! measurement of an acknowledged append is set against, on the same file system and in the same run.
//!
//! Not here: clocks; who measures brings one.

use std::io;
use std::path::Path;

use super::{File, OpenMode, Position, Storage};
use crate::locks::Arc;

/// Bytes of the file: more than one cache of a disk's controller holds in a row, little enough to fill quickly.
const FILE_BYTES: u64 = 64 << 20;

/// Writes and syncs the same bytes again and again.
#[derive(Debug)]
pub struct SyncFloor {
    file: Arc<dyn File>,
    position: u64,
}

impl SyncFloor {
    /// Makes the file at `path`, fills it and syncs it.
    ///
    /// # Errors
    /// The disk's.
    pub fn prepare(storage: &dyn Storage, path: &Path) -> io::Result<Self> {
        let file = storage.open(path, OpenMode::CreateNew)?;
        file.prefill(Position(0), FILE_BYTES)?;
        file.sync()?;
        Ok(Self { file, position: 0 })
    }

    /// Writes `bytes` and syncs them; on return they are durable.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_and_sync(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.position.saturating_add(length) > FILE_BYTES {
            self.position = 0;
        }
        self.file.write_at(Position(self.position), &[bytes])?;
        self.position = self.position.saturating_add(length);
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim_disk::SimDisk;

    /// Writes that went past the end would change the file's length, which a sync then has to write too.
    #[test]
    fn writes_begin_again_at_the_end_and_never_make_the_file_longer() {
        let disk = SimDisk::new(1);
        let mut floor = SyncFloor::prepare(&disk, Path::new("/floor")).unwrap();
        let bytes = vec![7; 40 << 20];
        for _ in 0..3 {
            floor.write_and_sync(&bytes).unwrap();
        }
        assert_eq!((floor.file.len().unwrap(), floor.position), (FILE_BYTES, 40 << 20));
    }
}
