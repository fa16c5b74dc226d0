//! **Exactly-once for idempotent producers**: each batch stands once in its log, and a producer's batches in the order of
//! their sequences, however often they were sent.
//!
//! What KIP-98 promises for idempotent producers. It is told where batches stand: by reads, and by acknowledgements.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, Offset, ProducerId};

use super::Violation;
use super::history::Read;

const PROPERTY: &str = "exactly-once for idempotent producers";

/// Where each producer's batches stand.
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    /// First and last offset, by sequence.
    places: BTreeMap<(LogId, ProducerId), BTreeMap<i32, (Offset, Offset)>>,
}

impl ExactlyOnce {
    /// The batch stands there in `log`.
    ///
    /// # Errors
    /// It stands elsewhere too, or out of order.
    pub fn stands(&mut self, log: LogId, read: &Read) -> Result<(), Violation> {
        let Some(name) = read.name else { return Ok(()) };
        let places = self.places.entry((log, name.producer)).or_default();
        let place = *places.entry(name.sequence).or_insert((read.first, read.last));
        if place != (read.first, read.last) {
            return Err(Violation::of(
                PROPERTY,
                format!("log {log}: {name:?} stands at {} and at {}", place.0, read.first),
            ));
        }
        let before = places.range(..name.sequence).next_back().filter(|(_, before)| before.1 >= read.first);
        let behind = places
            .range(name.sequence.saturating_add(1)..)
            .next()
            .filter(|(_, behind)| behind.0 <= read.last);
        match before.or(behind) {
            None => Ok(()),
            Some((sequence, other)) => Err(Violation::of(
                PROPERTY,
                format!(
                    "log {log}: {name:?} stands at {}..={}, sequence {sequence} at {}..={}",
                    read.first, read.last, other.0, other.1
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::super::history::example;
    use super::*;

    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    #[test]
    fn a_batch_that_stands_twice_is_a_violation() {
        let mut checker = ExactlyOnce::default();
        assert_eq!(checker.stands(LOG, &example(1, 0, 0, 3)), Ok(()));
        assert_eq!(checker.stands(LOG, &example(1, 0, 0, 3)), Ok(()), "read again");
        assert_eq!(checker.stands(LOG, &example(2, 0, 4, 5)), Ok(()), "another producer");
        assert!(checker.stands(LOG, &example(1, 0, 6, 9)).is_err());
    }

    #[test]
    fn a_batch_before_its_predecessor_is_a_violation() {
        let mut checker = ExactlyOnce::default();
        assert_eq!(checker.stands(LOG, &example(1, 4, 10, 13)), Ok(()));
        assert!(checker.stands(LOG, &example(1, 0, 14, 17)).is_err());
        assert!(checker.stands(LOG, &example(1, 8, 6, 9)).is_err());
    }
}
