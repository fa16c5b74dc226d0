//! The checkpoint that every voter of a new cluster starts a group from: the same bytes on each.
//!
//! It stands at index 1, term 1, as if one entry had been applied, so that no replica ever exists without
//! a checkpoint at or above the entry before its log's first.

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, Members};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId, Term};

use super::{APPLY_VERSION, Catalogue, data};

/// The first checkpoint of `group` in a cluster of `nodes`, whose logs are spread over `data_groups`.
/// Each node has one voter; its replica id is its number plus one, since raft knows no 0.
#[must_use]
pub fn genesis_checkpoint(group: GroupId, nodes: &[NodeId], data_groups: &[GroupId]) -> Checkpoint {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    let replicas: Vec<(ReplicaId, NodeId)> =
        nodes.iter().map(|node| (ReplicaId(node.get().saturating_add(1)), *node)).collect();
    let count = u32::try_from(replicas.len()).unwrap_or(u32::MAX);
    let state = if group == GroupId::META {
        Catalogue::genesis(data_groups.to_vec(), count).encode()
    } else {
        data::genesis_state()
    };
    let first = EntryId { index: RaftIndex(1), term: Term(1) };
    Checkpoint {
        group,
        applied: first,
        last_durable: first,
        apply_version: APPLY_VERSION,
        members: Members::of_voters(replicas),
        logs: Vec::new(),
        state: Bytes::from(state),
    }
}
