//! `tidelog bench`: what the promise costs, measured on a cluster of its own.
//!
//! Each benchmark starts what it needs below a temporary directory, stops it again, and prints what it measured in this
//! run. Nothing is judged here but the promise: a benchmark that finds a record lost or doubled fails.

mod failover;

use clap::Subcommand;

use crate::error::CliError;
use crate::output::Output;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// From the SIGKILL of a leader to the next acknowledged write, on a loaded cluster of three.
    ///
    /// Kills the leader of the measured channel once a round while other channels are written too, starts the node again
    /// between rounds, then hands leadership over gracefully a few times, and at last reads everything that was acknowledged
    /// back. Exits with 1 if a record is lost, doubled or out of order.
    Failover(failover::Failover),
}

/// Runs one benchmark.
pub(crate) async fn run(bench: Bench, output: &Output) -> Result<(), CliError> {
    match bench {
        Bench::Failover(failover) => Box::pin(failover::run(failover, output)).await,
    }
}
