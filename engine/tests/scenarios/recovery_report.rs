//! What recovery says it did, held against what became of the directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tidelog_engine::checkpoint::LogState;
use tidelog_engine::clock::Clock;
use tidelog_engine::report_file::REPORTS_KEPT;
use tidelog_engine::sim_disk::{Crash, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position, read_whole};
use tidelog_engine::{Engine, Options};
use tidelog_wire::ids::{Offset, TimestampMs};

use crate::recovery_rows::{bases, crashed, read_around, refuse, reopen};
use crate::world::{
    CONFIG, LOG, append, batch, data, embedded_engine, formatted, open, options, read_file, segment_path,
    shared,
};

/// A clock that goes on by one whenever it is looked at.
#[derive(Debug, Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn micros(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

fn timed(disk: &SimDisk) -> Arc<Engine> {
    let options = Options { clock: Some(Arc::new(Ticks::default())), ..options() };
    Engine::open(disk.storage(), data(), options).unwrap()
}

/// A clock that stands where it is put.
#[derive(Debug, Default)]
struct Stands(AtomicU64);

impl Clock for Stands {
    fn micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was set aside was dated by the start of the process. A node had been up for 40 days when it set
/// something aside, and the next start removed that at once, because it looked older than 30 days.
#[test]
fn what_is_set_aside_is_dated_by_the_present_not_by_the_start() {
    const DAYS_40_MS: u64 = 40 * 24 * 3_600_000;
    let (disk, state) = crashed(3, 8);
    disk.flip_bit(&segment_path(0), Position(state.active_position.get() + 400), 1).unwrap();
    let clock = Arc::new(Stands::default());
    let lent: Arc<dyn Clock> = clock.clone();
    let options = Options { clock: Some(lent), ..options() };
    let engine = Engine::open(disk.storage(), data(), options).unwrap();
    clock.0.store(DAYS_40_MS * 1_000, Ordering::Relaxed);
    let (_writer, recovery) = open(&engine, Some(&state));
    let name = recovery.set_aside[0].piece.to_string_lossy().into_owned();
    assert!(name.contains(&format!("-{:014}-", 1_000 + DAYS_40_MS)), "{name}");
}

fn report_of_start(number: u64) -> PathBuf {
    data().join("recovery").join(format!("{number:020}.jsonl"))
}

fn lines(disk: &SimDisk, path: &Path) -> Vec<serde_json::Value> {
    let text = String::from_utf8(read_file(disk, path)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The report beside the data says what happened to whom, in which file, by which row, and how long it took.
#[test]
fn the_report_beside_the_data_tells_what_happened() {
    let (disk, state) = crashed(3, 60);
    let broken = state.active_position.get() + 400;
    disk.flip_bit(&segment_path(0), Position(broken), 1).unwrap();
    let engine = timed(&disk);
    let (mut writer, recovery) = open(&engine, Some(&state));
    append(&mut writer, 4..=60);
    let kept = engine.keep_report().unwrap();
    assert_eq!(kept, report_of_start(2));
    disk.crash(Crash::LoseUnsynced);

    let lines = lines(&disk, &kept);
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["directory", "log", "summary"]);
    assert_eq!(lines[0]["boot_epoch"], 2);
    let finding = &lines[1]["findings"][0];
    assert_eq!(finding["row"], "broken_above");
    assert_eq!(finding["path"], segment_path(0).to_str().unwrap());
    assert_eq!(lines[1]["set_aside_bytes"], recovery.set_aside_bytes);
    assert!(lines[1]["took_us"]["walk"].as_u64().unwrap() > 0);
    assert_eq!(lines[2]["replayed_frames"], recovery.kept_frames);
    assert_eq!(lines[2]["logs_unclean"], 1);
    for aside in lines[1]["set_aside"].as_array().unwrap() {
        let piece = PathBuf::from(aside["piece"].as_str().unwrap());
        let bytes = u64::try_from(read_file(&disk, &piece).len()).unwrap();
        assert_eq!(bytes, aside["bytes"].as_u64().unwrap());
    }
}

/// A start where all was intact leaves a report only if it is asked for one; the newest are kept.
#[test]
fn the_newest_reports_are_kept() {
    let disk = formatted(1);
    let starts = u64::try_from(REPORTS_KEPT).unwrap() + 4;
    for start in 1..=starts {
        let engine = timed(&disk);
        assert!(!disk.files().contains(&report_of_start(start)));
        engine.keep_report().unwrap();
        drop(engine);
    }
    let reports = disk.files().into_iter().filter(|path| path.starts_with(data().join("recovery")));
    let expected: Vec<_> = (5..=starts).map(report_of_start).collect();
    assert_eq!(reports.collect::<Vec<_>>(), expected);
}

/// A report that cannot be written keeps nothing from opening.
#[test]
fn a_report_that_cannot_be_written_costs_nothing() {
    let (disk, state) = crashed(3, 8);
    disk.flip_bit(&segment_path(0), Position(state.active_position.get() + 400), 1).unwrap();
    refuse(&disk, Operation::CreateDir, "recovery");
    let log = reopen(&disk, &state);
    assert_eq!(log.engine.keep_report(), None);
    assert_eq!(log.engine.report().counts.logs_unclean, 1);
}

/// On a full disk recovery takes the room of the reserve: identity, quarantine and checkpoint succeed.
#[test]
fn recovery_of_a_full_disk_succeeds() {
    let (disk, state) = crashed(3, 60);
    let with_reserve = Options { reserve_bytes: 1 << 20, ..options() };
    drop(Engine::open(disk.storage(), data(), with_reserve.clone()).unwrap());
    disk.crash(Crash::ProcessOnly);
    disk.flip_bit(&segment_path(0), Position(state.active_position.get() + 400), 1).unwrap();
    disk.set_free_bytes(0);
    let engine = Engine::open(disk.storage(), data(), with_reserve).unwrap();
    let (mut writer, recovery) = open(&engine, Some(&state));
    assert!(recovery.set_aside_bytes > 0);
    append(&mut writer, 4..=8);
    crate::world::make_checkpoint(&engine, 8, &writer);
    assert!(engine.room().refuses_writes, "the reserve is in use");
}

/// What a person might find in a directory after an accident.
#[derive(Clone, Debug)]
enum Accident {
    Flip { file: usize, at: u64, bit: u8 },
    Cut { file: usize, keep: u64 },
    Spoil { file: usize, at: u64 },
    Garbage { file: usize, bytes: Vec<u8> },
    Remove { file: usize },
    Copy { file: usize, to: u64 },
    Stray { bytes: Vec<u8> },
}

fn accident() -> impl Strategy<Value = Accident> {
    let file = 0..8_usize;
    let at = 0..4_500_u64;
    prop_oneof![
        (file.clone(), at.clone(), 0..8_u8).prop_map(|(file, at, bit)| Accident::Flip { file, at, bit }),
        (file.clone(), at.clone()).prop_map(|(file, keep)| Accident::Cut { file, keep }),
        (file.clone(), at).prop_map(|(file, at)| Accident::Spoil { file, at }),
        (file.clone(), prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(file, bytes)| Accident::Garbage { file, bytes }),
        file.clone().prop_map(|file| Accident::Remove { file }),
        (file, 0..200_u64).prop_map(|(file, to)| Accident::Copy { file, to }),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| Accident::Stray { bytes }),
    ]
}

impl Accident {
    fn happen(&self, disk: &SimDisk) {
        let bases = bases(disk);
        let path = |file: usize| bases.get(file % bases.len().max(1)).map(|base| segment_path(*base));
        let create = |path: &Path, bytes: &[u8]| {
            if let Ok(file) = disk.storage().open(path, OpenMode::CreateNew) {
                file.write_at(Position::ZERO, &[bytes]).unwrap();
            }
        };
        let open = |path: &Path| disk.storage().open(path, OpenMode::ReadWrite).unwrap();
        match self {
            Self::Flip { file, at, bit } => {
                let Some(path) = path(*file) else { return };
                // Beyond the end there is nothing to flip.
                drop(disk.flip_bit(&path, Position(*at), *bit));
            }
            Self::Cut { file, keep } => {
                let Some(path) = path(*file) else { return };
                let file = open(&path);
                let len = file.len().unwrap();
                file.truncate(len.min(*keep)).unwrap();
            }
            Self::Spoil { file, at } => {
                let Some(path) = path(*file) else { return };
                disk.spoil(&path, *at..*at + 1).unwrap();
            }
            Self::Garbage { file, bytes } => {
                let Some(path) = path(*file) else { return };
                let file = open(&path);
                let len = file.len().unwrap();
                file.write_at(Position(len), &[bytes]).unwrap();
            }
            Self::Remove { file } => {
                let Some(path) = path(*file) else { return };
                disk.storage().remove(&path).unwrap();
            }
            Self::Copy { file, to } => {
                let Some(path) = path(*file) else { return };
                // A spoiled file cannot be copied.
                let Ok(bytes) = read_whole(disk.storage().as_ref(), &path, 1 << 30) else { return };
                create(&segment_path(*to), &bytes);
            }
            Self::Stray { bytes } => create(&segment_path(0).with_file_name("stray"), bytes),
        }
    }
}

fn bytes_below(disk: &SimDisk, dir: &Path, keep: impl Fn(&Path) -> bool) -> u64 {
    let len = |path: PathBuf| disk.storage().open(&path, OpenMode::Read).unwrap().len().unwrap();
    disk.files().into_iter().filter(|path| path.starts_with(dir) && keep(path)).map(len).sum()
}

fn log_bytes(disk: &SimDisk) -> u64 {
    bytes_below(disk, &data().join("logs"), |_| true)
}

fn piece_bytes(disk: &SimDisk) -> u64 {
    bytes_below(disk, &data().join("quarantine"), |path| path.extension().is_some_and(|it| it == "piece"))
}

/// Opens, reads everything, and holds the sums against each other. Returns whether the log opened.
fn nothing_is_unaccounted_for(disk: &SimDisk, embedded: bool, state: &LogState) -> bool {
    let (before, aside_before) = (log_bytes(disk), piece_bytes(disk));
    let engine = if embedded { embedded_engine(disk) } else { crate::world::engine(disk) };
    let opened = if embedded {
        engine.open_shared(LOG, CONFIG).map(|(log, _)| read_around(&log.reader())).is_ok()
    } else {
        engine.open_log(LOG, CONFIG, Some(state)).map(|(writer, _)| read_around(&writer.reader())).is_ok()
    };
    let report = engine.report();
    let sum =
        |field: fn(&tidelog_engine::log::LogRecovery) -> u64| report.logs.iter().map(field).sum::<u64>();
    let zeros = report.counts.zero_bytes;
    let (sealed, aside) = (sum(|log| log.sealed_bytes), sum(|log| log.set_aside_bytes));
    assert_eq!(before + sealed, log_bytes(disk) + zeros + aside, "{report:?}");
    assert_eq!(piece_bytes(disk) - aside_before, aside, "{report:?}");
    opened
}

/// An embedded log of a few segments, and whether it was left in an orderly way.
fn embedded_log(orderly: bool) -> SimDisk {
    let disk = formatted(7);
    let (log, _) = shared(&disk);
    for number in 0..60 {
        log.append_durable(&batch(number, 2, 100), TimestampMs(5)).unwrap();
    }
    if orderly {
        log.idle().unwrap();
    }
    drop(log);
    disk.crash(Crash::ProcessOnly);
    disk
}

proptest! {
    /// Whatever happened to the files: bytes before, and those written by sealing again, are the bytes after,
    /// the zeros that were cut and what lies in quarantine. Opening again changes nothing more.
    #[test]
    fn every_byte_is_kept_or_set_aside_or_was_zero(
        accidents in prop::collection::vec(accident(), 1..5),
        embedded in any::<bool>(),
        at in 1..60_u64,
    ) {
        let (disk, state) =
            if embedded { (embedded_log(at % 2 == 0), LogState::default()) } else { crashed(at, 60) };
        for accident in &accidents {
            accident.happen(&disk);
        }
        nothing_is_unaccounted_for(&disk, embedded, &state);
        disk.crash(Crash::ProcessOnly);
        let files = bases(&disk);
        nothing_is_unaccounted_for(&disk, embedded, &state);
        prop_assert_eq!(bases(&disk), files);
    }
}

/// A segment copied in under the name of an offset within a batch of another one: a reader at that offset got
/// nothing and no error, and so never got on.
#[test]
fn a_copy_under_an_offset_within_a_batch_costs_no_reader_his_way() {
    for (at, to) in [(13, 5), (13, 6), (13, 7), (14, 5), (1, 5)] {
        for embedded in [false, true] {
            let (disk, state) =
                if embedded { (embedded_log(at % 2 == 0), LogState::default()) } else { crashed(at, 60) };
            Accident::Copy { file: 0, to }.happen(&disk);
            nothing_is_unaccounted_for(&disk, embedded, &state);
            disk.crash(Crash::ProcessOnly);
            let files = bases(&disk);
            nothing_is_unaccounted_for(&disk, embedded, &state);
            assert_eq!(bases(&disk), files);
        }
    }
}

/// Nothing below the log start is mourned: a trimmed log of which no file is left opens clean.
#[test]
fn a_log_that_was_emptied_opens_clean() {
    let disk = embedded_log(true);
    let (log, _) = shared(&disk);
    for _ in 0..3 {
        log.trim(Offset(120)).unwrap();
    }
    drop(log);
    disk.crash(Crash::LoseUnsynced);
    let (log, recovery) = shared(&disk);
    assert!(recovery.is_clean(), "{recovery:?}");
    assert_eq!(log.reader().end(), Offset(120));
}
