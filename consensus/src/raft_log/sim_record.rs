//! One record of the simulated raft log: the changes of one write, under one checksum.
//!
//! | at | size | field  | meaning                                                        |
//! |---:|-----:|--------|----------------------------------------------------------------|
//! |  0 |    4 | crc32c | of the record's position in the file and of all bytes from 4 on |
//! |  4 |    4 | length | of the body in bytes; little-endian, as the rest                |
//! |  8 |   .. | body   | changes: kind (1), group (8), and what the kind says            |
//!
//! Kinds: 1 clear; 2 entry: length (4), protobuf bytes; 3 hard state (25); 4 install mark (25);
//! 5 no install mark; 6 compact: first kept index (8); 7 whose log it is: replica (8).

use protobuf::Message;
use raft::eraftpb::{Entry, HardState};
use tidelog_engine::storage::Position;
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId};

use super::InstallMark;
use super::values::{
    VALUE_BYTES, decode_hard_state, decode_install_mark, encode_hard_state, encode_install_mark,
};

const HEADER_BYTES: usize = 8;

/// One change of one group.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Clear(GroupId),
    Entry(GroupId, Entry),
    HardState(GroupId, HardState),
    Install(GroupId, Option<InstallMark>),
    Compact(GroupId, RaftIndex),
    Replica(GroupId, ReplicaId),
}

/// The record of `changes`, as it must stand at `position`. `None` if it is too long.
pub(super) fn encode_record(position: Position, changes: &[Change]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for change in changes {
        encode_change(&mut body, change)?;
    }
    let len = u32::try_from(body.len()).ok()?.to_le_bytes();
    let crc = checksum(position, len, &body).to_le_bytes();
    let mut record = Vec::with_capacity(body.len().saturating_add(HEADER_BYTES));
    record.extend_from_slice(&crc);
    record.extend_from_slice(&len);
    record.append(&mut body);
    Some(record)
}

fn checksum(position: Position, len: [u8; 4], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&position.get().to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &len), body)
}

fn encode_change(body: &mut Vec<u8>, change: &Change) -> Option<()> {
    let mut head = |kind: u8, group: &GroupId| {
        body.push(kind);
        body.extend_from_slice(&group.get().to_le_bytes());
    };
    match change {
        Change::Clear(group) => head(1, group),
        Change::Entry(group, entry) => {
            head(2, group);
            let bytes = entry.write_to_bytes().ok()?;
            body.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
            body.extend_from_slice(&bytes);
        }
        Change::HardState(group, state) => {
            head(3, group);
            body.extend_from_slice(&encode_hard_state(state));
        }
        Change::Install(group, Some(mark)) => {
            head(4, group);
            body.extend_from_slice(&encode_install_mark(mark));
        }
        Change::Install(group, None) => head(5, group),
        Change::Compact(group, first_kept) => {
            head(6, group);
            body.extend_from_slice(&first_kept.get().to_le_bytes());
        }
        Change::Replica(group, replica) => {
            head(7, group);
            body.extend_from_slice(&replica.get().to_le_bytes());
        }
    }
    Some(())
}

/// The changes of the record that `bytes`, which stand at `position`, begin with, and its length.
/// `None` if there is no record that verifies.
pub(super) fn decode_record(position: Position, bytes: &[u8]) -> Option<(Vec<Change>, u64)> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let body_len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let mut body = rest.get(..body_len)?;
    if body.is_empty() || checksum(position, *len, body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut changes = Vec::new();
    while !body.is_empty() {
        let (change, rest) = decode_change(body)?;
        changes.push(change);
        body = rest;
    }
    Some((changes, u64::try_from(body_len.checked_add(HEADER_BYTES)?).ok()?))
}

fn decode_change(bytes: &[u8]) -> Option<(Change, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (group, rest) = rest.split_first_chunk()?;
    let group = GroupId(u64::from_le_bytes(*group));
    match kind {
        1 => Some((Change::Clear(group), rest)),
        2 => {
            let (len, rest) = rest.split_first_chunk()?;
            let (entry, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
            Some((Change::Entry(group, Entry::parse_from_bytes(entry).ok()?), rest))
        }
        3 => {
            let (value, rest) = rest.split_at_checked(VALUE_BYTES)?;
            Some((Change::HardState(group, decode_hard_state(value)?), rest))
        }
        4 => {
            let (value, rest) = rest.split_at_checked(VALUE_BYTES)?;
            Some((Change::Install(group, Some(decode_install_mark(value)?)), rest))
        }
        5 => Some((Change::Install(group, None), rest)),
        6 => {
            let (first, rest) = rest.split_first_chunk()?;
            Some((Change::Compact(group, RaftIndex(u64::from_le_bytes(*first))), rest))
        }
        7 => {
            let (replica, rest) = rest.split_first_chunk()?;
            Some((Change::Replica(group, ReplicaId(u64::from_le_bytes(*replica))), rest))
        }
        _ => None,
    }
}
