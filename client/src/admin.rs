//! Requests about the cluster, each one request of the protocol.

use bytes::Bytes;
use tidelog_wire::ids::{Chain, ChannelUuid, Generation, GroupId, LogId, NodeId, Offset, ProducerId};
use tidelog_wire::protocol::{Answer, AnswerFrame, NewChannel, NodeStatus, OffsetSpec, Request};
use tokio::time::Instant;

use crate::client::{Call, Client, Target};
use crate::cluster::CallError;
use crate::error::ClientError;
use crate::link::Lane;

impl Client {
    /// Creates a channel; on return its logs are open. Not repeated if it is unknown whether it was done.
    ///
    /// # Errors
    /// [`ClientError::Refused`], such as when the name is taken; [`ClientError::MayHaveCommitted`]; [`ClientError::Timeout`].
    pub async fn create_channel(&self, new: NewChannel) -> Result<(Generation, ChannelUuid), ClientError> {
        let NewChannel { name, partitions, replicas, segment_bytes } = new;
        let request = Request::CreateChannel { name, partitions, replicas, segment_bytes };
        match self.ask(Target::Any, &request, false).await? {
            (_, Answer::ChannelCreated { generation, uuid }) => Ok((generation, uuid)),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// Deletes a channel: whichever life it is in, or only the one that is named.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::MayHaveCommitted`], [`ClientError::Timeout`].
    pub async fn delete_channel(
        &self,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Generation, ClientError> {
        let request = Request::DeleteChannel { name: name.to_owned(), generation };
        match self.ask(Target::Any, &request, false).await? {
            (_, Answer::ChannelDeleted { generation }) => Ok(generation),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// Sets the log start of a partition; what is below is gone. Returns the log start.
    ///
    /// # Errors
    /// [`ClientError::Refused`], such as for an offset outside of the log; [`ClientError::Timeout`].
    pub async fn trim(&self, channel: &str, log: LogId, to: Offset) -> Result<Offset, ClientError> {
        let request = Request::Trim { log, to };
        match self.ask(leader_of(channel, log), &request, true).await? {
            (_, Answer::Trimmed { log_start }) => Ok(log_start),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// The offset that a place in a partition has, as its leader knows.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::ChannelChanged`], [`ClientError::Timeout`].
    pub async fn offset_at(&self, channel: &str, log: LogId, at: OffsetSpec) -> Result<Offset, ClientError> {
        self.offset_from(leader_of(channel, log), log, at).await
    }

    /// [`Client::offset_at`] as one node's replica knows it.
    ///
    /// # Errors
    /// As [`Client::offset_at`].
    pub async fn offset_at_node(
        &self,
        node: NodeId,
        log: LogId,
        at: OffsetSpec,
    ) -> Result<Offset, ClientError> {
        self.offset_from(Target::Node(node), log, at).await
    }

    pub(crate) async fn offset_from(
        &self,
        target: Target,
        log: LogId,
        at: OffsetSpec,
    ) -> Result<Offset, ClientError> {
        let request = Request::OffsetAt { log, at };
        match self.ask(target, &request, true).await? {
            (_, Answer::Offset { offset }) => Ok(offset),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// What a node knows about itself; with its logs if asked for. Not long waited for: who asks wants to know of dead
    /// nodes too.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if it does not answer within twice the connect timeout.
    pub async fn node_status(&self, node: NodeId, with_logs: bool) -> Result<NodeStatus, ClientError> {
        let request = Request::NodeStatus { with_logs };
        let deadline = self.deadline().min(Instant::now() + 2 * self.cluster.options.connect_timeout);
        match self.ask_until(Target::Node(node), &request, true, deadline).await? {
            (_, Answer::NodeStatus(status)) => Ok(*status),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// The chain of a log's history before `offset`, as one node's replica has it.
    ///
    /// # Errors
    /// [`ClientError::Refused`], such as for an offset that the replica does not have; [`ClientError::Timeout`].
    pub async fn chain_at(&self, node: NodeId, log: LogId, offset: Offset) -> Result<Chain, ClientError> {
        let request = Request::ChainAt { log, offset };
        match self.ask(Target::Node(node), &request, true).await? {
            (_, Answer::Chain { chain }) => Ok(chain),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// Asks a group's leader to hand over to another node. Whether it did is seen in the metadata.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`].
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<(), ClientError> {
        let request = Request::TransferLeader { group, to };
        match self.ask(Target::Any, &request, true).await? {
            (_, Answer::TransferStarted) => Ok(()),
            (node, _) => Err(unexpected(node, &request)),
        }
    }

    /// Sends `payload` to a node and back. With `through` it goes on from there to that node and back, and the answer is how
    /// long that part took, in nanoseconds, as the first node measured. Asked once, on the way that batches take.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Unreachable`].
    pub async fn echo(
        &self,
        node: NodeId,
        through: Option<NodeId>,
        payload: Bytes,
    ) -> Result<Option<u64>, ClientError> {
        let request = Request::Echo { through };
        let (what, sent) = (request.name().to_owned(), payload.clone());
        match self.cluster.call(node, Lane::Produce, &request, payload, self.deadline()).await {
            Ok(AnswerFrame { answer: Ok(Answer::Echoed { peer_ns }), payload, .. }) if payload == sent => {
                Ok(peer_ns)
            }
            Ok(AnswerFrame { answer: Ok(_), .. }) => Err(unexpected(node, &request)),
            Ok(AnswerFrame { answer: Err(reply), .. }) => Err(ClientError::Refused { node, what, reply }),
            Err(CallError::Fatal(error)) => Err(*error),
            Err(error @ (CallError::Sent { .. } | CallError::NotSent { .. })) => {
                Err(ClientError::Unreachable { tried: error.to_string() })
            }
        }
    }

    pub(crate) async fn init_producer(&self, deadline: Instant) -> Result<(ProducerId, i16), ClientError> {
        // An id that nobody uses does no harm, so it may be asked for again.
        let request = Request::InitProducer;
        let call = Call {
            target: Target::Any,
            lane: Lane::Control,
            request: &request,
            payload: Bytes::new(),
            deadline,
            attempt: self.attempt(),
            repeatable: true,
        };
        let (node, answered) = self.call(&call).await?;
        match answered.answer {
            Ok(Answer::Producer { id, epoch }) => Ok((id, epoch)),
            Ok(_) | Err(_) => Err(unexpected(node, &request)),
        }
    }

    pub(crate) async fn ask(
        &self,
        target: Target,
        request: &Request,
        repeatable: bool,
    ) -> Result<(NodeId, Answer), ClientError> {
        self.ask_until(target, request, repeatable, self.deadline()).await
    }

    async fn ask_until(
        &self,
        target: Target,
        request: &Request,
        repeatable: bool,
        deadline: Instant,
    ) -> Result<(NodeId, Answer), ClientError> {
        // What may not be repeated gets all the time there is.
        let attempt = if repeatable { self.attempt() } else { self.cluster.options.request_timeout };
        let (lane, payload) = (Lane::Control, Bytes::new());
        let call = Call { target, lane, request, payload, deadline, attempt, repeatable };
        let (node, answered) = self.call(&call).await?;
        match answered.answer {
            Ok(answer) => Ok((node, answer)),
            Err(reply) => Err(ClientError::Refused { node, what: request.name().to_owned(), reply }),
        }
    }
}

pub(crate) fn leader_of(channel: &str, log: LogId) -> Target {
    Target::Leader { channel: channel.to_owned(), log }
}

pub(crate) fn unexpected(node: NodeId, request: &Request) -> ClientError {
    ClientError::UnexpectedAnswer { node, what: request.name().to_owned() }
}
