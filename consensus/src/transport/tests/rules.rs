//! Pure parts: the bytes of hello and frames, and the choice between connections.

use proptest::prelude::*;

use super::super::frames::{FRAME_HEAD, decode_head, encode_head, lane_head, lane_of};
use super::super::hello::{HELLO_LEN, HelloFrame, common_version};
use super::super::link::{LinkFacts, Seen, admit};
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
    let facts =
        |peer, epoch, dialler| LinkFacts { peer: hello(peer, epoch), dialler: NodeId(dialler), session: 7 };
    let kept = |end: u64, order: [u64; 2]| {
        let peer = 1 - end;
        let mut current = None;
        for dialler in order {
            let candidate = facts(peer, 1, dialler);
            if admit(&candidate, current.as_ref(), Some(&candidate.seen())).is_ok() {
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
        let again = facts(1, 1, dialler);
        assert!(admit(&again, Some(&again), Some(&again.seen())).is_ok());
    }
}

#[test]
fn a_newer_life_wins_and_an_older_or_another_one_is_refused() {
    let facts = |epoch, dialler| LinkFacts { peer: hello(1, epoch), dialler: NodeId(dialler), session: 7 };
    let current = facts(5, 0);
    let seen = current.seen();
    assert!(admit(&facts(6, 1), Some(&current), Some(&seen)).is_ok());
    let stale = admit(&facts(4, 0), None, Some(&seen));
    assert!(matches!(stale, Err(TransportError::StaleBootEpoch { .. })));
    let copy = LinkFacts { session: 8, ..facts(5, 0) };
    assert!(matches!(admit(&copy, None, Some(&seen)), Err(TransportError::SecondProcess { .. })));
    assert!(admit(&LinkFacts { session: 8, ..facts(6, 0) }, None, Some(&seen)).is_ok());
    let other = Seen { incarnation: Incarnation(1), ..seen };
    let formatted = admit(&facts(6, 0), None, Some(&other));
    assert!(matches!(formatted, Err(TransportError::IncarnationChanged { .. })));
    assert!(admit(&facts(1, 1), None, None).is_ok());
}

proptest! {
    #[test]
    fn any_hello_survives_its_bytes(low in 0_u16..9, more in 0_u16..9, cluster: u128, incarnation: u128, node: u64, epoch: u64, session: u64) {
        let hello = PeerHello {
            cluster: ClusterId(cluster),
            node: NodeId(node),
            incarnation: Incarnation(incarnation),
            boot_epoch: BootEpoch(epoch),
        };
        let frame = HelloFrame { versions: (low, low + more), hello, session };
        prop_assert_eq!(HelloFrame::decode(&frame.encode()), Some(frame));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(mut bytes in prop::array::uniform32(any::<u8>()), tail in prop::collection::vec(any::<u8>(), 40), magic: bool) {
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
