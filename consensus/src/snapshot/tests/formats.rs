//! Bytes that never change.

use bytes::Bytes;
use tidelog_engine::checkpoint::{Checkpoint, Members};
use tidelog_wire::ids::{Chain, ClusterId, Generation, GroupId, LogId, NodeId, Offset, Partition, ReplicaId};

use super::super::*;
use super::site::entry;

fn format_1_manifest() -> Manifest {
    let snapshot = entry(61, 3);
    let checkpoint = Checkpoint {
        group: GroupId(1),
        applied: snapshot,
        last_durable: snapshot,
        apply_version: 1,
        members: Members::of_voters(vec![(ReplicaId(1), NodeId(0))]),
        logs: Vec::new(),
        state: Bytes::new(),
    };
    let log = LogId { generation: Generation(7), partition: Partition(2) };
    let file = |base, end, sealed| SegmentFile {
        base: Offset(base),
        end: Offset(end),
        length: 4096,
        chain_start: Chain(base),
        chain_end: Chain(end),
        sealed,
    };
    let files = vec![file(10, 20, true), file(20, 25, false)];
    Manifest {
        cluster: ClusterId(0xc1),
        group: GroupId(1),
        snapshot,
        logs: vec![LogFiles { log, files }],
        checkpoint: checkpoint.encode(),
    }
}

#[test]
fn format_1_manifest_bytes_never_change() {
    let bytes = include_bytes!("../../../testdata/format-1/snapshot/manifest.bin");
    assert_eq!(&format_1_manifest().encode()[..], bytes);
    assert_eq!(Manifest::decode(&Bytes::from_static(bytes)), Ok(format_1_manifest()));
}

#[test]
fn format_1_request_bytes_never_change() {
    let log = LogId { generation: Generation(7), partition: Partition(2) };
    let part = SnapshotPart::File { log, file: format_1_manifest().logs[0].files[1] };
    let request = SnapshotRequest { group: GroupId(1), digest: 0x0102_0304_0506_0708, part };
    let bytes = include_bytes!("../../../testdata/format-1/snapshot/request.bin");
    assert_eq!(&request.encode()[..], bytes);
    assert_eq!(SnapshotRequest::decode(bytes), Ok(request));
    for length in 0..bytes.len() {
        assert!(SnapshotRequest::decode(&bytes[..length]).is_err());
    }
}

#[test]
fn a_truncated_manifest_is_refused_at_every_length() {
    let bytes = format_1_manifest().encode();
    for length in 0..bytes.len() {
        assert!(Manifest::decode(&bytes.slice(..length)).is_err());
    }
}

#[test]
fn an_unknown_format_is_refused_by_name() {
    let mut bytes = format_1_manifest().encode().to_vec();
    bytes[8] = 2;
    assert_eq!(Manifest::decode(&Bytes::from(bytes)), Err(ManifestFault::UnknownFormat { found: 2 }));
}

#[test]
fn files_that_do_not_join_are_refused() {
    let mut manifest = format_1_manifest();
    manifest.logs[0].files[1].chain_start = Chain(99);
    assert!(matches!(Manifest::decode(&manifest.encode()), Err(ManifestFault::Inconsistent(_))));
}
