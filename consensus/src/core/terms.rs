//! The term of every entry that the raft log still knows, as runs, always in memory.
//!
//! raft asks for terms in places where it cannot wait and where an error would stop the process, so
//! no such question may ever reach the disk. Terms rise rarely: a run is 16 bytes an election.

use raft::eraftpb::Entry;
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{RaftIndex, Term};

use crate::raft_log::TermRun;

/// Terms from `base` to `last`, both included. The base is the entry before the first readable one.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    base: EntryId,
    runs: Vec<TermRun>,
    last: u64,
}

impl Terms {
    /// Nothing but the base.
    pub(super) const fn new(base: EntryId) -> Self {
        Self { base, runs: Vec::new(), last: base.index.get() }
    }

    /// From what a raft log was found to hold, up to `last`.
    pub(super) fn loaded(base: EntryId, runs: &[TermRun], last: RaftIndex) -> Self {
        let mut terms = Self::new(base);
        for run in runs {
            let first = run.first.max(RaftIndex(base.index.get().saturating_add(1)));
            // A run that ends at or below the base is overtaken by the next one with the same first.
            if let Some(held) = terms.runs.last_mut()
                && held.first == first
            {
                held.term = run.term;
                continue;
            }
            terms.runs.push(TermRun { first, term: run.term });
        }
        terms.runs.retain(|run| run.first <= last);
        terms.last = last.get().max(base.index.get());
        terms
    }

    pub(super) const fn base(&self) -> EntryId {
        self.base
    }

    pub(super) const fn last_index(&self) -> u64 {
        self.last
    }

    /// The newest entry.
    pub(super) fn last(&self) -> EntryId {
        EntryId { index: RaftIndex(self.last), term: self.runs.last().map_or(self.base.term, |run| run.term) }
    }

    /// The term of the entry at `index`, if it lies between base and last.
    pub(super) fn term(&self, index: u64) -> Option<Term> {
        if index == self.base.index.get() {
            return Some(self.base.term);
        }
        if index < self.base.index.get() || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first.get() <= index);
        self.runs.get(after.checked_sub(1)?).map(|run| run.term)
    }

    /// Takes note of `entries`, which replace everything from the first one's index on.
    pub(super) fn replace(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.base.index.get() && first.index <= self.last.saturating_add(1),
            "entries from {} on do not continue terms from {} to {}",
            first.index,
            self.base,
            self.last
        );
        self.runs.retain(|run| run.first.get() < first.index);
        for entry in entries {
            if self.runs.last().is_none_or(|run| run.term.get() != entry.term) {
                self.runs.push(TermRun { first: RaftIndex(entry.index), term: Term(entry.term) });
            }
            self.last = entry.index;
        }
    }

    /// Forgets what is older than `index`, which becomes the base. `false` if it is not known.
    pub(super) fn compact(&mut self, index: RaftIndex) -> bool {
        let Some(term) = self.term(index.get()) else { return false };
        let next = RaftIndex(index.get().saturating_add(1));
        let keep_from = self.runs.partition_point(|run| run.first <= next);
        self.runs.drain(..keep_from.saturating_sub(1));
        if let Some(run) = self.runs.first_mut()
            && run.first < next
        {
            run.first = next;
        }
        self.runs.retain(|run| run.first.get() <= self.last);
        self.base = EntryId { index, term };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, ..Entry::default() }
    }

    fn id(index: u64, term: u64) -> EntryId {
        EntryId { index: RaftIndex(index), term: Term(term) }
    }

    #[test]
    fn a_suffix_of_another_term_replaces_what_was_known() {
        let mut terms = Terms::new(id(1, 1));
        terms.replace(&[entry(2, 1), entry(3, 2), entry(4, 2)]);
        terms.replace(&[entry(3, 5)]);
        assert_eq!(terms.term(1), Some(Term(1)));
        assert_eq!(terms.term(2), Some(Term(1)));
        assert_eq!(terms.term(3), Some(Term(5)));
        assert_eq!(terms.term(4), None);
        assert_eq!(terms.last(), id(3, 5));
    }

    #[test]
    fn loaded_terms_forget_what_lies_below_the_base() {
        let runs = [(2, 1), (4, 3), (9, 4)]
            .map(|(first, term)| TermRun { first: RaftIndex(first), term: Term(term) });
        let terms = Terms::loaded(id(6, 3), &runs, RaftIndex(10));
        assert_eq!(terms.term(5), None);
        assert_eq!(terms.term(7), Some(Term(3)));
        assert_eq!(terms.term(10), Some(Term(4)));
    }

    proptest! {
        /// Whatever is replaced and compacted, the runs say what a plain list of terms says.
        #[test]
        fn runs_agree_with_a_plain_list(steps in proptest::collection::vec((0u64..12, 1u64..6, 0u64..3, any::<bool>()), 1..40)) {
            let mut terms = Terms::new(id(1, 1));
            let mut list = vec![1u64];
            let mut base = 1u64;
            for (back, count, rise, compact) in steps {
                let last = base + u64::try_from(list.len()).unwrap() - 1;
                if compact {
                    let to = base + back.min(u64::try_from(list.len()).unwrap() - 1);
                    prop_assert!(terms.compact(RaftIndex(to)));
                    list.drain(..usize::try_from(to - base).unwrap());
                    base = to;
                } else {
                    let first = last + 1 - back.min(u64::try_from(list.len()).unwrap() - 1);
                    list.truncate(usize::try_from(first - base).unwrap());
                    let term = *list.last().unwrap() + rise;
                    let entries: Vec<_> = (first..first + count).map(|index| entry(index, term)).collect();
                    list.extend(entries.iter().map(|entry| entry.term));
                    terms.replace(&entries);
                }
                for index in 0..base + u64::try_from(list.len()).unwrap() + 2 {
                    let expected = index.checked_sub(base).and_then(|at| list.get(usize::try_from(at).unwrap())).map(|term| Term(*term));
                    prop_assert_eq!(terms.term(index), expected);
                }
            }
        }
    }
}
