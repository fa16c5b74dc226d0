//! Faults upon real processes: a cluster of `tidelogd` on this machine, under load, and everything that was acknowledged
//! read back from every node.
//!
//! The simulator (`sim/`) plays far more faults, far faster, over the same consensus core. What it leaves out is here: real
//! processes, threads, sockets, certificates, files and time, the client, and a file system under the data
//! directories of which only that survives a power cut which was synced.
//!
//! - [`cluster`] starts processes and ends them; [`network`] stands between them, [`disk`] below them.
//! - [`load`] writes, and puts down in the [`ledger`] what was said of each record.
//! - [`faults`], `members` and `power` do what a [`run`] draws from its seed.
//! - [`returns`] measures how nodes come back: how fast after a kill, and at what cost after a long time away.
//! - [`check`] reads back and compares; [`judge`] says what is wrong; [`report`] tells it.

pub mod check;
pub mod cluster;
pub mod dice;
pub mod disk;
pub mod error;
pub mod faults;
pub mod judge;
pub mod ledger;
pub mod load;
mod members;
pub mod network;
mod power;
pub mod report;
pub mod returns;
pub mod run;
pub mod stage;
