//! The engine seen from outside: what a caller was promised, held against what it gets back.

mod append_and_read;
mod checkpoints;
mod crash_enumeration;
mod embedded;
mod power_cuts;
mod recovery_under_consensus;
mod snapshots;
mod world;
