//! The segment engine.
pub mod os;
pub mod storage;
