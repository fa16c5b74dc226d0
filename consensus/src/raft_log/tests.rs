//! Conformance: both raft logs answer alike, and like a plain model, whatever is done to them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use raft::eraftpb::{Entry, HardState};
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_wire::ids::{GroupId, RaftIndex, Term};

use super::*;

/// Lets every error through, and counts the syncs.
#[derive(Debug, Default)]
struct CountSyncs(AtomicU64);

impl SyncPolicy for CountSyncs {
    fn run(&self, _path: &Path, sync: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        sync()
    }
}

const SMALL: EngineLogOptions =
    EngineLogOptions { file_bytes: 8 << 10, purge_bytes: 32 << 10, prefill_bytes: 0 };

fn open_engine(dir: &Path) -> EngineLog {
    let storage = Arc::new(OsStorage);
    EngineLog::open(storage, &dir.join("raft"), SMALL, Arc::new(CountSyncs::default())).unwrap()
}

fn open_sim(dir: &Path) -> SimLog {
    let options = SimLogOptions::rewriting_at(16 << 10);
    SimLog::open(Arc::new(OsStorage), &dir.join("raft"), options).unwrap()
}

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index, term, data: data.to_vec().into(), ..Entry::default() }
}

fn append(group: u64, entries: Vec<Entry>) -> GroupWrite {
    GroupWrite { entries, ..GroupWrite::new(GroupId(group)) }
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..HardState::default() }
}

/// Runs a scenario against each implementation; `open` opens it again on the same directory.
fn with_each(scenario: impl Fn(&dyn Fn() -> Box<dyn RaftLog>)) {
    let dir = tempfile::tempdir().unwrap();
    scenario(&|| Box::new(open_engine(dir.path())));
    let dir = tempfile::tempdir().unwrap();
    scenario(&|| Box::new(open_sim(dir.path())));
}

#[test]
fn a_group_never_written_to_is_empty() {
    with_each(|open| {
        let log = open();
        assert_eq!(log.load(GroupId(3)).unwrap(), GroupLog::default());
        assert_eq!(log.groups(), []);
    });
}

#[test]
fn entries_hard_state_and_mark_are_there_after_reopening() {
    with_each(|open| {
        let mark = InstallMark { index: RaftIndex(7), term: Term(3), digest: 99 };
        let log = open();
        let write = GroupWrite {
            entries: vec![entry(5, 1, b"a"), entry(6, 1, b"b"), entry(7, 2, b"c")],
            hard_state: Some(hard_state(2, 1, 5)),
            install: InstallChange::Set(mark),
            ..GroupWrite::new(GroupId(1))
        };
        log.write(&[write, append(2, vec![entry(1, 1, b"x")])], true).unwrap();
        drop(log);

        let log = open();
        let one = log.load(GroupId(1)).unwrap();
        assert_eq!(one.span, Some(Span { first: RaftIndex(5), last: RaftIndex(7) }));
        assert_eq!(one.hard_state, hard_state(2, 1, 5));
        assert_eq!(one.install, Some(mark));
        let terms: Vec<_> = (4..=8).map(|index| one.term(RaftIndex(index))).collect();
        assert_eq!(terms, [None, Some(Term(1)), Some(Term(1)), Some(Term(2)), None]);
        assert_eq!(log.groups(), [GroupId(1), GroupId(2)]);
    });
}

#[test]
fn a_newer_leaders_entries_replace_the_suffix() {
    with_each(|open| {
        let log = open();
        log.write(&[append(1, (1..=5).map(|index| entry(index, 1, b"old")).collect())], true).unwrap();
        log.write(&[append(1, vec![entry(3, 2, b"new")])], true).unwrap();
        drop(log);
        let log = open();
        let found = log.entries(GroupId(1), RaftIndex(1), RaftIndex(4), u64::MAX).unwrap();
        assert_eq!(found, [entry(1, 1, b"old"), entry(2, 1, b"old"), entry(3, 2, b"new")]);
        assert!(matches!(
            log.entries(GroupId(1), RaftIndex(3), RaftIndex(5), u64::MAX),
            Err(RaftLogError::Missing { .. })
        ));
    });
}

/// What the log writer gathers: several writes of one group in one batch, the later over the earlier.
#[test]
fn gathered_writes_of_one_group_take_effect_in_order() {
    with_each(|open| {
        let log = open();
        let first = append(1, (1..=4).map(|index| entry(index, 1, b"one")).collect());
        let other = append(2, vec![entry(1, 1, b"other")]);
        let second = append(1, vec![entry(3, 2, b"two"), entry(4, 2, b"two"), entry(5, 2, b"two")]);
        let third = append(1, vec![entry(5, 3, b"three")]);
        log.write(&[first, other, second, third], true).unwrap();
        drop(log);
        let log = open();
        let found = log.entries(GroupId(1), RaftIndex(1), RaftIndex(6), u64::MAX).unwrap();
        let terms: Vec<_> = found.iter().map(|entry| (entry.term, entry.data.to_vec())).collect();
        let two = (2, b"two".to_vec());
        let one = (1, b"one".to_vec());
        assert_eq!(terms, [one.clone(), one, two.clone(), two, (3, b"three".to_vec())]);
    });
}

#[test]
fn a_write_that_leaves_a_hole_is_refused_and_changes_nothing() {
    with_each(|open| {
        let log = open();
        log.write(&[append(1, vec![entry(4, 1, b"")])], true).unwrap();
        for bad in [vec![entry(6, 1, b"")], vec![entry(5, 1, b""), entry(7, 1, b"")], vec![entry(3, 1, b"")]]
        {
            let both = [append(2, vec![entry(1, 1, b"")]), append(1, bad)];
            assert!(matches!(log.write(&both, true), Err(RaftLogError::Gap { .. })));
        }
        assert_eq!(log.load(GroupId(1)).unwrap().span.unwrap().last, RaftIndex(4));
        assert_eq!(log.load(GroupId(2)).unwrap().span, None);
    });
}

#[test]
fn clearing_and_writing_in_one_write_leaves_only_what_was_written() {
    with_each(|open| {
        let log = open();
        log.write(&[append(1, vec![entry(1, 1, b"old"), entry(2, 1, b"old")])], true).unwrap();
        let write = GroupWrite {
            clear: true,
            hard_state: Some(hard_state(9, 0, 40)),
            ..append(1, vec![entry(41, 9, b"new")])
        };
        log.write(&[write], true).unwrap();
        drop(log);
        let log = open();
        let one = log.load(GroupId(1)).unwrap();
        assert_eq!(one.span, Some(Span { first: RaftIndex(41), last: RaftIndex(41) }));
        assert_eq!(one.hard_state, hard_state(9, 0, 40));
    });
}

#[test]
fn compacted_entries_are_refused_by_name_and_the_rest_stays() {
    with_each(|open| {
        let log = open();
        log.write(&[append(1, (1..=9).map(|index| entry(index, 1, b"")).collect())], true).unwrap();
        log.compact(GroupId(1), RaftIndex(4)).unwrap();
        assert!(matches!(
            log.entries(GroupId(1), RaftIndex(3), RaftIndex(5), u64::MAX),
            Err(RaftLogError::Compacted { first: RaftIndex(4), .. })
        ));
        assert_eq!(log.entries(GroupId(1), RaftIndex(4), RaftIndex(10), u64::MAX).unwrap().len(), 6);
    });
}

/// An idle group is compacted up to its end. Were all its entries dropped, raft-engine could bring back
/// some older ones after a restart, and the log would seem to have lost its tail.
#[test]
fn compaction_always_leaves_the_last_entry() {
    with_each(|open| {
        let log = open();
        log.write(&[append(1, (1..=9).map(|index| entry(index, 1, b"")).collect())], true).unwrap();
        log.compact(GroupId(1), RaftIndex(10)).unwrap();
        drop(log);
        let span = open().load(GroupId(1)).unwrap().span.unwrap();
        assert_eq!(span, Span { first: RaftIndex(9), last: RaftIndex(9) });
    });
}

/// raft-engine moved entries 1..=3 to its second queue; then 3 was overwritten, and the new 3 compacted
/// away. After a restart it brought back the *old* 3: a leader would have sent it to a follower.
#[test]
fn an_overwritten_and_compacted_entry_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_engine(dir.path());
    let filler = |from: u64, count: u64| {
        for index in from..from + count {
            log.write(&[append(7, vec![entry(index, 1, &[7; 1500])])], true).unwrap();
        }
    };
    log.write(&[append(1, (1..=3).map(|index| entry(index, 1, b"old")).collect())], true).unwrap();
    filler(1, 40);
    log.purge().unwrap();
    log.write(&[append(1, (3..=7).map(|index| entry(index, 2, b"new")).collect())], true).unwrap();
    log.compact(GroupId(1), RaftIndex(4)).unwrap();
    filler(41, 40);
    log.purge().unwrap();
    drop(log);
    let log = open_engine(dir.path());
    let loaded = log.load(GroupId(1)).unwrap();
    assert_eq!(loaded.span, Some(Span { first: RaftIndex(4), last: RaftIndex(7) }));
    assert_eq!(loaded.terms, [TermRun { first: RaftIndex(4), term: Term(2) }]);
}

#[test]
fn a_limit_in_bytes_still_gives_one_entry() {
    with_each(|open| {
        let log = open();
        log.write(&[append(1, (1..=3).map(|index| entry(index, 1, &[7; 100])).collect())], true).unwrap();
        let count = |bytes| log.entries(GroupId(1), RaftIndex(1), RaftIndex(4), bytes).unwrap().len();
        assert_eq!((count(0), count(250), count(10_000)), (1, 2, 3));
    });
}

/// raft-engine's own sync does nothing when there is nothing to write; a commit-only hard state that
/// was written without a sync must still be covered by the next one.
#[test]
fn a_sync_without_writes_reaches_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let syncs = Arc::new(CountSyncs::default());
    let policy: Arc<dyn SyncPolicy> = Arc::<CountSyncs>::clone(&syncs);
    let log = EngineLog::open(Arc::new(OsStorage), &dir.path().join("raft"), SMALL, policy).unwrap();
    let before = syncs.0.load(Ordering::Relaxed);
    log.write(&[], true).unwrap();
    assert!(syncs.0.load(Ordering::Relaxed) > before);
}

/// Whatever recovery keeps must be durable before it counts, even if nothing new was written.
#[test]
fn opening_syncs_what_it_keeps() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_engine(dir.path()));
    let syncs = Arc::new(CountSyncs::default());
    let policy: Arc<dyn SyncPolicy> = Arc::<CountSyncs>::clone(&syncs);
    let log = EngineLog::open(Arc::new(OsStorage), &dir.path().join("raft"), SMALL, policy).unwrap();
    assert!(syncs.0.load(Ordering::Relaxed) >= 3, "both files opened for writing, then the marker");
    drop(log);
}

#[test]
fn prefilled_files_take_the_first_write() {
    let dir = tempfile::tempdir().unwrap();
    let options = EngineLogOptions { prefill_bytes: 16 << 10, ..SMALL };
    let open = || {
        let policy = Arc::new(CountSyncs::default());
        EngineLog::open(Arc::new(OsStorage), &dir.path().join("raft"), options, policy).unwrap()
    };
    let log = open();
    log.write(&[append(1, vec![entry(1, 1, b"a")])], true).unwrap();
    drop(log);
    assert_eq!(open().load(GroupId(1)).unwrap().span.unwrap().last, RaftIndex(1));
}

/// Damage below the tail is not something recovery may cut: it is reported, with the next step.
#[test]
fn damage_in_an_older_file_is_reported_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_engine(dir.path());
    for index in 1..=40 {
        log.write(&[append(1, vec![entry(index, 1, &[7; 1000])])], true).unwrap();
    }
    drop(log);
    let raft = dir.path().join("raft");
    let names = OsStorage.list(&raft).unwrap();
    let oldest = names.iter().find(|found| found.name.ends_with(".raftlog")).unwrap();
    let file = OsStorage.open(&raft.join(&oldest.name), OpenMode::ReadWrite).unwrap();
    file.write_at(Position(2000), &[&[0x5a; 4000]]).unwrap();
    drop(file);
    let opened = EngineLog::open(
        Arc::new(OsStorage),
        &dir.path().join("raft"),
        SMALL,
        Arc::new(CountSyncs::default()),
    );
    match opened {
        Err(RaftLogError::Damaged { .. }) => {}
        Err(other) => panic!("expected damage, found {other}"),
        Ok(log) => assert!(matches!(log.load(GroupId(1)), Err(RaftLogError::Damaged { .. }))),
    }
}

#[test]
fn format_1_values_beside_the_entries_never_change() {
    let mark = InstallMark { index: RaftIndex(7), term: Term(3), digest: 99 };
    let bytes = [
        &values::encode_hard_state(&hard_state(4, 2, 9))[..],
        &values::encode_install_mark(&mark),
        &values::encode_index(RaftIndex(12)),
    ]
    .concat();
    assert_eq!(bytes, include_bytes!("../../testdata/format-1/raft-log-values.bin"));
}

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
                *self = Self { next, first: next, term: self.term, ..Self::default() };
                write.clear = true;
            }
            Step::Compact { .. } | Step::Purge | Step::Reopen => unreachable!("not a write"),
        }
        write
    }

    fn compact(&mut self, first_kept: u64) {
        self.first = first_kept;
        self.entries = self.entries.split_off(&first_kept);
    }

    fn check(&self, log: &dyn RaftLog, group: u64) {
        let loaded = log.load(GroupId(group)).unwrap();
        assert_eq!(loaded.hard_state, self.hard_state);
        assert_eq!(loaded.install, self.install);
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
            Step::HardState { group, .. } | Step::Mark { group, .. } | Step::Clear { group, .. } => {
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
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn raft_engine_behaves_like_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        run(&steps, &|| Box::new(open_engine(dir.path())));
    }

    #[test]
    fn the_simulated_log_behaves_like_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        run(&steps, &|| Box::new(open_sim(dir.path())));
    }
}
