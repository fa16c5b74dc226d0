//! The states that a crash may leave at one point, each named by a choice that makes it again.

use std::fmt;
use std::str::FromStr;

use tidelog_engine::sim_disk::{Crash, SimDisk, next_path};

/// One way to crash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// Everything unsynced is lost.
    Lose,
    /// The simulated disk is told, choice by choice.
    Told(Vec<u32>),
    /// A seed decides.
    Seed(u64),
    /// Only the process dies; the cache stays, and nothing more than before is durable.
    Process,
}

impl Choice {
    /// `disk` after this crash; `disk` itself stays as it is.
    #[must_use]
    pub fn crash(&self, disk: &SimDisk) -> SimDisk {
        let crashed = disk.fork();
        match self {
            Self::Lose => crashed.crash(Crash::LoseUnsynced),
            Self::Told(path) => drop(crashed.crash_choosing(path)),
            Self::Seed(seed) => crashed.crash(Crash::PowerCut { seed: *seed }),
            Self::Process => crashed.crash(Crash::ProcessOnly),
        }
        crashed
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lose => out.write_str("lose"),
            Self::Seed(seed) => write!(out, "seed={seed}"),
            Self::Process => out.write_str("process"),
            Self::Told(path) => {
                let path: Vec<String> = path.iter().map(u32::to_string).collect();
                write!(out, "told={}", path.join("."))
            }
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no crash: expected lose, process, seed=NUMBER or told=0.1.0");
        match text.split_once('=') {
            None if text == "lose" => Ok(Self::Lose),
            None if text == "process" => Ok(Self::Process),
            Some(("seed", seed)) => seed.parse().map(Self::Seed).map_err(|_| wrong()),
            Some(("told", "")) => Ok(Self::Told(Vec::new())),
            Some(("told", path)) => {
                let path: Result<_, _> = path.split('.').map(str::parse).collect();
                path.map(Self::Told).map_err(|_| wrong())
            }
            None | Some(_) => Err(wrong()),
        }
    }
}

/// How many states to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// A point with at most this many states is gone through exhaustively.
    pub exhaustive: u64,
    /// At any other, at most this many of the systematic states: one thing lost, one thing kept.
    pub systematic: usize,
    /// And this many seeds.
    pub seeds: u64,
}

impl Effort {
    /// So many times as many.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self {
            exhaustive: self.exhaustive.saturating_mul(times.into()),
            systematic: self.systematic.saturating_mul(usize::try_from(times).unwrap_or(usize::MAX)),
            seeds: self.seeds.saturating_mul(times.into()),
        }
    }
}

/// The crashes to try at a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Each of them.
    pub all: Vec<Choice>,
    /// Whether they make every state that there is.
    pub exhaustive: bool,
}

/// The power cuts to try on `disk`. `seed` tells one point's sample from another's.
#[must_use]
pub fn choices(disk: &SimDisk, effort: Effort, seed: u64) -> Choices {
    let first = disk.fork().crash_choosing(&[]);
    let ways = first.iter().fold(1_u64, |ways, decision| ways.saturating_mul(decision.of.into()));
    if ways <= effort.exhaustive
        && let Some(all) = every_path(disk, effort.exhaustive.saturating_mul(4))
    {
        return Choices { all, exhaustive: true };
    }
    let mut all = vec![Choice::Lose, Choice::Told(Vec::new())];
    // Of many things those are taken that lie evenly among them.
    let step = first.len().saturating_mul(2).div_ceil(effort.systematic.max(1)).max(1);
    for at in (0..first.len()).step_by(step) {
        let lost = |other: usize, of: u32| if other == at { of.saturating_sub(1) } else { 0 };
        let kept = |other: usize, of: u32| if other == at { 0 } else { of.saturating_sub(1) };
        let path = |choose: &dyn Fn(usize, u32) -> u32| {
            first.iter().enumerate().map(|(other, decision)| choose(other, decision.of)).collect()
        };
        all.push(Choice::Told(path(&lost)));
        all.push(Choice::Told(path(&kept)));
    }
    all.extend((0..effort.seeds).map(|number| Choice::Seed(seed.wrapping_add(number))));
    Choices { all, exhaustive: false }
}

/// Every path, unless there are more than `limit`.
fn every_path(disk: &SimDisk, limit: u64) -> Option<Vec<Choice>> {
    let mut all = Vec::new();
    let mut path = Vec::new();
    for _ in 0..limit {
        let taken = disk.fork().crash_choosing(&path);
        all.push(Choice::Told(path));
        path = match next_path(&taken) {
            Some(next) => next,
            None => return Some(all),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_back_as_it_is_shown() {
        for choice in [
            Choice::Lose,
            Choice::Process,
            Choice::Seed(7),
            Choice::Told(vec![]),
            Choice::Told(vec![0, 3, 1]),
        ] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
        assert!("told=0.x".parse::<Choice>().is_err());
        assert!("gone".parse::<Choice>().is_err());
    }
}
