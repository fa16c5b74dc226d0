//! The checkpoint that every voter of a new cluster starts a group from: the same bytes on each.
//!
//! It stands at index 1, term 1, as if one entry had been applied, so that no replica ever exists without
//! a checkpoint at or above the entry before its log's first.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, Members};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, Term};

use super::catalogue::genesis_members;
use super::{APPLY_VERSION, Catalogue, data};

/// The first checkpoint of `group` in a cluster of `nodes`, whose logs are spread over `data_groups`.
/// Each node has one voter; its replica id is its number plus one, since raft knows no 0.
#[must_use]
pub fn genesis_checkpoint(group: GroupId, nodes: &[NodeId], data_groups: &[GroupId]) -> Checkpoint {
    let nodes: BTreeSet<NodeId> = nodes.iter().copied().collect();
    let replicas = genesis_members(nodes.iter().copied());
    let state = if group == GroupId::META {
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        Catalogue::genesis(data_groups, &nodes).encode()
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
