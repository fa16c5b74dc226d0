//! Soak: an embedded engine over real files, used hard for as long as asked, and held against what it promised.
//!
//! 1. Eight writers append to six logs, with tiny and with normal segments, durably and not; readers follow and verify
//!    every record; chores trim, delete a log and make it again under a new generation, and read whole logs through.
//!    See [`work`].
//! 2. Every few seconds a round ends: after a clean close, by dropping the engine without one, or by SIGKILL. A round that
//!    is killed runs in a process of its own, which tells what it was answered: see [`child`]. After the last two, now and
//!    then, bytes that no one wrote stand behind the last frame of one log. See [`rounds`].
//! 3. The directory is opened again, every log is read from its start and must begin and end where the answers say, and the
//!    next round begins.
//!
//! What a record must be follows from its generation, its writer and its number alone: see [`model`]. Between rounds, when
//! nothing is open, descriptors, memory, threads and bytes on disk are looked at; the rule by which growth is judged is
//! printed with them: see [`samples`].
//!
//! `cargo xtask soak-engine` builds and runs this. Exit codes: 0 nothing found, 1 a violation, or growth, or too few
//! rounds to judge growth (unless `--short` asks for that), 2 asked wrongly.

mod child;
mod clock;
mod model;
mod rounds;
mod samples;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

/// An embedded engine used hard for minutes, and what it promised.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask soak-engine")]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// How long in seconds, instead of minutes.
    #[arg(long)]
    seconds: Option<u64>,
    /// Seconds of each round, after which everything is closed or dropped and opened again.
    #[arg(long, default_value_t = 10)]
    round_seconds: u64,
    /// Decides what each thread does.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Scratch directory, made below this one and removed at the end; kept when something was found.
    #[arg(long, default_value = "target/soak")]
    dir: PathBuf,
    /// Passes though the rounds were too few to judge growth.
    #[arg(long)]
    short: bool,
    /// Prints the outcome as JSON.
    #[arg(long)]
    json: bool,
    /// The data directory in which a child works until it is killed. The soak starts it by itself.
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(data) = &arguments.child {
        if let Err(problem) = child::work(data, arguments.seed) {
            eprintln!("soak-engine: a child: {problem}");
        }
        return ExitCode::FAILURE;
    }
    let length = arguments.seconds.map_or(Duration::from_secs(arguments.minutes * 60), Duration::from_secs);
    let outcome = match rounds::run(&arguments, length) {
        Ok(outcome) => outcome,
        Err(problem) => {
            eprintln!("soak-engine: {problem}");
            return ExitCode::FAILURE;
        }
    };
    if arguments.json {
        println!("{}", outcome.json());
    } else {
        print!("{}", outcome.table());
    }
    if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
