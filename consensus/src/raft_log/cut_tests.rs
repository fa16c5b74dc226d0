//! Torn tails of the newest file are cut; bytes that were synced once are not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use tidelog_engine::os::OsStorage;
use tidelog_engine::storage::{OpenMode, Position, Storage, read_whole};
use tidelog_wire::ids::{GroupId, RaftIndex};

use super::tests::{SMALL, append, entry, open_engine};
use super::{AbortOnSyncFailure, EngineLog, EngineLogOptions, RaftLog, RaftLogError};

/// One file for all, so that it is the newest.
const ONE_FILE: EngineLogOptions = EngineLogOptions { file_bytes: 1 << 20, purge_bytes: 4 << 20, ..SMALL };

fn open(dir: &Path) -> Result<EngineLog, RaftLogError> {
    EngineLog::open(Arc::new(OsStorage), &dir.join("raft"), ONE_FILE, Arc::new(AbortOnSyncFailure))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let names = OsStorage.list(&dir.join("raft")).unwrap();
    let logs = names.into_iter().filter(|entry| entry.name.ends_with(".raftlog"));
    logs.map(|entry| dir.join("raft").join(entry.name)).collect()
}

fn newest(dir: &Path) -> PathBuf {
    files(dir).into_iter().max().unwrap()
}

fn bytes(path: &Path) -> Vec<u8> {
    read_whole(&OsStorage, path, 1 << 30).unwrap()
}

fn put(path: &Path, bytes: &[u8]) {
    let file = OsStorage.open(path, OpenMode::ReadWrite).unwrap();
    file.truncate(0).unwrap();
    file.write_at(Position(0), &[bytes]).unwrap();
}

fn write(log: &EngineLog, index: u64) {
    let data = format!("entry {index} {}", "x".repeat(200));
    log.write(&[append(1, vec![entry(index, 1, data.as_bytes())])], true).unwrap();
}

fn last(log: &EngineLog) -> u64 {
    log.load(GroupId(1)).unwrap().span.map_or(0, |span| span.last.get())
}

/// Where the batch of an entry begins and ends in the newest file.
fn place_of(dir: &Path, index: u64) -> usize {
    let text = format!("entry {index} ");
    bytes(&newest(dir)).windows(text.len()).position(|window| window == text.as_bytes()).unwrap()
}

/// Story: raft-engine cuts its newest file at the first bytes that do not verify, also in the middle. A bit flipped
/// there took every entry behind it, acknowledged ones too, and the start said nothing.
#[test]
fn a_flipped_bit_in_the_middle_of_the_newest_file_is_damage_and_nothing_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    (1..=20).for_each(|index| write(&log, index));
    drop(log);
    let (path, whole) = (newest(dir.path()), bytes(&newest(dir.path())));
    for index in [1, 10, 18] {
        // The last bytes of a batch are its items, which raft-engine checks when it opens.
        let mut flipped = whole.clone();
        flipped[place_of(dir.path(), index) + 220] ^= 4;
        put(&path, &flipped);
        let error = open(dir.path()).unwrap_err();
        let RaftLogError::Damaged { found, .. } = &error else { panic!("{error}") };
        assert!(found.contains("which was synced"), "{found}");
        assert_eq!(bytes(&path), flipped, "nothing is cut");
        put(&path, &whole);
    }
    assert_eq!(last(&open(dir.path()).unwrap()), 20);
}

/// What no evidence shows: the last batch alone may have been on its way. docs/recovery.md says so.
#[test]
fn a_flip_in_the_last_batch_is_taken_for_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    (1..=20).for_each(|index| write(&log, index));
    drop(log);
    let path = newest(dir.path());
    let mut flipped = bytes(&path);
    flipped[place_of(dir.path(), 20) + 220] ^= 4;
    put(&path, &flipped);
    assert_eq!(last(&open(dir.path()).unwrap()), 19);
}

/// Story: of a file that is not the newest, raft-engine cuts a last batch whose entries do not verify. That file was
/// synced before the next one was made.
#[test]
fn nothing_of_an_older_file_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_engine(dir.path());
    (1..=200).for_each(|index| write(&log, index));
    drop(log);
    let older = files(dir.path()).into_iter().min().unwrap();
    let mut flipped = bytes(&older);
    let at = flipped.windows(6).rposition(|window| window == b"entry ").unwrap();
    flipped[at + 100] ^= 1;
    put(&older, &flipped);
    let opened =
        EngineLog::open(Arc::new(OsStorage), &dir.path().join("raft"), SMALL, Arc::new(AbortOnSyncFailure));
    let error = opened.unwrap_err();
    assert!(matches!(error, RaftLogError::Damaged { .. }), "{error}");
    assert_eq!(bytes(&older), flipped);
}

/// A recycled file holds the batches of its earlier life behind its end. They are signed with another number.
#[test]
fn old_batches_in_a_recycled_file_prove_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path()).unwrap();
    (1..=20).for_each(|index| write(&log, index));
    drop(log);
    let path = newest(dir.path());
    let whole = bytes(&path);
    let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let again = path.with_file_name(format!("{:016}.raftlog", number + 1));
    let end = place_of(dir.path(), 3) + 100;
    OsStorage.rename(&path, &again).unwrap();
    let mut recycled = whole;
    // A torn batch of this life, which ends inside batch 3 of the other.
    recycled[..end].fill(0x5a);
    assert!(!super::cut_tail::was_synced(&recycled, super::cut_tail::FileNumber(number + 1)));
    assert!(super::cut_tail::was_synced(&recycled, super::cut_tail::FileNumber(number)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Behind the last sync come compactions, which nobody syncs, and one batch with entries. Of their sectors a power
    /// cut leaves any: that is never damage, and what was synced is there.
    #[test]
    fn a_power_cut_never_looks_like_damage(
        synced in 1..12_u64,
        compactions in 0..4_u64,
        kept in prop::collection::vec(any::<bool>(), 64),
        noise in any::<Option<u8>>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path()).unwrap();
        (1..=synced + 5).for_each(|index| write(&log, index));
        let before = bytes(&newest(dir.path()));
        for index in 0..compactions {
            log.compact(GroupId(1), RaftIndex(2 + index)).unwrap();
        }
        write(&log, synced + 6);
        let path = newest(dir.path());
        drop(log);
        let end = before.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let mut torn = bytes(&path);
        for (number, sector) in torn.chunks_mut(64).enumerate() {
            let from = number * 64;
            if from >= end && !kept[number % kept.len()] {
                sector.fill(noise.unwrap_or(0));
            }
        }
        put(&path, &torn);
        let opened = open(dir.path());
        prop_assert!(opened.is_ok(), "{:?}", opened.err());
        let last = last(&opened.unwrap());
        prop_assert!((synced + 5..=synced + 6).contains(&last), "{last}");
    }
}
