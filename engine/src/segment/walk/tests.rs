use std::path::Path;

use tidelog_wire::ids::{Chain, RaftIndex, TimestampMs};

use super::*;
use crate::segment::FORMAT;
use crate::storage::OpenMode;
use crate::storage::sim_disk::{Operation, SimDisk};

const TAG: LogTag = LogTag(0x4d3c_2b1a);

fn header(frame_len: u32) -> FrameHeader {
    FrameHeader {
        crc32c: 0,
        frame_len,
        raft_index: RaftIndex(0),
        append_time: TimestampMs(5),
        chain: Chain(6),
        synced_to: Position::ZERO,
        log_tag: TAG,
        format: FORMAT,
        reserved: 0,
    }
}

/// A frame around a batch that is nothing but a header, whole and in its place.
fn good_frame(position: Position) -> Vec<u8> {
    let mut batch = [0; BATCH_HEADER_BYTES];
    batch[..8].copy_from_slice(&7_u64.to_be_bytes());
    batch[8..12].copy_from_slice(&49_u32.to_be_bytes());
    let crc = crc32c::crc32c(&batch[PREFIX_BYTES..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    let sealed = header(48 + 61).sealed(position, &batch[..PREFIX_BYTES]);
    [sealed.encode().as_slice(), &batch].concat()
}

/// Whatever bore the log's tag was believed about its length before its checksum was asked: each such place in a damaged
/// area cost a read of up to 16 MiB, so a segment full of them took hours to start from. What does not verify costs
/// no more than its own few bytes: the file is read about once.
#[test]
fn lengths_that_nobody_vouches_for_are_not_read() {
    let lie = header(3 << 20).encode();
    let mut bytes = lie.repeat(2_000);
    let good = Position(wide(bytes.len()));
    bytes.extend(good_frame(good));
    bytes.resize(4 << 20, 0xee);
    let disk = SimDisk::new(1);
    let file = disk.storage().open(Path::new("/segment"), OpenMode::CreateNew).unwrap();
    file.write_at(Position::ZERO, &[&bytes]).unwrap();
    disk.note_calls();
    let limit = wide(bytes.len());
    let mut walk = Walk::new(file.as_ref(), TAG, Depth::Full, Position::ZERO, limit, None);
    assert!(matches!(walk.step().unwrap(), Step::Fault(FrameFault::HeaderChecksum { .. })));
    assert_eq!(walk.resync().unwrap().map(|walked| walked.position), Some(good));
    assert_eq!(walk.resync().unwrap(), None);
    let reads = disk.calls().into_iter().filter(|call| call.operation == Operation::Read);
    let read: u64 = reads.map(|call| call.bytes).sum();
    assert!(read <= limit + wide(READ_AHEAD), "{read} bytes were read of {limit}");
}
