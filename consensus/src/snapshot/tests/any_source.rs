//! Any node that has the bytes will do: the offering one may die, rot or lag behind.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidelog_engine::checkpoint::LogConfig;
use tidelog_engine::storage::Position;
use tidelog_wire::ids::NodeId;

use super::super::*;
use super::site::{Offering, Site, serve};

/// Serves what a site has, without having been asked for a snapshot.
fn bystander(site: &Site) -> Exports {
    Exports::new(Arc::clone(&site.storage), &site.dir, ExportLimits::default())
}

/// Fetches from whoever of `nodes` is asked, and says who was, in order; whoever is none of them is down.
fn fetch_from(
    fetcher: &mut Fetcher,
    nodes: &BTreeMap<NodeId, &Exports>,
) -> Result<(StagedSnapshot, Vec<NodeId>), SnapshotError> {
    let mut asked = Vec::new();
    for _ in 0..1_000 {
        match fetcher.next_step()? {
            Next::Staged(staged) => return Ok((staged, asked)),
            ask @ Next::Ask { from, .. } => {
                asked.push(from);
                match nodes.get(&from) {
                    Some(exports) => serve(exports, fetcher, &ask, u64::MAX)?,
                    None => fetcher.ended(Ended::Broken("it is down".to_owned()))?,
                }
            }
        }
    }
    panic!("the fetch never ends");
}

/// The node that made the offer dies after a part of it. Another one, which has applied more meanwhile and never
/// offered anything, has the rest, and not a byte is fetched twice.
#[test]
fn a_leader_that_dies_in_the_middle_costs_a_retry_from_another_node() {
    let offering = Offering::new();
    let ahead = offering.peer(2, 75);
    let other = bystander(&ahead);
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    fetcher.ask_also(&[NodeId(2)]);
    for _ in 0..5 {
        let ask = fetcher.next_step().unwrap();
        assert!(matches!(ask, Next::Ask { from: NodeId(0), .. }), "the offering node is asked first");
        offering.serve(&mut fetcher, &ask, 1_500).unwrap();
    }
    let (staged, asked) = fetch_from(&mut fetcher, &BTreeMap::from([(NodeId(2), &other)])).unwrap();
    assert_eq!(asked[..2], [NodeId(0), NodeId(2)], "one try to the dead one, then the other");
    assert!(asked[1..].iter().all(|node| *node == NodeId(2)), "{asked:?}");
    assert_eq!(staged.fetched_bytes, offering.manifest.file_bytes() + offering.offer.manifest_bytes);
}

/// A bit flipped on the disk of the node that is asked first. What verifies before it is kept.
#[test]
fn a_segment_that_rotted_on_one_disk_is_fetched_from_another() {
    let offering = Offering::new();
    let path = offering.site.dir.join("logs/7/0/00000000000000000000.seg");
    offering.site.disk.flip_bit(&path, Position(3_000), 3).unwrap();
    let good = offering.peer(2, 60);
    let other = bystander(&good);
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    fetcher.ask_also(&[NodeId(2)]);
    let nodes = BTreeMap::from([(NodeId(0), &offering.exports), (NodeId(2), &other)]);
    let (staged, asked) = fetch_from(&mut fetcher, &nodes).unwrap();
    assert!(asked.contains(&NodeId(2)));
    let once = offering.manifest.file_bytes() + offering.offer.manifest_bytes;
    let (_, rotten) = offering.manifest.files().next().unwrap();
    let again = staged.fetched_bytes - once;
    assert!(again > 0 && again < rotten.length - 2_000, "{again} of {} bytes came twice", rotten.length);
}

/// A node that has not come as far refuses what it does not have, and is passed over for that.
#[test]
fn a_node_that_lags_behind_is_passed_over() {
    let offering = Offering::new();
    let (behind, ahead) = (offering.peer(2, 10), offering.peer(3, 60));
    let (behind, ahead) = (bystander(&behind), bystander(&ahead));
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    fetcher.ask_also(&[NodeId(2), NodeId(3)]);
    let ask = fetcher.next_step().unwrap();
    offering.serve(&mut fetcher, &ask, u64::MAX).unwrap();
    let nodes = BTreeMap::from([(NodeId(2), &behind), (NodeId(3), &ahead)]);
    let (staged, _) = fetch_from(&mut fetcher, &nodes).unwrap();
    assert_eq!(staged.fetched_bytes, offering.manifest.file_bytes() + offering.offer.manifest_bytes);
}

/// Everybody has the same rotten bytes: the attempt ends, and nothing of them is staged.
#[test]
fn a_segment_that_rotted_everywhere_ends_the_attempt() {
    let offering = Offering::new();
    let other = offering.peer(2, 60);
    let path = offering.site.dir.join("logs/7/0/00000000000000000000.seg");
    for site in [&offering.site, &other] {
        site.disk.flip_bit(&path, Position(500), 3).unwrap();
    }
    let other = bystander(&other);
    let follower = Site::format(1);
    let mut fetcher = offering.fetcher(&follower);
    fetcher.ask_also(&[NodeId(2)]);
    let nodes = BTreeMap::from([(NodeId(0), &offering.exports), (NodeId(2), &other)]);
    let error = fetch_from(&mut fetcher, &nodes).unwrap_err();
    assert!(matches!(error, SnapshotError::Unverified { .. }), "{error}");
    let staged = follower.storage.list(&follower.dir.join("staging/1")).unwrap();
    assert!(staged.iter().all(|entry| entry.name == "manifest"), "{staged:?}");
}

/// One segment holds everything, and the follower lacks its tail.
#[test]
fn of_an_active_segment_only_the_tail_is_fetched_that_the_follower_lacks() {
    let offering = Offering::of(LogConfig { segment_bytes: 256 << 20, epoch_base: 0 });
    for applied in [0, 1, 30, 59, 60] {
        let follower = offering.follower(applied);
        let staged = offering.fetch(&follower).unwrap();
        let held: u64 = follower.writers.iter().map(|writer| writer.state().active_position.get()).sum();
        let lacks = offering.manifest.file_bytes() - held;
        assert_eq!(staged.fetched_bytes, lacks + offering.offer.manifest_bytes, "{applied} of 60 batches");
        assert_eq!(staged.file_bytes, offering.manifest.file_bytes());
    }
}
