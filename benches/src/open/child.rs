//! One opening, by a process of its own: only so does its memory belong to it alone.
//!
//! The process is this program again. It is told the directory, opens the engine and all its logs, and prints
//! what that took as one line of JSON.

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::os::OsStorage;
use tidelog_engine::{Engine, LogToOpen, Mode, Options};

use super::build::{Directory, GROUP};
use crate::clock;
use crate::error::{BenchError, Doing as _};

/// Says on the command line that this process is to open a directory and tell.
const OPENED: &str = "--opened";

/// What one opening took.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// The engine and all logs.
    pub(crate) open_us: u64,
    pub(crate) logs: u64,
    pub(crate) segments: u64,
    pub(crate) walked_bytes: u64,
    pub(crate) resident_kib: u64,
    pub(crate) heap_bytes: u64,
    /// Looking at every segment afterwards, where there is one log.
    pub(crate) look_us: Option<u64>,
}

/// Opens `dir` in another process.
pub(crate) fn open_in_a_process(dir: &Directory, config: LogConfig) -> Result<Opened, BenchError> {
    let program = std::env::current_exe().doing("find this program")?;
    let mode = match dir.mode {
        Mode::Consensus => "consensus",
        Mode::Embedded => "embedded",
    };
    let mut command = Command::new(&program);
    command.arg(OPENED).arg(mode).arg(config.segment_bytes.to_string()).arg(&dir.root);
    let output = command.output().doing("start a process that opens the logs")?;
    if !output.status.success() {
        return Err(BenchError::Program {
            program: format!("{command:?}"),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    serde_json::from_slice(&output.stdout).doing("read what the opening process says")
}

/// If this is such a process: what it has to print.
pub(crate) fn answer(arguments: &[String]) -> Option<Result<String, BenchError>> {
    let [first, mode, segment_bytes, dir] = arguments else { return None };
    if first != OPENED {
        return None;
    }
    let config = LogConfig { segment_bytes: segment_bytes.parse().ok()?, ..LogConfig::default() };
    let opened = match mode.as_str() {
        "consensus" => consensus(&PathBuf::from(dir)),
        _ => embedded(&PathBuf::from(dir), config),
    };
    Some(opened.and_then(|opened| serde_json::to_string(&opened).doing("write JSON")))
}

fn consensus(dir: &Path) -> Result<Opened, BenchError> {
    let before = heap_bytes();
    let (opened, took) = clock::timed(|| {
        let engine = Engine::open(Arc::new(OsStorage), dir, Options::consensus(clock::wall()))
            .doing("open the engine")?;
        let loaded = engine.load_checkpoint(GROUP).doing("load the checkpoint")?;
        let logs = loaded.map(|loaded| loaded.newest.logs).unwrap_or_default();
        let wanted: Vec<LogToOpen<'_>> = logs
            .iter()
            .map(|log| LogToOpen { log: log.log, config: log.config, state: Some(&log.state) })
            .collect();
        // What recovery found is told and then gone: what stays is the log.
        let opened: Result<Vec<_>, _> =
            engine.open_logs(&wanted).into_iter().map(|opened| opened.map(|(writer, _)| writer)).collect();
        Ok::<_, BenchError>((engine, opened.doing("open a log")?))
    });
    let (engine, logs) = opened?;
    let mut told = tell(&engine, took, before)?;
    if let [writer] = logs.as_slice() {
        let (looked, took) = clock::timed(|| writer.reader().look_at_all());
        looked.doing("look at the segments")?;
        told.look_us = Some(micros(took));
    }
    Ok(told)
}

fn embedded(dir: &Path, config: LogConfig) -> Result<Opened, BenchError> {
    let before = heap_bytes();
    let (opened, took) = clock::timed(|| {
        let engine = Engine::open(Arc::new(OsStorage), dir, Options::embedded(clock::wall()))
            .doing("open the engine")?;
        let wanted: Vec<_> =
            engine.logs_on_disk().doing("list the logs")?.into_iter().map(|log| (log, config)).collect();
        let opened: Result<Vec<_>, _> =
            engine.open_shared_logs(&wanted).into_iter().map(|opened| opened.map(|(log, _)| log)).collect();
        Ok::<_, BenchError>((engine, opened.doing("open a log")?))
    });
    let (engine, _logs) = opened?;
    tell(&engine, took, before)
}

fn tell(engine: &Engine, took: std::time::Duration, before: u64) -> Result<Opened, BenchError> {
    let progress = engine.open_progress();
    Ok(Opened {
        open_us: micros(took),
        logs: progress.logs_done,
        segments: progress.segments,
        walked_bytes: progress.bytes_walked,
        resident_kib: resident_kib()?,
        heap_bytes: heap_bytes().saturating_sub(before),
        look_us: None,
    })
}

fn micros(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

fn heap_bytes() -> u64 {
    let allocator: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;
    let stats = allocator.stats();
    u64::try_from(stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)).unwrap_or(u64::MAX)
}

/// `VmRSS` of this process.
#[expect(clippy::disallowed_methods, reason = "the system's account of this process is a file")]
fn resident_kib() -> Result<u64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status").doing("ask for the memory of this process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    number.ok_or("no VmRSS").doing("ask for the memory of this process")
}
