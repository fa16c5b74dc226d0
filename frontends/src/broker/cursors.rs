//! Cursors: durable named positions of a log, in the group that carries it.
//!
//! A cursor names its log by generation, so the next life of a channel's name never sees it.
#![expect(clippy::wildcard_enum_match_arm, reason = "an outcome of another kind of request is one case")]

use std::sync::Arc;

use tidelog_consensus::entry::Command;
use tidelog_consensus::outcome::Outcome;
use tidelog_wire::ids::{LogId, Offset};

use super::channels::unexpected;
use super::produce::refused;
use super::{Broker, BrokerError};

impl Broker {
    /// Sets the cursor `name` of `log`, or deletes it. Durable on a quorum on return.
    ///
    /// # Errors
    /// [`BrokerError`]; all but [`BrokerError::MayHaveCommitted`] say that nothing was changed.
    pub async fn set_cursor(
        &self,
        log: LogId,
        name: String,
        offset: Option<Offset>,
    ) -> Result<(), BrokerError> {
        let consensus = self.open()?;
        let group = self.group_of(consensus.as_ref(), log)?;
        self.lead(consensus.as_ref(), group)?;
        // Texts in entries are bounded; what is longer cannot be a name.
        if name.is_empty() || name.len() > tidelog_consensus::entry::TEXT_BYTES_MAX {
            return Err(BrokerError::InvalidRequest {
                reason: "cursor name: 1 to 255 bytes are allowed".to_owned(),
            });
        }
        let command = match offset {
            Some(offset) => Command::SetCursor { log, name, offset },
            None => Command::DeleteCursor { log, name },
        };
        let submitted = consensus.submit(group, command, self.limits.request);
        match submitted.await.map_err(|error| BrokerError::of_submit(group, error))? {
            Outcome::CursorSet { .. } | Outcome::CursorDeleted => Ok(()),
            Outcome::Refused(refusal) => Err(refused(log, &refusal)),
            other => Err(unexpected(&other)),
        }
    }

    /// The cursors of `log`, or only the one that is named, with all that was set before the call.
    ///
    /// # Errors
    /// [`BrokerError`]; nothing was changed.
    pub async fn cursors(
        &self,
        log: LogId,
        name: Option<&str>,
    ) -> Result<Vec<(String, Offset)>, BrokerError> {
        let consensus = Arc::clone(self.open()?);
        let group = self.group_of(consensus.as_ref(), log)?;
        self.lead(consensus.as_ref(), group)?;
        let barrier = consensus.read_barrier(group, self.limits.request);
        barrier.await.map_err(|error| BrokerError::of_read(group, error))?;
        let cursors = consensus.cursors(log);
        let cursors = cursors.ok_or_else(|| BrokerError::NotReady { what: format!("log {log}") })?;
        Ok(cursors.into_iter().filter(|(found, _)| name.is_none_or(|name| name == found)).collect())
    }
}
