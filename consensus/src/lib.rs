//! Consensus: raft groups over the engine, and the transport between nodes.
