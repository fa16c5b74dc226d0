//! The hand-over between the node's threads: whoever reads takes all that waits at once.
//!
//! A mailbox has two doors. [`Mailbox::offer`] is for what comes from outside: beyond the limit it is
//! refused, never waited for. [`Mailbox::push`] is for what a thread of the node answers to another: each
//! answer belongs to something that the core let out, and the core bounds those by bytes and by count.
//! So no thread ever waits for another one's queue, and no two can wait for each other.
//!
//! Not here: what is handed over.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What waits for one thread.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    items_max: usize,
    bytes_max: usize,
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    /// Of what was offered and waits.
    bytes: usize,
    closed: bool,
}

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

impl<T> Mailbox<T> {
    /// An empty one that takes offers while fewer than `items_max` items and `bytes_max` bytes wait.
    pub(super) const fn new(items_max: usize, bytes_max: usize) -> Self {
        let state = Mutex::new(State { items: Vec::new(), bytes: 0, closed: false });
        Self { items_max, bytes_max, state, arrived: Condvar::new() }
    }

    fn locked(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `item` in, unless as much as allowed waits already. One item is taken whatever its `bytes`.
    pub(super) fn offer(&self, item: T, bytes: usize) -> Result<(), NotTaken> {
        let mut state = self.locked();
        if state.closed {
            return Err(NotTaken::Closed);
        }
        let after = state.bytes.saturating_add(bytes);
        if state.items.len() >= self.items_max || state.bytes > 0 && after > self.bytes_max {
            return Err(NotTaken::Full);
        }
        state.bytes = after;
        self.put(state, item);
        Ok(())
    }

    /// Puts `item` in. Once closed, it is dropped.
    pub(super) fn push(&self, item: T) {
        let state = self.locked();
        if !state.closed {
            self.put(state, item);
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, item: T) {
        let was_empty = state.items.is_empty();
        state.items.push(item);
        drop(state);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Waits until there is something, and moves all of it into the empty `into`. With a `timeout`
    /// it may stay empty.
    pub(super) fn take_all(&self, into: &mut Vec<T>, timeout: Option<Duration>) -> Waited {
        let waits = |state: &mut State<T>| state.items.is_empty() && !state.closed;
        let state = self.locked();
        let mut state = match timeout {
            None => self.arrived.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.arrived.wait_timeout_while(state, timeout, waits);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        std::mem::swap(into, &mut state.items);
        state.bytes = 0;
        if into.is_empty() && state.closed { Waited::Closed } else { Waited::Open }
    }

    /// Waits until it is closed, but no longer than `timeout`; whether it is.
    pub(super) fn closed_within(&self, timeout: Duration) -> bool {
        let open = |state: &mut State<T>| !state.closed;
        let waited = self.arrived.wait_timeout_while(self.locked(), timeout, open);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Takes no more. What waits is still handed out.
    pub(super) fn close(&self) {
        self.locked().closed = true;
        self.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_stop_at_the_limits_answers_do_not() {
        let mailbox = Mailbox::new(2, 100);
        assert_eq!(mailbox.offer(1, 10), Ok(()));
        assert_eq!(mailbox.offer(2, 91), Err(NotTaken::Full));
        assert_eq!(mailbox.offer(2, 90), Ok(()));
        assert_eq!(mailbox.offer(3, 0), Err(NotTaken::Full));
        mailbox.push(4);
        let mut items = Vec::new();
        assert_eq!(mailbox.take_all(&mut items, None), Waited::Open);
        assert_eq!(items, [1, 2, 4]);
        assert_eq!(mailbox.offer(5, 1_000), Ok(()), "a large one alone is taken");
    }

    #[test]
    fn what_waits_is_handed_out_after_closing() {
        let mailbox = Mailbox::new(2, 100);
        mailbox.push(1);
        mailbox.close();
        mailbox.push(2);
        assert_eq!(mailbox.offer(3, 0), Err(NotTaken::Closed));
        let mut items = Vec::new();
        assert_eq!(mailbox.take_all(&mut items, None), Waited::Open);
        assert_eq!(items, [1]);
        items.clear();
        assert_eq!(mailbox.take_all(&mut items, None), Waited::Closed);
    }

    #[test]
    fn a_waiting_reader_is_woken() {
        let mailbox = Mailbox::new(2, 100);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut items = Vec::new();
                mailbox.take_all(&mut items, None);
                items
            });
            mailbox.push(7);
            assert_eq!(reader.join().unwrap(), [7]);
        });
    }
}
