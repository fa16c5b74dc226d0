//! A cluster on this machine: some `tidelogd` processes on loopback, with TLS, below one directory.
//!
//! ```text
//! D/cluster.toml     what the cluster is: written last, so its presence means that all below is there
//! D/client.toml      profile for the online commands
//! D/lock             held by the command at work here
//! D/tls/             authority and certificates
//! D/node-0/          config.toml, data/, log, process.toml
//! ```
//! A node's process is known by its number *and* its start time, so that a number which the system has given to
//! another process meanwhile is never signalled. See `process`.
//!
//! Nothing here knows what a node keeps in its data directory, and no directory is ever removed.

mod bring;
mod change;
mod layout;
mod ports;
mod process;
mod ready;
#[cfg(test)]
mod tests;

pub(crate) use bring::{Stopped, restart_node, start, stop};
pub(crate) use change::{NewNode, add_node, begun_node, end_node, make_node, replace_node};
pub(crate) use layout::{Layout, Shape};
pub(crate) use process::Ending;
