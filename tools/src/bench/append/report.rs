//! What was measured, and what it is beside the floors.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Append;
use super::floors::Floors;
use super::load::{Loaded, Sample};
use super::pages::Seen;
use crate::error::CliError;
use crate::output::{Answer, table};

/// Longest time that a histogram knows.
const LONGEST_NS: u64 = 60_000_000_000;

/// The answer of `bench append`. Times are microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    nodes: usize,
    clients: u32,
    in_flight: u32,
    connections: u32,
    channels: u32,
    record_bytes: u32,
    seconds: u64,
    records: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    records_per_s: f64,
    sync_floor_p50_us: f64,
    sync_floor_p99_us: f64,
    client_echo_p50_us: f64,
    client_echo_p99_us: f64,
    /// None with one node.
    peer_echo_p50_us: Option<f64>,
    peer_echo_p99_us: Option<f64>,
    floors_p50_us: f64,
    /// p50 over the sum of the floors' p50.
    ratio_to_floors: f64,
    /// p50 over that of the sync alone.
    ratio_to_sync: f64,
    /// What one sync after another could do in a second.
    syncs_per_s_floor: f64,
    /// Acknowledged records over that.
    records_per_sync_floor: f64,
    /// Records that one sync of a raft log made durable, on the average of nodes.
    records_per_fsync: f64,
    /// Checkpoints of groups that fell into the run, all nodes together.
    checkpoints: u64,
    records_during_checkpoints: u64,
    p99_during_checkpoints_us: Option<f64>,
    p99_outside_checkpoints_us: Option<f64>,
}

/// A histogram of times, in nanoseconds with three digits.
pub(super) fn histogram() -> Result<Histogram<u64>, CliError> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3)
        .map_err(|error| CliError::Runtime { source: std::io::Error::other(error) })
}

/// Takes note of a time.
pub(super) fn note(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1));
}

/// Microseconds with one decimal.
fn us(ns: u64) -> f64 {
    rounded(float(ns) / 1000.0, 10.0)
}

fn percentile(histogram: &Histogram<u64>, percent: f64) -> f64 {
    us(histogram.value_at_quantile(percent / 100.0))
}

fn some_percentile(histogram: &Histogram<u64>, percent: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| percentile(histogram, percent))
}

fn rounded(number: f64, steps: f64) -> f64 {
    (number * steps).round() / steps
}

/// `above` over `below`, with two decimals; 0 if there is nothing to compare with.
fn ratio(above: f64, below: f64) -> f64 {
    if below > 0.0 { rounded(above / below, 100.0) } else { 0.0 }
}

/// Exact up to 2^53, which no count of a run reaches.
fn float(number: u64) -> f64 {
    let (high, low) = (number >> 32, number & u64::from(u32::MAX));
    let part = |part: u64| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Report {
    pub(super) fn new(
        append: &Append,
        nodes: usize,
        loaded: &Loaded,
        floors: &Floors,
        seen: &Seen,
    ) -> Result<Self, CliError> {
        let (mut all, mut during, mut outside) = (histogram()?, histogram()?, histogram()?);
        for Sample { ended, took } in &loaded.samples {
            note(&mut all, *took);
            let begun = *ended - *took;
            let met = seen.during.iter().any(|during| begun < during.end && *ended >= during.start);
            note(if met { &mut during } else { &mut outside }, *took);
        }
        let records = all.len();
        let (sync, client_echo) = (percentile(&floors.sync, 50.0), percentile(&floors.client_echo, 50.0));
        let peer_echo = some_percentile(&floors.peer_echo, 50.0);
        let floors_p50 = rounded(sync + client_echo + peer_echo.unwrap_or(0.0), 10.0);
        let p50 = percentile(&all, 50.0);
        let seconds = loaded.busy.as_secs_f64();
        let rate = if seconds > 0.0 { float(records) / seconds } else { 0.0 };
        let syncs_floor = if sync > 0.0 { 1e6 / sync } else { 0.0 };
        Ok(Self {
            nodes,
            clients: append.clients,
            in_flight: append.in_flight,
            connections: append.connections,
            channels: append.channels,
            record_bytes: append.record_bytes,
            seconds: append.seconds,
            records,
            p50_us: p50,
            p99_us: percentile(&all, 99.0),
            p999_us: percentile(&all, 99.9),
            max_us: us(all.max()),
            records_per_s: rounded(rate, 10.0),
            sync_floor_p50_us: sync,
            sync_floor_p99_us: percentile(&floors.sync, 99.0),
            client_echo_p50_us: client_echo,
            client_echo_p99_us: percentile(&floors.client_echo, 99.0),
            peer_echo_p50_us: peer_echo,
            peer_echo_p99_us: some_percentile(&floors.peer_echo, 99.0),
            floors_p50_us: floors_p50,
            ratio_to_floors: ratio(p50, floors_p50),
            ratio_to_sync: ratio(p50, sync),
            syncs_per_s_floor: rounded(syncs_floor, 10.0),
            records_per_sync_floor: ratio(rate, syncs_floor),
            records_per_fsync: ratio(float(records) * float(count(nodes)), float(seen.syncs)),
            checkpoints: seen.checkpoints,
            records_during_checkpoints: during.len(),
            p99_during_checkpoints_us: some_percentile(&during, 99.0),
            p99_outside_checkpoints_us: some_percentile(&outside, 99.0),
        })
    }
}

impl Answer for Report {
    fn text(&self) -> String {
        let shown = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}"));
        let row = |name: &str, p50: Option<f64>, p99: Option<f64>, p999: Option<f64>, max: Option<f64>| {
            vec![name.to_owned(), shown(p50), shown(p99), shown(p999), shown(max)]
        };
        let rows = [
            row(
                "acknowledged append",
                Some(self.p50_us),
                Some(self.p99_us),
                Some(self.p999_us),
                Some(self.max_us),
            ),
            row(
                "floor: write + fdatasync",
                Some(self.sync_floor_p50_us),
                Some(self.sync_floor_p99_us),
                None,
                None,
            ),
            row(
                "floor: client echo",
                Some(self.client_echo_p50_us),
                Some(self.client_echo_p99_us),
                None,
                None,
            ),
            row("floor: peer echo", self.peer_echo_p50_us, self.peer_echo_p99_us, None, None),
        ];
        let checkpoints = format!(
            "{} checkpoints; p99 during them {} us ({} records), outside {} us",
            self.checkpoints,
            shown(self.p99_during_checkpoints_us),
            self.records_during_checkpoints,
            shown(self.p99_outside_checkpoints_us),
        );
        [
            format!(
                "{} nodes, {} clients x {} in flight over {} connections, {} channels, records of {} bytes, {} s",
                self.nodes,
                self.clients,
                self.in_flight,
                self.connections,
                self.channels,
                self.record_bytes,
                self.seconds
            ),
            table(&["microseconds", "p50", "p99", "p99.9", "max"], &rows),
            format!(
                "p50 is {:.2} x the sum of the floors ({:.1} us), {:.2} x the sync",
                self.ratio_to_floors, self.floors_p50_us, self.ratio_to_sync
            ),
            format!(
                "{:.0} records/s, {:.2} x one sync after another; {:.1} records a sync",
                self.records_per_s, self.records_per_sync_floor, self.records_per_fsync
            ),
            checkpoints,
        ]
        .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_microseconds_and_ratios_with_two_decimals() {
        let mut times = histogram().unwrap();
        for us in [100, 200, 300] {
            note(&mut times, Duration::from_micros(us));
        }
        assert!((percentile(&times, 50.0) - 200.0).abs() < 0.3);
        assert_eq!((ratio(333.0, 200.0), ratio(1.0, 0.0)), (1.67, 0.0));
        assert_eq!(float(u64::from(u32::MAX) + 2), 4_294_967_297.0);
    }
}
