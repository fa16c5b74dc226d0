//! The disk's floor: the same bytes written to a file that is there already, and synced, one at a time.
//!
//! No log can make a batch durable with less. The file is filled with zeros and synced beforehand, so a sync has no
//! metadata to write; the writes go through it from front to back and begin again at the end. It lies beside the data that
//! it is compared with, on the same file system.

#![expect(clippy::disallowed_methods, reason = "owns the file that the disk is measured with")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tidelog_wire::limits::MIB;

use crate::clock;
use crate::error::{BenchError, Doing as _};
use crate::rounds::Operation;

/// Bytes of the file: more than one cache of a disk's controller holds in a row, little enough to fill quickly.
const FILE_BYTES: usize = 64 * MIB;
/// Name of the operation in reports.
pub(crate) const SYNC: &str = "write + fdatasync";

/// Writes and syncs the same bytes again and again.
#[derive(Debug)]
pub(crate) struct SyncFloor {
    file: File,
    bytes: Bytes,
    position: usize,
}

impl SyncFloor {
    /// Fills the file `sync-floor` in `folder` and syncs it.
    pub(crate) fn prepare(folder: &Path, bytes: Bytes) -> Result<Self, BenchError> {
        let path = folder.join("sync-floor");
        let doing = format!("prefill {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).open(&path).doing(&doing)?;
        let zeros = vec![0; MIB];
        for position in (0..FILE_BYTES).step_by(MIB) {
            file.write_all_at(&zeros, at(position)).doing(&doing)?;
        }
        file.sync_all().doing(&doing)?;
        Ok(Self { file, bytes, position: 0 })
    }
}

impl Operation for SyncFloor {
    fn name(&self) -> &'static str {
        SYNC
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        if self.position + self.bytes.len() > FILE_BYTES {
            self.position = 0;
        }
        let (written, took) = clock::timed(|| {
            self.file.write_all_at(&self.bytes, at(self.position))?;
            self.file.sync_data()
        });
        written.doing("write and sync")?;
        self.position += self.bytes.len();
        Ok(took)
    }
}

fn at(position: usize) -> u64 {
    u64::try_from(position).unwrap_or(u64::MAX)
}
