//! A disk whose power can be cut, under the data directory of a real process.
//!
//! 1. `mount` puts a file system of ours where the data directory is: the kernel hands every operation of the
//!    process to it.
//! 2. `tree` gives the kernel numbers for the names of a [`SimDisk`](tidelog_engine::storage::sim_disk::SimDisk), which
//!    carries the operations out. That is the disk on which the engine's tests and the simulator run: it keeps what was
//!    synced apart from what was not.
//! 3. At the cut the disk stops between two operations, the process is killed, and of what was not synced each piece is
//!    lost, torn or kept as a seed says: sectors of data, lengths, creations, renames, removals. What is left is mounted
//!    again.
//!
//! Why a test through the kernel, when the simulator has that disk already: here the whole program runs on it, with
//! raft-engine's own way to open and write files, and with every sync that the program really makes.
//!
//! Not here: what a cut leaves (`tidelog_engine::storage::sim_disk`), and when it comes (`crate::power`).

mod mount;
mod tree;

pub use mount::{Disk, MountError};
