//! The newest entries of a group's log, in memory.
//!
//! An entry is here from the moment raft hands it out, before it is on disk. It may be evicted only
//! once it is durable **and** applied: until then the disk may not have it, or apply still wants it.
//! Applied entries are committed, so what was evicted never changes any more, and the disk may
//! answer for it.
//!
//! Not here: the bound. The core answers `Busy` and drops appends when the tail is full.

use std::collections::VecDeque;

use raft::eraftpb::Entry;

/// What an entry weighs in memory besides its two byte strings, roughly.
const ENTRY_OVERHEAD_BYTES: u64 = 64;

/// Context, data and a little for the rest.
pub(super) fn entry_bytes(entry: &Entry) -> u64 {
    let lengths = entry.data.len().saturating_add(entry.context.len());
    u64::try_from(lengths).unwrap_or(u64::MAX).saturating_add(ENTRY_OVERHEAD_BYTES)
}

/// Entries without gaps, the last of them being the last of the log.
#[derive(Debug)]
pub(super) struct Tail {
    first: u64,
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Tail {
    /// Empty; the next entry to come is `next`.
    pub(super) const fn new(next: u64) -> Self {
        Self { first: next, entries: VecDeque::new(), bytes: 0 }
    }

    /// Index of the oldest entry here, or of the next to come.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes `entries`, which replace everything from the first one's index on.
    pub(super) fn replace(&mut self, entries: &[Entry]) {
        let Some(head) = entries.first() else { return };
        if head.index <= self.first {
            self.entries.clear();
            self.bytes = 0;
            self.first = head.index;
        }
        while self.next() > head.index {
            let Some(dropped) = self.entries.pop_back() else { break };
            self.bytes = self.bytes.saturating_sub(entry_bytes(&dropped));
        }
        assert!(self.next() == head.index, "entry {} leaves a gap after {}", head.index, self.next());
        for entry in entries {
            self.bytes = self.bytes.saturating_add(entry_bytes(entry));
            self.entries.push_back(entry.clone());
        }
    }

    /// The entries from `low` up to, not including, `high`: at least one, then as many as fit into
    /// `bytes_max`. `None` if `low` is not here.
    pub(super) fn slice(&self, low: u64, high: u64, bytes_max: u64) -> Option<Vec<Entry>> {
        let skip = usize::try_from(low.checked_sub(self.first)?).ok()?;
        if low >= self.next() {
            return None;
        }
        let count = usize::try_from(high.checked_sub(low)?).ok()?;
        let mut out = Vec::new();
        let mut bytes = 0u64;
        for entry in self.entries.iter().skip(skip).take(count) {
            bytes = bytes.saturating_add(entry_bytes(entry));
            if !out.is_empty() && bytes > bytes_max {
                break;
            }
            out.push(entry.clone());
        }
        Some(out)
    }

    /// Drops the oldest entries, as long as they are at or below `up_to` and more than `keep_bytes`
    /// are here.
    pub(super) fn evict(&mut self, up_to: u64, keep_bytes: u64) {
        while self.bytes > keep_bytes && self.first <= up_to {
            let Some(entry) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(entry_bytes(&entry));
            self.first = self.first.saturating_add(1);
        }
    }

    fn next(&self) -> u64 {
        self.first.saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(from: u64, to: u64, term: u64) -> Vec<Entry> {
        (from..to).map(|index| Entry { index, term, data: vec![7; 100].into(), ..Entry::default() }).collect()
    }

    #[test]
    fn a_new_suffix_replaces_the_old_one_even_below_the_first_entry_here() {
        let mut tail = Tail::new(5);
        tail.replace(&entries(5, 9, 1));
        tail.replace(&entries(7, 8, 2));
        assert_eq!(tail.slice(5, 8, u64::MAX).unwrap().iter().map(|e| e.term).collect::<Vec<_>>(), [1, 1, 2]);
        tail.replace(&entries(3, 4, 3));
        assert_eq!((tail.first(), tail.bytes()), (3, entry_bytes(&entries(3, 4, 3)[0])));
        assert_eq!(tail.slice(2, 4, u64::MAX), None);
        assert_eq!(tail.slice(4, 5, u64::MAX), None);
    }

    #[test]
    fn eviction_stops_at_what_is_not_durable_or_not_applied() {
        let mut tail = Tail::new(1);
        tail.replace(&entries(1, 11, 1));
        tail.evict(4, 0);
        assert_eq!(tail.first(), 5);
        tail.evict(20, entry_bytes(&entries(1, 2, 1)[0]) * 2);
        assert_eq!(tail.first(), 9);
    }

    #[test]
    fn a_slice_holds_at_least_one_entry_and_then_keeps_its_limit() {
        let mut tail = Tail::new(1);
        tail.replace(&entries(1, 11, 1));
        assert_eq!(tail.slice(1, 11, 0).unwrap().len(), 1);
        assert_eq!(tail.slice(1, 11, 330).unwrap().len(), 2);
        assert_eq!(tail.slice(1, 4, u64::MAX).unwrap().len(), 3);
    }
}
