//! Conformance: whatever is done to them, both raft logs answer like a plain model.

use std::collections::BTreeMap;

use proptest::prelude::*;
use raft::eraftpb::{Entry, HardState};
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId, Term};

use super::tests::{entry, hard_state, new_disk, open_engine, open_sim};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Append `count` entries `back` before the end.
    Append {
        group: u64,
        back: u64,
        count: u64,
        bytes: usize,
        sync: bool,
    },
    HardState {
        group: u64,
        vote: u64,
    },
    Mark {
        group: u64,
        set: bool,
    },
    Compact {
        group: u64,
        keep: u64,
    },
    Clear {
        group: u64,
        next: u64,
    },
    /// Another replica begins, on nothing.
    Replace {
        group: u64,
        replica: u64,
    },
    Purge,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let group = 0..3_u64;
    prop_oneof![
        8 => (group.clone(), 0..4_u64, 1..6_u64, 0..2000_usize, any::<bool>())
            .prop_map(|(group, back, count, bytes, sync)| Step::Append { group, back, count, bytes, sync }),
        2 => (group.clone(), 0..3_u64).prop_map(|(group, vote)| Step::HardState { group, vote }),
        1 => (group.clone(), any::<bool>()).prop_map(|(group, set)| Step::Mark { group, set }),
        3 => (group.clone(), 0..8_u64).prop_map(|(group, keep)| Step::Compact { group, keep }),
        1 => (group.clone(), 1..9_u64).prop_map(|(group, replica)| Step::Replace { group, replica }),
        1 => (group, 1..50_u64).prop_map(|(group, next)| Step::Clear { group, next }),
        2 => Just(Step::Purge),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Clone, Debug, Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    hard_state: HardState,
    install: Option<InstallMark>,
    replica: Option<ReplicaId>,
    /// The index after the last, also when every entry was compacted away.
    next: u64,
    first: u64,
    term: u64,
}

impl Model {
    fn write(&mut self, group: u64, step: &Step) -> GroupWrite {
        let mut write = GroupWrite::new(GroupId(group));
        match *step {
            Step::Append { back, count, bytes, .. } => {
                self.term += 1;
                let from = self.next.saturating_sub(back).max(self.first).max(1);
                self.entries.split_off(&from);
                for index in from..from + count {
                    let new = entry(index, self.term, &vec![u8::try_from(index % 251).unwrap(); bytes]);
                    self.entries.insert(index, new.clone());
                    write.entries.push(new);
                }
                self.next = from + count;
            }
            Step::HardState { vote, .. } => {
                self.hard_state = hard_state(self.term, vote, self.next);
                write.hard_state = Some(self.hard_state.clone());
            }
            Step::Mark { set, .. } => {
                self.install =
                    set.then_some(InstallMark { index: RaftIndex(self.next), term: Term(1), digest: 5 });
                write.install = self.install.map_or(InstallChange::Remove, InstallChange::Set);
            }
            Step::Clear { next, .. } => {
                *self = Self { next, first: next, ..self.cleared() };
                write.clear = true;
            }
            Step::Replace { replica, .. } => {
                *self = Self { replica: Some(ReplicaId(replica)), ..self.cleared() };
                write.clear = true;
                write.replica = self.replica;
            }
            Step::Compact { .. } | Step::Purge | Step::Reopen => unreachable!("not a write"),
        }
        write
    }

    /// What a clear leaves: whose log it is.
    fn cleared(&self) -> Self {
        Self { term: self.term, replica: self.replica, ..Self::default() }
    }

    fn compact(&mut self, first_kept: u64) {
        self.first = first_kept;
        self.entries = self.entries.split_off(&first_kept);
    }

    fn check(&self, log: &dyn RaftLog, group: u64) {
        let loaded = log.load(GroupId(group)).unwrap();
        assert_eq!(loaded.hard_state, self.hard_state);
        assert_eq!(loaded.install, self.install);
        assert_eq!(loaded.replica, self.replica);
        let Some(span) = loaded.span else {
            assert!(self.entries.is_empty(), "group {group} lost its entries");
            return;
        };
        let end = RaftIndex(span.last.get() + 1);
        let found = log.entries(GroupId(group), span.first, end, u64::MAX).unwrap();
        let same = found.iter().eq(self.entries.values());
        let indexes: Vec<_> = found.iter().map(|entry| entry.index).collect();
        assert!(same, "group {group}: found {indexes:?}, expected {:?}", self.entries.keys());
        for (index, entry) in &self.entries {
            assert_eq!(loaded.term(RaftIndex(*index)), Some(Term(entry.term)));
        }
    }
}

fn run(steps: &[Step], open: &dyn Fn() -> Box<dyn RaftLog>) {
    let mut log = Some(open());
    let mut models: BTreeMap<u64, Model> = BTreeMap::new();
    for step in steps {
        let current = log.as_ref().unwrap();
        match step {
            Step::Append { group, sync, .. } => {
                let write = models.entry(*group).or_default().write(*group, step);
                current.write(&[write], *sync).unwrap();
            }
            Step::HardState { group, .. }
            | Step::Mark { group, .. }
            | Step::Clear { group, .. }
            | Step::Replace { group, .. } => {
                let write = models.entry(*group).or_default().write(*group, step);
                current.write(&[write], true).unwrap();
            }
            Step::Compact { group, keep } => {
                let model = models.entry(*group).or_default();
                let first_kept = model.next.saturating_sub(keep + 1).max(model.first);
                model.compact(first_kept);
                current.compact(GroupId(*group), RaftIndex(first_kept)).unwrap();
            }
            Step::Purge => {
                current.purge().unwrap();
            }
            Step::Reopen => {
                drop(log.take());
                log = Some(open());
            }
        }
        if matches!(step, Step::Reopen) {
            for (group, model) in &models {
                model.check(log.as_ref().unwrap().as_ref(), *group);
            }
        }
    }
    drop(log);
    let log = open();
    for (group, model) in &models {
        model.check(log.as_ref(), *group);
    }
}

proptest! {
    // Each case waits for a real disk many times.
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn raft_engine_behaves_like_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        run(&steps, &|| Box::new(open_engine(dir.path())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_simulated_log_behaves_like_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let disk = new_disk();
        run(&steps, &|| Box::new(open_sim(&disk)));
    }
}
