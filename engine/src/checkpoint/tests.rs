use tidelog_wire::ids::{Generation, NodeId, Partition, ProducerId, ReplicaId};

use super::*;
use crate::producers::ProducerStamp;

fn full() -> Checkpoint {
    let mut producers = ProducerTable::new();
    let stamp = ProducerStamp { id: ProducerId(11), epoch: 2, first_sequence: 40, count: 10 };
    producers.record(&stamp, Offset(1_490), Chain(0x1234_5678_9abc_def0), TimestampMs(1_790_000_000_000));
    let log = |partition, closed| LogCheckpoint {
        log: LogId { generation: Generation(42), partition: Partition(partition) },
        config: LogConfig { segment_bytes: 64 << 20, epoch_base: 3 },
        state: LogState {
            start: Offset(1_000),
            end: Offset(1_500),
            active_base: Offset(1_200),
            active_position: Position(77_000),
            chain: Chain(0x1234_5678_9abc_def0),
            epochs: vec![(LeaderEpoch(4), Offset(0)), (LeaderEpoch(6), Offset(1_100))],
            append_time: TimestampMs(1_790_000_000_000),
        },
        producers: producers.clone(),
        damage: vec![Offset(1_010)..Offset(1_020)],
        closed,
    };
    Checkpoint {
        group: GroupId(3),
        applied: EntryId { index: RaftIndex(900), term: Term(3) },
        last_durable: EntryId { index: RaftIndex(905), term: Term(3) },
        apply_version: 1,
        members: Members {
            voters: vec![ReplicaId(1), ReplicaId(2), ReplicaId(9)],
            outgoing: vec![ReplicaId(1), ReplicaId(2), ReplicaId(3)],
            learners: vec![ReplicaId(10)],
            learners_next: vec![ReplicaId(3)],
            replicas: [(1, 0), (2, 1), (3, 2), (9, 3), (10, 4)]
                .map(|(replica, node)| (ReplicaId(replica), NodeId(node)))
                .to_vec(),
        },
        logs: vec![log(0, false), log(1, true)],
        state: Bytes::from_static(b"the machine's own"),
    }
}

#[test]
fn format_1_checkpoint_bytes_never_change() {
    let bytes = include_bytes!("../../testdata/format-1/checkpoint.bin");
    assert_eq!(full().encode().as_ref(), bytes);
    assert_eq!(Checkpoint::decode(&Bytes::from_static(bytes)), Ok(full()));
}

/// No single changed byte and no cut passes.
#[test]
fn a_changed_or_cut_checkpoint_does_not_pass() {
    let good = full().encode();
    for byte in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[byte] ^= 0x10;
        assert!(Checkpoint::decode(&Bytes::from(bytes)).is_err(), "byte {byte}");
        assert!(Checkpoint::decode(&good.slice(..byte)).is_err(), "cut at {byte}");
    }
}

/// A matching checksum does not make sense of nonsense: counts beyond the bytes, logs out of order.
#[test]
fn nonsense_under_a_valid_checksum_is_refused() {
    let mut twice = full();
    twice.logs.swap(0, 1);
    assert_eq!(Checkpoint::decode(&twice.encode()), Err(CheckpointFault::Nonsense));
    let mut backwards = full();
    backwards.logs[0].state.start = Offset(2_000);
    assert_eq!(Checkpoint::decode(&backwards.encode()), Err(CheckpointFault::Nonsense));
    let mut huge = full().encode().to_vec();
    huge[20 + 48..20 + 52].copy_from_slice(&u32::MAX.to_le_bytes());
    let end = huge.len() - 4;
    let crc = crc32c::crc32c(&huge[..end]);
    huge[end..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(Checkpoint::decode(&Bytes::from(huge)), Err(CheckpointFault::Nonsense));
}

/// A checkpoint was written whatever its length, and one beyond the limit of reading would have been
/// refused at the next start. It is refused when it is written, before the disk is touched.
#[test]
fn a_checkpoint_too_large_to_be_read_is_not_written() {
    let disk = crate::storage::sim_disk::SimDisk::new(1);
    let data = std::path::Path::new("/data");
    crate::storage::Storage::create_dir(&disk, data).unwrap();
    let bytes = u64::try_from(full().encode().len()).unwrap();
    let before = disk.changes();
    let refused = store::write_within(&disk, data, &full(), bytes - 1);
    assert!(matches!(refused, Err(CheckpointError::TooLarge { max, .. }) if max == bytes - 1), "{refused:?}");
    assert_eq!(disk.changes(), before);
    store::write_within(&disk, data, &full(), bytes).unwrap();
}
