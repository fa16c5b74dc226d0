//! Making a log durable, off the thread that appends.

use std::io::ErrorKind;
use std::path::Path;

use tidelog_wire::ids::Offset;

use super::error::SyncError;
use super::error::is_out_of_handles;
use super::reader::Visible;
use super::shared::{LogShared, Segment};
use crate::locks::Arc;
use crate::segment::state::{SegmentEvent, SegmentState};
use crate::storage::{File, Position};

/// One dirty file, as it was when the job was made.
#[derive(Debug)]
struct Target {
    segment: Arc<Segment>,
    file: Arc<dyn File>,
    writes: u64,
    end_position: Position,
}

/// Makes durable what a log had written when the job was made. Runs once, on any thread.
#[derive(Debug)]
#[must_use = "nothing is durable before it has run"]
pub struct SyncJob {
    log: Arc<LogShared>,
    /// The newest dirty file, mostly the only one: a list of it alone would be allocated for every sync.
    newest: Option<Target>,
    /// Those before it, newest first.
    older: Vec<Target>,
    end: Offset,
}

impl SyncJob {
    pub(crate) fn new(log: Arc<LogShared>) -> Self {
        let (mut newest, mut older) = (None, Vec::new());
        let end = {
            let view = log.view();
            for segment in view.segments.used_newest_first() {
                let facts = segment.facts();
                // What lies before a sealed segment was sealed before it.
                if facts.state == SegmentState::Sealed {
                    break;
                }
                if let Some(file) = &facts.unsynced {
                    let target = Target {
                        segment: Arc::clone(segment),
                        file: Arc::clone(file),
                        writes: facts.writes,
                        end_position: facts.end_position,
                    };
                    match &newest {
                        None => newest = Some(target),
                        Some(_) => older.push(target),
                    }
                }
            }
            view.end
        };
        Self { log, newest, older, end }
    }

    /// The dirty files, oldest first.
    fn targets(&self) -> impl Iterator<Item = &Target> {
        self.older.iter().rev().chain(&self.newest)
    }

    /// Whether there is nothing to make durable.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.newest.is_none() && !self.log.dir_dirty()
    }

    /// Syncs the dirty segments, oldest first, and the directory if files were created. On return
    /// everything that was appended when the job was made is durable, and sealed segments are sealed.
    ///
    /// # Errors
    /// - [`SyncError::Failed`]: the log is fenced. It must not be tried again.
    /// - [`SyncError::NotYet`]: not durable yet; the next job makes it so.
    pub fn run(self) -> Result<(), SyncError> {
        let syncing = self.log.syncing();
        if self.log.is_fenced() {
            let source = std::io::Error::other("an earlier write or sync of this log failed");
            return Err(SyncError::Failed { path: self.log.path.to_path_buf(), action: "sync", source });
        }
        for target in self.targets() {
            target.file.sync().map_err(|source| {
                target.fail();
                self.fence(&target.segment.path(), "sync", source)
            })?;
        }
        match self.log.sync_dir() {
            // It went with its log, and the files with it: what is left of them is synced.
            Err(error) if error.kind() == ErrorKind::NotFound && self.log.is_removed() => {}
            // It could not be opened, so no sync of it failed. The files are synced, and the next job syncs their names.
            Err(source) if is_out_of_handles(&source) => {
                return Err(SyncError::NotYet { path: self.log.path.to_path_buf(), source });
            }
            synced => synced.map_err(|source| self.fence(&self.log.path, "sync the directory", source))?,
        }
        // First what readers see: who finds nothing left to sync returns at once, and reads.
        {
            let mut view = self.log.view();
            view.durable_end = view.durable_end.max(self.end);
        }
        for target in self.targets() {
            target.succeed();
        }
        drop(syncing);
        self.log.grown(Visible::Durable, self.end);
        Ok(())
    }

    fn fence(&self, path: &Path, action: &'static str, source: std::io::Error) -> SyncError {
        self.log.fence();
        SyncError::Failed { path: path.to_path_buf(), action, source }
    }
}

impl Target {
    fn succeed(&self) {
        let mut facts = self.segment.facts();
        facts.synced_to = facts.synced_to.max(self.end_position);
        if facts.writes != self.writes {
            return;
        }
        facts.unsynced = None;
        match facts.state {
            SegmentState::Active | SegmentState::Sealing => facts.apply(SegmentEvent::Synced),
            SegmentState::Sealed | SegmentState::Fenced => {}
        }
        if facts.state == SegmentState::Sealed {
            facts.summary = None;
        }
    }

    fn fail(&self) {
        let mut facts = self.segment.facts();
        match facts.state {
            SegmentState::Active | SegmentState::Sealing => facts.apply(SegmentEvent::SyncFailed),
            SegmentState::Sealed | SegmentState::Fenced => {}
        }
    }
}
