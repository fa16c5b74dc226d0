//! The whole cluster in one thread, with every fault.
//!
//! A seed is a run. It decides the size of things, the weather, which faults strike and when
//! ([`settings`]); the real core, machines, engine and raft log run on simulated disks and a simulated
//! network in virtual time ([`world`]); oracles look at everything ([`oracle`]). The same seed gives
//! the same trace, so a failure is played again as often as it takes to understand it.
//!
//! What it does not play, and so cannot find: the transport's bytes, threads, the operating system.

mod batches;
mod carry;
pub mod chance;
mod clients;
pub mod coverage;
mod faults;
mod finish;
mod members;
pub mod museum;
pub mod network;
pub mod node;
mod operator;
pub mod oracle;
pub mod protocol;
pub mod run;
pub mod schedule;
mod serve;
pub mod settings;
mod snapshots;
pub mod trace;
mod witness;
pub mod world;
