//! One state, named so that it can be made again: `WORKLOAD/POINT/CHOICE`, and for a crash of the recovery
//! from it `WORKLOAD/POINT/CHOICE/POINT/CHOICE`.

use std::fmt;
use std::str::FromStr;

use crate::judge;
use crate::recorder::LeftOut;
use crate::scenario::{Broken, Scenario};
use crate::states::Choice;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The workload.
    pub workload: String,
    /// After how many of its operations it crashed.
    pub point: usize,
    /// How.
    pub choice: Choice,
    /// After how many of the recovery's operations that crashed, and how.
    pub again: Option<(usize, Choice)>,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}", self.workload, self.point, self.choice)?;
        match &self.again {
            None => Ok(()),
            Some((point, choice)) => write!(out, "/{point}/{choice}"),
        }
    }
}

impl FromStr for State {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no state: expected WORKLOAD/POINT/CHOICE[/POINT/CHOICE]");
        let point = |text: &str| text.parse().map_err(|_| wrong());
        let parts: Vec<&str> = text.split('/').collect();
        let (workload, first, choice, again) = match parts.as_slice() {
            [workload, first, choice] => (*workload, *first, *choice, None),
            [workload, first, choice, second, again] => {
                (*workload, *first, *choice, Some((point(second)?, again.parse()?)))
            }
            _ => return Err(wrong()),
        };
        Ok(Self { workload: workload.to_owned(), point: point(first)?, choice: choice.parse()?, again })
    }
}

/// What a replayed state shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The last operations before the crash, in words, oldest first.
    pub operations: Vec<String>,
    /// The files that the crash left, with their lengths.
    pub files: Vec<String>,
    /// The promise that was not kept, if one was not.
    pub broken: Option<Broken>,
}

/// How many operations before the crash are told.
const TOLD: usize = 12;

impl State {
    /// Makes the state again and judges it.
    ///
    /// # Errors
    /// [`Broken`] if the workload does not run, or has no such point.
    pub fn replay<S: Scenario>(&self, scenario: &S, left_out: LeftOut) -> Result<Replayed, Broken> {
        let trace = judge::record(scenario, left_out)?;
        let promise = trace.promised(self.point).ok_or_else(|| Broken("nothing was promised".to_owned()))?;
        let disk = trace.disk_at(self.point).map_err(Broken::by("do the operations again"))?;
        let crashed = self.choice.crash(&disk);
        let told = |trace: &dyn Fn(usize) -> String, point: usize| {
            (point.saturating_sub(TOLD).saturating_add(1)..=point)
                .map(|number| format!("{number:>5}  {}", trace(number)))
                .collect()
        };
        let (operations, crashed, broken) = match &self.again {
            None => {
                let broken = judge::judge(scenario, &crashed, promise).err();
                (told(&|number| trace.describe(number), self.point), crashed, broken)
            }
            Some((point, choice)) => {
                let recovery = judge::record_recovery(scenario, &crashed, promise, left_out)?;
                let promise =
                    recovery.promised(*point).ok_or_else(|| Broken("nothing was promised".to_owned()))?;
                let disk = recovery.disk_at(*point).map_err(Broken::by("do the recovery again"))?;
                let twice = choice.crash(&disk);
                let broken = judge::opens(scenario, &twice, promise).err();
                (told(&|number| recovery.describe(number), *point), twice, broken)
            }
        };
        let storage = crashed.storage();
        let files = crashed.files().into_iter().map(|path| {
            let len =
                storage.open(&path, tidelog_engine::storage::OpenMode::Read).and_then(|file| file.len());
            let len = len.map_or_else(|error| error.to_string(), |len| format!("{len} bytes"));
            format!("{}: {len}", path.display())
        });
        Ok(Replayed { operations, files: files.collect(), broken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_as_it_is_shown() {
        for text in ["rolls/17/lose", "raft/3/told=0.1/9/seed=4"] {
            assert_eq!(text.parse::<State>().unwrap().to_string(), text);
        }
        assert!("rolls/x/lose".parse::<State>().is_err());
        assert!("rolls/3".parse::<State>().is_err());
    }
}
