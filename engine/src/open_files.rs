//! Open segment files, the least recently used closed first, within a budget.
//!
//! Only for reading. A writer holds its own handles, so that the system reports a failed write-back
//! to the handle that wrote. The index of a sealed segment is kept with its file and goes with it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tidelog_wire::ids::{LogId, Offset};

use crate::locks::{Arc, Mutex, OnceLock, PoisonError};
use crate::segment::footer::IndexEntry;
use crate::storage::{File, OpenMode, Storage};

/// Which segment of which log.
pub(crate) type SegmentKey = (LogId, Offset);

/// A segment file open for reading.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    pub(crate) file: Arc<dyn File>,
    /// The index, once somebody needed it. Only of sealed segments, which do not change.
    pub(crate) index: OnceLock<Vec<IndexEntry>>,
}

#[derive(Debug, Default)]
struct Lru {
    files: BTreeMap<SegmentKey, (Arc<OpenSegment>, u64)>,
    by_use: BTreeMap<u64, SegmentKey>,
    uses: u64,
}

/// The open files of an engine.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    budget: usize,
    lru: Mutex<Lru>,
}

impl OpenFiles {
    pub(crate) fn new(budget: usize) -> Self {
        Self { budget: budget.max(1), lru: Mutex::new(Lru::default()) }
    }

    /// The file at `path`, opened if it is not.
    pub(crate) fn open(
        &self,
        storage: &dyn Storage,
        key: SegmentKey,
        path: &Path,
    ) -> io::Result<Arc<OpenSegment>> {
        if let Some(open) = self.hit(key) {
            return Ok(open);
        }
        let file = storage.open(path, OpenMode::Read)?;
        let open = Arc::new(OpenSegment { file, index: OnceLock::new() });
        let mut guard = self.lru.lock().unwrap_or_else(PoisonError::into_inner);
        let lru = &mut *guard;
        lru.forget(key);
        lru.uses = lru.uses.wrapping_add(1);
        lru.files.insert(key, (Arc::clone(&open), lru.uses));
        lru.by_use.insert(lru.uses, key);
        while lru.files.len() > self.budget {
            let Some((_, oldest)) = lru.by_use.pop_first() else { break };
            lru.files.remove(&oldest);
        }
        Ok(open)
    }

    fn hit(&self, key: SegmentKey) -> Option<Arc<OpenSegment>> {
        let mut guard = self.lru.lock().unwrap_or_else(PoisonError::into_inner);
        let lru = &mut *guard;
        let now = lru.uses.wrapping_add(1);
        let (open, used) = lru.files.get_mut(&key)?;
        let before = std::mem::replace(used, now);
        lru.uses = now;
        lru.by_use.remove(&before);
        lru.by_use.insert(now, key);
        Some(Arc::clone(open))
    }

    /// Closes one file: its content or name is about to change.
    pub(crate) fn close(&self, key: SegmentKey) {
        self.lru.lock().unwrap_or_else(PoisonError::into_inner).forget(key);
    }

    /// Closes all files of a log.
    pub(crate) fn close_log(&self, log: LogId) {
        let mut lru = self.lru.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<SegmentKey> =
            lru.files.range((log, Offset::ZERO)..=(log, Offset(u64::MAX))).map(|(key, _)| *key).collect();
        for key in keys {
            lru.forget(key);
        }
    }

    /// How many files are open.
    pub(crate) fn len(&self) -> usize {
        self.lru.lock().unwrap_or_else(PoisonError::into_inner).files.len()
    }
}

impl Lru {
    fn forget(&mut self, key: SegmentKey) {
        if let Some((_, used)) = self.files.remove(&key) {
            self.by_use.remove(&used);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tidelog_wire::ids::{Generation, Partition};

    use super::*;
    use crate::sim_disk::SimDisk;

    #[test]
    fn the_least_recently_used_file_is_closed_first() {
        let disk = SimDisk::new(1).storage();
        let key = |base| (LogId { generation: Generation(1), partition: Partition(0) }, Offset(base));
        let path = |base: u64| PathBuf::from(format!("/{base}"));
        for base in 0..3 {
            disk.open(&path(base), OpenMode::CreateNew).unwrap();
        }
        let files = OpenFiles::new(2);
        let first = files.open(disk.as_ref(), key(0), &path(0)).unwrap();
        files.open(disk.as_ref(), key(1), &path(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &files.open(disk.as_ref(), key(0), &path(0)).unwrap()), "still open");
        files.open(disk.as_ref(), key(2), &path(2)).unwrap();
        assert_eq!(files.len(), 2);
        assert!(files.hit(key(0)).is_some());
        assert!(files.hit(key(1)).is_none(), "used least recently");
    }
}
