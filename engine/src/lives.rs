//! Which logs are open, and who still holds handles of an earlier opening.
//!
//! A log has one writer at a time; those being opened are taken already. Readers and sync jobs may
//! outlive their writer. When the log is removed or opened again the opening they belong to is ended:
//! they are told, and never shown the files of the next one. So only the latest opening of a log is
//! kept here, and not even that once nobody holds a handle of it.
//!
//! Each opening has a number that no other has, by which what is cached of its files is told apart.

use std::collections::BTreeMap;
use std::ptr;

use tidelog_wire::ids::LogId;

use crate::locks::atomic::{AtomicU64, Ordering};
use crate::locks::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use crate::log::shared::{Ended, LogShared};

/// Who may write to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    No,
    /// Somebody is about to open it, or moves its files.
    Reserved,
    /// It has a writer.
    Open,
}

#[derive(Debug)]
struct Known {
    taken: Taken,
    latest: Weak<LogShared>,
}

/// The logs that are open, and those that somebody still reads.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    logs: Mutex<BTreeMap<LogId, Known>>,
    openings: AtomicU64,
}

impl Lives {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<LogId, Known>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for an opening.
    pub(crate) fn number(&self) -> u64 {
        self.openings.fetch_add(1, Ordering::SeqCst)
    }

    /// Keeps the log for the caller, who is about to open it. `None` if somebody has or opens it.
    pub(crate) fn reserve(&self, log: LogId) -> Option<Reservation<'_>> {
        let mut logs = self.logs();
        let known = logs.entry(log).or_insert(Known { taken: Taken::No, latest: Weak::new() });
        if known.taken != Taken::No {
            return None;
        }
        known.taken = Taken::Reserved;
        Some(Reservation { lives: self, log })
    }

    /// The log, which the caller has reserved, has a writer now. Ends the opening before.
    pub(crate) fn opened(&self, log: &Arc<LogShared>) {
        let before = self.logs().insert(log.id, Known { taken: Taken::Open, latest: Arc::downgrade(log) });
        // Not under the lock: it may be the last handle, which comes here when it goes.
        if let Some(before) = before.and_then(|known| known.latest.upgrade()) {
            before.end(Ended::Reopened);
        }
    }

    /// A writer was dropped: the log may be opened again.
    pub(crate) fn closed(&self, log: &LogShared) {
        if let Some(known) = self.logs().get_mut(&log.id).filter(|known| known.is(log)) {
            known.taken = Taken::No;
        }
    }

    /// The last handle of an opening was dropped.
    pub(crate) fn left(&self, log: &LogShared) {
        let mut logs = self.logs();
        if logs.get(&log.id).is_some_and(|known| known.is(log) && known.taken == Taken::No) {
            logs.remove(&log.id);
        }
    }

    /// The latest opening of a log, if anybody holds a handle of it.
    pub(crate) fn latest(&self, log: LogId) -> Option<Arc<LogShared>> {
        self.logs().get(&log).and_then(|known| known.latest.upgrade())
    }

    /// Does something to a log that nobody has or opens, nor will before it is done. It is told whether
    /// the same holds for all logs of the generation, which share a directory.
    pub(crate) fn unless_taken(&self, log: LogId, work: impl FnOnce(bool)) {
        let logs = self.logs();
        if logs.get(&log).is_none_or(|known| known.taken == Taken::No) {
            let same_generation = logs.iter().filter(|(other, _)| other.generation == log.generation);
            work(same_generation.into_iter().all(|(_, known)| known.taken == Taken::No));
        }
        drop(logs);
    }
}

impl Known {
    fn is(&self, log: &LogShared) -> bool {
        ptr::eq(self.latest.as_ptr(), log)
    }
}

/// A log that is being opened. If no writer came of it when this is dropped, the log is free again.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    lives: &'a Lives,
    log: LogId,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut logs = self.lives.logs();
        let Some(known) = logs.get_mut(&self.log).filter(|known| known.taken == Taken::Reserved) else {
            return;
        };
        known.taken = Taken::No;
        if known.latest.strong_count() == 0 {
            logs.remove(&self.log);
        }
    }
}
