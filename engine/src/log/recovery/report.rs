//! What the recovery of one log found and did, for logs, metrics, tests and the report beside the data.
//!
//! Every byte that recovery changes is counted here:
//! `bytes before + sealed_bytes = bytes after + zero_bytes + set_aside_bytes`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidelog_wire::ids::{LogId, Offset, RaftIndex};

use super::table::{Place, Row, Seen, Verdict};
use crate::clock::Clock;
use crate::storage::Position;

/// Most findings that the report of one log holds; further ones are counted only.
pub const FINDINGS_MAX: usize = 1_000;

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
    /// The row of the decision table.
    pub row: &'static str,
    /// What the system said, where it refused to give bytes.
    pub error: Option<String>,
}

/// Something that recovery moved to quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it was.
    pub from: PathBuf,
    /// Where it is.
    pub piece: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// What recovery spends its time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listing the directory, opening files and reading their headers.
    List,
    /// Segments below the mark: footers, and sealing again.
    Below,
    /// Walking the frames above the mark.
    Walk,
    /// Copying and moving to quarantine, and cutting.
    SetAside,
    /// Syncing what is kept.
    Sync,
}

impl Phase {
    /// All phases with the name that reports give them.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::List, "list"),
        (Self::Below, "below"),
        (Self::Walk, "walk"),
        (Self::SetAside, "set_aside"),
        (Self::Sync, "sync"),
    ];
}

/// Microseconds spent, phase by phase. All zero if the engine was lent no clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Took(pub BTreeMap<Phase, u64>);

impl Took {
    /// All phases together, in microseconds.
    #[must_use]
    pub fn total_us(&self) -> u64 {
        self.0.values().copied().fold(0, u64::saturating_add)
    }
}

/// How the recovery of one log went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecovery {
    /// Which log.
    pub log: LogId,
    /// Verified frames above the mark that were kept.
    pub kept_frames: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// The raft entry of the last of them.
    pub kept_to: Option<RaftIndex>,
    /// Kept frames that were the same as the entries applied again: nothing was written.
    pub replayed_frames: u64,
    /// Kept frames that differed from them, or lay behind one that did: they were set aside.
    pub differing_frames: u64,
    /// Bytes that were cut off files that stay; a copy of each lies in quarantine.
    pub cut_bytes: u64,
    /// Zeros that were cut off; nothing was in them.
    pub zero_bytes: u64,
    /// What went to quarantine, cut bytes and whole files; at most [`FINDINGS_MAX`] are named.
    pub set_aside: Vec<Aside>,
    /// Bytes of all of it.
    pub set_aside_bytes: u64,
    /// Segments whose index and footer were written again.
    pub sealed_again: u64,
    /// The bytes of those indexes and footers.
    pub sealed_bytes: u64,
    /// Segments below the log start, handed to be unlinked.
    pub trimmed: u64,
    /// Ranges found damaged, rising.
    pub damage: Vec<Range<Offset>>,
    /// Ranges that the disk does not give now, rising. Nothing of them was changed.
    pub unread: Vec<Range<Offset>>,
    /// Why the log takes no appends, if it does not: where its end was lost sight of.
    pub read_only: Option<PathBuf>,
    /// How often each row of the table decided.
    pub rows: BTreeMap<&'static str, u64>,
    /// Everything that was not plainly intact.
    pub findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_MAX`].
    pub findings_left_out: u64,
    /// How long it took.
    pub took: Took,
}

impl LogRecovery {
    pub(crate) const fn new(log: LogId) -> Self {
        Self {
            log,
            kept_frames: 0,
            kept_bytes: 0,
            kept_to: None,
            replayed_frames: 0,
            differing_frames: 0,
            cut_bytes: 0,
            zero_bytes: 0,
            set_aside: Vec::new(),
            set_aside_bytes: 0,
            sealed_again: 0,
            sealed_bytes: 0,
            trimmed: 0,
            damage: Vec::new(),
            unread: Vec::new(),
            read_only: None,
            rows: BTreeMap::new(),
            findings: Vec::new(),
            findings_left_out: 0,
            took: Took(BTreeMap::new()),
        }
    }

    /// Whether everything was plainly intact.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Counts the row, and names what was not plainly intact.
    pub(crate) fn decided(
        &mut self,
        row: &Row,
        path: &Path,
        position: Position,
        place: Place,
        error: Option<String>,
    ) {
        let count = self.rows.entry(row.name).or_default();
        *count = count.saturating_add(1);
        match row.verdict {
            Verdict::Intact | Verdict::Unlink => {}
            Verdict::TornTail
            | Verdict::SealAgain
            | Verdict::Corrupt
            | Verdict::Unread
            | Verdict::FramesOnly
            | Verdict::SetAside
            | Verdict::ReadOnly
            | Verdict::Refuse => {
                self.name(Finding {
                    path: path.to_path_buf(),
                    position,
                    place,
                    seen: row.seen,
                    verdict: row.verdict,
                    row: row.name,
                    error,
                });
            }
        }
    }

    fn name(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out = self.findings_left_out.saturating_add(1);
        }
    }

    /// Adds what was found later.
    pub(crate) fn add(&mut self, late: Self) {
        let sums = [
            (&mut self.replayed_frames, late.replayed_frames),
            (&mut self.differing_frames, late.differing_frames),
            (&mut self.cut_bytes, late.cut_bytes),
            (&mut self.zero_bytes, late.zero_bytes),
            (&mut self.set_aside_bytes, late.set_aside_bytes),
            (&mut self.sealed_again, late.sealed_again),
            (&mut self.sealed_bytes, late.sealed_bytes),
            (&mut self.findings_left_out, late.findings_left_out),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(more);
        }
        for (row, more) in late.rows {
            let count = self.rows.entry(row).or_default();
            *count = count.saturating_add(more);
        }
        for (phase, more) in late.took.0 {
            let spent = self.took.0.entry(phase).or_default();
            *spent = spent.saturating_add(more);
        }
        let room = FINDINGS_MAX.saturating_sub(self.set_aside.len());
        self.set_aside.extend(late.set_aside.into_iter().take(room));
        for finding in late.findings {
            self.name(finding);
        }
        let lists = [(&mut self.damage, late.damage), (&mut self.unread, late.unread)];
        for (known, more) in lists {
            known.extend(more);
            known.sort_by_key(|range| range.start);
            known.dedup();
        }
    }

    /// Counts a verified frame.
    pub(crate) fn keep_frame(&mut self, bytes: u64) {
        self.kept_frames = self.kept_frames.saturating_add(1);
        self.kept_bytes = self.kept_bytes.saturating_add(bytes);
    }

    /// Counts what went to quarantine.
    pub(crate) fn put_aside(&mut self, aside: Aside) {
        self.set_aside_bytes = self.set_aside_bytes.saturating_add(aside.bytes);
        if self.set_aside.len() < FINDINGS_MAX {
            self.set_aside.push(aside);
        }
    }
}

/// One line, for the log of the process.
impl fmt::Display for LogRecovery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "log {}: {} frames kept", self.log, self.kept_frames)?;
        let counts = [
            (self.cut_bytes, "bytes cut"),
            (self.set_aside_bytes, "bytes set aside"),
            (self.sealed_again, "segments sealed again"),
        ];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(out, ", {count} {what}")?;
        }
        for (ranges, what) in [(&self.damage, "damaged"), (&self.unread, "not given by the disk")] {
            for range in ranges {
                write!(out, ", offsets {}..{} {what}", range.start, range.end)?;
            }
        }
        if let Some(path) = &self.read_only {
            write!(out, ", takes no appends since the end of {} cannot be read", path.display())?;
        }
        for (row, count) in self.rows.iter().filter(|(_, count)| **count > 0) {
            write!(out, "; {row} x{count}")?;
        }
        Ok(())
    }
}

/// Measures the phases of one recovery: always exactly one is running.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    clock: Option<Arc<dyn Clock>>,
    phase: Phase,
    since: u64,
    took: Took,
}

impl Stopwatch {
    pub(crate) fn new(clock: Option<Arc<dyn Clock>>) -> Self {
        let since = clock.as_ref().map_or(0, |clock| clock.micros());
        Self { clock, phase: Phase::List, since, took: Took::default() }
    }

    /// Goes over to `phase` and returns the one that ran until now.
    pub(crate) fn enter(&mut self, phase: Phase) -> Phase {
        let now = self.clock.as_ref().map_or(0, |clock| clock.micros());
        let spent = self.took.0.entry(self.phase).or_default();
        *spent = spent.saturating_add(now.saturating_sub(self.since));
        self.since = now;
        std::mem::replace(&mut self.phase, phase)
    }

    /// What each phase took.
    pub(crate) fn stop(&mut self) -> Took {
        let phase = self.phase;
        self.enter(phase);
        std::mem::take(&mut self.took)
    }
}
