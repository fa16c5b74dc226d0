//! `open`: how long an engine takes to open its logs, and how much memory they then hold.
//!
//! - One embedded log of some GiB after an unclean stop: its last append is torn. Only the last segment is walked,
//!   so beside it stands its floor, which is to read that file.
//! - Many logs, under consensus and embedded, each with a few batches.
//! - One log of very many segments, and what it would cost to look at each of them, which a start does not do.
//!
//! Each is measured at a quarter, at half and at all of the size, so that one sees how it grows. Every opening is done by a
//! process of its own, several times, and the median is told: see `child`. Before an opening the system is asked to
//! forget what the files hold (*cold*); the *warm* one follows at once. Directories stay in memory in both.
//!
//! Not here: the syncs and writes that made the data. It is built without syncs, and synced at once.

pub(crate) mod build;
pub(crate) mod child;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use self::build::{CONFIG_LARGE, CONFIG_SMALL, Directory};
use self::child::Opened;
use crate::error::{BenchError, Doing as _};
use crate::options::Options;

/// Openings of each kind, unless it is a `--quick` run.
const RUNS: usize = 3;
const RUNS_QUICK: usize = 2;
/// Logs, and segments of one log.
const LOGS: u64 = 10_000;
const SEGMENTS: u64 = 100_000;
/// So many times fewer in a `--quick` run.
const QUICK_PART: u64 = 20;
const GIB: u64 = 1 << 30;
/// Bytes of a segment of the large log, and in a `--quick` run.
const SEGMENT_BYTES: u64 = GIB;
const SEGMENT_BYTES_QUICK: u64 = 64 << 20;

/// What was measured at one size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was opened.
    pub name: String,
    /// Logs.
    pub logs: u64,
    /// Segments of all of them.
    pub segments: u64,
    /// Bytes of tails that were walked.
    pub walked_bytes: u64,
    /// Median of the openings after the system was asked to forget the files, in milliseconds.
    pub cold_ms: f64,
    /// The same right after another opening.
    pub warm_ms: f64,
    /// Memory of the process after a warm opening, by its own account.
    pub resident_kib: u64,
    /// Bytes of the heap that the opening left behind.
    pub heap_bytes: u64,
    /// The same for each log, or for each segment where there is one log.
    pub heap_bytes_each: u64,
    /// Something to compare with.
    pub note: String,
}

/// All that was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OpenReport {
    /// Its name.
    pub bench: &'static str,
    /// Openings of each kind, of which the median is told.
    pub runs: usize,
    /// One for each kind and size.
    pub rows: Vec<Row>,
}

/// Measures everything. Data goes to folders of their own below `folder`, which are removed again.
///
/// # Errors
/// [`BenchError`]; nothing is told then.
pub fn run(options: &Options, folder: &Path) -> Result<OpenReport, BenchError> {
    let quick = options.quick;
    let part = if quick { QUICK_PART } else { 1 };
    let mut open = Open { runs: if quick { RUNS_QUICK } else { RUNS }, folder, rows: Vec::new() };
    let segment_bytes = if quick { SEGMENT_BYTES_QUICK } else { SEGMENT_BYTES };
    let bytes = options.gib.saturating_mul(GIB) / part;
    open.large(segment_bytes, bytes.div_ceil(segment_bytes))?;
    open.many_logs(LOGS / part)?;
    open.many_embedded_logs(LOGS / part)?;
    open.many_segments(SEGMENTS / part)?;
    Ok(OpenReport { bench: "open", runs: open.runs, rows: open.rows })
}

struct Open<'a> {
    runs: usize,
    folder: &'a Path,
    rows: Vec<Row>,
}

/// A quarter, half, and all.
fn sizes(all: u64) -> [u64; 3] {
    [(all / 4).max(1), (all / 2).max(1), all]
}

impl Open<'_> {
    fn large(&mut self, segment_bytes: u64, segments: u64) -> Result<(), BenchError> {
        let (_folder, dir) = self.directory(Directory::embedded)?;
        let config = CONFIG_LARGE(segment_bytes);
        for segments in sizes(segments) {
            dir.grow_large(config, segments)?;
            let last = dir.last_segment()?;
            let floor = self.median(|| {
                build::forget(&dir.root)?;
                build::read_through(&last)
            })?;
            let name = format!("{segments} x {} MiB, unclean stop", segment_bytes >> 20);
            let tear = || dir.tear(&last);
            let note = format!("cold floor, reading the last segment: {:.1} ms", ms(floor));
            self.measure(&dir, config, name, tear, note)?;
        }
        Ok(())
    }

    fn many_logs(&mut self, logs: u64) -> Result<(), BenchError> {
        let (_folder, dir) = self.directory(Directory::consensus)?;
        let mut from = 0;
        for to in sizes(logs) {
            dir.grow_logs(from..to)?;
            from = to;
            self.measure(&dir, CONFIG_SMALL, format!("{to} logs, consensus"), || Ok(()), String::new())?;
        }
        Ok(())
    }

    fn many_embedded_logs(&mut self, logs: u64) -> Result<(), BenchError> {
        let (_folder, dir) = self.directory(Directory::embedded)?;
        let mut from = 0;
        for to in sizes(logs) {
            dir.grow_shared_logs(from..to)?;
            from = to;
            self.measure(&dir, CONFIG_SMALL, format!("{to} logs, embedded"), || Ok(()), String::new())?;
        }
        Ok(())
    }

    fn many_segments(&mut self, segments: u64) -> Result<(), BenchError> {
        let (_folder, dir) = self.directory(Directory::consensus)?;
        for to in sizes(segments) {
            dir.grow_segments(to)?;
            self.measure(&dir, CONFIG_SMALL, format!("{to} segments, consensus"), || Ok(()), String::new())?;
        }
        Ok(())
    }

    fn directory(
        &self,
        make: impl FnOnce(PathBuf) -> Result<Directory, BenchError>,
    ) -> Result<(tempfile::TempDir, Directory), BenchError> {
        let folder = tempfile::Builder::new().prefix("bench-open-").tempdir_in(self.folder);
        let folder = folder.doing("make a folder")?;
        let dir = make(folder.path().join("data"))?;
        Ok((folder, dir))
    }

    fn measure(
        &mut self,
        dir: &Directory,
        config: tidelog_engine::checkpoint::LogConfig,
        name: String,
        prepare: impl Fn() -> Result<(), BenchError>,
        note: String,
    ) -> Result<(), BenchError> {
        let (mut cold, mut warm) = (Vec::new(), Vec::new());
        build::settle(&dir.root)?;
        for _ in 0..self.runs {
            prepare()?;
            build::settle(&dir.root)?;
            build::forget(&dir.root)?;
            cold.push(child::open_in_a_process(dir, config)?);
            prepare()?;
            warm.push(child::open_in_a_process(dir, config)?);
        }
        let took = |opened: &Opened| Duration::from_micros(opened.open_us);
        let one = warm.last().cloned().unwrap_or_default();
        let each = if one.logs > 1 { one.logs } else { one.segments };
        let note = match one.look_us {
            Some(us) => format!("looking at every segment, warm: {:.1} ms", ms(Duration::from_micros(us))),
            None => note,
        };
        let row = Row {
            name,
            logs: one.logs,
            segments: one.segments,
            walked_bytes: one.walked_bytes,
            cold_ms: ms(median(cold.iter().map(took))),
            warm_ms: ms(median(warm.iter().map(took))),
            resident_kib: one.resident_kib,
            heap_bytes: one.heap_bytes,
            heap_bytes_each: one.heap_bytes / each.max(1),
            note,
        };
        // A run takes minutes: whoever waits sees that it goes on.
        eprintln!("{row}");
        self.rows.push(row);
        Ok(())
    }

    fn median(&self, mut once: impl FnMut() -> Result<Duration, BenchError>) -> Result<Duration, BenchError> {
        let mut all = Vec::new();
        for _ in 0..self.runs {
            all.push(once()?);
        }
        Ok(median(all.into_iter()))
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn ms(length: Duration) -> f64 {
    (length.as_secs_f64() * 10_000.0).round() / 10.0
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (walked_mib, heap_kib) = (self.walked_bytes >> 20, self.heap_bytes >> 10);
        write!(out, "  {:32} {:>9.1} {:>9.1} {:>9}", self.name, self.cold_ms, self.warm_ms, self.segments)?;
        write!(
            out,
            " {walked_mib:>12} {:>12} {heap_kib:>12} {:>7}",
            self.resident_kib, self.heap_bytes_each
        )?;
        write!(out, "  {}", self.note)
    }
}

impl fmt::Display for OpenReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "open: median of {} openings, each by a process of its own", self.runs)?;
        writeln!(
            out,
            "  {:32} {:>9} {:>9} {:>9} {:>12} {:>12} {:>12} {:>7}",
            "milliseconds, KiB", "cold", "warm", "segments", "walked MiB", "resident", "heap", "B each"
        )?;
        for row in &self.rows {
            writeln!(out, "{row}")?;
        }
        Ok(())
    }
}
