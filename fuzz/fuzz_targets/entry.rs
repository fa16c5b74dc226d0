//! An entry of the raft log, and the states that its application leaves in a checkpoint.
//!
//! What decodes encodes to something that decodes to the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use raft::eraftpb::Entry;
use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::apply::fuzzing::data_state;
use tidelog_consensus::entry::{decode, encode};
use tidelog_wire::ids::GroupId;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (context, data) = input;
    let of = |context: &[u8], data: &[u8]| Entry {
        index: 1,
        term: 1,
        context: Bytes::copy_from_slice(context),
        data: Bytes::copy_from_slice(data),
        ..Entry::default()
    };
    for group in [GroupId::META, GroupId(1)] {
        if let Ok(Some(command)) = decode(group, &of(context, data)) {
            let (context, data) = encode(command.clone());
            assert_eq!(decode(group, &of(&context, &data)).ok().flatten(), Some(command));
        }
    }
    if let Ok(catalogue) = Catalogue::decode(data) {
        assert_eq!(catalogue.encode(), data, "there is one way to write it");
    }
    assert!(data_state(data).is_none_or(|again| again == data));
});
