//! Whether one replica of a log holds what it must, and nothing that it must not: pure, over what was read back.
//!
//! | finding | what was seen |
//! |---|---|
//! | lost | a record was acknowledged and is not there |
//! | displaced | it is there, at another offset than was acknowledged |
//! | duplicated | it is there twice |
//! | reordered | a writer's record stands behind a later one of the same writer |
//! | of another life | it was written for another generation of the channel |
//! | never sent | no writer wrote it, or a value cannot be read |
//! | refused, and there | its producer was told that it is not in the log |
//! | a gap | offsets do not follow one another |

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, Offset};

use crate::ledger::{Ledger, Written};

/// Examples of each kind that are kept.
const EXAMPLES_MAX: usize = 3;

/// A broken promise, of one kind, in one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// By the table above.
    pub kind: &'static str,
    /// How often.
    pub count: u64,
    /// The first few.
    pub examples: Vec<String>,
}

/// Takes a replica's records one after the other.
#[derive(Debug)]
pub struct Judge<'a> {
    log: LogId,
    ledger: &'a Ledger,
    seen: BTreeMap<Written, Offset>,
    /// The last number of each writer so far.
    last: BTreeMap<u64, u64>,
    next: Offset,
    findings: Vec<Finding>,
}

impl<'a> Judge<'a> {
    /// Begins at the log's first offset.
    #[must_use]
    pub const fn new(log: LogId, ledger: &'a Ledger) -> Self {
        Self {
            log,
            ledger,
            seen: BTreeMap::new(),
            last: BTreeMap::new(),
            next: Offset::ZERO,
            findings: Vec::new(),
        }
    }

    fn find(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        let index = self.findings.iter().position(|finding| finding.kind == kind).unwrap_or_else(|| {
            self.findings.push(Finding { kind, count: 0, examples: Vec::new() });
            self.findings.len().saturating_sub(1)
        });
        if let Some(finding) = self.findings.get_mut(index) {
            finding.count = finding.count.saturating_add(1);
            if finding.examples.len() < EXAMPLES_MAX {
                finding.examples.push(example());
            }
        }
    }

    /// The next record of the replica.
    pub fn record(&mut self, offset: Offset, value: &[u8]) {
        if offset != self.next {
            let expected = self.next;
            self.find("a gap", || format!("offset {expected} expected, {offset} found"));
        }
        self.next = Offset(offset.get().saturating_add(1));
        let Some((stands_for, written)) = Written::read(value) else {
            let shown: String = String::from_utf8_lossy(value).chars().take(60).collect();
            return self.find("never sent", || format!("offset {offset}: {shown:?}"));
        };
        let Written { writer, number } = written;
        let at = || format!("offset {offset}: record {number} of writer {writer}");
        match self.ledger.generation_of(written) {
            None => return self.find("never sent", at),
            Some(generation) if generation != self.log.generation || stands_for != generation => {
                return self
                    .find("of another life", || format!("{}, written for generation {generation}", at()));
            }
            Some(_) => {}
        }
        if self.ledger.was_refused(written) {
            self.find("refused, and there", at);
        }
        if let Some(before) = self.seen.get(&written).copied() {
            return self.find("duplicated", || format!("{} is at offset {before} too", at()));
        }
        self.seen.insert(written, offset);
        let last = self.last.insert(writer, number);
        if let Some(last) = last.filter(|last| *last > number) {
            self.find("reordered", || format!("{}, behind record {last}", at()));
        }
    }

    /// The end of what was read: what is missing, and everything found.
    #[must_use]
    pub fn finish(mut self) -> Vec<Finding> {
        for (offset, written) in self.ledger.acknowledged_in(self.log) {
            let Written { writer, number } = written;
            match self.seen.get(&written).copied() {
                None => self.find("lost", || {
                    format!("record {number} of writer {writer}, acknowledged at offset {offset}")
                }),
                Some(found) if found != offset => self.find("displaced", || {
                    format!(
                        "record {number} of writer {writer}, acknowledged at offset {offset}, is at {found}"
                    )
                }),
                Some(_) => {}
            }
        }
        self.findings
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    const LOG: LogId = LogId { generation: Generation(5), partition: Partition(0) };

    /// Two writers of this life and one of another; records 0 to 4 of the first writer and 0 to 4 of the second are
    /// acknowledged alternately, at offsets 0 to 9.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        for generation in [5, 5, 4] {
            let writer = ledger.add_writer(Generation(generation));
            for _ in 0..6 {
                ledger.send(writer);
            }
        }
        for offset in 0..10 {
            ledger.acknowledged(Written { writer: offset % 2, number: offset / 2 }, LOG, Offset(offset));
        }
        ledger
    }

    fn good() -> Vec<(u64, u64)> {
        (0..10).map(|offset| (offset % 2, offset / 2)).collect()
    }

    fn judge(ledger: &Ledger, records: &[(u64, u64)]) -> Vec<&'static str> {
        let mut judge = Judge::new(LOG, ledger);
        for (offset, (writer, number)) in (0..).zip(records) {
            let written = Written { writer: *writer, number: *number };
            let generation = ledger.generation_of(written).unwrap_or(LOG.generation);
            judge.record(Offset(offset), &written.value(generation, 40));
        }
        judge.finish().iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn what_was_acknowledged_and_nothing_else_is_right() {
        assert!(judge(&ledger(), &good()).is_empty());
    }

    #[test]
    fn a_record_of_unknown_outcome_may_be_there_or_not() {
        let records = [good(), vec![(0, 5)]].concat();
        assert!(judge(&ledger(), &records).is_empty());
    }

    #[test]
    fn a_loss_at_the_end_is_found() {
        assert_eq!(judge(&ledger(), &good()[..9]), ["lost"]);
    }

    #[test]
    fn a_loss_in_the_middle_is_found_and_displaces_the_rest() {
        let mut records = good();
        records.remove(4);
        assert_eq!(judge(&ledger(), &records), ["lost", "displaced"]);
    }

    #[test]
    fn a_duplicate_is_found() {
        let records = [good(), vec![(1, 4)]].concat();
        assert_eq!(judge(&ledger(), &records), ["duplicated"]);
    }

    #[test]
    fn a_reorder_is_found() {
        let mut ledger = ledger();
        let last = ledger.send(0);
        assert_eq!(last.number, 6);
        let records = [good(), vec![(0, 6), (0, 5)]].concat();
        assert_eq!(judge(&ledger, &records), ["reordered"]);
    }

    #[test]
    fn what_was_refused_and_is_there_is_found() {
        let mut ledger = ledger();
        ledger.refused(Written { writer: 1, number: 5 });
        let records = [good(), vec![(1, 5)]].concat();
        assert_eq!(judge(&ledger, &records), ["refused, and there"]);
        assert!(judge(&ledger, &good()).is_empty());
    }

    #[test]
    fn a_record_of_another_life_and_one_that_nobody_sent_are_found() {
        let records = [good(), vec![(2, 0), (0, 99), (9, 0)]].concat();
        assert_eq!(judge(&ledger(), &records), ["of another life", "never sent"]);
    }

    #[test]
    fn noise_and_gaps_are_found() {
        let ledger = ledger();
        let mut judge = Judge::new(LogId { generation: Generation(9), ..LOG }, &ledger);
        judge.record(Offset(0), b"noise");
        judge.record(Offset(2), b"noise");
        let kinds: Vec<_> = judge.finish().iter().map(|finding| (finding.kind, finding.count)).collect();
        assert_eq!(kinds, [("never sent", 2), ("a gap", 1)]);
    }

    proptest! {
        /// Whatever is taken away, put in twice or exchanged, the judge does not let it pass.
        #[test]
        fn any_change_of_what_was_acknowledged_is_found(change in 0..3, at in 0_usize..10, other in 0_usize..10) {
            let mut records = good();
            match change {
                0 => drop(records.remove(at)),
                1 => records.insert(other, records[at]),
                _ => records.swap(at, other),
            }
            prop_assert_eq!(judge(&ledger(), &records).is_empty(), records == good());
        }
    }
}
