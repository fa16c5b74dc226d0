//! Waiting for a log to grow, without polling: callbacks that run once.
//!
//! A reader waits for what **it** will see: for the append, or for the sync that makes it durable. So the
//! two kinds wait apart, and neither is woken by what only the other can see.
//!
//! A callback is run outside the locks of this module, on the thread that made the log grow, so it should do
//! no more than wake somebody. That thread may be within the log's writer, under the lock of a
//! [`SharedLog`](crate::embedded::SharedLog): a callback that appends to, syncs or trims the same log waits for itself. Dropping the [`Subscription`] takes it back.

use std::collections::BTreeMap;
use std::{fmt, mem};

use tidelog_wire::ids::Offset;

use super::reader::Visible;
use crate::locks::{Arc, Mutex, MutexGuard, PoisonError};

type Callback = Box<dyn FnOnce() + Send>;

/// What a callback waits for, and a number that tells it from others that wait for the same.
type Key = (Offset, u64);

#[derive(Default)]
struct Waiting {
    next: u64,
    appended: BTreeMap<Key, Callback>,
    durable: BTreeMap<Key, Callback>,
    ended: bool,
}

impl Waiting {
    fn who_see(&mut self, visible: Visible) -> &mut BTreeMap<Key, Callback> {
        match visible {
            Visible::Appended => &mut self.appended,
            Visible::Durable => &mut self.durable,
        }
    }
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
    visible: Visible,
    key: Key,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let taken_back = self.watch.waiting().who_see(self.visible).remove(&self.key);
        // Not under the lock: what the callback holds may come back here when it goes.
        drop(taken_back);
    }
}

impl Watch {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers `callback` to run when what is visible ends above `offset`. The caller looks at the
    /// end once more afterwards and calls [`Watch::advanced`], so that no growth is missed.
    pub(crate) fn register(
        self: &Arc<Self>,
        visible: Visible,
        offset: Offset,
        callback: Callback,
    ) -> Subscription {
        let mut waiting = self.waiting();
        let key = (offset, waiting.next);
        waiting.next = waiting.next.wrapping_add(1);
        waiting.who_see(visible).insert(key, callback);
        let ended = waiting.ended;
        drop(waiting);
        if ended {
            self.end();
        }
        Subscription { watch: Arc::clone(self), visible, key }
    }

    /// What is `visible` ends at `end` now: runs the callbacks that wait for less.
    pub(crate) fn advanced(&self, visible: Visible, end: Offset) {
        let mut waiting = self.waiting();
        let all = waiting.who_see(visible);
        if all.first_key_value().is_none_or(|((offset, _), _)| *offset >= end) {
            return;
        }
        let later = all.split_off(&(end, 0));
        let due = mem::replace(all, later);
        drop(waiting);
        run(due);
    }

    /// Runs all callbacks, now and from now on at once: nothing comes any more.
    pub(crate) fn end(&self) {
        let mut waiting = self.waiting();
        waiting.ended = true;
        let (appended, durable) = (mem::take(&mut waiting.appended), mem::take(&mut waiting.durable));
        drop(waiting);
        run(appended);
        run(durable);
    }
}

fn run(due: BTreeMap<Key, Callback>) {
    for callback in due.into_values() {
        callback();
    }
}
