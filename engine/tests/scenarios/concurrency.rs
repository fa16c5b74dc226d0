//! Several threads in one engine: moments between two steps, in which another thread comes.
//!
//! A moment is a file operation: the storage here tells when one happens, so that what another
//! thread would do then is done there and then, in the same order each time.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tidelog_engine::Engine;
use tidelog_engine::Options;
use tidelog_engine::log::{AppendError, LogError, ReadError, Visible};
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Operation, SimDisk};
use tidelog_engine::storage::{DirEntry, DirectoryLock, File, OpenMode, Position, Storage};
use tidelog_wire::ids::{LogId, Offset, Partition, TimestampMs};

use crate::world::{
    CONFIG, LOG, append, batch, checkpoint, data, engine, entry, formatted, make_checkpoint, open, options,
    read_all, shared,
};

const NOW: TimestampMs = TimestampMs(5);

type Step = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Moments {
    /// Done once, before the next listing of the log's directory.
    at_list: Mutex<Option<Step>>,
    /// Done once, before the next opening of a segment.
    at_open: Mutex<Option<Step>>,
    /// Done once, when a segment was opened.
    after_open: Mutex<Option<Step>>,
    /// Done once, after the next sync of a segment.
    after_sync: Mutex<Option<Step>>,
    /// Done once, before the next removal of a segment.
    at_remove: Mutex<Option<Step>>,
    /// Done once, before a checkpoint gets its name.
    at_rename: Mutex<Option<Step>>,
    syncing: Mutex<BTreeSet<PathBuf>>,
    overlapped: AtomicBool,
}

impl fmt::Debug for Moments {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Moments")
    }
}

fn now(step: &Mutex<Option<Step>>) {
    let step = step.lock().unwrap().take();
    if let Some(step) = step {
        step();
    }
}

/// A disk that tells when something is done to it.
#[derive(Debug)]
struct Watched {
    disk: Arc<dyn Storage>,
    moments: Arc<Moments>,
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn File>,
    path: PathBuf,
    moments: Arc<Moments>,
}

impl Storage for Watched {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let segment = path.extension().is_some_and(|extension| extension == "seg");
        if segment {
            now(&self.moments.at_open);
        }
        let file = self.disk.open(path, mode)?;
        if segment {
            now(&self.moments.after_open);
        }
        Ok(Arc::new(WatchedFile { file, path: path.to_path_buf(), moments: Arc::clone(&self.moments) }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        if dir == data().join("logs/7/3") {
            now(&self.moments.at_list);
        }
        self.disk.list(dir)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.remove_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.extension().is_some_and(|extension| extension == "ckpt") {
            now(&self.moments.at_rename);
        }
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        if path.extension().is_some_and(|extension| extension == "seg") {
            now(&self.moments.at_remove);
        }
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirectoryLock>> {
        self.disk.lock(path)
    }
}

impl File for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, position: Position, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_at(position, buf)
    }
    fn write_at(&self, position: Position, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(position, parts)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn sync(&self) -> io::Result<()> {
        if !self.moments.syncing.lock().unwrap().insert(self.path.clone()) {
            self.moments.overlapped.store(true, Ordering::SeqCst);
        }
        for _ in 0..20 {
            std::thread::yield_now();
        }
        let synced = self.file.sync();
        self.moments.syncing.lock().unwrap().remove(&self.path);
        if self.path.extension().is_some_and(|extension| extension == "seg") {
            now(&self.moments.after_sync);
        }
        synced
    }
}

fn watched(disk: &SimDisk, options: Options) -> (Arc<Engine>, Arc<Moments>) {
    let moments = Arc::new(Moments::default());
    let storage = Arc::new(Watched { disk: disk.storage(), moments: Arc::clone(&moments) });
    (Engine::open(storage, data(), options).unwrap(), moments)
}

fn embedded() -> Options {
    Options { reserve_bytes: 0, ..Options::embedded(NOW) }
}

/// A kernel reports lost bytes to one of the callers that sync a file at the same time. A thread that
/// ended a segment used to sync it while another synced it for those who waited, so one of the two
/// could acknowledge what the other had just been told is lost.
#[test]
fn a_file_is_never_synced_by_two_at_once() {
    let disk = formatted(7);
    let (engine, moments) = watched(&disk, embedded());
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let log = log.clone();
            scope.spawn(move || {
                for number in 0..40 {
                    log.append_durable(&batch(thread * 100 + number, 1, 900), NOW).unwrap();
                    if number % 4 == 0 {
                        log.idle().unwrap();
                    }
                }
            });
        }
    });
    assert!(!moments.overlapped.load(Ordering::SeqCst));
    assert_eq!(read_all(&log.reader(), Offset(0)).unwrap().len(), 240);
}

/// A sync on another thread fails, and then the segment is to be ended. That used to end the process
/// with a broken assertion, because a fenced segment cannot be filled; now the caller is told.
#[test]
fn a_segment_whose_sync_failed_is_not_ended() {
    let disk = formatted(7);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=3);
    disk.inject(Fault::next(Operation::Sync, Failure::Io).on_path(".seg"));
    assert!(writer.sync_target().run().is_err());
    let end = writer.state().end;
    assert!(matches!(writer.set_log_start(end), Err(LogError::Fenced { .. })));
}

/// Two threads open a log at once. Both used to find it closed, and both got a writer: each wrote over
/// what the other had appended. Now one has it from the first step on, and a failure gives it free.
#[test]
fn a_log_that_is_being_opened_is_not_opened_by_another() {
    let disk = formatted(7);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=3);
    let state = make_checkpoint(&first, 3, &writer);
    drop((writer, first));

    let (engine, moments) = watched(&disk, options());
    let other = Arc::clone(&engine);
    let refused = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&refused);
    *moments.at_list.lock().unwrap() = Some(Box::new(move || {
        let second = other.open_log(LOG, CONFIG, None);
        told.store(matches!(second, Err(LogError::AlreadyOpen { .. })), Ordering::SeqCst);
    }));
    disk.inject(Fault::next(Operation::List, Failure::Io).on_path("logs/7/3"));
    assert!(engine.open_log(LOG, CONFIG, Some(&state)).is_err(), "the disk failed");
    assert!(refused.load(Ordering::SeqCst), "the second saw that it was being opened");
    let (writer, _) = open(&engine, Some(&state));
    assert_eq!(writer.state().end, state.end);
    assert!(matches!(engine.open_log(LOG, CONFIG, Some(&state)), Err(LogError::AlreadyOpen { .. })));
}

/// A checkpoint finds a log that nothing names, and right then the log is opened. Its files used to be
/// unlinked under the new writer.
#[test]
fn a_log_that_is_opened_while_orphans_are_removed_keeps_its_files() {
    let disk = formatted(7);
    let first = engine(&disk);
    let (mut writer, _) = open(&first, None);
    append(&mut writer, 1..=3);
    writer.sync_target().run().unwrap();
    let state = writer.state();
    let mut without = checkpoint(3, &writer);
    without.logs.clear();
    drop((writer, first));

    let (engine, moments) = watched(&disk, options());
    let (other, opened) = (Arc::clone(&engine), Arc::new(Mutex::new(None)));
    let (slot, at) = (Arc::clone(&opened), state);
    *moments.at_list.lock().unwrap() = Some(Box::new(move || {
        *slot.lock().unwrap() = Some(other.open_log(LOG, CONFIG, Some(&at)).unwrap().0);
    }));
    engine.write_checkpoint(&without).unwrap();
    let writer = opened.lock().unwrap().take().expect("it was opened meanwhile");
    assert_eq!(read_all(&writer.reader(), Offset(0)).unwrap().len(), 3);
}

/// A batch is appended by another thread after a trim has synced, and before it asks where the log
/// stands. The checkpoint of the trim used to name that batch; after a power cut, which took it, the
/// log was said to be damaged.
#[test]
fn the_checkpoint_of_a_trim_names_only_what_is_durable() {
    let disk = formatted(7);
    let (engine, moments) = watched(&disk, embedded());
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    log.append(&batch(1, 2, 10), NOW).unwrap();
    let other = log.clone();
    *moments.after_sync.lock().unwrap() = Some(Box::new(move || {
        other.append(&batch(2, 1, 10), NOW).unwrap();
    }));
    log.trim(Offset(1)).unwrap();
    drop((log, engine));
    disk.crash(Crash::LoseUnsynced);
    let (log, recovery) = shared(&disk);
    assert_eq!(recovery.damage, []);
    assert_eq!(log.reader().end(), Offset(3));
}

/// A reader had chosen a segment, and before it opened the file, or before it kept it open, a trim or a
/// removal took it away. The reader was told that the disk has lost a file, or kept the unlinked file open and
/// its room with it. Now it is told what happened.
#[test]
fn a_segment_that_goes_while_it_is_opened_is_not_a_lost_file() {
    for early in [true, false] {
        for removed in [true, false] {
            let disk = formatted(7);
            let (engine, moments) = watched(&disk, options());
            let (mut writer, _) = engine.open_log(LOG, CONFIG, None).unwrap();
            append(&mut writer, 1..=30);
            let reader = writer.reader();
            let other = Arc::clone(&engine);
            let goes: Step = Box::new(move || {
                if removed {
                    drop(writer);
                    other.remove_log(LOG).unwrap();
                } else {
                    writer.set_log_start(Offset(50)).unwrap();
                }
            });
            *if early { &moments.at_open } else { &moments.after_open }.lock().unwrap() = Some(goes);
            match reader.read(Offset(0), 1) {
                Err(ReadError::Removed { .. }) => assert!(removed),
                Err(ReadError::OutOfRange { start, .. }) => assert!(!removed && start == Offset(50)),
                read => panic!("{read:?}"),
            }
            assert_eq!(engine.open_files(), 0);
        }
    }
}

/// A log was removed while its writer was about to make its next file. The removal had listed the files by
/// then, so that one stayed, and with it the directories, which no removal came back for.
#[test]
fn a_log_that_is_removed_while_its_next_file_is_made_leaves_nothing() {
    for entries in [0, 30] {
        let disk = formatted(7);
        let (engine, moments) = watched(&disk, options());
        let (mut writer, _) = engine.open_log(LOG, CONFIG, None).unwrap();
        append(&mut writer, 1..=entries);
        let (known, other) = (disk.files(), Arc::clone(&engine));
        *moments.at_open.lock().unwrap() = Some(Box::new(move || other.remove_log(LOG).unwrap()));
        let refused = (entries + 1..entries + 100).find_map(|index| {
            let (batch, stamp) = entry(index);
            writer.append(&batch, stamp).err()
        });
        assert!(matches!(refused, Some(AppendError::Removed { .. })), "{refused:?}");
        drop(writer);
        assert!(disk.files().iter().all(|path| !path.starts_with("/data/logs")), "{known:?}");
        assert_eq!(disk.storage().list(&data().join("logs")).unwrap(), []);
    }
}

/// A trim recorded the new start and unlinked files under the lock that appends take, and what it unlinked under one that
/// whoever trims any other log takes. Now one may append, read and trim while it is at either.
#[test]
fn a_trim_keeps_nobody_waiting_while_it_syncs_and_unlinks() {
    let disk = formatted(7);
    let (engine, moments) = watched(&disk, embedded());
    let (log, _) = engine.open_shared(LOG, CONFIG).unwrap();
    let other = LogId { partition: Partition(4), ..LOG };
    let (other, _) = engine.open_shared(other, CONFIG).unwrap();
    for number in 0..20 {
        log.append_durable(&batch(number, 1, 1_000), NOW).unwrap();
        other.append_durable(&batch(number, 1, 1_000), NOW).unwrap();
    }
    let reached = Arc::new(AtomicU64::new(0));
    let step = || -> Step {
        let (log, reached) = (log.clone(), Arc::clone(&reached));
        Box::new(move || {
            let at = log.append_durable(&batch(99, 1, 10), NOW).unwrap().base_offset;
            assert_eq!(log.reader().read(at, 1).unwrap().batches.len(), 1);
            reached.fetch_add(1, Ordering::SeqCst);
        })
    };
    *moments.at_rename.lock().unwrap() = Some(step());
    log.trim(Offset(5)).unwrap();
    let other_trims = other.clone();
    let first = step();
    *moments.at_remove.lock().unwrap() = Some(Box::new(move || {
        first();
        other_trims.trim(Offset(7)).unwrap();
    }));
    // Twice: what the older of two checkpoints names is not unlinked.
    for _ in 0..2 {
        log.trim(Offset(18)).unwrap();
    }
    assert_eq!(reached.load(Ordering::SeqCst), 2);
    assert_eq!(
        (log.reader().start(), log.reader().end(), other.reader().start()),
        (Offset(18), Offset(22), Offset(7))
    );
    drop((log, other, engine));
    disk.crash(Crash::LoseUnsynced);
    let (log, recovery) = shared(&disk);
    assert_eq!((log.reader().start(), log.reader().end(), recovery.damage), (Offset(18), Offset(22), vec![]));
}

/// Callbacks ran under the log's lock, or by a thread that others waited for to make their batches durable: one that asked
/// the log back waited for itself. They run as the last thing of the call.
#[test]
fn a_callback_may_append_to_sync_and_trim_the_log_it_waited_for() {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    let back = Arc::new(AtomicU64::new(0));
    let ask = |number| {
        let (log, back) = (log.clone(), Arc::clone(&back));
        let ask = move || {
            log.append_durable(&batch(number, 1, 3_000), NOW).unwrap();
            log.append(&batch(number, 1, 10), NOW).unwrap();
            log.idle().unwrap();
            log.trim(log.reader().end()).unwrap();
            back.fetch_add(1, Ordering::SeqCst);
        };
        Box::new(ask)
    };
    let reader = log.reader();
    let early = reader.seeing(Visible::Appended);
    let end = || early.end();
    let calls: [&dyn Fn(); 4] = [
        &|| {
            log.append(&batch(1, 1, 10), NOW).unwrap();
        },
        &|| {
            log.append_many(&[batch(1, 1, 10)], NOW).unwrap();
        },
        &|| {
            log.append_durable(&batch(1, 1, 10), NOW).unwrap();
        },
        // Ends a segment under the lock, which makes it durable.
        &|| {
            log.append(&batch(1, 1, 3_500), NOW).and_then(|_| log.append(&batch(1, 1, 3_500), NOW)).unwrap();
        },
    ];
    for (done, call) in (1..).zip(calls) {
        let _waiting =
            if done == 4 { reader.on_advance(end(), ask(done)) } else { early.on_advance(end(), ask(done)) };
        call();
        assert_eq!(back.load(Ordering::SeqCst), done);
    }
    let _waiting = reader.on_advance(end(), ask(5));
    log.append(&batch(1, 1, 10), NOW).unwrap();
    log.sync().unwrap();
    assert_eq!(back.load(Ordering::SeqCst), 5);
}
