//! The segment engine: partition logs that survive whatever a crash or a disk does.
//!
//! A log is a row of segment files; a segment is a header, frames around Kafka record batches, and
//! once sealed an index and a footer. Everything that is needed to read a segment is in it.
//!
//! What it never knows: the network, async, a raft library, a clock. Time comes in with each batch,
//! files through [`storage::Storage`]. It never aborts a process: it fences a log and says so.
//!
//! Begin with [`Engine::format`], [`Engine::open`] and [`Engine::open_shared`]; the crate's README
//! shows them in use.

pub mod checkpoint;
pub mod clock;
mod core;
mod directory;
pub mod embedded;
mod engine;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod locks;
pub mod log;
pub mod offline;
pub mod producers;
mod report;
pub mod segment;
pub mod storage;
pub mod transfer;

#[cfg(feature = "defects")]
pub use self::core::Defects;
pub use self::core::Mode;
pub use self::directory::keep::Pin;
pub use self::directory::room::DiskRoom;
pub use self::directory::{identity, lock, quarantine};
pub use self::engine::{Engine, NewIdentity, OPEN_FILES_DEFAULT, OpenError, Options, RESERVE_BYTES_DEFAULT};
pub use self::log::opening;
pub use self::log::opening::{LogToOpen, OpenProgress, Progress};
pub use self::report::file as report_file;
pub use self::report::{DirectoryFinding, RecoveryCounts, RecoveryReport};
pub use self::storage::{os, sim_disk};

/// The program in the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
