//! Offering nodes that send something else.

use bytes::Bytes;
use proptest::prelude::*;
use tidelog_engine::storage::{OpenMode, Position};
use tidelog_wire::ids::{Chain, Generation, LogId, NodeId, Offset, Partition};

use super::super::*;
use super::site::{GROUP, Offering, Site, log};
use crate::transport::BulkSource;

#[test]
fn a_damaged_segment_is_fetched_again_and_never_staged() {
    let offering = Offering::new();
    let path = offering.site.dir.join("logs/7/0/00000000000000000000.seg");
    offering.site.disk.flip_bit(&path, Position(500), 3).unwrap();
    let follower = Site::format(1);
    let error = offering.fetch(&follower).unwrap_err();
    let SnapshotError::Unverified { base: Offset(0), .. } = error else { panic!("{error}") };
    let staged = follower.storage.list(&follower.dir.join("staging/1")).unwrap();
    assert!(staged.iter().all(|entry| entry.name == "manifest"), "{staged:?}");
}

/// Story: of a fetched segment only the frames were held against the chain. Index and footer had to have a checksum that
/// holds, but could say anything: a node with a defect could hand on, say, times that no record has, and searches
/// by time on the other would have gone wrong for good.
#[test]
fn a_footer_that_does_not_follow_from_the_frames_is_refused() {
    let offering = Offering::new();
    let path = offering.site.dir.join("logs/7/0/00000000000000000000.seg");
    let mut bytes = offering.site.bytes(&path);
    let footer = bytes.len() - 64;
    let index = u64::from_le_bytes(bytes[footer + 48..footer + 56].try_into().unwrap());
    bytes[footer + 32] ^= 1;
    let crc = crc32c::crc32c(&bytes[usize::try_from(index).unwrap()..footer + 60]);
    bytes[footer + 60..].copy_from_slice(&crc.to_le_bytes());
    let file = offering.site.storage.open(&path, OpenMode::ReadWrite).unwrap();
    file.write_at(Position(0), &[&bytes]).unwrap();
    drop(file);
    let error = offering.fetch(&Site::format(1)).unwrap_err();
    let SnapshotError::Unverified { base: Offset(0), found, .. } = error else { panic!("{error}") };
    assert!(found.contains("footer follows from its frames"), "{found}");
}

#[test]
fn a_bad_beginning_of_our_own_is_thrown_away_and_all_of_it_fetched() {
    let offering = Offering::new();
    let follower = offering.follower(40);
    let active = follower.writers[0].state().active_base;
    let path = follower.dir.join(format!("logs/7/0/{:020}.seg", active.get()));
    follower.disk.flip_bit(&path, Position(300), 0).unwrap();
    offering.fetch(&follower).unwrap();
}

/// The frames of another history join each other, so cutting back to what verifies does not help: the next try
/// trusts nothing that was here.
#[test]
fn a_beginning_of_another_history_is_thrown_away_and_all_of_it_fetched() {
    let offering = Offering::new();
    let mut follower = Site::format(1);
    follower.create_logs(3);
    follower.append(20, 30);
    let staged = offering.fetch(&follower).unwrap();
    assert!(staged.fetched_bytes >= offering.manifest.file_bytes(), "nothing of it was used");
}

/// A sealed segment of our own is used as its footer says, unless it is known to be damaged.
#[test]
fn a_segment_with_a_damaged_range_is_not_used_again() {
    let offering = Offering::new();
    let follower = offering.follower(40);
    let path = follower.dir.join("logs/7/0/00000000000000000000.seg");
    follower.disk.flip_bit(&path, Position(900), 1).unwrap();
    let mut fetcher = offering.fetcher(&follower);
    fetcher.distrust(vec![(log(0), Offset(2)..Offset(3))]);
    let staged = loop {
        match fetcher.next_step().unwrap() {
            Next::Staged(staged) => break staged,
            ask @ Next::Ask { .. } => offering.serve(&mut fetcher, &ask, u64::MAX).unwrap(),
        }
    };
    assert!(!staged.reused.contains(&(log(0), Offset(0))));
    let whole = follower.dir.join("staging/1/7-0-00000000000000000000.seg");
    let theirs = offering.site.dir.join("logs/7/0/00000000000000000000.seg");
    assert_eq!(follower.bytes(&whole), offering.site.bytes(&theirs));
}

#[test]
fn more_bytes_than_the_manifest_says_are_refused() {
    let offering = Offering::new();
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    let ask = fetcher.next_step().unwrap();
    offering.serve(&mut fetcher, &ask, u64::MAX).unwrap();
    fetcher.next_step().unwrap();
    let longest = offering.manifest.files().map(|(_, file)| file.length).max().unwrap();
    let flood = vec![0; usize::try_from(longest + 1).unwrap()];
    assert!(matches!(fetcher.arrived(&flood), Err(SnapshotError::Unverified { .. })));
}

#[test]
fn a_manifest_with_another_hash_or_of_another_group_is_not_followed() {
    let offering = Offering::new();
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    fetcher.next_step().unwrap();
    let mut bytes = offering.manifest.encode().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fetcher.arrived(&bytes).unwrap();
    fetcher.ended(Ended::Complete).unwrap();
    let Next::Ask { position: 0, attempt: 1, .. } = fetcher.next_step().unwrap() else { panic!() };

    let mut other = offering.manifest.clone();
    other.group = tidelog_wire::ids::GroupId(99);
    let bytes = other.encode();
    let mut offer = offering.offer;
    offer.digest = digest(&bytes);
    offer.manifest_bytes = u64::try_from(bytes.len()).unwrap();
    let storage = std::sync::Arc::clone(&follower.storage);
    let limits = FetchLimits::default();
    let mut fetcher = Fetcher::new(storage, &follower.dir, super::site::CLUSTER, offer, limits).unwrap();
    fetcher.next_step().unwrap();
    fetcher.arrived(&bytes).unwrap();
    fetcher.ended(Ended::Complete).unwrap();
    assert!(matches!(fetcher.next_step().unwrap(), Next::Ask { position: 0, attempt: 1, .. }));
}

#[test]
fn only_the_segment_that_was_asked_for_is_served() {
    let offering = Offering::new();
    let ask = |part| {
        let request = SnapshotRequest { group: GROUP, digest: offering.offer.digest, part };
        offering.exports.open(NodeId(1), request.encode())
    };
    let other = LogId { generation: Generation(8), partition: Partition(0) };
    let (_, first) = offering.manifest.files().next().unwrap();
    assert!(ask(SnapshotPart::Manifest).is_ok());
    assert!(ask(SnapshotPart::File { log: log(0), file: first }).is_ok());
    for changed in [
        SegmentFile { base: Offset(1), ..first },
        SegmentFile { length: first.length + 1, ..first },
        SegmentFile { chain_start: Chain(9), ..first },
        SegmentFile { chain_end: Chain(9), ..first },
        SegmentFile { end: Offset(first.end.get() + 1), ..first },
    ] {
        assert!(ask(SnapshotPart::File { log: log(0), file: changed }).is_err(), "{changed:?}");
    }
    assert!(ask(SnapshotPart::File { log: other, file: first }).is_err());
    let stale = SnapshotRequest { group: GROUP, digest: 1, part: SnapshotPart::Manifest };
    assert!(offering.exports.open(NodeId(1), stale.encode()).is_err());
}

#[test]
fn a_replica_with_damage_offers_nothing() {
    let mut site = Site::format(0);
    site.create_logs(2);
    site.append(0, 10);
    let mut checkpoint = site.checkpoint(super::site::entry(11, 1), super::site::entry(11, 1));
    checkpoint.logs[0].damage = vec![Offset(3)..Offset(6)];
    let error = build_manifest(&*site.storage, &site.dir, super::site::CLUSTER, &checkpoint).unwrap_err();
    assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
}

#[test]
fn a_checkpoint_whose_segments_are_gone_is_not_offered() {
    let mut site = Site::format(0);
    site.create_logs(2);
    site.append(0, 60);
    let checkpoint = site.checkpoint(super::site::entry(61, 1), super::site::entry(61, 1));
    site.storage.remove(&site.dir.join("logs/7/0/00000000000000000000.seg")).unwrap();
    let error = build_manifest(&*site.storage, &site.dir, super::site::CLUSTER, &checkpoint).unwrap_err();
    assert!(matches!(error, SnapshotError::NotOffered { .. }), "{error}");
}

#[test]
fn names_that_do_not_belong_into_staging_are_removed() {
    let offering = Offering::new();
    let follower = Site::format(1);
    let dir = follower.dir.join("staging/1");
    follower.storage.create_dir(&dir).unwrap();
    for name in ["9-9-00000000000000000000.seg", "strange", "7-0-x.part"] {
        follower.storage.open(&dir.join(name), OpenMode::CreateNew).unwrap();
    }
    offering.fetch(&follower).unwrap();
    let left = follower.storage.list(&dir).unwrap();
    assert!(left.iter().all(|entry| entry.name.starts_with("7-") || entry.name == "manifest"), "{left:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        prop_assert!(Manifest::decode(&bytes).is_err());
        let _decoded = SnapshotRequest::decode(&bytes);
    }

    /// With a checksum that fits, every other field still has to make sense.
    #[test]
    fn a_manifest_with_any_byte_changed_is_refused_or_says_so(at in 16usize..400, bit in 0u8..8, fix in any::<bool>()) {
        static BYTES: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
        let mut bytes = BYTES.get_or_init(|| Offering::new().manifest.encode()).to_vec();
        let at = at.min(bytes.len() - 1);
        bytes[at] ^= 1 << bit;
        if fix {
            let crc = crc32c::crc32c(&bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(manifest) = Manifest::decode(&Bytes::from(bytes)) {
            prop_assert!(fix);
            drop(manifest.checkpoint());
        }
    }
}
