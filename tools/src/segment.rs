//! `tidelog segment …`: looking at segment files, and mending them, without a server.
//!
//! What is judged and how stands in `tidelog_engine::offline`; here it is asked and put into words.

pub(crate) mod arguments;
mod compare;
mod dump;
mod explain;
mod inspect;
mod repair;
mod verify;
mod view;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use tidelog_engine::offline::{self, OfflineError, Target};
use tidelog_engine::os::OsStorage;

use crate::error::CliError;
use crate::files;
use crate::output::Output;
use arguments::Segment;

/// Answers one question.
pub(crate) fn run(segment: Segment, output: &Output) -> Result<(), CliError> {
    match segment {
        Segment::Inspect(paths) => inspect::run(&paths, output),
        Segment::Verify(paths) => verify::run(&paths, output),
        Segment::Explain(explain) => explain::run(&explain, output),
        Segment::Dump(dump) => dump::run(&dump, output),
        Segment::Compare(compare) => compare::run(&compare, output),
        Segment::Repair(repair) => repair::run(&repair, output),
    }
}

/// What lies at a path; names in the answer are absolute.
fn find(path: &Path) -> Result<Target, CliError> {
    Ok(offline::find(&OsStorage, &absolute(path)?)?)
}

/// The absolute path; one that is not there was asked wrongly, and is no file that failed.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    let found = files::absolute(path);
    if let Err(CliError::File { source, .. }) = &found
        && source.kind() == ErrorKind::NotFound
    {
        return Err(OfflineError::NothingHere { path: path.to_path_buf() }.into());
    }
    found
}

/// Progress over `bytes`, on a terminal where people read the answer.
fn progress(output: &Output, bytes: u64, what: &'static str) -> ProgressBar {
    bar(output, bytes, what, "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta}")
}

/// The same over logs.
fn progress_of_logs(output: &Output, logs: usize, what: &'static str) -> ProgressBar {
    let logs = u64::try_from(logs).unwrap_or(u64::MAX);
    bar(output, logs, what, "{msg} {bar:30} {pos} of {len} logs, {eta}")
}

fn bar(output: &Output, len: u64, what: &'static str, template: &str) -> ProgressBar {
    if output.is_json() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(len).with_message(what);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
