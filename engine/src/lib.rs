//! The segment engine.
pub mod storage;
