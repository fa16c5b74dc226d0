//! The time that recovery takes: the engine has no clock, so its caller lends one.

use std::fmt;

/// Tells how much time went by. Only ever used for reports; nothing is decided by it.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Microseconds since any fixed moment; never falls.
    fn micros(&self) -> u64;
}
