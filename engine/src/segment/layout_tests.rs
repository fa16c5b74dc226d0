//! Every field lies in the bytes where the table in its struct's doc says: the tables are read out of the
//! source itself. `cargo xtask tidy` holds the format documents against the same tables.

use tidelog_wire::ids::{Chain, ClusterId, Generation, LogId, Offset, Partition, RaftIndex, TimestampMs};

use super::LogTag;
use super::footer::{Footer, IndexEntry};
use super::frame::FrameHeader;
use super::header::SegmentHeader;
use crate::storage::Position;

const HEADER: &str = include_str!("header.rs");
const FRAME: &str = include_str!("frame.rs");
const FOOTER: &str = include_str!("footer.rs");

/// Where the table above `item` puts `field`.
fn place(source: &str, item: &str, field: &str) -> std::ops::Range<usize> {
    let (before, _) = source.split_once(&format!("pub struct {item} {{")).unwrap();
    let (_, doc) = before.rsplit_once("\n\n").unwrap();
    let row = doc
        .lines()
        .find(|row| row.split('|').nth(3).is_some_and(|cell| cell.trim().replace('`', "") == field));
    let cells: Vec<&str> =
        row.unwrap_or_else(|| panic!("no row for {field}")).split('|').map(str::trim).collect();
    let at: usize = cells[1].parse().unwrap();
    at..at + cells[2].parse::<usize>().unwrap()
}

/// `one` and `other` differ in `field`, so their bytes differ there and in the checksum, and nowhere else.
#[track_caller]
fn differ_in(source: &str, item: &str, field: &str, one: &[u8], other: &[u8], crc: bool) {
    let mut allowed = vec![place(source, item, field)];
    if crc {
        allowed.push(place(source, item, "crc32c"));
    }
    assert_ne!(one, other);
    assert_ne!(one[allowed[0].clone()], other[allowed[0].clone()], "{item}.{field} is where its table says");
    for at in 0..one.len() {
        let may = allowed.iter().any(|range| range.contains(&at));
        assert!(may || one[at] == other[at], "{item}.{field} changed byte {at}, {allowed:?} may change");
    }
}

#[test]
fn a_segment_header_is_laid_out_as_its_table_says() {
    let log = LogId { generation: Generation(1), partition: Partition(2) };
    let base = SegmentHeader {
        cluster: ClusterId(3),
        log,
        base: Offset(4),
        chain_start: Chain(5),
        append_time: TimestampMs(6),
    };
    let other_log =
        |generation, partition| LogId { generation: Generation(generation), partition: Partition(partition) };
    for (field, changed) in [
        ("partition", SegmentHeader { log: other_log(1, u32::MAX), ..base }),
        ("cluster", SegmentHeader { cluster: ClusterId(u128::MAX), ..base }),
        ("generation", SegmentHeader { log: other_log(u64::MAX, 2), ..base }),
        ("base", SegmentHeader { base: Offset(u64::MAX), ..base }),
        ("chain_start", SegmentHeader { chain_start: Chain(u64::MAX), ..base }),
        ("append_time", SegmentHeader { append_time: TimestampMs(-1), ..base }),
    ] {
        differ_in(HEADER, "SegmentHeader", field, &base.encode(), &changed.encode(), true);
    }
    let bytes = base.encode();
    assert_eq!(&bytes[place(HEADER, "SegmentHeader", "magic")], b"TIDESEGM");
    assert_eq!(bytes[place(HEADER, "SegmentHeader", "format")], [1, 0]);
    assert!(bytes[place(HEADER, "SegmentHeader", "reserved")].iter().all(|byte| *byte == 0));
}

#[test]
fn a_frame_header_is_laid_out_as_its_table_says() {
    let base = FrameHeader {
        crc32c: 1,
        frame_len: 2,
        raft_index: RaftIndex(3),
        append_time: TimestampMs(4),
        chain: Chain(5),
        synced_to: Position(6),
        log_tag: LogTag(7),
        format: 8,
        reserved: 9,
    };
    for (field, changed) in [
        ("crc32c", FrameHeader { crc32c: u32::MAX, ..base }),
        ("frame_len", FrameHeader { frame_len: u32::MAX, ..base }),
        ("raft_index", FrameHeader { raft_index: RaftIndex(u64::MAX), ..base }),
        ("append_time", FrameHeader { append_time: TimestampMs(-1), ..base }),
        ("chain", FrameHeader { chain: Chain(u64::MAX), ..base }),
        ("synced_to", FrameHeader { synced_to: Position(u64::MAX), ..base }),
        ("log_tag", FrameHeader { log_tag: LogTag(u32::MAX), ..base }),
        ("format", FrameHeader { format: u16::MAX, ..base }),
        ("reserved", FrameHeader { reserved: u16::MAX, ..base }),
    ] {
        differ_in(FRAME, "FrameHeader", field, &base.encode(), &changed.encode(), false);
        assert_eq!(
            FrameHeader::decode(&changed.encode()),
            Ok(changed),
            "{field} is read where it is written"
        );
    }
}

#[test]
fn index_and_footer_are_laid_out_as_their_tables_say() {
    let entry = IndexEntry { offset: Offset(1), position: Position(2), max_before: TimestampMs(3) };
    let base = Footer {
        index_entries: 1,
        record_count: 2,
        last_offset: Offset(3),
        max_timestamp: TimestampMs(4),
        chain_end: Chain(5),
        index_position: Position(6),
        log_tag: LogTag(7),
    };
    for (field, changed) in [
        ("index_entries", Footer { index_entries: u32::MAX, ..base }),
        ("record_count", Footer { record_count: u64::MAX, ..base }),
        ("last_offset", Footer { last_offset: Offset(u64::MAX), ..base }),
        ("max_timestamp", Footer { max_timestamp: TimestampMs(-1), ..base }),
        ("chain_end", Footer { chain_end: Chain(u64::MAX), ..base }),
        ("index_position", Footer { index_position: Position(u64::MAX), ..base }),
        ("log_tag", Footer { log_tag: LogTag(u32::MAX), ..base }),
    ] {
        differ_in(FOOTER, "Footer", field, &base.encode(&[]), &changed.encode(&[]), true);
    }
    assert_eq!(&base.encode(&[])[place(FOOTER, "Footer", "magic")], b"TIDEFOOT");
    for (field, changed) in [
        ("offset", IndexEntry { offset: Offset(u64::MAX), ..entry }),
        ("position", IndexEntry { position: Position(u64::MAX), ..entry }),
        ("max_before", IndexEntry { max_before: TimestampMs(-1), ..entry }),
    ] {
        let (one, other) = (base.encode(&[entry]), base.encode(&[changed]));
        differ_in(FOOTER, "IndexEntry", field, &one[..24], &other[..24], false);
    }
}
