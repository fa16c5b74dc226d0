//! The votes file: what it keeps, what a crash may do to it, and its bytes.

use std::path::Path;

use tidelog_engine::sim_disk::{Crash, Failure, Fault, Operation, SimDisk};
use tidelog_engine::storage::read_whole;

use super::*;

fn vote(group: u64, term: u64, for_replica: u64) -> Vote {
    Vote {
        replica: ReplicaId(1),
        group: GroupId(group),
        term: Term(term),
        vote: (for_replica != 0).then_some(ReplicaId(for_replica)),
    }
}

fn dir() -> &'static Path {
    Path::new("/data")
}

fn new_disk() -> SimDisk {
    let disk = SimDisk::new(1);
    let storage = disk.storage();
    storage.create_dir(dir()).unwrap();
    storage.sync_dir(Path::new("/")).unwrap();
    disk
}

fn open(disk: &SimDisk) -> (Votes, VotesFound) {
    Votes::open(disk.storage().as_ref(), dir()).unwrap()
}

#[test]
fn the_newest_vote_of_each_group_is_there_after_a_power_cut() {
    let disk = new_disk();
    let (mut votes, found) = open(&disk);
    assert_eq!(found, VotesFound::default());
    votes.record(&[vote(0, 1, 1), vote(1, 1, 0)]).unwrap();
    votes.record(&[vote(1, 2, 3)]).unwrap();
    votes.record(&[vote(1, 3, 2), vote(7, 9, 2)]).unwrap();
    disk.crash(Crash::LoseUnsynced);
    let (_, found) = open(&disk);
    assert_eq!(found.damage, []);
    assert_eq!(found.votes.into_values().collect::<Vec<_>>(), [vote(0, 1, 1), vote(1, 3, 2), vote(7, 9, 2)]);
}

#[test]
fn more_groups_than_the_file_first_has_room_for() {
    let disk = new_disk();
    let (mut votes, _) = open(&disk);
    let all: Vec<_> = (0..100).map(|group| vote(group, group + 1, 1)).collect();
    votes.record(&all).unwrap();
    disk.crash(Crash::LoseUnsynced);
    let (_, found) = open(&disk);
    assert_eq!(found.votes.into_values().collect::<Vec<_>>(), all);
}

/// Several terms that gathered behind one sync must not take both slots of a group.
#[test]
fn many_votes_of_one_group_in_one_record_keep_the_synced_slot() {
    for seed in 0..50 {
        let disk = new_disk();
        let (mut votes, _) = open(&disk);
        votes.record(&[vote(0, 1, 1)]).unwrap();
        votes.record(&[vote(0, 2, 1)]).unwrap();
        disk.inject(Fault::next(Operation::Sync, Failure::Io));
        assert!(votes.record(&[vote(0, 3, 1), vote(0, 4, 1), vote(0, 5, 1)]).is_err());
        disk.crash(Crash::PowerCut { seed });
        let (_, found) = open(&disk);
        assert_eq!(found.damage, []);
        assert!([vote(0, 2, 1), vote(0, 5, 1)].contains(&found.votes[&GroupId(0)]));
    }
}

#[test]
fn a_failed_sync_fences_the_file() {
    let disk = new_disk();
    let (mut votes, _) = open(&disk);
    votes.record(&[vote(0, 1, 1)]).unwrap();
    disk.inject(Fault::next(Operation::Sync, Failure::Io));
    assert!(matches!(votes.record(&[vote(0, 2, 1)]), Err(VotesError::Io { .. })));
    assert!(votes.record(&[vote(0, 3, 1)]).is_err(), "nothing is written after a failed sync");
}

#[test]
fn one_bad_slot_costs_nothing_two_are_reported() {
    let disk = new_disk();
    let (mut votes, _) = open(&disk);
    votes.record(&[vote(0, 1, 1), vote(1, 1, 1)]).unwrap();
    votes.record(&[vote(0, 2, 2), vote(1, 2, 2)]).unwrap();
    let path = dir().join(VOTES_FILE);
    // The older slot of group 0; both slots of group 1.
    for byte in [24, 1024 + 24, 1536 + 24] {
        disk.flip_bit(&path, Position(byte), 3).unwrap();
    }
    let (_, found) = open(&disk);
    assert_eq!(found.votes.into_values().collect::<Vec<_>>(), [vote(0, 2, 2)]);
    assert_eq!(found.damage, [VoteDamage { path, position: Position(1024) }]);
}

/// Every point at which the power can fail, with many fates of what was not synced: a recorded vote
/// is never forgotten, and nothing but the vote being recorded appears in its place.
#[test]
fn no_crash_takes_back_a_recorded_vote() {
    let history: Vec<Vote> =
        (1..=6).flat_map(|term| [vote(0, term, 1 + term % 3), vote(3, term, 0)]).collect();
    for stop in 1..40 {
        for seed in 0..20 {
            let disk = new_disk();
            disk.stop_at(disk.changes() + stop);
            let mut recorded = BTreeMap::new();
            let mut tried = BTreeMap::new();
            if let Ok((mut votes, _)) = Votes::open(disk.storage().as_ref(), dir()) {
                for vote in &history {
                    tried.insert(vote.group, *vote);
                    if votes.record(&[*vote]).is_err() {
                        break;
                    }
                    recorded.insert(vote.group, *vote);
                }
            }
            disk.crash(Crash::PowerCut { seed });
            let (_, found) = open(&disk);
            assert_eq!(found.damage, [], "stop {stop}, seed {seed}");
            for (group, vote) in &found.votes {
                let known = recorded.get(group) == Some(vote) || tried.get(group) == Some(vote);
                assert!(known, "stop {stop}, seed {seed}: {vote:?} was never recorded last");
            }
            for (group, vote) in &recorded {
                let kept = found.votes.get(group);
                assert!(kept >= Some(vote), "stop {stop}, seed {seed}: {vote:?} became {kept:?}");
            }
        }
    }
}

/// The story: a sync of the votes file failed and the process was killed. The kernel had marked the pages
/// clean, so the next process read the vote from the cache, synced, heard that all is well and acted upon
/// it; the power cut after that took it, and the replica could have voted a second time.
#[test]
fn what_opening_reads_survives_a_power_cut_after_it() {
    let disk = new_disk();
    let (mut votes, _) = open(&disk);
    disk.inject(Fault::next(Operation::Sync, Failure::Io));
    assert!(votes.record(&[vote(0, 5, 2)]).is_err());
    disk.crash(Crash::ProcessOnly);
    let (_, seen) = open(&disk);
    disk.crash(Crash::LoseUnsynced);
    let (_, kept) = open(&disk);
    assert_eq!(seen, kept);
}

/// A disk had left bytes behind the place of a first slot. Only the slot was written over them, so the vote was
/// recorded, acted upon, and not there at the next start: the node could have voted twice.
#[test]
fn a_vote_recorded_over_damage_is_there_after_a_power_cut() {
    let disk = new_disk();
    let path = dir().join(VOTES_FILE);
    let file = disk.storage().open(&path, OpenMode::CreateNew).unwrap();
    file.write_at(Position(100), &[&[7; 100]]).unwrap();
    let (mut votes, _) = open(&disk);
    votes.record(&[vote(3, 4, 1)]).unwrap();
    disk.crash(Crash::LoseUnsynced);
    assert_eq!(open(&disk).1.votes.into_values().collect::<Vec<_>>(), [vote(3, 4, 1)]);
}

/// Found by fuzzing: the same where the file was long enough already, so that nothing was filled with zeros; and the
/// same behind the second slot of a pair.
#[test]
fn a_vote_recorded_over_damage_within_a_long_file_is_there_after_a_power_cut() {
    for rotten in [100, 700] {
        let disk = new_disk();
        let path = dir().join(VOTES_FILE);
        let file = disk.storage().open(&path, OpenMode::CreateNew).unwrap();
        file.prefill(Position::ZERO, 4096).unwrap();
        let (mut votes, _) = open(&disk);
        votes.record(&[vote(3, 4, 1)]).unwrap();
        drop(votes);
        file.write_at(Position(rotten), &[&[7; 100]]).unwrap();
        let (mut votes, _) = open(&disk);
        for term in 5..8 {
            votes.record(&[vote(3, term, 1)]).unwrap();
            disk.crash(Crash::LoseUnsynced);
            assert_eq!(
                open(&disk).1.votes.into_values().collect::<Vec<_>>(),
                [vote(3, term, 1)],
                "rotten from {rotten} on"
            );
            votes = open(&disk).0;
        }
    }
}

/// Found by fuzzing: of the newer slot the zeros at its end were cut off, so the older one counted. Then the file grew for
/// another group, the zeros were there, and at the next start the newer one counted again.
#[test]
fn a_slot_that_lacks_its_zeros_counts_before_and_after_the_file_grows() {
    let disk = new_disk();
    let file = disk.storage().open(&dir().join(VOTES_FILE), OpenMode::CreateNew).unwrap();
    let slot = |sequence, term| Slot { sequence, vote: vote(0, term, 1) };
    let older = slot(1, 7).encode(Position::ZERO);
    let newer = slot(2, 8).encode(Position(512));
    file.write_at(Position::ZERO, &[&older]).unwrap();
    file.write_at(Position(512), &[&newer[..41]]).unwrap();
    let (mut votes, before) = open(&disk);
    votes.record(&[vote(3, 4, 2)]).unwrap();
    disk.crash(Crash::LoseUnsynced);
    let (_, after) = open(&disk);
    assert_eq!(before.votes.get(&GroupId(0)), Some(&vote(0, 8, 1)));
    assert_eq!(after.votes.get(&GroupId(0)), Some(&vote(0, 8, 1)));
}

/// Found by fuzzing: a slot with the last sequence number there is. The vote after it got the same number, so at
/// the next start the older one counted: the node could have voted twice.
#[test]
fn a_vote_after_the_last_sequence_number_is_the_newer_one() {
    let disk = new_disk();
    let slot = Slot { sequence: u64::MAX, vote: vote(3, 4, 1) };
    let file = disk.storage().open(&dir().join(VOTES_FILE), OpenMode::CreateNew).unwrap();
    file.write_at(Position::ZERO, &[&slot.encode(Position::ZERO)]).unwrap();
    for term in 5..9 {
        let (mut votes, _) = open(&disk);
        votes.record(&[vote(3, term, 2)]).unwrap();
        disk.crash(Crash::LoseUnsynced);
        assert_eq!(open(&disk).1.votes.into_values().collect::<Vec<_>>(), [vote(3, term, 2)]);
    }
}

#[test]
fn format_1_votes_bytes_never_change() {
    let disk = new_disk();
    let (mut votes, _) = open(&disk);
    votes.record(&[vote(0, 7, 2), vote(4, 9, 0)]).unwrap();
    votes.record(&[vote(0, 8, 3)]).unwrap();
    let bytes = read_whole(disk.storage().as_ref(), &dir().join(VOTES_FILE), 1 << 20).unwrap();
    let golden = include_bytes!("../../testdata/format-1/votes.bin");
    let used = &bytes[..2048];
    assert!(bytes[2048..].iter().all(|byte| *byte == 0));
    assert_eq!(used, golden);
}
