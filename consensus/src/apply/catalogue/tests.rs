use proptest::prelude::*;
use tidelog_wire::ids::{BootEpoch, Incarnation, Partition};

use super::*;

fn catalogue() -> Catalogue {
    Catalogue::genesis((1..=4).map(GroupId).collect(), 3)
}

fn creation(name: &str, partitions: u32) -> MetaCommand {
    let uuid = name.bytes().fold(u128::from(partitions), |sum, byte| sum * 257 + u128::from(byte));
    MetaCommand::CreateChannel {
        name: name.to_owned(),
        uuid: ChannelUuid(uuid),
        partitions,
        replicas: None,
        segment_bytes: 1 << 20,
    }
}

fn created(catalogue: &mut Catalogue, name: &str, partitions: u32) -> Generation {
    let outcome = catalogue.apply(creation(name, partitions));
    let Outcome::ChannelCreated { generation } = outcome else { panic!("{outcome:?}") };
    generation
}

fn end(catalogue: &mut Catalogue, generation: Generation, last_epoch: i32) {
    assert_eq!(catalogue.apply(MetaCommand::DeleteChannel { generation }), Outcome::ChannelMarked);
    let last_epoch = LeaderEpoch(last_epoch);
    assert_eq!(catalogue.apply(MetaCommand::MarkDeleted { generation, last_epoch }), Outcome::ChannelMarked);
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
    })
}

/// A name that is deleted and created again is another channel: another generation, and leader epochs
/// above all of the life before.
#[test]
fn a_name_created_again_is_another_channel() {
    let mut catalogue = catalogue();
    let first = created(&mut catalogue, "orders", 1);
    assert_eq!(catalogue.apply(MetaCommand::MarkActive { generation: first }), Outcome::ChannelMarked);
    // While it is being deleted the name is not free.
    catalogue.apply(MetaCommand::DeleteChannel { generation: first });
    assert_eq!(
        catalogue.apply(creation("orders", 1)),
        Outcome::Refused(Refusal::ChannelBeingDeleted { generation: first })
    );
    let last_epoch = LeaderEpoch(17);
    catalogue.apply(MetaCommand::MarkDeleted { generation: first, last_epoch });
    assert_eq!(catalogue.channel("orders"), None);
    // The next life.
    let second = created(&mut catalogue, "orders", 1);
    assert!(second > first);
    let channel = catalogue.channel("orders").unwrap();
    assert!(channel.epoch_base >= 17, "terms begin at 1, so its first epoch is above");
    // A report about the first life, come late, does not touch the second.
    assert_eq!(
        catalogue.apply(MetaCommand::MarkDeleted { generation: first, last_epoch }),
        Outcome::ChannelMarked
    );
    assert_eq!(
        catalogue.apply(MetaCommand::MarkActive { generation: first }),
        Outcome::Refused(Refusal::UnknownGeneration { generation: first })
    );
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

#[test]
fn a_channel_that_is_not_being_deleted_cannot_be_marked_deleted() {
    let mut catalogue = catalogue();
    let generation = created(&mut catalogue, "orders", 1);
    assert_eq!(
        catalogue.apply(MetaCommand::MarkDeleted { generation, last_epoch: LeaderEpoch(1) }),
        Outcome::Refused(Refusal::NotBeingDeleted { generation })
    );
    let unknown = Generation(99);
    assert_eq!(
        catalogue.apply(MetaCommand::MarkDeleted { generation: unknown, last_epoch: LeaderEpoch(1) }),
        Outcome::Refused(Refusal::UnknownGeneration { generation: unknown })
    );
}

struct Asked {
    name: String,
    uuid: ChannelUuid,
    partitions: u32,
    replicas: Option<u32>,
    segment_bytes: u64,
}

/// Each refusal leaves the catalogue as it was.
#[test]
fn what_is_refused_changes_nothing() {
    let mut catalogue = catalogue();
    let generation = created(&mut catalogue, "orders", 2);
    let before = catalogue.clone();
    let with = |change: &dyn Fn(&mut Asked)| {
        let mut asked = Asked {
            name: "other".to_owned(),
            uuid: ChannelUuid(99),
            partitions: 1,
            replicas: None,
            segment_bytes: 1 << 20,
        };
        change(&mut asked);
        let Asked { name, uuid, partitions, replicas, segment_bytes } = asked;
        MetaCommand::CreateChannel { name, uuid, partitions, replicas, segment_bytes }
    };
    let taken = before.channel("orders").unwrap().uuid;
    let refusals: Vec<Outcome> = [
        with(&|asked| asked.partitions = 0),
        with(&|asked| asked.partitions = PARTITIONS_PER_CHANNEL_MAX + 1),
        with(&|asked| asked.replicas = Some(2)),
        with(&|asked| asked.segment_bytes = 1),
        with(&|asked| asked.name = "or/ders".to_owned()),
        with(&|asked| asked.name = "orders".to_owned()),
        with(&|asked| asked.uuid = taken),
        MetaCommand::DeleteChannel { generation: Generation(77) },
    ]
    .into_iter()
    .map(|command| catalogue.apply(command))
    .collect();
    assert!(refusals.iter().all(|outcome| matches!(outcome, Outcome::Refused(_))), "{refusals:?}");
    assert!(matches!(
        &refusals[2],
        Outcome::Refused(Refusal::ReplicasUnsupported { asked: 2, supported: 3 })
    ));
    assert!(
        matches!(&refusals[5], Outcome::Refused(Refusal::ChannelExists { generation: g }) if *g == generation)
    );
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

/// An old disk brought back, or a second node under the same number, does not take the node's place.
#[test]
fn a_nodes_record_is_replaced_by_a_newer_start_only() {
    let mut catalogue = catalogue();
    assert_eq!(catalogue.apply(node(5, 1)), Outcome::NodeRegistered);
    assert_eq!(catalogue.apply(node(5, 1)), Outcome::NodeRegistered, "said twice");
    assert!(matches!(catalogue.apply(node(4, 1)), Outcome::Refused(Refusal::StaleNode { .. })));
    assert!(matches!(catalogue.apply(node(5, 2)), Outcome::Refused(Refusal::StaleNode { .. })));
    assert_eq!(catalogue.apply(node(6, 2)), Outcome::NodeRegistered);
}

#[test]
fn producer_ids_are_never_given_twice() {
    let mut catalogue = catalogue();
    assert_eq!(catalogue.apply(MetaCommand::MintProducer), Outcome::ProducerMinted(ProducerId(1)));
    assert_eq!(catalogue.apply(MetaCommand::MintProducer), Outcome::ProducerMinted(ProducerId(2)));
}

fn golden_catalogue() -> Catalogue {
    let mut catalogue = Catalogue::genesis(vec![GroupId(1), GroupId(2)], 3);
    catalogue.apply(node(5, 0x1122));
    let gone = created(&mut catalogue, "gone", 1);
    end(&mut catalogue, gone, 9);
    let active = created(&mut catalogue, "active", 3);
    catalogue.apply(MetaCommand::MarkActive { generation: active });
    created(&mut catalogue, "new", 1);
    let leaving = created(&mut catalogue, "leaving", 1);
    catalogue.apply(MetaCommand::DeleteChannel { generation: leaving });
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
            MetaCommand::CreateChannel {
                name,
                uuid: ChannelUuid(uuid),
                partitions,
                replicas: None,
                segment_bytes: bytes << 12,
            }
        }),
        generation.clone().prop_map(|generation| MetaCommand::MarkActive { generation }),
        generation.clone().prop_map(|generation| MetaCommand::DeleteChannel { generation }),
        (generation, 0_i32..50).prop_map(|(generation, epoch)| MetaCommand::MarkDeleted {
            generation,
            last_epoch: LeaderEpoch(epoch)
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
            if let Outcome::ChannelCreated { generation } = outcome {
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
