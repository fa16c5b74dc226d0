//! What the bytes of a segment file can be, and why some are no good.

use std::io;
use std::ops::Range;

use tidelog_wire::ids::{Chain, ClusterId, LogId, Offset};

use crate::checkpoint::CheckpointFault;
use crate::segment::LogTag;
use crate::segment::footer::{Footer, FooterFault};
use crate::segment::frame::FrameFault;
use crate::segment::header::{HeaderFault, SegmentHeader};
use crate::segment::summary::Summary;

/// What a range of bytes is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// The segment header; it verifies.
    Header,
    /// Frames that verify, one behind the other.
    Frames {
        /// How many, marks included.
        count: u64,
        /// Their records.
        records: Range<Offset>,
        /// Chain behind the last of them.
        chain: Chain,
    },
    /// Zeros written ahead, which nothing was put into yet.
    Padding,
    /// The sparse index.
    Index {
        /// Its entries.
        entries: u32,
    },
    /// The footer.
    Footer,
    /// What a crash left above the durable mark: nobody was promised it. The next start sets it aside.
    TornTail {
        /// What is wrong with its first bytes.
        why: Why,
    },
    /// Bytes that were once good, or should be here.
    Damage {
        /// What is wrong.
        why: Why,
        /// The records that are lost with them, if any.
        offsets: Option<Range<Offset>>,
    },
    /// Whole and valid, but another's.
    Foreign {
        /// Whose.
        why: Why,
        /// The records that should be here instead, if that is known.
        offsets: Option<Range<Offset>>,
    },
}

impl Label {
    /// One word, as the tools print it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Frames { .. } => "frames",
            Self::Padding => "padding",
            Self::Index { .. } => "index",
            Self::Footer => "footer",
            Self::TornTail { .. } => "torn tail",
            Self::Damage { .. } => "damage",
            Self::Foreign { .. } => "foreign",
        }
    }

    /// Damage or foreign bytes.
    #[must_use]
    pub const fn is_bad(&self) -> bool {
        self.bad().is_some()
    }

    /// What is wrong with damaged or foreign bytes, and the records that are lost with them.
    #[must_use]
    pub const fn bad(&self) -> Option<(&Why, Option<&Range<Offset>>)> {
        match self {
            Self::Damage { why, offsets } | Self::Foreign { why, offsets } => Some((why, offsets.as_ref())),
            Self::Header
            | Self::Frames { .. }
            | Self::Padding
            | Self::Index { .. }
            | Self::Footer
            | Self::TornTail { .. } => None,
        }
    }

    /// The records of frames, and the chain behind them.
    #[must_use]
    pub const fn frames(&self) -> Option<(&Range<Offset>, Chain)> {
        match self {
            Self::Frames { records, chain, .. } => Some((records, *chain)),
            Self::Header
            | Self::Padding
            | Self::Index { .. }
            | Self::Footer
            | Self::TornTail { .. }
            | Self::Damage { .. }
            | Self::Foreign { .. } => None,
        }
    }
}

/// A range of bytes of a file, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which bytes.
    pub bytes: Range<u64>,
    /// What they are.
    pub label: Label,
}

/// Why something is damaged, torn or foreign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The segment header.
    #[error("{0}")]
    Header(HeaderFault),
    /// Bytes that are not the next frame.
    #[error("{0}")]
    Frame(FrameFault),
    /// A frame of this very log, which lies in the wrong place.
    #[error("here lies the frame of offsets {}..{}, which belongs at byte {belongs}", .offsets.start, .offsets.end)]
    Displaced {
        /// Where it would verify.
        belongs: u64,
        /// Its records.
        offsets: Range<Offset>,
    },
    /// Zeros where data was.
    #[error("zeros where frames were")]
    Zeros,
    /// The file ends before its records do.
    #[error("the file ends before its records do")]
    CutShort,
    /// A full segment that has a successor, and no index and footer.
    #[error("no index and footer, though another segment follows")]
    NoFooter,
    /// Index or footer differ from what the frames give.
    #[error("not the index and footer that follow from the frames")]
    Seal,
    /// A segment of another log, base offset or cluster.
    #[error("segment of log {log}, offset {base}, cluster {cluster}, which does not belong here")]
    OtherSegment {
        /// Whose.
        cluster: ClusterId,
        /// Which log.
        log: LogId,
        /// Its first offset.
        base: Offset,
    },
    /// A frame that verifies in this place, of another log.
    #[error("a frame of another log (tag {tag:#010x})")]
    OtherFrame {
        /// Its log's tag.
        tag: u32,
    },
    /// A name that no segment has.
    #[error("its name is not that of a segment")]
    Name,
    /// A segment that is not there.
    #[error("the segment is missing")]
    Missing,
    /// Two segments that claim the same offsets.
    #[error("it begins at offset {base}, though the segment before it goes to {end}")]
    Overlap {
        /// Its first offset.
        base: Offset,
        /// Where the one before it ends.
        end: Offset,
    },
    /// A segment that does not continue the one before it.
    #[error("chain {found} at its start, the segment before it ends with {expected}")]
    ChainBreak {
        /// What the one before it gives.
        expected: u64,
        /// What its header says.
        found: u64,
    },
    /// The files are not those that the checkpoint was made of.
    #[error("the checkpoint has chain {expected} at offset {offset}, the file {}", .found.map_or_else(|| "no such place".to_owned(), |found| found.to_string()))]
    Checkpoint {
        /// Where the checkpoint says the log ended.
        offset: Offset,
        /// Its chain there.
        expected: u64,
        /// The file's.
        found: Option<u64>,
    },
    /// A checkpoint that is not valid.
    #[error("{0}")]
    CheckpointFile(CheckpointFault),
    /// A copy of the identity, or both.
    #[error("{error}")]
    Identity {
        /// What is wrong.
        error: String,
        /// A newer release wrote it.
        is_newer: bool,
    },
    /// The disk does not give it back.
    #[error("cannot be read: {error}; see to the disk, then verify again")]
    Unreadable {
        /// What the system says, with its number.
        error: String,
    },
    /// The same of the segment header.
    #[error("the segment header cannot be read: {error}; see to the disk, then verify again")]
    UnreadableHeader {
        /// What the system says, with its number.
        error: String,
    },
    /// The same of index or footer.
    #[error("index and footer cannot be read: {error}; see to the disk, then verify again")]
    UnreadableSeal {
        /// What the system says, with its number.
        error: String,
    },
    /// A footer that this release cannot judge.
    #[error("{0}")]
    Footer(FooterFault),
    /// A tail that may not be cut: something intact lies behind its first bytes.
    #[error("it does not verify, and intact frames of offsets {}..{} lie behind it: nothing here says whether they were promised, so it is not cut", .behind.start, .behind.end)]
    FramesBehind {
        /// The records of the intact frames.
        behind: Range<Offset>,
    },
    /// A tail that may not be cut: the other copy has frames in its place.
    #[error(
        "it does not verify, and the other copy goes on here up to offset {end}; nothing proves that it is the same history, so it is neither filled nor cut"
    )]
    CopyGoesOn {
        /// Where the other copy ends.
        end: Offset,
    },
}

impl Why {
    /// A read or a listing that the system refused.
    #[must_use]
    pub fn unreadable(error: &io::Error) -> Self {
        Self::Unreadable { error: error.to_string() }
    }

    /// The same fault in bytes that the system refused, with what it said of them.
    pub(super) fn refused(&self, error: String) -> Self {
        if self.is_header() {
            Self::UnreadableHeader { error }
        } else if self.is_seal() {
            Self::UnreadableSeal { error }
        } else {
            Self::Unreadable { error }
        }
    }

    /// Something is wrong with the segment header.
    #[must_use]
    pub const fn is_header(&self) -> bool {
        matches!(self, Self::Header(_) | Self::UnreadableHeader { .. })
    }

    /// Something is wrong with index or footer, or they are not there.
    #[must_use]
    pub const fn is_seal(&self) -> bool {
        matches!(self, Self::Seal | Self::NoFooter | Self::UnreadableSeal { .. })
    }

    /// A tail of which it cannot be known whether it may go. Verifying calls it torn, repairing leaves it.
    #[must_use]
    pub const fn is_undecided(&self) -> bool {
        matches!(self, Self::FramesBehind { .. } | Self::CopyGoesOn { .. })
    }

    /// Of a newer release than this one, which must not touch it.
    #[must_use]
    pub const fn is_newer(&self) -> bool {
        matches!(
            self,
            Self::Header(HeaderFault::UnknownFormat { .. })
                | Self::Frame(FrameFault::UnknownFormat { .. })
                | Self::Footer(FooterFault::UnknownFormat { .. })
                | Self::CheckpointFile(CheckpointFault::UnknownFormat { .. })
                | Self::Identity { is_newer: true, .. }
        )
    }
}

/// Every byte of a segment file, labelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentMap {
    /// Length of the file.
    pub len: u64,
    /// The header, if it verifies.
    pub header: Option<SegmentHeader>,
    /// The footer, if it and the index verify.
    pub footer: Option<Footer>,
    /// All bytes of the file, in order, without gap or overlap.
    pub parts: Vec<Part>,
    /// What should be behind the end of the file and is not; its label is [`Label::Damage`].
    pub lacks: Option<Part>,
    /// Whose the frames are, if anything says so.
    pub tag: Option<LogTag>,
    /// Offset behind the last frame that counts.
    pub end: Offset,
    /// Chain there; `None` if nothing says it.
    pub chain: Option<Chain>,
    /// Whether the frames came through a raft log; `None` without a frame.
    pub consensus: Option<bool>,
    /// All frames summed up, if there is no hole between them.
    pub(crate) whole: Option<Summary>,
}

impl SegmentMap {
    /// Every damaged or foreign part, what the file lacks last.
    pub fn bad(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.label.is_bad()).chain(&self.lacks)
    }

    /// Nothing is damaged, foreign or missing.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.bad().next().is_none()
    }
}
