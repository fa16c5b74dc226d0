//! Random schedules: whatever order things happen in, agreement and durability hold, and once the
//! world is well again everything acknowledged is everywhere.

use proptest::prelude::*;
use tidelog_wire::ids::NodeId;

use super::super::*;
use super::cluster::{Cluster, GROUP};

#[derive(Clone, Copy, Debug)]
enum Step {
    Tick(usize),
    TickAll,
    Deliver(usize),
    DeliverMany(usize),
    Drop(usize),
    Repeat(usize),
    Persist(usize),
    Propose(usize),
    Crash(usize),
    Start(usize),
    Cut(usize, usize),
    Mend,
    Transfer(usize),
    Read(usize),
    PeerDown(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0usize..3;
    prop_oneof![
        6 => node().prop_map(Step::Tick),
        12 => Just(Step::TickAll),
        30 => (0usize..8).prop_map(Step::Deliver),
        12 => (1usize..30).prop_map(Step::DeliverMany),
        3 => (0usize..8).prop_map(Step::Drop),
        4 => (0usize..8).prop_map(Step::Repeat),
        25 => node().prop_map(Step::Persist),
        15 => node().prop_map(Step::Propose),
        2 => node().prop_map(Step::Crash),
        4 => node().prop_map(Step::Start),
        1 => (node(), node()).prop_map(|(a, b)| Step::Cut(a, b)),
        2 => Just(Step::Mend),
        1 => node().prop_map(Step::Transfer),
        2 => node().prop_map(Step::Read),
        1 => (node(), node()).prop_map(|(a, b)| Step::PeerDown(a, b)),
    ]
}

fn id(node: usize) -> NodeId {
    NodeId(u64::try_from(node).unwrap())
}

fn act(cluster: &mut Cluster, step: Step, token: &mut u64) {
    match step {
        Step::Tick(node) => cluster.input(node, Input::Tick),
        Step::TickAll => cluster.tick_all(),
        Step::Deliver(at) => cluster.deliver(at),
        Step::DeliverMany(count) => (0..count).for_each(|_| cluster.deliver(0)),
        Step::Drop(at) => drop(cluster.wire.remove(at)),
        Step::Repeat(at) => {
            if let Some(message) = cluster.wire.get(at).cloned() {
                cluster.wire.push_back(message);
            }
        }
        Step::Persist(node) => drop(cluster.persist(node)),
        Step::Propose(node) => {
            *token += 1;
            cluster.propose(node, *token, &format!("record {token}"));
        }
        Step::Crash(node) => cluster.crash(node),
        Step::Start(node) => {
            if cluster.machines[node].core.is_none() {
                cluster.start(node);
            }
        }
        Step::Cut(a, b) => drop(cluster.cut.insert((id(a), id(b)))),
        Step::Mend => cluster.cut.clear(),
        Step::Transfer(node) => cluster.input(node, Input::TransferLeader { group: GROUP, to: None }),
        Step::Read(node) => {
            *token += 1;
            cluster.input(node, Input::ReadIndex { group: GROUP, token: Token(*token) });
        }
        Step::PeerDown(node, gone) => cluster.input(node, Input::PeerDown { node: id(gone) }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// The cluster checks after every step that entries are applied without gaps and alike everywhere,
    /// and that nothing is acknowledged before a quorum of disks has it.
    #[test]
    fn any_schedule_keeps_agreement_and_durability(
        seed in 0u64..1_000,
        steps in proptest::collection::vec(step(), 50..600),
    ) {
        let mut cluster = Cluster::new(3, seed);
        cluster.auto_persist = false;
        let mut token = 0;
        for step in steps {
            act(&mut cluster, step, &mut token);
        }
        prop_assert!(cluster.halts.is_empty(), "{:?}", cluster.halts);

        // Heal, and demand progress.
        cluster.cut.clear();
        cluster.auto_persist = true;
        for node in 0..3 {
            while cluster.persist(node) {}
            if cluster.machines[node].core.is_none() {
                cluster.start(node);
            }
        }
        cluster.settle();
        // A leader may be about to lose its place: ask until it is done.
        for attempt in 0..20 {
            let token = Token(u64::MAX - attempt);
            let leader = cluster.elect();
            cluster.propose(leader, token.0, "the end");
            (0..60).for_each(|_| {
                cluster.tick_all();
                cluster.settle();
            });
            if cluster.acked.contains_key(&token) {
                break;
            }
        }
        cluster.run_until("everyone has the end", |cluster| {
            (0..3).all(|node| cluster.texts(node).last().is_some_and(|text| text == "the end"))
        });
        for (token, (index, data)) in &cluster.acked {
            for node in 0..3 {
                let held = cluster.machines[node].applied.get(index).map(|(_, data)| data);
                prop_assert_eq!(held, Some(data), "{:?} at node {}", token, node);
            }
        }
        prop_assert!(cluster.refusals.iter().all(|refused| matches!(
            refused.reason,
            MessageRefusal::Unsolicited { .. }
        )), "{:?}", cluster.refusals);
    }
}
