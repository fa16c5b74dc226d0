//! The runtime: threads that carry out what the core decides.
//!
//! ```text
//!  clients ─submit─► the core's desk ──persist──► log writer ──Persisted──┐
//!  peers ──message─►  (raft_thread)  ◄─────────────────────────────────────┤
//!                     │   │  └──apply──► apply's desk ──Applied────────────┤
//!                     │   └──messages──► transport   └─checkpoint─► keeper
//!                     └── answers, statuses
//! ```
//!
//! - The **core** (`raft_thread`) is worked by whoever brings it something (`desk`), and by a thread of its own at each tick.
//!   It never waits for a disk, a peer or another thread, so heartbeats do not either. Messages go out while the log
//!   writer writes.
//! - The **log writer** (`writer`) makes one batch and one sync of all that waits, votes last.
//! - **Apply** (`apply_desk`, `apply_thread`) writes committed batches into segments, without a sync, and tells proposers their
//!   outcomes: small ones where they became committed, the rest on a thread of its own.
//! - The **keeper** (`keeper`) syncs segments, writes checkpoints, compacts the raft log.
//!
//! A start (`start`) recovers in this order: engine, raft log, unfinished installations, checkpoints,
//! machines, votes, core. A replica that cannot vouch for its log does not start and says why; the
//! others do. When something fails that would make promises worthless, the process ends (`fatal`).
//!
//! Two tasks run beside the threads: `register` keeps the node in the catalogue, and `membership` does what turns
//! intent into fact: replicas begin and end (`replicas`), members change, groups report. What a node has to say to the
//! leader of the meta group it asks (`asks`).
//!
//! Not here: consensus itself (`crate::core`), what entries mean (`crate::apply`), bytes on the wire
//! (`crate::transport`).

mod apply_desk;
mod apply_thread;
mod asks;
mod board;
mod clock;
mod config;
mod desk;
mod disk_use;
mod echo;
mod ending;
mod fatal;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handle;
mod keeper;
mod locks;
mod mailbox;
mod membership;
#[cfg(test)]
mod one_log;
#[cfg(test)]
mod one_node;
mod pace;
mod peers;
mod raft_thread;
mod register;
mod replicas;
mod snapshots;
mod start;
#[cfg(test)]
mod tests;
mod waiters;
mod writer;

pub use clock::{Clock, SystemClock};
pub use config::{Addresses, GivenUp, NodeConfig, NodeTuning, Start, StartError};
pub use fatal::Fatal;
pub use handle::{NodeHandle, Readiness};
pub use pace::CheckpointPace;
pub use register::NewLife;
pub use start::{Disk, Found, Node};
pub use waiters::ProposeError;
