//! Conformance: both raft logs answer alike, scenario by scenario.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use raft::eraftpb::{Entry, HardState};
use tidelog_engine::os::OsStorage;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_engine::storage::{OpenMode, Position, Storage};
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId, Term};

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

pub(super) const SMALL: EngineLogOptions =
    EngineLogOptions { file_bytes: 8 << 10, purge_bytes: 32 << 10, prefill_bytes: 0, recovery_threads: 2 };

pub(super) fn open_engine(dir: &Path) -> EngineLog {
    let storage = Arc::new(OsStorage);
    EngineLog::open(storage, &dir.join("raft"), SMALL, Arc::new(CountSyncs::default())).unwrap()
}

pub(super) fn open_sim(disk: &SimDisk) -> SimLog {
    SimLog::open(disk.storage(), Path::new("/data/raft"), SimLogOptions::rewriting_at(16 << 10)).unwrap()
}

/// A simulated disk with a data directory.
pub(super) fn new_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.storage().create_dir(Path::new("/data")).unwrap();
    disk.storage().sync_dir(Path::new("/")).unwrap();
    disk
}

pub(super) fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index, term, data: data.to_vec().into(), ..Entry::default() }
}

pub(super) fn append(group: u64, entries: Vec<Entry>) -> GroupWrite {
    GroupWrite { entries, ..GroupWrite::new(GroupId(group)) }
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..HardState::default() }
}

/// Runs a scenario against each implementation; `open` opens it again on the same directory.
fn with_each(scenario: impl Fn(&dyn Fn() -> Box<dyn RaftLog>)) {
    let dir = tempfile::tempdir().unwrap();
    scenario(&|| Box::new(open_engine(dir.path())));
    let disk = new_disk();
    scenario(&|| Box::new(open_sim(&disk)));
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

/// A snapshot's switch clears the log; were it forgotten then whose log it is, the next start would take an older
/// replica's checkpoint for this one's.
#[test]
fn whose_log_it_is_outlives_a_clear_and_a_newer_replica_takes_nothing_over() {
    with_each(|open| {
        let log = open();
        log.write(&[append(1, vec![entry(1, 1, b"old")])], true).unwrap();
        let replace = GroupWrite { clear: true, replica: Some(ReplicaId(7)), ..GroupWrite::new(GroupId(1)) };
        let write = GroupWrite { hard_state: Some(hard_state(3, 0, 0)), ..GroupWrite::new(GroupId(1)) };
        log.write(&[replace, write], true).unwrap();
        log.purge().unwrap();
        drop(log);
        let log = open();
        let one = log.load(GroupId(1)).unwrap();
        assert_eq!((one.replica, one.span, one.hard_state.term), (Some(ReplicaId(7)), None, 3));
        log.clear(GroupId(1)).unwrap();
        drop(log);
        let log = open();
        let expected = GroupLog { replica: Some(ReplicaId(7)), ..GroupLog::default() };
        assert_eq!(log.load(GroupId(1)).unwrap(), expected);
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
        &values::encode_replica(ReplicaId(5)),
    ]
    .concat();
    assert_eq!(bytes, include_bytes!("../../testdata/format-1/raft-log-values.bin"));
}

/// Two groups write; one is compacted as checkpoints allow, the other is not. The files of the first
/// are given back, and the second is named until it is compacted too.
#[test]
fn files_are_given_back_and_the_group_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_engine(dir.path());
    for index in 1..=100 {
        log.write(&[append(2, vec![entry(index, 1, &[7; 500])])], true).unwrap();
    }
    let mut named = Vec::new();
    for index in 1..=600 {
        log.write(&[append(1, vec![entry(index, 1, &[7; 1000])])], false).unwrap();
        if index % 20 == 0 {
            log.compact(GroupId(1), RaftIndex(index - 10)).unwrap();
            named.extend(log.purge().unwrap());
        }
    }
    assert!(named.contains(&GroupId(2)), "{named:?}");
    assert!(!named.contains(&GroupId(1)), "{named:?}");
    log.compact(GroupId(2), RaftIndex(100)).unwrap();
    log.purge().unwrap();
    assert!(log.disk_bytes() < 400 << 10, "{} bytes are held", log.disk_bytes());
    assert_eq!(log.load(GroupId(2)).unwrap().span.unwrap().last, RaftIndex(100));
}
