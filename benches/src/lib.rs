//! Benchmarks, each beside the floor of the machine it runs on.
//!
//! A figure alone says little: the disk has a fast state and a slow one, and the processors are
//! shared. So each operation of tidelog's takes turns with the bare operations it is made of, in the
//! same run: the same bytes written to a prefilled file and synced, the same bytes sent to and fro
//! over the same transport. What is printed is both, and the ratio.
//!
//! - `engine_append`: an embedded log's durable append against the raw write and sync.
//! - `acknowledged_append`: a client's acknowledged append, on one node and on three, against the
//!   raw write and sync plus the echoes that the way of a record needs.
//!
//! Not here: targets. The figures are those of the machine they were measured on.

pub mod batches;
pub mod cluster;
pub mod disk_floor;
pub mod echo;
pub mod latency;

/// Whatever went wrong; a benchmark then stops.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The sizes of batch that are measured, in bytes.
pub const BATCH_BYTES: [usize; 2] = [1 << 10, 64 << 10];

/// Whether this run is only to show that the benchmark works, as `cargo test --benches` asks.
#[must_use]
pub fn is_trial() -> bool {
    std::env::args().any(|argument| argument == "--test" || argument == "--trial")
}
