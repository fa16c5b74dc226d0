//! The readers of all open logs of a node, for whoever serves fetches.
//!
//! Apply puts a reader in when it opens a log and takes it out when it closes it. A reader in hand goes
//! on working until it is dropped; that its log is being deleted shows when it is asked for again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tidelog_engine::log::LogReader;
use tidelog_wire::ids::LogId;

/// Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct LogReaders {
    by_log: Arc<RwLock<BTreeMap<LogId, LogReader>>>,
}

impl LogReaders {
    /// The reader of a log, if it is open here.
    #[must_use]
    pub fn reader(&self, log: LogId) -> Option<LogReader> {
        self.by_log.read().unwrap_or_else(PoisonError::into_inner).get(&log).cloned()
    }

    /// The logs that are open here.
    #[must_use]
    pub fn logs(&self) -> Vec<LogId> {
        self.by_log.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    pub(super) fn insert(&self, log: LogId, reader: LogReader) {
        self.by_log.write().unwrap_or_else(PoisonError::into_inner).insert(log, reader);
    }

    pub(super) fn remove(&self, log: LogId) {
        self.by_log.write().unwrap_or_else(PoisonError::into_inner).remove(&log);
    }
}
