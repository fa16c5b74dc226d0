//! Snapshots: how a replica whose missing entries are gone everywhere else gets the state instead.
//!
//! ```text
//! leader: raft wants to send what it has compacted away
//!   core: Effects::exports → build_manifest of the newest checkpoint, files pinned → Exports::offer
//!   core: Input::SnapshotExported → raft sends the manifest's digest and length, nothing else
//! follower: the offer arrives; raft does not see it yet
//!   core: Effects::fetches → Fetcher: manifest, then missing files, over bulk streams, into staging
//!   core: Input::SnapshotStaged → now raft sees the offer and begins anew behind it
//!   core: the install mark in the persist of that step, then Effects::installs → install
//!   core: Input::SnapshotInstalled → the answer leaves, and the leader sends what comes after
//! ```
//! raft throws away its log and members the moment it sees a snapshot. So everything is fetched and
//! verified before that, and from the mark on the switch is redone over any crash. At any moment a
//! restart finds the whole old state, or a mark and everything it takes to reach the new one.
//!
//! Segments are byte-identical on all replicas, so a snapshot is a list of files: what the follower has
//! already, sealed or begun, is not sent again. Only the node that made an offer serves it so far.
//!
//! Not here: when raft needs a snapshot ([`crate::core`]), the streams ([`crate::transport`]), segments
//! and checkpoints themselves (the engine).

mod error;
mod export;
mod fetch;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod install;
mod manifest;
mod request;
mod staging;
mod verify;

#[cfg(test)]
mod tests;

pub use error::SnapshotError;
pub use export::{ExportLimits, Exports, build_manifest};
pub use fetch::{Ended, FetchLimits, Fetcher, Next, StagedSnapshot};
pub use install::{Adopter, Switch, install};
pub use manifest::{LogFiles, Manifest, ManifestFault, SegmentFile, digest};
pub use request::{SnapshotPart, SnapshotRequest};
