//! The consensus core: all replicas of a node as one state machine without I/O.
//!
//! `(state, input) -> effects as data`: [`NodeCore`] takes an [`Input`] (a tick, a message, a proposal,
//! "this is durable", "that is applied") and returns [`Effects`] (messages, things to persist, entries
//! to apply, replies). A thin runtime carries them out; the simulator carries them out otherwise. The
//! only thing the core does itself is to read the raft log when raft demands entries older than memory.
//!
//! The way of an entry: [`Input::Propose`] at the leader → raft → [`Effects::persists`] and, at the
//! same time, [`Effects::sends`] → [`Input::Persisted`] here, answers from there → a quorum is durable →
//! [`Effects::applies`], with the token that the proposer gave.
//!
//! | file | holds |
//! |---|---|
//! | `node` | the door: inputs to replicas, effects collected |
//! | `replica` | one replica: raft and what stands around it |
//! | `ready` | what raft wants done, and **what may leave when** |
//! | `incoming` | a snapshot on its way in |
//! | `members`, `change` | who belongs to a group, the entries that change it, and making them |
//! | `quiet`, `pace` | groups in which nothing happens, disks that are slow |
//! | `offer` | a snapshot on its way out |
//! | `check` | what a peer's message must satisfy before raft sees it, as a table |
//! | `start` | evidence of lost memory, before raft exists |
//! | `store`, `tail`, `terms` | what raft reads: memory first, never an error it would die of |
//! | `tokens`, `reads` | who waits for which entry or round |
//! | `timeouts` | the only place that sets election timeouts |
//!
//! Not here: what entries mean ([`crate::apply`]), how effects are carried out, the files of
//! a snapshot ([`crate::snapshot`]), who should belong to a group (`crate::placement`).

mod change;
mod check;
mod config;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod incoming;
mod io;
mod logging;
mod members;
mod node;
mod offer;
mod pace;
mod quiet;
mod reads;
mod ready;
mod replica;
mod start;
mod status;
mod store;
mod tail;
mod terms;
mod timeouts;
mod tokens;

#[cfg(test)]
mod tests;

pub use tidelog_engine::checkpoint::{EntryId, Members};

pub(crate) use check::MANIFEST_BYTES_MAX;
pub use config::{CheckpointFacts, CoreConfig, CoreLimits, ReplicaStart, Ticks};
pub use error::{CoreError, HaltReason, MessageRefusal};
pub use io::{
    Answer, ApplyTask, Committed, Compaction, Effects, ExportRequest, FetchSnapshot, Halt, Input,
    InstallSnapshot, Lane, LeaderChange, Outgoing, Persist, Proposal, ProposeFailure, Refusal, Reply,
    SnapshotOffer, Staged, Token,
};
pub use members::{ChangeRefusal, MemberChange};
pub use node::NodeCore;
pub use status::{GroupStatus, PeerStatus, Role, SnapshotPhase};
