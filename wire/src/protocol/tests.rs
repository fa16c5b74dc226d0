//! Scenarios of the protocol: what is sent arrives, and nothing that arrives does harm.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::ids::*;

fn log() -> LogId {
    LogId { generation: Generation(3), partition: Partition(1) }
}

fn requests() -> Vec<Request> {
    vec![
        Request::Metadata { channels: Some(vec!["flights".to_owned()]) },
        Request::CreateChannel {
            name: "flights".to_owned(),
            partitions: 4,
            replicas: Some(3),
            segment_bytes: None,
        },
        Request::DeleteChannel { name: "flights".to_owned(), generation: Some(Generation(3)) },
        Request::Trim { log: log(), to: Offset(1000) },
        Request::InitProducer,
        Request::Produce { log: log() },
        Request::Fetch(FetchRequest {
            log: log(),
            offset: Offset(7),
            max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait_ms: 500,
            any_replica: true,
        }),
        Request::OffsetAt { log: log(), at: OffsetSpec::Time(TimestampMs(1_700_000_000_000)) },
        Request::NodeStatus { with_logs: true },
        Request::ChainAt { log: log(), offset: Offset(9) },
        Request::TransferLeader { group: GroupId(2), to: NodeId(1) },
        Request::CreateChannels {
            channels: vec![NewChannel {
                name: "flights".to_owned(),
                partitions: 4,
                replicas: Some(3),
                segment_bytes: None,
            }],
        },
        Request::Cluster,
        Request::DrainNode { node: NodeId(2) },
        Request::ForgetNode { node: NodeId(2) },
        Request::Rebalance { dry_run: true },
        Request::SetCursor { log: log(), name: "reader".to_owned(), offset: Some(Offset(7)) },
        Request::Cursors { log: log(), name: Some("reader".to_owned()) },
        Request::Echo { through: Some(NodeId(2)) },
    ]
}

fn node() -> NodeInfo {
    NodeInfo {
        node: NodeId(1),
        native: "127.0.0.1:9010".to_owned(),
        kafka: None,
        admin: "127.0.0.1:9013".to_owned(),
        version: "0.1.0".to_owned(),
    }
}

fn metadata() -> Answer {
    Answer::Metadata(MetadataInfo {
        cluster: ClusterId(5),
        nodes: vec![node()],
        channels: vec![ChannelInfo {
            name: "flights".to_owned(),
            generation: Generation(3),
            uuid: ChannelUuid(9),
            state: ChannelState::Active,
            replicas: 3,
            segment_bytes: 1 << 26,
            partitions: vec![PartitionInfo {
                log: log(),
                group: GroupId(2),
                leader: Some(NodeId(1)),
                replicas: vec![NodeId(0), NodeId(1), NodeId(2)],
            }],
        }],
    })
}

fn status() -> Answer {
    Answer::NodeStatus(Box::new(NodeStatus {
        info: node(),
        incarnation: Incarnation(6),
        boot_epoch: BootEpoch(2),
        pid: 4711,
        ready: true,
        recovery: RecoveryProgress { phase: "done".to_owned(), done: 3, total: 3 },
        groups: vec![GroupInfo {
            group: GroupId(2),
            replica: ReplicaId(2),
            role: ReplicaRole::Leader,
            term: Term(4),
            committed: RaftIndex(100),
            applied: RaftIndex(99),
            leader: Some(NodeId(1)),
            peers: vec![PeerInfo {
                node: NodeId(0),
                replica: ReplicaId(1),
                match_index: RaftIndex(98),
                active: true,
                learner: false,
            }],
        }],
        certificate_expires: Some(TimestampMs(1_800_000_000_000)),
        logs: vec![LogInfo {
            log: log(),
            group: GroupId(2),
            log_start: Offset(0),
            end: Offset(10),
            chain: Chain(0xfeed),
            damaged: vec![DamagedRange { start: Offset(2), end: Offset(4) }],
        }],
    }))
}

fn cluster() -> Answer {
    let wanted =
        |replica, node, want| WantedReplica { replica: ReplicaId(replica), node: NodeId(node), want };
    Answer::Cluster(Box::new(ClusterInfo {
        cluster: ClusterId(5),
        current: true,
        nodes: vec![MemberNode {
            info: node(),
            peer: "127.0.0.1:9011".to_owned(),
            incarnation: Incarnation(6),
            boot_epoch: BootEpoch(2),
            state: NodeState::Draining,
            apply_version: 2,
        }],
        groups: vec![MemberGroup {
            group: GroupId(2),
            leader: Some(NodeId(1)),
            wanted: vec![wanted(1, 0, Want::Voter), wanted(4, 2, Want::Learner), wanted(3, 1, Want::Gone)],
            voters: vec![ReplicaId(1), ReplicaId(3)],
            learners: vec![ReplicaId(4)],
        }],
    }))
}

#[test]
fn a_group_is_settled_when_it_has_what_is_wanted_and_nothing_else() {
    let Answer::Cluster(mut info) = cluster() else { unreachable!() };
    let group = info.groups.first_mut().unwrap();
    assert!(!group.is_settled(), "replica 3 should be gone");
    group.voters.retain(|replica| *replica != ReplicaId(3));
    assert!(group.is_settled());
    group.learners.push(ReplicaId(9));
    assert!(!group.is_settled(), "nobody wants replica 9");
    group.learners.clear();
    assert!(!group.is_settled(), "replica 4 is missing");
}

fn answers() -> Vec<Result<Answer, ErrorReply>> {
    vec![
        Ok(metadata()),
        Ok(Answer::ChannelCreated { generation: Generation(3), uuid: ChannelUuid(9) }),
        Ok(Answer::ChannelDeleted { generation: Generation(3) }),
        Ok(Answer::Trimmed { log_start: Offset(1000) }),
        Ok(Answer::Producer { id: ProducerId(11), epoch: 0 }),
        Ok(Answer::Produced {
            base_offset: Offset(5),
            last_offset: Offset(9),
            chain: Chain(0xfeed),
            append_time: TimestampMs(1_700_000_000_000),
            duplicate: true,
        }),
        Ok(Answer::Fetched { high_watermark: Offset(10), log_start: Offset(0), next_offset: Offset(10) }),
        Ok(Answer::Offset { offset: Offset(4) }),
        Ok(status()),
        Ok(Answer::Chain { chain: Chain(1) }),
        Ok(Answer::TransferStarted),
        Ok(Answer::ChannelsCreated(vec![
            Ok(CreatedChannel { generation: Generation(3), uuid: ChannelUuid(9) }),
            Err(ErrorReply {
                code: ErrorCode::ChannelExists,
                message: "E2116".to_owned(),
                retry: Retry::Never,
            }),
        ])),
        Ok(cluster()),
        Ok(Answer::Done),
        Ok(Answer::Balance {
            replicas: vec!["group 2: a voter on node 3".to_owned()],
            leaders: vec!["group 1: leader from node 0 to node 1".to_owned()],
        }),
        Ok(Answer::Cursors(vec![CursorInfo { name: "reader".to_owned(), offset: Offset(7) }])),
        Ok(Answer::Echoed { peer_ns: Some(90_000) }),
        Err(ErrorReply {
            code: ErrorCode::NotLeader { leader: Some(NodeId(2)) },
            message: "E2101 log 3/1: node 2 leads".to_owned(),
            retry: Retry::Leader,
        }),
        Err(ErrorReply {
            code: ErrorCode::OffsetOutOfRange { asked: Offset(99), start: Offset(0), end: Offset(10) },
            message: "E2102".to_owned(),
            retry: Retry::Never,
        }),
    ]
}

fn payload_of(request: &Request) -> &'static [u8] {
    if request.takes_payload() { b"a batch" } else { b"" }
}

fn request_bytes(correlation: u64, request: &Request) -> BytesMut {
    let mut out = BytesMut::new();
    encode_request(correlation, request, payload_of(request).len(), &mut out).unwrap();
    out.put_slice(payload_of(request));
    out
}

fn take(received: &mut BytesMut) -> Result<Option<Frame>, ProtocolError> {
    Frame::take(received, FrameLimits::ANSWERS)
}

/// All frames of the protocol, one after the other, as they are kept in testdata.
fn all_frames() -> BytesMut {
    let mut out = BytesMut::new();
    Hello { version_lowest: 1, version_highest: 1, client: "golden 0.1.0".to_owned() }
        .encode(&mut out)
        .unwrap();
    HelloAnswer::Welcome(welcome()).encode(&mut out).unwrap();
    HelloAnswer::Refused(HelloRefusal { version_lowest: 1, version_highest: 1 }).encode(&mut out).unwrap();
    for (number, request) in (1..).zip(requests()) {
        out.unsplit(request_bytes(number, &request));
    }
    for (number, answer) in (1..).zip(answers()) {
        encode_answer(number, &answer, 0, &mut out).unwrap();
    }
    out
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        cluster: ClusterId(5),
        node: NodeId(1),
        incarnation: Incarnation(6),
        boot_epoch: BootEpoch(2),
        limits: ServerLimits { batch_bytes_max: 1 << 20, fetch_bytes_max: 1 << 24, requests_max: 256 },
    }
}

#[test]
fn version_1_bytes_never_change() {
    assert_eq!(all_frames(), include_bytes!("../../testdata/format-1/protocol-frames.bin").as_slice());
}

/// Every error code and every way to retry, as refusals one after the other.
fn all_refusals() -> BytesMut {
    let codes = [
        ErrorCode::NotLeader { leader: None },
        ErrorCode::UnknownChannel,
        ErrorCode::GenerationMismatch { asked: Generation(1), current: Generation(2) },
        ErrorCode::OffsetOutOfRange { asked: Offset(3), start: Offset(1), end: Offset(2) },
        ErrorCode::BatchTooLarge { bytes: 2, max: 1 },
        ErrorCode::CorruptBatch,
        ErrorCode::InvalidBatch,
        ErrorCode::OutOfOrderSequence,
        ErrorCode::ProducerFenced,
        ErrorCode::NoQuorum,
        ErrorCode::TimedOutMayHaveCommitted,
        ErrorCode::Busy { retry_after_ms: 20 },
        ErrorCode::NotReady,
        ErrorCode::DamagedRange { start: Offset(1), end: Offset(2) },
        ErrorCode::Unauthorized,
        ErrorCode::Unsupported,
        ErrorCode::InvalidRequest,
        ErrorCode::ChannelExists,
        ErrorCode::DiskFull,
        ErrorCode::ShuttingDown,
        ErrorCode::Internal,
    ];
    let retries = [Retry::Never, Retry::Here { after_ms: 20 }, Retry::Leader, Retry::MayHaveCommitted];
    let mut out = BytesMut::new();
    for (number, (code, retry)) in (1..).zip(codes.into_iter().zip(retries.into_iter().cycle())) {
        let reply = ErrorReply { code, message: String::new(), retry };
        encode_answer(number, &Err(reply), 0, &mut out).unwrap();
    }
    out
}

#[test]
fn version_1_error_codes_never_change() {
    assert_eq!(all_refusals(), include_bytes!("../../testdata/format-1/protocol-refusals.bin").as_slice());
}

#[test]
fn every_request_arrives_as_sent_in_whatever_pieces() {
    let mut sent = BytesMut::new();
    for (number, request) in (0..).zip(requests()) {
        sent.unsplit(request_bytes(number, &request));
    }
    let mut received = BytesMut::new();
    let mut arrived = Vec::new();
    for byte in sent {
        received.put_u8(byte);
        while let Some(frame) = take(&mut received).unwrap() {
            arrived.push(RequestFrame::decode(frame).unwrap());
        }
    }
    Frame::check_end(&received).unwrap();
    assert_eq!(arrived.iter().map(|frame| frame.request.clone()).collect::<Vec<_>>(), requests());
    assert_eq!(
        arrived.iter().map(|frame| frame.correlation).collect::<Vec<_>>(),
        (0..).take(requests().len()).collect::<Vec<u64>>()
    );
    assert!(arrived.iter().all(|frame| frame.payload == payload_of(&frame.request)));
}

#[test]
fn every_answer_arrives_as_sent() {
    for (number, answer) in (0..).zip(answers()) {
        let mut bytes = BytesMut::new();
        encode_answer(number, &answer, 0, &mut bytes).unwrap();
        let frame = AnswerFrame::decode(take(&mut bytes).unwrap().unwrap()).unwrap();
        assert_eq!((frame.correlation, frame.answer), (number, answer));
    }
}

#[test]
fn a_payload_comes_out_of_the_received_bytes_without_a_copy() {
    let mut received = request_bytes(1, &Request::Produce { log: log() });
    let range = received.as_ptr_range();
    let frame = RequestFrame::decode(take(&mut received).unwrap().unwrap()).unwrap();
    assert!(range.contains(&frame.payload.as_ptr()));
}

#[test]
fn a_reader_knows_how_many_bytes_are_missing() {
    let sent = request_bytes(1, &Request::Produce { log: log() });
    assert_eq!(Frame::missing_bytes(&[], FrameLimits::REQUESTS), Ok(8));
    assert_eq!(Frame::missing_bytes(&sent[..5], FrameLimits::REQUESTS), Ok(3));
    assert_eq!(Frame::missing_bytes(&sent[..10], FrameLimits::REQUESTS), Ok(sent.len() - 10));
    assert_eq!(Frame::missing_bytes(&sent, FrameLimits::REQUESTS), Ok(0));
}

#[test]
fn oversized_and_contradictory_lengths_are_refused_before_anything_is_read() {
    let lengths = |rest: u32, header: u32| {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(rest);
        bytes.put_u32_le(header);
        Frame::take(&mut bytes, FrameLimits::REQUESTS)
    };
    assert!(matches!(lengths(u32::MAX, 0), Err(ProtocolError::FrameTooLarge { part: "frame", .. })));
    assert!(matches!(lengths(70_000, 66_000), Err(ProtocolError::FrameTooLarge { part: "header", .. })));
    assert!(matches!(
        lengths(16 * 1024 * 1024 + 5, 0),
        Err(ProtocolError::FrameTooLarge { part: "payload", .. })
    ));
    assert!(matches!(lengths(3, 0), Err(ProtocolError::FrameLengths { .. })));
    assert!(matches!(lengths(10, 7), Err(ProtocolError::FrameLengths { .. })));
    assert_eq!(lengths(10, 6), Ok(None));
}

#[test]
fn a_stream_that_ends_inside_a_frame_is_noticed() {
    let sent = request_bytes(1, &Request::InitProducer);
    assert_eq!(Frame::check_end(&sent[..3]), Err(ProtocolError::CutShort { found: 3 }));
}

#[test]
fn a_broken_header_names_its_request_so_that_it_can_be_answered() {
    let mut header = BytesMut::new();
    header.put_u64_le(77);
    header.put_u8(200);
    let unknown = Frame { header: header.clone().freeze(), payload: Bytes::new() };
    let error = RequestFrame::decode(unknown).unwrap_err();
    assert!(matches!(error, ProtocolError::Header { correlation: Some(77), .. }), "{error}");

    let mut frame = take(&mut request_bytes(78, &Request::InitProducer)).unwrap().unwrap();
    frame.header = [&frame.header[..], b"!"].concat().into();
    let error = RequestFrame::decode(frame).unwrap_err();
    assert_eq!(error, ProtocolError::Trailing { what: "a request", correlation: Some(78), extra: 1 });

    let mut frame = take(&mut request_bytes(79, &Request::InitProducer)).unwrap().unwrap();
    frame.payload = Bytes::from_static(b"what");
    assert_eq!(RequestFrame::decode(frame).unwrap_err().correlation(), Some(79));

    let mut frame = take(&mut request_bytes(80, &Request::Produce { log: log() })).unwrap().unwrap();
    frame.payload = Bytes::new();
    assert!(matches!(RequestFrame::decode(frame), Err(ProtocolError::Payload { correlation: 80, .. })));
}

#[test]
fn a_list_that_claims_to_be_huge_is_refused_without_allocating_it() {
    let mut header = BytesMut::new();
    header.put_u64_le(1);
    header.put_slice(&[0, 1, 253]); // Metadata, Some, a length of eight bytes
    header.put_u64_le(1 << 40);
    let frame = Frame { header: header.freeze(), payload: Bytes::new() };
    assert!(matches!(RequestFrame::decode(frame), Err(ProtocolError::Header { correlation: Some(1), .. })));
}

#[test]
fn greetings_choose_the_newest_common_version_or_refuse() {
    let mut bytes = BytesMut::new();
    Hello::new("test").encode(&mut bytes).unwrap();
    let hello = Hello::decode(&take(&mut bytes).unwrap().unwrap()).unwrap();
    assert_eq!(hello, Hello::new("test"));
    assert_eq!(hello.choose_version(), Ok(1));
    let later = Hello { version_lowest: 2, version_highest: 9, client: String::new() };
    let refusal = later.choose_version().unwrap_err();
    for answer in [HelloAnswer::Welcome(welcome()), HelloAnswer::Refused(refusal)] {
        answer.encode(&mut bytes).unwrap();
        assert_eq!(HelloAnswer::decode(&take(&mut bytes).unwrap().unwrap()), Ok(answer));
    }
}

#[test]
fn what_is_no_greeting_is_refused() {
    let frame = take(&mut request_bytes(1, &Request::InitProducer)).unwrap().unwrap();
    assert_eq!(Hello::decode(&frame), Err(ProtocolError::NotAGreeting));
    assert_eq!(HelloAnswer::decode(&frame), Err(ProtocolError::NotAGreeting));
    let cut = Frame { header: Bytes::from_static(b"tdlg\x01"), payload: Bytes::new() };
    assert!(matches!(Hello::decode(&cut), Err(ProtocolError::Header { .. })));
    assert!(matches!(HelloAnswer::decode(&cut), Err(ProtocolError::Header { .. })));
    let newer = Frame { header: Bytes::from_static(b"tdlg\x09\x00whatever"), payload: Bytes::new() };
    assert!(matches!(HelloAnswer::decode(&newer), Err(ProtocolError::Version { spoken_lowest: 9, .. })));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_do_more_than_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut received = BytesMut::from(bytes.as_slice());
        while let Ok(Some(frame)) = take(&mut received) {
            drop(Hello::decode(&frame));
            drop(HelloAnswer::decode(&frame));
            drop(RequestFrame::decode(frame.clone()));
            drop(AnswerFrame::decode(frame));
        }
        let frame = Frame { header: bytes.into(), payload: Bytes::new() };
        drop(Hello::decode(&frame));
        drop(HelloAnswer::decode(&frame));
        drop(RequestFrame::decode(frame.clone()));
        drop(AnswerFrame::decode(frame));
    }

    #[test]
    fn changed_frames_never_do_more_than_fail(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = all_frames();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        while let Ok(Some(frame)) = take(&mut bytes) {
            drop(RequestFrame::decode(frame.clone()));
            drop(AnswerFrame::decode(frame));
        }
    }
}
