//! `cargo xtask`: the gate, and the other chores of the project.
//!
//! `verify` is the gate and the only list of its steps; `.ci/run` runs it. Every step is a command of
//! its own too, so that a failing one is repeated alone. What a step needs and the machine lacks is
//! installed below the target directory, never into the user's home.
//!
//! Nothing here is part of the product: no crate depends on this one.

mod fuzzing;
mod gate;
mod programs;
mod steps;
mod tidy;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::programs::{Failure, Workspace};

/// The gate and the other chores of tidelog.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

/// What can be asked for.
#[derive(Subcommand)]
enum Chore {
    /// The whole gate: every step below except `demo`, `chaos`, `catch-up`, `after-kill` and `soak-engine`, with a table of times at the end.
    Verify,
    /// The formatting is rustfmt's.
    Format,
    /// Rules of the tree that no compiler checks: file length, names, unreachable files, error pages, layers.
    Tidy {
        /// Writes what can be derived before checking: the index of the error pages.
        #[arg(long)]
        mend: bool,
    },
    /// Licences, banned crates and sources of all dependencies, by cargo-deny.
    Deny,
    /// Clippy on every target of the workspace; a warning is an error.
    Clippy,
    /// The documentation of every crate builds; a broken link is an error.
    Docs,
    /// Builds the programs, then runs every test of the workspace.
    Test,
    /// A batch of simulation seeds, with the programs of the test build.
    Simulation {
        /// Seeds to run, both ends included.
        #[arg(long, default_value = steps::GATE_SEEDS)]
        seeds: String,
    },
    /// The races of the engine's threads, in many orders: `--iterations N` of each scenario and scheduler,
    /// `--scenario NAME` for one of them, and with `--schedule S` the one order that a failure printed.
    Interleavings {
        /// Passed on to the test.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Every state that a crash may leave at each point of some workloads, each recovered and held to its
    /// promises. See docs/crash-states.md.
    CrashStates {
        /// The smaller batch, which is part of the gate.
        #[arg(long)]
        quick: bool,
        /// Passed on to `tidelog-crash-states`, such as `--replay STATE` or `--json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds that are broken on purpose: says after how many seeds the simulation catches each, and which checker does.
    Museum,
    /// Each fuzz target for a while, with a table of executions at the end.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = steps::GATE_FUZZ_SECONDS)]
        seconds: u32,
        /// Only this one.
        #[arg(long)]
        target: Option<String>,
    },
    /// The embedded engine used hard over real files: no violation, no growth. 30 minutes unless told otherwise.
    SoakEngine {
        /// Passed on to the soak: `--minutes`, `--round-seconds`, `--seed`, `--short`, `--json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Faults upon a cluster of real processes under load: kills, pauses, partitions, power cuts. See docs/chaos.md.
    Chaos {
        /// With the programs of the test build, which are there already when the gate has run its tests.
        #[arg(long)]
        dev: bool,
        /// Passed on: `--minutes M`, `--seed S`, `--json`, and what `tidelog-chaos --help` tells.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Release programs: what a follower fetches that was away for a gibibyte, and the memory of all nodes meanwhile.
    CatchUp {
        /// Passed on: `--mib N`, `--channels N`, `--json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Release programs: how long a killed node with 10 GiB takes until it serves again.
    AfterKill {
        /// Passed on: `--mib N`, `--rounds N`, `--json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds the release programs and shows a cluster losing its leader under a real stream.
    Demo {
        /// Passed on to `tidelog demo`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<(), Failure> {
    let workspace = Workspace::find()?;
    match chore {
        Chore::Verify => gate::run(&workspace, &steps::gate()),
        Chore::Format => steps::format(&workspace),
        Chore::Tidy { mend } => steps::tidy(&workspace, mend),
        Chore::Deny => steps::deny(&workspace),
        Chore::Clippy => steps::clippy(&workspace),
        Chore::Docs => steps::docs(&workspace),
        Chore::Test => steps::test(&workspace),
        Chore::Simulation { seeds } => steps::simulation(&workspace, &seeds),
        Chore::Interleavings { arguments } => steps::interleavings(&workspace, &arguments),
        Chore::CrashStates { quick, arguments } => steps::crash_states(&workspace, quick, &arguments),
        Chore::Museum => steps::museum(&workspace),
        Chore::Fuzz { seconds, target } => steps::fuzz(&workspace, seconds, target.as_deref()),
        Chore::SoakEngine { arguments } => steps::soak_engine(&workspace, &arguments),
        Chore::Chaos { dev, arguments } => steps::chaos(&workspace, dev, &arguments),
        Chore::CatchUp { arguments } => steps::returns(&workspace, "catch-up", &arguments),
        Chore::AfterKill { arguments } => steps::returns(&workspace, "after-kill", &arguments),
        Chore::Demo { arguments } => steps::demo(&workspace, &arguments),
    }
}
