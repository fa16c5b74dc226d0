//! **Offset density**: the offsets of a log have no gaps and no overlaps.
//!
//! A promise of `docs` and of the Kafka protocol's readers alike: who has read up to an offset knows that nothing will
//! appear below it. It is shown the batches that reads return, one after the other, and the frames of segment
//! files as they lie on the disks.

use tidelog_wire::ids::{LogId, NodeId, Offset};

use super::Violation;
use super::history::Read;

/// `read` came from `node`, where `next` was to follow; or, if it is the first, where `from` was asked for.
///
/// # Errors
/// It does not begin where it must.
pub fn follows(
    node: NodeId,
    log: LogId,
    from: Offset,
    next: Option<Offset>,
    read: &Read,
) -> Result<(), Violation> {
    let fits = next.map_or(read.first <= from && read.last >= from, |next| read.first == next);
    if fits {
        return Ok(());
    }
    Err(Violation::of(
        "offset density",
        format!(
            "log {log} on node {node}, read from {from}: batch {}..={} where {} follows",
            read.first,
            read.last,
            next.unwrap_or(from)
        ),
    ))
}

/// Nothing was read at `at`, though the log ends at `end` only.
///
/// # Errors
/// Always, if `at` is below `end`.
pub fn nothing(node: NodeId, log: LogId, at: Offset, end: Offset) -> Result<(), Violation> {
    if at >= end {
        return Ok(());
    }
    Err(Violation::of("offset density", format!("log {log} on node {node}: nothing at {at} of {end}")))
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::super::history::example;
    use super::*;

    const LOG: LogId = LogId { generation: Generation(1), partition: Partition(0) };

    #[test]
    fn a_gap_and_an_overlap_are_violations() {
        let follows = |from, next: Option<u64>, first, last| {
            follows(NodeId(0), LOG, Offset(from), next.map(Offset), &example(1, 0, first, last))
        };
        assert_eq!(follows(4, None, 3, 5), Ok(()), "the batch that holds what was asked for");
        assert_eq!(follows(4, Some(6), 6, 7), Ok(()));
        assert!(follows(4, None, 5, 6).is_err(), "what was asked for is not there");
        assert!(follows(4, Some(6), 7, 8).is_err(), "a gap");
        assert!(follows(4, Some(6), 5, 8).is_err(), "an overlap");
        assert!(nothing(NodeId(0), LOG, Offset(3), Offset(4)).is_err());
        assert_eq!(nothing(NodeId(0), LOG, Offset(4), Offset(4)), Ok(()));
    }
}
