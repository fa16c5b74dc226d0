//! The consensus core: all replicas of a node as one state machine without I/O.

mod config;
mod error;
mod io;
mod status;

pub use config::{CheckpointFacts, CoreConfig, CoreLimits, EntryId, ReplicaStart, Ticks};
pub use error::{CoreError, HaltReason, MessageRefusal};
pub use io::{
    Answer, ApplyTask, Committed, Compaction, Effects, FetchSnapshot, Halt, Input, InstallSnapshot, Lane,
    LeaderChange, Outgoing, Persist, Proposal, ProposeFailure, Refusal, Reply, SnapshotOffer, Staged, Token,
};
pub use status::{GroupStatus, PeerStatus, Role, SnapshotPhase};
