//! What the failover benchmark measured.

use std::time::Duration;

use serde::Serialize;

use super::writer::Verdict;
use crate::error::CliError;
use crate::output::Answer;

/// Milliseconds with one decimal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Milliseconds(f64);

impl From<Duration> for Milliseconds {
    fn from(duration: Duration) -> Self {
        Self((duration.as_secs_f64() * 10_000.0).round() / 10.0)
    }
}

/// Measured in one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) rounds: usize,
    /// From the SIGKILL of the leader to the next acknowledged write.
    pub(crate) p50_ms: Milliseconds,
    pub(crate) max_ms: Milliseconds,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) acknowledged: u64,
    pub(crate) load_writers: u32,
    pub(crate) records_per_s: u64,
    /// Every round's failover, in the order of the rounds.
    pub(crate) failovers_ms: Vec<Milliseconds>,
    pub(crate) hand_overs: usize,
    /// The slowest write while nothing was done to the cluster.
    pub(crate) quiet_slowest_ms: Milliseconds,
    /// The slowest write around a hand-over by `transfer-leader`.
    pub(crate) transfer_slowest_ms: Milliseconds,
    /// The slowest write around a graceful stop (SIGTERM) of the leader.
    pub(crate) stop_slowest_ms: Milliseconds,
}

/// What the rounds gave.
pub(crate) struct Measured {
    pub(crate) failovers: Vec<Duration>,
    pub(crate) hand_overs: usize,
    pub(crate) quiet_slowest: Duration,
    pub(crate) transfer_slowest: Duration,
    pub(crate) stop_slowest: Duration,
    pub(crate) took: Duration,
}

impl Report {
    pub(crate) fn new(measured: &Measured, verdict: Verdict, load_writers: u32) -> Self {
        let mut sorted = measured.failovers.clone();
        sorted.sort_unstable();
        let p50 = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default();
        let seconds = measured.took.as_secs().max(1);
        Self {
            rounds: sorted.len(),
            p50_ms: p50.into(),
            max_ms: sorted.last().copied().unwrap_or_default().into(),
            lost: verdict.lost,
            duplicated: verdict.duplicated,
            reordered: verdict.reordered,
            acknowledged: verdict.acknowledged,
            load_writers,
            records_per_s: verdict.acknowledged / seconds,
            failovers_ms: measured.failovers.iter().map(|took| (*took).into()).collect(),
            hand_overs: measured.hand_overs,
            quiet_slowest_ms: measured.quiet_slowest.into(),
            transfer_slowest_ms: measured.transfer_slowest.into(),
            stop_slowest_ms: measured.stop_slowest.into(),
        }
    }

    /// An error if a promise was broken.
    pub(crate) fn verdict(&self) -> Result<(), CliError> {
        if self.lost == 0 && self.duplicated == 0 && self.reordered == 0 {
            return Ok(());
        }
        let broken =
            format!("{} lost, {} duplicated, {} reordered", self.lost, self.duplicated, self.reordered);
        Err(CliError::PromiseBroken { broken })
    }
}

impl Answer for Report {
    fn text(&self) -> String {
        format!(
            "{} kills of the leader: next acknowledged write after {} ms (p50), {} ms (max)\n\
             {} records acknowledged by {} writers ({}/s): {} lost, {} duplicated, {} reordered\n\
             slowest write of {} windows each: {} ms undisturbed, {} ms around a transfer, {} ms around a graceful stop",
            self.rounds,
            self.p50_ms.0,
            self.max_ms.0,
            self.acknowledged,
            self.load_writers + 1,
            self.records_per_s,
            self.lost,
            self.duplicated,
            self.reordered,
            self.hand_overs,
            self.quiet_slowest_ms.0,
            self.transfer_slowest_ms.0,
            self.stop_slowest_ms.0,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_round_that_was_measured() {
        let measured = |milliseconds: &[u64]| Measured {
            failovers: milliseconds.iter().copied().map(Duration::from_millis).collect(),
            hand_overs: 0,
            quiet_slowest: Duration::ZERO,
            transfer_slowest: Duration::ZERO,
            stop_slowest: Duration::ZERO,
            took: Duration::ZERO,
        };
        let report = Report::new(&measured(&[300, 100, 200, 900]), Verdict::default(), 4);
        assert_eq!((report.p50_ms.0, report.max_ms.0, report.rounds), (200.0, 900.0, 4));
        assert!(report.verdict().is_ok());
        let lost = Verdict { lost: 1, ..Verdict::default() };
        let error = Report::new(&measured(&[]), lost, 4).verdict().unwrap_err();
        assert!(error.to_string().contains("1 lost"), "{error}");
    }
}
