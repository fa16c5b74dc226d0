//! Measures how nodes come back. `tidelog-returns --help` says how; exit codes: 0 within what is promised, 1 not, 2 usage,
//! 3 this machine does not let it be done.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::ProgressBar;
use tidelog_chaos::returns::{after_kill, catch_up};

/// Exit code of a run that could not be done.
const NOT_DONE: u8 = 3;
/// Within this time a killed node serves again.
const READY_MS_MAX: u128 = 2_000;

/// Measures how nodes come back, on processes of its own.
#[derive(Debug, Parser)]
#[command(name = "tidelog-returns", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Where the nodes lie: a folder that is made, and removed again if all is well.
    #[arg(long, global = true, default_value = ".")]
    dir: PathBuf,
    /// The server program. The one beside this program if it is not given.
    #[arg(long, global = true)]
    tidelogd: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A follower was away while much was written and channels were recreated: what it fetches against what it lacks, and
    /// the memory of all nodes meanwhile.
    CatchUp {
        /// Mebibytes written while it is away.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
        /// Channels deleted and created again meanwhile.
        #[arg(long, default_value_t = 20)]
        channels: u64,
    },
    /// A node that holds much is killed: how long until it serves again.
    AfterKill {
        /// Mebibytes that it holds.
        #[arg(long, default_value_t = 10_240)]
        mib: u64,
        /// How often it is killed.
        #[arg(long, default_value_t = 5)]
        rounds: u64,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match begin(&arguments) {
        Ok((text, true)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok((text, false)) => {
            println!("{text}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(NOT_DONE)
        }
    }
}

/// What to print, and whether all is well.
fn begin(arguments: &Arguments) -> Result<(String, bool), Box<dyn std::error::Error>> {
    let beside = std::env::current_exe()?.with_file_name("tidelogd");
    let server = std::path::absolute(arguments.tidelogd.as_ref().unwrap_or(&beside))?;
    let seed = u64::from(std::process::id());
    let dir = std::path::absolute(&arguments.dir)?.join(format!("returns-{seed}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let progress = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    progress.enable_steady_tick(Duration::from_millis(200));
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = Box::pin(measure(arguments, &server, &dir, seed, &progress)) => outcome,
            _ = tokio::signal::ctrl_c() => Err("interrupted; the nodes are killed".into()),
        }
    });
    progress.finish_and_clear();
    let (text, good) = outcome?;
    if good {
        catch_up::remove(&dir)?;
    }
    Ok((text, good))
}

async fn measure(
    arguments: &Arguments,
    server: &Path,
    dir: &Path,
    seed: u64,
    progress: &ProgressBar,
) -> Result<(String, bool), Box<dyn std::error::Error>> {
    let (server, dir) = (server.to_owned(), dir.to_owned());
    match arguments.what {
        What::CatchUp { mib, channels } => {
            let plan = catch_up::Plan { server, dir, bytes: mib << 20, channels, seed };
            let caught = catch_up::run(&plan, progress).await?;
            let text = if arguments.json { serde_json::to_string(&caught)? } else { caught.text() };
            Ok((text, catch_up::is_good(&caught)))
        }
        What::AfterKill { mib, rounds } => {
            let plan = after_kill::Plan { server, dir, bytes: mib << 20, rounds, seed };
            let restarts = after_kill::run(&plan, progress).await?;
            let text = if arguments.json { serde_json::to_string(&restarts)? } else { restarts.text() };
            Ok((text, restarts.slowest_ms() <= READY_MS_MAX))
        }
    }
}
