//! Apply: turns committed entries into logs and catalogue, the same on every replica.
pub mod catalogue;
pub mod catalogue_bytes;
pub mod channel;
mod closed;
pub mod reconcile;
