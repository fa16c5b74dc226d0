//! What must be true of a directory after recovery, whatever was done to it.

use std::sync::Arc;

use bytes::Bytes;
use tidelog_engine::embedded::SharedLog;
use tidelog_engine::log::{LogReader, LogWriter, ReadError, Visible};
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_engine::{Engine, Mode};
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LogId, Offset, TimestampMs};

use crate::work::{self, Entry, Model};
use crate::{CONFIG, LOGS, open};

/// Most batches read of a log: more than any case makes, so that a loop without an end is noticed.
const BATCHES_MAX: usize = 100_000;

/// How far the directory can be held against the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Nothing was damaged: besides, everything that was promised must be there.
    Sound,
    /// No checksum was forged: nothing may be read that was not written.
    Model,
    /// Checksums were put right: what is read must verify by itself and stay the same.
    Itself,
}

/// What can be read of a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Seen {
    start: Offset,
    end: Offset,
    batches: Vec<(Offset, Bytes)>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bases: Vec<u64> = self.batches.iter().map(|(base, _)| base.get()).collect();
        write!(out, "{}..{} with batches at {bases:?}", self.start, self.end)
    }
}

/// Opens the directory, and again, and after a power cut, and demands what the story of the crate says.
pub fn recovered(disk: &SimDisk, mode: Mode, model: &mut Model, trust: Trust) {
    match mode {
        Mode::Embedded => embedded(disk, model, trust),
        Mode::Consensus => consensus(disk, model, trust),
    }
}

fn embedded(disk: &SimDisk, model: &mut Model, trust: Trust) {
    let opened = open_embedded(disk, trust);
    assert!(opened.is_some() || trust != Trust::Sound, "a directory that was not harmed opens");
    let Some(first) = opened else { return };
    let seen = look_at_all(&first.1, model, trust);
    drop(first);
    for crash in [Crash::ProcessOnly, Crash::LoseUnsynced] {
        disk.crash(crash);
        let Some(again) = open_again(open_embedded(disk, trust), trust) else { return };
        goes_on(&seen, &look_at_all(&again.1, model, trust), crash);
    }
    disk.crash(Crash::ProcessOnly);
    let Some((engine, logs, read_only)) = open_again(open_embedded(disk, trust), trust) else { return };
    let mut ends = Vec::new();
    for (log, id) in logs.iter().zip(LOGS) {
        let batch = model.batch(1, 100);
        match log.append_durable(&batch, TimestampMs(9)) {
            Ok(appended) => {
                model.appended(id, &batch, work::stamp_embedded(), appended);
                ends.push((id, appended.base_offset, batch));
            }
            // A forged offset may be the last that there is; and where a stranger's file stands in the place of
            // the last segment, nobody knows which offsets were handed out.
            Err(error) => {
                let excused = trust == Trust::Itself || read_only.contains(&id);
                assert!(excused, "a recovered log takes appends: {error}");
            }
        }
    }
    drop((engine, logs));
    disk.crash(Crash::LoseUnsynced);
    let Some((_engine, logs, _)) = open_again(open_embedded(disk, trust), trust) else { return };
    for (id, base, batch) in ends {
        let log = logs.iter().zip(LOGS).find(|(_, log)| *log == id).map(|(log, _)| log);
        let read = log.expect("the log is open").reader().read(base, 1 << 20);
        let first = read.map(|read| read.batches.into_iter().next().map(|bytes| bytes.slice(16..)));
        let is_there = first.is_ok_and(|first| first == Some(batch.bytes().slice(16..)));
        assert!(is_there || trust == Trust::Itself, "what was appended durably is there");
    }
}

/// The logs, and those of them that take no appends.
type Opened = (Arc<Engine>, Vec<SharedLog>, Vec<LogId>);

fn open_embedded(disk: &SimDisk, trust: Trust) -> Option<Opened> {
    let engine = open(disk, Mode::Embedded).ok()?;
    let (mut logs, mut read_only) = (Vec::new(), Vec::new());
    for id in LOGS {
        match engine.open_shared(id, CONFIG) {
            Ok((log, recovery)) => {
                logs.push(log);
                read_only.extend(recovery.read_only.map(|_| id));
            }
            Err(error) => {
                assert_eq!(trust, Trust::Itself, "damage is contained: {error}");
                return None;
            }
        }
    }
    Some((engine, logs, read_only))
}

fn look_at_all(logs: &[SharedLog], model: &Model, trust: Trust) -> Vec<Seen> {
    logs.iter().map(|log| look(&log.reader(), model, trust)).collect()
}

fn consensus(disk: &SimDisk, model: &mut Model, trust: Trust) {
    let opened = open_replayed(disk, model, trust);
    assert!(opened.is_some() || trust != Trust::Sound, "a directory that was not harmed opens");
    let Some((_engine, writers)) = opened else { return };
    let seen = look_at_writers(&writers, model, trust);
    drop(writers);
    drop(_engine);
    for crash in [Crash::ProcessOnly, Crash::LoseUnsynced] {
        disk.crash(crash);
        let Some(again) = open_again(open_replayed(disk, model, trust), trust) else { return };
        goes_on(&seen, &look_at_writers(&again.1, model, trust), crash);
    }
    disk.crash(Crash::ProcessOnly);
    if trust == Trust::Itself {
        return;
    }
    let (engine, mut writers) = open_replayed(disk, model, trust).expect("what opened once opens again");
    for writer in &mut writers {
        let batch = model.batch(1, 100);
        let stamp = work::stamp(model.entries.len() as u64 + 1);
        model.entries.push(Entry::Append(writer.log(), batch.clone(), stamp));
        let appended = writer.append(&batch, stamp).expect("a recovered log takes appends");
        model.appended(writer.log(), &batch, stamp, appended);
    }
    let seen = look_at_writers(&writers, model, trust);
    work::checkpoint(&engine, &writers, model.entries.len() as u64);
    drop(writers);
    drop(engine);
    disk.crash(Crash::LoseUnsynced);
    let last = open_replayed(disk, model, trust).expect("what opened once opens again");
    assert_eq!(look_at_writers(&last.1, model, trust), seen, "opened at a new checkpoint");
}

fn open_replayed(disk: &SimDisk, model: &Model, trust: Trust) -> Option<(Arc<Engine>, Vec<LogWriter>)> {
    let engine = open(disk, Mode::Consensus).ok()?;
    // A replica without a valid checkpoint does not start.
    engine.load_checkpoint(work::GROUP).ok()?;
    let writers = work::replayed(&engine, model);
    assert!(writers.is_some() || trust == Trust::Itself, "damage is contained");
    Some((engine, writers?))
}

/// Whatever was lost of the files: once the entries are applied, a log begins and ends where they say.
fn look_at_writers(writers: &[LogWriter], model: &Model, trust: Trust) -> Vec<Seen> {
    let look = |writer: &LogWriter| {
        let (seen, log) = (look(&writer.reader(), model, trust), writer.log());
        if trust != Trust::Itself {
            let expected = (model.start_of(log), model.end_of_entries(log));
            assert_eq!((seen.start, seen.end), expected, "{log} after all entries");
        }
        seen
    };
    writers.iter().map(look).collect()
}

/// What was there is there again. More may be: once a file that stood in the way was set aside, a batch that had seemed to
/// reach into it is whole.
fn goes_on(before: &[Seen], again: &[Seen], crash: Crash) {
    for (before, again) in before.iter().zip(again) {
        let same = (before.start, before.end) == (again.start, again.end);
        let all = before.batches.iter().all(|batch| again.batches.contains(batch));
        assert!(same && all, "{before:?}, and opened again after {crash:?}: {again:?}");
    }
}

/// What opened once opens again, unless a forged format or cluster that nobody had looked at was met.
fn open_again<T>(opened: Option<T>, trust: Trust) -> Option<T> {
    assert!(opened.is_some() || trust == Trust::Itself, "what opened once opens again");
    opened
}

/// Reads all that can be read of a log and holds it against its rules.
pub fn look(reader: &LogReader, model: &Model, trust: Trust) -> Seen {
    let reader = reader.seeing(Visible::Appended);
    let (start, end, log) = (reader.start(), reader.end(), reader.log());
    assert!(start <= end, "{start}..{end}");
    if trust == Trust::Sound {
        let promised = model.durable.get(&log).copied().unwrap_or(Offset::ZERO);
        assert!(end >= promised, "{log} ends at {end}, below {promised}, which was durable");
        assert_eq!(start, model.start_of(log), "{log} begins where it was trimmed to, and nowhere else");
    }
    let mut batches = Vec::new();
    let mut at = start;
    while at < end {
        match reader.read(at, 64 << 10) {
            Ok(read) => {
                assert!(!read.batches.is_empty(), "something is visible at {at}");
                let mut next = None;
                for bytes in read.batches {
                    let batch = Batch::parse(bytes.clone(), BatchLimits::default());
                    let batch =
                        batch.unwrap_or_else(|error| panic!("a batch at {at} does not verify: {error}"));
                    let base = batch.base_offset().expect("a stored batch has its offset");
                    let last = batch.last_offset().expect("a stored batch has its offset");
                    assert!(
                        next.map_or(base <= at && at <= last, |next| next == base),
                        "{at}: {base}..={last}"
                    );
                    next = Some(last.plus(1));
                    if trust != Trust::Itself {
                        holds(model, log, base, &bytes);
                    }
                    batches.push((base, bytes));
                }
                assert_eq!(Some(read.next), next, "reading goes on behind what was read");
                at = read.next;
            }
            Err(ReadError::Damaged { range, .. }) => {
                assert_ne!(trust, Trust::Sound, "{range:?} of {log} is called damaged, and nothing was");
                assert!(range.start <= at && at < range.end, "{at} is in {range:?}");
                at = range.end;
            }
            // A forged format or cluster is refused, and stays so.
            Err(error) => {
                assert_eq!(trust, Trust::Itself, "{at} of {start}..{end} of {log}: {error}");
                return Seen { start, end, batches };
            }
        }
        assert!(batches.len() < BATCHES_MAX, "reading ends");
    }
    assert_eq!(at, end, "a batch does not reach beyond the end");
    chains(&reader, &batches, model, trust);
    Seen { start, end, batches }
}

fn holds(model: &Model, log: LogId, base: Offset, bytes: &Bytes) {
    let known = model.batches.get(&(log, base));
    assert!(known.is_some_and(|known| known.contains(bytes)), "a batch at {base} of {log} that nobody wrote");
}

/// The chain at the end of a batch is one that once stood there, or is not told.
fn chains(reader: &LogReader, batches: &[(Offset, Bytes)], model: &Model, trust: Trust) {
    for (base, _) in batches {
        if let Ok(chain) = reader.chain_at(*base)
            && trust != Trust::Itself
            && *base > Offset::ZERO
        {
            let known = model.chains.get(&(reader.log(), *base));
            assert!(
                known.is_some_and(|known| known.contains(&chain)),
                "a chain at {base} that never stood there"
            );
        }
    }
}
