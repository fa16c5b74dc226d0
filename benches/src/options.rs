//! The command line of the benchmarks: what comes behind `cargo bench -p tidelog-benches --`.
//!
//! cargo hands the same arguments to every benchmark, so a name selects: who is not named does nothing.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::BenchError;
use crate::rounds::Plan;

/// The benchmarks that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// The embedded engine beside the disk's floor.
    Engine,
    /// Acknowledged appends of one node and of three beside the floors of disk and network.
    Cluster,
    /// Opening of large logs, and of many. Runs only if it is named: it writes 10 GiB.
    Open,
}

impl Bench {
    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Cluster => "cluster",
            Self::Open => "open",
        }
    }
}

/// Rounds with batches of 1 KiB, unless told otherwise: enough for a 99.9th percentile.
const SAMPLES_ENGINE: u64 = 20_000;
/// The same of the cluster, whose rounds take longer.
const SAMPLES_CLUSTER: u64 = 5000;
/// Rounds of a `--quick` run.
const SAMPLES_QUICK: u64 = 200;
/// GiB of the large log, unless told otherwise.
const GIB_DEFAULT: u64 = 10;
/// Longest time for one size of batch in a benchmark.
const SECONDS_MAX_ENGINE: u64 = 900;
const SECONDS_MAX_CLUSTER: u64 = 45;

pub(crate) const USAGE: &str = "the arguments are [engine] [cluster] [open] [--quick] [--samples N] [--gib N] [--json] [--programs DIR]; \
    samples are 1 to 1000000, GiB 1 to 64, DIR holds release builds of tidelog and tidelogd, which are built otherwise";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The benchmarks that were named; empty for all.
    pub named: Vec<Bench>,
    /// Rounds for each size of batch, if it was said.
    pub samples: Option<u64>,
    /// Whether `--quick` was said.
    pub quick: bool,
    /// GiB of the large log that is opened.
    pub gib: u64,
    /// One line of JSON instead of tables.
    pub json: bool,
    /// Where the programs are; built if `None`.
    pub programs: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments, the program's own name left out.
    ///
    /// # Errors
    /// [`BenchError::Usage`] naming the first that is not understood.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, BenchError> {
        let mut arguments = arguments.into_iter();
        let (mut named, mut samples, mut quick) = (Vec::new(), None, false);
        let (mut json, mut programs, mut gib) = (false, None, GIB_DEFAULT);
        while let Some(argument) = arguments.next() {
            let wrong = || BenchError::Usage { found: format!("`{argument}`"), expected: USAGE };
            match argument.as_str() {
                // cargo's own way of saying that this is a benchmark.
                "--bench" => {}
                "engine" => named.push(Bench::Engine),
                "cluster" => named.push(Bench::Cluster),
                "open" => named.push(Bench::Open),
                "--quick" => quick = true,
                "--json" => json = true,
                "--programs" => programs = Some(PathBuf::from(arguments.next().ok_or_else(wrong)?)),
                "--samples" => {
                    let asked = arguments.next().and_then(|number| number.parse().ok());
                    samples = Some(asked.filter(|count| (1..=1_000_000).contains(count)).ok_or_else(wrong)?);
                }
                "--gib" => {
                    let asked = arguments.next().and_then(|number| number.parse().ok());
                    gib = asked.filter(|gib| (1..=64).contains(gib)).ok_or_else(wrong)?;
                }
                _ => return Err(wrong()),
            }
        }
        let samples = samples.or(if quick { Some(SAMPLES_QUICK) } else { None });
        Ok(Self { named, samples, quick, gib, json, programs })
    }

    /// How long to measure with batches of one size.
    pub(crate) fn plan(&self, bench: Bench) -> Plan {
        let (samples, seconds) = match bench {
            Bench::Engine => (SAMPLES_ENGINE, SECONDS_MAX_ENGINE),
            Bench::Cluster | Bench::Open => (SAMPLES_CLUSTER, SECONDS_MAX_CLUSTER),
        };
        Plan { samples: self.samples.unwrap_or(samples), time_max: Duration::from_secs(seconds), pause: true }
    }

    /// Whether `bench` is to be run.
    #[must_use]
    pub fn selects(&self, bench: Bench) -> bool {
        (self.named.is_empty() && bench != Bench::Open) || self.named.contains(&bench)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, BenchError> {
        Options::parse(line.split_ascii_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_name_selects_and_none_selects_all() {
        let all = parse("--bench").unwrap();
        assert!(all.selects(Bench::Engine) && all.selects(Bench::Cluster) && !all.selects(Bench::Open));
        assert!(parse("open --gib 2").unwrap().selects(Bench::Open));
        let engine = parse("engine --quick --json --bench").unwrap();
        assert!(engine.selects(Bench::Engine) && !engine.selects(Bench::Cluster) && engine.json);
        assert!(all.plan(Bench::Engine).samples >= 20_000);
        assert_eq!(
            (engine.samples, parse("--samples 7 --quick").unwrap().samples),
            (Some(SAMPLES_QUICK), Some(7))
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for line in ["motor", "--gib 65", "--samples", "--samples 0", "--samples many", "--programs"] {
            let error = parse(line).unwrap_err().to_string();
            let first = line.split(' ').next().unwrap();
            assert!(error.contains(first) && error.contains("[--quick]"), "{error}");
        }
    }
}
