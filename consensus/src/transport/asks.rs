//! Questions: small requests with a small answer, each on a stream of its own.
//!
//! A node that does not lead a group asks the one that does, and one that has not joined asks anybody. So guests may ask,
//! and questions have slots of their own: transfers, however many and slow, never keep a node from being entered into
//! the catalogue.
//!
//! Not here: what is asked and answered (`crate::runtime`), and the bytes around it (`bulk`).

use std::future::Future;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use tidelog_wire::ids::{Incarnation, NodeId};
use tidelog_wire::limits::KIB;
use tokio::time::timeout;

use super::bulk::{BulkReader, Kind, open_request, read_answer};
use super::error::Remote;
use super::{PeerHello, Shared, Transport, TransportError};

/// Questions that may be open to one peer, or from all peers, at once.
pub(super) const ASKS_MAX: usize = 8;
pub(super) const ANSWERED_MAX: usize = 64;
/// Largest answer.
pub const ANSWER_BYTES_MAX: usize = 64 * KIB;

/// An answer that comes later, or the reason why there is none.
pub type LaterAnswer = Pin<Box<dyn Future<Output = Result<Bytes, String>> + Send>>;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// As it introduced itself; its number is proved by its certificate.
    pub hello: PeerHello,
    /// Of its cluster, as far as it knows.
    pub founding: Option<Incarnation>,
    /// Whether it is a member.
    pub member: bool,
}

/// Answers questions.
pub trait AskSource: Send + Sync + 'static {
    /// Answers `request`. At most [`ANSWER_BYTES_MAX`] bytes.
    fn ask(&self, asker: Asker, request: Bytes) -> LaterAnswer;
}

/// A source that knows nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoAsks;

impl AskSource for NoAsks {
    fn ask(&self, _: Asker, _: Bytes) -> LaterAnswer {
        Box::pin(std::future::ready(Err("this node answers nothing".to_owned())))
    }
}

impl Transport {
    /// Asks a peer, be it member or guest, and gives its answer. Waits while as many questions to that peer as are
    /// allowed are open.
    ///
    /// # Errors
    /// [`TransportError::NotConnected`] at once; [`TransportError::BulkRefused`] with the peer's reason;
    /// [`TransportError::Timeout`] or [`TransportError::Lost`] if no answer comes: it may have done what it was asked.
    pub async fn ask(&self, node: NodeId, request: Bytes) -> Result<Bytes, TransportError> {
        let peer = self.shared.peer(node).ok_or(TransportError::UnknownNode { node })?;
        let limit = self.shared.tuning.bulk_stall;
        let action = "answer a question";
        let asked = async {
            // The slots are never closed.
            let _slot = peer.asks().acquire().await.map_err(|_| TransportError::Stopped)?;
            let connection = peer.connection().ok_or(TransportError::NotConnected { node })?;
            answer(&self.shared, &connection, node, request).await
        };
        let peer = Remote::Node(node);
        timeout(limit, asked).await.map_err(|_| TransportError::Timeout { peer, action, limit })?
    }
}

async fn answer(
    shared: &Shared,
    connection: &quinn::Connection,
    node: NodeId,
    request: Bytes,
) -> Result<Bytes, TransportError> {
    let mut receive = open_request(connection, node, Kind::Question, request, 0).await?;
    let total = read_answer(&mut receive, node).await?;
    let max = u64::try_from(ANSWER_BYTES_MAX).unwrap_or(u64::MAX);
    if total > max {
        return Err(TransportError::TooLarge { node, what: "answer", bytes: total, max });
    }
    let mut reader = BulkReader::new(shared, receive, node, total);
    let mut gathered = BytesMut::new();
    while let Some(bytes) = reader.next().await? {
        gathered.extend_from_slice(&bytes);
    }
    Ok(gathered.freeze())
}
