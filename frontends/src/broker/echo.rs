//! Echoes: what measures the way to this node, and from it to another.

use std::time::Duration;

use bytes::Bytes;
use tidelog_consensus::transport::ECHO_BYTES_MAX;
use tidelog_wire::ids::NodeId;

use super::{Broker, BrokerError};

/// How long another node may take for an echo.
const PEER_MAX: Duration = Duration::from_secs(1);

impl Broker {
    /// How long `payload` took to another node and back, in nanoseconds; `None` without one.
    ///
    /// # Errors
    /// [`BrokerError::InvalidRequest`] for more than [`ECHO_BYTES_MAX`] bytes, [`BrokerError::NotReady`] if the other
    /// node did not send it back.
    pub async fn echo(&self, through: Option<NodeId>, payload: &Bytes) -> Result<Option<u64>, BrokerError> {
        if payload.len() > ECHO_BYTES_MAX {
            let reason =
                format!("an echo of {} bytes, at most {ECHO_BYTES_MAX} are sent back", payload.len());
            return Err(BrokerError::InvalidRequest { reason });
        }
        let Some(peer) = through else { return Ok(None) };
        let took = self.open()?.echo(peer, payload.clone(), PEER_MAX).await;
        let took = took
            .map_err(|reason| BrokerError::NotReady { what: format!("the way to node {peer} ({reason})") })?;
        Ok(Some(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)))
    }
}
