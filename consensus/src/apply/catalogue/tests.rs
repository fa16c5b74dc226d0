mod random;

use tidelog_wire::ids::{BootEpoch, Incarnation, Partition, RaftIndex};

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
        session: 9,
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

/// Thousands of channels come in one entry, each with an outcome of its own, and go the same way.
#[test]
fn thousands_of_channels_are_one_entry() {
    let mut catalogue = catalogue();
    let mut channels: Vec<NewChannel> = (0..4000).map(|number| creation(&format!("c{number}"), 1)).collect();
    channels[7].name = "c3".to_owned();
    channels[8].partitions = 0;
    let outcome = catalogue.apply(MetaCommand::CreateChannels(channels));
    let Outcome::ChannelsCreated(created) = outcome else { panic!("{outcome:?}") };
    assert_eq!(created.len(), 4000);
    assert_eq!(created[7], Err(Refusal::ChannelExists { generation: created[3].clone().unwrap() }));
    assert!(matches!(created[8], Err(Refusal::PartitionsOutOfRange { .. })));
    let generations: Vec<Generation> = created.into_iter().flatten().collect();
    assert_eq!(generations.len(), 3998);
    for group in catalogue.data_groups().collect::<Vec<_>>() {
        let own: Vec<Generation> = catalogue.owed_by(group).map(|channel| channel.generation).collect();
        assert!(own.len().abs_diff(1000) <= 1, "{}", own.len());
        catalogue.apply(MetaCommand::ReportLogs { group, opened: own, closed: Vec::new() });
    }
    assert!(catalogue.channels().all(|channel| channel.state == ChannelState::Active));
    catalogue.apply(MetaCommand::DeleteChannels(generations));
    assert!(catalogue.channels().all(|channel| channel.state == ChannelState::Deleting));
}

/// A channel that asks for copies gets groups of that many, made when they are first needed, as many as there are nodes;
/// what the cluster does by itself needs none of its own.
#[test]
fn channels_that_ask_for_copies_get_groups_of_their_own() {
    let mut catalogue = catalogue();
    let with = |name: &str, replicas| NewChannel { replicas: Some(replicas), ..creation(name, 2) };
    create(&mut catalogue, with("three", 3)).unwrap();
    assert_eq!(catalogue.data_groups().count(), 4);
    create(&mut catalogue, with("one", 1)).unwrap();
    create(&mut catalogue, with("one-more", 1)).unwrap();
    assert_eq!(catalogue.data_groups().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7].map(GroupId));
    for name in ["one", "one-more"] {
        let channel = catalogue.channel(name).unwrap();
        assert!(channel.groups.iter().all(|group| *group > GroupId(4)), "{channel:?}");
        assert_eq!(catalogue.copies(channel), 1);
    }
    let own: Vec<NodeId> =
        (5..=7).map(|group| catalogue.group(GroupId(group)).unwrap().genesis[0].1).collect();
    assert_eq!(own, [0, 1, 2].map(NodeId), "each node has one");
    let few = create(&mut catalogue, with("four", 4)).unwrap_err();
    assert_eq!(few, Refusal::TooFewNodes { nodes: 3, needed: 4 });
    let many = create(&mut catalogue, with("many", REPLICAS_MAX + 1)).unwrap_err();
    assert_eq!(many, Refusal::ReplicasOutOfRange { asked: REPLICAS_MAX + 1, max: REPLICAS_MAX });
}

/// A node that comes with an empty directory gives up what its replicas had promised: each has a successor, and the
/// old directory is never taken back.
#[test]
fn a_node_that_lost_its_directory_gets_new_replicas_and_the_old_ones_never_come_back() {
    let mut catalogue = catalogue();
    let (registered, joined) = (node(5, 1), |incarnation| {
        let MetaCommand::RegisterNode(record) = node(1, incarnation) else { unreachable!() };
        MetaCommand::JoinNode(record)
    });
    assert_eq!(catalogue.apply(registered.clone()), Outcome::NodeRegistered);
    let old = catalogue.replica_on(GroupId(2), NodeId(1), Incarnation(1)).unwrap();
    assert_eq!(catalogue.apply(joined(2)), Outcome::NodeRegistered);
    let new = catalogue.replica_on(GroupId(2), NodeId(1), Incarnation(2)).unwrap();
    assert!(new > old);
    assert_eq!(catalogue.group(GroupId(2)).unwrap().replicas[&old].want, Want::Gone);
    let again = catalogue.clone();
    assert_eq!(catalogue.apply(joined(2)), Outcome::NodeRegistered);
    assert_eq!(catalogue, again, "said twice");
    for stale in [registered, joined(1)] {
        let refused = Refusal::IncarnationRetired { node: NodeId(1), incarnation: Incarnation(1) };
        assert_eq!(catalogue.apply(stale), Outcome::Refused(refused));
    }
    assert_eq!(catalogue, again);
}

/// A node leaves when nothing is on it, leaves a tombstone, and may come back with another directory only.
#[test]
fn a_drained_node_is_forgotten_when_it_is_empty() {
    let mut catalogue = catalogue();
    catalogue.apply(node(5, 1));
    let (id, refused) = (NodeId(1), |refusal| Outcome::Refused(refusal));
    let forget = || MetaCommand::ForgetNode { node: id };
    assert_eq!(catalogue.apply(forget()), refused(Refusal::NodeNotEmpty { node: id, replicas: 5 }));
    assert_eq!(catalogue.apply(MetaCommand::DrainNode { node: id }), Outcome::Noted);
    let place = MetaCommand::PlaceReplica { group: GroupId(1), node: id, want: Want::Voter };
    assert_eq!(catalogue.apply(place), refused(Refusal::NodeState { node: id, state: NodeState::Draining }));
    for group in catalogue.groups().map(|(group, _)| group).collect::<Vec<_>>() {
        let (replica, _) = catalogue.group(group).unwrap().on(id).unwrap();
        assert_eq!(catalogue.apply(MetaCommand::RetireReplica { group, replica }), Outcome::Noted);
        assert_eq!(
            catalogue.replicas_of(id).filter(|(of, _, _)| *of == group).count(),
            1,
            "it may still vote"
        );
        let voters: Vec<ReplicaId> =
            catalogue.group(group).unwrap().wanted().map(|(replica, _)| replica).collect();
        let (outgoing, learners) = (Vec::new(), Vec::new());
        let report = MetaCommand::ReportMembers { group, index: RaftIndex(9), voters, outgoing, learners };
        assert_eq!(catalogue.apply(report), Outcome::Noted);
    }
    assert_eq!(catalogue.apply(forget()), Outcome::Noted);
    assert_eq!(catalogue.apply(forget()), Outcome::Noted, "said twice");
    assert!(catalogue.nodes().all(|record| record.node != id));
    assert!(matches!(catalogue.apply(node(9, 1)), Outcome::Refused(Refusal::IncarnationRetired { .. })));
    assert!(matches!(catalogue.apply(node(9, 2)), Outcome::Refused(Refusal::NodeState { .. })));
    let MetaCommand::RegisterNode(record) = node(1, 2) else { unreachable!() };
    assert_eq!(catalogue.apply(MetaCommand::JoinNode(record)), Outcome::NodeRegistered);
    assert_eq!(catalogue.node_state(id), Some(NodeState::Joining));
}

/// Ids are minted once: what is said twice, late or out of turn mints nothing and breaks nothing.
#[test]
fn groups_and_replicas_are_made_once() {
    let mut catalogue = catalogue();
    let create = |group| MetaCommand::CreateGroup {
        group: GroupId(group),
        replication: Replication::Fixed(2),
        nodes: [0, 2].map(NodeId).to_vec(),
    };
    assert_eq!(catalogue.apply(create(5)), Outcome::GroupCreated { group: GroupId(5) });
    let once = catalogue.clone();
    assert_eq!(catalogue.apply(create(5)), Outcome::GroupCreated { group: GroupId(5) });
    let out_of_turn = Refusal::GroupOutOfTurn { asked: GroupId(9), next: GroupId(6) };
    assert_eq!(catalogue.apply(create(9)), Outcome::Refused(out_of_turn));
    assert_eq!(catalogue, once);
    let group = GroupId(5);
    let place = MetaCommand::PlaceReplica { group, node: NodeId(1), want: Want::Voter };
    let Outcome::ReplicaPlaced { replica } = catalogue.apply(place.clone()) else { panic!("refused") };
    assert_eq!(catalogue.apply(place), Outcome::ReplicaPlaced { replica });
    let replace = MetaCommand::ReplaceReplica { group, lost: replica };
    let Outcome::ReplicaPlaced { replica: successor } = catalogue.apply(replace.clone()) else {
        panic!("refused")
    };
    assert!(successor > replica);
    assert_eq!(catalogue.apply(replace), Outcome::Noted, "it is gone already");
    assert_eq!(catalogue.group(group).unwrap().on(NodeId(1)).unwrap().0, successor);
    assert_eq!(catalogue.group(group).unwrap().genesis.len(), 2, "for ever");
}

/// While an old release is among the nodes, a group that is made then begins by rules that it knows too, whichever
/// release makes its first checkpoint.
#[test]
fn a_new_group_begins_by_rules_that_every_node_knows() {
    let mut catalogue = catalogue();
    let MetaCommand::RegisterNode(record) = node(5, 1) else { unreachable!() };
    catalogue.apply(MetaCommand::RegisterNode(NodeRecord { apply_version_max: 1, ..record }));
    let (group, nodes) = (GroupId(5), [0, 1, 2].map(NodeId).to_vec());
    catalogue.apply(MetaCommand::CreateGroup { group, replication: Replication::Auto, nodes });
    let first = crate::apply::group_genesis(group, catalogue.group(group).unwrap());
    assert_eq!(first.apply_version, 1);
    assert_eq!(first.members.voters, [4, 5, 6].map(ReplicaId));
}

/// Whatever is asked, somebody is left who should count.
#[test]
fn the_last_voter_stays() {
    let mut catalogue = Catalogue::genesis(&[GroupId(1)], &[NodeId(0)]);
    let (group, replica) = (GroupId(1), ReplicaId(1));
    let refused = || Outcome::Refused(Refusal::LastVoter { group, replica });
    assert_eq!(catalogue.apply(MetaCommand::RetireReplica { group, replica }), refused());
    assert_eq!(catalogue.apply(MetaCommand::ReplaceReplica { group, lost: replica }), refused());
    let demote = MetaCommand::PlaceReplica { group, node: NodeId(0), want: Want::Learner };
    assert_eq!(catalogue.apply(demote), refused());
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
    let MetaCommand::RegisterNode(record) = node(1, 0x3344) else { unreachable!() };
    catalogue.apply(MetaCommand::JoinNode(record));
    catalogue.apply(MetaCommand::DrainNode { node: NodeId(2) });
    create(&mut catalogue, NewChannel { replicas: Some(2), ..creation("two", 1) }).unwrap();
    catalogue.apply(MetaCommand::ReportMembers {
        group: GroupId(1),
        index: RaftIndex(12),
        voters: vec![ReplicaId(1), ReplicaId(2)],
        outgoing: vec![ReplicaId(3)],
        learners: vec![ReplicaId(4)],
    });
    catalogue
}

#[test]
fn format_1_catalogue_bytes_never_change() {
    let golden = include_bytes!("../../../testdata/format-1/catalogue.bin");
    assert_eq!(Catalogue::decode(golden), Ok(golden_catalogue()));
    assert_eq!(golden_catalogue().encode(), golden);
}
