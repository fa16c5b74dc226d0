//! Which votes a start brings to the votes file, and what it makes of what a replica left that has ended.

use std::collections::BTreeMap;
use std::path::Path;

use raft::eraftpb::HardState;
use tidelog_engine::checkpoint::EntryId;
use tidelog_engine::sim_disk::SimDisk;
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId, Term};

use super::recover::{Disk, Found, votes_behind};
use crate::core::{CheckpointFacts, Members, ReplicaStart};
use crate::raft_log::{GroupLog, GroupWrite, RaftLog, SimLog, SimLogOptions};
use crate::runtime::one_log::machines_with_a_batch;
use crate::votes::Vote;

/// A crash between the two syncs of a vote left the term in the votes file without the vote. It was never brought there in
/// that term, so a raft log that lost its end afterwards could have let the replica vote a second time.
#[test]
fn a_vote_of_a_term_that_the_votes_file_knows_without_it_is_brought_there() {
    let group = GroupId(3);
    let vote = |term, vote| Vote { group, replica: ReplicaId(1), term: Term(term), vote };
    let brought = |known: Option<Vote>| {
        let entry = EntryId { index: RaftIndex(1), term: Term(1) };
        let checkpoint = CheckpointFacts { applied: entry, last_durable: entry, members: Members::default() };
        let hard_state = HardState { term: 5, vote: 2, ..HardState::default() };
        let log = GroupLog { hard_state, ..GroupLog::default() };
        votes_behind(&[ReplicaStart { group, replica: ReplicaId(1), checkpoint, log, vote: known }])
    };
    let written = vec![vote(5, Some(ReplicaId(2)))];
    assert_eq!(brought(None), written);
    assert_eq!(brought(Some(vote(4, Some(ReplicaId(3))))), written);
    assert_eq!(brought(Some(vote(5, None))), written);
    assert_eq!(brought(Some(vote(5, Some(ReplicaId(2))))), []);
    assert_eq!(brought(Some(vote(6, None))), []);
}

/// Story: a node ended a replica that nobody wanted any more. Its number stayed in the raft log and its term in the votes file,
/// and the next start halted it for good: its raft log had lost what it promised.
#[test]
fn what_a_replica_left_that_has_ended_is_no_evidence_and_is_not_started() {
    let disk = SimDisk::new(1);
    let (engine, mut machines) = machines_with_a_batch(&disk);
    let (group, replica) = (GroupId(9), ReplicaId(6));
    assert!(machines.catalogue().members().next().is_some() && machines.catalogue().group(group).is_none());
    let raft_log = SimLog::open(disk.storage(), Path::new("/data/raft"), SimLogOptions::default()).unwrap();
    let ended = GroupWrite { clear: true, replica: Some(replica), ..GroupWrite::new(group) };
    raft_log.write(&[ended], true).unwrap();
    let votes = BTreeMap::from([(group, Vote { group, replica, term: Term(4), vote: None })]);
    let disk = Disk { engine: &engine, raft_log: &raft_log, votes: &votes, identity: engine.identity() };
    assert!(matches!(disk.find(&mut machines, group), Found::Nothing));
}
