//! Any commands in any order: refusals change nothing, bytes lose nothing, and ids only rise.

use proptest::prelude::*;

use super::*;

fn any_change_of_nodes_and_groups() -> impl Strategy<Value = MetaCommand> {
    let (group, id) = ((0_u64..7).prop_map(GroupId), (0_u64..4).prop_map(NodeId));
    let replica = (1_u64..20).prop_map(ReplicaId);
    let want = prop_oneof![Just(Want::Voter), Just(Want::Learner), Just(Want::Gone)];
    let replicas = prop::collection::vec(replica.clone(), 0..4);
    prop_oneof![
        (0_u128..4).prop_map(|incarnation| {
            let MetaCommand::RegisterNode(record) = node(1, incarnation) else { unreachable!() };
            MetaCommand::JoinNode(record)
        }),
        id.clone().prop_map(|node| MetaCommand::DrainNode { node }),
        id.clone().prop_map(|node| MetaCommand::ForgetNode { node }),
        (group.clone(), 0_u32..4, prop::collection::vec(id.clone(), 0..4)).prop_map(
            |(group, copies, nodes)| {
                MetaCommand::CreateGroup { group, replication: Replication::from_number(copies), nodes }
            }
        ),
        (group.clone(), id, want).prop_map(|(group, node, want)| MetaCommand::PlaceReplica {
            group,
            node,
            want
        }),
        (group.clone(), replica.clone())
            .prop_map(|(group, replica)| MetaCommand::RetireReplica { group, replica }),
        (group.clone(), replica).prop_map(|(group, lost)| MetaCommand::ReplaceReplica { group, lost }),
        (group, 0_u64..9, replicas.clone(), replicas).prop_map(|(group, index, voters, learners)| {
            let (index, outgoing) = (RaftIndex(index), Vec::new());
            MetaCommand::ReportMembers { group, index, voters, outgoing, learners }
        }),
    ]
}

fn any_command() -> impl Strategy<Value = MetaCommand> {
    let generation = (0_u64..12).prop_map(Generation);
    prop_oneof![
        (0_u64..4, 0_u128..3).prop_map(|(boot, incarnation)| node(boot, incarnation)),
        ("[abc]", 0_u32..4, any::<u128>(), 0_u64..3).prop_map(|(name, partitions, uuid, bytes)| {
            let uuid = ChannelUuid(uuid);
            let new = NewChannel { name, uuid, partitions, replicas: None, segment_bytes: bytes << 12 };
            MetaCommand::CreateChannels(vec![new])
        }),
        (1_u64..6, generation.clone()).prop_map(|(group, generation)| {
            MetaCommand::ReportLogs { group: GroupId(group), opened: vec![generation], closed: Vec::new() }
        }),
        generation.clone().prop_map(|generation| MetaCommand::DeleteChannels(vec![generation])),
        (1_u64..6, generation, 0_i32..50).prop_map(|(group, generation, epoch)| MetaCommand::ReportLogs {
            group: GroupId(group),
            opened: Vec::new(),
            closed: vec![(generation, LeaderEpoch(epoch))],
        }),
        any_change_of_nodes_and_groups(),
        Just(MetaCommand::MintProducer),
    ]
}

proptest! {
    /// At any point the catalogue survives its bytes, goes on the same from there, generations only
    /// rise, and a name's epochs only rise.
    #[test]
    fn going_on_from_bytes_is_going_on(commands in prop::collection::vec(any_command(), 0..60), at in 0_usize..60) {
        let mut straight = catalogue();
        let mut restored = catalogue();
        let mut bases: BTreeMap<String, i32> = BTreeMap::new();
        let mut newest = Generation(0);
        for (number, command) in commands.into_iter().enumerate() {
            if number == at {
                restored = Catalogue::decode(&restored.encode()).unwrap();
            }
            let before = straight.clone();
            let outcome = straight.apply(command.clone());
            if matches!(outcome, Outcome::Refused(_)) {
                prop_assert_eq!(&before, &straight, "a refusal changes nothing");
            }
            prop_assert_eq!(&outcome, &restored.apply(command));
            let created = if let Outcome::ChannelsCreated(created) = outcome { created } else { Vec::new() };
            for generation in created.into_iter().flatten() {
                prop_assert!(generation > newest);
                newest = generation;
                let channel = straight.channel_of(generation).unwrap();
                let before = bases.insert(channel.name.clone(), channel.epoch_base);
                prop_assert!(before.is_none_or(|before| before <= channel.epoch_base));
            }
        }
        prop_assert_eq!(straight.encode(), restored.encode());
    }

    /// No bytes make the decoder panic; what it accepts it writes back the same.
    #[test]
    fn damaged_catalogue_bytes_do_not_panic(at in 0_usize..1400, to in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = golden_catalogue().encode();
        if cut {
            bytes.truncate(at);
        } else if let Some(byte) = bytes.get_mut(at) {
            *byte = to;
        }
        if let Ok(catalogue) = Catalogue::decode(&bytes) {
            prop_assert_eq!(catalogue.encode(), bytes);
        }
    }
}
