//! The disk's floor as an operation of the benchmarks; what it is stands in `tidelog_engine::storage::floor`. Its file lies
//! beside the data that it is compared with, on the same file system.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::floor;

use crate::clock;
use crate::error::{BenchError, Doing as _};
use crate::rounds::Operation;

/// Name of the operation in reports.
pub(crate) const SYNC: &str = "write + fdatasync";

/// Writes and syncs the same bytes again and again.
#[derive(Debug)]
pub(crate) struct SyncFloor {
    floor: floor::SyncFloor,
    bytes: Bytes,
}

impl SyncFloor {
    /// Fills the file `sync-floor` in `folder` and syncs it.
    pub(crate) fn prepare(folder: &Path, bytes: Bytes) -> Result<Self, BenchError> {
        let path = folder.join("sync-floor");
        let floor = floor::SyncFloor::prepare(&OsStorage, &path);
        let floor = floor.doing(&format!("prefill {}", path.display()))?;
        Ok(Self { floor, bytes })
    }
}

impl Operation for SyncFloor {
    fn name(&self) -> &'static str {
        SYNC
    }

    fn once(&mut self) -> Result<Duration, BenchError> {
        let (written, took) = clock::timed(|| self.floor.write_and_sync(&self.bytes));
        written.doing("write and sync")?;
        Ok(took)
    }
}
