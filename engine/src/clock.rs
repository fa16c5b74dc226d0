//! The time that goes by: the engine has no clock, so its caller lends one.

use std::fmt;

/// Tells how much time went by. Used for reports, and to date what is set aside in quarantine.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Microseconds since any fixed moment; never falls.
    fn micros(&self) -> u64;
}
