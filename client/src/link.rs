//! A connection to one node: greeting, lanes of pipelined requests, and the watch that notices its death.
//!
//! - Three lanes, each a stream of its own, so that fetched batches never stand in the way of acknowledgements:
//!   [`Lane::Control`] (the first, which carries the greeting), [`Lane::Produce`], [`Lane::Fetch`].
//! - A request is written at once by its caller, under the lane's lock: requests of one caller leave in its order, and no
//!   hand-over to another task delays them. A caller that gives up in the middle of a write leaves half a frame, so the
//!   next one finds the lane torn and closes the link.
//! - Each lane has a task that reads answers and hands them to whoever waits, by correlation id.
//! - The watch counts ticks without a single datagram from the node while answers are owed. Keep-alives make a living
//!   node acknowledge something every 50 ms, so 150 ms of nothing means it is dead, or cut off. Ticks are counted, not time:
//!   if this process itself was starved, it must not blame the node.
//!
//! Whatever ends a link, every waiting request is answered with a [`LinkError`], and says whether it was sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidelog_wire::ids::NodeId;
use tidelog_wire::protocol::{
    AnswerFrame, Frame, FrameLimits, Hello, HelloAnswer, ProtocolError, Request, Welcome, encode_request,
};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

mod watch;

use watch::Owed;

/// Most requests that wait for answers on one lane.
const PENDING_MAX: usize = 4096;
/// Most fetches that wait at one node, whatever it offers.
const FETCHES_MAX: usize = 1024;
/// Read at once, unless a frame needs more.
const READ_BYTES: usize = 64 * 1024;

/// Which stream of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small requests.
    Control,
    /// Batches out.
    Produce,
    /// Batches in.
    Fetch,
}

/// Why a link did not carry a request or its answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// The connection ended, or the node fell silent. The request may have arrived.
    #[error("the connection to node {node} ended: {reason}")]
    Lost { node: NodeId, reason: String },
    /// Too many requests wait already. It was not sent.
    #[error("{PENDING_MAX} requests wait for node {node} already")]
    Full { node: NodeId },
    /// The node does not speak as it should. It may have arrived.
    #[error("node {node}: {source}")]
    Protocol { node: NodeId, source: ProtocolError },
}

type Waiting = oneshot::Sender<Result<AnswerFrame, LinkError>>;
/// Where the answer will come.
pub(crate) type Awaited = oneshot::Receiver<Result<AnswerFrame, LinkError>>;

/// Requests of one lane that wait for answers.
struct Pending {
    /// `Err` once the link is lost.
    waiting: Mutex<Result<BTreeMap<u64, Waiting>, LinkError>>,
    owed: Arc<Owed>,
}

struct LaneState {
    /// `None` while somebody writes: who finds it so afterwards finds half a frame.
    send: tokio::sync::Mutex<Option<quinn::SendStream>>,
    pending: Arc<Pending>,
}

/// A connection to one node, greeted.
pub(crate) struct Link {
    pub(crate) node: NodeId,
    pub(crate) welcome: Welcome,
    connection: quinn::Connection,
    lanes: [LaneState; 3],
    next_correlation: AtomicU64,
    /// Room for fetches. They wait long at the node, and must leave it slots for everything else.
    fetches: Semaphore,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(0_u32.into(), b"client is done");
    }
}

impl Link {
    /// Greets the node at the other end of `connection` and opens the lanes.
    pub(crate) async fn greet(
        node: NodeId,
        connection: quinn::Connection,
        client: &str,
        silence: Duration,
    ) -> Result<Arc<Self>, LinkError> {
        let lost = |reason: String| LinkError::Lost { node, reason };
        let refused = |source| LinkError::Protocol { node, source };
        let open = async || connection.open_bi().await.map_err(|error| lost(error.to_string()));
        let (mut send, mut receive) = open().await?;
        let mut hello = BytesMut::new();
        Hello::new(client).encode(&mut hello).map_err(refused)?;
        send.write_all(&hello).await.map_err(|error| lost(error.to_string()))?;
        let mut received = BytesMut::new();
        let frame = read_frame(&mut receive, &mut received, node).await?;
        let welcome = match HelloAnswer::decode(&frame).map_err(refused)? {
            HelloAnswer::Welcome(welcome) => welcome,
            HelloAnswer::Refused(refusal) => {
                let hello = Hello::new(client);
                return Err(refused(ProtocolError::Version {
                    asked_lowest: hello.version_lowest,
                    asked_highest: hello.version_highest,
                    spoken_lowest: refusal.version_lowest,
                    spoken_highest: refusal.version_highest,
                }));
            }
        };
        let owed = Arc::new(Owed::default());
        let lane = |send, receive, received| {
            let pending = Arc::new(Pending { waiting: Mutex::new(Ok(BTreeMap::new())), owed: owed.clone() });
            let reader = Reader { node, connection: connection.clone(), pending: pending.clone() };
            tokio::spawn(reader.run(receive, received));
            LaneState { send: tokio::sync::Mutex::new(Some(send)), pending }
        };
        let control = lane(send, receive, received);
        let (send, receive) = open().await?;
        let produce = lane(send, receive, BytesMut::new());
        let (send, receive) = open().await?;
        let fetch = lane(send, receive, BytesMut::new());
        tokio::spawn(watch::run(connection.clone(), owed.clone(), silence));
        let lanes = [control, produce, fetch];
        let slots = usize::try_from(welcome.limits.requests_max).unwrap_or(usize::MAX);
        let fetches = Semaphore::new((slots / 2).clamp(1, FETCHES_MAX));
        Ok(Arc::new(Self { node, welcome, connection, lanes, next_correlation: AtomicU64::new(1), fetches }))
    }

    /// Whether it can carry requests.
    pub(crate) fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Ends it; whoever waits is told `reason`.
    pub(crate) fn close(&self, reason: &str) {
        self.connection.close(1_u32.into(), reason.as_bytes());
    }

    /// Waits for room to fetch; to be held until the answer is there. Other lanes have room always.
    pub(crate) async fn room(&self, lane: Lane) -> Option<SemaphorePermit<'_>> {
        match lane {
            Lane::Fetch => self.fetches.acquire().await.ok(),
            Lane::Control | Lane::Produce => None,
        }
    }

    /// Sends a request and its payload. The answer comes through what is returned.
    ///
    /// Requests that one caller sends one after the other arrive in that order.
    pub(crate) async fn send(
        &self,
        lane: Lane,
        request: &Request,
        payload: Bytes,
    ) -> Result<Awaited, LinkError> {
        let node = self.node;
        let [control, produce, fetch] = &self.lanes;
        let lane = match lane {
            Lane::Control => control,
            Lane::Produce => produce,
            Lane::Fetch => fetch,
        };
        let correlation = self.next_correlation.fetch_add(1, Ordering::Relaxed);
        let mut head = BytesMut::with_capacity(128);
        encode_request(correlation, request, payload.len(), &mut head)
            .map_err(|source| LinkError::Protocol { node, source })?;
        let mut guard = lane.send.lock().await;
        let (waiting, awaited) = oneshot::channel();
        lane.pending.add(correlation, waiting, node)?;
        let Some(mut send) = guard.take() else {
            self.close("a request was given up half sent");
            return Err(LinkError::Lost { node, reason: "a request was given up half sent".to_owned() });
        };
        let mut chunks = [head.freeze(), payload];
        let written = send.write_all_chunks(&mut chunks).await;
        *guard = Some(send);
        if let Err(error) = written {
            // The readers notice the end and tell whoever waits.
            self.close(&error.to_string());
        }
        Ok(awaited)
    }
}

impl Pending {
    fn add(&self, correlation: u64, waiting: Waiting, node: NodeId) -> Result<(), LinkError> {
        let mut guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiters = guard.as_mut().map_err(|lost| lost.clone())?;
        if waiters.len() >= PENDING_MAX {
            return Err(LinkError::Full { node });
        }
        waiters.insert(correlation, waiting);
        self.owed.more();
        Ok(())
    }

    fn take(&self, correlation: u64) -> Option<Waiting> {
        let mut guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = guard.as_mut().ok()?.remove(&correlation)?;
        self.owed.fewer(1);
        Some(waiting)
    }

    fn fail(&self, error: &LinkError) {
        let mut guard = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(waiters) = std::mem::replace(&mut *guard, Err(error.clone())) {
            self.owed.fewer(waiters.len());
            for waiter in waiters.into_values() {
                // Whoever does not wait any more need not know.
                drop(waiter.send(Err(error.clone())));
            }
        }
    }
}

/// Reads the answers of one lane until the link ends.
struct Reader {
    node: NodeId,
    connection: quinn::Connection,
    pending: Arc<Pending>,
}

impl Reader {
    async fn run(self, mut receive: quinn::RecvStream, mut received: BytesMut) {
        let error = loop {
            let frame = match read_frame(&mut receive, &mut received, self.node).await {
                Ok(frame) => frame,
                Err(error) => break error,
            };
            let (waiting, answer) = match AnswerFrame::decode(frame) {
                Ok(answer) => (self.pending.take(answer.correlation), Ok(answer)),
                Err(source) => {
                    let waiting = source.correlation().and_then(|correlation| self.pending.take(correlation));
                    let error = LinkError::Protocol { node: self.node, source };
                    if waiting.is_none() {
                        break error;
                    }
                    (waiting, Err(error))
                }
            };
            if let Some(waiting) = waiting {
                drop(waiting.send(answer));
            }
        };
        self.connection.close(1_u32.into(), error.to_string().as_bytes());
        self.pending.fail(&error);
    }
}

async fn read_frame(
    receive: &mut quinn::RecvStream,
    received: &mut BytesMut,
    node: NodeId,
) -> Result<Frame, LinkError> {
    let refused = |source| LinkError::Protocol { node, source };
    loop {
        if let Some(frame) = Frame::take(received, FrameLimits::ANSWERS).map_err(refused)? {
            return Ok(frame);
        }
        let missing = Frame::missing_bytes(received, FrameLimits::ANSWERS).map_err(refused)?;
        match receive.read_chunk(missing.max(READ_BYTES), true).await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk.bytes),
            Ok(None) => {
                Frame::check_end(received).map_err(refused)?;
                return Err(LinkError::Lost { node, reason: "the node closed the stream".to_owned() });
            }
            Err(error) => return Err(LinkError::Lost { node, reason: error.to_string() }),
        }
    }
}
