//! `tidelog bench`: what the promise costs, measured on a cluster of its own.
//!
//! Each benchmark starts what it needs below a temporary directory, stops it again, and prints what it measured in this
//! run. Nothing is judged here but the promise: a benchmark that finds a record lost or doubled fails.

mod append;
mod channels;
mod failover;

use std::path::Path;

use clap::Subcommand;

use crate::error::CliError;
use crate::output::Output;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Latency and rate of acknowledged appends, beside the floors of this machine measured in the same run.
    ///
    /// Makes a cluster of its own in a temporary directory, or uses the one that --profile names. The floors are a write
    /// with fdatasync of the same bytes on the same file system, and echoes of 1 KiB from client to node and from node to node.
    /// The targets for 1 KiB and one client: p50 at most 1.4 times the sum of all three floors with three nodes, 1.25 times
    /// sync and client echo with one.
    Append(append::Append),
    /// What many channels cost: how fast they are made, memory of the nodes, and processor time while nobody uses any.
    Channels(channels::Channels),
    /// From the SIGKILL of a leader to the next acknowledged write, on a loaded cluster of three.
    ///
    /// Kills the leader of the measured channel once a round while other channels are written too, starts the node again
    /// between rounds, then hands leadership over gracefully a few times, and at last reads everything that was acknowledged
    /// back. Exits with 1 if a record is lost, doubled or out of order.
    Failover(failover::Failover),
}

/// Runs one benchmark.
pub(crate) async fn run(bench: Bench, profile: Option<&Path>, output: &Output) -> Result<(), CliError> {
    match bench {
        Bench::Append(append) => Box::pin(append::run(append, profile, output)).await,
        Bench::Channels(channels) => Box::pin(channels::run(channels, output)).await,
        Bench::Failover(failover) => Box::pin(failover::run(failover, output)).await,
    }
}
