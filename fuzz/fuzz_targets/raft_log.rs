//! What lies in a raft log: the values beside the entries, and a record of the simulated one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidelog_consensus::raft_log::fuzzing::{first_index, hard_state, install_mark, record};
use tidelog_engine::storage::Position;

fuzz_target!(|input: (u64, &[u8])| {
    let (position, bytes) = input;
    assert!(hard_state(bytes).is_none_or(|again| again == bytes));
    assert!(install_mark(bytes).is_none_or(|again| again == bytes));
    assert!(first_index(bytes).is_none_or(|again| again == bytes));
    if let Some((changes, length)) = record(Position(position), bytes) {
        assert!(changes > 0 && length <= bytes.len() as u64);
    }
});
