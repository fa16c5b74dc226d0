//! Crash enumeration: states that a crash may leave, all or a sample, and what recovery makes of each.
//!
//! 1. A [`scenario::Scenario`] runs over a [`recorder::Recorder`], which takes every file operation down and
//!    between them what the workload has been promised (acknowledged, recorded, removed).
//! 2. [`states`] plays the operations up to each point onto a simulated disk and goes through the states
//!    that a crash may leave there: exhaustively where they are few, else the systematic ones (one
//!    thing lost, one thing kept) and a seeded sample. What is legal is the simulated disk's own
//!    knowledge, `tidelog_engine::sim_disk`: there is one model of a disk, and the simulation uses it too.
//! 3. [`judge`] opens each state as a new process would and holds it to the promise, opens it again, goes
//!    on with it, cuts the power again; for some it records the recovery itself and does the same to it.
//! 4. [`run`] spreads the points over threads and adds up. Nothing depends on how the threads took turns.
//!
//! Not here: the faults that are no crash (the engine's tests inject those), time, the network (`sim`).

pub mod judge;
pub mod raft_files;
pub mod recorder;
pub mod replay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod states;
pub mod trace;
pub mod workloads;
