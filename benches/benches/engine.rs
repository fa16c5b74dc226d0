//! `cargo bench -p tidelog-benches -- engine`: see `tidelog_benches::engine`.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts allocations, which an append should have none of.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    tidelog_benches::run(tidelog_benches::Bench::Engine, env!("CARGO_TARGET_TMPDIR"))
}
