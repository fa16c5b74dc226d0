//! The whole node: from a configuration to a process that serves, and back down.

mod credentials;
mod error;
pub mod logs;
mod notices;
mod ports;

pub use error::ServerError;
