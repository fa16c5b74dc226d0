//! Membership changes under every disturbance: random ones, and a crash of anyone at every step of one.

use proptest::prelude::*;
use tidelog_wire::ids::{NodeId, ReplicaId};

use super::super::*;
use super::cluster::{Cluster, GROUP};
use super::members::{adds, node, promotes, removes, replaces};

const NODES: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    Tick(usize),
    TickAll,
    /// So many ticks in which all goes well.
    Calm(usize),
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
    Checkpoint(usize),
    PeerDown(usize, usize),
    /// At a node: bring a replica to another one, or let some member count, count no more, or go.
    Add(usize, usize),
    Promote(usize, usize),
    Demote(usize, usize),
    Remove(usize, usize),
    Replace(usize, usize),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let light = prop_oneof![
        6 => node().prop_map(Step::Tick),
        16 => Just(Step::TickAll),
        4 => (1usize..40).prop_map(Step::Calm),
        30 => (0usize..8).prop_map(Step::Deliver),
        20 => (1usize..40).prop_map(Step::DeliverMany),
        2 => (0usize..8).prop_map(Step::Drop),
        3 => (0usize..8).prop_map(Step::Repeat),
        40 => node().prop_map(Step::Persist),
        12 => node().prop_map(Step::Propose),
    ];
    let heavy = prop_oneof![
        2 => node().prop_map(Step::Crash),
        6 => node().prop_map(Step::Start),
        1 => (node(), node()).prop_map(|(a, b)| Step::Cut(a, b)),
        3 => Just(Step::Mend),
        1 => node().prop_map(Step::Transfer),
        2 => node().prop_map(Step::Checkpoint),
        1 => (node(), node()).prop_map(|(a, b)| Step::PeerDown(a, b)),
    ];
    let change = prop_oneof![
        3 => (node(), node()).prop_map(|(at, to)| Step::Add(at, to)),
        4 => (node(), node()).prop_map(|(at, which)| Step::Promote(at, which)),
        1 => (node(), node()).prop_map(|(at, which)| Step::Demote(at, which)),
        1 => (node(), node()).prop_map(|(at, which)| Step::Remove(at, which)),
        2 => (node(), node()).prop_map(|(at, which)| Step::Replace(at, which)),
        4 => node().prop_map(Step::Leave),
    ];
    prop_oneof![12 => light, 2 => heavy, 3 => change]
}

/// What a run has given out so far.
#[derive(Default)]
struct Given {
    token: u64,
    replica: u64,
}

impl Given {
    fn token(&mut self) -> u64 {
        self.token += 1;
        self.token
    }

    fn replica(&mut self) -> ReplicaId {
        self.replica += 1;
        ReplicaId(20 + self.replica)
    }
}

/// The members as a running node sees them.
fn seen(cluster: &Cluster, at: usize) -> Option<Members> {
    Some(cluster.machines[at].core.as_ref()?.status(GROUP)?.members)
}

fn pick(replicas: &[ReplicaId], which: usize) -> Option<ReplicaId> {
    replicas.get(which % replicas.len().max(1)).copied()
}

/// A node that no member is on, by anybody's account, gets a new replica; what the catalogue would do.
fn place(cluster: &mut Cluster, to: usize, given: &mut Given) -> Option<ReplicaId> {
    let free = cluster.machines.iter().all(|machine| {
        [&machine.members, &machine.checkpoint.members]
            .iter()
            .all(|members| members.replica_on(node(to)).is_none())
    });
    if !free || cluster.machines[to].core.is_none() {
        return None;
    }
    let new = given.replica();
    cluster.replace(to, new);
    Some(new)
}

fn change(cluster: &mut Cluster, step: Step, given: &mut Given) -> Option<()> {
    let (at, change) = match step {
        Step::Add(at, to) => (at, adds(place(cluster, to, given)?, to)),
        Step::Promote(at, which) => (at, promotes(pick(&seen(cluster, at)?.learners, which)?)),
        Step::Demote(at, which) => {
            let demote = vec![pick(&seen(cluster, at)?.voters, which)?];
            (at, MemberChange { demote, ..MemberChange::default() })
        }
        Step::Remove(at, which) => {
            let all: Vec<_> = seen(cluster, at)?.all().collect();
            (at, removes(pick(&all, which)?))
        }
        Step::Replace(at, which) => {
            let members = seen(cluster, at)?;
            (at, replaces(pick(&members.voters, which)?, pick(&members.learners, which)?))
        }
        Step::Leave(at) => (at, MemberChange::default()),
        Step::Tick(_)
        | Step::TickAll
        | Step::Calm(_)
        | Step::Deliver(_)
        | Step::DeliverMany(_)
        | Step::Drop(_)
        | Step::Repeat(_)
        | Step::Persist(_)
        | Step::Propose(_)
        | Step::Crash(_)
        | Step::Start(_)
        | Step::Cut(..)
        | Step::Mend
        | Step::Transfer(_)
        | Step::Checkpoint(_)
        | Step::PeerDown(..) => return None,
    };
    let token = given.token();
    // Most of them at the leader, where there is one: others only answer who that is.
    let at = cluster.leader().filter(|leader| seen(cluster, *leader).is_some() && at > 0).unwrap_or(at);
    cluster.change(at, token, change);
    Some(())
}

fn act(cluster: &mut Cluster, step: Step, given: &mut Given) {
    match step {
        Step::Tick(node) => cluster.input(node, Input::Tick),
        Step::TickAll => cluster.tick_all(),
        Step::Calm(ticks) => (0..ticks).for_each(|_| {
            cluster.tick_all();
            for _ in 0..4 {
                cluster.settle();
                (0..NODES).for_each(|node| while cluster.persist(node) {});
            }
        }),
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
            let token = given.token();
            cluster.propose(node, token, &format!("record {token}"));
        }
        Step::Crash(node) => cluster.crash(node),
        Step::Start(node) => {
            if cluster.machines[node].core.is_none() {
                cluster.start(node);
            }
        }
        Step::Cut(a, b) => drop(cluster.cut.insert((node(a), node(b)))),
        Step::Mend => cluster.cut.clear(),
        Step::Transfer(node) => cluster.input(node, Input::TransferLeader { group: GROUP, to: None }),
        Step::Checkpoint(node) => {
            if seen(cluster, node).is_some() {
                cluster.checkpoint(node);
            }
        }
        Step::PeerDown(node, gone) => {
            cluster.input(node, Input::PeerDown { node: NodeId(u64::try_from(gone).unwrap()) });
        }
        Step::Add(..)
        | Step::Promote(..)
        | Step::Demote(..)
        | Step::Remove(..)
        | Step::Replace(..)
        | Step::Leave(_) => drop(change(cluster, step, given)),
    }
}

fn heal(cluster: &mut Cluster) {
    cluster.cut.clear();
    cluster.auto_persist = true;
    for node in 0..NODES {
        while cluster.persist(node) {}
        if cluster.machines[node].core.is_none() {
            cluster.start(node);
        }
    }
    cluster.settle();
}

/// Asks whoever leads until something is acknowledged, with what to ask made from the members then.
fn insist(cluster: &mut Cluster, given: &mut Given, ask: impl Fn(&mut Cluster, usize, u64)) {
    for _ in 0..40 {
        let token = given.token();
        let leader = cluster.elect();
        ask(cluster, leader, token);
        for _ in 0..60 {
            cluster.tick_all();
            cluster.settle();
        }
        if cluster.acked.contains_key(&Token(token)) {
            return;
        }
    }
    panic!("no progress: {:?}", cluster.replies.values().rev().take(3).collect::<Vec<_>>());
}

/// Progress, and everything that was acknowledged at every member.
fn demand_progress(cluster: &mut Cluster, given: &mut Given) {
    let leader = cluster.elect();
    if cluster.status(leader).members.is_joint() {
        insist(cluster, given, |cluster, leader, token| match cluster.status(leader).members.is_joint() {
            true => cluster.change(leader, token, MemberChange::default()),
            false => cluster.propose(leader, token, "not joint any more"),
        });
    }
    insist(cluster, given, |cluster, leader, token| cluster.propose(leader, token, "the end"));
    let leader = cluster.elect();
    let members = cluster.status(leader).members;
    let voting: Vec<_> = (0..NODES)
        .filter(|node| {
            cluster.machines[*node].core.as_ref().is_some_and(|core| {
                core.status(GROUP).is_some_and(|status| members.voters.contains(&status.replica))
            })
        })
        .collect();
    assert_eq!(voting.len(), members.voters.len(), "every voter runs");
    cluster.run_until("every voter has the end, and the same members", |cluster| {
        voting.iter().all(|node| {
            cluster.texts(*node).last().is_some_and(|text| text == "the end")
                && cluster.status(*node).members == members
        })
    });
    for (token, (index, data)) in &cluster.acked {
        for node in &voting {
            let held = cluster.machines[*node].applied.get(index).map(|(_, data)| data);
            assert_eq!(held, Some(data), "{token:?} at node {node}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    /// The cluster checks at every step that entries are applied alike and without gaps, and that a quorum of the
    /// members of the moment has on disk what is acknowledged.
    #[test]
    fn any_schedule_of_changes_keeps_agreement_and_durability(
        seed in 0u64..1_000,
        steps in proptest::collection::vec(step(), 100..900),
    ) {
        let mut cluster = Cluster::of_voters(5, 3, seed);
        cluster.auto_persist = false;
        cluster.auto_snapshots = true;
        let mut given = Given::default();
        for step in steps {
            act(&mut cluster, step, &mut given);
        }
        prop_assert!(cluster.halts.is_empty(), "{:?}", cluster.halts);
        heal(&mut cluster);
        demand_progress(&mut cluster, &mut given);
        prop_assert!(cluster.halts.is_empty(), "{:?}", cluster.halts);
    }
}

/// A voter is replaced by way of a joint membership. At each message of it somebody is killed and comes back;
/// the change is completed all the same, by whoever leads then.
#[test]
fn a_replacement_is_completed_whoever_is_killed_at_whichever_step() {
    for victim in 0..4 {
        for step in 0..60 {
            let mut cluster = Cluster::of_voters(5, 3, 40 + step);
            cluster.auto_snapshots = true;
            let mut given = Given::default();
            let leader = cluster.elect();
            cluster.propose(leader, given.token(), "before");
            cluster.replace(3, ReplicaId(9));
            cluster.change(leader, given.token(), adds(ReplicaId(9), 3));
            cluster.run_until("caught up", |cluster| cluster.is_caught_up(leader, ReplicaId(9)));
            cluster.settle();
            let old = ReplicaId(u64::try_from((leader + 1) % 3).unwrap() + 1);
            cluster.change(leader, given.token(), replaces(old, ReplicaId(9)));
            for delivered in 0..60 {
                if delivered == step {
                    cluster.crash(victim);
                    cluster.start(victim);
                }
                if cluster.wire.is_empty() {
                    cluster.tick_all();
                }
                if delivered == 12 {
                    cluster.change(leader, given.token(), MemberChange::default());
                }
                cluster.deliver(0);
            }
            heal(&mut cluster);
            let goal = |members: &Members| members.voters.contains(&ReplicaId(9)) && !members.contains(old);
            for _ in 0..6 {
                let leader = cluster.elect();
                let members = cluster.status(leader).members;
                if goal(&members) {
                    break;
                }
                insist(&mut cluster, &mut given, |cluster, leader, token| {
                    let members = cluster.status(leader).members;
                    let next = match (members.is_joint(), members.voters.contains(&ReplicaId(9))) {
                        (true, _) => MemberChange::default(),
                        (false, false) => replaces(old, ReplicaId(9)),
                        (false, true) => return cluster.propose(leader, token, "done"),
                    };
                    cluster.change(leader, token, next);
                });
            }
            let leader = cluster.elect();
            let members = cluster.status(leader).members;
            assert!(goal(&members), "victim {victim}, step {step}: {members:?}");
            demand_progress(&mut cluster, &mut given);
            assert!(cluster.halts.is_empty(), "{:?}", cluster.halts);
        }
    }
}
