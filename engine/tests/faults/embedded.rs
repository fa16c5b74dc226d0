//! The reference workload of an embedded node. It goes on as well as it can whatever fails, as an
//! application would: a fenced log is opened again, a full disk is waited for.

use std::sync::Arc;

use tidelog_engine::embedded::{EmbeddedError, SharedLog};
use tidelog_engine::log::{AppendError, Visible};
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Lasting, Operation, SimDisk, Written};
use tidelog_engine::storage::OpenMode;
use tidelog_engine::{Engine, Options};
use tidelog_wire::ids::{Generation, LogId, Offset, Partition, TimestampMs};

use crate::enumeration::Ran;
use crate::outcome::{Outcome, Outcomes};
use crate::promise::{Harm, Now, Promise};
use crate::world::{CONFIG, NEIGHBOUR, NOW, VICTIM, batch, data, log_dir, new_identity, try_engine};

/// Two lives of one channel: the first is removed.
const FIRST_LIFE: LogId = LogId { generation: Generation(8), partition: Partition(3) };
const SECOND_LIFE: LogId = LogId { generation: Generation(11), partition: Partition(3) };

struct Log {
    promise: Promise,
    handle: Option<SharedLog>,
    read_only: bool,
}

/// A run of the workload.
struct Run<'a> {
    disk: &'a SimDisk,
    engine: Option<Arc<Engine>>,
    logs: Vec<Log>,
    number: u64,
    /// What callers were told of logs other than the neighbour, and of the neighbour.
    told: Outcomes,
    neighbour_told: Outcomes,
    now: Now,
    violations: Vec<String>,
    /// The calls made before each phase.
    phases: Vec<(&'static str, usize)>,
}

/// Runs the workload on a disk, mends it and looks what is there.
pub(crate) fn run(disk: &SimDisk, harm: Harm, start_may_fall: bool, lasting: Lasting) -> Ran {
    let mut run = Run::new(disk, harm, start_may_fall);
    run.all();
    let calls = disk.calls();
    run.heal(lasting);
    let Run { told, neighbour_told, violations, phases, .. } = run;
    Ran { told, neighbour_told, violations, phases, calls }
}

impl<'a> Run<'a> {
    fn new(disk: &'a SimDisk, harm: Harm, start_may_fall: bool) -> Self {
        Self {
            disk,
            engine: None,
            logs: Vec::new(),
            number: 0,
            told: Outcomes::new(),
            neighbour_told: Outcomes::new(),
            now: Now { harm, disk_is_bad: true, start_may_fall, end_may_be_low: false },
            violations: Vec::new(),
            phases: Vec::new(),
        }
    }

    /// The whole workload.
    fn all(&mut self) {
        self.phase("format");
        let formatted = Engine::format(&self.disk.storage(), data(), new_identity());
        if formatted.is_err() {
            self.told.insert(Outcome::NoStart);
            // Whoever formats tries again once the disk is mended.
            self.disk.clear_faults();
            let again = Engine::format(&self.disk.storage(), data(), new_identity());
            if let Err(error) = again
                && !error.to_string().starts_with("E0204")
            {
                self.violations.push(format!("formatting again: {error}"));
            }
        }
        self.phase("first start");
        self.start();
        for log in [VICTIM, NEIGHBOUR, FIRST_LIFE] {
            self.logs.push(Log { promise: Promise::new(log), handle: None, read_only: false });
        }
        self.open_all();
        self.phase("append, roll and sync");
        for round in 0..4 {
            for log in 0..self.logs.len() {
                self.append(log);
                self.append(log);
                self.append_durable(log);
            }
            self.append(round % 3);
            self.sync(round % 3);
        }
        self.idle(0);
        self.phase("read");
        self.read_all();
        self.read_by_time();
        self.phase("trim and checkpoint");
        self.trim(0, 9);
        self.trim(1, 2);
        self.append_durable(0);
        self.trim(0, 11);
        self.phase("delete and recreate");
        self.recreate();
        for log in 0..self.logs.len() {
            self.idle(log);
        }
        self.phase("stop and start");
        self.leave_a_torn_tail();
        self.restart();
        self.read_all();
        self.append_durable(0);
        self.append_durable(1);
        self.phase("full disk");
        self.fill_up();
        self.phase("end");
        for log in 0..self.logs.len() {
            self.append_durable(log);
            self.idle(log);
        }
    }

    fn phase(&mut self, name: &'static str) {
        self.phases.push((name, self.disk.calls().len()));
        // What was lost on its way to the disk shows.
        self.disk.drop_caches();
    }

    fn tell(&mut self, log: LogId, outcome: Outcome) {
        if log == NEIGHBOUR { &mut self.neighbour_told } else { &mut self.told }.insert(outcome);
    }

    fn start(&mut self) {
        match try_engine(self.disk, Options::embedded(NOW)) {
            Ok(engine) => self.engine = Some(engine),
            Err(error) if !self.now.disk_is_bad => {
                self.violations.push(format!("the engine does not start: {error}"));
            }
            Err(_) => {
                self.told.insert(Outcome::NoStart);
            }
        }
    }

    fn open_all(&mut self) {
        for log in 0..self.logs.len() {
            self.open(log);
        }
    }

    fn open(&mut self, log: usize) {
        let Some(engine) = &self.engine else { return };
        let id = self.logs[log].promise.log;
        match engine.open_shared(id, CONFIG) {
            Ok((handle, recovery)) => {
                self.logs[log].handle = Some(handle);
                self.logs[log].read_only = recovery.read_only.is_some();
                if self.logs[log].read_only {
                    self.tell(id, Outcome::ReadOnly);
                }
                if !recovery.damage.is_empty() {
                    self.tell(id, Outcome::Damaged);
                }
                self.check(log);
            }
            Err(error) if !self.now.disk_is_bad => {
                self.violations.push(format!("{id} does not open: {error}"));
            }
            Err(_) => self.tell(id, Outcome::NotOpen),
        }
    }

    /// Reads everything.
    fn check(&mut self, log: usize) {
        let id = self.logs[log].promise.log;
        let Some(handle) = self.logs[log].handle.clone() else { return };
        let now = Now { end_may_be_low: self.logs[log].read_only && self.now.disk_is_bad, ..self.now };
        match self.logs[log].promise.check(&handle.reader(), self.disk, now) {
            Ok(told) => told.into_iter().for_each(|outcome| self.tell(id, outcome)),
            Err(violation) => self.violations.push(violation),
        }
    }

    fn read_all(&mut self) {
        for log in 0..self.logs.len() {
            self.check(log);
        }
    }

    fn read_by_time(&mut self) {
        let Some(handle) = &self.logs[0].handle else { return };
        let reader = handle.reader();
        let (at, chain) = (reader.offset_at_time(TimestampMs(9_000)), reader.chain_at(reader.end()));
        if at.is_err() || chain.is_err() {
            self.tell(VICTIM, Outcome::ReadFailed);
        }
    }

    /// What an application does about an error: it opens a fenced log again.
    fn failed(&mut self, log: usize, error: &EmbeddedError) {
        let id = self.logs[log].promise.log;
        match error {
            EmbeddedError::Append(AppendError::DiskFull { .. }) => return self.tell(id, Outcome::DiskFull),
            EmbeddedError::Append(_) | EmbeddedError::Sync(_) => {}
            EmbeddedError::Log(_) | EmbeddedError::Checkpoint(_) | _ => {
                return self.tell(id, Outcome::Refused);
            }
        }
        if !self.now.disk_is_bad {
            self.violations.push(format!("{id}: {error}"));
        }
        self.tell(id, Outcome::Fenced);
        if let Some(handle) = self.logs[log].handle.take() {
            let again = handle.append(&batch(self.number), NOW);
            if !matches!(again, Err(EmbeddedError::Append(AppendError::Fenced { .. }))) {
                self.violations.push(format!("{id}: after `{error}` an append says {again:?}"));
            }
        }
        self.logs[log].promise.reopens();
        self.open(log);
    }

    fn append(&mut self, log: usize) -> bool {
        let Some(handle) = self.logs[log].handle.clone() else { return false };
        let number = self.number;
        self.number += 1;
        let base = handle.reader().seeing(Visible::Appended).end();
        self.logs[log].promise.sends(base, number);
        match handle.append(&batch(number), NOW) {
            Ok(appended) => {
                assert_eq!(appended.base_offset, base);
                self.logs[log].promise.wrote(base, number);
                true
            }
            Err(error) => {
                drop(handle);
                self.failed(log, &error);
                false
            }
        }
    }

    fn sync(&mut self, log: usize) {
        let Some(handle) = self.logs[log].handle.clone() else { return };
        let outcome = handle.sync();
        drop(handle);
        match outcome {
            Ok(()) => self.logs[log].promise.keeps_all(),
            Err(error) => self.failed(log, &error),
        }
    }

    fn append_durable(&mut self, log: usize) {
        if self.append(log) {
            self.sync(log);
        }
    }

    fn idle(&mut self, log: usize) {
        let Some(handle) = self.logs[log].handle.clone() else { return };
        let outcome = handle.idle();
        drop(handle);
        match outcome {
            Ok(()) => self.logs[log].promise.keeps_all(),
            Err(error) => self.failed(log, &error),
        }
    }

    fn trim(&mut self, log: usize, to: u64) {
        let Some(handle) = self.logs[log].handle.clone() else { return };
        self.logs[log].promise.asks_start(to);
        let outcome = handle.trim(Offset(to));
        drop(handle);
        match outcome {
            Ok(()) => {
                self.logs[log].promise.keeps_all();
                self.logs[log].promise.keeps_start(to);
            }
            Err(error) => self.failed(log, &error),
        }
    }

    fn recreate(&mut self) {
        let Some(engine) = self.engine.clone() else { return };
        let Some(mut gone) = self.logs.pop() else { return };
        let reader = gone.handle.as_ref().map(SharedLog::reader);
        gone.handle = None;
        if engine.remove_log(FIRST_LIFE).is_err() {
            self.tell(FIRST_LIFE, Outcome::Refused);
        }
        if let Some(Ok(read)) = reader.map(|reader| reader.read(Offset::ZERO, 1_000))
            && !read.batches.is_empty()
        {
            // A reader of a removed log is told; one whose removal failed may still read what was there.
            self.tell(FIRST_LIFE, Outcome::Refused);
        }
        self.logs.push(Log { promise: Promise::new(SECOND_LIFE), handle: None, read_only: false });
        self.open(2);
        self.append_durable(2);
        self.append_durable(2);
    }

    /// Leaves half a frame at the end of the victim, and a name that is no segment's beside it.
    fn leave_a_torn_tail(&mut self) {
        let Some(handle) = self.logs[0].handle.take() else { return };
        let half = Fault { written: Written::Half, ..Fault::next(Operation::Write, Failure::Io) };
        self.disk.inject(half.on_path(&log_dir(VICTIM).to_string_lossy()));
        let base = handle.reader().seeing(Visible::Appended).end();
        self.logs[0].promise.sends(base, self.number);
        if handle.append(&batch(self.number), NOW).is_ok() {
            self.logs[0].promise.wrote(base, self.number);
        }
        self.number += 1;
        let stray = log_dir(VICTIM).join("stray.txt");
        drop(self.disk.storage().open(&stray, OpenMode::CreateNew));
    }

    fn restart(&mut self) {
        for log in &mut self.logs {
            log.handle = None;
            log.promise.reopens();
        }
        self.engine = None;
        self.start();
        self.open_all();
    }

    /// Appends until the disk is full; then reads and trims go on, and with room appends do.
    fn fill_up(&mut self) {
        self.disk.set_free_bytes(12 << 10);
        let told_before = self.told.contains(&Outcome::DiskFull);
        for _ in 0..40 {
            if !self.append(0) {
                break;
            }
        }
        // In the end it is told without any fault: the reserve is not for appends.
        if !told_before {
            self.told.remove(&Outcome::DiskFull);
        }
        self.read_all();
        self.trim(1, 4);
        self.disk.set_free_bytes(1 << 30);
        for log in 0..self.logs.len() {
            self.append_durable(log);
        }
    }

    /// The disk is mended and the power is cut. Everything must be there and go on.
    fn heal(&mut self, lasting: Lasting) {
        self.disk.clear_faults();
        self.disk.set_free_bytes(1 << 30);
        self.now.disk_is_bad = false;
        for crash in [Crash::ProcessOnly, Crash::LoseUnsynced, Crash::LoseUnsynced] {
            for log in &mut self.logs {
                log.handle = None;
            }
            self.engine = None;
            // A fault that lasts is mended while the process lives on, too.
            if crash != Crash::ProcessOnly || lasting == Lasting::Once {
                self.disk.crash(crash);
            }
            self.restart();
            for log in 0..self.logs.len() {
                self.append_durable(log);
                self.idle(log);
                self.check(log);
            }
        }
    }
}
