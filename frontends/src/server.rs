//! The whole node: from a configuration to a process that serves, and back down.

pub mod logs;
mod ports;
