//! The whole node: from a configuration to a process that serves, and back down.

mod credentials;
mod directory;
mod error;
mod logs;
mod node;
mod notices;
mod ports;
mod renewal;
mod run;
mod signals;

pub use error::ServerError;
pub use run::{Ending, run};

/// A random number, for names that must be unique.
fn random() -> Result<u128, ServerError> {
    crate::random::number().map_err(|source| ServerError::System { action: "draw a random number", source })
}
