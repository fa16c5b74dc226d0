//! Open segment files, the least recently used closed first, within a budget.
//!
//! Only for reading. A writer holds its own handles, so that the system reports a failed write-back
//! to the handle that wrote. The index of a sealed segment is kept with its file and goes with it.
//!
//! A file is known by the opening of its log too (`crate::log::lives`): what a late reader of an earlier one
//! opens is never handed to the readers of the next, whose file may be another one of the same name.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use tidelog_wire::ids::{LogId, Offset};

use crate::locks::{Arc, Mutex, OnceLock, PoisonError};
use crate::segment::footer::IndexEntry;
use crate::segment::salvage::Salvage;
use crate::storage::{OpenMode, Storage};

/// Which segment of which log.
pub(crate) type SegmentKey = (LogId, Offset);

/// The same, in one opening of the log.
type Key = (LogId, Offset, u64);

/// A segment file open for reading.
#[derive(Debug)]
pub(crate) struct OpenSegment {
    /// Read around what the disk refuses: then what lies around it can still be found.
    pub(crate) file: Arc<Salvage>,
    /// The index, once somebody needed it. Only of sealed segments, which do not change.
    pub(crate) index: OnceLock<Vec<IndexEntry>>,
}

#[derive(Debug, Default)]
struct Lru {
    files: BTreeMap<Key, (Arc<OpenSegment>, u64)>,
    by_use: BTreeMap<u64, Key>,
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

    /// The file at `path`, opened if it is not by this opening of the log.
    pub(crate) fn open(
        &self,
        storage: &dyn Storage,
        (log, base): SegmentKey,
        life: u64,
        path: &Path,
    ) -> io::Result<Arc<OpenSegment>> {
        let key = (log, base, life);
        if let Some(open) = self.hit(key) {
            return Ok(open);
        }
        let file = Arc::new(Salvage::new(storage.open(path, OpenMode::Read)?));
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

    fn hit(&self, key: Key) -> Option<Arc<OpenSegment>> {
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
    pub(crate) fn close(&self, (log, base): SegmentKey) {
        self.close_between((log, base, 0), (log, base, u64::MAX));
    }

    /// Closes all files of a log.
    pub(crate) fn close_log(&self, log: LogId) {
        self.close_between((log, Offset::ZERO, 0), (log, Offset(u64::MAX), u64::MAX));
    }

    fn close_between(&self, first: Key, last: Key) {
        let mut lru = self.lru.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Key> = lru.files.range(first..=last).map(|(key, _)| *key).collect();
        let closed: Vec<_> = keys.into_iter().filter_map(|key| lru.forget(key)).collect();
        // Not under the lock: the system gives a large file that was unlinked back when it is closed.
        drop(lru);
        drop(closed);
    }

    /// How many files are open.
    pub(crate) fn len(&self) -> usize {
        self.lru.lock().unwrap_or_else(PoisonError::into_inner).files.len()
    }
}

impl Lru {
    fn forget(&mut self, key: Key) -> Option<Arc<OpenSegment>> {
        let (open, used) = self.files.remove(&key)?;
        self.by_use.remove(&used);
        Some(open)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tidelog_wire::ids::{Generation, Partition};

    use super::*;
    use crate::storage::sim_disk::SimDisk;

    #[test]
    fn the_least_recently_used_file_is_closed_first() {
        let disk = SimDisk::new(1).storage();
        let key = |base| (LogId { generation: Generation(1), partition: Partition(0) }, Offset(base));
        let path = |base: u64| PathBuf::from(format!("/{base}"));
        for base in 0..3 {
            disk.open(&path(base), OpenMode::CreateNew).unwrap();
        }
        let files = OpenFiles::new(2);
        let first = files.open(disk.as_ref(), key(0), 1, &path(0)).unwrap();
        files.open(disk.as_ref(), key(1), 1, &path(1)).unwrap();
        assert!(Arc::ptr_eq(&first, &files.open(disk.as_ref(), key(0), 1, &path(0)).unwrap()), "still open");
        files.open(disk.as_ref(), key(2), 1, &path(2)).unwrap();
        assert_eq!(files.len(), 2);
        assert!(files.hit((key(0).0, key(0).1, 1)).is_some());
        assert!(files.hit((key(1).0, key(1).1, 1)).is_none(), "used least recently");
    }
}
