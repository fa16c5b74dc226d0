use proptest::prelude::*;
use tidelog_wire::ids::{BootEpoch, ChannelUuid, Incarnation, LeaderEpoch, NodeId, ReplicaId};

use super::*;

fn log() -> LogId {
    LogId { generation: Generation(0x0102_0304_0506_0708), partition: Partition(9) }
}

fn record() -> NodeRecord {
    NodeRecord {
        node: NodeId(2),
        incarnation: Incarnation(0x1122),
        boot_epoch: BootEpoch(7),
        session: 9,
        native: "127.0.0.1:9020".to_owned(),
        kafka: None,
        admin: "127.0.0.1:9023".to_owned(),
        peer: "127.0.0.1:9021".to_owned(),
        version: "0.1.0".to_owned(),
        apply_version_max: 2,
    }
}

fn new_channel() -> NewChannel {
    NewChannel {
        name: "flights".to_owned(),
        uuid: ChannelUuid(0xabcd),
        partitions: 3,
        replicas: Some(3),
        segment_bytes: 1 << 26,
    }
}

fn other_channel() -> NewChannel {
    NewChannel { name: "orders".to_owned(), uuid: ChannelUuid(0xabce), replicas: None, ..new_channel() }
}

macro_rules! case {
    ($name:literal, $command:expr) => {
        ($name, include_bytes!(concat!("../../testdata/format-1/entry/", $name, ".bin")).as_slice(), $command)
    };
}

type Golden = (&'static str, &'static [u8], Command);

fn golden() -> Vec<Golden> {
    [golden_of_logs(), golden_of_nodes(), golden_of_groups(), golden_of_channels()].concat()
}

fn golden_of_logs() -> Vec<Golden> {
    let generation = Generation(41);
    vec![
        case!(
            "append",
            Command::Append {
                log: log(),
                append_time: TimestampMs(1_700_000_000_123),
                batch: Bytes::from_static(b"a batch as it came"),
            }
        ),
        case!(
            "open-logs",
            Command::OpenLogs {
                logs: vec![
                    OpenLog { log: log(), segment_bytes: 1 << 26, epoch_base: 0 },
                    OpenLog {
                        log: LogId { generation, partition: Partition(0) },
                        segment_bytes: 4096,
                        epoch_base: 12,
                    },
                ],
            }
        ),
        case!("close-logs", Command::CloseLogs { generations: vec![generation, Generation(42)] }),
        case!("set-log-start", Command::SetLogStart { log: log(), start: Offset(77) }),
        case!("expire-producers", Command::ExpireProducers { log: log(), before: TimestampMs(-5) }),
        case!(
            "set-cursor",
            Command::SetCursor { log: log(), name: "billing".to_owned(), offset: Offset(12) }
        ),
        case!("delete-cursor", Command::DeleteCursor { log: log(), name: "billing".to_owned() }),
        case!("raise-apply-version", Command::RaiseApplyVersion { version: 2 }),
    ]
}

fn golden_of_nodes() -> Vec<Golden> {
    vec![
        case!("register-node", Command::Meta(MetaCommand::RegisterNode(record()))),
        case!(
            "register-node-kafka",
            Command::Meta(MetaCommand::RegisterNode(NodeRecord {
                kafka: Some("127.0.0.1:9022".to_owned()),
                ..record()
            }))
        ),
        case!("join-node", Command::Meta(MetaCommand::JoinNode(record()))),
        case!("drain-node", Command::Meta(MetaCommand::DrainNode { node: NodeId(2) })),
        case!("forget-node", Command::Meta(MetaCommand::ForgetNode { node: NodeId(2) })),
    ]
}

fn golden_of_groups() -> Vec<Golden> {
    vec![
        case!(
            "create-group",
            Command::Meta(MetaCommand::CreateGroup {
                group: GroupId(5),
                replication: Replication::Fixed(2),
                nodes: vec![NodeId(0), NodeId(2)],
            })
        ),
        case!(
            "place-replica",
            Command::Meta(MetaCommand::PlaceReplica {
                group: GroupId(5),
                node: NodeId(2),
                want: Want::Learner
            })
        ),
        case!(
            "retire-replica",
            Command::Meta(MetaCommand::RetireReplica { group: GroupId(5), replica: ReplicaId(6) })
        ),
        case!(
            "replace-replica",
            Command::Meta(MetaCommand::ReplaceReplica { group: GroupId(5), lost: ReplicaId(6) })
        ),
    ]
}

fn golden_of_channels() -> Vec<Golden> {
    let generation = Generation(41);
    vec![
        case!(
            "create-channels",
            Command::Meta(MetaCommand::CreateChannels(vec![new_channel(), other_channel()]))
        ),
        case!(
            "delete-channels",
            Command::Meta(MetaCommand::DeleteChannels(vec![generation, Generation(43)]))
        ),
        case!(
            "report-logs",
            Command::Meta(MetaCommand::ReportLogs {
                group: GroupId(3),
                opened: vec![generation],
                closed: vec![(Generation(7), LeaderEpoch(17))],
            })
        ),
        case!(
            "report-members",
            Command::Meta(MetaCommand::ReportMembers {
                group: GroupId(3),
                index: RaftIndex(99),
                voters: vec![ReplicaId(1), ReplicaId(2)],
                outgoing: vec![ReplicaId(3)],
                learners: vec![ReplicaId(8)],
            })
        ),
        case!("mint-producer", Command::Meta(MetaCommand::MintProducer)),
    ]
}

fn entry(context: Vec<u8>, data: Bytes) -> Entry {
    let mut entry = Entry::default();
    entry.set_index(5);
    entry.set_term(3);
    entry.set_context(context.into());
    entry.set_data(data);
    entry
}

/// Golden files hold the context's length (2 bytes), the context, the data.
fn joined(context: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(context.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(context);
    bytes.extend_from_slice(data);
    bytes
}

fn parted(bytes: &[u8]) -> Entry {
    let (len, rest) = bytes.split_first_chunk::<2>().unwrap();
    let (context, data) = rest.split_at(usize::from(u16::from_le_bytes(*len)));
    entry(context.to_vec(), Bytes::copy_from_slice(data))
}

#[test]
fn format_1_entry_bytes_never_change() {
    for (name, bytes, command) in golden() {
        let (context, data) = encode(command.clone());
        assert_eq!(joined(&context, &data), bytes, "{name}");
        assert_eq!(decode(GroupId(1), &parted(bytes)), Ok(Some(command)), "{name}");
    }
}

/// An unknown version or kind is an error with its place, never a skipped entry.
#[test]
fn unknown_version_and_kind_stop_apply() {
    let (mut context, data) = encode(Command::Meta(MetaCommand::MintProducer));
    context[2] = 99;
    assert!(matches!(
        decode(GroupId(0), &entry(context.clone(), data.clone())),
        Err(EntryError::UnknownKind { index: RaftIndex(5), term: Term(3), found: 99, .. })
    ));
    context[0] = 2;
    assert!(matches!(
        decode(GroupId(0), &entry(context, data)),
        Err(EntryError::UnknownVersion { found: 2, expected: 1, .. })
    ));
}

#[test]
fn reserved_bytes_and_trailing_bytes_are_refused() {
    let (mut context, data) = encode(Command::CloseLogs { generations: vec![Generation(1)] });
    let longer = [&data[..], &[0]].concat();
    assert!(matches!(
        decode(GroupId(1), &entry(context.clone(), longer.into())),
        Err(EntryError::Malformed { .. })
    ));
    context[3] = 1;
    assert!(matches!(decode(GroupId(1), &entry(context, data)), Err(EntryError::Malformed { .. })));
}

#[test]
fn a_new_leaders_empty_entry_and_a_member_change_carry_no_command() {
    assert_eq!(decode(GroupId(1), &entry(Vec::new(), Bytes::new())), Ok(None));
    let mut change = entry(Vec::new(), Bytes::from_static(b"change"));
    change.set_entry_type(EntryType::EntryConfChangeV2);
    assert_eq!(decode(GroupId(1), &change), Ok(None));
}

#[test]
fn the_log_of_an_append_is_read_off_its_context() {
    let append = Command::Append { log: log(), append_time: TimestampMs(1), batch: Bytes::new() };
    assert_eq!(routed_log(&encode(append).0), Some(log()));
    assert_eq!(routed_log(&encode(Command::Meta(MetaCommand::MintProducer)).0), None);
    assert_eq!(routed_log(&[1]), None);
}

proptest! {
    /// No bytes make the decoder panic, and what it accepts it writes back the same.
    #[test]
    fn decoding_is_total_and_exact(
        version in 0_u16..3,
        kind in 0_u8..32,
        more in prop::collection::vec(any::<u8>(), 0..24),
        data in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut context = version.to_le_bytes().to_vec();
        context.extend_from_slice(&[kind, 0]);
        context.extend_from_slice(&more);
        let entry = entry(context.clone(), data.clone().into());
        if let Ok(Some(command)) = decode(GroupId(1), &entry) {
            prop_assert_eq!(encode(command), (context, Bytes::from(data)));
        }
    }

    /// A golden entry with one byte changed, or cut short, is an error or another command, never a panic.
    #[test]
    fn damaged_entries_do_not_panic(which in 0_usize..22, at in 0_usize..200, to in any::<u8>(), cut in any::<bool>()) {
        let (_, bytes, _) = golden().swap_remove(which);
        let mut entry = parted(bytes);
        let mut data = entry.data.to_vec();
        if cut {
            data.truncate(at);
        } else if let Some(byte) = data.get_mut(at) {
            *byte = to;
        }
        entry.set_data(data.into());
        if let Ok(Some(command)) = decode(GroupId(1), &entry) {
            prop_assert_eq!(encode(command).1, entry.data);
        }
    }
}
