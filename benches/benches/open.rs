//! `cargo bench -p tidelog-benches -- open`: see `tidelog_benches::open`.

use std::alloc::System;
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts the memory that open logs hold.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    tidelog_benches::run(tidelog_benches::Bench::Open, env!("CARGO_TARGET_TMPDIR"))
}
