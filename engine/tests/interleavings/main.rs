//! Races of the engine's threads, each tried in many orders.
//!
//! Every lock of the engine and of its simulated disk is shuttle's here, so at each of them a scheduler
//! decides who goes on: at random, or with few and well-placed preemptions (PCT), which finds most bugs
//! sooner. A scenario checks what holds at every step, and when its threads are done what must be left.
//! Threads that wait for ever are found by themselves.
//!
//! ```text
//! cargo xtask interleavings --iterations 20000
//! cargo xtask interleavings --scenario readers-and-trims --schedule 9102...
//! ```
//! The second repeats the order that a failure printed.

#[cfg(test)]
mod appends;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod run;
#[cfg(test)]
mod stage;
#[cfg(test)]
#[path = "../scenarios/world.rs"]
#[expect(dead_code, reason = "the scenarios use more of it")]
mod world;

#[cfg(test)]
fn main() -> std::process::ExitCode {
    run::all(std::env::args().skip(1))
}
