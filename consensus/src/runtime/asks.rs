//! Asks: meta commands of nodes that do not lead the meta group, carried to the one that does.
//!
//! A node registers, joins, reports and asks for new replicas by commands to the meta group. If it leads that group
//! itself it proposes them; else it asks the leader, and if it knows none, whoever can be reached, who says where the
//! leader is. Each attempt is bounded; nobody retries here, since every caller looks again at what is to be done.
//!
//! Whoever answers proposes only what the asking node may say of itself: a guest no more than that it is there.
//!
//! | answer at | size | field                                                                  |
//! |---:|-----:|--------------------------------------------------------------------------------|
//! |  0 |    1 | `status`: 0 done, 1 refused, 2 refused as stale, 3 not the leader, 4 not now, 5 refused for ever |
//! |  1 |    8 | of status 3: the leader's node, all ones if not known                          |
//! |  1 |    8 | of status 0, if the node joined or replaced it: its replica of the meta group  |
//! |  1 |   .. | of the others: the reason, as text                                             |
//!
//! A question is an entry's context and data, as `crate::entry` defines them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Entry;
use tidelog_wire::ids::{GroupId, Incarnation, NodeId, ReplicaId};
use tokio::time::timeout;

use super::handle::{NodeHandle, WeakHandle};
use super::register::seat_of;
use super::waiters::ProposeError;
use crate::apply::group_placement::UNBOUND;
use crate::entry::{self, Command, MetaCommand, NodeRecord};
use crate::outcome::{Outcome, Refusal};
use crate::transport::{AskSource, Asker, LaterAnswer, Transport, TransportError};

/// How long the leader tries to have a command applied.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// How long one attempt may take altogether.
const PATIENCE: Duration = Duration::from_secs(3);
/// Nodes that one attempt asks before it gives up.
const HOPS_MAX: usize = 4;
/// Bytes of an entry's context for a meta command.
const CONTEXT_BYTES: usize = 4;
const NOBODY: u64 = u64::MAX;

/// What came of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The command was applied. Whoever joined is told its replica of the meta group.
    Done(Option<ReplicaId>),
    /// It was agreed on and refused.
    Refused(String),
    /// It was refused because what is known of the asking node is newer than what it says.
    Stale(String),
    /// It was refused because the asking node's data directory was given up for ever.
    Retired(String),
    /// Another node leads, or nobody knows one.
    NotLeader(Option<NodeId>),
    /// It may have been applied or not: ask again.
    NotNow(String),
}

impl Asked {
    fn of(result: Result<Outcome, ProposeError>) -> Self {
        match result {
            Ok(Outcome::Refused(stale @ (Refusal::StaleNode { .. } | Refusal::OtherIncarnation { .. }))) => {
                Self::Stale(stale.to_string())
            }
            Ok(Outcome::Refused(retired @ Refusal::IncarnationRetired { .. })) => {
                Self::Retired(retired.to_string())
            }
            Ok(Outcome::Refused(refusal)) => Self::Refused(refusal.to_string()),
            Ok(_) => Self::Done(None),
            Err(ProposeError::NotLeader { leader }) => Self::NotLeader(leader),
            Err(error) => Self::NotNow(error.to_string()),
        }
    }

    fn encode(&self) -> Bytes {
        let (status, rest) = match self {
            Self::Done(None) => (0, Vec::new()),
            Self::Done(Some(replica)) => (0, replica.get().to_le_bytes().to_vec()),
            Self::Refused(text) => (1, text.clone().into_bytes()),
            Self::Stale(text) => (2, text.clone().into_bytes()),
            Self::NotLeader(leader) => (3, leader.map_or(NOBODY, NodeId::get).to_le_bytes().to_vec()),
            Self::NotNow(text) => (4, text.clone().into_bytes()),
            Self::Retired(text) => (5, text.clone().into_bytes()),
        };
        [vec![status], rest].concat().into()
    }

    fn decode(bytes: &[u8]) -> Self {
        let unread = || Self::NotNow("an answer that cannot be read".to_owned());
        let Some((status, rest)) = bytes.split_first() else { return unread() };
        let text = || String::from_utf8_lossy(rest).into_owned();
        match (status, rest.first_chunk()) {
            (0, replica) => Self::Done(replica.map(|replica| ReplicaId(u64::from_le_bytes(*replica)))),
            (1, _) => Self::Refused(text()),
            (2, _) => Self::Stale(text()),
            (3, Some(leader)) => {
                Self::NotLeader(Some(NodeId(u64::from_le_bytes(*leader))).filter(|node| node.get() != NOBODY))
            }
            (4, _) => Self::NotNow(text()),
            (5, _) => Self::Retired(text()),
            (_, _) => unread(),
        }
    }
}

/// The question that carries `command`.
fn question(command: MetaCommand) -> Bytes {
    let (context, data) = entry::encode(Command::Meta(command));
    [&context[..], &data].concat().into()
}

pub(super) fn decode_question(mut question: Bytes) -> Result<MetaCommand, String> {
    if question.len() < CONTEXT_BYTES {
        return Err("a short question".to_owned());
    }
    let context = question.split_to(CONTEXT_BYTES);
    let entry = Entry { context, data: question, ..Entry::default() };
    match entry::decode(GroupId::META, &entry) {
        Ok(Some(Command::Meta(command))) => Ok(command),
        Ok(_) => Err("not a command of the meta group".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Has `command` applied by whoever leads the meta group; one attempt, within a bounded time.
pub(super) async fn ask_leader(node: &NodeHandle, command: MetaCommand) -> Asked {
    let within = timeout(PATIENCE, attempt(node, command));
    within.await.unwrap_or_else(|_| Asked::NotNow("no answer in time".to_owned()))
}

async fn attempt(node: &NodeHandle, command: MetaCommand) -> Asked {
    let here = node.identity().node;
    let leader = node.leader(GroupId::META);
    if leader == Some(here) {
        let submitted = node.submit(GroupId::META, Command::Meta(command), ANSWER_PATIENCE);
        return Asked::of(submitted.await);
    }
    match node.transport() {
        Some(transport) => follow_hints(transport, leader, &question(command)).await,
        None => Asked::NotLeader(None),
    }
}

/// Asks the leader that is known, or anybody, and then whom they name.
async fn follow_hints(transport: &Transport, leader: Option<NodeId>, question: &Bytes) -> Asked {
    // Members know more than guests.
    let mut reachable = transport.reachable();
    reachable.sort_by_key(|(_, member)| !member);
    let mut others = reachable.into_iter().map(|(hello, _)| hello.node);
    let mut next = leader.or_else(|| others.next());
    let mut last = Asked::NotLeader(None);
    for _ in 0..HOPS_MAX {
        let Some(node) = next else { return last };
        last = match transport.ask(node, question.clone()).await {
            Ok(answer) => Asked::decode(&answer),
            Err(error) => Asked::NotNow(error.to_string()),
        };
        next = match &last {
            Asked::Done(_) | Asked::Refused(_) | Asked::Stale(_) | Asked::Retired(_) => return last,
            Asked::NotLeader(Some(leader)) if *leader != node => Some(*leader),
            Asked::NotLeader(_) | Asked::NotNow(_) => others.find(|other| *other != node),
        };
    }
    last
}

/// Answers asks of other nodes.
pub(super) struct Answers {
    /// Set once the node runs; nothing is answered before.
    pub(super) node: Arc<OnceLock<WeakHandle>>,
}

impl AskSource for Answers {
    fn ask(&self, peer: Asker, request: Bytes) -> LaterAnswer {
        let node = self.node.get().and_then(WeakHandle::upgrade);
        Box::pin(async move {
            let node = node.ok_or("this node is starting or stopping")?;
            let command = decode_question(request)?;
            may_say(&node, &peer, &command)?;
            // Whoever has no replica of the meta group that works cannot learn elsewhere which one it has now.
            let seated = matches!(
                &command,
                MetaCommand::JoinNode(_) | MetaCommand::ReplaceReplica { group: GroupId::META, .. }
            );
            let submitted = node.submit(GroupId::META, Command::Meta(command), ANSWER_PATIENCE);
            let mut asked = Asked::of(submitted.await);
            if let (Asked::Done(seat), true) = (&mut asked, seated) {
                *seat = seat_of(&node, peer.hello.node, peer.hello.incarnation).await;
            }
            Ok(asked.encode())
        })
    }
}

/// Whether the asking node may have this said: of itself, and of groups if it is a member.
fn may_say(node: &NodeHandle, peer: &Asker, command: &MetaCommand) -> Result<(), String> {
    let hello = &peer.hello;
    let of_itself = |record: &NodeRecord| {
        record.node == hello.node
            && record.incarnation == hello.incarnation
            && record.boot_epoch == hello.boot_epoch
    };
    match command {
        MetaCommand::RegisterNode(record) | MetaCommand::JoinNode(record) if of_itself(record) => {
            same_cluster(node, peer.founding)
        }
        MetaCommand::RegisterNode(record) | MetaCommand::JoinNode(record) => {
            Err(format!("node {} asks to be entered as node {}", hello.node, record.node))
        }
        MetaCommand::ReplaceReplica { group, lost } => {
            let catalogue = node.catalogue();
            let replica = catalogue.group(*group).and_then(|placement| placement.replicas.get(lost));
            let own = replica
                .is_some_and(|known| known.node == hello.node && known.incarnation == hello.incarnation);
            if own { Ok(()) } else { Err(format!("replica {lost} is not one of node {}", hello.node)) }
        }
        MetaCommand::ReportMembers { .. } | MetaCommand::ReportLogs { .. } if peer.member => Ok(()),
        MetaCommand::ReportMembers { .. } | MetaCommand::ReportLogs { .. } => {
            Err("a guest reports nothing".to_owned())
        }
        MetaCommand::DrainNode { .. }
        | MetaCommand::ForgetNode { .. }
        | MetaCommand::CreateGroup { .. }
        | MetaCommand::PlaceReplica { .. }
        | MetaCommand::RetireReplica { .. }
        | MetaCommand::CreateChannels(_)
        | MetaCommand::DeleteChannels(_)
        | MetaCommand::MintProducer => Err("a command that nodes do not ask for".to_owned()),
    }
}

/// A node that knows a founding does not belong to a cluster that has none, or another.
fn same_cluster(node: &NodeHandle, theirs: Option<Incarnation>) -> Result<(), String> {
    let ours = node.catalogue().founding();
    match theirs {
        Some(theirs) if ours != Some(theirs) => {
            let node = node.identity().node;
            let (ours, theirs) = (theirs, ours.unwrap_or(UNBOUND));
            // Said to the asking node, so the other way round.
            Err(TransportError::OtherFounding { node, ours, theirs }.to_string())
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_survives_its_bytes_and_no_bytes_panic() {
        let text = || "why".to_owned();
        let all = [
            Asked::Done(None),
            Asked::Done(Some(ReplicaId(9))),
            Asked::Retired(text()),
            Asked::Refused(text()),
            Asked::Stale(text()),
            Asked::NotLeader(None),
            Asked::NotLeader(Some(NodeId(7))),
            Asked::NotNow(text()),
        ];
        for asked in all {
            assert_eq!(Asked::decode(&asked.encode()), asked);
        }
        for bytes in [&[][..], &[3], &[3, 0], &[9, 9], &[255; 40]] {
            assert!(matches!(Asked::decode(bytes), Asked::NotNow(_)), "{bytes:?}");
        }
    }

    #[test]
    fn a_question_that_is_no_command_is_refused() {
        for bytes in [&b""[..], b"abc", b"abcdefgh"] {
            assert!(decode_question(Bytes::from_static(bytes)).is_err());
        }
        let question = question(MetaCommand::MintProducer);
        assert_eq!(decode_question(question), Ok(MetaCommand::MintProducer));
    }
}
