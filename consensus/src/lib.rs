//! Consensus: raft groups over the engine, and the transport between nodes.

pub mod apply;
pub mod core;
#[cfg(feature = "defects")]
pub mod defects;
pub mod entry;
pub mod metrics;
pub mod outcome;
pub mod placement;
pub mod raft_log;
pub mod recover;
pub mod runtime;
pub mod snapshot;
pub mod transport;
pub mod votes;
