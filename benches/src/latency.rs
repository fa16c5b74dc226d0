//! Latencies of one kind of operation, and the table they are printed in.
#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock; this is the file that does")]

use std::time::Instant;

use hdrhistogram::Histogram;

use crate::Failure;

/// Largest latency that is told apart, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// What one kind of operation took, each time.
#[derive(Debug)]
pub struct Latency {
    name: String,
    nanoseconds: Histogram<u64>,
}

/// A moment, to be handed to [`Latency::since`].
#[derive(Clone, Copy, Debug)]
pub struct Moment(Instant);

/// Now.
#[must_use]
pub fn now() -> Moment {
    Moment(Instant::now())
}

impl Latency {
    /// No operation yet.
    ///
    /// # Errors
    /// If the histogram cannot be made.
    pub fn new(name: impl Into<String>) -> Result<Self, Failure> {
        Ok(Self { name: name.into(), nanoseconds: Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)? })
    }

    /// Records an operation that began at `began` and has just ended.
    pub fn since(&mut self, began: Moment) {
        let nanoseconds = u64::try_from(began.0.elapsed().as_nanos()).unwrap_or(LATENCY_MAX_NS);
        self.nanoseconds.saturating_record(nanoseconds);
    }

    /// The latency that `quantile` (0 to 1) of the operations did not exceed, in nanoseconds.
    #[must_use]
    pub fn at(&self, quantile: f64) -> u64 {
        self.nanoseconds.value_at_quantile(quantile)
    }

    /// How many operations were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.nanoseconds.len()
    }
}

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// Prints the heading of a table.
pub fn print_heading(title: &str) {
    println!("\n{title}");
    println!("{:<44} {:>10} {:>10} {:>10} {:>7}", "", "p50 us", "p99 us", "p99.9 us", "ops");
}

/// Prints one kind of operation as a row.
pub fn print_row(latency: &Latency) {
    let [p50, p99, p999] = QUANTILES.map(|quantile| in_us(latency.at(quantile)));
    println!("{:<44} {p50:>10} {p99:>10} {p999:>10} {:>7}", latency.name, latency.count());
}

/// Prints how much longer `operation` takes than its floors together, at each quantile.
pub fn print_ratio(operation: &Latency, floors: &[&Latency]) {
    let [p50, p99, p999] = QUANTILES.map(|quantile| {
        let floor: u64 = floors.iter().map(|floor| floor.at(quantile)).sum();
        ratio(operation.at(quantile), floor)
    });
    let names: Vec<&str> = floors.iter().map(|floor| floor.name.as_str()).collect();
    println!("{:<44} {p50:>10} {p99:>10} {p999:>10}", "  ratio to the floor");
    println!("  floor = {}", names.join(" + "));
}

fn in_us(nanoseconds: u64) -> String {
    format!("{}.{}", nanoseconds / 1_000, nanoseconds % 1_000 / 100)
}

/// `one / other` with two decimals, without floating point.
fn ratio(one: u64, other: u64) -> String {
    let hundredths = one.saturating_mul(100).checked_div(other).unwrap_or(0);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
