//! Those who append, sync, end segments, trim and write checkpoints.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;
use tidelog_engine::checkpoint::LogState;
use tidelog_engine::embedded::EmbeddedError;
use tidelog_engine::log::{LogReader, SyncJob, Visible};
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Operation, SimDisk};
use tidelog_engine::storage::Position;
use tidelog_engine::{Engine, Pin};
use tidelog_wire::ids::{Offset, RaftIndex};

use crate::stage::{NOW, PowerCut, Sent, TINY, Watcher, append_small, disk, shared_log, small};
use crate::world::{self, GROUP, LOG, checkpoint, read_all};

/// Several threads append and wait, one says that the log is idle, segments end all the time. Whatever was
/// acknowledged survives a power cut at that very moment.
pub(crate) fn group_commit() {
    let disk = disk();
    let (_engine, log) = shared_log(&disk);
    let sent = Arc::new(Sent::default());
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let (disk, log, sent) = (disk.clone(), log.clone(), Arc::clone(&sent));
            thread::spawn(move || {
                let (mut watcher, reader) = (Watcher::default(), log.reader());
                let append = |number: u64| {
                    let batch = small(10 * thread + number);
                    let appended = log.append_durable(&batch, NOW).unwrap();
                    let cut = PowerCut::now(&disk, appended);
                    assert!(reader.durable_end() > appended.last_offset, "acknowledged means durable");
                    watcher.look(&reader);
                    sent.note(&appended, &batch);
                    cut
                };
                (0..2).map(append).collect::<Vec<_>>()
            })
        })
        .collect();
    log.idle().unwrap();
    let cuts: Vec<PowerCut> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    log.idle().unwrap();
    let all = read_all(&log.reader(), Offset::ZERO).unwrap();
    assert_eq!(all.len(), sent.len());
    sent.check(&all);
    for cut in cuts {
        cut.check(LOG, &sent);
    }
}

/// A sync fails somewhere in the middle. Nobody waits for ever, whoever was told that his batch is durable
/// finds it after a power cut, and after the first error nothing is acknowledged any more.
pub(crate) fn group_commit_whose_sync_fails() {
    let disk = disk();
    let (engine, log) = shared_log(&disk);
    disk.inject(Fault { after: 2, ..Fault::next(Operation::Sync, Failure::Io).on_path(".seg") });
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let log = log.clone();
            thread::spawn(move || {
                let mut acknowledged = Vec::new();
                for number in 0..2 {
                    match log.append_durable(&small(10 * thread + number), NOW) {
                        Ok(appended) => acknowledged.push(appended),
                        Err(EmbeddedError::Append(_) | EmbeddedError::Sync(_)) => {
                            let again = log.append_durable(&small(99), NOW);
                            assert!(again.is_err(), "a fenced log takes no more");
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                acknowledged
            })
        })
        .collect();
    let acknowledged: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    disk.clear_faults();
    assert_eq!(log.append(&small(99), NOW).is_ok(), acknowledged.len() == 6, "fenced, if it was struck");
    let seen = log.reader().durable_end();
    drop((engine, log));
    disk.crash(Crash::LoseUnsynced);
    let (_engine, log) = shared_log(&disk);
    assert!(log.reader().end() >= seen, "readers saw only what is durable");
    for appended in acknowledged {
        assert!(log.reader().end() > appended.last_offset, "acknowledged and lost");
    }
}

/// Those who wait are told while others append. Each appends and raises the start in turn: nobody waits for himself.
pub(crate) fn callbacks_that_ask_back() {
    let disk = disk();
    let (_engine, log) = shared_log(&disk);
    let asked = Arc::new(Mutex::new(0));
    let ask = |number: u64| {
        let (log, asked) = (log.clone(), Arc::clone(&asked));
        move || {
            log.append_durable(&small(number), NOW).unwrap();
            log.trim(Offset(1)).unwrap();
            *asked.lock().unwrap() += 1;
        }
    };
    let early = log.reader().seeing(Visible::Appended);
    let waiting = [
        log.reader().on_advance(Offset(0), Box::new(ask(10))),
        log.reader().on_advance(Offset(1), Box::new(ask(11))),
        early.on_advance(Offset(1), Box::new(ask(12))),
    ];
    let threads: Vec<_> = (0..2)
        .map(|number| {
            let log = log.clone();
            thread::spawn(move || log.append_durable(&small(number), NOW).unwrap())
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    log.idle().unwrap();
    drop(waiting);
    assert_eq!(*asked.lock().unwrap(), 3);
    assert_eq!((log.reader().start(), log.reader().end()), (Offset(1), Offset(5)));
}

/// Jobs handed from the thread that appends to those that sync.
struct Queue<T> {
    jobs: Mutex<(VecDeque<T>, bool)>,
    changed: Condvar,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { jobs: Mutex::default(), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn put(&self, job: T) {
        self.jobs.lock().unwrap().0.push_back(job);
        self.changed.notify_one();
    }

    fn end(&self) {
        self.jobs.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn take(&self) -> Option<T> {
        let mut jobs = self.jobs.lock().unwrap();
        loop {
            if let Some(job) = jobs.0.pop_front() {
                return Some(job);
            }
            if jobs.1 {
                return None;
            }
            jobs = self.changed.wait(jobs).unwrap();
        }
    }
}

/// Under consensus one thread appends and ends segments while two run sync jobs of different ages. When a
/// job has run, everything that had been appended when it was made survives a power cut.
pub(crate) fn sync_jobs_and_rolls() {
    let disk = disk();
    let engine = Engine::open(disk.storage(), world::data(), world::options()).unwrap();
    let (mut writer, _) = engine.open_log(LOG, TINY, None).unwrap();
    let queue: Arc<Queue<(LogState, SyncJob)>> = Arc::default();
    let reader = writer.reader();
    let syncers: Vec<_> = (0..2)
        .map(|_| {
            let (queue, disk, reader) = (Arc::clone(&queue), disk.clone(), reader.clone());
            thread::spawn(move || {
                let (mut watcher, mut cuts) = (Watcher::default(), Vec::new());
                while let Some((state, job)) = queue.take() {
                    job.run().unwrap();
                    let cut = disk.fork();
                    cut.crash(Crash::LoseUnsynced);
                    assert!(reader.durable_end() >= state.end);
                    watcher.look(&reader);
                    cuts.push((state, cut));
                }
                cuts
            })
        })
        .collect();
    for index in 1..=5 {
        append_small(&mut writer, index);
        queue.put((writer.state(), writer.sync_target()));
    }
    queue.end();
    let cuts: Vec<_> = syncers.into_iter().flat_map(|syncer| syncer.join().unwrap()).collect();
    assert!(writer.sync_target().is_empty(), "the last job took everything");
    assert_eq!(reader.durable_end(), reader.end());
    for (state, cut) in cuts {
        let engine = Engine::open(cut.storage(), world::data(), world::options()).unwrap();
        let (writer, recovery) = engine.open_log(LOG, TINY, Some(&state)).unwrap();
        assert_eq!(recovery.damage, []);
        assert_eq!(writer.reader().end_and_chain(), (state.end, state.chain));
        let batches = read_all(&writer.reader(), Offset::ZERO).unwrap().len();
        assert_eq!(Offset(u64::try_from(batches).unwrap()), state.end);
    }
}

/// What a checkpoint needs: made by the thread that applies, carried out by another.
type Due = (tidelog_engine::checkpoint::Checkpoint, SyncJob, Pin);

/// Under consensus one thread appends, ends segments and raises the start while another writes the
/// checkpoints. Each checkpoint, once written, is all that a power cut at that moment needs.
pub(crate) fn trims_and_checkpoints() {
    let disk = disk();
    let engine = Engine::open(disk.storage(), world::data(), world::options()).unwrap();
    let (mut writer, _) = engine.open_log(LOG, TINY, None).unwrap();
    let queue: Arc<Queue<Due>> = Arc::default();
    let keeper = {
        let (queue, engine, reader) = (Arc::clone(&queue), Arc::clone(&engine), writer.reader());
        thread::spawn(move || keep_checkpoints(&queue, &engine, &disk, &reader))
    };
    for index in 1..=6 {
        append_small(&mut writer, index);
        if index % 2 == 0 {
            let due = checkpoint(index, &writer);
            let pin = engine.pin_checkpoint(&due);
            queue.put((due, writer.sync_target(), pin));
            writer.set_log_start(Offset(index / 2)).unwrap();
        }
    }
    queue.end();
    for cut in keeper.join().unwrap() {
        let newest = restarts_at_its_checkpoint(&cut);
        let written =
            cut.files().into_iter().filter(|path| path.starts_with(world::data().join("checkpoints/1")));
        if let [_, last] = written.collect::<Vec<_>>().as_slice() {
            cut.flip_bit(last, Position(20), 3).unwrap();
            assert!(restarts_at_its_checkpoint(&cut) < newest, "the older one");
        }
    }
}

/// A start after the power cut finds everything that the newest valid checkpoint names; says which entry.
fn restarts_at_its_checkpoint(cut: &SimDisk) -> RaftIndex {
    let engine = Engine::open(cut.storage(), world::data(), world::options()).unwrap();
    let loaded = engine.load_checkpoint(GROUP).unwrap().unwrap();
    let state = &loaded.newest.logs.first().unwrap().state;
    let (writer, recovery) = engine.open_log(LOG, TINY, Some(state)).unwrap();
    assert_eq!(recovery.damage, [], "the checkpoint at {}", loaded.newest.applied);
    let left = read_all(&writer.reader(), state.start).unwrap();
    assert_eq!(left.last().map(|(base, _)| base.plus(1)), Some(state.end));
    loaded.newest.applied.index
}

fn keep_checkpoints(queue: &Queue<Due>, engine: &Engine, disk: &SimDisk, reader: &LogReader) -> Vec<SimDisk> {
    let (mut cuts, mut watcher) = (Vec::new(), Watcher::default());
    while let Some((due, job, pin)) = queue.take() {
        job.run().unwrap();
        engine.write_checkpoint(&due).unwrap();
        drop(pin);
        let cut = disk.fork();
        cut.crash(Crash::LoseUnsynced);
        watcher.look(reader);
        cuts.push(cut);
    }
    cuts
}
