//! `engine`: the embedded engine beside the machine and beside other logs.
//!
//! - A durable append, one writer: beside writing and syncing the same bytes, and beside `raft-engine` and `okaywal`, which
//!   sync as well before they return.
//! - The append under consensus, which is not synced: what apply costs, since there the raft log is the durable copy.
//! - Many writers, on one log and on a log each: how many appends one sync serves decides how many there are a second.
//! - Appends that are not synced, and warm reads, beside the same system calls.
//! - What one durable append asks of the disk and of the allocator.

mod bulk;
mod many;
mod others;
mod ours;

use std::path::Path;
use std::time::Duration;

use tidelog_wire::limits::KIB;

use self::ours::{APPEND, APPLY};
use crate::error::{BenchError, Doing as _};
use crate::floors::{SYNC, SyncFloor};
use crate::options::{Bench, Options};
use crate::payload::{Payload, SIZES};
use crate::report::{Report, Section, Subject, Target};
use crate::rounds::{Plan, Stop, measure};

const SUBJECTS: [Subject; 4] = [
    Subject { name: APPEND, floors: &[SYNC] },
    Subject { name: others::RAFT_ENGINE, floors: &[SYNC] },
    Subject { name: others::OKAYWAL, floors: &[SYNC] },
    Subject { name: APPLY, floors: &[] },
];
/// For each sample that is asked for, each number of writers is watched so long.
const SHARED_MICROSECONDS: u64 = 150;
/// Most rounds of what writes and reads in bulk.
const BULK_ROUNDS_MAX: u64 = 300;
/// Appends whose calls are counted.
const COUNTED: u64 = 1000;
/// Batches larger than 1 KiB are measured so many times less often.
const LARGE_SAMPLES_PART: u64 = 4;

/// Measures everything. Data goes to a folder of its own below `folder`, which is removed again.
///
/// # Errors
/// [`BenchError`]; nothing is measured then.
pub fn run(options: &Options, folder: &Path) -> Result<Report, BenchError> {
    let stop = Stop::default();
    let mut report = Report::new("engine");
    for size in SIZES {
        let plan = options.plan(Bench::Engine);
        let large = size > KIB;
        let samples = if large { plan.samples.div_ceil(LARGE_SAMPLES_PART) } else { plan.samples };
        let section = appends(&mut report, size, &Plan { samples, ..plan }, folder, &stop)?;
        if large {
            continue;
        }
        let length = Duration::from_micros(SHARED_MICROSECONDS.saturating_mul(samples));
        let new = new_folder(folder)?;
        section.shared = many::measure(new.path(), &Payload::of(size)?, length)?;
        let new = new_folder(folder)?;
        section.rates = bulk::measure_all(new.path(), samples.min(BULK_ROUNDS_MAX), &stop)?;
        aim(section);
    }
    Ok(report)
}

/// Single durable appends, one writer.
fn appends<'a>(
    report: &'a mut Report,
    size: usize,
    plan: &Plan,
    folder: &Path,
    stop: &Stop,
) -> Result<&'a mut Section, BenchError> {
    let payload = Payload::of(size)?;
    let new = new_folder(folder)?;
    let at = |name: &str| new.path().join(name);
    let bytes = payload.batch.bytes();
    let mut floor = SyncFloor::prepare(new.path(), bytes.clone())?;
    let mut append = ours::Append::open(&at("embedded"), payload.batch.clone())?;
    let mut raft_engine = others::RaftEngine::open(&at("raft-engine"), bytes.clone(), 1)?;
    let mut okaywal = others::OkayWal::open(&at("okaywal"), bytes.clone())?;
    let mut apply = ours::Apply::open(&at("applied"), payload.batch.clone())?;
    let measured =
        measure(&mut [&mut floor, &mut append, &mut raft_engine, &mut okaywal, &mut apply], plan, stop)?;
    let calls = append.calls_of(COUNTED)?;
    let section = report.add(size, bytes.len(), &measured, &[SYNC], &SUBJECTS)?;
    section.notes.push(format!(
        "{COUNTED} durable appends: {} write calls, {} syncs, zeros ahead {} times, {} allocations",
        calls.writes, calls.syncs, calls.prefills, calls.allocations
    ));
    Ok(section)
}

/// What the figures of 1 KiB should be.
fn aim(section: &mut Section) {
    let append = section.rows.iter().find(|row| row.name == APPEND).and_then(|row| row.ratio_to_floors);
    if let Some(ratio) = append {
        section.targets.push(Target::at_most(
            "durable append of 1 KiB, p50 over the floor's",
            ratio.p50,
            1.15,
        ));
        section.targets.push(Target::at_most(
            "durable append of 1 KiB, p99 over the floor's",
            ratio.p99,
            1.5,
        ));
    }
    for rate in &section.rates {
        section.targets.push(Target::at_least(&format!("{}, over raw", rate.name), rate.ratio, 0.7));
    }
}

fn new_folder(folder: &Path) -> Result<tempfile::TempDir, BenchError> {
    tempfile::Builder::new().prefix("bench-engine-").tempdir_in(folder).doing("make a folder")
}
