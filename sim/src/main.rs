//! Plays simulations by seed. `tidelog-sim --help` says how. Exit codes: 0 everything held, 1 a property was broken (or, in
//! the museum, a defect was not caught), 2 usage, 3 everything held, but something that should happen never did.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::process::ExitCode;

use clap::Parser;
use tidelog_sim::museum::{self, Defect};
use tidelog_sim::run::{Summary, play, play_all};
use tidelog_sim::settings;

/// From this many seeds on, everything that is counted must have happened.
const FULL_RUN_SEEDS: u64 = 2_000;
/// Failing seeds that are told how to play again.
const TOLD_MAX: usize = 5;

/// Plays the whole cluster, with every fault, from a seed.
#[derive(Debug, Parser)]
#[command(name = "tidelog-sim", version)]
struct Arguments {
    /// Seeds to play, `A..B`, both included. In 2000 and more grown ones everything that is counted must happen.
    #[arg(long, value_parser = seeds, default_value = "1..500", conflicts_with_all = ["seed", "museum"])]
    seeds: RangeInclusive<u64>,
    /// One seed to play.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens in it.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Play each deliberate defect until it is caught (needs a build with the feature `defects`).
    #[arg(long, conflicts_with_all = ["seed", "defect"])]
    museum: bool,
    /// Clusters of 1 to 7 nodes, which come and go, lose disks and raft logs. Without it 1 or 3 nodes, which stay.
    #[arg(long)]
    grown: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Play with a deliberate defect (needs a build with the feature `defects`).
    #[arg(long, value_parser = defect)]
    defect: Option<Defect>,
}

/// How it ended.
enum End {
    Held,
    Broken,
    NotCovered,
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || format!("`{text}` is not a range of seeds: write A..B, both included, such as 1..500");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first <= last { Ok(first..=last) } else { Err(wrong()) }
}

fn defect(text: &str) -> Result<Defect, String> {
    if Defect::ALL.is_empty() {
        return Err("this build has no defects: build with `--features defects`".to_owned());
    }
    let known = || Defect::ALL.map(museum::name).join(", ");
    Defect::ALL
        .into_iter()
        .find(|defect| museum::name(*defect) == text)
        .ok_or_else(|| format!("`{text}` is not a defect: choose one of {}", known()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.grown {
        settings::grow();
    }
    let mut out = io::stdout().lock();
    let done = match arguments.seed {
        Some(seed) => one(seed, &arguments, &mut out),
        None if arguments.museum => visit(&arguments, &mut out),
        None => many(&arguments, &mut out),
    };
    match done {
        Ok(End::Held) => ExitCode::SUCCESS,
        Ok(End::Broken) | Err(_) => ExitCode::from(1),
        Ok(End::NotCovered) => ExitCode::from(3),
    }
}

fn one(seed: u64, arguments: &Arguments, out: &mut impl Write) -> io::Result<End> {
    let report = play(seed, arguments.defect, arguments.trace);
    for line in &report.lines {
        writeln!(out, "{line}")?;
    }
    let counts = &report.counts;
    for (name, count) in counts.coverage.by_name().into_iter().filter(|(_, count)| *count > 0) {
        writeln!(out, "{name:32} {count}")?;
    }
    let hash = report.trace_hash;
    writeln!(out, "seed {seed}: trace {hash:016x}, {} events, {} crashes", counts.events, counts.crashes)?;
    match &report.violation {
        None => writeln!(out, "seed {seed}: everything held")?,
        Some(violation) => writeln!(out, "seed {seed}: BROKEN: {violation}")?,
    }
    Ok(if report.violation.is_none() { End::Held } else { End::Broken })
}

fn many(arguments: &Arguments, out: &mut impl Write) -> io::Result<End> {
    let began = now();
    let summary = play_all(&arguments.seeds, arguments.defect, arguments.threads);
    let seconds = now().duration_since(began).as_secs_f64();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&summary.view(seconds))?)?;
    } else {
        print(&summary, seconds, out)?;
    }
    for seed in summary.violations.keys().take(TOLD_MAX).filter(|_| !arguments.json) {
        let (feature, defect) = arguments.defect.map_or((String::new(), String::new()), |defect| {
            (" --features defects".to_owned(), format!(" --defect {}", museum::name(defect)))
        });
        writeln!(
            out,
            "play it again: cargo run -p tidelog-sim --release{feature} -- --seed {seed} --trace{defect}"
        )?;
    }
    let never = summary.coverage.never();
    if !summary.violations.is_empty() {
        return Ok(End::Broken);
    }
    if arguments.grown && summary.played >= FULL_RUN_SEEDS && !never.is_empty() {
        if !arguments.json {
            writeln!(out, "in {} seeds these never happened: {}", summary.played, never.join(", "))?;
        }
        return Ok(End::NotCovered);
    }
    Ok(End::Held)
}

fn print(summary: &Summary, seconds: f64, out: &mut impl Write) -> io::Result<()> {
    for (name, count) in summary.coverage.by_name() {
        writeln!(out, "{name:32} {count}")?;
    }
    let Summary { first, last, played, events, crashes, .. } = summary;
    let rate = summary.rate(seconds);
    writeln!(out, "seeds {first}..{last}: {played} played in {seconds:.1} s, {rate:.1} seeds a second")?;
    writeln!(out, "{events} events, {crashes} crashes, traces {:016x}", summary.trace_hash)?;
    writeln!(out, "violations: {}", summary.violations.len())?;
    for (seed, violation) in &summary.violations {
        writeln!(out, "seed {seed}: BROKEN: {violation}")?;
    }
    Ok(())
}

fn visit(arguments: &Arguments, out: &mut impl Write) -> io::Result<End> {
    if Defect::ALL.is_empty() {
        writeln!(out, "the museum is empty: build with `--features defects`")?;
        return Ok(End::Broken);
    }
    let mut catches = Vec::new();
    for defect in Defect::ALL {
        let catch = museum::visit(defect, arguments.threads);
        if !arguments.json {
            match (catch.after, catch.checker) {
                (Some(after), Some(checker)) => {
                    writeln!(out, "{:22} caught after {after:3} seeds by {checker}", catch.defect)?;
                }
                _ => writeln!(out, "{:22} NOT CAUGHT within {} seeds", catch.defect, museum::SEEDS_MAX)?,
            }
            out.flush()?;
        }
        catches.push(catch);
    }
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&catches)?)?;
    }
    Ok(if catches.iter().all(|catch| catch.after.is_some()) { End::Held } else { End::Broken })
}

#[expect(clippy::disallowed_methods, reason = "only the rate of seeds is measured; runs have their own time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
