//! Waiting for a log to grow, without polling: callbacks that run once.
//!
//! A callback is only ever run outside the locks of the log, on the thread that made the log grow,
//! so it should do no more than wake somebody. Dropping the [`Subscription`] takes it back.

use std::collections::BTreeMap;
use std::fmt;

use tidelog_wire::ids::Offset;

use crate::locks::{Arc, Mutex, PoisonError};

type Callback = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Waiting {
    next: u64,
    callbacks: BTreeMap<u64, (Offset, Callback)>,
    ended: bool,
}

/// Who waits for a log.
#[derive(Default)]
pub(crate) struct Watch {
    waiting: Mutex<Waiting>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// A callback that waits; dropping this takes it back. It may just be running then.
#[derive(Debug)]
#[must_use = "dropping it takes the callback back"]
pub struct Subscription {
    watch: Arc<Watch>,
    number: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.watch.waiting.lock().unwrap_or_else(PoisonError::into_inner).callbacks.remove(&self.number);
    }
}

impl Watch {
    /// Registers `callback` to run when what is visible ends above `offset`. The caller looks at the
    /// end once more afterwards and calls [`Watch::advanced`], so that no growth is missed.
    pub(crate) fn register(self: &Arc<Self>, offset: Offset, callback: Callback) -> Subscription {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        waiting.callbacks.insert(number, (offset, callback));
        let ended = waiting.ended;
        drop(waiting);
        if ended {
            self.end();
        }
        Subscription { watch: Arc::clone(self), number }
    }

    /// Runs the callbacks that wait for less than `end`.
    pub(crate) fn advanced(&self, end: Offset) {
        self.run(|offset| offset < end);
    }

    /// Runs all callbacks, now and from now on at once: the log will not grow any more.
    pub(crate) fn end(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
        self.run(|_| true);
    }

    fn run(&self, due: impl Fn(Offset) -> bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.callbacks.is_empty() {
            return;
        }
        let numbers: Vec<u64> = waiting
            .callbacks
            .iter()
            .filter(|(_, (offset, _))| due(*offset))
            .map(|(number, _)| *number)
            .collect();
        let ready: Vec<Callback> = numbers
            .iter()
            .filter_map(|number| waiting.callbacks.remove(number))
            .map(|(_, run)| run)
            .collect();
        drop(waiting);
        for callback in ready {
            callback();
        }
    }
}
