//! `cargo bench -p tidelog-benches -- cluster`: see `tidelog_benches::cluster`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidelog_benches::run(tidelog_benches::Bench::Cluster, env!("CARGO_TARGET_TMPDIR"))
}
