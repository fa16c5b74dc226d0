//! Questions, and large things such as checkpoints and segment files, over streams of their own.
//!
//! The asking node opens a bidirectional stream and names what it wants; for a transfer also from which byte on: after
//! a broken connection it goes on where it stopped. The serving node answers with the total length and then plain
//! bytes. All these streams have low priorities, questions above transfers, so votes, heartbeats and appends pass them.
//! What is asked for, and how it is verified, is the callers' business. A guest may ask questions (`asks`) and fetch
//! nothing. Questions have slots of their own: a node is registered however many segments are on their way.
//!
//! | request at | size | field                         |   | answer at | size | field                              |
//! |---:|-----:|---------------------------------------|---|---:|-----:|-------------------------------------------|
//! |  0 |    1 | `kind`: 1 transfer, 2 question        |   |  0 |    1 | `status`: 1 served, 2 refused             |
//! |  1 |    3 | reserved, zero                        |   |  1 |    3 | reserved, zero                            |
//! |  4 |    4 | `length`                              |   |  4 |    4 | length of the reason if refused, else zero |
//! |  8 |    8 | `position`; of a question zero        |   |  8 |    8 | `total` length of object or answer        |
//! | 16 |   .. | `request`                             |   | 16 |   .. | the reason, or the bytes from `position` to `total` |

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tidelog_wire::ids::NodeId;
use tidelog_wire::limits::{KIB, TEXT_BYTES_MAX};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::asks::{ANSWER_BYTES_MAX, Asker};
use super::error::Remote;
use super::frames::{broken_off, read_bytes};
use super::link::LinkFacts;
use super::metrics::TransportMetrics;
use super::{Shared, TransportError};

/// Largest request for a bulk transfer.
pub const BULK_REQUEST_BYTES_MAX: usize = 64 * KIB;
/// Bytes read from a source, and handed to the network, at a time.
const STEP: usize = 128 * KIB;
const SERVED: u8 = 1;
const REFUSED: u8 = 2;
const REQUEST_HEAD: usize = 16;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The bytes of something, from a position on.
    Transfer,
    /// A short answer.
    Question,
}

impl Kind {
    const fn head(self) -> [u8; 4] {
        match self {
            Self::Transfer => [1, 0, 0, 0],
            Self::Question => [2, 0, 0, 0],
        }
    }

    /// Questions keep somebody waiting, and are few and short.
    const fn priority(self) -> i32 {
        match self {
            Self::Transfer => -10,
            Self::Question => -5,
        }
    }
}

/// Serves bulk transfers.
pub trait BulkSource: Send + Sync + 'static {
    /// Finds what `request` names. Called, as is what it returns, on a thread that may block.
    ///
    /// # Errors
    /// The reason, in words for the peer's log.
    fn open(&self, peer: NodeId, request: Bytes) -> Result<Box<dyn BulkObject>, String>;
}

/// Something of a fixed length whose bytes can be read.
pub trait BulkObject: Send + 'static {
    /// Its length.
    fn total(&self) -> u64;

    /// 1..=`bytes_max` bytes from `position` on, which is below [`BulkObject::total`].
    ///
    /// # Errors
    /// The transfer breaks off there.
    fn read(&mut self, position: u64, bytes_max: usize) -> io::Result<Bytes>;
}

/// A source that has nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoBulk;

impl BulkSource for NoBulk {
    fn open(&self, _: NodeId, _: Bytes) -> Result<Box<dyn BulkObject>, String> {
        Err("this node serves nothing".to_owned())
    }
}

/// Spreads the bytes of all transfers served over time.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    free_at: tokio::sync::Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second, free_at: tokio::sync::Mutex::new(None) }
    }

    async fn wait(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        let micros = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / rate.max(1);
        let mut free_at = self.free_at.lock().await;
        let start = free_at.map_or_else(Instant::now, |at| at.max(Instant::now()));
        *free_at = start.checked_add(Duration::from_micros(micros));
        drop(free_at);
        tokio::time::sleep_until(start).await;
    }
}

/// Serves one peer until the connection ends.
pub(super) async fn serve(
    shared: Arc<Shared>,
    connection: quinn::Connection,
    facts: LinkFacts,
    member: Arc<AtomicBool>,
) -> TransportError {
    let mut requests = JoinSet::new();
    loop {
        let (send, receive) = tokio::select! {
            streams = connection.accept_bi() => match streams {
                Ok(streams) => streams,
                Err(source) => return TransportError::from_closed(Remote::Node(facts.peer.node), source),
            },
            Some(ended) = requests.join_next() => match ended {
                Ok(Err(error)) => return error,
                Ok(Ok(())) | Err(_) => continue,
            },
        };
        let (shared, member) = (Arc::clone(&shared), Arc::clone(&member));
        requests.spawn(async move { serve_one(&shared, &facts, &member, send, receive).await });
    }
}

/// Only a violation by the peer is an error here; it ends the session. If the peer stops listening, there is nobody left
/// to tell.
async fn serve_one(
    shared: &Arc<Shared>,
    facts: &LinkFacts,
    member: &AtomicBool,
    mut send: quinn::SendStream,
    mut receive: quinn::RecvStream,
) -> Result<(), TransportError> {
    let peer = facts.peer;
    let stall = shared.tuning.bulk_stall;
    // How many may wait here at once is the limit of streams that a connection has.
    let Ok(request) = timeout(stall, read_request(&mut receive, peer.node)).await else { return Ok(()) };
    let request = request?;
    if send.set_priority(request.0.priority()).is_err() {
        return Ok(());
    }
    match request {
        (Kind::Question, _, request) => {
            let Ok(_permit) = shared.ask_slots.try_acquire() else {
                return refuse(&mut send, "busy with other questions").await.or(Ok(()));
            };
            let member = member.load(Ordering::Acquire);
            let asker = Asker { hello: peer, founding: facts.founding, member };
            match shared.asks.ask(asker, request).await {
                Ok(answer) if answer.len() > ANSWER_BYTES_MAX => {
                    refuse(&mut send, "the answer is longer than any may be").await.or(Ok(()))
                }
                Ok(answer) => tell(&mut send, answer).await.or(Ok(())),
                Err(reason) => refuse(&mut send, &reason).await.or(Ok(())),
            }
        }
        (Kind::Transfer, position, request) => {
            let Ok(_permit) = shared.bulk_slots.try_acquire() else {
                return refuse(&mut send, "busy with other transfers").await.or(Ok(()));
            };
            if !member.load(Ordering::Acquire) {
                let guest = TransportError::Guest { node: peer.node };
                return refuse(&mut send, &guest.to_string()).await.or(Ok(()));
            }
            transfer(shared, peer.node, send, position, request).await
        }
    }
}

async fn tell(send: &mut quinn::SendStream, answer: Bytes) -> Result<(), quinn::WriteError> {
    let total = u64::try_from(answer.len()).unwrap_or(u64::MAX);
    send.write_all(&answer_head(SERVED, 0, total)).await?;
    send.write_chunk(answer).await?;
    send.finish().or(Ok(()))
}

async fn transfer(
    shared: &Arc<Shared>,
    node: NodeId,
    mut send: quinn::SendStream,
    position: u64,
    request: Bytes,
) -> Result<(), TransportError> {
    let source = Arc::clone(&shared.bulk);
    let opened = tokio::task::spawn_blocking(move || source.open(node, request)).await;
    let mut object = match opened {
        Ok(Ok(object)) if position <= object.total() => object,
        Ok(Ok(_)) => return refuse(&mut send, "the position lies beyond the end").await.or(Ok(())),
        Ok(Err(reason)) => return refuse(&mut send, &reason).await.or(Ok(())),
        Err(_) => return refuse(&mut send, "an internal error").await.or(Ok(())),
    };
    let total = object.total();
    if send.write_all(&answer_head(SERVED, 0, total)).await.is_err() {
        return Ok(());
    }
    let mut at = position;
    while at < total {
        let left = usize::try_from(total.saturating_sub(at)).unwrap_or(STEP).min(STEP);
        let read = tokio::task::spawn_blocking(move || {
            let read = object.read(at, left);
            (object, read)
        });
        let bytes = match read.await {
            Ok((back, Ok(bytes))) if !bytes.is_empty() && bytes.len() <= left => {
                object = back;
                bytes
            }
            Ok((_, Ok(_) | Err(_))) | Err(_) => {
                tracing::warn!(%node, position = at, total, "a bulk transfer broke off: its source cannot be read");
                return Ok(()); // Dropping the stream tells the peer.
            }
        };
        let len = bytes.len();
        shared.pace.wait(len).await;
        // A peer that takes nothing gives its slot back; what it lacks it may ask for again.
        match timeout(shared.tuning.bulk_stall, send.write_chunk(bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(()),
        }
        shared.metrics.bulk_bytes_sent.add_len(len);
        at = at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
    }
    // If the peer stopped listening, it has what it wanted.
    send.finish().or(Ok(()))
}

async fn read_request(
    receive: &mut quinn::RecvStream,
    node: NodeId,
) -> Result<(Kind, u64, Bytes), TransportError> {
    let mut head = [0; REQUEST_HEAD];
    receive.read_exact(&mut head).await.map_err(|error| broken_off(error, node))?;
    let malformed = TransportError::Malformed { node, what: "request" };
    let Some((kind, rest)) = head.split_first_chunk() else { return Err(malformed) };
    let Some((length, position)) = rest.split_first_chunk() else { return Err(malformed) };
    let kind = [Kind::Transfer, Kind::Question].into_iter().find(|known| known.head() == *kind);
    let kind = kind.ok_or(malformed)?;
    let position = u64::from_le_bytes(position.first_chunk().copied().unwrap_or_default());
    let length = checked_len(u32::from_le_bytes(*length), BULK_REQUEST_BYTES_MAX, node, "bulk request")?;
    Ok((kind, position, read_bytes(receive, length, node).await?))
}

fn checked_len(length: u32, max: usize, node: NodeId, what: &'static str) -> Result<usize, TransportError> {
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(length),
        Ok(_) | Err(_) => {
            let max = u64::try_from(max).unwrap_or(u64::MAX);
            Err(TransportError::TooLarge { node, what, bytes: u64::from(length), max })
        }
    }
}

fn answer_head(status: u8, reason_len: u32, total: u64) -> [u8; 16] {
    let mut head = [0; 16];
    let all = [status, 0, 0, 0].into_iter().chain(reason_len.to_le_bytes()).chain(total.to_le_bytes());
    for (to, from) in head.iter_mut().zip(all) {
        *to = from;
    }
    head
}

async fn refuse(send: &mut quinn::SendStream, reason: &str) -> Result<(), quinn::WriteError> {
    let reason: String = reason.chars().take(TEXT_BYTES_MAX / 4).collect();
    let length = u32::try_from(reason.len()).unwrap_or(0);
    send.write_all(&answer_head(REFUSED, length, 0)).await?;
    send.write_all(reason.as_bytes()).await?;
    send.finish().or(Ok(()))
}

/// The bytes of one bulk transfer, as they arrive.
#[derive(Debug)]
pub struct BulkReader {
    stream: quinn::RecvStream,
    node: NodeId,
    position: u64,
    total: u64,
    stall: Duration,
    metrics: Arc<TransportMetrics>,
    /// Held as long as bytes may come.
    #[expect(dead_code, reason = "held for its drop")]
    slot: Option<OwnedSemaphorePermit>,
}

impl BulkReader {
    pub(super) fn new(shared: &Shared, stream: quinn::RecvStream, node: NodeId, total: u64) -> Self {
        let (stall, metrics) = (shared.tuning.bulk_stall, Arc::clone(&shared.metrics));
        Self { stream, node, position: 0, total, stall, metrics, slot: None }
    }

    /// Length of the whole object. The caller checks it against what it expects.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Where the next bytes belong; after an error, from where to fetch again.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, at most 128 KiB; `None` at the end.
    ///
    /// # Errors
    /// [`TransportError::BulkEnded`] if the peer stops early, [`TransportError::Timeout`] if nothing
    /// arrives for too long, [`TransportError::Lost`] if the connection breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        let left = self.total.saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        // While bytes are at hand, reading never waits; a caller in a loop would keep the connection's own
        // task, which may sit in this thread's slot, from answering the peer, until it gives us up.
        tokio::task::yield_now().await;
        let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
        let read = timeout(self.stall, self.stream.read_chunk(step, true)).await;
        let peer = Remote::Node(self.node);
        let read =
            read.map_err(|_| TransportError::Timeout { peer, action: "send bulk data", limit: self.stall })?;
        match read {
            Ok(Some(chunk)) => {
                self.metrics.bulk_bytes_received.add_len(chunk.bytes.len());
                let len = u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
                self.position = self.position.saturating_add(len);
                Ok(Some(chunk.bytes))
            }
            Err(quinn::ReadError::ConnectionLost(source)) => Err(TransportError::from_closed(peer, source)),
            Ok(None) | Err(_) => {
                Err(TransportError::BulkEnded { node: self.node, position: self.position, total: self.total })
            }
        }
    }
}

/// Opens a stream, asks, and reads the head of the answer.
pub(super) async fn fetch(
    shared: &Shared,
    connection: &quinn::Connection,
    node: NodeId,
    request: Bytes,
    position: u64,
    slot: OwnedSemaphorePermit,
) -> Result<BulkReader, TransportError> {
    let peer = Remote::Node(node);
    let limit = shared.tuning.bulk_stall;
    let answer = async {
        let mut receive = open_request(connection, node, Kind::Transfer, request, position).await?;
        read_answer(&mut receive, node).await.map(|total| (receive, total))
    };
    let answer = timeout(limit, answer).await;
    let action = "answer a bulk request";
    let (stream, total) = answer.map_err(|_| TransportError::Timeout { peer, action, limit })??;
    if position > total {
        return Err(TransportError::BulkEnded { node, position, total });
    }
    Ok(BulkReader { position, slot: Some(slot), ..BulkReader::new(shared, stream, node, total) })
}

/// Opens a stream and asks; the answer can be read from it.
pub(super) async fn open_request(
    connection: &quinn::Connection,
    node: NodeId,
    kind: Kind,
    request: Bytes,
    position: u64,
) -> Result<quinn::RecvStream, TransportError> {
    let too_large = || TransportError::TooLarge {
        node,
        what: "bulk request",
        bytes: u64::try_from(request.len()).unwrap_or(u64::MAX),
        max: u64::try_from(BULK_REQUEST_BYTES_MAX).unwrap_or(u64::MAX),
    };
    let length = u32::try_from(request.len()).map_err(|_| too_large())?;
    if request.len() > BULK_REQUEST_BYTES_MAX {
        return Err(too_large());
    }
    let mut head = BytesMut::with_capacity(REQUEST_HEAD);
    head.put_slice(&kind.head());
    head.put_u32_le(length);
    head.put_u64_le(position);
    let lost = |source| TransportError::from_closed(Remote::Node(node), source);
    let (mut send, receive) = connection.open_bi().await.map_err(lost)?;
    let asked = async {
        send.set_priority(kind.priority()).map_err(|_| ())?;
        send.write_all_chunks(&mut [head.freeze(), request]).await.map_err(|_| ())?;
        send.finish().map_err(|_| ())
    };
    // If asking fails the answer says why: a refusal, or the end of the connection.
    if asked.await.is_err() {
        tracing::debug!(%node, "a request was not taken");
    }
    Ok(receive)
}

/// Reads the head of an answer: the total length of what follows.
pub(super) async fn read_answer(
    receive: &mut quinn::RecvStream,
    node: NodeId,
) -> Result<u64, TransportError> {
    let mut head = [0; 16];
    receive.read_exact(&mut head).await.map_err(|error| broken_off(error, node))?;
    let malformed = TransportError::Malformed { node, what: "bulk answer" };
    let Some((status, rest)) = head.split_first_chunk::<4>() else { return Err(malformed) };
    let Some((length, total)) = rest.split_first_chunk() else { return Err(malformed) };
    let length = u32::from_le_bytes(*length);
    let total = u64::from_le_bytes(total.first_chunk().copied().unwrap_or_default());
    match (*status, length) {
        ([SERVED, 0, 0, 0], 0) => Ok(total),
        ([REFUSED, 0, 0, 0], length) => {
            let length = checked_len(length, TEXT_BYTES_MAX, node, "refusal")?;
            let reason = read_bytes(receive, length, node).await?;
            Err(TransportError::BulkRefused { node, reason: String::from_utf8_lossy(&reason).into_owned() })
        }
        _ => Err(malformed),
    }
}
