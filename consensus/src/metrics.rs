//! What a node counts and measures below its front-ends.
//!
//! Plain atomics: to count never waits. Histograms have fixed buckets, the same on every node, so
//! that histograms of several nodes can be added.
//!
//! Not here: raft's own numbers, which are in each group's status, and who writes the page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tidelog_engine::{OpenProgress, Progress, RecoveryCounts};

/// Upper bounds of the buckets, in microseconds.
pub const BOUNDS_US: [u64; 22] = [
    50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 50_000,
    100_000, 250_000, 500_000, 1_000_000, 5_000_000,
];

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets it, unless it is higher already.
    pub fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len()],
    above: AtomicU64,
    sum_us: AtomicU64,
}

/// A histogram as it was at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bound in microseconds, and how many took no longer. The bounds are [`BOUNDS_US`].
    pub cumulative: Vec<(u64, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Takes note of one.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.iter().zip(&self.buckets).find(|(bound, _)| us <= **bound);
        bucket.map_or(&self.above, |(_, bucket)| bucket).fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What it shows now.
    #[must_use]
    pub fn read(&self) -> Distribution {
        let mut count: u64 = 0;
        let mut cumulative = Vec::with_capacity(BOUNDS_US.len());
        for (bound, bucket) in BOUNDS_US.iter().zip(&self.buckets) {
            count = count.saturating_add(bucket.load(Ordering::Relaxed));
            cumulative.push((*bound, count));
        }
        count = count.saturating_add(self.above.load(Ordering::Relaxed));
        Distribution { cumulative, count, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

/// How far a starting node has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Groups whose log and state are back.
    pub groups_done: u64,
    /// Groups of this node.
    pub groups: u64,
    /// How far their logs are opened.
    pub opening: OpenProgress,
}

/// Everything that a node measures.
#[derive(Debug, Default)]
pub struct NodeMetrics {
    /// Batches that were appended and acknowledged here.
    pub appends: Counter,
    /// Their bytes.
    pub append_bytes: Counter,
    /// From proposal to outcome.
    pub append_time: Histogram,
    /// Proposals that ended without an outcome.
    pub proposals_failed: Counter,
    /// Syncs of the raft log.
    pub raft_log_sync_time: Histogram,
    /// Writes of the raft log, each of which may carry many groups.
    pub raft_log_writes: Counter,
    /// Bytes of the raft log on disk.
    pub raft_log_bytes: Gauge,
    /// Checkpoints, with the syncs of the segments they name.
    pub checkpoint_time: Histogram,
    /// Checkpoints that are being written now.
    pub checkpoints_running: Gauge,
    /// Messages from peers that were refused.
    pub messages_refused: Counter,
    /// Messages and proposals that found the queue of the node full.
    pub inputs_dropped: Counter,
    /// Snapshots offered to followers.
    pub snapshots_offered: Counter,
    /// Snapshots that this node switched to.
    pub snapshots_installed: Counter,
    /// Bytes of snapshots that came over the network.
    pub snapshot_bytes_fetched: Counter,
    /// Bytes of staged snapshots that did not have to come: they were here.
    pub snapshot_bytes_reused: Counter,
    /// Files that the engine holds open.
    pub open_files: Gauge,
    /// Bytes of segments on disk.
    pub segment_bytes: Gauge,
    /// Bytes free on the file system of the data directory.
    pub free_bytes: Gauge,
    /// Groups recovered by this start.
    pub recovered_groups: Gauge,
    /// Groups to recover by this start.
    pub groups: Gauge,
    /// What the engine kept, cut and set aside at this start, and what it found since.
    recovered: Mutex<RecoveryCounts>,
    /// Logs that the engine was asked to open since this start.
    pub logs_to_open: Gauge,
    /// Those of them that are done.
    pub logs_opened: Gauge,
    /// Segments of the logs opened.
    pub segments_found: Gauge,
    /// Bytes of tails that were verified when logs were opened.
    pub bytes_walked: Gauge,
}

impl NodeMetrics {
    /// Takes over what recovery counted.
    pub fn set_recovered(&self, counts: RecoveryCounts) {
        *self.recovered.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// What recovery counted, the last time that it was asked.
    #[must_use]
    pub fn recovered(&self) -> RecoveryCounts {
        *self.recovered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far recovery has come.
    #[must_use]
    pub fn recovery(&self) -> RecoveryProgress {
        let opening = OpenProgress {
            logs_done: self.logs_opened.value(),
            logs: self.logs_to_open.value(),
            segments: self.segments_found.value(),
            bytes_walked: self.bytes_walked.value(),
        };
        RecoveryProgress { groups_done: self.recovered_groups.value(), groups: self.groups.value(), opening }
    }
}

impl Progress for NodeMetrics {
    fn opening(&self, at: OpenProgress) {
        // Several threads tell, and one that was slow must not take back what another has told.
        self.logs_opened.raise(at.logs_done);
        self.logs_to_open.raise(at.logs);
        self.segments_found.raise(at.segments);
        self.bytes_walked.raise(at.bytes_walked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_tells_late_takes_nothing_back() {
        let metrics = NodeMetrics::default();
        let told = |logs_done| OpenProgress { logs_done, logs: 9, segments: logs_done, bytes_walked: 0 };
        metrics.opening(told(9));
        metrics.opening(told(8));
        assert_eq!(metrics.recovery().opening, told(9));
    }

    #[test]
    fn a_histogram_counts_each_bucket_with_all_below() {
        let histogram = Histogram::default();
        for us in [40, 60, 900, 7_000_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let read = histogram.read();
        let at = |bound| read.cumulative.iter().find(|(us, _)| *us == bound).unwrap().1;
        assert_eq!((at(50), at(75), at(1_000), at(5_000_000)), (1, 2, 3, 3));
        assert_eq!((read.count, read.sum_us), (4, 7_001_000));
    }
}
