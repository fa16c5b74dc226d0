//! Virtual time: what happens next, and when. Things that fall on the same microsecond happen in the
//! order in which they were scheduled.

use std::collections::BTreeMap;
use std::fmt;

/// Microseconds since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Micros(pub u64);

impl Micros {
    /// This much later.
    #[must_use]
    pub const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{:06} s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// What is to happen.
#[derive(Debug)]
pub struct Schedule<E> {
    now: Micros,
    number: u64,
    events: BTreeMap<(Micros, u64), E>,
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self { now: Micros(0), number: 0, events: BTreeMap::new() }
    }
}

impl<E> Schedule<E> {
    /// The present.
    #[must_use]
    pub const fn now(&self) -> Micros {
        self.now
    }

    /// Schedules `event` for `micros` from now.
    pub fn after(&mut self, micros: u64, event: E) {
        self.number = self.number.saturating_add(1);
        self.events.insert((self.now.after(micros), self.number), event);
    }

    /// Goes on to the next event, which thereby is the present.
    pub fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        self.now = at;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_their_order() {
        let mut schedule = Schedule::default();
        schedule.after(5, "late");
        schedule.after(2, "first of two");
        schedule.after(2, "second of two");
        assert_eq!(schedule.pop(), Some("first of two"));
        assert_eq!(schedule.now(), Micros(2));
        schedule.after(1, "soon");
        assert_eq!(schedule.pop(), Some("second of two"));
        assert_eq!(schedule.pop(), Some("soon"));
        assert_eq!(schedule.pop(), Some("late"));
        assert_eq!(schedule.pop(), None);
    }
}
