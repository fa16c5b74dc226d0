//! The one loop that measures: each round does every operation once.
//!
//! - Disks here have a fast and a slow state, and processors are shared, so what is compared must be measured in the same
//!   moments: operations take turns one by one, never in blocks.
//! - Every second round goes through them backwards, so that none always follows the same one.
//! - Before each operation comes a pause as long as the operation before took: the slowest of three nodes is still writing
//!   when two have acknowledged, and the next operation should not pay for that.
//! - The first rounds warm up and are not counted.
//!
//! All samples are kept, in order, so that floors of one round can be added up; histograms are made of them afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::{self, Limit};
use crate::error::BenchError;

/// Rounds that are not counted.
const WARM_UP: u64 = 50;
/// Bounds of the pause before an operation.
const PAUSE_MIN: Duration = Duration::from_micros(300);
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Something that can be done again and again, and that knows how long the part of it takes which matters.
pub(crate) trait Operation {
    /// Its name in reports.
    fn name(&self) -> &'static str;
    /// Does it once.
    fn once(&mut self) -> Result<Duration, BenchError>;
}

/// What one operation took, round by round.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) samples: Vec<Duration>,
}

/// Raised when the run is to end early.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Raises it.
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), BenchError> {
        if self.0.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(()) }
    }
}

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Rounds that count.
    pub(crate) samples: u64,
    /// Longest time. On a slow disk there are fewer samples, and the report says so.
    pub(crate) time_max: Duration,
    /// Whether there is a pause before each operation.
    pub(crate) pause: bool,
}

/// Does the operations in turns until there are `plan.samples` of each, or the time is over.
///
/// The series come in the order of `operations` and are of one length.
pub(crate) fn measure(
    operations: &mut [&mut dyn Operation],
    plan: &Plan,
    stop: &Stop,
) -> Result<Vec<Series>, BenchError> {
    let series = |operation: &&mut dyn Operation| Series { name: operation.name(), samples: Vec::new() };
    let mut measured: Vec<Series> = operations.iter().map(series).collect();
    let limit = Limit::of(plan.time_max);
    let warm_up = WARM_UP.min(plan.samples);
    let mut last = Duration::ZERO;
    for round in 0..warm_up + plan.samples {
        if limit.is_over() && round > warm_up {
            break;
        }
        let mut turn = |operation: &mut dyn Operation, series: &mut Series| {
            stop.check()?;
            if plan.pause {
                clock::pause(last.clamp(PAUSE_MIN, PAUSE_MAX));
            }
            last = operation.once()?;
            if round >= warm_up {
                series.samples.push(last);
            }
            Ok(())
        };
        let mut turns = operations.iter_mut().zip(&mut measured);
        if round % 2 == 0 {
            turns.try_for_each(|(operation, series)| turn(*operation, series))?;
        } else {
            turns.rev().try_for_each(|(operation, series)| turn(*operation, series))?;
        }
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    struct Noted<'a>(&'static str, &'a RefCell<Vec<&'static str>>);

    impl Operation for Noted<'_> {
        fn name(&self) -> &'static str {
            self.0
        }

        fn once(&mut self) -> Result<Duration, BenchError> {
            self.1.borrow_mut().push(self.0);
            Ok(Duration::from_nanos(1))
        }
    }

    fn plan(samples: u64) -> Plan {
        Plan { samples, time_max: Duration::from_secs(60), pause: true }
    }

    #[test]
    fn operations_take_turns_forwards_and_backwards_and_the_warm_up_is_not_counted() {
        let order = RefCell::new(Vec::new());
        let (mut one, mut two) = (Noted("one", &order), Noted("two", &order));
        let measured = measure(&mut [&mut one, &mut two], &plan(2), &Stop::default()).unwrap();
        assert_eq!(*order.borrow(), ["one", "two", "two", "one", "one", "two", "two", "one"]);
        assert!(measured.iter().all(|series| series.samples.len() == 2), "{measured:?}");
    }

    #[test]
    fn a_stop_ends_the_run() {
        let order = RefCell::new(Vec::new());
        let stop = Stop::default();
        stop.raise();
        let ended = measure(&mut [&mut Noted("one", &order)], &plan(2), &stop);
        assert!(matches!(ended, Err(BenchError::Interrupted)) && order.borrow().is_empty());
    }
}
