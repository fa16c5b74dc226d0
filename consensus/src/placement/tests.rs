//! Intent and fact driven against each other, with whoever drives dying in between.

mod model;

use proptest::prelude::*;
use tidelog_wire::ids::Incarnation;

use super::*;
use crate::apply::node_state::NodeState;
use crate::entry::{MetaCommand, Replication};
use model::{Model, nodes};

/// A cluster of one grows to three with no more than joins: learners first, then three voters in one change.
#[test]
fn one_node_becomes_three() {
    let mut model = Model::new(1, 2, 7);
    model.settle();
    assert_eq!(model.voters(GroupId(1)), nodes([0]));
    model.join(NodeId(1));
    model.settle();
    assert_eq!(model.voters(GroupId(1)), nodes([0]), "two voters would be worse than one");
    assert_eq!(model.learners(GroupId(1)), nodes([1]));
    model.join(NodeId(2));
    model.settle();
    for group in [GroupId::META, GroupId(1), GroupId(2)] {
        assert_eq!(model.voters(group), nodes([0, 1, 2]), "group {group}");
        assert_eq!(model.learners(group), nodes([]));
    }
}

/// And back to one: what is drained hands over, goes, and leaves a tombstone.
#[test]
fn three_nodes_become_one() {
    let mut model = Model::new(3, 2, 7);
    model.settle();
    for node in [NodeId(2), NodeId(0)] {
        assert_eq!(refuse_removal(&model.catalogue, node, &model.alive), None);
        model.apply(MetaCommand::DrainNode { node });
        model.settle();
        assert_eq!(model.catalogue.node_state(node), Some(NodeState::Removed));
    }
    for group in [GroupId::META, GroupId(1), GroupId(2)] {
        assert_eq!(model.voters(group), nodes([1]), "group {group}");
        assert_eq!(model.learners(group), nodes([]));
    }
    let last = refuse_removal(&model.catalogue, NodeId(1), &model.alive);
    assert_eq!(last, Some(RemovalRefusal::LastNode { node: NodeId(1) }));
}

/// The replica of the meta group was the first to go from a drained node. So the node never learned what was intended of
/// the groups that it led, and kept them as they were for ever. (The model demands the order at every proposal.)
#[test]
fn a_drained_node_leaves_the_meta_group_last() {
    let mut model = Model::new(5, 4, 3);
    model.settle();
    for node in [NodeId(0), NodeId(3)] {
        model.apply(MetaCommand::DrainNode { node });
        let retires_meta = |command: &MetaCommand| {
            matches!(command, MetaCommand::RetireReplica { group: GroupId::META, .. })
        };
        assert!(!plan(&model.catalogue, &model.alive).iter().any(retires_meta), "it holds other replicas");
        model.settle();
        assert_eq!(model.catalogue.node_state(node), Some(NodeState::Removed));
    }
}

/// A node whose directory was lost comes back under new replica ids, is filled and promoted, and its old replicas are
/// removed in the same change.
#[test]
fn a_wiped_node_is_filled_again() {
    let mut model = Model::new(3, 3, 1);
    model.settle();
    let before = model.members(GroupId(1)).voters.clone();
    model.wipe(NodeId(1));
    model.settle();
    let after = model.members(GroupId(1)).voters.clone();
    assert_eq!(model.voters(GroupId(1)), nodes([0, 1, 2]));
    assert!(!after.contains(&before[1]), "{before:?} became {after:?}");
    assert!(model.fewest_voters >= 3, "its old replica counted until the new one did");
}

/// A dead node is not replaced, however many others there are; one that is removed is.
#[test]
fn a_dead_node_is_replaced_when_it_is_removed() {
    let mut model = Model::new(4, 1, 3);
    model.settle();
    let held = model.voters(GroupId(1));
    let dead = *held.iter().next().unwrap();
    model.alive.remove(&dead);
    model.settle();
    assert_eq!(model.voters(GroupId(1)), held);
    assert_eq!(refuse_removal(&model.catalogue, dead, &model.alive), None);
    model.apply(MetaCommand::DrainNode { node: dead });
    model.settle();
    let others: BTreeSet<NodeId> = model.alive.clone();
    assert_eq!(model.voters(GroupId(1)), others);
    assert_eq!(model.catalogue.node_state(dead), Some(NodeState::Removed));
}

/// Five genesis nodes: the data groups shrink to three copies each, spread evenly, and the meta group keeps five.
#[test]
fn copies_are_fewer_than_nodes_and_evenly_spread() {
    let mut model = Model::new(5, 10, 9);
    model.settle();
    assert_eq!(model.voters(GroupId::META).len(), 5);
    assert_eq!(model.spread(), [6, 6, 6, 6, 6]);
    model.join(NodeId(5));
    let words = rebalance(&model.catalogue, &model.alive);
    model.settle();
    assert_eq!(model.spread(), [5, 5, 5, 5, 5, 5]);
    assert!(words.iter().any(|line| line.contains("a new replica on node 5, to vote")), "{words:#?}");
    assert!(rebalance(&model.catalogue, &model.alive).is_empty(), "nothing is left to move");
}

/// What the dry run says is what happens.
#[test]
fn the_dry_run_ends_where_the_cluster_does() {
    let mut model = Model::new(3, 6, 2);
    model.settle();
    model.join(NodeId(3));
    let places =
        rebalance(&model.catalogue, &model.alive).iter().filter(|line| line.contains("to vote")).count();
    model.settle();
    let moved: usize = model.spread().into_iter().last().unwrap();
    assert_eq!(places, moved);
}

/// A group with a fixed number of copies keeps it, and nodes that it needs are not let go.
#[test]
fn fixed_copies_are_kept() {
    let mut model = Model::new(3, 1, 5);
    model.settle();
    let create = |group, count: u64| MetaCommand::CreateGroup {
        group,
        replication: Replication::Fixed(u32::try_from(count).unwrap()),
        nodes: (0..count).map(NodeId).collect(),
    };
    model.create_group(create(GroupId(2), 1));
    model.create_group(create(GroupId(3), 3));
    model.settle();
    assert_eq!(model.voters(GroupId(2)), nodes([0]));
    let refused = refuse_removal(&model.catalogue, NodeId(1), &model.alive);
    assert!(matches!(refused, Some(RemovalRefusal::TooFewNodes { copies: 3, nodes: 2, .. })), "{refused:?}");
    model.join(NodeId(3));
    model.settle();
    assert_eq!(refuse_removal(&model.catalogue, NodeId(0), &model.alive), None);
    model.apply(MetaCommand::DrainNode { node: NodeId(0) });
    model.settle();
    assert_eq!(model.voters(GroupId(2)).len(), 1);
    assert_eq!(model.voters(GroupId(3)), nodes([1, 2, 3]));
}

/// A removal that would leave too few nodes up is refused with the reason, and so is one that cannot be carried out.
#[test]
fn a_removal_that_would_lose_a_quorum_is_refused() {
    let mut model = Model::new(3, 1, 5);
    model.settle();
    model.alive = nodes([0, 1]);
    assert_eq!(refuse_removal(&model.catalogue, NodeId(2), &model.alive), None, "a dead one may go");
    model.alive = nodes([0]);
    let refused = refuse_removal(&model.catalogue, NodeId(2), &model.alive);
    assert!(matches!(refused, Some(RemovalRefusal::NoQuorum { alive: 1, voters: 3, .. })), "{refused:?}");
    let mut model = Model::new(4, 1, 5);
    model.settle();
    model.alive = nodes([0, 1, 2]);
    assert_eq!(refuse_removal(&model.catalogue, NodeId(0), &model.alive), None);
    let unknown = NodeId(77);
    let refused = refuse_removal(&model.catalogue, unknown, &model.alive);
    assert_eq!(refused, Some(RemovalRefusal::Unknown { node: unknown }));
}

/// A leader that has applied less of the catalogue than its predecessor does not throw out what that one added.
#[test]
fn a_replica_from_a_newer_catalogue_is_left_alone() {
    let mut model = Model::new(3, 1, 5);
    model.settle();
    let stale = model.catalogue.clone();
    model.wipe(NodeId(2));
    model.step_group(GroupId(1));
    let status = model.status(GroupId(1)).unwrap();
    assert!(status.members.learners.len() == 1, "its successor was added");
    let step = next_step(&stale, &status);
    assert!(matches!(step, Step::Report(_)), "{step:?}");
}

/// Leaders are spread over the voters, the same on every node, and not on one that is leaving.
#[test]
fn leaders_are_spread_and_leave_a_draining_node() {
    let mut model = Model::new(3, 6, 5);
    model.settle();
    let count = |model: &Model, node| {
        let groups = model.catalogue.groups().map(|(group, _)| group);
        groups.filter(|group| preferred_leader(&model.catalogue, *group) == Some(node)).count()
    };
    assert_eq!([0, 1, 2].map(|node| count(&model, NodeId(node))), [3, 2, 2]);
    model.apply(MetaCommand::DrainNode { node: NodeId(1) });
    assert_eq!(count(&model, NodeId(1)), 0);
}

/// A node starts what is its own in its own directory, as genesis or blank, and stops what nobody knows.
#[test]
fn a_node_runs_what_is_bound_to_its_directory() {
    let mut model = Model::new(3, 2, 5);
    model.settle();
    let incarnation = model.catalogue.member(NodeId(1)).unwrap().incarnation;
    let all = local(&model.catalogue, NodeId(1), incarnation, &[].into());
    assert_eq!(all.start.len(), 3);
    assert!(all.start.iter().all(|(_, _, start_as)| *start_as == StartAs::Genesis));
    let running: std::collections::BTreeMap<_, _> =
        all.start.iter().map(|(group, replica, _)| (*group, *replica)).collect();
    let same = local(&model.catalogue, NodeId(1), incarnation, &running);
    assert_eq!(same, LocalChanges::default());
    let stranger = local(&model.catalogue, NodeId(1), Incarnation(999), &[].into());
    assert_eq!(stranger, LocalChanges::default(), "another directory plays none of them");
    // Its directory is lost: its successors begin blank, and take the place of what ran.
    model.wipe(NodeId(1));
    let incarnation = model.catalogue.member(NodeId(1)).unwrap().incarnation;
    let successors = local(&model.catalogue, NodeId(1), incarnation, &running);
    assert_eq!(successors.start.len(), 3);
    assert!(successors.start.iter().all(|(_, _, start_as)| *start_as == StartAs::Blank));
    assert!(successors.stop.is_empty());
    // Once the old ones are forgotten, they are stopped wherever they may still run.
    model.settle();
    let stop = local(&model.catalogue, NodeId(1), Incarnation(999), &running).stop;
    assert_eq!(stop, [GroupId::META, GroupId(1), GroupId(2)]);
}

#[derive(Clone, Debug)]
enum Event {
    Join(u64),
    Wipe(u64),
    Drain(u64),
    Kill(u64),
    Revive(u64),
    LoseMemory(u64, u64),
    Steps(u16),
}

fn any_event() -> impl Strategy<Value = Event> {
    let node = 0_u64..7;
    prop_oneof![
        3 => node.clone().prop_map(Event::Join),
        2 => node.clone().prop_map(Event::Wipe),
        2 => node.clone().prop_map(Event::Drain),
        2 => node.clone().prop_map(Event::Kill),
        2 => node.clone().prop_map(Event::Revive),
        1 => (0_u64..5, node).prop_map(|(group, node)| Event::LoseMemory(group, node)),
        4 => (0_u16..60).prop_map(Event::Steps),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Nodes come, go, die and are wiped while leaders and the meta group's leader take steps in any order, each as if
    /// it had just been elected. Whatever happens, no change leaves a group without a quorum; and left alone with all
    /// nodes up, the cluster settles within bounded steps, each group with as many copies as it should have, no two of
    /// them on one node.
    #[test]
    fn any_trouble_settles(
        size in 1_u64..6,
        groups in 1_u64..5,
        seed in any::<u64>(),
        events in prop::collection::vec(any_event(), 0..24),
    ) {
        let mut model = Model::new(size, groups, seed);
        for event in events {
            match event {
                Event::Join(node) => model.join(NodeId(node)),
                Event::Wipe(node) => model.wipe_if_safe(NodeId(node)),
                Event::Drain(node) => model.drain_if_safe(NodeId(node)),
                Event::Kill(node) => model.kill_if_safe(NodeId(node)),
                Event::Revive(node) => model.revive(NodeId(node)),
                Event::LoseMemory(group, node) => model.lose_memory_if_safe(GroupId(group), NodeId(node)),
                Event::Steps(steps) => (0..steps).for_each(|_| model.step()),
            }
        }
        model.revive_all();
        model.settle();
        model.check_settled();
    }
}
