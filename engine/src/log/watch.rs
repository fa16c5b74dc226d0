//! Waiting for a log to grow, without polling: callbacks that run once.
//!
//! A reader waits for what **it** will see: for the append, or for the sync that makes it durable. So the
//! two kinds wait apart, and neither is woken by what only the other can see.
//!
//! A callback is run on the thread that made the log grow, so it should do no more than wake somebody. It is run outside all
//! locks of the engine. Where the writer of an embedded log makes it due, under the lock of a
//! [`SharedLog`](crate::embedded::SharedLog) or while it leads others, it is put by ([`Watch::due`]), and run in order as
//! the last thing of the call ([`Watch::deliver`]), or by another thread whose call ends first. So it may append to, sync and
//! trim the same log. Dropping the [`Subscription`] takes it back.

use std::collections::BTreeMap;
use std::{fmt, mem};

use tidelog_wire::ids::Offset;

use super::reader::Visible;
use crate::locks::atomic::{AtomicBool, Ordering};
use crate::locks::{Arc, Mutex, MutexGuard, PoisonError};

type Callback = Box<dyn FnOnce() + Send>;

/// What a callback waits for, and a number that tells it from others that wait for the same.
type Key = (Offset, u64);

#[derive(Default)]
struct Waiting {
    next: u64,
    appended: BTreeMap<Key, Callback>,
    durable: BTreeMap<Key, Callback>,
    /// To be run by whoever ends a call first, in this order.
    put_by: Vec<(Visible, Key, Callback)>,
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
    /// There may be some that are put by: asked without the lock, after every append.
    any_put_by: AtomicBool,
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
        let mut waiting = self.watch.waiting();
        let taken_back = waiting.who_see(self.visible).remove(&self.key);
        let put_by =
            waiting.put_by.extract_if(.., |(visible, key, _)| (*visible, *key) == (self.visible, self.key));
        let put_by: Vec<_> = put_by.collect();
        drop(waiting);
        // Not under the lock: what the callback holds may come back here when it goes.
        drop((taken_back, put_by));
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
        self.due(visible, end);
        self.deliver();
    }

    /// The same, but they are run by the next [`Watch::deliver`]: the caller holds what they might ask for.
    pub(crate) fn due(&self, visible: Visible, end: Offset) {
        let mut waiting = self.waiting();
        let all = waiting.who_see(visible);
        if all.first_key_value().is_none_or(|((offset, _), _)| *offset >= end) {
            return;
        }
        let later = all.split_off(&(end, 0));
        let due = mem::replace(all, later);
        waiting.put_by.extend(due.into_iter().map(|(key, callback)| (visible, key, callback)));
        self.any_put_by.store(true, Ordering::Release);
    }

    /// Runs what is due. Not to be called under a lock, nor by who leads others.
    pub(crate) fn deliver(&self) {
        if self.any_put_by.load(Ordering::Acquire) {
            let mut waiting = self.waiting();
            self.any_put_by.store(false, Ordering::Release);
            let due = mem::take(&mut waiting.put_by);
            drop(waiting);
            for (_, _, callback) in due {
                callback();
            }
        }
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
