//! The hand-over between the node's threads: whoever reads takes all that waits at once.
//!
//! What is handed over belongs to something that the core let out, and the core bounds that by bytes and by count. So no
//! thread ever waits for another one's queue, and no two can wait for each other.
//!
//! Only for work that a thread of its own must do, because it waits for the disk: the others have a [`Desk`](super::desk).
//!
//! Not here: what is handed over.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::desk::Waited;

/// What waits for one thread.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// An empty one.
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State { items: Vec::new(), closed: false }), arrived: Condvar::new() }
    }

    fn locked(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `item` in. Once closed, it is dropped.
    pub(super) fn push(&self, item: T) {
        let mut state = self.locked();
        if state.closed {
            return;
        }
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
    fn what_waits_is_handed_out_after_closing() {
        let mailbox = Mailbox::new();
        mailbox.push(1);
        mailbox.close();
        mailbox.push(2);
        let mut items = Vec::new();
        assert_eq!(mailbox.take_all(&mut items, None), Waited::Open);
        assert_eq!(items, [1]);
        items.clear();
        assert_eq!(mailbox.take_all(&mut items, None), Waited::Closed);
    }

    #[test]
    fn a_waiting_reader_is_woken() {
        let mailbox = Mailbox::new();
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
