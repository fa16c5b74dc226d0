//! What a run tells: what was done to the cluster, how often, and what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::check::Checked;
use crate::faults::Fault;

/// What came of one kind of fault.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Done {
    /// How often it was done.
    pub times: u64,
    /// The longest time that any log was without an acknowledgement, from its beginning until the cluster was whole again.
    pub longest_pause_ms: u64,
    /// The longest time from its beginning until the cluster was whole again.
    pub longest_ms: u64,
}

/// Records, by what was said about them.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Records {
    /// Durable, it was said.
    pub acknowledged: u64,
    /// Not in the log and never to be, it was said.
    pub refused: u64,
    /// Nobody said anything.
    pub unknown: u64,
}

/// What a run tells.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Draws the same faults again.
    pub seed: u64,
    /// How long it took.
    pub seconds: u64,
    /// What was done.
    pub faults: BTreeMap<Fault, Done>,
    /// Kinds that were not done at all.
    pub not_done: BTreeSet<Fault>,
    /// Whether that is an error: the run was long enough for all.
    pub all_demanded: bool,
    /// What was sent.
    pub records: Records,
    /// How often a channel was created under a name that an ended one had.
    pub recreated: u64,
    /// Disks of which a power cut took something that was written and not synced.
    pub disks_that_lost: u64,
    /// Datagrams between nodes that were sent on, and that were lost on purpose.
    pub datagrams: (u64, u64),
    /// What was looked at, and what was wrong.
    pub checked: Checked,
    /// Where everything lies, if anything was wrong.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// A run that has not begun.
    #[must_use]
    pub fn new(seed: u64, kinds: &[Fault]) -> Self {
        Self {
            seed,
            seconds: 0,
            faults: BTreeMap::new(),
            not_done: kinds.iter().copied().collect(),
            all_demanded: false,
            records: Records::default(),
            recreated: 0,
            disks_that_lost: 0,
            datagrams: (0, 0),
            checked: Checked::default(),
            kept: None,
        }
    }

    /// A fault was done.
    pub fn done(&mut self, fault: Fault, took: Duration, pause: Duration) {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.not_done.remove(&fault);
        let done = self.faults.entry(fault).or_default();
        done.times += 1;
        done.longest_ms = done.longest_ms.max(ms(took));
        done.longest_pause_ms = done.longest_pause_ms.max(ms(pause));
    }

    /// Whether every promise was kept, and everything that was to be done was.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let covered = (self.not_done.is_empty() && self.disks_that_lost > 0) || !self.all_demanded;
        self.checked.violations.is_empty() && covered && self.records.acknowledged > 0
    }

    /// For a person.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text =
            format!("\n{:<16} {:>5} {:>18} {:>12}\n", "fault", "times", "longest pause, ms", "longest, ms");
        for (fault, done) in &self.faults {
            let (name, Done { times, longest_pause_ms, longest_ms }) = (named(*fault), done);
            text.push_str(&format!("{name:<16} {times:>5} {longest_pause_ms:>18} {longest_ms:>12}\n"));
        }
        let Records { acknowledged, refused, unknown } = self.records;
        let Checked { logs, replicas, records, files, violations } = &self.checked;
        let (recreated, (sent_on, lost)) = (self.recreated, self.datagrams);
        text.push_str(&format!(
            "\nacknowledged   {acknowledged} records ({refused} refused, {unknown} of unknown outcome)\n\
             recreated      a channel {recreated} times\n\
             power cuts     took something unsynced of {} disks\n\
             datagrams      {sent_on} between nodes, {lost} more lost on purpose\n\
             read back      {records} records of {replicas} replicas of {logs} logs\n\
             compared       {files} segment files\n",
            self.disks_that_lost
        ));
        if !self.not_done.is_empty() {
            let kinds: Vec<String> = self.not_done.iter().map(|fault| named(*fault)).collect();
            text.push_str(&format!("not done       {}\n", kinds.join(", ")));
        }
        for violation in violations {
            text.push_str(&format!("BROKEN: {violation}\n"));
        }
        if let Some(kept) = &self.kept {
            text.push_str(&format!("kept           {}\n", kept.display()));
        }
        let verdict = if self.is_good() { "all promises kept" } else { "NOT GOOD" };
        text.push_str(&format!("seed {}, {} s: {verdict}\n", self.seed, self.seconds));
        text
    }
}

/// The kind's name, as in JSON.
fn named(fault: Fault) -> String {
    let json = serde_json::to_string(&fault).unwrap_or_default();
    json.trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(7, &[Fault::Kill, Fault::Pause]);
        report.records.acknowledged = 5;
        report.done(Fault::Kill, Duration::from_millis(30), Duration::from_millis(20));
        report.done(Fault::Kill, Duration::from_millis(20), Duration::from_millis(25));
        report
    }

    #[test]
    fn what_was_done_is_counted_with_the_longest_of_each() {
        let report = report();
        let done = report.faults[&Fault::Kill];
        assert_eq!((done.times, done.longest_ms, done.longest_pause_ms), (2, 30, 25));
        assert!(report.text().contains("not done       pause"), "{}", report.text());
    }

    #[test]
    fn a_violation_a_kind_left_out_and_a_load_without_records_are_not_good() {
        let mut good = report();
        assert!(good.is_good(), "a short run need not do everything");
        good.all_demanded = true;
        assert!(!good.is_good());
        good.done(Fault::Pause, Duration::ZERO, Duration::ZERO);
        assert!(!good.is_good(), "power cuts that take nothing show nothing");
        good.disks_that_lost = 1;
        assert!(good.is_good());
        let mut empty = good.clone();
        empty.records.acknowledged = 0;
        assert!(!empty.is_good());
        good.checked.violations.push("log 1/0: chains differ".to_owned());
        assert!(!good.is_good());
        assert!(good.text().contains("BROKEN: log 1/0: chains differ"), "{}", good.text());
    }
}
