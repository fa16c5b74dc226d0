use tidelog_wire::ids::{Chain, ClusterId, Generation, LogId, Offset, Partition, RaftIndex, TimestampMs};

use super::footer::{FOOTER_BYTES, Footer, FooterFault, IndexEntry};
use super::frame::{FrameFault, FrameHeader, chain_after};
use super::header::{HeaderFault, SegmentHeader};
use super::state::{SegmentEvent, SegmentState};
use super::*;
use crate::storage::Position;

const CLUSTER: ClusterId = ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const LOG: LogId = LogId { generation: Generation(42), partition: Partition(7) };
const POSITION: Position = Position(80);
const PREFIX: [u8; 21] = [0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 1, 11, 0, 0, 0, 5, 2, 122, 179, 204, 216];

fn frame_header() -> FrameHeader {
    FrameHeader {
        crc32c: 0,
        frame_len: 327,
        raft_index: RaftIndex(9_001),
        append_time: TimestampMs(1_790_000_000_000),
        chain: Chain(0x1234_5678_9abc_def0),
        synced_to: Position(80),
        log_tag: LogTag::of(CLUSTER, LOG),
        format: 1,
        reserved: 0,
    }
    .sealed(POSITION, &PREFIX)
}

fn mark() -> FrameHeader {
    FrameHeader { frame_len: 48, raft_index: RaftIndex(1_002), ..frame_header() }.sealed(POSITION, &[])
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        cluster: CLUSTER,
        log: LOG,
        base: Offset(1_000),
        chain_start: Chain(0x0fed_cba9_8765_4321),
        append_time: TimestampMs(1_790_000_000_000),
    }
}

fn index() -> Vec<IndexEntry> {
    let entry = |offset, position, max_before| IndexEntry {
        offset: Offset(offset),
        position: Position(position),
        max_before: TimestampMs(max_before),
    };
    vec![entry(1_000, 80, i64::MIN), entry(1_200, 70_000, 1_789_999_999_000)]
}

fn footer() -> Footer {
    Footer {
        index_entries: 2,
        record_count: 500,
        last_offset: Offset(1_499),
        max_timestamp: TimestampMs(1_790_000_000_123),
        chain_end: Chain(0x1234_5678_9abc_def0),
        index_position: Position(150_000),
        log_tag: LogTag::of(CLUSTER, LOG),
    }
}

#[test]
fn format_1_frame_header_bytes_never_change() {
    let bytes = include_bytes!("../../testdata/format-1/frame-header.bin");
    assert_eq!(FrameHeader::decode(bytes), Ok(frame_header()));
    assert_eq!(&frame_header().encode(), bytes);
    assert_eq!(frame_header().verify(POSITION, &PREFIX, LogTag::of(CLUSTER, LOG)), Ok(()));
}

#[test]
fn format_1_mark_bytes_never_change() {
    let bytes = include_bytes!("../../testdata/format-1/mark.bin");
    assert_eq!(FrameHeader::decode(bytes), Ok(mark()));
    assert_eq!(&mark().encode(), bytes);
    assert!(mark().is_mark());
    assert_eq!(mark().verify(POSITION, &[], LogTag::of(CLUSTER, LOG)), Ok(()));
}

#[test]
fn format_1_segment_header_bytes_never_change() {
    let bytes = include_bytes!("../../testdata/format-1/segment-header.bin");
    assert_eq!(SegmentHeader::decode(bytes), Ok(segment_header()));
    assert_eq!(&segment_header().encode(), bytes);
}

#[test]
fn format_1_index_and_footer_bytes_never_change() {
    let bytes = include_bytes!("../../testdata/format-1/index-and-footer.bin");
    assert_eq!(footer().encode(&index()), bytes);
    let (_, tail) = bytes.split_at(bytes.len() - FOOTER_BYTES);
    let len = 150_000 + 2 * 24 + 64;
    assert_eq!(Footer::decode(tail, len, LogTag::of(CLUSTER, LOG)), Ok(footer()));
    assert_eq!(footer().decode_index(bytes), Ok(index()));
}

#[test]
fn format_1_chain_and_tag_never_change() {
    let chain = chain_after(Chain(7), Offset(1_000), &[b"from byte ", b"sixteen on"]);
    assert_eq!(chain, Chain(3_577_820_999_777_924_897));
    assert_eq!(
        chain,
        chain_after(Chain(7), Offset(1_000), &[b"from byte sixteen on"]),
        "parts do not matter"
    );
    assert_eq!(LogTag::of(CLUSTER, LOG), LogTag(1_213_446_505));
}

/// A frame is bound to its bytes, its place, its log and its batch's first bytes.
#[test]
fn a_frame_that_lies_elsewhere_or_changed_does_not_pass() {
    let tag = LogTag::of(CLUSTER, LOG);
    let good = frame_header();
    for byte in 0..48 {
        for bit in 0..8 {
            let mut bytes = good.encode();
            bytes[byte] ^= 1 << bit;
            let changed = FrameHeader::decode(&bytes).unwrap();
            assert!(changed.verify(POSITION, &PREFIX, tag).is_err(), "byte {byte}, bit {bit}");
        }
    }
    assert!(good.verify(Position(81), &PREFIX, tag).is_err(), "another place");
    for byte in 0..21 {
        let mut prefix = PREFIX;
        prefix[byte] ^= 1;
        assert!(good.verify(POSITION, &prefix, tag).is_err(), "batch byte {byte}");
    }
    let other = LogTag::of(CLUSTER, LogId { partition: Partition(8), ..LOG });
    assert!(matches!(good.verify(POSITION, &PREFIX, other), Err(FrameFault::Tag { .. })));
    let newer = FrameHeader { format: 2, ..good }.sealed(POSITION, &PREFIX);
    assert_eq!(newer.verify(POSITION, &PREFIX, tag), Err(FrameFault::UnknownFormat { found: 2 }));
    let reserved = FrameHeader { reserved: 1, ..good }.sealed(POSITION, &PREFIX);
    assert_eq!(reserved.verify(POSITION, &PREFIX, tag), Err(FrameFault::Reserved { found: 1 }));
    let ahead = FrameHeader { synced_to: Position(81), ..good }.sealed(POSITION, &PREFIX);
    assert_eq!(ahead.verify(POSITION, &PREFIX, tag), Err(FrameFault::SyncedTo { found: Position(81) }));
}

#[test]
fn a_changed_segment_header_does_not_pass() {
    for byte in 0..80 {
        let mut bytes = segment_header().encode();
        bytes[byte] ^= 1;
        assert!(SegmentHeader::decode(&bytes).is_err(), "byte {byte}");
    }
    assert_eq!(SegmentHeader::decode(&segment_header().encode()[..79]), Err(HeaderFault::Short));
}

#[test]
fn a_changed_footer_or_index_does_not_pass() {
    let tag = LogTag::of(CLUSTER, LOG);
    let good = footer().encode(&index());
    let len = 150_000 + 2 * 24 + 64;
    for byte in 0..good.len() {
        let mut bytes = good.clone();
        bytes[byte] ^= 1;
        let tail = &bytes[bytes.len() - FOOTER_BYTES..];
        let passed = Footer::decode(tail, len, tag).and_then(|footer| footer.decode_index(&bytes));
        assert!(passed.is_err(), "byte {byte}");
    }
    let tail = &good[good.len() - FOOTER_BYTES..];
    assert_eq!(Footer::decode(tail, len + 1, tag), Err(FooterFault::Bad), "not the end of this file");
}

/// A footer said that the index begins at byte 0, so the whole file was taken for one and read into memory
/// before any checksum was asked. An index begins behind the header, and ends where the footer begins.
#[test]
fn an_index_that_does_not_fit_between_header_and_footer_is_refused_before_it_is_read() {
    let tag = LogTag::of(CLUSTER, LOG);
    let decode = |position, index_entries, len| {
        let footer = Footer { index_position: Position(position), index_entries, ..footer() };
        Footer::decode(&footer.encode(&[]), len, tag)
    };
    assert_eq!(decode(0, 40_000_000, 40_000_000 * 24 + 64), Err(FooterFault::Bad));
    assert_eq!(decode(79, 1, 79 + 24 + 64), Err(FooterFault::Bad), "inside the header");
    assert_eq!(decode(80, 2, 80 + 24 + 64), Err(FooterFault::Bad), "an entry too many");
    assert_eq!(decode(u64::MAX, 1, 87), Err(FooterFault::Bad), "beyond all files");
    assert!(decode(80, 1, 80 + 24 + 64).is_ok());
}

/// A footer of a file of gigabytes said that nearly all of it was index, which fits, so gigabytes were taken into
/// memory before the checksum was asked. Entries stand 64 KiB apart, so there are never more than that allows.
#[test]
fn an_index_of_more_entries_than_its_frames_can_have_is_refused_before_it_is_read() {
    let tag = LogTag::of(CLUSTER, LOG);
    let decode = |position: u64, index_entries: u32| {
        let footer = Footer { index_position: Position(position), index_entries, ..footer() };
        Footer::decode(&footer.encode(&[]), position + u64::from(index_entries) * 24 + 64, tag)
    };
    assert_eq!(decode(200, 300_000_000), Err(FooterFault::Bad));
    assert_eq!(decode(80 + 65_535, 2), Err(FooterFault::Bad), "the second would begin at the end");
    assert!(decode(80 + 65_536, 2).is_ok());
}

#[test]
fn file_names_are_exactly_twenty_digits() {
    assert_eq!(file_name(Offset(42)), "00000000000000000042.seg");
    assert_eq!(parse_file_name("00000000000000000042.seg"), Some(Offset(42)));
    for bad in ["42.seg", "00000000000000000042", "+0000000000000000042.seg", "00000000000000000042.seg.tmp"]
    {
        assert_eq!(parse_file_name(bad), None, "{bad}");
    }
}

/// Every pair of state and event is decided, and only recovery leaves `Fenced`.
#[test]
fn every_state_and_event_is_decided() {
    use {SegmentEvent as E, SegmentState as S};
    let all = [
        (S::Active, E::Filled, Some(S::Sealing)),
        (S::Active, E::Synced, Some(S::Active)),
        (S::Active, E::SyncFailed, Some(S::Fenced)),
        (S::Sealing, E::Filled, None),
        (S::Sealing, E::Synced, Some(S::Sealed)),
        (S::Sealing, E::SyncFailed, Some(S::Fenced)),
        (S::Sealed, E::Filled, None),
        (S::Sealed, E::Synced, None),
        (S::Sealed, E::SyncFailed, None),
        (S::Fenced, E::Filled, None),
        (S::Fenced, E::Synced, None),
        (S::Fenced, E::SyncFailed, None),
    ];
    for (state, event, next) in all {
        assert_eq!(state.after(event), next, "{state:?}, {event:?}");
        assert_eq!(state.is_immutable(), state == S::Sealed);
    }
}
