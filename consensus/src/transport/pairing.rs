//! Keeps one connection to each peer: dials while there is none, accepts, and lets `link` choose.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidelog_wire::ids::NodeId;
use tokio::sync::{Semaphore, watch};

use super::frames::{Queue, queue};
use super::handshake::{Greeted, close, dial, greet};
use super::link::{LinkFacts, Seen, admit};
use super::session::{self, Drains};
use super::{Dropped, PeerHello, Shared, TransportError};
use crate::core::Lane;

/// How long the node with the higher id lets the other dial first, so that they seldom meet midway.
const COURTESY: Duration = Duration::from_millis(60);

/// What is known about one peer.
#[derive(Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    state: Mutex<PeerState>,
    /// Held while a connection is taken up or given up and the events are told, so that they come in order.
    turn: tokio::sync::Mutex<()>,
    connected: watch::Sender<bool>,
    /// One for each bulk transfer that may be fetched at once.
    fetches: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct PeerState {
    link: Option<Link>,
    seen: Option<Seen>,
    /// Number of the newest connection.
    serial: u64,
}

/// The connection in use.
#[derive(Debug)]
struct Link {
    serial: u64,
    facts: LinkFacts,
    connection: quinn::Connection,
    control: Queue,
    append: Queue,
}

impl Peer {
    pub(super) fn new(address: SocketAddr, fetched_max: usize) -> Self {
        Self {
            address,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            connected: watch::Sender::new(false),
            fetches: Arc::new(Semaphore::new(fetched_max)),
        }
    }

    pub(super) fn fetches(&self) -> Arc<Semaphore> {
        Arc::clone(&self.fetches)
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, lane: Lane, head: Bytes, message: Bytes) -> Result<(), Dropped> {
        let state = self.state();
        let link = state.link.as_ref().ok_or(Dropped::NotConnected)?;
        let queue = match lane {
            Lane::Control => &link.control,
            Lane::Append => &link.append,
        };
        if queue.push(head, message) { Ok(()) } else { Err(Dropped::Full) }
    }

    pub(super) fn connection(&self) -> Option<quinn::Connection> {
        self.state().link.as_ref().map(|link| link.connection.clone())
    }

    pub(super) fn hello(&self) -> Option<PeerHello> {
        self.state().link.as_ref().map(|link| link.facts.peer)
    }

    fn admits(&self, facts: &LinkFacts) -> Result<(), TransportError> {
        let state = self.state();
        admit(facts, state.link.as_ref().map(|link| &link.facts), state.seen.as_ref())
    }
}

/// Accepts dials until the endpoint is closed.
pub(super) async fn accept(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let Ok(permit) = Arc::clone(&shared.handshake_slots).try_acquire_owned() else {
            shared.metrics.handshakes_failed.add(1);
            incoming.refuse();
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let address = incoming.remote_address();
            let greeted = greet(&shared, incoming).await;
            drop(permit);
            let outcome = match greeted {
                Ok(greeted) => take_up_accepted(&shared, greeted).await,
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                report_failure(&shared, &error);
                tracing::debug!(%address, %error, "a connection was not taken up");
            }
        });
    }
}

/// A second connection is no failure.
fn report_failure(shared: &Shared, error: &TransportError) {
    if !matches!(error, TransportError::Duplicate { .. }) {
        shared.metrics.handshakes_failed.add(1);
    }
}

async fn take_up_accepted(shared: &Arc<Shared>, greeted: Greeted) -> Result<(), TransportError> {
    let facts = greeted.facts;
    let node = facts.peer.node;
    let peer = shared.peers.get(&node).ok_or(TransportError::UnknownNode { node })?;
    let turn = peer.turn.lock().await;
    peer.admits(&facts).inspect_err(|error| close(&greeted.connection, error))?;
    let connection = greeted.answer(shared).await?;
    take_up(shared, peer, connection, facts);
    drop(turn);
    Ok(())
}

async fn take_up_dialled(
    shared: &Arc<Shared>,
    peer: &Peer,
    connection: quinn::Connection,
    facts: LinkFacts,
) -> Result<(), TransportError> {
    let turn = peer.turn.lock().await;
    peer.admits(&facts).inspect_err(|error| close(&connection, error))?;
    take_up(shared, peer, connection, facts);
    drop(turn);
    Ok(())
}

/// Makes `connection` the one in use, and ends the one before it. The caller has the peer's turn.
fn take_up(shared: &Arc<Shared>, peer: &Peer, connection: quinn::Connection, facts: LinkFacts) {
    let node = facts.peer.node;
    let tuning = &shared.tuning;
    let (control, control_drain) = queue(tuning.queue_frames_max, tuning.queue_bytes_max);
    let (append, append_drain) = queue(tuning.queue_frames_max, tuning.queue_bytes_max);
    let mut state = peer.state();
    state.serial = state.serial.saturating_add(1);
    state.seen = Some(facts.seen());
    let serial = state.serial;
    let link = Link { serial, facts, connection: connection.clone(), control, append };
    let before = state.link.replace(link);
    drop(state);
    if let Some(before) = before {
        let cause = TransportError::Replaced { node, boot_epoch: facts.peer.boot_epoch };
        close(&before.connection, &cause);
        shared.metrics.replaced.add(1);
        shared.metrics.connected.take(1);
        shared.events.down(node, &cause);
    }
    shared.metrics.connected.add(1);
    shared.events.up(&facts.peer);
    peer.connected.send_replace(true);
    tracing::info!(%node, boot_epoch = %facts.peer.boot_epoch, "connected to a peer");
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let drains = Drains { control: control_drain, append: append_drain };
        let cause = session::run(&shared, &connection, node, drains).await;
        give_up(&shared, node, serial, &cause).await;
    });
}

/// A session has ended. If its connection is still the one in use, there is none now.
async fn give_up(shared: &Arc<Shared>, node: NodeId, serial: u64, cause: &TransportError) {
    let Some(peer) = shared.peers.get(&node) else { return };
    let turn = peer.turn.lock().await;
    let ended = {
        let mut state = peer.state();
        let ours = state.link.as_ref().is_some_and(|link| link.serial == serial);
        if ours { state.link.take() } else { None }
    };
    if ended.is_some() {
        shared.metrics.connected.take(1);
        shared.events.down(node, cause);
        peer.connected.send_replace(false);
        tracing::info!(%node, %cause, "disconnected from a peer");
    }
    drop(turn);
}

/// Dials a peer whenever there is no connection to it, until the transport stops.
pub(super) async fn keep_connected(shared: Arc<Shared>, node: NodeId) {
    let Some(peer) = shared.peers.get(&node) else { return };
    let (first, longest) = shared.tuning.redial;
    let courtesy = if shared.hello.node > node { COURTESY } else { Duration::ZERO };
    let mut connected = peer.connected.subscribe();
    let mut pause = first;
    let mut said = String::new();
    let stopped = shared.stopped();
    tokio::pin!(stopped);
    loop {
        let dialled = async {
            // The sender lives in `peer`, so these waits end by a change only.
            if connected.wait_for(|connected| !*connected).await.is_err() {
                return None;
            }
            let wait = if said.is_empty() { courtesy } else { courtesy.saturating_add(pause) };
            let met = tokio::time::timeout(wait, connected.wait_for(|connected| *connected)).await.is_ok();
            if met {
                return Some(Ok(()));
            }
            Some(match dial(&shared, node, peer.address).await {
                Ok((connection, facts)) => take_up_dialled(&shared, peer, connection, facts).await,
                Err(error) => Err(error),
            })
        };
        let outcome = tokio::select! {
            outcome = dialled => outcome,
            () = &mut stopped => return,
        };
        match outcome {
            Some(Ok(())) => {
                pause = first;
                said.clear();
            }
            Some(Err(error)) => {
                report_failure(&shared, &error);
                let text = error.to_string();
                let expected = matches!(error, TransportError::Duplicate { .. });
                if text != said && !expected {
                    tracing::warn!(%node, address = %peer.address, %error, "cannot connect to a peer; trying on");
                }
                said = text;
                pause = pause.saturating_mul(2).min(longest);
            }
            None => return,
        }
    }
}
