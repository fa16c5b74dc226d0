//! Consensus: raft groups over the engine, and the transport between nodes.

pub mod entry;
pub mod outcome;
pub mod core;
pub mod raft_log;
pub mod votes;
