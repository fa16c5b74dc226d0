//! Between the raft thread and the transport: messages out, messages in, and what peers ask for.
//!
//! Nothing here waits. A message that cannot be sent, or finds the raft thread's queue full, is dropped
//! and counted, as the network might have: raft sends again.
//!
//! Peers ask over bulk streams. A request that begins with [`ASK_REGISTER`] enters the
//! asking node into the catalogue, since only the leader of the meta group can propose that;
//! any other names a manifest or a file of a snapshot.
//!
//! Not here: raft's messages (`crate::core`), connections (`crate::transport`).

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Entry, Message};
use tidelog_wire::ids::{GroupId, NodeId};
use tokio::runtime::Handle;

use super::handle::WeakHandle;
use super::raft_thread::{Inbox, Peers};
use crate::core::{FetchSnapshot, Input, Lane};
use crate::entry::{self, Command, MetaCommand, NodeRecord};
use crate::metrics::NodeMetrics;
use crate::outcome::Outcome;
use crate::transport::{BulkObject, BulkSource, PeerEvents, PeerHello, Transport, TransportError};

/// First byte of a request to be entered into the catalogue; the rest is the record's entry data.
pub(super) const ASK_REGISTER: u8 = b'R';
/// How long the leader tries to enter a node for a peer.
const REGISTER_PATIENCE: Duration = Duration::from_secs(2);

/// Takes what peers send to the raft thread.
pub(super) struct FromPeers {
    pub(super) inbox: Arc<Inbox>,
    pub(super) metrics: Arc<NodeMetrics>,
}

impl PeerEvents for FromPeers {
    fn up(&self, peer: &PeerHello) {
        tracing::info!(node = %peer.node, boot_epoch = %peer.boot_epoch, "connected");
    }

    fn message(&self, from: NodeId, _lane: Lane, group: GroupId, bytes: Bytes) {
        match Message::parse_from_carllerche_bytes(&bytes) {
            Ok(message) => {
                let message = Box::new(message);
                if self.inbox.offer_input(Input::Message { from, group, message }, bytes.len()).is_err() {
                    self.metrics.inputs_dropped.add(1);
                }
            }
            Err(error) => {
                self.metrics.messages_refused.add(1);
                tracing::warn!(%from, %group, "E1131 a message of this peer cannot be read: {error}; compare the versions of both nodes");
            }
        }
    }

    fn down(&self, node: NodeId, cause: &TransportError) {
        tracing::info!(%node, "disconnected: {cause}");
        self.inbox.push_input(Input::PeerDown { node });
    }
}

/// Sends for the raft thread.
pub(super) struct ToPeers {
    /// None for a node without peers.
    pub(super) transport: Option<Transport>,
    pub(super) snapshots: Arc<dyn Snapshots>,
}

/// Fetches and exports snapshots, off the raft thread.
pub(super) trait Snapshots: Send + Sync + 'static {
    /// Begins to fetch; the raft thread is told how it ended.
    fn fetch(&self, fetch: FetchSnapshot);
    /// Begins to export; the raft thread is told what to offer.
    fn export(&self, group: GroupId);
}

impl Peers for ToPeers {
    fn send(&self, to: NodeId, lane: Lane, group: GroupId, message: Bytes) {
        if let Some(transport) = &self.transport
            && let Err(dropped) = transport.send(to, lane, group, message)
        {
            tracing::trace!(%to, ?dropped, "a message was not sent");
        }
    }

    fn fetch(&self, fetch: FetchSnapshot) {
        self.snapshots.fetch(fetch);
    }

    fn export(&self, group: GroupId) {
        self.snapshots.export(group);
    }
}

/// Answers what peers ask for.
pub(super) struct Answers {
    pub(super) runtime: Handle,
    /// Set once the node runs; nothing is answered before.
    pub(super) node: Arc<OnceLock<WeakHandle>>,
    pub(super) snapshots: Arc<dyn BulkSource>,
}

impl BulkSource for Answers {
    fn open(&self, peer: NodeId, request: Bytes) -> Result<Box<dyn BulkObject>, String> {
        match request.first() {
            Some(&ASK_REGISTER) => self.register(peer, request.slice(1..)),
            Some(_) => self.snapshots.open(peer, request),
            None => Err("an empty request".to_owned()),
        }
    }
}

impl Answers {
    fn register(&self, peer: NodeId, data: Bytes) -> Result<Box<dyn BulkObject>, String> {
        let record = decode_record(data)?;
        if record.node != peer {
            return Err(format!("node {peer} asks to be entered as node {}", record.node));
        }
        let node =
            self.node.get().and_then(WeakHandle::upgrade).ok_or("this node is starting or stopping")?;
        let command = Command::Meta(MetaCommand::RegisterNode(record));
        let submitted = node.submit(GroupId::META, command, REGISTER_PATIENCE);
        match self.runtime.block_on(submitted) {
            Ok(Outcome::Refused(refusal)) => Err(refusal.to_string()),
            Ok(_) => Ok(Box::new(Done)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The request that asks for `record` to be entered.
pub(super) fn register_request(record: NodeRecord) -> Bytes {
    let (context, data) = entry::encode(Command::Meta(MetaCommand::RegisterNode(record)));
    // The context of this command is always the same four bytes, so it need not travel apart.
    [&[ASK_REGISTER][..], &context, &data].concat().into()
}

pub(super) fn decode_record(mut request: Bytes) -> Result<NodeRecord, String> {
    const CONTEXT_BYTES: usize = 4;
    if request.len() < CONTEXT_BYTES {
        return Err("a short request".to_owned());
    }
    let context = request.split_to(CONTEXT_BYTES);
    let entry = Entry { context, data: request, ..Entry::default() };
    match entry::decode(GroupId::META, &entry) {
        Ok(Some(Command::Meta(MetaCommand::RegisterNode(record)))) => Ok(record),
        Ok(_) => Err("not a node's record".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An answer that says no more than that it was done.
struct Done;

impl BulkObject for Done {
    fn total(&self) -> u64 {
        1
    }

    fn read(&mut self, _position: u64, _bytes_max: usize) -> io::Result<Bytes> {
        Ok(Bytes::from_static(&[1]))
    }
}
