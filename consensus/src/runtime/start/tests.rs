//! Which votes a start brings to the votes file.

use raft::eraftpb::HardState;
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{GroupId, RaftIndex, ReplicaId, Term};

use super::recover::votes_behind;
use crate::core::{CheckpointFacts, Members, ReplicaStart};
use crate::raft_log::GroupLog;
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
