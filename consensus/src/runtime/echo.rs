//! Echoes: what the way to another node and back takes.

use std::time::Duration;

use tidelog_wire::ids::NodeId;

use super::handle::NodeHandle;
use crate::transport::TransportError;

impl NodeHandle {
    /// Sends `payload` to another node and back, and tells how long that took.
    ///
    /// # Errors
    /// [`TransportError`]: it did not come back.
    pub async fn echo(
        &self,
        peer: NodeId,
        payload: &[u8],
        within: Duration,
    ) -> Result<Duration, TransportError> {
        let transport = self.transport().ok_or(TransportError::UnknownNode { node: peer })?;
        let begun = self.shared.clock.now();
        transport.echo(peer, payload, within).await?;
        Ok(self.shared.clock.now().saturating_sub(begun))
    }
}
