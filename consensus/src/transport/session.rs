//! One connection to one peer, from its hellos to its end.
//!
//! A session runs the two lanes out, the two lanes in, and the serving of questions and bulk transfers. What a guest sends
//! on a lane is read and dropped. Whichever
//! of these ends first ends all: a violation closes the connection and says why to the other end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidelog_wire::ids::NodeId;
use tokio::task::JoinSet;

use super::error::Remote;
use super::frames::{Drain, FRAME_HEAD, broken_off, lane_of, read_frame, send_lane};
use super::link::LinkFacts;
use super::{Shared, TransportError};
use super::{bulk, echo};
use crate::core::Lane;

/// Queues of a new connection.
#[derive(Debug)]
pub(super) struct Drains {
    pub(super) control: Drain,
    pub(super) append: Drain,
}

/// Runs until the connection ends, closes it, and returns why.
pub(super) async fn run(
    shared: &Arc<Shared>,
    connection: &quinn::Connection,
    facts: LinkFacts,
    drains: Drains,
    member: Arc<AtomicBool>,
) -> TransportError {
    let node = facts.peer.node;
    let mut tasks = JoinSet::new();
    let metrics = || Arc::clone(&shared.metrics);
    tasks.spawn(send_lane(connection.clone(), node, Lane::Control, drains.control, metrics()));
    tasks.spawn(send_lane(connection.clone(), node, Lane::Append, drains.append, metrics()));
    tasks.spawn(receive_lanes(Arc::clone(shared), connection.clone(), node, Arc::clone(&member)));
    tasks.spawn(bulk::serve(Arc::clone(shared), connection.clone(), facts, member));
    let cause = tokio::select! {
        source = connection.closed() => TransportError::from_closed(Remote::Node(node), source),
        ended = tasks.join_next() => match ended {
            Some(Ok(cause)) => cause,
            Some(Err(_)) | None => TransportError::Stopped,
        },
    };
    if cause.is_violation() {
        shared.metrics.violations.add(1);
        tracing::warn!(%node, error = %cause, "closing the connection to a peer");
    }
    connection.close(cause.close_code().number(), cause.to_string().as_bytes());
    cause
}

/// Takes the peer's streams: one a lane, not more.
async fn receive_lanes(
    shared: Arc<Shared>,
    connection: quinn::Connection,
    node: NodeId,
    member: Arc<AtomicBool>,
) -> TransportError {
    let mut lanes = JoinSet::new();
    let mut open = BTreeSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.accept_uni() => stream,
            Some(ended) = lanes.join_next() => {
                return ended.unwrap_or(TransportError::Malformed { node, what: "message: it made its reader fail" });
            }
        };
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(source) => return TransportError::from_closed(Remote::Node(node), source),
        };
        let mut head = [0; 4];
        if let Err(error) = stream.read_exact(&mut head).await {
            return broken_off(error, node);
        }
        match lane_of(head) {
            Some(lane) if open.insert(lane) => {
                lanes.spawn(receive_lane(Arc::clone(&shared), node, lane, stream, Arc::clone(&member)));
            }
            Some(_) | None => return TransportError::Malformed { node, what: "lane" },
        }
    }
}

async fn receive_lane(
    shared: Arc<Shared>,
    node: NodeId,
    lane: Lane,
    mut stream: quinn::RecvStream,
    member: Arc<AtomicBool>,
) -> TransportError {
    loop {
        match read_frame(&mut stream, node).await {
            Ok((group, message)) => {
                shared.metrics.frames_received.add(1);
                shared.metrics.bytes_received.add_len(message.len().saturating_add(FRAME_HEAD));
                if !member.load(Ordering::Acquire) {
                    shared.metrics.dropped_guest.add(1);
                } else if group == echo::ECHO_GROUP {
                    if let Err(error) = echo::received(&shared, node, &message) {
                        return error;
                    }
                } else {
                    shared.events.message(node, lane, group, message);
                }
                // Reading does not wait while bytes are at hand: let the connection's own task run too.
                tokio::task::consume_budget().await;
            }
            Err(error) => return error,
        }
    }
}
