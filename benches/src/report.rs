//! Figures: percentiles of each operation, and how they compare with the floors of the same rounds.
//!
//! - Latencies go into hdrhistograms of nanoseconds with three digits; they are shown in microseconds.
//! - What an operation is compared with is the *sum of its floors*. They are added up round by round and the sums have
//!   percentiles of their own: the 99th percentile of a sum is not the sum of 99th percentiles.
//! - A ratio is percentile over percentile: p50 over p50 of the floors' sums, p99 over p99.
//!
//! Nothing is asserted: a figure is judged by whoever knows the machine.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::error::{BenchError, Doing as _};
use crate::payload;
use crate::rounds::Series;

/// Longest latency that is told apart from longer ones.
const LONGEST: Duration = Duration::from_secs(120);

/// An operation and the floors below which it cannot come; with none, it is shown without a ratio.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) floors: &'static [&'static str],
}

/// What a row of a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What this machine needs at least, for one part.
    Floor,
    /// Several floors of the same round, added up.
    Sum,
    /// What is judged.
    Subject,
}

/// Microseconds, or ratios, by percentile.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half are at or below.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The largest.
    pub max: f64,
}

impl Percentiles {
    fn over(self, floor: Self) -> Self {
        let ratio = |found: f64, floor: f64| hundredths(found / floor.max(f64::MIN_POSITIVE));
        Self {
            p50: ratio(self.p50, floor.p50),
            p99: ratio(self.p99, floor.p99),
            p999: ratio(self.p999, floor.p999),
            max: ratio(self.max, floor.max),
        }
    }
}

/// One line of a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The operation, or the floors that are added up.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How many times it was measured.
    pub samples: usize,
    /// Microseconds.
    pub us: Percentiles,
    /// Over the sum of its floors; of subjects only.
    pub ratio_to_floors: Option<Percentiles>,
    /// Over writing and syncing alone.
    pub ratio_to_sync: Option<Percentiles>,
}

/// What many writers do together when each waits for its own appends.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shared {
    /// What they append to.
    pub name: String,
    /// How many.
    pub writers: usize,
    /// Appends of all of them together.
    pub appends: u64,
    /// How long they did so.
    pub seconds: f64,
    /// Each durable.
    pub appends_per_second: f64,
    /// Over those of one writer.
    pub ratio_to_one: Option<f64>,
    /// Syncs of files and directories, where they were counted.
    pub syncs: Option<u64>,
    /// Appends that one sync serves.
    pub appends_per_sync: Option<f64>,
}

impl Shared {
    pub(crate) fn none(name: &str, writers: usize) -> Self {
        Self {
            name: name.to_owned(),
            writers,
            appends: 0,
            seconds: 0.0,
            appends_per_second: 0.0,
            ratio_to_one: None,
            syncs: None,
            appends_per_sync: None,
        }
    }

    /// Adds what was done in one stretch of time.
    pub(crate) fn add(&mut self, appends: u64, took: Duration, syncs: Option<u64>) {
        self.appends += appends;
        self.seconds += took.as_secs_f64();
        self.appends_per_second = (float(self.appends) / self.seconds.max(f64::MIN_POSITIVE)).round();
        self.syncs = syncs.map(|syncs| self.syncs.unwrap_or(0) + syncs);
        self.appends_per_sync = self.syncs.map(|syncs| hundredths(float(self.appends) / float(syncs.max(1))));
    }

    /// Compares each with one writer to the same; what has none of its own, with the first there is.
    pub(crate) fn compare(all: &mut [Self]) {
        let ones: Vec<(String, f64)> = all
            .iter()
            .filter(|shared| shared.writers == 1)
            .map(|shared| (shared.name.clone(), shared.appends_per_second))
            .collect();
        for shared in all {
            let own = ones.iter().find(|(name, _)| *name == shared.name).or(ones.first());
            shared.ratio_to_one =
                own.map(|(_, one)| hundredths(shared.appends_per_second / one.max(f64::MIN_POSITIVE)));
        }
    }
}

/// Bytes a second beside those of the plain system calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rate {
    /// What is done.
    pub name: String,
    /// How many times it was measured.
    pub samples: usize,
    /// Of the batches.
    pub mib_per_second: f64,
    /// Of plain writes or reads.
    pub raw_mib_per_second: f64,
    /// The one over the other, of all time together.
    pub ratio: f64,
    /// The same of half of the samples: the one's median over the other's.
    pub ratio_p50: f64,
    /// The same beside plain reads whose bytes are summed up, where that was measured.
    pub ratio_checked_p50: Option<f64>,
}

impl Rate {
    /// From the series of one measurement, of which each sample is about so many bytes: ours, the plain calls, and,
    /// if there is a third, the plain calls with a checksum.
    pub(crate) fn of(series: &[Series], bytes: f64, raw_bytes: f64) -> Result<Self, BenchError> {
        let [ours, raw, checked @ ..] = series else {
            return Err("there are not two").doing("compare rates");
        };
        let rate = |series: &Series, bytes: f64| {
            let seconds: f64 = series.samples.iter().map(Duration::as_secs_f64).sum();
            let count = float(u64::try_from(series.samples.len()).unwrap_or(u64::MAX));
            bytes * count / seconds.max(f64::MIN_POSITIVE)
        };
        let (found, floor) = (rate(ours, bytes), rate(raw, raw_bytes));
        let half = |series: &Series, bytes: f64| {
            percentiles(&series.samples).map(|found| bytes / found.p50.max(f64::MIN_POSITIVE))
        };
        let beside = |floor: &Series| {
            Ok(hundredths(half(ours, bytes)? / half(floor, raw_bytes)?.max(f64::MIN_POSITIVE)))
        };
        let mib = |bytes: f64| (bytes / float(1 << 20)).round();
        Ok(Self {
            name: ours.name.to_owned(),
            samples: ours.samples.len(),
            mib_per_second: mib(found),
            raw_mib_per_second: mib(floor),
            ratio: hundredths(found / floor.max(f64::MIN_POSITIVE)),
            ratio_p50: beside(raw)?,
            ratio_checked_p50: checked.first().map(beside).transpose()?,
        })
    }
}

/// A figure that was aimed at. It is told and never asserted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What it is about.
    pub name: String,
    /// The ratio that was measured.
    pub found: f64,
    /// The least or the most that it should be.
    pub bound: f64,
    /// Whether it should be at most `bound`; else at least.
    pub at_most: bool,
    /// Whether it is.
    pub met: bool,
}

impl Target {
    pub(crate) fn at_most(name: &str, found: f64, bound: f64) -> Self {
        Self { name: name.to_owned(), found, bound, at_most: true, met: found <= bound }
    }

    pub(crate) fn at_least(name: &str, found: f64, bound: f64) -> Self {
        Self { name: name.to_owned(), found, bound, at_most: false, met: found >= bound }
    }
}

/// Figures for one size of batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Section {
    /// Bytes of the record in each batch.
    pub payload_bytes: usize,
    /// Bytes of the whole batch, which is what floors write and send.
    pub batch_bytes: usize,
    /// One for each operation and sum.
    pub rows: Vec<Row>,
    /// Appends of many writers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<Shared>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rate>,
    /// What was aimed at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// Where the time goes, as the nodes themselves measured it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Figures of one benchmark.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub bench: &'static str,
    /// One for each size of batch.
    pub sections: Vec<Section>,
}

impl Report {
    pub(crate) const fn new(bench: &'static str) -> Self {
        Self { bench, sections: Vec::new() }
    }

    /// Adds what was measured with batches of one size. `floors` begins with the one for writing and syncing.
    pub(crate) fn add(
        &mut self,
        payload_bytes: usize,
        batch_bytes: usize,
        measured: &[Series],
        floors: &[&'static str],
        subjects: &[Subject],
    ) -> Result<&mut Section, BenchError> {
        let sync = floors.first().map(|sync| percentiles(&sum(measured, &[*sync])?)).transpose()?;
        let row = |name: String, kind, samples: &[Duration], below: Option<Percentiles>| {
            let us = percentiles(samples)?;
            let ratio = |floor: Option<Percentiles>| floor.map(|floor| us.over(floor));
            let ratio_to_sync = if below.is_some() { ratio(sync) } else { None };
            Ok::<_, BenchError>(Row {
                name,
                kind,
                samples: samples.len(),
                us,
                ratio_to_floors: ratio(below),
                ratio_to_sync,
            })
        };
        let mut rows = Vec::new();
        for floor in floors {
            rows.push(row((*floor).to_owned(), Kind::Floor, &sum(measured, &[*floor])?, None)?);
        }
        for subject in subjects {
            let below = sum(measured, subject.floors)?;
            if subject.floors.len() > 1 {
                rows.push(row(subject.floors.join(" + "), Kind::Sum, &below, None)?);
            }
            let samples = sum(measured, &[subject.name])?;
            let below = if below.is_empty() { None } else { Some(percentiles(&below)?) };
            rows.push(row(subject.name.to_owned(), Kind::Subject, &samples, below)?);
        }
        self.sections.push(Section {
            payload_bytes,
            batch_bytes,
            rows,
            shared: Vec::new(),
            rates: Vec::new(),
            targets: Vec::new(),
            notes: Vec::new(),
        });
        self.sections.last_mut().ok_or("the section is gone").doing("add a section")
    }
}

/// Adds up series of these names, round by round.
fn sum(measured: &[Series], names: &[&str]) -> Result<Vec<Duration>, BenchError> {
    let mut total: Vec<Duration> = Vec::new();
    for name in names {
        let found = measured.iter().find(|series| series.name == *name);
        let series = found.ok_or("it was not measured").doing(&format!("compare with `{name}`"))?;
        total.resize(series.samples.len(), Duration::ZERO);
        for (total, sample) in total.iter_mut().zip(&series.samples) {
            *total += *sample;
        }
    }
    Ok(total)
}

/// The percentiles of `samples`, in microseconds.
fn percentiles(samples: &[Duration]) -> Result<Percentiles, BenchError> {
    let nanoseconds = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    let mut histogram =
        Histogram::<u64>::new_with_bounds(1, nanoseconds(LONGEST), 3).doing("make a histogram")?;
    for sample in samples {
        histogram.saturating_record(nanoseconds(*sample));
    }
    let us = |nanoseconds: u64| (Duration::from_nanos(nanoseconds).as_secs_f64() * 1e7).round() / 10.0;
    Ok(Percentiles {
        p50: us(histogram.value_at_quantile(0.5)),
        p99: us(histogram.value_at_quantile(0.99)),
        p999: us(histogram.value_at_quantile(0.999)),
        max: us(histogram.max()),
    })
}

/// A count as a number to divide with; beyond 2^32 it is not exact, and need not be.
fn float(count: u64) -> f64 {
    let (high, low) = (u32::try_from(count >> 32), u32::try_from(count & u64::from(u32::MAX)));
    f64::from(high.unwrap_or(u32::MAX)) * 4_294_967_296.0 + f64::from(low.unwrap_or(u32::MAX))
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.sections {
            let (payload, batch) = (payload::shown(section.payload_bytes), section.batch_bytes);
            writeln!(
                out,
                "{}: records of {payload}, one a batch (of {batch} bytes), one in flight",
                self.bench
            )?;
            let width = section.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
            writeln!(
                out,
                "  {:width$} {:>9} {:>9} {:>9} {:>9} {:>8}  {:>15}  {:>8}",
                "microseconds", "p50", "p99", "p99.9", "max", "samples", "x floors p50/99", "x sync"
            )?;
            for row in &section.rows {
                write!(out, "  {:width$} {}", row.name, row.us)?;
                write!(out, " {:>8}", row.samples)?;
                if let (Some(floors), Some(sync)) = (row.ratio_to_floors, row.ratio_to_sync) {
                    write!(out, "  {:>7.2} {:>7.2}  {:>8.2}", floors.p50, floors.p99, sync.p50)?;
                }
                writeln!(out)?;
            }
            for shared in &section.shared {
                writeln!(out, "  {shared}")?;
            }
            for rate in &section.rates {
                writeln!(out, "  {rate}")?;
            }
            for note in &section.notes {
                writeln!(out, "  {note}")?;
            }
            for target in &section.targets {
                writeln!(out, "  {target}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, writers, appends_per_second, .. } = self;
        write!(out, "{name:16} {writers:>3} writers: {appends_per_second:>8} durable appends a second")?;
        if let Some(ratio) = self.ratio_to_one {
            write!(out, ", {ratio:>6.2} x one writer")?;
        }
        if let (Some(syncs), Some(each)) = (self.syncs, self.appends_per_sync) {
            write!(out, ", {syncs} syncs, {each} appends a sync")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, samples, mib_per_second, raw_mib_per_second, ratio, .. } = self;
        write!(out, "{name:44} {mib_per_second:>6} MiB/s, raw {raw_mib_per_second:>6}: x {ratio:.2}")?;
        write!(out, " (medians x {:.2}, {samples} samples)", self.ratio_p50)?;
        self.ratio_checked_p50
            .map_or(Ok(()), |ratio| write!(out, "; raw with a checksum: medians x {ratio:.2}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, found, bound, .. } = self;
        let (bounds, met) =
            (if self.at_most { "at most" } else { "at least" }, if self.met { "pass" } else { "miss" });
        write!(out, "{met}: {name} {found:.2}, aimed at {bounds} {bound:.2}")
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:>9.1} {:>9.1} {:>9.1} {:>9.1}", self.p50, self.p99, self.p999, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &'static str, micros: impl IntoIterator<Item = u64>) -> Series {
        Series { name, samples: micros.into_iter().map(Duration::from_micros).collect() }
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected / 500.0
    }

    #[test]
    fn percentiles_count_from_below_and_are_microseconds() {
        let found = percentiles(&series("", 1..=1000).samples).unwrap();
        assert!(close(found.p50, 500.0) && close(found.p99, 990.0), "{found:?}");
        assert!(close(found.p999, 999.0) && close(found.max, 1000.0), "{found:?}");
    }

    #[test]
    fn floors_are_added_up_round_by_round_before_percentiles_are_taken() {
        // When one floor is high the other is low, so every sum is 400: adding percentiles would give 600.
        let sync = series("sync", (0..100).map(|round| 100 + 200 * (round % 2)));
        let echo = series("echo", (0..100).map(|round| 300 - 200 * (round % 2)));
        let append = series("append", std::iter::repeat_n(1000, 100));
        let mut report = Report::new("bench");
        let subject = Subject { name: "append", floors: &["sync", "echo"] };
        report.add(1024, 1100, &[sync, echo, append], &["sync", "echo"], &[subject]).unwrap();
        let rows = &report.sections[0].rows;
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["sync", "echo", "sync + echo", "append"]);
        assert!(close(rows[2].us.p99, 400.0) && rows[2].kind == Kind::Sum, "{rows:?}");
        let (floors, sync) = (rows[3].ratio_to_floors.unwrap(), rows[3].ratio_to_sync.unwrap());
        assert!(close(floors.p50, 2.5) && close(floors.p99, 2.5), "{floors:?}");
        assert!(close(sync.p50, 10.0) && close(sync.p99, 3.33), "{sync:?}");
        assert!(report.to_string().contains("sync + echo"));
    }

    #[test]
    fn appends_of_all_turns_and_writers_count_and_are_compared_with_one_writer() {
        let mut all = [Shared::none("log", 1), Shared::none("log", 64), Shared::none("64 logs", 64)];
        for (shared, appends) in all.iter_mut().zip([1000, 32_000, 16_000]) {
            shared.add(appends, Duration::from_millis(250), Some(500));
            shared.add(appends, Duration::from_millis(750), Some(500));
        }
        Shared::compare(&mut all);
        assert!(
            close(all[1].appends_per_second, 64_000.0) && all[1].appends_per_sync == Some(64.0),
            "{all:?}"
        );
        assert_eq!([all[0].ratio_to_one, all[1].ratio_to_one], [Some(1.0), Some(32.0)]);
        assert_eq!(
            all[2].ratio_to_one,
            Some(16.0),
            "what has no single writer is compared with the first that has"
        );
    }

    #[test]
    fn a_rate_is_set_against_that_of_the_plain_calls_of_the_same_rounds() {
        let rate = Rate::of(&[series("ours", [2000, 2000]), series("raw", [1000, 1000])], 1e6, 1e6).unwrap();
        assert!(close(rate.ratio, 0.5) && close(rate.ratio_p50, 0.5), "{rate:?}");
        assert!(
            !Target::at_least("rate", rate.ratio, 0.7).met && Target::at_most("rate", rate.ratio, 0.7).met
        );
    }

    #[test]
    fn a_floor_that_was_not_measured_is_an_error_and_not_zero() {
        let mut report = Report::new("bench");
        let error = report.add(1, 1, &[series("a", [1])], &["sync"], &[]).unwrap_err().to_string();
        assert!(error.contains("`sync`"), "{error}");
    }
}
