//! Goes through all points of a workload on several threads, and adds up.
//!
//! A point is a unit of work and knows nothing of the others, so which thread takes which makes no
//! difference: the sums are sums of sets.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tidelog_engine::sim_disk::SimDisk;
use xxhash_rust::xxh3::xxh3_64;

use crate::judge;
use crate::recorder::LeftOut;
use crate::replay::State;
use crate::scenario::{Broken, Scenario};
use crate::states::{Choice, Effort, choices};
use crate::trace::Trace;

/// How to go through a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The states of each point.
    pub first: Effort,
    /// The recovery of one in so many states is recorded and crashed too; that of every state in which
    /// only the process died is. 0: of none.
    pub again_one_in: u64,
    /// The states of each point of those recoveries.
    pub again: Effort,
    /// Points of each of them, evenly chosen.
    pub again_points: usize,
    /// Threads.
    pub threads: NonZeroUsize,
    /// What the recorder leaves out, to see that it is noticed.
    pub left_out: LeftOut,
}

/// What came of some states.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// States after a first crash that were opened and judged in full.
    pub tried: u64,
    /// States after a crash of the recovery. These are opened and held to the promise, and no more is done with them.
    pub tried_again: u64,
    /// Points of which every state was made.
    pub exhausted: u64,
    /// Hashes of the whole image after the first crash.
    pub images: BTreeSet<u64>,
    /// The same after a crash of the recovery.
    pub images_again: BTreeSet<u64>,
    /// Hashes of what recovery made of all of them: logs, raft log and checkpoints.
    pub recoveries: BTreeSet<u64>,
    /// Promises that were not kept, by point.
    pub violations: Vec<Violation>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.tried = self.tried.saturating_add(other.tried);
        self.tried_again = self.tried_again.saturating_add(other.tried_again);
        self.exhausted = self.exhausted.saturating_add(other.exhausted);
        self.images.extend(other.images);
        self.images_again.extend(other.images_again);
        self.recoveries.extend(other.recoveries);
        self.violations.extend(other.violations);
    }
}

/// A promise that was not kept, and how to see it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The state, which [`State::replay`] makes again.
    pub state: State,
    /// The last operation before the crash, in words.
    pub operation: String,
    /// What was not kept.
    pub broken: Broken,
}

/// What came of a workload.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its name.
    pub workload: &'static str,
    /// File operations that can change what a crash leaves.
    pub operations: usize,
    /// Points at which it was crashed: one more.
    pub points: usize,
    /// The sums.
    pub tally: Tally,
}

/// Records `scenario` and goes through its points. `done` is told the number of points that were done
/// just now, and of how many.
///
/// # Errors
/// [`Broken`] if the workload does not even run without a crash.
pub fn run<S: Scenario>(
    scenario: &S,
    plan: &Plan,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Result<Outcome, Broken> {
    let trace = judge::record(scenario, plan.left_out)?;
    let points = trace.points();
    let next = AtomicUsize::new(0);
    let tallies = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..plan.threads.get() {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tally = Unit { scenario, plan, trace: &trace, point: *point }.run();
                    tallies.lock().unwrap_or_else(PoisonError::into_inner).insert(*point, tally);
                    done(1, points.len());
                }
            });
        }
    });
    let mut tally = Tally::default();
    for (_, one) in tallies.into_inner().unwrap_or_else(PoisonError::into_inner) {
        tally.add(one);
    }
    let operations = points.len().saturating_sub(1);
    Ok(Outcome { workload: scenario.name(), operations, points: points.len(), tally })
}

/// One point of a workload.
struct Unit<'a, S: Scenario> {
    scenario: &'a S,
    plan: &'a Plan,
    trace: &'a Trace<S::Promise>,
    point: usize,
}

impl<S: Scenario> Unit<'_, S> {
    /// Stops at the first promise that is not kept: the next states would say the same.
    fn run(&self) -> Tally {
        let mut tally = Tally::default();
        let (Ok(disk), Some(promise)) = (self.trace.disk_at(self.point), self.trace.promised(self.point))
        else {
            let broken = Broken("the recorded operations cannot be done again".to_owned());
            self.violated(&mut tally, Choice::Lose, None, broken);
            return tally;
        };
        let choices = choices(&disk, self.plan.first, self.seed());
        tally.exhausted = u64::from(choices.exhaustive);
        // The process alone dies: nothing is lost yet, and all may be when the power is cut later.
        for choice in std::iter::once(Choice::Process).chain(choices.all) {
            let crashed = choice.crash(&disk);
            let image = crashed.fingerprint();
            let process_only = choice == Choice::Process;
            if !process_only && !tally.images.insert(image) {
                continue;
            }
            tally.tried = tally.tried.saturating_add(1);
            match judge::judge(self.scenario, &crashed, promise) {
                Ok(recovered) => {
                    tally.recoveries.insert(recovered);
                }
                Err(broken) => {
                    let choice = self.fewer_losses(&disk, choice, promise);
                    self.violated(&mut tally, choice, None, broken);
                    return tally;
                }
            }
            let again = self.plan.again_one_in;
            if again > 0
                && (process_only || image.is_multiple_of(again))
                && !self.crash_recovery(&mut tally, &choice, &crashed, promise)
            {
                return tally;
            }
        }
        tally
    }

    /// Crashes the recovery from `crashed` at its points; `false` if a promise was not kept.
    fn crash_recovery(
        &self,
        tally: &mut Tally,
        choice: &Choice,
        crashed: &SimDisk,
        promise: &S::Promise,
    ) -> bool {
        let recovery = match judge::record_recovery(self.scenario, crashed, promise, self.plan.left_out) {
            Ok(recovery) => recovery,
            Err(broken) => {
                self.violated(tally, choice.clone(), None, broken);
                return false;
            }
        };
        let points = recovery.points();
        let step = points.len().div_ceil(self.plan.again_points.max(1)).max(1);
        // From the last one down, so that the end, where most was promised, is among them.
        for point in points.into_iter().rev().step_by(step) {
            let (Ok(disk), Some(promised)) = (recovery.disk_at(point), recovery.promised(point)) else {
                let broken = Broken("the recorded operations of a recovery cannot be done again".to_owned());
                self.violated(tally, choice.clone(), Some((point, Choice::Lose)), broken);
                return false;
            };
            // What was promised at another point, or before, was not the same: an image is the same state here only.
            let mut here = BTreeSet::new();
            for second in choices(&disk, self.plan.again, self.seed()).all {
                let twice = second.crash(&disk);
                let image = twice.fingerprint();
                if !here.insert(image) {
                    continue;
                }
                tally.images_again.insert(image);
                tally.tried_again = tally.tried_again.saturating_add(1);
                match judge::opens(self.scenario, &twice, promised) {
                    Ok(recovered) => {
                        tally.recoveries.insert(recovered);
                    }
                    Err(broken) => {
                        self.violated(tally, choice.clone(), Some((point, second)), broken);
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Tells one point's sample from all others, and is the same in every run.
    fn seed(&self) -> u64 {
        xxh3_64(format!("{} {}", self.scenario.name(), self.point).as_bytes())
    }

    /// The same violation with as little lost as can be, where the choices were told one by one.
    fn fewer_losses(&self, disk: &SimDisk, choice: Choice, promise: &S::Promise) -> Choice {
        let Choice::Told(mut path) = choice else { return choice };
        for at in 0..path.len() {
            let mut fewer = path.clone();
            match fewer.get_mut(at) {
                Some(chosen) if *chosen > 0 => *chosen = 0,
                Some(_) | None => continue,
            }
            let crashed = Choice::Told(fewer.clone()).crash(disk);
            if judge::judge(self.scenario, &crashed, promise).is_err() {
                path = fewer;
            }
        }
        while path.last() == Some(&0) {
            path.pop();
        }
        Choice::Told(path)
    }

    fn violated(&self, tally: &mut Tally, choice: Choice, again: Option<(usize, Choice)>, broken: Broken) {
        let state = State { workload: self.scenario.name().to_owned(), point: self.point, choice, again };
        tally.violations.push(Violation { state, operation: self.trace.describe(self.point), broken });
    }
}
