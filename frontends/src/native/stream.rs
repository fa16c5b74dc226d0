//! One stream: frames in, answers out.
//!
//! The reader takes frames in order. A batch is proposed right there, before the next frame is read, so batches keep
//! their order; every answer is awaited and written by a task of its own, so a slow one holds up no other.
//!
//! What is under way is bounded: a frame's body is read only when its bytes fit into the connection's allowance, and a
//! request is begun only when there is a slot for it. Until then the stream is not read from.
//!
//! Not here: what requests mean (`requests`).

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::{RecvStream, SendStream};
use tidelog_wire::protocol::{Frame, FrameLimits, ProtocolError, RequestFrame, encode_answer};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::CloseCode;
use super::connection::{Peer, close};
use super::reply;
use super::requests::{self, Reply};

/// Most bytes that are reserved before they have come.
const RESERVE_BYTES_MAX: usize = 256 << 10;

/// Why a stream gives no more frames.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// What came cannot be understood.
    Broken(ProtocolError),
    /// The client gave the stream or the connection up.
    Gone,
}

impl From<ProtocolError> for StreamEnd {
    fn from(error: ProtocolError) -> Self {
        Self::Broken(error)
    }
}

/// Where bytes come from: a stream, or a test.
pub(super) trait Source {
    /// Up to `max` bytes; `None` at the end; `Err` if the rest will never come.
    async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamEnd>;
}

impl Source for RecvStream {
    async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, StreamEnd> {
        match self.read_chunk(max, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(_) => Err(StreamEnd::Gone),
        }
    }
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub(super) struct FrameReader<S> {
    source: S,
    received: BytesMut,
    limits: FrameLimits,
}

impl<S: Source> FrameReader<S> {
    pub(super) fn new(source: S, limits: FrameLimits) -> Self {
        Self { source, received: BytesMut::new(), limits }
    }

    pub(super) fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// The next frame, and its share of `allowance`, which it waits for once it knows the frame's size. `None` at the
    /// end of the stream.
    pub(super) async fn next(
        &mut self,
        allowance: Option<&Arc<Semaphore>>,
    ) -> Result<Option<(Frame, Option<OwnedSemaphorePermit>)>, StreamEnd> {
        let mut share = None;
        loop {
            if let Some(frame) = Frame::take(&mut self.received, self.limits)? {
                return Ok(Some((frame, share)));
            }
            let missing = Frame::missing_bytes(&self.received, self.limits)?;
            let lengths_known = self.received.len() >= tidelog_wire::protocol::LENGTHS_BYTES;
            if let (Some(allowance), None, true) = (allowance, &share, lengths_known) {
                share = Some(acquire(allowance, self.received.len() + missing).await?);
            }
            self.received.reserve(missing.min(RESERVE_BYTES_MAX));
            match self.source.chunk(missing).await? {
                Some(bytes) => self.received.extend_from_slice(&bytes),
                None => {
                    Frame::check_end(&self.received)?;
                    return Ok(None);
                }
            }
        }
    }
}

/// `amount` permits, or all that the semaphore was made with if that is less.
pub(super) async fn acquire(
    semaphore: &Arc<Semaphore>,
    amount: usize,
) -> Result<OwnedSemaphorePermit, StreamEnd> {
    let amount = u32::try_from(amount).unwrap_or(u32::MAX);
    // Closed only when the connection is gone.
    Arc::clone(semaphore).acquire_many_owned(amount).await.map_err(|_| StreamEnd::Gone)
}

/// The sending half, shared by the tasks that answer.
#[derive(Debug)]
struct Answers {
    send: Mutex<SendStream>,
}

impl Answers {
    /// Writes one answer, whole. A client that is gone is no error: its reader ends by itself.
    async fn put(&self, correlation: u64, reply: Reply) {
        let mut head = BytesMut::new();
        let payload_bytes = reply.payload.iter().map(Bytes::len).sum();
        let mut chunks = match encode_answer(correlation, &reply.answer, payload_bytes, &mut head) {
            Ok(()) => reply.payload,
            Err(error) => {
                let refused = Err(reply::unsendable(&error));
                if encode_answer(correlation, &refused, 0, &mut head).is_err() {
                    return;
                }
                Vec::new()
            }
        };
        chunks.insert(0, head.freeze());
        let mut send = self.send.lock().await;
        if let Err(error) = send.write_all_chunks(&mut chunks).await {
            tracing::trace!(%error, "an answer found nobody to take it");
        }
    }
}

/// A request under way: counts for the drain, and holds its share of the connection's allowance.
struct UnderWay {
    peer: Arc<Peer>,
    _slot: OwnedSemaphorePermit,
    _share: Option<OwnedSemaphorePermit>,
}

impl UnderWay {
    fn new(peer: &Arc<Peer>, slot: OwnedSemaphorePermit, share: Option<OwnedSemaphorePermit>) -> Self {
        peer.shared.under_way.send_modify(|requests| *requests += 1);
        Self { peer: Arc::clone(peer), _slot: slot, _share: share }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.peer.shared.under_way.send_modify(|requests| *requests = requests.saturating_sub(1));
    }
}

/// Serves a stream until it ends. What cannot be understood closes the connection.
pub(super) async fn serve(peer: Arc<Peer>, send: SendStream, mut reader: FrameReader<RecvStream>) {
    let answers = Arc::new(Answers { send: Mutex::new(send) });
    let error = loop {
        match take(&peer, &answers, &mut reader).await {
            Ok(true) => {}
            Ok(false) | Err(StreamEnd::Gone) => return,
            // A client that gives up inside a frame harms only its own request.
            Err(StreamEnd::Broken(ProtocolError::CutShort { .. })) => return,
            Err(StreamEnd::Broken(error)) => break error,
        }
    };
    peer.shared.broker.counts().connections_broken.add(1);
    tracing::info!(%error, from = %peer.connection.remote_address(), "a native stream cannot be understood: connection closed");
    close(&peer.connection, CloseCode::Protocol, &error.to_string());
}

/// Takes the next request and begins it; false at the end of the stream.
async fn take(
    peer: &Arc<Peer>,
    answers: &Arc<Answers>,
    reader: &mut FrameReader<RecvStream>,
) -> Result<bool, StreamEnd> {
    let Some((frame, share)) = reader.next(Some(&peer.bytes)).await? else { return Ok(false) };
    let slot = acquire(&peer.requests, 1).await?;
    let under_way = UnderWay::new(peer, slot, share);
    let counts = peer.shared.broker.counts();
    counts.requests.add(1);
    let RequestFrame { correlation, request, payload } = match RequestFrame::decode(frame) {
        Ok(request) => request,
        Err(error) => {
            // Only a request whose number is known can be answered.
            let Some(correlation) = error.correlation() else { return Err(error.into()) };
            counts.request_errors.add(1);
            answers.put(correlation, Reply::error(reply::undecodable(&error))).await;
            return Ok(true);
        }
    };
    // A batch is proposed here and now, before the next frame is looked at.
    let answer = requests::begin(peer, request, payload);
    let answers = Arc::clone(answers);
    tokio::spawn(async move {
        let connection = under_way.peer.connection.clone();
        tokio::select! {
            (reply, held) = answer => {
                if reply.answer.is_err() {
                    under_way.peer.shared.broker.counts().request_errors.add(1);
                }
                answers.put(correlation, reply).await;
                drop(held);
            }
            _ = connection.closed() => {}
        }
        drop(under_way);
    });
    Ok(true)
}
