//! Between the raft thread and the transport: messages out, messages in.
//!
//! Nothing here waits. A message that cannot be sent, or finds the raft thread's queue full, is dropped
//! and counted, as the network might have: raft sends again.
//!
//! Not here: raft's messages (`crate::core`), connections (`crate::transport`), what peers ask (`super::asks`).

use std::sync::Arc;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::Message;
use tidelog_wire::ids::{GroupId, NodeId};

use super::raft_thread::{Inbox, Peers};
use crate::core::{ExportRequest, FetchSnapshot, Input, Lane};
use crate::metrics::NodeMetrics;
use crate::transport::{PeerEvents, PeerHello, Transport, TransportError};

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
    /// Lets go of what is held for the group's fetch: there will be no switch to it.
    fn abandon(&self, group: GroupId);
    /// Begins to export; the raft thread is told what to offer.
    fn export(&self, request: ExportRequest);
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

    fn abandon(&self, group: GroupId) {
        self.snapshots.abandon(group);
    }

    fn export(&self, request: ExportRequest) {
        self.snapshots.export(request);
    }
}
