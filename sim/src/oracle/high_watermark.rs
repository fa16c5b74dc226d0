//! **Linearizable high watermark**: a current read sees at least what was acknowledged, and what another current read
//! had seen, before it was asked for.
//!
//! Linearizability (M. Herlihy and J. Wing, 1990) of the one value that all readers of a log share, as read-index is to
//! give it (Ongaro's thesis, 2014, section 6.4). It is told of acknowledgements and of current reads, when they are
//! asked for and when they are answered.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, NodeId, Offset};

use super::Violation;

/// How far clients know each log to be committed.
#[derive(Debug, Default)]
pub struct HighWatermark {
    known: BTreeMap<LogId, Offset>,
}

impl HighWatermark {
    /// What a current read that is asked for now must see.
    #[must_use]
    pub fn asked(&self, log: LogId) -> Offset {
        self.known.get(&log).copied().unwrap_or(Offset(0))
    }

    /// A client was told that everything below `end` is committed.
    pub fn told(&mut self, log: LogId, end: Offset) {
        let known = self.known.entry(log).or_insert(end);
        *known = end.max(*known);
    }

    /// A current read that had to see `least` saw `end`.
    ///
    /// # Errors
    /// It saw less.
    pub fn answered(
        &mut self,
        node: NodeId,
        log: LogId,
        least: Offset,
        end: Offset,
    ) -> Result<(), Violation> {
        if end >= least {
            self.told(log, end);
            return Ok(());
        }
        Err(Violation::of(
            "linearizable high watermark",
            format!("log {log}: a current read on node {node} saw {end}, but {least} was known before it"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    #[test]
    fn a_current_read_that_sees_less_than_was_known_is_a_violation() {
        let mut checker = HighWatermark::default();
        assert_eq!(checker.answered(NodeId(0), LOG, checker.asked(LOG), Offset(3)), Ok(()));
        checker.told(LOG, Offset(5));
        let least = checker.asked(LOG);
        assert_eq!(least, Offset(5));
        assert!(checker.answered(NodeId(1), LOG, least, Offset(4)).is_err(), "acknowledged");
        assert_eq!(checker.answered(NodeId(1), LOG, least, Offset(7)), Ok(()));
        assert!(checker.answered(NodeId(0), LOG, checker.asked(LOG), Offset(6)).is_err(), "seen");
    }
}
