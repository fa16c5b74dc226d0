//! Plays seeds and says what came of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::settings::{Defect, Settings};
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
    /// The promise that was broken, if one was.
    pub violation: Option<String>,
}

/// Plays one seed.
#[must_use]
pub fn play(seed: u64, defect: Option<Defect>, lines: bool) -> SeedReport {
    let settings = Settings::of(seed, defect);
    let mut world = match World::new(settings, lines) {
        Ok(world) => world,
        Err(error) => {
            let violation = Some(format!("nodes start on new disks: {error}"));
            return SeedReport {
                seed,
                trace_hash: 0,
                lines: Vec::new(),
                counts: Counts::default(),
                violation,
            };
        }
    };
    let violation = world.run().err().map(|violation| violation.to_string());
    let counts = world.counts();
    let trace = world.into_trace();
    SeedReport { seed, trace_hash: trace.hash(), counts, violation, lines: trace.into_lines() }
}

/// What came of many seeds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// First and last seed, both played unless a violation ended it.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// Seeds played.
    pub played: u64,
    /// Faults taken, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Nodes crashed.
    pub crashes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Snapshots installed.
    pub snapshots: u64,
    /// Batches acknowledged.
    pub acknowledged: u64,
    /// Leaders elected.
    pub leaders: u64,
    /// Messages lost.
    pub lost: u64,
    /// Messages repeated.
    pub repeated: u64,
    /// Events.
    pub events: u64,
    /// Hash over the traces of all seeds.
    pub trace_hash: u64,
    /// Seeds that broke a promise, and which.
    pub violations: BTreeMap<u64, String>,
}

impl Summary {
    fn add(&mut self, report: &SeedReport) {
        let counts = &report.counts;
        self.played = self.played.saturating_add(1);
        for (kind, count) in &counts.faults {
            let sum = self.faults.entry(kind.name()).or_insert(0);
            *sum = sum.saturating_add(*count);
        }
        for (sum, count) in [
            (&mut self.crashes, counts.crashes),
            (&mut self.checkpoints, counts.checkpoints),
            (&mut self.snapshots, counts.snapshots),
            (&mut self.acknowledged, counts.acknowledged),
            (&mut self.leaders, counts.leaders),
            (&mut self.lost, counts.lost),
            (&mut self.repeated, counts.repeated),
            (&mut self.events, counts.events),
        ] {
            *sum = sum.saturating_add(count);
        }
        // Order does not matter, so that threads do not.
        self.trace_hash ^= report.trace_hash.rotate_left(u32::try_from(report.seed % 64).unwrap_or(0));
        if let Some(violation) = &report.violation {
            self.violations.insert(report.seed, violation.clone());
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
