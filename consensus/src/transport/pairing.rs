//! Keeps one connection to each peer: dials while there is none, accepts, and lets `link` choose and judge.
//!
//! Peers come and go at run time. One that is known has an address and is dialled; one that nobody knows may dial
//! in as a guest, and is forgotten when its connection ends. When what is known changes, every link is judged anew: a
//! guest becomes a member without a new connection, and a member whose life ended becomes a guest.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidelog_wire::ids::NodeId;
use tokio::sync::{Semaphore, watch};

use super::directory::Seen;
use super::frames::{Queue, queue};
use super::handshake::{Greeted, close, dial, greet, same_founding};
use super::link::{LinkFacts, admit, judge};
use super::session::{self, Drains};
use super::{ASKS_MAX, Dropped, PeerHello, Shared, TransportError};
use crate::core::Lane;

/// How long the node with the higher id lets the other dial first, so that they seldom meet midway.
const COURTESY: Duration = Duration::from_millis(60);

/// What becomes of a peer while there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// It is dialled.
    Dial(SocketAddr),
    /// It may dial.
    Wait,
    /// It is forgotten.
    Gone,
}

/// What is known about one peer.
#[derive(Debug)]
pub(super) struct Peer {
    node: NodeId,
    route: watch::Sender<Route>,
    /// Whether a task keeps it connected.
    kept: AtomicBool,
    state: Mutex<PeerState>,
    /// Held while a connection is taken up, judged or given up and the events are told, so that they come in order.
    turn: tokio::sync::Mutex<()>,
    connected: watch::Sender<bool>,
    /// One for each bulk transfer that may be fetched at once.
    fetches: Arc<Semaphore>,
    /// One for each question that may be open at once.
    asks: Semaphore,
}

#[derive(Debug, Default)]
struct PeerState {
    link: Option<Link>,
    seen: Option<Seen>,
    /// Number of the newest connection.
    serial: u64,
    /// Why the peer was a guest, the last time that was said.
    said: String,
}

/// The connection in use.
#[derive(Debug)]
struct Link {
    serial: u64,
    facts: LinkFacts,
    connection: quinn::Connection,
    control: Queue,
    append: Queue,
    member: Arc<AtomicBool>,
}

impl Link {
    fn is_member(&self) -> bool {
        self.member.load(Ordering::Acquire)
    }
}

impl Peer {
    pub(super) fn new(node: NodeId, fetched_max: usize) -> Self {
        Self {
            node,
            route: watch::Sender::new(Route::Wait),
            kept: AtomicBool::new(false),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
            connected: watch::Sender::new(false),
            fetches: Arc::new(Semaphore::new(fetched_max)),
            asks: Semaphore::new(ASKS_MAX),
        }
    }

    pub(super) const fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn fetches(&self) -> Arc<Semaphore> {
        Arc::clone(&self.fetches)
    }

    pub(super) const fn asks(&self) -> &Semaphore {
        &self.asks
    }

    /// Says where the peer is from now on.
    pub(super) fn set_route(&self, route: Route) {
        self.route.send_if_modified(|now| std::mem::replace(now, route) != route);
    }

    /// Whether the caller shall start the task that keeps it connected: true once.
    pub(super) fn begins_dialling(&self) -> bool {
        !self.kept.swap(true, Ordering::AcqRel)
    }

    pub(super) fn is_connected(&self) -> bool {
        *self.connected.borrow()
    }

    fn state(&self) -> MutexGuard<'_, PeerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, lane: Lane, head: Bytes, message: Bytes) -> Result<(), Dropped> {
        let state = self.state();
        let link = state.link.as_ref().ok_or(Dropped::NotConnected)?;
        if !link.is_member() {
            return Err(Dropped::Guest);
        }
        let queue = match lane {
            Lane::Control => &link.control,
            Lane::Append => &link.append,
        };
        if queue.push(head, message) { Ok(()) } else { Err(Dropped::Full) }
    }

    pub(super) fn connection(&self) -> Option<quinn::Connection> {
        self.state().link.as_ref().map(|link| link.connection.clone())
    }

    /// Who is connected, and whether as a member.
    pub(super) fn hello(&self) -> Option<(PeerHello, bool)> {
        self.state().link.as_ref().map(|link| (link.facts.peer, link.is_member()))
    }

    /// Ends the connection, so that the hellos are said anew.
    pub(super) fn disconnect(&self, cause: &TransportError) {
        if let Some(connection) = self.connection() {
            close(&connection, cause);
        }
    }

    /// Whether the connection is to be used, and whether its other end is a member.
    fn admits(
        &self,
        shared: &Shared,
        facts: &LinkFacts,
    ) -> Result<Result<(), TransportError>, TransportError> {
        let state = self.state();
        let standing = judge(facts, &shared.directory(), state.seen.as_ref());
        let current = state.link.as_ref().map(|link| (&link.facts, link.is_member()));
        admit((facts, standing.is_ok()), current)?;
        Ok(standing)
    }

    /// Judges the link anew. What it finds is told.
    pub(super) async fn judge_again(self: Arc<Self>, shared: Arc<Shared>) {
        let turn = self.turn.lock().await;
        let directory = shared.directory().clone();
        let changed = {
            let mut state = self.state();
            let seen = state.seen;
            let Some(link) = &state.link else { return };
            let facts = link.facts;
            if let Err(foreign) = same_founding(self.node, directory.founding, facts.founding) {
                close(&link.connection, &foreign);
                return;
            }
            let standing = judge(&facts, &directory, seen.as_ref());
            let was = link.member.swap(standing.is_ok(), Ordering::AcqRel);
            if standing.is_ok() {
                state.seen = Some(facts.seen());
            }
            (was != standing.is_ok()).then_some((facts, standing))
        };
        match changed {
            Some((facts, Ok(()))) => shared.events.up(&facts.peer),
            Some((_, Err(cause))) => {
                self.say_guest(&cause);
                shared.events.down(self.node, &cause);
            }
            None => {}
        }
        drop(turn);
    }

    fn say_guest(&self, cause: &TransportError) {
        let text = cause.to_string();
        let mut state = self.state();
        if state.said != text {
            tracing::warn!(node = %self.node, "a guest: {text}");
            state.said = text;
        }
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
    let unknown = TransportError::UnknownNode { node };
    let peer =
        shared.peer_or_guest(node).ok_or(unknown).inspect_err(|error| close(&greeted.connection, error))?;
    let turn = peer.turn.lock().await;
    let standing = peer.admits(shared, &facts).inspect_err(|error| close(&greeted.connection, error))?;
    let connection = greeted.answer(shared).await?;
    take_up(shared, &peer, connection, facts, standing);
    drop(turn);
    Ok(())
}

async fn take_up_dialled(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    connection: quinn::Connection,
    facts: LinkFacts,
) -> Result<(), TransportError> {
    let turn = peer.turn.lock().await;
    let standing = peer.admits(shared, &facts).inspect_err(|error| close(&connection, error))?;
    take_up(shared, peer, connection, facts, standing);
    drop(turn);
    Ok(())
}

/// Makes `connection` the one in use, and ends the one before it. The caller has the peer's turn.
fn take_up(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    connection: quinn::Connection,
    facts: LinkFacts,
    standing: Result<(), TransportError>,
) {
    let node = facts.peer.node;
    let tuning = &shared.tuning;
    let (control, control_drain) = queue(tuning.queue_frames_max, tuning.queue_bytes_max);
    let (append, append_drain) = queue(tuning.queue_frames_max, tuning.queue_bytes_max);
    let member = Arc::new(AtomicBool::new(standing.is_ok()));
    let mut state = peer.state();
    state.serial = state.serial.saturating_add(1);
    if standing.is_ok() {
        state.seen = Some(facts.seen());
    }
    let serial = state.serial;
    let (connection_kept, flag) = (connection.clone(), Arc::clone(&member));
    let link = Link { serial, facts, connection: connection_kept, control, append, member: flag };
    let before = state.link.replace(link);
    drop(state);
    if let Some(before) = before {
        let cause = TransportError::Replaced { node, boot_epoch: facts.peer.boot_epoch };
        close(&before.connection, &cause);
        shared.metrics.replaced.add(1);
        shared.metrics.connected.take(1);
        if before.is_member() {
            shared.events.down(node, &cause);
        }
    }
    shared.metrics.connected.add(1);
    match standing {
        Ok(()) => shared.events.up(&facts.peer),
        Err(cause) => peer.say_guest(&cause),
    }
    peer.connected.send_replace(true);
    tracing::debug!(%node, boot_epoch = %facts.peer.boot_epoch, "connected to a peer");
    let (shared, peer) = (Arc::clone(shared), Arc::clone(peer));
    tokio::spawn(async move {
        let drains = Drains { control: control_drain, append: append_drain };
        let cause = session::run(&shared, &connection, facts, drains, member).await;
        give_up(&shared, &peer, serial, &cause).await;
    });
}

/// A session has ended. If its connection is still the one in use, there is none now.
async fn give_up(shared: &Arc<Shared>, peer: &Arc<Peer>, serial: u64, cause: &TransportError) {
    let node = peer.node;
    let turn = peer.turn.lock().await;
    let ended = {
        let mut state = peer.state();
        let ours = state.link.as_ref().is_some_and(|link| link.serial == serial);
        if ours { state.link.take() } else { None }
    };
    if let Some(ended) = ended {
        shared.metrics.connected.take(1);
        if ended.is_member() {
            shared.events.down(node, cause);
        }
        peer.connected.send_replace(false);
        tracing::debug!(%node, %cause, "disconnected from a peer");
        shared.forget_guest(peer);
    }
    drop(turn);
}

/// Dials a peer whenever it has an address and there is no connection to it, until the peer is gone or the transport
/// stops.
pub(super) async fn keep_connected(shared: Arc<Shared>, peer: Arc<Peer>) {
    let node = peer.node;
    let (first, longest) = shared.tuning.redial;
    let courtesy = if shared.hello.node > node { COURTESY } else { Duration::ZERO };
    let mut connected = peer.connected.subscribe();
    let mut route = peer.route.subscribe();
    let mut pause = first;
    let mut said = String::new();
    let stopped = shared.stopped();
    tokio::pin!(stopped);
    loop {
        let address = match *route.borrow_and_update() {
            Route::Dial(address) => Some(address),
            Route::Wait => None,
            Route::Gone => return,
        };
        let dialled = async {
            let Some(address) = address else { return std::future::pending().await };
            // The sender lives in `peer`, so these waits end by a change only.
            if connected.wait_for(|connected| !*connected).await.is_err() {
                return None;
            }
            let wait = if said.is_empty() { courtesy } else { courtesy.saturating_add(pause) };
            let met = tokio::time::timeout(wait, connected.wait_for(|connected| *connected)).await.is_ok();
            if met {
                return Some(Ok(()));
            }
            Some(match dial(&shared, node, address).await {
                Ok((connection, facts)) => take_up_dialled(&shared, &peer, connection, facts).await,
                Err(error) => Err(error),
            })
        };
        let outcome = tokio::select! {
            outcome = dialled => outcome,
            changed = route.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
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
                    tracing::warn!(%node, ?address, %error, "cannot connect to a peer; trying on");
                }
                said = text;
                pause = pause.saturating_mul(2).min(longest);
            }
            None => return,
        }
    }
}
