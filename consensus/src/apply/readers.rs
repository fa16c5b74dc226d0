//! The readers and the cursors of all open logs of a node, for whoever serves fetches.
//!
//! Apply puts a reader in when it opens a log and takes it out when it closes it. A reader in hand goes
//! on working until it is dropped; that its log is being deleted shows when it is asked for again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tidelog_engine::log::LogReader;
use tidelog_wire::ids::{LogId, Offset};

use super::cursors::Cursors;

/// Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct LogReaders {
    by_log: Arc<RwLock<BTreeMap<LogId, (LogReader, Cursors)>>>,
}

impl LogReaders {
    /// The reader of a log, if it is open here.
    #[must_use]
    pub fn reader(&self, log: LogId) -> Option<LogReader> {
        self.by_log.read().unwrap_or_else(PoisonError::into_inner).get(&log).map(|(reader, _)| reader.clone())
    }

    /// Where a cursor of a log stands, or the log's start if that is above it. `None` if the log is not open here, or
    /// has no such cursor. What is committed but not applied here yet is not seen: for the present position ask the
    /// leader, after a read barrier.
    #[must_use]
    pub fn cursor(&self, log: LogId, name: &str) -> Option<Offset> {
        let (reader, cursors) = self.open(log)?;
        cursors.find(name).map(|offset| offset.max(reader.start()))
    }

    /// All cursors of a log, as [`LogReaders::cursor`] answers them. `None` if the log is not open here.
    #[must_use]
    pub fn cursors(&self, log: LogId) -> Option<BTreeMap<String, Offset>> {
        let (reader, cursors) = self.open(log)?;
        let start = reader.start();
        Some(cursors.all().into_iter().map(|(name, offset)| (name, offset.max(start))).collect())
    }

    fn open(&self, log: LogId) -> Option<(LogReader, Cursors)> {
        self.by_log.read().unwrap_or_else(PoisonError::into_inner).get(&log).cloned()
    }

    /// The logs that are open here.
    #[must_use]
    pub fn logs(&self) -> Vec<LogId> {
        self.by_log.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(super) fn insert(&self, log: LogId, reader: LogReader, cursors: Cursors) {
        self.by_log.write().unwrap_or_else(PoisonError::into_inner).insert(log, (reader, cursors));
    }

    pub(super) fn remove(&self, log: LogId) {
        self.by_log.write().unwrap_or_else(PoisonError::into_inner).remove(&log);
    }
}
