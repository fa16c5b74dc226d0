//! When acknowledgements came, and how long they stayed away when the leader died.
//!
//! An answer that the dying leader had sent may still arrive after it was killed. So the failover is not taken from the
//! first acknowledgement after the kill, but from the longest pause that ends after it: it cannot come out too short.

use std::time::Duration;

/// Times since the start of the stream.
#[derive(Debug, Default)]
pub(crate) struct AckTimes {
    times: Vec<Duration>,
}

/// How long the stream stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failover {
    /// From the last acknowledgement before the pause to the first one after it.
    pub(crate) pause: Duration,
    /// From the kill to that first one.
    pub(crate) since_kill: Duration,
}

impl AckTimes {
    pub(crate) fn acknowledged(&mut self, at: Duration) {
        self.times.push(at);
    }

    /// The pause around the kill; none if nothing was acknowledged before it or after it.
    pub(crate) fn failover(&self, killed: Duration) -> Option<Failover> {
        let pairs = self.times.windows(2).filter_map(|pair| match pair {
            [before, after] if *after > killed => Some((*before, *after)),
            _ => None,
        });
        let (before, after) = pairs.max_by_key(|(before, after)| after.saturating_sub(*before))?;
        Some(Failover { pause: after.saturating_sub(before), since_kill: after.saturating_sub(killed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(milliseconds: &[u64]) -> AckTimes {
        AckTimes { times: milliseconds.iter().copied().map(Duration::from_millis).collect() }
    }

    #[test]
    fn the_pause_around_the_kill_is_found() {
        let failover = times(&[10, 20, 30, 430, 440]).failover(Duration::from_millis(35)).unwrap();
        assert_eq!(failover.pause, Duration::from_millis(400));
        assert_eq!(failover.since_kill, Duration::from_millis(395));
    }

    /// The answer at 36 ms was on its way when the leader died; it ends no pause.
    #[test]
    fn an_answer_that_was_on_its_way_does_not_shorten_the_failover() {
        let failover = times(&[10, 20, 30, 36, 430, 440]).failover(Duration::from_millis(35)).unwrap();
        assert_eq!(failover.since_kill, Duration::from_millis(395));
    }

    #[test]
    fn without_acknowledgements_on_both_sides_there_is_no_failover() {
        assert_eq!(times(&[10, 20]).failover(Duration::from_millis(35)), None);
        assert_eq!(times(&[]).failover(Duration::ZERO), None);
    }
}
