//! One scenario for each row of recovery's tables, named for it.
//!
//! Each makes the sight that its row is for, opens, reads everything, holds what it got against what was
//! promised, and returns the rows that decided. A row without a scenario fails here, and so does a
//! scenario without a row.

mod above;
mod below;
mod checkpoints;
mod embedded_last;
mod identity;
mod names;

use std::collections::BTreeSet;

use tidelog_engine::Engine;
use tidelog_engine::checkpoint::LogState;
use tidelog_engine::log::recovery::table::TABLE;
use tidelog_engine::log::{LogError, LogReader, LogRecovery, LogWriter, ReadError};
use tidelog_engine::sim_disk::{Crash, Failure, Fault, Lasting, Operation, SimDisk};
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::Offset;

use crate::world::{CONFIG, LOG, append, engine, formatted, make_checkpoint, open, read_file, segment_path};

/// Names of the rows that decided something.
pub(super) type Rows = BTreeSet<&'static str>;

macro_rules! scenarios {
    ($table:ident: $($module:ident: $($row:ident),+;)+) => {
        mod $table {
            /// The rows that have a scenario.
            pub(super) const SCENARIOS: &[&str] = &[$($(stringify!($row)),+),+];
            $($(
                #[test]
                fn $row() {
                    let rows = super::$module::$row();
                    assert!(rows.contains(stringify!($row)), "decided by {rows:?}");
                }
            )+)+
        }
    };
}

scenarios! { of_logs:
    above: valid, end_above, broken_above, unreadable_above_consensus, empty_above, no_footer_above,
        footer_contradicts_above, broken_header_above, other_history_above_consensus, beyond_cut;
    below: end_below, broken_below, unreadable_below, empty_below, no_footer_below, footer_contradicts_below,
        footer_short, broken_header_below, other_history_below, missing, trimmed;
    embedded_last: unreadable_above_embedded, other_history_above_embedded, replaced;
    names: unknown_name, misplaced, covered, newer_format, foreign_cluster, unlisted;
}

scenarios! { of_identity:
    identity: identity_whole, identity_one_bad, identity_owners_differ, identity_absent, identity_both_bad,
        identity_newer;
}

scenarios! { of_checkpoints:
    checkpoints: checkpoint_newest, checkpoint_older, checkpoint_bad, checkpoint_unreadable,
        checkpoint_misplaced, checkpoint_newer_format, checkpoint_surplus, checkpoint_unfinished,
        checkpoint_unknown_name, checkpoint_done, checkpoint_none, checkpoint_none_valid,
        checkpoint_starts_lost;
}

#[test]
fn every_row_of_the_tables_of_identity_and_checkpoints_has_its_scenario() {
    let rows: Rows = tidelog_engine::identity::table::TABLE.iter().map(|row| row.name).collect();
    assert_eq!(rows, of_identity::SCENARIOS.iter().copied().collect());
    let rows: Rows = tidelog_engine::checkpoint::table::TABLE.iter().map(|row| row.name).collect();
    assert_eq!(rows, of_checkpoints::SCENARIOS.iter().copied().collect());
}

#[test]
fn every_row_of_the_table_of_logs_has_its_scenario() {
    let rows: Rows = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(rows, of_logs::SCENARIOS.iter().copied().collect());
}

/// `docs/recovery.md` shows the tables row by row: those of the code, and no others.
#[test]
fn the_documentation_shows_the_same_rows() {
    let text = include_str!("../../../../docs/recovery.md");
    let any = |all: bool, shown: String| if all { "any".to_owned() } else { shown };
    let logs = TABLE.iter().map(|row| {
        let mode = any(row.modes.len() == 2, format!("{:?}", row.modes[0]));
        let place = any(row.places.len() == 2, format!("{:?}", row.places[0]));
        format!("| {} | {mode} | {place} | {:?} | {:?} |", row.name, row.seen, row.verdict)
    });
    let identity = tidelog_engine::identity::table::TABLE.iter().map(|row| {
        let other = any(row.other.len() == 6, format!("{:?}", row.other));
        format!("| {} | {:?} | {other} | {:?} |", row.name, row.one, row.verdict)
    });
    let checkpoints = tidelog_engine::checkpoint::table::TABLE.iter().map(|row| {
        let before = any(row.valid_before.len() == 3, format!("{:?}", row.valid_before));
        format!("| {} | {before} | {:?} | {:?} |", row.name, row.seen, row.verdict)
    });
    let rows: Vec<String> = logs.chain(identity).chain(checkpoints).collect();
    let is_row = |line: &&str| {
        let name = line.strip_prefix("| ").and_then(|rest| rest.split(' ').next());
        name.is_some_and(|name| rows.iter().any(|row| row.starts_with(&format!("| {name} "))))
            || line.starts_with("| identity_")
            || line.starts_with("| checkpoint_")
    };
    let shown: Vec<&str> = text.lines().filter(is_row).collect();
    assert_eq!(shown, rows, "as they should be:\n{}", rows.join("\n"));
}

/// A log with entries 1..=`last`, checkpointed at `at`; the process has died.
pub(crate) fn crashed(at: u64, last: u64) -> (SimDisk, LogState) {
    let disk = formatted(1);
    let engine = engine(&disk);
    let (mut writer, _) = open(&engine, None);
    append(&mut writer, 1..=at);
    let state = make_checkpoint(&engine, at, &writer);
    append(&mut writer, at + 1..=last);
    writer.sync_target().run().unwrap();
    disk.crash(Crash::ProcessOnly);
    (disk, state)
}

/// What came of opening a damaged log.
pub(crate) struct Reopened {
    pub(crate) engine: std::sync::Arc<Engine>,
    pub(crate) writer: LogWriter,
    pub(crate) recovery: LogRecovery,
}

pub(crate) fn reopen(disk: &SimDisk, state: &LogState) -> Reopened {
    let engine = engine(disk);
    let (writer, recovery) = open(&engine, Some(state));
    Reopened { engine, writer, recovery }
}

pub(super) fn refused(disk: &SimDisk, state: &LogState) -> (LogError, Rows) {
    let engine = engine(disk);
    let error = engine.open_log(LOG, CONFIG, Some(state)).unwrap_err();
    (error, all_rows(&engine))
}

impl Reopened {
    /// The rows that decided, when the log was opened and later.
    pub(super) fn rows(&self) -> Rows {
        let mut rows = all_rows(&self.engine);
        rows.extend(self.recovery.rows.keys());
        rows
    }

    pub(super) fn reader(&self) -> LogReader {
        self.writer.reader()
    }
}

pub(super) fn all_rows(engine: &Engine) -> Rows {
    engine.report().logs.iter().flat_map(|log| log.rows.keys().copied()).collect()
}

/// Reads everything, going on behind what cannot be read. Returns the offsets read and the errors.
pub(crate) fn read_around(reader: &LogReader) -> (BTreeSet<u64>, Vec<ReadError>) {
    let (mut offsets, mut errors) = (BTreeSet::new(), Vec::new());
    let mut at = reader.start();
    while at < reader.end() {
        let before = at;
        match reader.read(at, 1_000) {
            Ok(read) => {
                offsets.extend(at.get()..read.next.get());
                at = read.next;
            }
            Err(error) => {
                let (ReadError::Damaged { range, .. } | ReadError::Unreadable { range, .. }) = &error else {
                    panic!("{error}");
                };
                at = range.end;
                errors.push(error);
            }
        }
        assert!(at > before, "reading goes on: {errors:?}");
    }
    (offsets, errors)
}

/// The range that a read failed for, and nothing else failed.
pub(super) fn only_range(errors: &[ReadError]) -> std::ops::Range<Offset> {
    match errors {
        [ReadError::Damaged { range, .. } | ReadError::Unreadable { range, .. }] => range.clone(),
        other => panic!("{other:?}"),
    }
}

/// The bases of the log's files, in order. Other files in its directory are passed over.
pub(crate) fn bases(disk: &SimDisk) -> Vec<u64> {
    let dir = segment_path(0).parent().unwrap().to_path_buf();
    let files = disk.files().into_iter().filter(|path| path.parent() == Some(dir.as_path()));
    files.filter_map(|path| path.file_stem()?.to_str()?.parse().ok()).collect()
}

/// Replaces the content of a file.
pub(super) fn rewrite(disk: &SimDisk, path: &std::path::Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = read_file(disk, path);
    change(&mut bytes);
    let file = disk.storage().open(path, OpenMode::ReadWrite).unwrap();
    file.truncate(0).unwrap();
    file.write_at(Position::ZERO, &[&bytes]).unwrap();
    file.sync().unwrap();
}

/// Changes the segment header of a file and makes its checksum right again.
pub(super) fn rewrite_header(disk: &SimDisk, path: &std::path::Path, change: impl FnOnce(&mut [u8])) {
    rewrite(disk, path, |bytes| {
        change(&mut bytes[..76]);
        let crc = crc32c::crc32c(&bytes[..76]);
        bytes[76..80].copy_from_slice(&crc.to_le_bytes());
    });
}

/// Changes the footer of a file and makes its checksum right again.
pub(super) fn rewrite_footer(disk: &SimDisk, path: &std::path::Path, change: impl FnOnce(&mut [u8])) {
    rewrite(disk, path, |bytes| {
        let at = bytes.len() - 64;
        change(&mut bytes[at..]);
        let index_position = u64::from_le_bytes(bytes[at + 48..at + 56].try_into().unwrap());
        let from = usize::try_from(index_position).unwrap();
        let crc = crc32c::crc32c(&bytes[from..at + 60]);
        bytes[at + 60..].copy_from_slice(&crc.to_le_bytes());
    });
}

/// Adds to the last offset that a footer states.
pub(super) fn shift_last_offset(footer: &mut [u8], by: i64) {
    let last = u64::from_le_bytes(footer[24..32].try_into().unwrap());
    footer[24..32].copy_from_slice(&last.checked_add_signed(by).unwrap().to_le_bytes());
}

/// Every such operation on the path fails until the faults are cleared.
pub(crate) fn refuse(disk: &SimDisk, operation: Operation, path: &str) {
    let fault = Fault { lasting: Lasting::Always, ..Fault::next(operation, Failure::Io).on_path(path) };
    disk.inject(fault);
}

/// How many pieces lie in quarantine.
pub(super) fn pieces(disk: &SimDisk) -> usize {
    disk.files().iter().filter(|path| path.extension().is_some_and(|it| it == "piece")).count()
}
