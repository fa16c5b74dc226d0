//! What was ever read: not a checker, but what several of them compare with.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LogId, NodeId, Offset, ProducerId};
use xxhash_rust::xxh3::xxh3_64;

use super::Violation;

/// What names a batch in a log: no producer uses a sequence twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchName {
    /// Its producer.
    pub producer: ProducerId,
    /// Sequence of its first record.
    pub sequence: i32,
}

/// A batch as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its first offset.
    pub first: Offset,
    /// Its last offset.
    pub last: Offset,
    /// Whose batch.
    pub name: Option<BatchName>,
    /// Hash of what its producer vouched for: the bytes that no node may change.
    pub content: u64,
    /// Hash of all of its bytes, as they lie on disk.
    pub hash: u64,
}

/// All that was ever read.
#[derive(Debug, Default)]
pub struct History {
    logs: BTreeMap<LogId, BTreeMap<Offset, Read>>,
}

impl History {
    /// What was read at an offset, if a batch begins there.
    #[must_use]
    pub fn at(&self, log: LogId, first: Offset) -> Option<Read> {
        self.logs.get(&log)?.get(&first).copied()
    }

    /// Notes what was read.
    pub fn note(&mut self, log: LogId, read: Read) {
        self.logs.entry(log).or_default().insert(read.first, read);
    }
}

/// The batches that `bytes` hold back to back.
///
/// # Errors
/// They are no batches: what was acknowledged cannot be read.
pub fn parse(node: NodeId, log: LogId, bytes: &Bytes) -> Result<Vec<Read>, Violation> {
    let broken = |seen: String| Violation::of("what is stored reads as batches", seen);
    let mut rest = bytes.clone();
    let mut reads = Vec::new();
    loop {
        let batch = Batch::take_first(&mut rest, BatchLimits::CAP)
            .map_err(|error| broken(format!("log {log} on node {node}: {error}")))?;
        let Some(batch) = batch else { return Ok(reads) };
        let read = read_of(&batch)
            .ok_or_else(|| broken(format!("log {log} on node {node}: a batch without offset")))?;
        reads.push(read);
    }
}

/// What is noted of a batch that lies in a log.
#[must_use]
pub fn read_of(batch: &Batch) -> Option<Read> {
    let name = batch.producer().map(|stamp| BatchName { producer: stamp.id, sequence: stamp.first_sequence });
    Some(Read {
        first: batch.base_offset()?,
        last: batch.last_offset()?,
        name,
        content: xxh3_64(batch.chain_input()),
        hash: xxh3_64(batch.bytes()),
    })
}

/// A batch of records for the checkers' own tests.
#[cfg(test)]
pub(super) fn example(producer: u64, sequence: i32, first: u64, last: u64) -> Read {
    let name = BatchName { producer: ProducerId(i64::try_from(producer).unwrap()), sequence };
    let content = producer.wrapping_mul(1_000) ^ u64::try_from(sequence).unwrap();
    Read { first: Offset(first), last: Offset(last), name: Some(name), content, hash: content ^ first }
}
