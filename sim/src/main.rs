//! Plays simulations by seed. `tidelog-sim --help` says how; exit codes: 0 all promises kept, 1 one was
//! broken, 2 usage.

use std::io::Write;
use std::ops::RangeInclusive;
use std::process::ExitCode;

use clap::Parser;
use tidelog_sim::run::{Summary, play, play_all};
use tidelog_sim::settings::Defect;

/// Plays the whole cluster, with every fault, from a seed.
#[derive(Debug, Parser)]
#[command(name = "tidelog-sim", version)]
struct Arguments {
    /// Seeds to play, `A..B`, both included.
    #[arg(long, value_parser = seeds, default_value = "1..500", conflicts_with = "seed")]
    seeds: RangeInclusive<u64>,
    /// One seed to play.
    #[arg(long)]
    seed: Option<u64>,
    /// Print everything that happens in it.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Play with a deliberate defect, which must be caught (needs a build with the feature `defects`).
    #[arg(long, value_parser = defect)]
    defect: Option<Defect>,
}

fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let wrong = || format!("`{text}` is not a range of seeds: write A..B, both included, such as 1..500");
    let (first, last) = text.split_once("..").ok_or_else(wrong)?;
    let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first <= last { Ok(first..=last) } else { Err(wrong()) }
}

fn defect(text: &str) -> Result<Defect, String> {
    if !cfg!(feature = "defects") {
        return Err("this build has no defects: build with `--features defects`".to_owned());
    }
    let known = || Defect::ALL.map(Defect::name).join(", ");
    Defect::ALL
        .into_iter()
        .find(|defect| defect.name() == text)
        .ok_or_else(|| format!("`{text}` is not a defect: choose one of {}", known()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    let done = match arguments.seed {
        Some(seed) => one(seed, &arguments, &mut out),
        None => many(&arguments, &mut out),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::from(1),
    }
}

fn one(seed: u64, arguments: &Arguments, out: &mut impl Write) -> std::io::Result<bool> {
    let report = play(seed, arguments.defect, arguments.trace);
    for line in &report.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "seed {seed}: trace {:016x}, {:?}", report.trace_hash, report.counts)?;
    match &report.violation {
        None => writeln!(out, "seed {seed}: all promises kept")?,
        Some(violation) => writeln!(out, "seed {seed}: BROKEN: {violation}")?,
    }
    Ok(report.violation.is_none())
}

fn many(arguments: &Arguments, out: &mut impl Write) -> std::io::Result<bool> {
    let began = now();
    let summary = play_all(&arguments.seeds, arguments.defect, arguments.threads);
    let seconds = now().duration_since(began).as_secs_f64();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
    } else {
        print(&summary, seconds, out)?;
    }
    for seed in summary.violations.keys().take(5) {
        let (feature, defect) = arguments.defect.map_or((String::new(), String::new()), |defect| {
            (" --features defects".to_owned(), format!(" --defect {}", defect.name()))
        });
        let command = format!("cargo run -p tidelog-sim --release{feature} -- --seed {seed} --trace{defect}");
        if !arguments.json {
            writeln!(out, "play it again: {command}")?;
        }
    }
    Ok(summary.violations.is_empty())
}

fn print(summary: &Summary, seconds: f64, out: &mut impl Write) -> std::io::Result<()> {
    let Summary { first, last, played, .. } = summary;
    let rate = f64::from(u32::try_from(*played).unwrap_or(u32::MAX)) / seconds.max(0.001);
    writeln!(out, "seeds {first}..{last}: {played} played in {seconds:.1} s, {rate:.1} a second")?;
    writeln!(
        out,
        "{} batches acknowledged, {} leaders, {} checkpoints, {} snapshots, {} events, traces {:016x}",
        summary.acknowledged,
        summary.leaders,
        summary.checkpoints,
        summary.snapshots,
        summary.events,
        summary.trace_hash
    )?;
    let faults: Vec<String> = summary.faults.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    writeln!(
        out,
        "faults: {}; crashes {}, messages lost {}, repeated {}",
        faults.join(", "),
        summary.crashes,
        summary.lost,
        summary.repeated
    )?;
    writeln!(out, "violations: {}", summary.violations.len())?;
    for (seed, violation) in &summary.violations {
        writeln!(out, "seed {seed}: BROKEN: {violation}")?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "only the rate of seeds is measured; runs have their own time")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
