//! Promise: what is readable at an offset is the same for ever and on every node; there are no gaps, and
//! no batch stands twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidelog_wire::batch::{Batch, BatchLimits};
use tidelog_wire::ids::{LogId, NodeId, Offset};
use xxhash_rust::xxh3::xxh3_64;

use super::Violation;
use super::acknowledged::BatchName;

const SAME: &str = "an offset reads the same for ever, on every node";
const DENSE: &str = "offsets have no gaps";
const ONCE: &str = "no batch stands twice in a log";

/// A batch as it was first read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Whose batch.
    pub name: Option<BatchName>,
    /// Its last offset.
    pub last: Offset,
    /// Hash of what its producer vouched for.
    pub content: u64,
    /// Hash of all of its bytes, as they lie on disk.
    pub hash: u64,
}

/// All that was ever read.
#[derive(Debug, Default)]
pub struct History {
    logs: BTreeMap<LogId, BTreeMap<Offset, Read>>,
    places: BTreeMap<(LogId, BatchName), Offset>,
}

impl History {
    /// What was read at an offset, if a batch begins there.
    #[must_use]
    pub fn at(&self, log: LogId, first: Offset) -> Option<Read> {
        self.logs.get(&log)?.get(&first).copied()
    }

    /// `batches` were read on `node`, one after the other, the first of them containing or following
    /// offset `from`. Returns the offset after the last.
    ///
    /// # Errors
    /// They contradict what was read before, or each other.
    pub fn read(
        &mut self,
        node: NodeId,
        log: LogId,
        from: Offset,
        batches: &[Bytes],
    ) -> Result<Offset, Violation> {
        let mut next = None;
        for bytes in batches {
            let mut rest = bytes.clone();
            loop {
                let batch = Batch::take_first(&mut rest, BatchLimits::CAP).map_err(|error| {
                    Violation::of(SAME, format!("log {log} on node {node}, read from {from}: {error}"))
                })?;
                let Some(batch) = batch else { break };
                next = Some(self.one(node, log, from, next, &batch)?);
            }
        }
        Ok(next.unwrap_or(from))
    }

    fn one(
        &mut self,
        node: NodeId,
        log: LogId,
        from: Offset,
        next: Option<Offset>,
        batch: &Batch,
    ) -> Result<Offset, Violation> {
        let (Some(first), Some(last)) = (batch.base_offset(), batch.last_offset()) else {
            return Err(Violation::of(SAME, format!("log {log} on node {node}: a batch without offset")));
        };
        let fits = next.map_or(first <= from && last >= from, |next| first == next);
        if !fits {
            return Err(Violation::of(
                DENSE,
                format!(
                    "log {log} on node {node}, read from {from}: batch {first}..={last} where {next:?} follows"
                ),
            ));
        }
        let name =
            batch.producer().map(|stamp| BatchName { producer: stamp.id, sequence: stamp.first_sequence });
        let read = Read { name, last, content: xxh3_64(batch.chain_input()), hash: xxh3_64(batch.bytes()) };
        if let Some(before) =
            self.logs.entry(log).or_default().insert(first, read).filter(|before| *before != read)
        {
            return Err(Violation::of(
                SAME,
                format!("log {log}, offset {first}: {before:?} before, {read:?} on node {node}"),
            ));
        }
        if let Some(name) = name {
            let place = *self.places.entry((log, name)).or_insert(first);
            if place != first {
                return Err(Violation::of(
                    ONCE,
                    format!("log {log}: {name:?} stands at {place} and at {first}"),
                ));
            }
        }
        Ok(last.plus(1))
    }
}
