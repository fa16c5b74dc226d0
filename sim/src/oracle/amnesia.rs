//! **No vote by an amnesiac**: a replica that lost something of what it promised never votes, acknowledges or counts
//! again under its id.
//!
//! Raft takes it that what was written to stable storage stays (Ongaro and Ousterhout 2014, section 5); where that is
//! broken, D. Mazières ("Paxos Made Practical", 2007) and B. Liskov and J. Cowling ("Viewstamped Replication Revisited",
//! 2012, section 4.3) have the replica recover before it takes part. Here it comes back under a new id. The checker is told of the
//! messages that leave, of what the sender's disk holds then, and of each disk that was lost or put back.
//!
//! 1. A replica votes for one candidate a term, in all of its lives.
//! 2. A vote leaves only when it lies on the disk: else the next power cut makes an amnesiac.
//! 3. A replica whose disk was lost promises nothing more: no vote, no candidacy, no acknowledged entry, no heartbeat
//!    answered.

use std::collections::{BTreeMap, BTreeSet};

use raft::eraftpb::{Message, MessageType};
use tidelog_wire::ids::{GroupId, NodeId, ReplicaId};

use super::Violation;
use super::raft_logs::Held;

const PROPERTY: &str = "no vote by an amnesiac";

/// Who voted for whom, and who forgot.
#[derive(Debug, Default)]
pub struct Amnesia {
    votes: BTreeMap<(GroupId, u64, u64), u64>,
    /// The node on which each replica spoke last.
    spoke: BTreeMap<(GroupId, u64), NodeId>,
    lost: BTreeSet<(GroupId, u64)>,
}

/// What a message promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Nothing,
    Vote { candidate: u64 },
    Counts,
}

fn promise(message: &Message) -> Promise {
    match message.get_msg_type() {
        MessageType::MsgRequestVote => Promise::Vote { candidate: message.from },
        MessageType::MsgRequestVoteResponse if !message.reject => Promise::Vote { candidate: message.to },
        MessageType::MsgAppendResponse if !message.reject => Promise::Counts,
        MessageType::MsgHeartbeatResponse | MessageType::MsgAppend | MessageType::MsgHeartbeat => {
            Promise::Counts
        }
        MessageType::MsgRequestVoteResponse
        | MessageType::MsgAppendResponse
        | MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgSnapshot
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => Promise::Nothing,
    }
}

impl Amnesia {
    /// `message` leaves `node`, whose raft log holds `log`.
    ///
    /// # Errors
    /// It promises what its sender cannot keep, or has promised otherwise.
    pub fn sent(
        &mut self,
        node: NodeId,
        group: GroupId,
        message: &Message,
        log: Option<&Held>,
    ) -> Result<(), Violation> {
        let broken = |seen: String| Err(Violation::of(PROPERTY, seen));
        let promise = promise(message);
        if promise == Promise::Nothing {
            return Ok(());
        }
        let replica = message.from;
        if self.lost.contains(&(group, replica)) {
            return broken(format!(
                "group {group}: replica {replica} lost its disk, and sends {:?} from node {node}",
                message.get_msg_type()
            ));
        }
        self.spoke.insert((group, replica), node);
        let Promise::Vote { candidate } = promise else { return Ok(()) };
        let term = message.term;
        let first = *self.votes.entry((group, replica, term)).or_insert(candidate);
        if first != candidate {
            return broken(format!(
                "group {group}, term {term}: replica {replica} on node {node} voted for {first}, and for {candidate}"
            ));
        }
        match log.map(|log| log.durable_vote) {
            Some((durable, vote)) if durable > term || (durable, vote) == (term, candidate) => Ok(()),
            durable => broken(format!(
                "group {group}, term {term}: the vote of replica {replica} for {candidate} leaves node {node}, whose \
                 disk holds {durable:?}"
            )),
        }
    }

    /// The disk of `node` was wiped, or an old copy was put in its place.
    pub fn lost(&mut self, node: NodeId) {
        let replicas = self.spoke.iter().filter(|(_, on)| **on == node).map(|(replica, _)| *replica);
        self.lost.extend(replicas);
        self.spoke.retain(|_, on| *on != node);
    }

    /// What one replica promised is lost, and the rest of its node's disk is not.
    pub fn lost_one(&mut self, group: GroupId, replica: ReplicaId) {
        self.lost.insert((group, replica.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn grant(from: u64, to: u64, term: u64) -> Message {
        let mut message = Message { from, to, term, ..Message::default() };
        message.set_msg_type(MessageType::MsgRequestVoteResponse);
        message
    }

    fn disk(term: u64, vote: u64) -> Held {
        Held { durable_vote: (term, vote), ..Held::default() }
    }

    #[test]
    fn a_second_vote_in_a_term_is_a_violation() {
        let mut checker = Amnesia::default();
        let mut sent = |to, term| checker.sent(NodeId(0), GROUP, &grant(1, to, term), Some(&disk(term, to)));
        assert_eq!(sent(2, 5), Ok(()));
        assert_eq!(sent(2, 5), Ok(()), "the same one again");
        assert_eq!(sent(3, 6), Ok(()), "in another term");
        assert!(sent(3, 5).is_err());
    }

    #[test]
    fn a_vote_that_is_not_on_disk_is_a_violation() {
        let mut checker = Amnesia::default();
        let mut sent = |held: &Held| checker.sent(NodeId(0), GROUP, &grant(1, 2, 5), Some(held));
        assert_eq!(sent(&disk(5, 2)), Ok(()));
        assert_eq!(sent(&disk(6, 0)), Ok(()), "of a term that is past nothing is needed");
        assert!(sent(&disk(5, 0)).is_err());
        assert!(sent(&disk(4, 2)).is_err());
    }

    #[test]
    fn a_replica_whose_disk_was_lost_must_not_speak() {
        let mut checker = Amnesia::default();
        let mut heartbeat = Message { from: 1, to: 2, term: 5, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeatResponse);
        assert_eq!(checker.sent(NodeId(0), GROUP, &heartbeat, None), Ok(()));
        checker.lost(NodeId(0));
        assert!(checker.sent(NodeId(0), GROUP, &heartbeat, None).is_err());
        let new = Message { from: 9, ..heartbeat };
        assert_eq!(checker.sent(NodeId(0), GROUP, &new, None), Ok(()), "a new id is another replica");
    }
}
