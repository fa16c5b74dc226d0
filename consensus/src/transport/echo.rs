//! Echoes: a peer sends back what it is sent, over the append lane, as a message would travel.
//!
//! They measure what the way to another node and back takes, and show that it answers. An echo is a frame
//! of a group that there never is ([`ECHO_GROUP`]); raft never sees it.
//!
//! | message at | size | field    | meaning                                    |
//! |---:|-----:|----------|----------------------------------------------------|
//! |  0 |    1 | `kind`   | 1 to be sent back, 2 sent back                     |
//! |  1 |    8 | `number` | little-endian; the asking node's own               |
//! |  9 |   .. | payload  | any bytes, the same both ways                      |
//!
//! An echo that finds a queue full gets lost, as any message does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tidelog_wire::ids::{GroupId, NodeId};
use tidelog_wire::limits::KIB;
use tokio::sync::oneshot;

use super::error::Remote;
use super::{Shared, Transport, TransportError};
use crate::core::Lane;

/// The group of echoes. Groups are counted from 0.
pub(super) const ECHO_GROUP: GroupId = GroupId(u64::MAX);
/// Largest payload of an echo.
pub const ECHO_BYTES_MAX: usize = 64 * KIB;
/// Echoes of one node that may be under way.
const UNDER_WAY_MAX: usize = 64;
const HEAD: usize = 9;
const ASKED: u8 = 1;
const ANSWERED: u8 = 2;

/// The echoes that this node waits for.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: BTreeMap<u64, (NodeId, oneshot::Sender<()>)>,
}

/// An echo under way; dropped, nobody waits for it any more.
struct Waiting<'a> {
    echoes: &'a Echoes,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.echoes.locked().waiting.remove(&self.number);
    }
}

impl Echoes {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, to: NodeId) -> Option<(Waiting<'_>, oneshot::Receiver<()>)> {
        let mut state = self.locked();
        if state.waiting.len() >= UNDER_WAY_MAX {
            return None;
        }
        let (tell, told) = oneshot::channel();
        let number = state.next;
        state.next = state.next.wrapping_add(1);
        state.waiting.insert(number, (to, tell));
        Some((Waiting { echoes: self, number }, told))
    }

    fn answered(&self, from: NodeId, number: u64) {
        let mut state = self.locked();
        if state.waiting.get(&number).is_some_and(|(to, _)| *to == from)
            && let Some((_, tell)) = state.waiting.remove(&number)
        {
            // Whoever asked may have stopped waiting.
            tell.send(()).unwrap_or_default();
        }
    }
}

fn encode(kind: u8, number: u64, payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(HEAD.saturating_add(payload.len()));
    message.put_u8(kind);
    message.put_u64_le(number);
    message.put_slice(payload);
    message.freeze()
}

/// A frame of [`ECHO_GROUP`] came: sends it back, or tells whoever waits for it.
pub(super) fn received(shared: &Shared, from: NodeId, message: &Bytes) -> Result<(), TransportError> {
    let malformed = TransportError::Malformed { node: from, what: "echo" };
    let Some((head, payload)) = message.split_at_checked(HEAD) else { return Err(malformed) };
    let (Some((kind, number)), true) = (head.split_first(), payload.len() <= ECHO_BYTES_MAX) else {
        return Err(malformed);
    };
    let number = number.first_chunk().copied().map_or(0, u64::from_le_bytes);
    match *kind {
        ASKED => {
            let answer = encode(ANSWERED, number, payload);
            if let Err(dropped) = shared.push(from, Lane::Append, ECHO_GROUP, answer) {
                tracing::trace!(%from, ?dropped, "an echo was not sent back");
            }
            Ok(())
        }
        ANSWERED => {
            shared.echoes.answered(from, number);
            Ok(())
        }
        _ => Err(malformed),
    }
}

impl Transport {
    /// Sends `payload` to a peer and ends when it has come back.
    ///
    /// # Errors
    /// [`TransportError::TooLarge`], [`TransportError::NotConnected`] (also when too much waits already), and
    /// [`TransportError::Timeout`] after `within`.
    pub async fn echo(&self, to: NodeId, payload: &[u8], within: Duration) -> Result<(), TransportError> {
        if payload.len() > ECHO_BYTES_MAX {
            let count = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
            let (bytes, max) = (count(payload.len()), count(ECHO_BYTES_MAX));
            return Err(TransportError::TooLarge { node: to, what: "echo", bytes, max });
        }
        let shared = Arc::clone(&self.shared);
        let not_sent = TransportError::NotConnected { node: to };
        let Some((waiting, told)) = shared.echoes.begin(to) else { return Err(not_sent) };
        let message = encode(ASKED, waiting.number, payload);
        if shared.push(to, Lane::Append, ECHO_GROUP, message).is_err() {
            return Err(not_sent);
        }
        let late =
            TransportError::Timeout { peer: Remote::Node(to), action: "send an echo back", limit: within };
        match tokio::time::timeout(within, told).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(late),
        }
    }
}
