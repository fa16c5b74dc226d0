//! The checkpoint that every voter of a new cluster starts a group from: the same bytes on each.
//!
//! It stands at index 1, term 1, as if one entry had been applied, so that no replica ever exists without
//! a checkpoint at or above the entry before its log's first.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, EntryId, Members};
use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, Term};

use super::catalogue::genesis_members;
use super::data_bytes::DataState;
use super::group_placement::GroupPlacement;
use super::{APPLY_VERSION, Catalogue};

/// The first checkpoint of a data group, as each of its first members begins with it: on whatever node and day it
/// is made, and whatever release makes it, the same.
#[must_use]
pub fn group_genesis(group: GroupId, placement: &GroupPlacement) -> Checkpoint {
    let members = Members::of_voters(placement.genesis.clone());
    first_checkpoint(group, placement.genesis_version, members, DataState::genesis().encode())
}

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
        DataState::genesis().encode()
    };
    first_checkpoint(group, APPLY_VERSION, Members::of_voters(replicas), state)
}

fn first_checkpoint(group: GroupId, apply_version: u16, members: Members, state: Vec<u8>) -> Checkpoint {
    let first = EntryId { index: RaftIndex(1), term: Term(1) };
    Checkpoint {
        group,
        applied: first,
        last_durable: first,
        apply_version,
        members,
        logs: Vec::new(),
        state: Bytes::from(state),
    }
}
