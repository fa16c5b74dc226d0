//! Groups share a disk, and apply may be slow.

use std::sync::Arc;

use raft::eraftpb::Entry;
use tidelog_wire::ids::{BootEpoch, GroupId, NodeId, RaftIndex, ReplicaId};

use super::super::*;
use super::cluster::{genesis, proposal};
use super::mem_log::MemLog;
use crate::raft_log::RaftLog;

/// A node alone with its groups, each of which it leads.
struct Alone {
    core: NodeCore,
    log: MemLog,
    effects: Effects,
}

impl Alone {
    fn new(groups: u64, limits: CoreLimits) -> Self {
        let log = MemLog::default();
        let start = |group| ReplicaStart {
            group: GroupId(group),
            replica: ReplicaId(1),
            checkpoint: genesis(1),
            log: log.load(GroupId(group)).unwrap(),
            vote: None,
        };
        let config = CoreConfig {
            node: NodeId(0),
            boot: BootEpoch(1),
            groups: (0..groups).map(start).collect(),
            ticks: Ticks::default(),
            limits,
            seed: 5,
        };
        let raft_log: Arc<dyn RaftLog> = Arc::new(log.clone());
        let core = NodeCore::new(config, &raft_log).unwrap();
        let mut alone = Self { core, log, effects: Effects::default() };
        while !alone.core.statuses().iter().all(|status| status.serves) {
            alone.core.step(Input::Tick, &mut alone.effects);
            alone.persist();
            for task in std::mem::take(&mut alone.effects.applies) {
                let index = task.entries.last().unwrap().index;
                alone.core.step(Input::Applied { group: task.group, index }, &mut alone.effects);
            }
        }
        alone.effects = Effects::default();
        alone
    }

    fn persist(&mut self) {
        for persist in std::mem::take(&mut self.effects.persists) {
            self.log.write(&persist.writes, persist.sync).unwrap();
            self.core.step(Input::Persisted { number: persist.number }, &mut self.effects);
        }
    }

    fn feed(&mut self, group: u64, token: u64, text: &str) {
        let input = Input::Propose { group: GroupId(group), token: Token(token), entry: proposal(text) };
        self.core.feed(input, &mut self.effects);
    }

    fn entries(&mut self) -> Vec<Entry> {
        let tasks = std::mem::take(&mut self.effects.applies);
        tasks.into_iter().flat_map(|task| task.entries).map(|committed| committed.entry).collect()
    }
}

#[test]
fn all_groups_of_a_node_share_one_sync() {
    let mut alone = Alone::new(5, CoreLimits::default());
    for group in 0..5 {
        alone.feed(group, group, "together");
    }
    alone.core.collect(&mut alone.effects);
    assert_eq!(alone.effects.persists.len(), 1);
    let groups: Vec<_> = alone.effects.persists[0].writes.iter().map(|write| write.group.get()).collect();
    assert_eq!(groups, [0, 1, 2, 3, 4]);
    alone.persist();
    assert_eq!(alone.effects.applies.len(), 5);
}

#[test]
fn an_idle_node_asks_for_nothing() {
    let mut alone = Alone::new(5, CoreLimits::default());
    for _ in 0..100 {
        alone.core.step(Input::Tick, &mut alone.effects);
    }
    assert!(alone.effects.is_empty(), "{:?}", alone.effects);
}

/// What is committed is handed out only as fast as it is applied, and none of it gets lost.
#[test]
fn a_slow_apply_is_not_flooded() {
    let limits = CoreLimits {
        applying_bytes_max: 10_000,
        committed_bytes_per_ready_max: 4_000,
        ..CoreLimits::default()
    };
    let mut alone = Alone::new(1, limits);
    let text = "z".repeat(1_000);
    for token in 0..200 {
        alone.feed(0, token, &text);
    }
    alone.core.collect(&mut alone.effects);
    alone.persist();
    let mut applied = Vec::new();
    let mut rounds = 0;
    loop {
        let entries = alone.entries();
        let Some(last) = entries.last().map(|entry| entry.index) else { break };
        assert!(entries.len() <= 16, "{} entries of a thousand bytes at once", entries.len());
        applied.extend(entries.iter().map(|entry| entry.index));
        rounds += 1;
        let input = Input::Applied { group: GroupId(0), index: RaftIndex(last) };
        alone.core.step(input, &mut alone.effects);
    }
    assert_eq!(applied.len(), 200);
    assert!(applied.is_sorted_by(|one, next| one + 1 == *next) && rounds >= 12);
}
