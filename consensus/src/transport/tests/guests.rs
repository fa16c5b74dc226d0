//! Nodes that come and go, and guests: who may ask, and whose messages are taken.

use super::*;

/// What a node knows: all of `members` in the life that [`start`] gives them, as of entry `index`.
fn directory(index: u64, members: &[(u64, SocketAddr)], named: bool) -> Directory {
    let known = |node: u64, address| {
        let PeerHello { incarnation, boot_epoch, .. } = hello(node, 1);
        let seen = Seen { incarnation, boot_epoch, session: node + 1000 };
        KnownNode { address: Some(address), life: KnownLife::Bound(seen) }
    };
    Directory {
        founding: None,
        index: RaftIndex(index),
        named_at: RaftIndex(if named { index } else { 0 }),
        nodes: members.iter().map(|(node, address)| (NodeId(*node), known(*node, *address))).collect(),
    }
}

/// Ends once `node` has a connection to `peer` that is a member's or not, as asked.
async fn stands(node: &TestNode, peer: u64, member: bool) {
    let there = async {
        while !node
            .transport
            .reachable()
            .iter()
            .any(|(hello, is)| hello.node == NodeId(peer) && *is == member)
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, there).await.expect("the standing that was asked for");
}

/// A node that nobody knows dials in: it may ask, its messages are dropped, it gets none, it fetches nothing. Once the
/// catalogue names it, the same connection carries messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_may_ask_and_becomes_a_member_once_it_is_known() {
    let authority = Authority::create(CLUSTER).unwrap();
    let [zero_at, nine_at] = free_addresses::<2>();
    let mut zero = start(&authority, hello(0, 1), &[zero_at]);
    zero.transport.know(directory(10, &[(0, zero_at)], true));
    let nine = {
        let credentials = credentials(&authority, 9);
        let peers = BTreeMap::from([(NodeId(0), zero_at), (NodeId(9), nine_at)]);
        let (sender, events) = mpsc::unbounded_channel();
        let config = TransportConfig {
            listen: nine_at,
            hello: hello(9, 1),
            session: 1009,
            credentials,
            peers,
            directory: Directory::default(),
            tuning: patient(),
        };
        let sources: (Arc<dyn BulkSource>, Arc<dyn AskSource>) = (Arc::new(NoBulk), Arc::new(Echo));
        let events_to = Arc::new(Recorder(sender));
        let transport = Transport::start(config, events_to, sources, &Handle::current()).unwrap();
        TestNode { transport, events }
    };
    stands(&zero, 9, false).await;
    assert_eq!(nine.transport.ask(NodeId(0), Bytes::from_static(b"who leads?")).await.unwrap(), "who leads?");
    let fetched = nine.transport.fetch(NodeId(0), Bytes::from_static(b"1"), 0).await.unwrap_err().to_string();
    assert!(fetched.contains("E1323"), "{fetched}");
    assert_eq!(zero.transport.send(NodeId(9), Lane::Control, GROUP, Bytes::new()), Err(Dropped::Guest));
    nine.transport.send(NodeId(0), Lane::Control, GROUP, Bytes::from_static(b"vote for me")).unwrap();
    let dropped = async {
        while zero.transport.metrics().dropped_guest.value() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, dropped).await.unwrap();
    assert!(zero.events.try_recv().is_err(), "nothing of a guest is told");

    zero.transport.know(directory(11, &[(0, zero_at), (9, nine_at)], true));
    assert_eq!(zero.up().await, hello(9, 1));
    nine.transport.send(NodeId(0), Lane::Control, GROUP, Bytes::from_static(b"now")).unwrap();
    assert_eq!(zero.message().await.2, "now");
}

/// A member whose life the catalogue ends is told of as gone, and is a guest from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_becomes_a_guest() {
    let authority = Authority::create(CLUSTER).unwrap();
    let addresses = free_addresses::<2>();
    let mut zero = start(&authority, hello(0, 1), &addresses);
    let _one = start(&authority, hello(1, 1), &addresses);
    zero.up_with(1).await;
    let mut known = directory(10, &[(0, addresses[0]), (1, addresses[1])], true);
    known.nodes.get_mut(&NodeId(1)).unwrap().life = KnownLife::Removed(hello(1, 1).incarnation);
    zero.transport.know(known);
    loop {
        if let Event::Down(NodeId(1), cause) = zero.next().await
            && cause.starts_with("E1320")
        {
            break;
        }
    }
    stands(&zero, 1, false).await;
}

/// The catalogue gives a node another address: it is dialled there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moved_is_dialled_at_its_new_address() {
    let authority = Authority::create(CLUSTER).unwrap();
    let [zero_at, before, after, nowhere] = free_addresses::<4>();
    let mut zero = start(&authority, hello(0, 1), &[zero_at, before]);
    let _one = start(&authority, hello(1, 1), &[nowhere, after]);
    zero.transport.know(directory(10, &[(0, zero_at), (1, after)], true));
    assert_eq!(zero.up().await, hello(1, 1));
}

/// Story: two of three nodes were wiped and bootstrapped anew with the same authority, and the third came back: one
/// cluster id, two clusters. They must not mix, and each side names both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_foundings_do_not_connect_and_name_both() {
    let authority = Authority::create(CLUSTER).unwrap();
    let addresses = free_addresses::<2>();
    let mut zero = start(&authority, hello(0, 1), &addresses);
    let one = start(&authority, hello(1, 1), &addresses);
    zero.up_with(1).await;
    let (ours, theirs) = (Incarnation(0xaa), Incarnation(0xbb));
    let founded =
        |founding| Directory { founding: Some(founding), index: RaftIndex(5), ..Directory::default() };
    one.transport.know(founded(theirs));
    zero.transport.know(founded(ours));
    one.transport.introduce_anew();
    loop {
        if let Event::Down(NodeId(1), _) = zero.next().await {
            break;
        }
    }
    let dialled = async {
        loop {
            let dialled = handshake::dial(&zero.transport.shared, NodeId(1), addresses[1]).await;
            let text = dialled.err().map(|error| error.to_string()).unwrap_or_default();
            if text.contains("E1321") {
                return text;
            }
        }
    };
    let text = timeout(PATIENCE, dialled).await.unwrap();
    assert!(text.contains(&ours.to_string()) && text.contains(&theirs.to_string()), "{text}");
    assert_eq!(zero.transport.connected(), []);
}
