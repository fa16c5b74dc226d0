//! `segment dump`: records as JSON lines.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::ops::{ControlFlow, Range};

use indicatif::{ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use serde_json::json;
use tidelog_engine::offline::{self, Dumped, Finding, LogFiles};
use tidelog_engine::os::OsStorage;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{Offset, Partition};
use tidelog_wire::records::{Record, Records};

use super::arguments::Dump;
use super::view::{FindingView, log_name};
use super::{find, progress};
use crate::consume::format::RecordLine;
use crate::error::CliError;
use crate::output::Output;

/// A record with its log.
#[derive(Serialize)]
struct Line<'a> {
    log: &'a str,
    #[serde(flatten)]
    record: RecordLine<'a>,
}

/// Writing them out, and what came in the way.
struct Dumping<'a> {
    out: BufWriter<io::StdoutLock<'a>>,
    log: String,
    partition: Partition,
    wanted: Range<Offset>,
    left: u64,
    damaged: usize,
    failed: Option<io::Error>,
    as_json: bool,
    bar: &'a ProgressBar,
}

impl Dumping<'_> {
    fn take(&mut self, dumped: &Dumped<'_>) -> ControlFlow<()> {
        match dumped {
            Dumped::Damage(finding) => {
                self.damaged += 1;
                self.bar.suspend(|| tell(finding, self.as_json));
                ControlFlow::Continue(())
            }
            Dumped::Batch { path, position, bytes } => {
                let records = Batch::parse(bytes.clone(), BatchLimits::CAP)
                    .map_err(|error| error.to_string())
                    .and_then(|batch| Records::of(&batch).map_err(|error| error.to_string()));
                let told = match records {
                    Ok(records) => self.batch(records),
                    Err(error) => Err(error),
                };
                match told {
                    Ok(flow) => flow,
                    // The frame verifies: this is what the producer sent.
                    Err(error) => {
                        self.damaged += 1;
                        let line = if self.as_json {
                            let byte = position.get();
                            json!({ "unreadable": { "file": path, "byte": byte, "why": error } }).to_string()
                        } else {
                            format!("unreadable: {}: batch at byte {position}: {error}", path.display())
                        };
                        self.bar.suspend(|| eprintln!("{line}"));
                        ControlFlow::Continue(())
                    }
                }
            }
        }
    }

    fn batch(&mut self, records: Records) -> Result<ControlFlow<()>, String> {
        for record in records {
            let record = record.map_err(|error| error.to_string())?;
            if !self.wanted.contains(&record.offset) {
                continue;
            }
            if self.left == 0 || self.failed.is_some() {
                return Ok(ControlFlow::Break(()));
            }
            self.left -= 1;
            self.failed = self.record(&record).err();
            if self.left == 0 {
                // Before anything behind it is read.
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn record(&mut self, record: &Record) -> io::Result<()> {
        let headers = record.headers.iter().map(|header| (header.key.as_ref(), header.value.as_deref()));
        let line = Line {
            log: &self.log,
            record: RecordLine {
                partition: self.partition,
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: headers.collect(),
            },
        };
        serde_json::to_writer(&mut self.out, &line)?;
        self.out.write_all(b"\n")
    }
}

/// Writes the records at the path.
pub(crate) fn run(dump: &Dump, output: &Output) -> Result<(), CliError> {
    let target = find(&dump.path)?;
    output.set_answered();
    let mut damaged = target.findings.len();
    for finding in &target.findings {
        tell(finding, output.is_json());
    }
    let bar = progress(output, target.bytes(), "reading");
    if io::stdout().is_terminal() {
        // The records go there, and would be written over it.
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    for files in &target.logs {
        damaged += of_log(dump, files, output.is_json(), &bar)?;
    }
    bar.finish_and_clear();
    if damaged == 0 { Ok(()) } else { Err(CliError::Damaged { ranges: damaged }) }
}

/// Says on standard error what is damaged.
fn tell(finding: &Finding, as_json: bool) {
    let finding = FindingView::of(finding);
    if as_json {
        eprintln!("{}", json!({ "damaged": finding }));
    } else {
        eprintln!("damaged: {}", finding.line());
    }
}

/// Writes the records of one log; says how many damaged ranges were in the way.
fn of_log(dump: &Dump, files: &LogFiles, as_json: bool, bar: &ProgressBar) -> Result<usize, CliError> {
    let wanted = Offset(dump.from)..Offset(u64::MAX);
    let mut dumping = Dumping {
        out: BufWriter::new(io::stdout().lock()),
        log: log_name(files.log, &files.dir),
        partition: files.log.map(|log| log.partition).unwrap_or_default(),
        wanted: wanted.clone(),
        left: dump.max.unwrap_or(u64::MAX),
        damaged: 0,
        failed: None,
        as_json,
        bar,
    };
    if dumping.left > 0 {
        let out = &mut |dumped: Dumped<'_>| dumping.take(&dumped);
        offline::dump(&OsStorage, files, &wanted, &mut |bytes| bar.inc(bytes), out)?;
    }
    let written = dumping.failed.map_or(Ok(()), Err).and_then(|()| dumping.out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::File { path: "standard output".into(), action: "write to it", source: error })
        }
        Ok(()) | Err(_) => Ok(dumping.damaged),
    }
}
