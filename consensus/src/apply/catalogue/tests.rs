use proptest::prelude::*;
use tidelog_wire::ids::{BootEpoch, Incarnation, Partition};

use super::*;
use crate::apply::channel::ChannelState;
use crate::entry::NewChannel;

fn catalogue() -> Catalogue {
    Catalogue::genesis(&[1, 2, 3, 4].map(GroupId), &[0, 1, 2].map(NodeId))
}

fn creation(name: &str, partitions: u32) -> NewChannel {
    let uuid = name.bytes().fold(u128::from(partitions), |sum, byte| sum * 257 + u128::from(byte));
    let uuid = ChannelUuid(uuid);
    NewChannel { name: name.to_owned(), uuid, partitions, replicas: None, segment_bytes: 1 << 20 }
}

fn create(catalogue: &mut Catalogue, channel: NewChannel) -> Result<Generation, Refusal> {
    let outcome = catalogue.apply(MetaCommand::CreateChannels(vec![channel]));
    let Outcome::ChannelsCreated(mut created) = outcome else { panic!("{outcome:?}") };
    created.pop().unwrap()
}

fn created(catalogue: &mut Catalogue, name: &str, partitions: u32) -> Generation {
    create(catalogue, creation(name, partitions)).unwrap()
}

fn delete(catalogue: &mut Catalogue, generation: Generation) -> Result<(), Refusal> {
    let outcome = catalogue.apply(MetaCommand::DeleteChannels(vec![generation]));
    let Outcome::ChannelsDeleted(mut deleted) = outcome else { panic!("{outcome:?}") };
    deleted.pop().unwrap()
}

/// All groups report that the channel's logs are open.
fn opened(catalogue: &mut Catalogue, generation: Generation) {
    for group in catalogue.data_groups().collect::<Vec<_>>() {
        let report = MetaCommand::ReportLogs { group, opened: vec![generation], closed: Vec::new() };
        assert_eq!(catalogue.apply(report), Outcome::Noted);
    }
}

/// All groups report that the channel's logs are closed.
fn closed(catalogue: &mut Catalogue, generation: Generation, last_epoch: i32) {
    for group in catalogue.data_groups().collect::<Vec<_>>() {
        let closed = vec![(generation, LeaderEpoch(last_epoch))];
        let report = MetaCommand::ReportLogs { group, opened: Vec::new(), closed };
        assert_eq!(catalogue.apply(report), Outcome::Noted);
    }
}

fn end(catalogue: &mut Catalogue, generation: Generation, last_epoch: i32) {
    assert_eq!(delete(catalogue, generation), Ok(()));
    closed(catalogue, generation, last_epoch);
    assert_eq!(catalogue.channel_of(generation), None);
}

fn node(boot_epoch: u64, incarnation: u128) -> MetaCommand {
    MetaCommand::RegisterNode(NodeRecord {
        node: NodeId(1),
        incarnation: Incarnation(incarnation),
        boot_epoch: BootEpoch(boot_epoch),
        native: "127.0.0.1:1".to_owned(),
        kafka: Some("127.0.0.1:3".to_owned()),
        admin: "127.0.0.1:4".to_owned(),
        peer: "127.0.0.1:2".to_owned(),
        version: "0.1.0".to_owned(),
        apply_version_max: 2,
    })
}

/// A name that is deleted and created again is another channel: another generation, and leader epochs
/// above all of the life before.
#[test]
fn a_name_created_again_is_another_channel() {
    let mut catalogue = catalogue();
    let first = created(&mut catalogue, "orders", 1);
    opened(&mut catalogue, first);
    assert_eq!(catalogue.channel("orders").unwrap().state, ChannelState::Active);
    // While it is being deleted the name is not free.
    delete(&mut catalogue, first).unwrap();
    assert_eq!(
        create(&mut catalogue, creation("orders", 1)),
        Err(Refusal::ChannelBeingDeleted { generation: first })
    );
    closed(&mut catalogue, first, 17);
    assert_eq!(catalogue.channel("orders"), None);
    // The next life.
    let second = created(&mut catalogue, "orders", 1);
    assert!(second > first);
    let channel = catalogue.channel("orders").unwrap();
    assert!(channel.epoch_base >= 17, "terms begin at 1, so its first epoch is above");
    // Reports about the first life, come late, do not touch the second.
    closed(&mut catalogue, first, 17);
    opened(&mut catalogue, first);
    assert_eq!(catalogue.channel("orders").unwrap().state, ChannelState::Creating);
}

/// A node told only what it had seen itself: after a restart whoever asked for an ended life heard that the
/// channel is unknown, not which generation bears the name now.
#[test]
fn an_ended_life_leads_to_the_one_that_bears_its_name_now_from_bytes_too() {
    let mut catalogue = catalogue();
    let first = created(&mut catalogue, "orders", 1);
    end(&mut catalogue, first, 1);
    assert_eq!(catalogue.successor(first), None, "nobody bears the name");
    let second = created(&mut catalogue, "orders", 1);
    assert_eq!(catalogue.successor(first), Some(second));
    assert_eq!(catalogue.successor(second), None, "it has not ended");
    end(&mut catalogue, second, 2);
    let third = created(&mut catalogue, "orders", 1);
    let restarted = Catalogue::decode(&catalogue.encode()).unwrap();
    assert_eq!(restarted, catalogue);
    assert_eq!([first, second].map(|ended| restarted.successor(ended)), [Some(third); 2]);
    assert_eq!(restarted.successor(Generation(99)), None);
}

/// Even names that are no longer remembered begin above their last epoch.
#[test]
fn forgotten_names_begin_above_the_floor() {
    let mut catalogue = catalogue();
    let first = created(&mut catalogue, "orders", 1);
    end(&mut catalogue, first, 400);
    for number in 0..ENDED_LIVES_MAX {
        let generation = created(&mut catalogue, &format!("n{number}"), 1);
        end(&mut catalogue, generation, 3);
    }
    assert_eq!(catalogue.ended.len(), ENDED_LIVES_MAX);
    created(&mut catalogue, "orders", 1);
    assert_eq!(catalogue.channel("orders").unwrap().epoch_base, 400);
}

/// A channel is open once all of its groups have said so, and gone once all have closed it; what a group says of
/// a state that the channel is not in, or says twice, changes nothing.
#[test]
fn a_channel_waits_for_all_of_its_groups() {
    let mut catalogue = catalogue();
    let generation = created(&mut catalogue, "orders", 2);
    let groups: Vec<GroupId> = catalogue.channel("orders").unwrap().owing.iter().copied().collect();
    assert_eq!(groups.len(), 2);
    let open = |group| MetaCommand::ReportLogs { group, opened: vec![generation], closed: Vec::new() };
    let close = |group, epoch| MetaCommand::ReportLogs {
        group,
        opened: Vec::new(),
        closed: vec![(generation, LeaderEpoch(epoch))],
    };
    let state = |catalogue: &Catalogue| catalogue.channel_of(generation).map(|channel| channel.state);
    for report in [open(groups[0]), open(groups[0]), close(groups[1], 5)] {
        catalogue.apply(report);
        assert_eq!(state(&catalogue), Some(ChannelState::Creating));
    }
    assert_eq!(catalogue.groups_owing(), [groups[1]].into());
    catalogue.apply(open(groups[1]));
    assert_eq!(state(&catalogue), Some(ChannelState::Active));
    assert!(catalogue.groups_owing().is_empty());
    delete(&mut catalogue, generation).unwrap();
    for report in [open(groups[0]), close(groups[1], 9), close(groups[1], 90)] {
        catalogue.apply(report);
        assert_eq!(state(&catalogue), Some(ChannelState::Deleting));
    }
    catalogue.apply(close(groups[0], 4));
    assert_eq!(state(&catalogue), None);
    created(&mut catalogue, "orders", 1);
    assert!(catalogue.channel("orders").unwrap().epoch_base >= 9, "above what every group stamped");
    let unknown = GroupId(77);
    assert_eq!(catalogue.apply(open(unknown)), Outcome::Refused(Refusal::UnknownGroup { group: unknown }));
}

/// Each refusal leaves the catalogue as it was.
#[test]
fn what_is_refused_changes_nothing() {
    let mut catalogue = catalogue();
    let generation = created(&mut catalogue, "orders", 2);
    let before = catalogue.clone();
    let taken = before.channel("orders").unwrap().uuid;
    let good = || creation("other", 1);
    let refused = [
        NewChannel { partitions: 0, ..good() },
        NewChannel { partitions: PARTITIONS_PER_CHANNEL_MAX + 1, ..good() },
        NewChannel { segment_bytes: 1, ..good() },
        NewChannel { name: "or/ders".to_owned(), ..good() },
        NewChannel { name: "orders".to_owned(), ..good() },
        NewChannel { uuid: taken, ..good() },
    ]
    .map(|channel| create(&mut catalogue, channel).unwrap_err());
    assert!(
        matches!(
            refused,
            [
                Refusal::PartitionsOutOfRange { asked: 0, .. },
                Refusal::PartitionsOutOfRange { .. },
                Refusal::SegmentBytesOutOfRange { .. },
                Refusal::InvalidName { .. },
                Refusal::ChannelExists { .. },
                Refusal::UuidTaken { .. },
            ]
        ),
        "{refused:?}"
    );
    assert_eq!(refused[4], Refusal::ChannelExists { generation });
    let unknown = Generation(77);
    assert_eq!(delete(&mut catalogue, unknown), Err(Refusal::UnknownGeneration { generation: unknown }));
    assert_eq!(catalogue, before);
}

#[test]
fn partitions_are_spread_evenly_whatever_the_channels_sizes() {
    let mut catalogue = catalogue();
    for (number, partitions) in [1, 1, 1, 1, 7, 3, 2, 64, 1].into_iter().enumerate() {
        created(&mut catalogue, &format!("c{number}"), partitions);
        let most = catalogue.load.values().max().unwrap();
        let least = catalogue.load.values().min().unwrap();
        assert!(most - least <= 1, "{:?}", catalogue.load);
    }
    let channel = catalogue.channel("c4").unwrap();
    assert_eq!(channel.group(Partition(6)), Some(channel.groups[6]));
    assert_eq!(channel.group(Partition(7)), None);
}

/// An old start does not take the node's place, and neither does another data directory: that one must join.
#[test]
fn a_nodes_record_is_replaced_by_a_newer_start_of_the_same_directory_only() {
    let mut catalogue = catalogue();
    assert_eq!(catalogue.apply(node(5, 1)), Outcome::NodeRegistered);
    assert_eq!(catalogue.apply(node(5, 1)), Outcome::NodeRegistered, "said twice");
    assert_eq!(catalogue.apply(node(6, 1)), Outcome::NodeRegistered);
    assert!(matches!(catalogue.apply(node(5, 1)), Outcome::Refused(Refusal::StaleNode { .. })));
    assert!(matches!(catalogue.apply(node(9, 2)), Outcome::Refused(Refusal::OtherIncarnation { .. })));
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut catalogue = catalogue();
    assert_eq!(catalogue.apply(MetaCommand::MintProducer), Outcome::ProducerMinted(ProducerId(1)));
    assert_eq!(catalogue.apply(MetaCommand::MintProducer), Outcome::ProducerMinted(ProducerId(2)));
}

fn golden_catalogue() -> Catalogue {
    let mut catalogue = Catalogue::genesis(&[GroupId(1), GroupId(2)], &[0, 1, 2].map(NodeId));
    catalogue.apply(node(5, 0x1122));
    let gone = created(&mut catalogue, "gone", 1);
    end(&mut catalogue, gone, 9);
    let active = created(&mut catalogue, "active", 3);
    opened(&mut catalogue, active);
    created(&mut catalogue, "new", 1);
    let leaving = created(&mut catalogue, "leaving", 1);
    delete(&mut catalogue, leaving).unwrap();
    catalogue.apply(MetaCommand::MintProducer);
    catalogue
}

#[test]
fn format_1_catalogue_bytes_never_change() {
    let golden = include_bytes!("../../../testdata/format-1/catalogue.bin");
    assert_eq!(Catalogue::decode(golden), Ok(golden_catalogue()));
    assert_eq!(golden_catalogue().encode(), golden);
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
            let outcome = straight.apply(command.clone());
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
    fn damaged_catalogue_bytes_do_not_panic(at in 0_usize..600, to in any::<u8>(), cut in any::<bool>()) {
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
