//! Pure parts: the bytes of hello and frames, and the choice between connections.

use proptest::prelude::*;

use super::super::frames::{FRAME_HEAD, decode_head, encode_head, lane_head, lane_of};
use super::super::hello::{HELLO_LEN, HelloFrame, common_version};
use super::super::link::{LinkFacts, admit, judge};
use super::*;

const GOLDEN: HelloFrame = HelloFrame {
    versions: (1, 1),
    hello: PeerHello {
        cluster: ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        node: NodeId(2),
        incarnation: Incarnation(0xf0e0_d0c0_b0a0_9080_7060_5040_3020_1000),
        boot_epoch: BootEpoch(41),
    },
    session: 0x0807_0605_0403_0201,
    founding: Some(Incarnation(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10)),
    named_at: RaftIndex(0x1112_1314_1516_1718),
};

#[test]
fn format_1_hello_bytes_never_change() {
    let bytes = include_bytes!("../../../testdata/format-1/peer-hello.bin");
    assert_eq!(HelloFrame::decode(bytes), Some(GOLDEN));
    assert_eq!(&GOLDEN.encode(), bytes);
}

#[test]
fn format_1_frame_bytes_never_change() {
    let bytes = include_bytes!("../../../testdata/format-1/peer-frame.bin");
    let head = encode_head(GroupId(0x0102_0304_0506_0708), &Bytes::from_static(b"message")).unwrap();
    let frame = [&lane_head(Lane::Append)[..], &head, b"message"].concat();
    assert_eq!(frame, bytes);
    let head = *bytes[4..].first_chunk().unwrap();
    assert_eq!(decode_head(head, NodeId(1)).unwrap(), (7, GroupId(0x0102_0304_0506_0708)));
}

#[test]
fn lanes_are_told_apart_by_all_four_bytes() {
    for lane in [Lane::Control, Lane::Append] {
        assert_eq!(lane_of(lane_head(lane)), Some(lane));
        for at in 0..4 {
            let mut other = lane_head(lane);
            other[at] ^= 0x80;
            assert_eq!(lane_of(other), None);
        }
    }
}

#[test]
fn the_newest_common_version_is_chosen() {
    assert_eq!(common_version((1, 3), (2, 5)), Some(3));
    assert_eq!(common_version((2, 5), (1, 3)), Some(3));
    assert_eq!(common_version((1, 1), (2, 2)), None);
    assert_eq!(common_version((4, 4), (1, 3)), None);
}

/// Every pair of connections between two nodes: both ends keep the same one, whichever came first.
#[test]
fn both_ends_choose_alike() {
    let kept = |end: u64, order: [u64; 2]| {
        let mut current = None;
        for dialler in order {
            let candidate = LinkFacts { dialler: NodeId(dialler), ..facts(1 - end, 1) };
            if admit((&candidate, true), current.as_ref().map(|current| (current, true))).is_ok() {
                current = Some(candidate);
            }
        }
        current.unwrap().dialler
    };
    for order in [[0, 1], [1, 0]] {
        assert_eq!(kept(0, order), NodeId(0));
        assert_eq!(kept(1, order), NodeId(0));
    }
    // The same node dialled again: it has given up the first.
    for dialler in [0, 1] {
        let again = LinkFacts { dialler: NodeId(dialler), ..facts(1, 1) };
        assert!(admit((&again, true), Some((&again, true))).is_ok());
    }
}

fn facts(node: u64, epoch: u64) -> LinkFacts {
    let peer = hello(node, epoch);
    LinkFacts { peer, dialler: NodeId(0), session: 7, named_at: RaftIndex(0), founding: None }
}

/// A directory as of entry 100 in which node 1 has the life that [`facts`] gives, begun with epoch 5.
fn directory() -> Directory {
    let life = |life| KnownNode { address: None, life };
    let nodes = [
        (NodeId(1), life(KnownLife::Bound(facts(1, 5).seen()))),
        (NodeId(2), life(KnownLife::Unbound)),
        (NodeId(3), life(KnownLife::Removed(hello(3, 1).incarnation))),
    ];
    Directory { index: RaftIndex(100), nodes: nodes.into(), ..Directory::default() }
}

const FORMATTED: Incarnation = Incarnation(999);

#[test]
fn a_life_that_the_catalogue_names_is_a_member_and_any_other_a_guest() {
    use TransportError as E;
    let of = |link: LinkFacts| judge(&link, &directory(), None);
    assert!(of(facts(1, 5)).is_ok());
    assert!(of(facts(1, 6)).is_ok(), "a later start has yet to register");
    assert!(of(LinkFacts { session: 8, ..facts(1, 6) }).is_ok());
    assert!(matches!(of(facts(1, 4)), Err(E::StaleBootEpoch { .. })));
    assert!(matches!(of(LinkFacts { session: 8, ..facts(1, 5) }), Err(E::SecondProcess { .. })));
    let formatted = LinkFacts { peer: PeerHello { incarnation: FORMATTED, ..hello(1, 9) }, ..facts(1, 9) };
    assert!(matches!(of(formatted), Err(E::IncarnationChanged { .. })));
    assert!(of(facts(2, 1)).is_ok(), "not bound yet");
    assert!(matches!(of(facts(3, 9)), Err(E::Removed { .. })));
    assert!(matches!(of(facts(4, 1)), Err(E::UnknownNode { .. })));
}

/// Story: a node that was away while others were replaced would have taken their successors for guests. Had one of
/// them come to lead, it would never have learned better.
#[test]
fn whose_catalogue_is_ahead_of_ours_knows_better_than_we_do_who_it_is() {
    let ahead = |link: LinkFacts| LinkFacts { named_at: RaftIndex(101), ..link };
    let formatted = LinkFacts { peer: PeerHello { incarnation: FORMATTED, ..hello(1, 1) }, ..facts(1, 1) };
    assert!(judge(&ahead(formatted), &directory(), None).is_ok());
    assert!(judge(&ahead(facts(4, 1)), &directory(), None).is_ok());
    // But never the very life that was replaced or removed.
    assert!(judge(&ahead(facts(1, 4)), &directory(), None).is_err());
    assert!(judge(&ahead(facts(3, 2)), &directory(), None).is_err());
    let behind = LinkFacts { named_at: RaftIndex(100), ..formatted };
    assert!(judge(&behind, &directory(), None).is_err());
}

#[test]
fn what_this_process_has_seen_counts_before_there_is_a_catalogue() {
    use TransportError as E;
    let seen = facts(1, 5).seen();
    let of = |link: LinkFacts| judge(&link, &Directory::default(), Some(&seen));
    assert!(judge(&facts(1, 1), &Directory::default(), None).is_ok());
    assert!(of(facts(1, 6)).is_ok());
    assert!(matches!(of(facts(1, 4)), Err(E::StaleBootEpoch { .. })));
    assert!(matches!(of(LinkFacts { session: 8, ..facts(1, 5) }), Err(E::SecondProcess { .. })));
    let formatted = LinkFacts { peer: PeerHello { incarnation: FORMATTED, ..hello(1, 9) }, ..facts(1, 9) };
    assert!(matches!(of(formatted), Err(E::IncarnationChanged { .. })));
}

#[test]
fn a_newer_life_wins_and_a_guest_never_takes_the_place_of_a_member() {
    let current = facts(1, 5);
    assert!(admit((&LinkFacts { dialler: NodeId(1), ..facts(1, 6) }, true), Some((&current, true))).is_ok());
    let stale = admit((&facts(1, 4), false), Some((&current, true)));
    assert!(matches!(stale, Err(TransportError::StaleBootEpoch { .. })));
    assert!(admit((&facts(1, 4), false), None).is_ok(), "alone, it may ask");
    let formatted = LinkFacts { peer: PeerHello { incarnation: FORMATTED, ..hello(1, 9) }, ..facts(1, 9) };
    let refused = admit((&formatted, false), Some((&current, true)));
    assert!(matches!(refused, Err(TransportError::IncarnationChanged { .. })));
    assert!(admit((&formatted, true), Some((&current, true))).is_ok());
    assert!(admit((&formatted, false), Some((&current, false))).is_ok());
}

proptest! {
    #[test]
    fn any_hello_survives_its_bytes(low in 0_u16..9, more in 0_u16..9, cluster: u128, incarnation: u128, node: u64, epoch: u64, session: u64, founding: u128, named_at: u64) {
        let hello = PeerHello {
            cluster: ClusterId(cluster),
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            boot_epoch: BootEpoch(epoch),
        };
        let frame = HelloFrame {
            versions: (low, low + more),
            hello,
            session,
            founding: Some(Incarnation(founding)).filter(|founding| founding.0 != 0),
            named_at: RaftIndex(named_at),
        };
        prop_assert_eq!(HelloFrame::decode(&frame.encode()), Some(frame));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(mut bytes in prop::array::uniform32(any::<u8>()), tail in prop::collection::vec(any::<u8>(), 64), magic: bool) {
        if magic {
            bytes[..8].copy_from_slice(b"tidelgPR");
        }
        let all: [u8; HELLO_LEN] = [&bytes[..], &tail].concat().try_into().unwrap();
        if let Some(frame) = HelloFrame::decode(&all) {
            prop_assert_eq!(frame.encode(), all);
        }
        let head: [u8; FRAME_HEAD] = *bytes.first_chunk().unwrap();
        if let Ok((length, _)) = decode_head(head, NodeId(0)) {
            prop_assert!(length <= MESSAGE_BYTES_MAX);
        }
    }
}
