//! `cargo bench -p tidelog-benches -- engine`: see `tidelog_benches::engine`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidelog_benches::run(tidelog_benches::Bench::Engine, env!("CARGO_TARGET_TMPDIR"))
}
