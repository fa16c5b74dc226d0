//! The reference workload under consensus: two groups of one log each, whose raft logs forget nothing.
//! A replica whose log fails is opened again at its newest checkpoint, and its entries are applied again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_engine::checkpoint::{Checkpoint, CheckpointVerdict, EntryId, LogCheckpoint, Members};
use tidelog_engine::log::{AppendError, AppendStamp, LogWriter};
use tidelog_engine::producers::ProducerTable;
use tidelog_engine::segment;
use tidelog_engine::sim_disk::{Crash, Lasting, SimDisk};
use tidelog_engine::storage::{OpenMode, Position, create_dir_durably};
use tidelog_engine::transfer::SegmentFile;
use tidelog_engine::{Engine, Options};
use tidelog_wire::ids::{GroupId, LeaderEpoch, LogId, Offset, RaftIndex, Term, TimestampMs};

use crate::enumeration::Ran;
use crate::outcome::Outcome;
use crate::promise::{Harm, Now, Promise};
use crate::world::{CONFIG, NEIGHBOUR, NOW, VICTIM, batch, data, new_identity, try_engine};

#[derive(Clone, Copy)]
enum Entry {
    Append(u64),
    Trim(u64),
}

struct Group {
    id: GroupId,
    entries: Vec<Entry>,
    applied: usize,
    writer: Option<LogWriter>,
    promise: Promise,
}

struct Run<'a> {
    disk: &'a SimDisk,
    engine: Option<Arc<Engine>>,
    groups: Vec<Group>,
    number: u64,
    now: Now,
    ran: Ran,
}

/// Runs the workload on a disk, mends it and looks what is there.
pub(crate) fn run(disk: &SimDisk, harm: Harm, start_may_fall: bool, lasting: Lasting) -> Ran {
    let group = |id, log| Group {
        id: GroupId(id),
        entries: Vec::new(),
        applied: 0,
        writer: None,
        promise: Promise::new(log),
    };
    let now = Now { harm, disk_is_bad: true, start_may_fall, end_may_be_low: false };
    let groups = vec![group(1, VICTIM), group(2, NEIGHBOUR)];
    let mut run = Run { disk, engine: None, groups, number: 0, now, ran: Ran::default() };
    run.all();
    run.ran.calls = disk.calls();
    run.heal(lasting);
    run.ran
}

fn staging() -> &'static Path {
    Path::new("/data/staging")
}

impl Run<'_> {
    fn all(&mut self) {
        self.phase("format");
        if Engine::format(&self.disk.storage(), data(), new_identity()).is_err() {
            self.ran.told.insert(Outcome::NoStart);
            self.disk.clear_faults();
            drop(Engine::format(&self.disk.storage(), data(), new_identity()));
        }
        self.phase("first start");
        self.start();
        self.phase("append, roll and checkpoint");
        for round in 0..5 {
            for group in 0..2 {
                (0..6).for_each(|_| self.append(group));
                if round % 2 == 1 {
                    self.checkpoint(group);
                }
            }
        }
        self.read_all();
        self.phase("trim");
        self.propose(0, Entry::Trim(17));
        self.propose(1, Entry::Trim(3));
        self.checkpoint(0);
        self.checkpoint(1);
        self.phase("stop and start");
        (0..8).for_each(|_| self.append(0));
        self.start();
        self.read_all();
        self.phase("transfer and adopt");
        self.checkpoint(0);
        self.transfer();
        self.phase("full disk");
        self.disk.set_free_bytes(6 << 10);
        (0..20).for_each(|_| self.append(0));
        self.read_all();
        self.checkpoint(1);
        self.disk.set_free_bytes(1 << 30);
        (0..2).for_each(|group| self.append(group));
        self.phase("end");
        (0..2).for_each(|group| self.checkpoint(group));
    }

    fn phase(&mut self, name: &'static str) {
        self.ran.phases.push((name, self.disk.calls().len()));
        self.disk.drop_caches();
    }

    fn tell(&mut self, log: LogId, outcome: Outcome, error: &dyn std::fmt::Display) {
        if !self.now.disk_is_bad {
            self.ran.violations.push(format!("{log}: {error}"));
        }
        if log == NEIGHBOUR { &mut self.ran.neighbour_told } else { &mut self.ran.told }.insert(outcome);
    }

    /// Starts the node, or starts it again.
    fn start(&mut self) {
        self.groups.iter_mut().for_each(|group| group.writer = None);
        self.engine = None;
        match try_engine(self.disk, Options::consensus(NOW)) {
            Ok(engine) => self.engine = Some(engine),
            Err(error) => return self.tell(VICTIM, Outcome::NoStart, &error),
        }
        (0..2).for_each(|group| self.open(group));
    }

    /// Opens a group's log at its newest checkpoint and applies what came after it.
    fn open(&mut self, at: usize) {
        let Some(engine) = self.engine.clone() else { return };
        let group = &mut self.groups[at];
        let log = group.promise.log;
        group.writer = None;
        let loaded = match engine.load_checkpoint(group.id) {
            Ok(loaded) => loaded,
            Err(error) => return self.tell(log, Outcome::NotOpen, &error),
        };
        let state = loaded.as_ref().map(|loaded| &loaded.newest.logs[0].state);
        group.applied =
            loaded.as_ref().map_or(0, |loaded| usize::try_from(loaded.newest.applied.index.get()).unwrap());
        match engine.open_log(log, CONFIG, state) {
            Ok((writer, _)) => group.writer = Some(writer),
            Err(error) => return self.tell(log, Outcome::NotOpen, &error),
        }
        self.apply(at);
        self.check(at);
    }

    fn append(&mut self, at: usize) {
        let number = self.number;
        self.number += 1;
        self.propose(at, Entry::Append(number));
    }

    fn propose(&mut self, at: usize, entry: Entry) {
        self.groups[at].entries.push(entry);
        if !self.apply(at) && self.groups[at].writer.is_none() {
            self.open(at);
        }
    }

    /// Applies what is committed. False if it stopped: for want of room, or because the log is fenced.
    fn apply(&mut self, at: usize) -> bool {
        loop {
            let group = &mut self.groups[at];
            let log = group.promise.log;
            let Some(entry) = group.entries.get(group.applied).copied() else { return true };
            let Some(writer) = &mut group.writer else { return false };
            let failed = match entry {
                Entry::Append(number) => {
                    let index = RaftIndex(u64::try_from(group.applied + 1).unwrap());
                    let stamp = AppendStamp {
                        raft_index: index,
                        append_time: TimestampMs(5),
                        leader_epoch: LeaderEpoch(1),
                    };
                    let base = writer.state().end;
                    group.promise.sends(base, number);
                    match writer.append(&batch(number), stamp) {
                        Ok(_) => {
                            group.promise.wrote(base, number);
                            group.promise.keeps_all();
                            None
                        }
                        Err(error @ AppendError::DiskFull { .. }) => {
                            self.tell(log, Outcome::DiskFull, &error);
                            return false;
                        }
                        Err(error) => Some(error.to_string()),
                    }
                }
                Entry::Trim(to) => {
                    group.promise.asks_start(to);
                    let outcome = writer.set_log_start(Offset(to));
                    outcome.map(|()| group.promise.keeps_start(to)).err().map(|error| error.to_string())
                }
            };
            if let Some(error) = failed {
                group.writer = None;
                self.tell(log, Outcome::Fenced, &error);
                return false;
            }
            group.applied += 1;
        }
    }

    /// Reads a log that has applied everything.
    fn check(&mut self, at: usize) {
        let group = &mut self.groups[at];
        let Some(reader) = group.writer.as_ref().map(LogWriter::reader) else { return };
        if group.applied < group.entries.len() {
            return;
        }
        let log = group.promise.log;
        match group.promise.check(&reader, self.disk, self.now) {
            Ok(told) => {
                let all = if log == NEIGHBOUR { &mut self.ran.neighbour_told } else { &mut self.ran.told };
                all.extend(told);
            }
            Err(violation) => self.ran.violations.push(violation),
        }
    }

    fn read_all(&mut self) {
        (0..2).for_each(|group| self.check(group));
    }

    fn checkpoint(&mut self, at: usize) {
        let Some(engine) = self.engine.clone() else { return };
        let group = &mut self.groups[at];
        let log = group.promise.log;
        let Some(writer) = &group.writer else { return self.open(at) };
        let applied = EntryId { index: RaftIndex(u64::try_from(group.applied).unwrap()), term: Term(1) };
        let checkpoint = Checkpoint {
            group: group.id,
            applied,
            last_durable: applied,
            apply_version: 1,
            members: Members::default(),
            logs: vec![LogCheckpoint {
                log,
                config: CONFIG,
                state: writer.state(),
                producers: ProducerTable::new(),
                damage: writer.damage(),
                closed: false,
            }],
            state: bytes::Bytes::new(),
        };
        let pin = engine.pin_checkpoint(&checkpoint);
        if let Err(error) = writer.sync_target().run() {
            drop(pin);
            self.tell(log, Outcome::Fenced, &error);
            return self.open(at);
        }
        if let Err(error) = engine.write_checkpoint(&checkpoint) {
            self.tell(log, Outcome::Refused, &error);
        }
        drop(pin);
    }

    /// The victim's files are copied as to a peer, verified, and adopted in place of its own.
    fn transfer(&mut self) {
        let Some(engine) = self.engine.clone() else { return };
        let Ok(Some(loaded)) = engine.load_checkpoint(self.groups[0].id) else { return };
        // One that is older than what the replica has is not installed.
        if loaded.verdict != CheckpointVerdict::Newest {
            return;
        }
        self.groups[0].writer = None;
        let adopted = self.copied(&engine, &loaded.newest).and_then(|files| {
            files.iter().try_for_each(|file| {
                engine.verify_staged(&staged(file.base), file).map_err(|error| error.to_string())
            })?;
            engine.adopt(VICTIM, &files, staging()).map_err(|error| error.to_string())
        });
        if let Err(error) = adopted {
            self.tell(VICTIM, Outcome::Refused, &error);
        }
        self.open(0);
    }

    fn copied(&self, engine: &Engine, newest: &Checkpoint) -> Result<Vec<SegmentFile>, String> {
        let files = engine.segment_files(VICTIM, &newest.logs[0].state).map_err(|error| error.to_string())?;
        let storage = self.disk.storage();
        create_dir_durably(storage.as_ref(), data(), staging()).map_err(|error| error.to_string())?;
        for file in &files {
            let len = usize::try_from(file.len).unwrap();
            let bytes =
                engine.read_raw(VICTIM, file.base, Position::ZERO, len).map_err(|error| error.to_string())?;
            let io = |error: std::io::Error| error.to_string();
            let copy = storage.open(&staged(file.base), OpenMode::CreateNew).map_err(io)?;
            copy.write_at(Position::ZERO, &[&bytes]).map_err(io)?;
            copy.sync().map_err(io)?;
        }
        Ok(files)
    }

    fn heal(&mut self, lasting: Lasting) {
        self.disk.clear_faults();
        self.disk.set_free_bytes(1 << 30);
        self.now.disk_is_bad = false;
        for crash in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::LoseUnsynced] {
            if crash != Crash::ProcessOnly || lasting == Lasting::Once {
                self.disk.crash(crash);
            }
            self.start();
            for group in 0..2 {
                self.append(group);
                self.checkpoint(group);
                self.check(group);
                let (done, all) = (self.groups[group].applied, self.groups[group].entries.len());
                if done < all {
                    self.ran.violations.push(format!("group {group} applied {done} of {all}"));
                }
            }
        }
    }
}

fn staged(base: Offset) -> PathBuf {
    staging().join(segment::file_name(base))
}
