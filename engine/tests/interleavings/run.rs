//! Which scenarios are run, how often and in which orders.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, Runner};

use crate::{appends, lives, opening, reading};

/// Orders of each scenario and each kind of scheduler, unless told otherwise.
const ITERATIONS: usize = 100;

/// Preemptions that PCT places.
const PREEMPTIONS: usize = 3;

/// Every scenario by its name.
const SCENARIOS: &[(&str, fn())] = &[
    ("group-commit", appends::group_commit),
    ("group-commit-whose-sync-fails", appends::group_commit_whose_sync_fails),
    ("sync-jobs-and-rolls", appends::sync_jobs_and_rolls),
    ("trims-and-checkpoints", appends::trims_and_checkpoints),
    ("tailing-readers", reading::tailing_readers),
    ("readers-and-trims", reading::readers_and_trims),
    ("an-index-while-it-grows", reading::an_index_while_it_grows),
    ("verification-and-trims", reading::verification_and_trims),
    ("removed-while-read", lives::removed_while_read),
    ("removed-while-opened", lives::removed_while_opened),
    ("removed-while-trimmed", lives::removed_while_trimmed),
    ("opened-while-trimmed", lives::opened_while_trimmed),
    ("first-looks-and-trims", lives::first_looks_and_trims),
    ("closed-and-reopened", lives::closed_and_reopened),
    ("two-open-at-once", lives::two_open_at_once),
    ("overlapping-openings", opening::overlapping_openings),
    ("callbacks-that-ask-back", appends::callbacks_that_ask_back),
];

/// What the command line asks for.
#[derive(Default)]
struct Wish {
    iterations: Option<usize>,
    scenario: Option<String>,
    schedule: Option<String>,
    seed: u64,
}

impl Wish {
    fn of(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wish = Self::default();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{name}: {value} is not a number"));
            match name.as_str() {
                "--iterations" => {
                    wish.iterations = Some(usize::try_from(number()?).map_err(|error| error.to_string())?);
                }
                "--seed" => wish.seed = number()?,
                "--scenario" => wish.scenario = Some(value),
                "--schedule" => wish.schedule = Some(value),
                _ => return Err(format!("{name}: not known")),
            }
        }
        Ok(wish)
    }
}

/// Runs what is asked for; says for each scenario how many orders were tried.
pub(crate) fn all(arguments: impl Iterator<Item = String>) -> ExitCode {
    let wish = match Wish::of(arguments) {
        Ok(wish) => wish,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<_> = SCENARIOS
        .iter()
        .filter(|(name, _)| wish.scenario.as_ref().is_none_or(|wanted| wanted == name))
        .collect();
    if chosen.is_empty() || (wish.schedule.is_some() && chosen.len() != 1) {
        let names: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
        eprintln!("name one scenario of: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let mut failed = Vec::new();
    for (name, scenario) in chosen {
        match catch_unwind(AssertUnwindSafe(|| run(*scenario, &wish))) {
            Ok(orders) => println!("{name}: {orders} orders"),
            Err(_) => failed.push(*name),
        }
    }
    for name in &failed {
        println!("{name}: FAILED: repeat with --scenario {name} --schedule and the schedule above");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(scenario: fn(), wish: &Wish) -> usize {
    if let Some(schedule) = &wish.schedule {
        return Runner::new(ReplayScheduler::new_from_encoded(schedule), config()).run(scenario);
    }
    let iterations = wish.iterations.unwrap_or(ITERATIONS);
    let random = RandomScheduler::new_from_seed(wish.seed, iterations);
    let pct = PctScheduler::new_from_seed(wish.seed, PREEMPTIONS, iterations);
    Runner::new(random, config()).run(scenario) + Runner::new(pct, config()).run(scenario)
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = 512 << 10;
    // It says of weak orderings that it does not know them; the engine's only lock-free flag guards nothing else.
    config.silence_warnings = true;
    config
}
