//! Mending what `verify` names: a plan first, and only on demand the deed.
//!
//! 1. Each file is mended in thought: its header made anew, holes filled from the other copy, index and footer written
//!    from the frames, each as a patch over the file. The patched file is mapped as any other. A patch counts only if that
//!    map has the hole no more and nothing else got worse: then the chain runs from the frames before the hole through the
//!    filled bytes to the frames behind it, and no other bytes could do that.
//! 2. A hole at the end has no frames behind it. It is filled only if the next segment, the file's own footer or a
//!    checkpoint says where the chain must come to.
//! 3. A torn tail is cut only if nothing intact lies behind its first bytes, or if a raft log has all of it. A file that
//!    holds intact frames is set aside only if another one takes its place, or if it is certain whose it is.
//! 4. A segment under a wrong name is put back under its own, if nothing stands there and its neighbours do not contradict.
//! 5. Segments that are missing are taken whole from the other copy, by the same proof at both ends.
//! 6. Doing it: under the lock of the data directory, what a step overwrites, cuts or displaces is copied to quarantine
//!    first, durably. Only bytes that do not verify are written over, so a crash in the midst leaves holes that are found
//!    again; a whole segment is written aside and renamed.
//!
//! Not here: damaged checkpoints and identity, for which the engine has a second copy of each.

mod apply;
mod file;
mod names;
mod patched;
mod plan;
mod torn;

use std::ops::Range;
use std::path::PathBuf;

use tidelog_wire::ids::{LogId, Offset};

use super::error::OfflineError;
use super::verify::Finding;
use crate::directory::lock::LockError;
use crate::directory::quarantine::QuarantineError;

pub use self::apply::repair;
pub use self::plan::plan;

/// One step of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The file that it changes or makes.
    pub path: PathBuf,
    /// Which log that belongs to.
    pub log: Option<LogId>,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes the header anew; the chain of the first frame proves it.
    Header {
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Fills a hole with the same bytes of the other copy.
    Fill {
        /// Which bytes.
        bytes: Range<u64>,
        /// The records that come back.
        offsets: Option<Range<Offset>>,
        /// The other copy's file.
        from: PathBuf,
    },
    /// Writes index and footer as they follow from the frames, and ends the file there.
    Seal {
        /// Where the frames end.
        at: u64,
        /// Index and footer.
        bytes: Vec<u8>,
    },
    /// Cuts a torn tail off.
    CutTail {
        /// Which bytes.
        bytes: Range<u64>,
        /// The records of intact frames among them: a raft log has them, and brings them back at the next start.
        offsets: Option<Range<Offset>>,
    },
    /// Moves the file to quarantine.
    SetAside,
    /// Gives a segment of this log, which a person or a file system renamed, its own name back; nothing stands there.
    Rename {
        /// Where it belongs.
        to: PathBuf,
    },
    /// Puts a segment of the other copy into its place.
    Place {
        /// The other copy's file.
        from: PathBuf,
        /// How many bytes of it.
        len: u64,
        /// The records that come back.
        offsets: Range<Offset>,
    },
}

/// What would mend a target, and what would not be mended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// Damage that stays.
    pub left: Vec<Finding>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The plan, all of it carried out.
    pub plan: Plan,
    /// What lies in quarantine for it, with a note beside each.
    pub backups: Vec<PathBuf>,
}

/// Why nothing, or not all, was mended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// Another process has the data directory. Nothing was changed.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It could not be looked at. Nothing was changed.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The backup failed, so its step was not done; those before it were.
    #[error(transparent)]
    Backup(#[from] QuarantineError),
}
