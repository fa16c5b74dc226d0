//! Round after round: open, verify, work, stop, look at what is left.

#![expect(
    clippy::disallowed_methods,
    reason = "makes and removes the scratch directory, and harms files in it"
)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::Storage;
use tidelog_engine::{Engine, NewIdentity, Options, quarantine};
use tidelog_wire::ids::{ClusterId, Incarnation, LogId, NodeId};

use crate::Arguments;
use crate::clock::Begun;
use crate::model::{Dice, Follower, Violation};
use crate::samples::{Sample, Trend, trends};
use crate::work::{self, Answered, Life, World};

/// Zeros left between the last byte that is none and what a torn write leaves.
const LEFT_ZERO: usize = 16;

/// What a run came to.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    seconds: u64,
    rounds: u64,
    clean_closes: u64,
    sudden_drops: u64,
    torn_tails: u64,
    records_appended: u64,
    records_verified: u64,
    trims: u64,
    lives_ended: u64,
    scans: u64,
    violations: Vec<Violation>,
    samples: Vec<Sample>,
    trends: Vec<Trend>,
}

/// Runs for `length`.
pub(crate) fn run(arguments: &Arguments, length: Duration) -> Result<Outcome, Violation> {
    let data = arguments.dir.join(format!("data-{}", std::process::id()));
    fs::create_dir_all(&data).map_err(|error| format!("{}: cannot be made: {error}", data.display()))?;
    let storage: Arc<dyn Storage> = Arc::new(OsStorage);
    let new = NewIdentity { cluster: ClusterId(1), node: NodeId(0), incarnation: Incarnation(2) };
    Engine::format(&storage, &data, new).map_err(|error| error.to_string())?;
    let world = World::new(Begun::now());
    for (slot, generation) in world.slots.iter().zip(1..) {
        *slot.answered() = Answered { generation, ..Answered::default() };
    }
    let mut dice = Dice::new(arguments.seed);
    let (mut samples, mut rounds, mut clean, mut torn) = (Vec::new(), 0, 0, 0);
    while world.begun.elapsed() < length
        && world.violations.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    {
        let engine = open(&world, &storage, &data)?;
        let left = length.saturating_sub(world.begun.elapsed());
        let round = Duration::from_secs(arguments.round_seconds.max(1)).min(left);
        work::round(&world, &engine, round, dice.below(u64::MAX));
        let is_clean = dice.below(2) == 0;
        let open_logs = close(&world, is_clean);
        drop(engine);
        clean += u64::from(is_clean);
        if let Some(id) = open_logs.get(usize::try_from(dice.below(12)).unwrap_or(0)).filter(|_| !is_clean) {
            torn += u64::from(tear(&data, *id, &mut dice));
        }
        rounds += 1;
        let sample = Sample::take(&data);
        samples.push(sample);
        if !arguments.json {
            println!("{}", progress(&world, sample, rounds));
        }
    }
    let last = open(&world, &storage, &data)?;
    close(&world, true);
    drop(last);
    let violations = std::mem::take(&mut *world.violations.lock().unwrap_or_else(PoisonError::into_inner));
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let outcome = Outcome {
        seconds: world.begun.elapsed().as_secs(),
        rounds,
        clean_closes: clean,
        sudden_drops: rounds - clean,
        torn_tails: torn,
        records_appended: count(&world.counts.appended),
        records_verified: count(&world.counts.verified),
        trims: count(&world.counts.trims),
        lives_ended: count(&world.counts.lives),
        scans: count(&world.counts.scans),
        trends: trends(&samples),
        violations,
        samples,
    };
    if outcome.is_good() {
        fs::remove_dir_all(&data)
            .map_err(|error| format!("{}: cannot be removed: {error}", data.display()))?;
    } else {
        eprintln!("the directory is kept: {}", data.display());
    }
    Ok(outcome)
}

/// Opens engine and logs, and reads every log from its start: all that was answered must be there.
fn open(world: &World, storage: &Arc<dyn Storage>, data: &Path) -> Result<Arc<Engine>, Violation> {
    let limits = quarantine::Limits { bytes_max: 8 << 20, ..quarantine::Limits::default() };
    let options = Options { quarantine: limits, open_files_max: 64, ..Options::embedded(world.begun.time()) };
    let engine = Engine::open(Arc::clone(storage), data, options).map_err(|error| error.to_string())?;
    for slot in &world.slots {
        let answered = slot.answered().clone();
        let id = work::id(answered.generation);
        let (log, recovery) =
            engine.open_shared(id, slot.config).map_err(|error| format!("{id}: open: {error}"))?;
        if !recovery.damage.is_empty() {
            world.violated(format!("{id}: called damaged: {:?}", recovery.damage));
        }
        match verify(id, &log, &answered) {
            Ok(appended) => slot.answered().appended = appended,
            Err(what) => world.violated(what),
        }
        *slot.life.write().unwrap_or_else(PoisonError::into_inner) = Some(Life { id, log });
    }
    Ok(engine)
}

/// Reads a log through and says where each writer goes on.
fn verify(
    id: LogId,
    log: &tidelog_engine::embedded::SharedLog,
    answered: &Answered,
) -> Result<[u64; work::WRITERS], Violation> {
    let reader = log.reader();
    let mut follower = Follower::new(id.generation, reader.start());
    while follower.next < reader.end() {
        if !work::step(id, &reader, &mut follower)? {
            return Err(format!("{id}: ends while nobody touches it"));
        }
    }
    let mut appended = answered.appended;
    for (writer, (at, durable)) in (0_u64..).zip(appended.iter_mut().zip(answered.durable)) {
        match follower.numbers().get(&writer) {
            Some(found) if *found < durable => {
                return Err(format!(
                    "{id}: writer {writer} had {durable} records answered, {found} are there"
                ));
            }
            // What was appended and not answered may be gone. The process only was stopped, so it is not.
            Some(found) if *found != *at => {
                return Err(format!("{id}: writer {writer} appended {at} records, {found} are there"));
            }
            Some(_) => {}
            // All of its records were trimmed.
            None => *at = (*at).max(durable),
        }
    }
    Ok(appended)
}

/// Closes cleanly, or drops everything as it is. Says which logs were open.
fn close(world: &World, clean: bool) -> Vec<LogId> {
    let mut ids = Vec::new();
    for slot in &world.slots {
        let life = slot.life.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(life) = life else { continue };
        if clean && let Err(error) = life.log.idle() {
            world.violated(format!("{}: close: {error}", life.id));
        }
        ids.push(life.id);
    }
    ids
}

/// Writes bytes that are no frame behind the last one of a log, as a torn write leaves them.
fn tear(data: &Path, id: LogId, dice: &mut Dice) -> bool {
    let Ok(entries) = fs::read_dir(work::log_dir(data, id)) else { return false };
    let last = entries.flatten().map(|entry| entry.path()).max();
    let Some(bytes) = last.as_ref().and_then(|path| fs::read(path).ok()) else { return false };
    // A frame may end in zeros; so many of them it never has.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1 + LEFT_ZERO);
    let end = u64::try_from(end).unwrap_or(0);
    let garbage: Vec<u8> =
        (0..1 + dice.below(300)).map(|at| u8::try_from(at % 251).unwrap_or(0) | 1).collect();
    last.and_then(|path| fs::OpenOptions::new().write(true).open(path).ok())
        .is_some_and(|file| file.write_all_at(&garbage, end).is_ok())
}

fn progress(world: &World, sample: Sample, rounds: u64) -> String {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    format!(
        "{:>5} s  round {rounds:>4}  {:>9} appended  {:>10} verified  {:>6} trims  {:>4} lives  fds {}  {} KiB resident  {} threads  {} KiB on disk",
        world.begun.elapsed().as_secs(),
        count(&world.counts.appended),
        count(&world.counts.verified),
        count(&world.counts.trims),
        count(&world.counts.lives),
        sample.descriptors,
        sample.resident_kib,
        sample.threads,
        sample.disk_kib,
    )
}

impl Outcome {
    /// No violation, and nothing grows.
    pub(crate) fn is_good(&self) -> bool {
        self.violations.is_empty() && self.trends.iter().all(|trend| !trend.grows)
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        let rows = [
            ("seconds", self.seconds),
            ("rounds", self.rounds),
            ("clean closes", self.clean_closes),
            ("sudden drops", self.sudden_drops),
            ("torn tails left", self.torn_tails),
            ("records appended", self.records_appended),
            ("records verified", self.records_verified),
            ("trims", self.trims),
            ("lives ended", self.lives_ended),
            ("logs read through", self.scans),
            ("violations", u64::try_from(self.violations.len()).unwrap_or(u64::MAX)),
        ];
        for (what, value) in rows {
            writeln!(out, "{what:<20} {value:>12}").unwrap_or_default();
        }
        writeln!(
            out,
            "\nmedians when nothing is open; allowed: the first half's, a tenth and a fixed number more"
        )
        .unwrap_or_default();
        writeln!(out, "{:<20} {:>12} {:>12} {:>12}", "", "first half", "second half", "allowed")
            .unwrap_or_default();
        for trend in &self.trends {
            let told = if trend.grows { "  GROWS" } else { "" };
            writeln!(
                out,
                "{:<20} {:>12} {:>12} {:>12}{told}",
                trend.what, trend.first_half, trend.second_half, trend.allowed
            )
            .unwrap_or_default();
        }
        if self.trends.is_empty() {
            writeln!(out, "too few rounds to judge growth: at least ten are needed").unwrap_or_default();
        }
        for what in &self.violations {
            writeln!(out, "VIOLATION: {what}").unwrap_or_default();
        }
        out
    }
}
