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
    /// How many are removing it. Nobody opens it before they are done.
    removers: u32,
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
        let known = logs.entry(log).or_default();
        if known.taken != Taken::No || known.removers > 0 {
            return None;
        }
        known.taken = Taken::Reserved;
        Some(Reservation { lives: self, log })
    }

    /// Keeps everybody from opening the log while the caller removes it. `None` if somebody is just
    /// opening it: the files that he reads must not go meanwhile.
    pub(crate) fn remove(&self, log: LogId) -> Option<Removal<'_>> {
        let mut logs = self.logs();
        let known = logs.entry(log).or_default();
        if known.taken == Taken::Reserved {
            return None;
        }
        known.removers = known.removers.saturating_add(1);
        Some(Removal { lives: self, log, latest: known.latest.upgrade() })
    }

    /// The log, which the caller has reserved, has a writer now. Ends the opening before.
    pub(crate) fn opened(&self, log: &Arc<LogShared>) {
        let now = Known { taken: Taken::Open, removers: 0, latest: Arc::downgrade(log) };
        let before = self.logs().insert(log.id, now);
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
        forget_unused(&mut self.logs(), log.id);
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

impl Default for Known {
    fn default() -> Self {
        Self { taken: Taken::No, removers: 0, latest: Weak::new() }
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
        if let Some(known) = logs.get_mut(&self.log).filter(|known| known.taken == Taken::Reserved) {
            known.taken = Taken::No;
        }
        forget_unused(&mut logs, self.log);
    }
}

/// A log that is being removed. It may be opened when this is dropped.
#[derive(Debug)]
pub(crate) struct Removal<'a> {
    lives: &'a Lives,
    log: LogId,
    /// Its latest opening, if anybody holds a handle of it.
    pub(crate) latest: Option<Arc<LogShared>>,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        // Before the lock is taken: it may be the last handle, which takes the lock when it goes.
        self.latest = None;
        let mut logs = self.lives.logs();
        if let Some(known) = logs.get_mut(&self.log) {
            known.removers = known.removers.saturating_sub(1);
        }
        forget_unused(&mut logs, self.log);
    }
}

/// Forgets a log that nobody has, opens, removes or reads.
fn forget_unused(logs: &mut BTreeMap<LogId, Known>, log: LogId) {
    let unused =
        |known: &Known| known.taken == Taken::No && known.removers == 0 && known.latest.strong_count() == 0;
    if logs.get(&log).is_some_and(unused) {
        logs.remove(&log);
    }
}
