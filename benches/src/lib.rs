//! Benchmarks, each beside the floor of the machine it runs on.
//!
//! `cargo bench -p tidelog-benches` runs these programs, all thin shells around [`run`]:
//! - [`engine`]: a durable append to the embedded engine. Its floor is to write and sync the same bytes.
//! - [`cluster`]: an append to one node and to three, until it is acknowledged: real `tidelogd` processes on loopback with
//!   TLS, one batch in flight. Their floors are that write and sync, an echo from a client to a node, and for three nodes an echo
//!   from node to node: a leader has to ask one other node before it answers.
//! - [`open`], if it is named: the opening of a large log, of many logs and of many segments, and the memory they hold.
//!
//! 1. Everything is measured in turns, operation by operation, floors included: see `rounds`.
//! 2. What an operation takes is set against the sum of its floors of the same rounds: see `report`.
//! 3. What was started is stopped, and what was written is removed, whether the run succeeds or not: see `cluster`.
//!
//! Data lies below cargo's target directory, so that it is on a disk and not in memory.
//!
//! Not here: throughput with many clients, and other systems beside ours.

mod clock;
pub mod cluster;
mod echo;
pub mod engine;
mod error;
mod floors;
mod inside;
mod nodes;
pub mod open;
mod options;
mod payload;
mod report;
mod rounds;
mod storage;

use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

pub use error::BenchError;
pub use options::{Bench, Options};
pub use report::{Kind, Percentiles, Report, Row, Section};

use crate::error::Doing as _;

/// Runs `bench` as the command line says and prints its report. Data lies below `folder`, which is made if it is not there.
///
/// Exit codes: 0 measured, or another was asked for; 1 failed; 2 asked wrongly.
#[must_use]
pub fn run(bench: Bench, folder: &str) -> ExitCode {
    match try_run(bench, Path::new(folder)) {
        Ok(Some(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", bench.name());
            ExitCode::from(if matches!(error, BenchError::Usage { .. }) { 2 } else { 1 })
        }
    }
}

fn try_run(bench: Bench, folder: &Path) -> Result<Option<String>, BenchError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if bench == Bench::Open
        && let Some(answer) = open::child::answer(&arguments)
    {
        return answer.map(Some);
    }
    let options = Options::parse(arguments)?;
    if !options.selects(bench) {
        return Ok(None);
    }
    make_folder(folder).doing("make the folder for data")?;
    match bench {
        Bench::Engine => shown(&engine::run(&options, folder)?, &options),
        Bench::Cluster => shown(&cluster::run(&options, folder)?, &options),
        Bench::Open => shown(&open::run(&options, folder)?, &options),
    }
}

fn shown(report: &(impl Serialize + Display), options: &Options) -> Result<Option<String>, BenchError> {
    Ok(Some(if options.json {
        serde_json::to_string(report).doing("write JSON")?
    } else {
        report.to_string()
    }))
}

#[expect(clippy::disallowed_methods, reason = "owns the folder in which all data of a run lies")]
fn make_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)
}
