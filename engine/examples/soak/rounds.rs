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
use crate::child;
use crate::clock::Begun;
use crate::model::{Dice, Follower, Violation};
use crate::samples::{SAMPLES_MIN, Sample, Trend, trends};
use crate::work::{self, Answered, Life, World};

/// Zeros left between the last byte that is none and what a torn write leaves.
const LEFT_ZERO: usize = 16;

/// What a run came to.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Outcome {
    seconds: u64,
    rounds: u64,
    clean_closes: u64,
    drops: u64,
    kills: u64,
    torn_tails: u64,
    records_appended: u64,
    records_verified: u64,
    trims: u64,
    lives_ended: u64,
    scans: u64,
    violations: Vec<Violation>,
    /// A short run was asked for, which passes though growth was not judged.
    short: bool,
    growth_judged: bool,
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
    let (mut samples, mut endings, mut torn) = (Vec::new(), Endings::default(), 0);
    while world.begun.elapsed() < length
        && world.violations.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    {
        let left = length.saturating_sub(world.begun.elapsed());
        let round = Duration::from_secs(arguments.round_seconds.max(1)).min(left);
        let is_clean = one_round(&world, &storage, &data, round, (&mut dice, &mut endings))?;
        let slot = world.slots.get(usize::try_from(dice.below(12)).unwrap_or(0)).filter(|_| !is_clean);
        if let Some(slot) = slot {
            let id = work::id(slot.answered().generation);
            torn += u64::from(tear(&data, id, &mut dice));
        }
        let sample = Sample::take(&data);
        samples.push(sample);
        if !arguments.json {
            println!("{}", progress(&world, sample, endings.rounds()));
        }
    }
    let last = open(&world, &storage, &data)?;
    close(&world, true);
    drop(last);
    let violations = std::mem::take(&mut *world.violations.lock().unwrap_or_else(PoisonError::into_inner));
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let outcome = Outcome {
        seconds: world.begun.elapsed().as_secs(),
        rounds: endings.rounds(),
        clean_closes: endings.clean_closes,
        drops: endings.drops,
        kills: endings.kills,
        torn_tails: torn,
        records_appended: count(&world.counts.appended),
        records_verified: count(&world.counts.verified),
        trims: count(&world.counts.trims),
        lives_ended: count(&world.counts.lives),
        scans: count(&world.counts.scans),
        short: arguments.short,
        growth_judged: samples.len() >= SAMPLES_MIN,
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

/// How rounds ended.
#[derive(Debug, Default)]
struct Endings {
    clean_closes: u64,
    drops: u64,
    kills: u64,
}

impl Endings {
    const fn rounds(&self) -> u64 {
        self.clean_closes + self.drops + self.kills
    }
}

/// One round, and its end: after a clean close, without one, or by killing the process that worked. Says whether it was
/// the first.
fn one_round(
    world: &World,
    storage: &Arc<dyn Storage>,
    data: &Path,
    length: Duration,
    (dice, endings): (&mut Dice, &mut Endings),
) -> Result<bool, Violation> {
    let seed = dice.below(u64::MAX);
    let ending = endings.rounds() % 3;
    if ending == 1 {
        let most = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let length = Duration::from_millis(dice.below(most));
        if let Err(what) = child::work_and_kill(world, data, length, seed) {
            world.violated(what);
        }
        endings.kills += 1;
        return Ok(false);
    }
    let engine = open(world, storage, data)?;
    work::round(world, &engine, length, seed);
    let is_clean = ending == 0;
    close(world, is_clean);
    drop(engine);
    endings.clean_closes += u64::from(is_clean);
    endings.drops += u64::from(!is_clean);
    Ok(is_clean)
}

/// Opens engine and logs, and reads every log from its start: all that was answered must be there.
pub(crate) fn open(world: &World, storage: &Arc<dyn Storage>, data: &Path) -> Result<Arc<Engine>, Violation> {
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
        match verify(id, &log, answered) {
            Ok(answered) => *slot.answered() = answered,
            Err(what) => world.violated(what),
        }
        *slot.life.write().unwrap_or_else(PoisonError::into_inner) = Some(Life { id, log });
    }
    Ok(engine)
}

/// Reads a log through, holds it against what was answered, and says where everything goes on.
fn verify(
    id: LogId,
    log: &tidelog_engine::embedded::SharedLog,
    mut answered: Answered,
) -> Result<Answered, Violation> {
    let reader = log.reader();
    let (start, end) = (reader.start(), reader.end());
    let mut follower = Follower::new(id.generation, start);
    while follower.next < end {
        if !work::step(id, &reader, &mut follower)? {
            return Err(format!("{id}: ends while nobody touches it"));
        }
    }
    is_whole(id, start.get(), end.get(), &answered)?;
    for (writer, (at, durable)) in (0_u64..).zip(answered.appended.iter_mut().zip(answered.durable)) {
        match follower.numbers().get(&writer) {
            Some(found) if *found < durable => {
                return Err(format!(
                    "{id}: writer {writer} had {durable} records answered, {found} are there"
                ));
            }
            // Only of a process that was killed may there be more than it told, or less than was not durable.
            Some(found) if *found != *at && !answered.was_killed => {
                return Err(format!("{id}: writer {writer} appended {at} records, {found} are there"));
            }
            Some(found) => *at = *found,
            // All of its records lie below the start: the log begins and ends where it was said, without a gap.
            None => *at = (*at).max(durable),
        }
    }
    answered.trimmed_to = start.get();
    answered.appended_end = end.get();
    answered.was_killed = false;
    Ok(answered)
}

/// A log begins where it was trimmed to, and ends where its appends ended. After a kill it may begin lower, if the trim was not
/// answered, and hold more or less than what was told, but never less than was durable.
fn is_whole(id: LogId, start: u64, end: u64, answered: &Answered) -> Result<(), Violation> {
    let Answered { durable_end, appended_end, trimmed_to, was_killed, .. } = *answered;
    if start > trimmed_to || (start < trimmed_to && !was_killed) {
        return Err(format!("{id}: trimmed to {trimmed_to}, begins at {start}"));
    }
    if end < durable_end {
        return Err(format!("{id}: was durable up to {durable_end}, ends at {end}"));
    }
    if end != appended_end && !was_killed {
        return Err(format!("{id}: was appended to up to {appended_end}, ends at {end}"));
    }
    Ok(())
}

/// Closes cleanly, or drops everything as it is.
fn close(world: &World, clean: bool) {
    for slot in &world.slots {
        let life = slot.life.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(life) = life else { continue };
        if clean && let Err(error) = life.log.idle() {
            world.violated(format!("{}: close: {error}", life.id));
        }
    }
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
    /// No violation, and nothing grows; that was looked at, unless a short run was asked for.
    pub(crate) fn is_good(&self) -> bool {
        let judged = self.growth_judged || self.short;
        judged && self.violations.is_empty() && self.trends.iter().all(|trend| !trend.grows)
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
            ("drops without close", self.drops),
            ("kills in the midst", self.kills),
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
        if !self.growth_judged {
            let advice = if self.short { "" } else { "; run longer, or ask for that with --short" };
            writeln!(
                out,
                "NOT JUDGED: whether anything grows, for which {SAMPLES_MIN} rounds are needed{advice}"
            )
            .unwrap_or_default();
        }
        for what in &self.violations {
            writeln!(out, "VIOLATION: {what}").unwrap_or_default();
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log of which every segment was gone began and ended at 0, no writer's records were in it, and the soak took them
    /// all for trimmed.
    #[test]
    fn a_log_that_lost_everything_is_no_trimmed_log() {
        let mut answered = Answered { generation: 7, ..Answered::default() };
        answered.note_trim(3);
        answered.note(0, 5, 5, true);
        answered.note(1, 2, 7, false);
        for was_killed in [false, true] {
            let answered = Answered { was_killed, ..answered.clone() };
            assert!(is_whole(work::id(7), 3, 7, &answered).is_ok());
            assert!(is_whole(work::id(7), 0, 0, &answered).is_err());
            assert!(is_whole(work::id(7), 3, 4, &answered).is_err(), "up to 5 it was durable");
            assert!(is_whole(work::id(7), 4, 7, &answered).is_err(), "nobody trimmed to 4");
            assert_eq!(is_whole(work::id(7), 3, 5, &answered).is_ok(), was_killed, "up to 7 it was appended");
        }
    }

    /// Nine rounds passed as "no growth" though nobody had looked.
    #[test]
    fn a_run_that_did_not_judge_growth_is_not_good() {
        let run = |short, growth_judged| Outcome { short, growth_judged, ..Outcome::default() };
        assert!(!run(false, false).is_good());
        assert!(run(false, false).table().contains("NOT JUDGED"));
        assert!(run(true, false).is_good());
        assert!(run(false, true).is_good());
    }
}
