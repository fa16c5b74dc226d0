//! What travels: the record batch, and the messages of the native protocol.
//!
//! A leaf: it knows no file, no socket and no clock. [`ids`] holds the numbers and names that all
//! other crates speak in.

pub mod batch;
pub mod ids;
pub mod limits;
pub mod murmur2;
pub mod protocol;
pub mod records;
