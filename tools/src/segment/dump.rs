//! `segment dump`: records as JSON lines.

use std::io::{self, BufWriter, Write as _};
use std::ops::{ControlFlow, Range};

use serde::Serialize;
use tidelog_engine::offline::{self, Dumped, LogFiles};
use tidelog_engine::os::OsStorage;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{Offset, Partition};
use tidelog_wire::records::{Record, Records};

use super::arguments::Dump;
use super::find;
use super::view::{FindingView, log_name};
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
}

impl Dumping<'_> {
    fn take(&mut self, dumped: &Dumped<'_>) -> ControlFlow<()> {
        match dumped {
            Dumped::Damage(finding) => {
                self.damaged += 1;
                eprintln!("damaged: {}", FindingView::of(finding).line());
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
                        eprintln!("unreadable: {}: batch at byte {position}: {error}", path.display());
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
        eprintln!("damaged: {}", FindingView::of(finding).line());
    }
    for files in &target.logs {
        damaged += of_log(dump, files)?;
    }
    if damaged == 0 { Ok(()) } else { Err(CliError::Damaged { ranges: damaged }) }
}

/// Writes the records of one log; says how many damaged ranges were in the way.
fn of_log(dump: &Dump, files: &LogFiles) -> Result<usize, CliError> {
    let wanted = Offset(dump.from)..Offset(u64::MAX);
    let mut dumping = Dumping {
        out: BufWriter::new(io::stdout().lock()),
        log: log_name(files.log, &files.dir),
        partition: files.log.map(|log| log.partition).unwrap_or_default(),
        wanted: wanted.clone(),
        left: dump.max.unwrap_or(u64::MAX),
        damaged: 0,
        failed: None,
    };
    offline::dump(&OsStorage, files, &wanted, &mut |dumped| dumping.take(&dumped))?;
    let written = dumping.failed.map_or(Ok(()), Err).and_then(|()| dumping.out.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::File { path: "standard output".into(), action: "write to it", source: error })
        }
        Ok(()) | Err(_) => Ok(dumping.damaged),
    }
}
