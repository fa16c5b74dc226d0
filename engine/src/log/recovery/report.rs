//! What recovery found, for logs, metrics and tests.

use std::ops::Range;
use std::path::PathBuf;

use tidelog_wire::ids::{LogId, Offset, RaftIndex};

use super::table::{Place, Seen, Verdict};
use crate::storage::Position;

/// One thing that recovery decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// In which file, or which directory lacks it.
    pub path: PathBuf,
    /// Where in the file.
    pub position: Position,
    /// On which side of the durable mark.
    pub place: Place,
    /// What was seen.
    pub seen: Seen,
    /// What was done.
    pub verdict: Verdict,
}

/// How the recovery of one log went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecovery {
    /// Which log.
    pub log: LogId,
    /// Verified frames above the mark that were kept.
    pub kept_frames: u64,
    /// The raft entry of the last of them.
    pub kept_to: Option<RaftIndex>,
    /// Bytes that were cut; a copy of each lies in quarantine.
    pub cut_bytes: u64,
    /// Ranges found damaged, rising.
    pub damage: Vec<Range<Offset>>,
    /// Everything that was not plainly intact.
    pub findings: Vec<Finding>,
}

impl LogRecovery {
    pub(crate) const fn new(log: LogId) -> Self {
        Self { log, kept_frames: 0, kept_to: None, cut_bytes: 0, damage: Vec::new(), findings: Vec::new() }
    }

    /// Whether everything was plainly intact.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}
