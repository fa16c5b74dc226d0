//! The combining lock: whoever brings work does it, and what others bring meanwhile.
//!
//! A hand-over from one thread to another costs more here than most of the work that is handed over. So work has a
//! **desk** instead of a thread: a queue, and a worker behind a lock that nobody ever waits for.
//!
//! 1. Who brings an item puts it into the queue, and tries the worker's lock.
//! 2. If the lock is free, it takes all that waits, lets the worker do it, lets go of the lock, and **looks at the queue
//!    again**.
//! 3. If it is not free, somebody else is at 2 and will look at the queue after it has let go: there is nothing more to do.
//!
//! Why nothing is left behind: an item is in the queue before its bringer tries the lock. If that fails, the holder's look
//! comes after its unlocking, which comes after the bringer's attempt, so the look finds the item. If the holder's look came
//! before the item, the holder had let go before that, and the attempt found the lock free, or held by another who looks later.
//! The races of this file are tried in many orders in `tests/desk.rs`.
//!
//! A bringer does a bounded number of rounds. Then, or when it may not do the work itself, it calls the desk's thread, which
//! waits in [`Desk::wait`].
//!
//! Two doors lead to the queue: [`Desk::offer`] is for what comes from outside, and is refused beyond the limit; [`Desk::put`]
//! is for what a thread of the node answers to another, which the core bounds. Neither ever waits.
//!
//! A worker that panicked leaves the lock poisoned: nobody works at this desk any more, and its thread finds that out.
//!
//! Not here: what the work is, and who may do it where.

use std::time::Duration;

use super::locks::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};

/// Why something offered was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// The limit is reached.
    Full,
    /// Nobody reads any more.
    Closed,
}

/// What a wait ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// There is something, or the time is over.
    Open,
    /// Closed, and all that waited has been taken.
    Closed,
}

/// Does what was brought.
pub(super) trait Worker<I> {
    /// What is left to do once the lock is free again.
    type After;

    /// Does all `items`, and leaves none.
    fn work(&mut self, items: &mut Vec<I>) -> Self::After;
}

/// A queue, and the worker that empties it.
pub(super) struct Desk<I, W> {
    items_max: usize,
    bytes_max: usize,
    queue: Mutex<Queue<I>>,
    called: Condvar,
    worker: Mutex<Seat<I, W>>,
}

struct Queue<I> {
    items: Vec<I>,
    /// Of what was offered and waits.
    bytes: usize,
    /// The desk's thread shall come.
    called: bool,
    closed: bool,
}

struct Seat<I, W> {
    worker: Option<W>,
    /// The queue's memory, in turns.
    spare: Vec<I>,
}

/// What came of an attempt to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worked {
    /// Nothing waits, or somebody else is at it.
    Done,
    /// Something waits still, or may: also if nobody is seated.
    Left,
    /// The worker panicked, here or elsewhere.
    Broken,
}

impl<I, W: Worker<I>> Desk<I, W> {
    /// An empty one that takes offers while fewer than `items_max` items and `bytes_max` bytes wait.
    pub(super) fn new(items_max: usize, bytes_max: usize) -> Self {
        let queue = Queue { items: Vec::new(), bytes: 0, called: false, closed: false };
        let seat = Seat { worker: None, spare: Vec::new() };
        Self {
            items_max,
            bytes_max,
            queue: Mutex::new(queue),
            called: Condvar::new(),
            worker: Mutex::new(seat),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<I>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the desk its worker. Until then everything waits.
    pub(super) fn seat(&self, worker: W) {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).worker = Some(worker);
    }

    /// Takes the worker away, once whoever works now is done. What waits stays.
    ///
    /// To be called at the end of the desk's thread, so that the worker does not outlive the node.
    pub(super) fn leave(&self) -> Option<W> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).worker.take()
    }

    /// Puts `item` in, unless as much as allowed waits already. One item is taken whatever its `bytes`.
    pub(super) fn offer(&self, item: I, bytes: usize) -> Result<(), NotTaken> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(NotTaken::Closed);
        }
        let after = queue.bytes.saturating_add(bytes);
        if queue.items.len() >= self.items_max || queue.bytes > 0 && after > self.bytes_max {
            return Err(NotTaken::Full);
        }
        queue.bytes = after;
        queue.items.push(item);
        Ok(())
    }

    /// Puts `item` in. Once closed, it is dropped.
    pub(super) fn put(&self, item: I) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.items.push(item);
        }
    }

    /// Works until nothing waits, or somebody else is at it; `rounds` times at most. `after` is done whenever the lock is free.
    pub(super) fn work(&self, rounds: u32, mut after: impl FnMut(W::After)) -> Worked {
        self.work_if(rounds, |_, _| true, &mut after)
    }

    /// The same, as long as `may` says so of the worker and what waits.
    pub(super) fn work_if(
        &self,
        rounds: u32,
        may: impl Fn(&W, &[I]) -> bool,
        mut after: impl FnMut(W::After),
    ) -> Worked {
        for _ in 0..rounds {
            let done = {
                let mut seat = match self.worker.try_lock() {
                    Ok(seat) => seat,
                    Err(TryLockError::WouldBlock) => return Worked::Done,
                    Err(TryLockError::Poisoned(_)) => return Worked::Broken,
                };
                let Seat { worker: Some(worker), spare } = &mut *seat else { return Worked::Left };
                if !self.take(spare, |items| may(worker, items)) {
                    return Worked::Left;
                }
                (!spare.is_empty()).then(|| worker.work(spare))
            };
            if let Some(done) = done {
                after(done);
            }
            if self.queue().items.is_empty() {
                return Worked::Done;
            }
        }
        Worked::Left
    }

    /// Moves all that waits into the empty `into`, if `may` allows it.
    fn take(&self, into: &mut Vec<I>, may: impl Fn(&[I]) -> bool) -> bool {
        let mut queue = self.queue();
        into.clear();
        if queue.items.is_empty() {
            return true;
        }
        if !may(&queue.items) {
            return false;
        }
        std::mem::swap(into, &mut queue.items);
        queue.bytes = 0;
        true
    }

    /// Asks the desk's thread to come.
    pub(super) fn call(&self) {
        let mut queue = self.queue();
        let called = std::mem::replace(&mut queue.called, true);
        drop(queue);
        if !called {
            self.called.notify_one();
        }
    }

    /// For the desk's thread: ends when it is called, after `timeout`, or when the desk is closed.
    pub(super) fn wait(&self, timeout: Duration) -> Waited {
        let idle = |queue: &mut Queue<I>| !queue.called && !queue.closed;
        let waited = self.called.wait_timeout_while(self.queue(), timeout, idle);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        queue.called = false;
        if queue.closed && queue.items.is_empty() { Waited::Closed } else { Waited::Open }
    }

    /// Takes no more. What waits can still be worked off.
    pub(super) fn close(&self) {
        self.queue().closed = true;
        self.called.notify_all();
    }

    /// Everything that waits now.
    #[cfg(test)]
    pub(super) fn taken(&self) -> Vec<I> {
        std::mem::take(&mut self.queue().items)
    }
}

impl<I, W> std::fmt::Debug for Desk<I, W> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Desk").finish_non_exhaustive()
    }
}
