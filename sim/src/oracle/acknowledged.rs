//! Promise: every acknowledged batch is read back exactly once, at its offset, in the producer's order.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, Offset, ProducerId};

use super::Violation;
use super::history::{History, Read};

const PROMISE: &str = "acknowledged batches are read back exactly once, at their offsets, in order";

/// What names a batch in a log: no producer uses a sequence twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchName {
    /// Its producer.
    pub producer: ProducerId,
    /// Sequence of its first record.
    pub sequence: i32,
}

/// Where an acknowledged batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stands {
    /// Its first offset.
    pub first: Offset,
    /// Its last offset.
    pub last: Offset,
    /// Hash of what its producer vouched for: the bytes that no node may change.
    pub content: u64,
}

/// All acknowledgements of a run.
#[derive(Debug, Default)]
pub struct Acknowledged {
    batches: BTreeMap<LogId, BTreeMap<BatchName, Stands>>,
    count: u64,
}

impl Acknowledged {
    /// A client was told that its batch stands at these offsets.
    ///
    /// # Errors
    /// It contradicts another acknowledgement, or something that was read.
    pub fn note(
        &mut self,
        log: LogId,
        name: BatchName,
        stands: Stands,
        history: &History,
    ) -> Result<(), Violation> {
        let broken = |seen: String| Err(Violation::of(PROMISE, seen));
        let batches = self.batches.entry(log).or_default();
        if let Some(before) = batches.insert(name, stands).filter(|before| *before != stands) {
            return broken(format!("log {log}: {name:?} acknowledged as {before:?}, then as {stands:?}"));
        }
        self.count = self.count.saturating_add(1);
        let of_producer = BatchName { producer: name.producer, sequence: 0 }..name;
        if let Some((earlier, at)) =
            batches.range(of_producer).next_back().filter(|(_, at)| at.last >= stands.first)
        {
            return broken(format!(
                "log {log}: {earlier:?} stands at {at:?}, {name:?} behind it at {stands:?}"
            ));
        }
        match history.at(log, stands.first).filter(|read| !stands.is(name, read)) {
            Some(read) => {
                broken(format!("log {log}: {name:?} acknowledged as {stands:?}, where {read:?} was read"))
            }
            None => Ok(()),
        }
    }

    /// One past the last offset acknowledged in a log so far.
    #[must_use]
    pub fn end(&self, log: LogId) -> Offset {
        let last = self.batches.get(&log).and_then(|batches| batches.values().map(|at| at.last).max());
        last.map_or(Offset(0), |last| last.plus(1))
    }

    /// How many batches were acknowledged, repetitions included.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The whole log was read, from `start` on, and is in `history`: nothing acknowledged may be missing.
    ///
    /// # Errors
    /// Something is.
    pub fn check_read(
        &self,
        log: LogId,
        start: Offset,
        end: Offset,
        history: &History,
    ) -> Result<(), Violation> {
        for (name, stands) in self.batches.get(&log).into_iter().flatten() {
            if stands.first < start {
                continue;
            }
            let read = history.at(log, stands.first).filter(|_| stands.last < end);
            if !read.is_some_and(|read| stands.is(*name, &read)) {
                return Err(Violation::of(
                    PROMISE,
                    format!(
                        "log {log}, read from {start} to {end}: {name:?}, acknowledged as {stands:?}, is {read:?}"
                    ),
                ));
            }
        }
        Ok(())
    }
}

impl Stands {
    fn is(&self, name: BatchName, read: &Read) -> bool {
        read.name == Some(name) && read.last == self.last && read.content == self.content
    }
}
