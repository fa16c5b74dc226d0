//! **Byte-identical sealed segments**: a sealed segment never changes, and is the same on every replica.
//!
//! A promise of ARCHITECTURE.md, on which comparing, repairing and re-seeding replicas rests. It is shown the bytes
//! of segment files as they lie on the simulated disks, by log and base offset.

use std::collections::BTreeMap;

use tidelog_wire::ids::{LogId, NodeId, Offset};
use xxhash_rust::xxh3::xxh3_64;

use super::Violation;

/// Every sealed segment that was ever seen.
#[derive(Debug, Default)]
pub struct SealedSegments {
    segments: BTreeMap<(LogId, Offset), Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    hash: u64,
    len: usize,
    node: NodeId,
}

impl SealedSegments {
    /// These bytes are a sealed segment on `node`.
    ///
    /// # Errors
    /// They differ from what they were, here or elsewhere.
    pub fn lies(&mut self, node: NodeId, log: LogId, base: Offset, bytes: &[u8]) -> Result<(), Violation> {
        let seen = Seen { hash: xxh3_64(bytes), len: bytes.len(), node };
        let first = *self.segments.entry((log, base)).or_insert(seen);
        if first.hash == seen.hash {
            return Ok(());
        }
        Err(Violation::of(
            "byte-identical sealed segments",
            format!(
                "log {log}, segment {base}: {} bytes, hash {:016x} on node {}, but {} bytes, hash {:016x} on node \
                 {node}",
                first.len, first.hash, first.node, seen.len, seen.hash
            ),
        ))
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> usize {
        self.segments.len()
    }
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    #[test]
    fn a_segment_that_differs_or_changes_is_a_violation() {
        let mut checker = SealedSegments::default();
        assert_eq!(checker.lies(NodeId(0), LOG, Offset(0), b"abc"), Ok(()));
        assert_eq!(checker.lies(NodeId(1), LOG, Offset(0), b"abc"), Ok(()));
        assert_eq!(checker.lies(NodeId(1), LOG, Offset(9), b"xyz"), Ok(()), "another segment");
        assert!(checker.lies(NodeId(2), LOG, Offset(0), b"abd").is_err(), "it differs");
        assert!(checker.lies(NodeId(0), LOG, Offset(0), b"ab").is_err(), "it changed");
    }
}
