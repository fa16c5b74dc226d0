//! Does faults to a cluster of real processes. `tidelog-chaos --help` says how; exit codes: 0 all promises kept, 1 one was
//! broken or a kind of fault was left out, 2 usage, 3 this machine does not let it be done.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::ProgressBar;
use rustix::rand::{GetRandomFlags, getrandom};
use tidelog_chaos::faults::Fault;
use tidelog_chaos::report::Report;
use tidelog_chaos::run::{Plan, run};
use tokio::signal::unix::{SignalKind, signal};

/// What is said when somebody ends the run.
const INTERRUPTED: &str = "interrupted; the nodes are killed and the disks unmounted";
/// Exit code of a run that could not be done.
const NOT_DONE: u8 = 3;

/// Does faults to a cluster of real processes under load, and reads back everything that was acknowledged.
#[derive(Debug, Parser)]
#[command(name = "tidelog-chaos", version)]
struct Arguments {
    /// For how long faults are done. From 10 on, a kind that was never done is an error.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Draws the same faults as the run that printed it. Drawn by chance if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Where the clusters lie: a folder that is made, and removed again if all is well.
    #[arg(long)]
    dir: PathBuf,
    /// The server program. The one beside this program if it is not given.
    #[arg(long)]
    tidelogd: Option<PathBuf>,
    /// Records that each of the five writers sends every 20 ms.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1000))]
    burst: u64,
    /// Disks answer every sync as done and do not carry it out: this run must find a broken promise, or it finds nothing ever.
    #[arg(long)]
    skip_syncs: bool,
    /// Kinds of faults that are left out.
    #[arg(long, value_delimiter = ',', value_name = "FAULT,...")]
    without: Vec<Fault>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.05..=1440.0).contains(&minutes) { Ok(minutes) } else { Err("0.05 to 1440 minutes".to_owned()) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match begin(&arguments) {
        Ok(report) => {
            let json = || serde_json::to_string(&report).unwrap_or_default();
            let text = if arguments.json { json() } else { report.text() };
            println!("{text}");
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(NOT_DONE)
        }
    }
}

fn begin(arguments: &Arguments) -> Result<Report, Box<dyn std::error::Error>> {
    let mut random = [0; 4];
    getrandom(&mut random, GetRandomFlags::empty())?;
    let seed = arguments.seed.unwrap_or_else(|| u32::from_le_bytes(random).into());
    let beside = std::env::current_exe()?.with_file_name("tidelogd");
    let server = std::path::absolute(arguments.tidelogd.as_ref().unwrap_or(&beside))?;
    let dir = std::path::absolute(&arguments.dir)?.join(format!("seed-{seed}-{}", std::process::id()));
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let Arguments { burst, skip_syncs, json: quiet, .. } = *arguments;
    let without = arguments.without.clone();
    let plan = Plan { seed, time, server, dir, burst, skip_syncs, without, quiet };
    eprintln!("seed {seed}, below {}", plan.dir.display());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let progress = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    progress.enable_steady_tick(Duration::from_millis(200));
    let played = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            report = Box::pin(run(&plan, &progress)) => report.map_err(Box::<dyn std::error::Error>::from),
            _ = tokio::signal::ctrl_c() => Err(INTERRUPTED.into()),
            _ = terminated.recv() => Err(INTERRUPTED.into()),
        }
    });
    progress.finish_and_clear();
    let report = played?;
    if report.is_good() {
        plan.remove()?;
    }
    Ok(report)
}
