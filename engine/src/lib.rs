//! The segment engine.
pub mod os;
pub mod sim_disk;
pub mod storage;
