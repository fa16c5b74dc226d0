//! Looking at segments without an engine: what every byte of a file is, what is damaged, and mending it.
//!
//! 1. [`find`] says which logs, segments and checkpoints lie at a path: a data directory, part of one, a copy of a log,
//!    or a single file. The data directory around it is looked at too, for what its checkpoints promise.
//! 2. [`map`](fn@map) labels every byte of one file.
//! 3. [`verify`](fn@verify) holds the files of a log against each other and against the checkpoint, and lists what is damaged.
//! 4. [`dump`](fn@dump) reads past damage, [`compare`](fn@compare) finds where two copies part, [`repair`](mod@repair) mends.
//!
//! All but doing a repair takes no lock and opens nothing for writing, so it works beside a running node: what that one is writing just
//! now looks like a torn tail. Frames and footers are read by the engine's own walk; what is torn and what is damage is
//! decided by the rule of recovery (`crate::log::recovery`): below the durable mark it is damage, above it nobody was
//! promised it.
//!
//! Not here: `DATA/raft`, which checks itself; the identity, of which a good copy heals the other at the next start.

mod compare;
mod dump;
mod error;
mod evidence;
mod inspect;
mod judge;
mod label;
mod map;
pub mod repair;
mod target;
mod verify;

pub use self::compare::{Comparison, FrameAt, compare};
pub use self::dump::{Dumped, dump};
pub use self::error::OfflineError;
pub use self::inspect::{Outline, outline};
pub use self::label::{Label, Part, SegmentMap, Why};
pub use self::map::{Context, Detail, Promise, map};
pub use self::target::{Known, LogFiles, SegmentPath, Target, find};
pub use self::verify::{Finding, LogVerdict, NotJudged, Unjudged, Verified, verify, verify_log};
