//! What was sent, and what came of it: the load writes it, the check reads it.
//!
//! Each producer is a *writer* with a number of its own and numbers its records from 0, over all partitions. Number, writer
//! and generation stand in the record's value, so that what is read back says itself who wrote it, when, and for which life
//! of the channel.

use std::collections::{BTreeMap, BTreeSet};

use tidelog_wire::ids::{Generation, LogId, Offset};

/// One record: who wrote it, and its number among all of that writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Written {
    /// The writer.
    pub writer: u64,
    /// From 0, over all partitions.
    pub number: u64,
}

/// What is known about a writer.
#[derive(Clone, Copy, Debug)]
struct Writer {
    generation: Generation,
    /// The number of its next record.
    next: u64,
}

/// All that was sent.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    writers: BTreeMap<u64, Writer>,
    acknowledged: BTreeMap<LogId, Vec<(Offset, Written)>>,
    refused: BTreeSet<Written>,
    deleted: BTreeSet<Generation>,
    unknown: u64,
}

impl Written {
    /// The value of this record in a channel's life, `bytes` long or a little more.
    #[must_use]
    pub fn value(self, generation: Generation, bytes: usize) -> Vec<u8> {
        let mut value = format!("{generation} {} {} ", self.writer, self.number).into_bytes();
        if value.len() < bytes {
            value.resize(bytes, b'.');
        }
        value
    }

    /// Reads a value; none if no writer of a load wrote it.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<(Generation, Self)> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let mut number = || words.next()?.parse().ok();
        Some((Generation(number()?), Self { writer: number()?, number: number()? }))
    }
}

impl Ledger {
    /// A new writer for a channel's life.
    pub fn add_writer(&mut self, generation: Generation) -> u64 {
        let writer = self.writers.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        self.writers.insert(writer, Writer { generation, next: 0 });
        writer
    }

    /// The writer's next record, which is about to be sent.
    pub fn send(&mut self, writer: u64) -> Written {
        let number = self.writers.get_mut(&writer).map_or(0, |writer| {
            let number = writer.next;
            writer.next = number.saturating_add(1);
            number
        });
        Written { writer, number }
    }

    /// It is durable, at this place.
    pub fn acknowledged(&mut self, written: Written, log: LogId, offset: Offset) {
        self.acknowledged.entry(log).or_default().push((offset, written));
    }

    /// It was said that it is not in the log and never will be.
    pub fn refused(&mut self, written: Written) {
        self.refused.insert(written);
    }

    /// Nobody said what came of it.
    pub fn unknown(&mut self) {
        self.unknown = self.unknown.saturating_add(1);
    }

    /// A channel's life was ended, or was asked to: what was acknowledged in it need not be there any more.
    pub fn deleted(&mut self, generation: Generation) {
        self.deleted.insert(generation);
    }

    /// Lives that were ended.
    #[must_use]
    pub fn is_deleted(&self, generation: Generation) -> bool {
        self.deleted.contains(&generation)
    }

    /// What was acknowledged in a log, in order of offsets.
    #[must_use]
    pub fn acknowledged_in(&self, log: LogId) -> Vec<(Offset, Written)> {
        let mut all = self.acknowledged.get(&log).cloned().unwrap_or_default();
        all.sort_unstable();
        all
    }

    /// Logs in which something was acknowledged.
    pub fn logs(&self) -> impl Iterator<Item = LogId> {
        self.acknowledged.keys().copied()
    }

    /// How many records were acknowledged in a log.
    #[must_use]
    pub fn count_in(&self, log: LogId) -> u64 {
        self.acknowledged.get(&log).map_or(0, |all| u64::try_from(all.len()).unwrap_or(u64::MAX))
    }

    /// Records acknowledged, refused, and of unknown outcome.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        let refused = u64::try_from(self.refused.len()).unwrap_or(u64::MAX);
        (self.logs().map(|log| self.count_in(log)).sum(), refused, self.unknown)
    }

    /// The life that a record was sent for; none if it was never sent.
    pub(crate) fn generation_of(&self, written: Written) -> Option<Generation> {
        let writer = self.writers.get(&written.writer)?;
        (written.number < writer.next).then_some(writer.generation)
    }

    pub(crate) fn was_refused(&self, written: Written) -> bool {
        self.refused.contains(&written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_who_wrote_it_for_which_life() {
        let written = Written { writer: 7, number: 41 };
        let value = written.value(Generation(3), 60);
        assert_eq!(value.len(), 60);
        assert_eq!(Written::read(&value), Some((Generation(3), written)));
        assert_eq!(Written::read(&written.value(Generation(3), 0)), Some((Generation(3), written)));
        for noise in [&b""[..], b"3 7", b"3 7 x ....", &[0xff, 0x20]] {
            assert_eq!(Written::read(noise), None);
        }
    }
}
