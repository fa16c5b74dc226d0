//! Doors for the fuzz targets: the values beside the entries, and a record of the simulated raft log.

use tidelog_engine::storage::Position;

use super::sim_record;
use super::values::{self, VALUE_BYTES};

/// A hard state, decoded and encoded again.
#[must_use]
pub fn hard_state(bytes: &[u8]) -> Option<[u8; VALUE_BYTES]> {
    values::decode_hard_state(bytes).map(|state| values::encode_hard_state(&state))
}

/// An install mark, decoded and encoded again.
#[must_use]
pub fn install_mark(bytes: &[u8]) -> Option<[u8; VALUE_BYTES]> {
    values::decode_install_mark(bytes).map(|mark| values::encode_install_mark(&mark))
}

/// The first index kept, decoded and encoded again.
#[must_use]
pub fn first_index(bytes: &[u8]) -> Option<[u8; 9]> {
    values::decode_index(bytes).map(values::encode_index)
}

/// How many changes the record at `position` makes, and how long it is.
#[must_use]
pub fn record(position: Position, bytes: &[u8]) -> Option<(usize, u64)> {
    sim_record::decode_record(position, bytes).map(|(changes, length)| (changes.len(), length))
}
