//! What the threads of a round do.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidelog_engine::Engine;
use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{LogReader, ReadError};
use tidelog_wire::ids::{Generation, LogId, Offset, Partition};

use crate::child::Told;
use crate::clock::{Begun, pause};
use crate::model::{Dice, Follower, Violation, batch};

/// Threads that append.
pub(crate) const WRITERS: usize = 8;
/// Threads that read behind them.
const READERS: u64 = 3;
/// Records kept of a log, about: the rest is trimmed.
const RECORDS_KEPT: u64 = 4_000;
/// Violations told one by one.
const TOLD_MAX: usize = 20;

/// A log in its present life.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) id: LogId,
    pub(crate) log: SharedLog,
}

/// One of the logs.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Which of the slots.
    pub(crate) index: usize,
    pub(crate) config: LogConfig,
    /// Writers hold it shared while they append, so that a life ends between appends.
    pub(crate) life: RwLock<Option<Life>>,
    pub(crate) answered: Mutex<Answered>,
}

/// What was answered in a life of a log.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answered {
    pub(crate) generation: u64,
    /// How many records of each writer are durable.
    pub(crate) durable: [u64; WRITERS],
    /// How many of each are appended.
    pub(crate) appended: [u64; WRITERS],
    /// Highest end that was durable.
    pub(crate) durable_end: u64,
    /// Highest end that an append gave.
    pub(crate) appended_end: u64,
    /// Highest start that a trim was asked for.
    pub(crate) trimmed_to: u64,
    /// The last who worked was killed, so more may have happened than was told.
    pub(crate) was_killed: bool,
}

impl Answered {
    /// Takes in an answer: the writer's next number, and the end of the log. Says what its next number was before.
    pub(crate) fn note(&mut self, writer: usize, number: u64, end: u64, durable: bool) -> u64 {
        let before = self.appended.get(writer).copied().unwrap_or(number);
        self.appended_end = self.appended_end.max(end);
        if let Some(known) = self.appended.get_mut(writer) {
            *known = number;
        }
        if durable {
            self.durable_end = self.durable_end.max(end);
            if let Some(known) = self.durable.get_mut(writer) {
                *known = number;
            }
        }
        before
    }

    /// Takes in that a trim is about to be asked for.
    pub(crate) fn note_trim(&mut self, to: u64) {
        self.trimmed_to = self.trimmed_to.max(to);
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) appended: AtomicU64,
    pub(crate) verified: AtomicU64,
    pub(crate) trims: AtomicU64,
    pub(crate) lives: AtomicU64,
    pub(crate) scans: AtomicU64,
}

/// All that the threads share.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) slots: Vec<Slot>,
    pub(crate) counts: Counts,
    pub(crate) stop: AtomicBool,
    pub(crate) violations: Mutex<Vec<Violation>>,
    pub(crate) begun: Begun,
    /// This process is a child that is to be killed: it tells every answer, and ends no life.
    is_child: bool,
}

impl World {
    pub(crate) fn new(begun: Begun) -> Self {
        let sizes = [4 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20, 8 << 20];
        let slots = sizes.into_iter().enumerate().map(|(index, segment_bytes)| Slot {
            index,
            config: LogConfig { segment_bytes, epoch_base: 0 },
            life: RwLock::default(),
            answered: Mutex::default(),
        });
        Self {
            slots: slots.collect(),
            counts: Counts::default(),
            stop: AtomicBool::new(false),
            violations: Mutex::default(),
            begun,
            is_child: false,
        }
    }

    /// That of a child, which tells what it is answered.
    pub(crate) fn of_child(begun: Begun) -> Self {
        Self { is_child: true, ..Self::new(begun) }
    }

    fn tell(&self, told: Told) {
        if self.is_child {
            told.tell();
        }
    }

    /// Notes what must not be, and ends the run.
    pub(crate) fn violated(&self, what: Violation) {
        let mut told = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD_MAX {
            eprintln!("VIOLATION: {what}");
            told.push(what);
        }
        self.stop.store(true, Ordering::SeqCst);
    }

    fn note(&self, outcome: Result<(), Violation>) {
        if let Err(what) = outcome {
            self.violated(what);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn pick(&self, dice: &mut Dice) -> Option<&Slot> {
        let slots = u64::try_from(self.slots.len()).unwrap_or(0);
        self.slots.get(usize::try_from(dice.below(slots)).ok()?)
    }
}

impl Slot {
    pub(crate) fn answered(&self) -> std::sync::MutexGuard<'_, Answered> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> Option<(LogId, LogReader)> {
        let life = self.life.read().unwrap_or_else(PoisonError::into_inner);
        life.as_ref().map(|life| (life.id, life.log.reader()))
    }
}

/// The log of slot `number` in the life `generation`. Generations of slots never meet.
pub(crate) const fn id(generation: u64) -> LogId {
    LogId { generation: Generation(generation), partition: Partition(0) }
}

/// One round: everything works until `length` is over or something is violated.
pub(crate) fn round(world: &World, engine: &Arc<Engine>, length: Duration, seed: u64) {
    let begun = Begun::now();
    world.stop.store(false, Ordering::SeqCst);
    std::thread::scope(|scope| {
        for (writer, place) in (0_u64..).zip(0..WRITERS) {
            scope.spawn(move || {
                world.note(write(world, writer, place, &mut Dice::new(seed ^ (writer << 32))));
            });
        }
        for reader in 0..READERS {
            scope.spawn(move || world.note(follow(world, &mut Dice::new(seed ^ (reader << 48) ^ 1))));
        }
        scope.spawn(move || world.note(chores(world, engine, &mut Dice::new(seed ^ 2))));
        while begun.elapsed() < length && !world.is_stopping() {
            pause(Duration::from_millis(50));
        }
        world.stop.store(true, Ordering::SeqCst);
    });
}

/// Appends, mostly durably.
fn write(world: &World, writer: u64, place: usize, dice: &mut Dice) -> Result<(), Violation> {
    while !world.is_stopping() {
        let Some(slot) = world.pick(dice) else { continue };
        let guard = slot.life.read().unwrap_or_else(PoisonError::into_inner);
        let Some(life) = guard.as_ref() else { continue };
        let number = slot.answered().appended.get(place).copied().unwrap_or(0);
        let count = 1 + dice.below(4);
        let time = world.begun.time();
        let batch = batch(life.id.generation, writer, number, count, time)?;
        let failed = |error| format!("{}: an append failed: {error}", life.id);
        let durable = dice.below(4) > 0;
        let appended =
            if durable { life.log.append_durable(&batch, time) } else { life.log.append(&batch, time) };
        let appended = appended.map_err(failed)?;
        if appended.last_offset.get() + 1 != appended.base_offset.get() + count {
            return Err(format!("{}: {count} records got {appended:?}", life.id));
        }
        let end = appended.last_offset.plus(1);
        if durable && life.log.reader().durable_end() < end {
            return Err(format!("{}: answered before {end} is durable", life.id));
        }
        let (number, end) = (number + count, end.get());
        slot.answered().note(place, number, end, durable);
        world.tell(Told::Appended { slot: slot.index, writer: place, number, end, durable });
        world.counts.appended.fetch_add(count, Ordering::Relaxed);
    }
    Ok(())
}

/// Follows one log after the other for a while, verifying every record.
fn follow(world: &World, dice: &mut Dice) -> Result<(), Violation> {
    while !world.is_stopping() {
        let Some((id, reader)) = world.pick(dice).and_then(Slot::reader) else { continue };
        let mut follower = Follower::new(id.generation, reader.start());
        for _ in 0..200 {
            if world.is_stopping() || !step(id, &reader, &mut follower)? {
                break;
            }
        }
        world.counts.verified.fetch_add(follower.verified, Ordering::Relaxed);
    }
    Ok(())
}

/// One read. False: the log is gone, or was trimmed beyond where the follower is.
pub(crate) fn step(id: LogId, reader: &LogReader, follower: &mut Follower) -> Result<bool, Violation> {
    match reader.read(follower.next, 64 << 10) {
        Ok(read) if read.batches.is_empty() => {
            pause(Duration::from_millis(1));
            Ok(true)
        }
        Ok(read) => follower.take(read.batches).map(|()| true).map_err(|what| format!("{id}: {what}")),
        Err(ReadError::Removed { .. }) => Ok(false),
        Err(ReadError::OutOfRange { start, .. }) if follower.next < start => Ok(false),
        // Its file was unlinked between the look and the opening.
        Err(_)
            if follower.next < reader.start()
                || reader.read(follower.next, 1).is_err_and(|error| is_gone(&error)) =>
        {
            Ok(false)
        }
        Err(error) => Err(format!("{id}: reading at {}: {error}", follower.next)),
    }
}

fn is_gone(error: &ReadError) -> bool {
    matches!(error, ReadError::Removed { .. } | ReadError::OutOfRange { .. })
}

/// Trims, says that a log is idle, reads one through, and now and then ends a life and begins the next.
fn chores(world: &World, engine: &Arc<Engine>, dice: &mut Dice) -> Result<(), Violation> {
    while !world.is_stopping() {
        let Some(slot) = world.pick(dice) else { continue };
        match dice.below(40) {
            0 if !world.is_child => renew(world, slot, engine)?,
            0..=4 => scan(world, slot)?,
            5..=9 => {
                let guard = slot.life.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(life) = guard.as_ref() {
                    life.log.idle().map_err(|error| format!("{}: idle: {error}", life.id))?;
                }
            }
            _ => trim(world, slot, dice)?,
        }
        pause(Duration::from_millis(5));
    }
    Ok(())
}

fn trim(world: &World, slot: &Slot, dice: &mut Dice) -> Result<(), Violation> {
    let guard = slot.life.read().unwrap_or_else(PoisonError::into_inner);
    let Some(life) = guard.as_ref() else { return Ok(()) };
    let reader = life.log.reader();
    let kept = dice.below(RECORDS_KEPT);
    let to = Offset(reader.durable_end().get().saturating_sub(kept)).max(reader.start());
    slot.answered().note_trim(to.get());
    world.tell(Told::Trimming { slot: slot.index, to: to.get() });
    life.log.trim(to).map_err(|error| format!("{}: trim to {to}: {error}", life.id))?;
    world.counts.trims.fetch_add(1, Ordering::Relaxed);
    if life.log.reader().start() < to {
        return Err(format!("{}: trimmed to {to}, begins at {}", life.id, life.log.reader().start()));
    }
    Ok(())
}

/// Deletes a log and makes it again under the next generation; readers of the old life see no more of it.
fn renew(world: &World, slot: &Slot, engine: &Arc<Engine>) -> Result<(), Violation> {
    let mut guard = slot.life.write().unwrap_or_else(PoisonError::into_inner);
    let Some(old) = guard.take() else { return Ok(()) };
    let reader = old.log.reader();
    drop(old.log);
    engine.remove_log(old.id).map_err(|error| format!("{}: delete: {error}", old.id))?;
    if !matches!(reader.read(reader.start(), 1), Err(ReadError::Removed { .. })) {
        return Err(format!("{}: a reader of a log that is gone still reads", old.id));
    }
    let next = id(old.id.generation.get() + u64::try_from(world.slots.len()).unwrap_or(1));
    let (log, _) = engine.open_shared(next, slot.config).map_err(|error| format!("{next}: make: {error}"))?;
    *slot.answered() = Answered { generation: next.generation.get(), ..Answered::default() };
    *guard = Some(Life { id: next, log });
    world.counts.lives.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Reads a log from its start to where it was durable when this began.
fn scan(world: &World, slot: &Slot) -> Result<(), Violation> {
    let Some((id, reader)) = slot.reader() else { return Ok(()) };
    let end = reader.durable_end();
    let mut follower = Follower::new(id.generation, reader.start());
    while follower.next < end && !world.is_stopping() {
        if !step(id, &reader, &mut follower)? {
            break;
        }
    }
    world.counts.verified.fetch_add(follower.verified, Ordering::Relaxed);
    world.counts.scans.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Where the files of a log lie.
pub(crate) fn log_dir(data: &Path, id: LogId) -> PathBuf {
    data.join("logs").join(id.generation.to_string()).join(id.partition.to_string())
}
