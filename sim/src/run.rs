//! Plays seeds and says what came of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::coverage::Coverage;
use crate::museum::{self, Defect};
use crate::oracle::Violation;
use crate::settings::Settings;
use crate::world::{Counts, World};

/// What came of one seed.
#[derive(Debug)]
pub struct SeedReport {
    /// The seed.
    pub seed: u64,
    /// Hash of the trace: the same each time the seed is played.
    pub trace_hash: u64,
    /// Lines of the trace, if they were asked for.
    pub lines: Vec<String>,
    /// What was counted.
    pub counts: Counts,
    /// The property that was broken, if one was.
    pub violation: Option<Violation>,
}

/// Plays one seed.
#[must_use]
pub fn play(seed: u64, defect: Option<Defect>, lines: bool) -> SeedReport {
    museum::begin(defect);
    let mut world = match World::new(Settings::of(seed), lines) {
        Ok(world) => world,
        Err(error) => {
            let violation = Violation::of("nodes start on new disks", error.to_string());
            return SeedReport {
                seed,
                trace_hash: 0,
                lines: Vec::new(),
                counts: Counts::default(),
                violation: Some(violation),
            };
        }
    };
    // An assertion that fails is a bug like any other: it is told with its seed, and the others go on.
    let violation = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(run) => run.err(),
        Err(panic) => Some(Violation::of("nothing panics", said(panic.as_ref()))),
    };
    museum::begin(None);
    let counts = world.counts();
    let trace = world.into_trace();
    SeedReport { seed, trace_hash: trace.hash(), counts, violation, lines: trace.into_lines() }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// First and last seed, both played unless a violation ended it.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Seeds played.
    pub played: u64,
    /// Nodes crashed.
    pub crashes: u64,
    /// Events.
    pub events: u64,
    /// What happened, of all that should.
    pub coverage: Coverage,
    /// Hash over the traces of all seeds.
    pub trace_hash: u64,
    /// Seeds that broke a property, and which.
    pub violations: BTreeMap<u64, Violation>,
}

/// A summary as JSON shows it.
#[derive(Debug, Serialize)]
pub struct SummaryView {
    first: u64,
    last: u64,
    played: u64,
    seconds: f64,
    seeds_per_second: f64,
    crashes: u64,
    events: u64,
    coverage: BTreeMap<&'static str, u64>,
    never: Vec<&'static str>,
    trace_hash: String,
    violations: BTreeMap<u64, String>,
}

impl Summary {
    fn add(&mut self, report: &SeedReport) {
        let counts = &report.counts;
        self.played = self.played.saturating_add(1);
        self.crashes = self.crashes.saturating_add(counts.crashes);
        self.events = self.events.saturating_add(counts.events);
        self.coverage.merge(&counts.coverage);
        // Order does not matter, so that threads do not.
        self.trace_hash ^= report.trace_hash.rotate_left(u32::try_from(report.seed % 64).unwrap_or(0));
        if let Some(violation) = &report.violation {
            self.violations.insert(report.seed, violation.clone());
        }
    }

    /// Seeds played in a second.
    #[must_use]
    pub fn rate(&self, seconds: f64) -> f64 {
        f64::from(u32::try_from(self.played).unwrap_or(u32::MAX)) / seconds.max(0.001)
    }

    /// As JSON shows it.
    #[must_use]
    pub fn view(&self, seconds: f64) -> SummaryView {
        SummaryView {
            first: self.first,
            last: self.last,
            played: self.played,
            seconds,
            seeds_per_second: self.rate(seconds),
            crashes: self.crashes,
            events: self.events,
            coverage: self.coverage.by_name(),
            never: self.coverage.never(),
            trace_hash: format!("{:016x}", self.trace_hash),
            violations: self.violations.iter().map(|(seed, broken)| (*seed, broken.to_string())).collect(),
        }
    }
}

/// Plays `seeds` on `threads` threads. With a defect the first seed that catches it ends it.
#[must_use]
pub fn play_all(seeds: &RangeInclusive<u64>, defect: Option<Defect>, threads: usize) -> Summary {
    let next = AtomicU64::new(*seeds.start());
    let stop = AtomicBool::new(false);
    let summary = Mutex::new(Summary { first: *seeds.start(), last: *seeds.end(), ..Summary::default() });
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > *seeds.end() {
                        return;
                    }
                    let report = play(seed, defect, false);
                    if report.violation.is_some() && defect.is_some() {
                        stop.store(true, Ordering::Relaxed);
                    }
                    summary.lock().unwrap_or_else(PoisonError::into_inner).add(&report);
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}
