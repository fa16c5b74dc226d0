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
//! already, sealed or begun, is not sent again, and what it lacks is sent by any node that has it. A leader that
//! dies in the middle, or a segment that rotted on one disk, costs a retry from another node.
//!
//! # Bounds
//! | what | bound |
//! |---|---|
//! | memory of the fetching node | one manifest a group (at most 256 MiB), pieces of 256 KiB |
//! | memory of a serving node | one manifest a group; 128 KiB for each transfer, and what quinn's windows hold |
//! | transfers at once | `bulk_served_max` served by a node, `bulk_fetched_max` fetched from one |
//! | rate | `bulk_bytes_per_second` of all that a node serves |
//! | disk of the fetching node | the bytes that it lacks, and the begun segments; refused before the first byte if 64 MiB would not stay free |
//! | disk of the offering node | what the pin of an export keeps: 60 s without a fetch, an hour in all |
//! | time | 10 s without a byte, then the next node; five rounds through all that bring nothing, then a new offer |
//! | what an abandoned fetch leaves | its staged files, for ten minutes; no pin and no slot |
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
mod reuse;
mod sources;
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
pub use staging::{discard_staged, staged_groups};
