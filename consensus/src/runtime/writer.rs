//! The log writer: the one thread that makes raft's promises durable.
//!
//! It takes all persists that wait, writes them to the raft log as one batch with one sync, **then**
//! the votes with one sync, and only then reports the last number. In this order a vote is never durable
//! without the raft log that knows it, so votes ahead of the raft log are evidence of loss.
//!
//! While it waits for the disk the raft thread goes on: heartbeats never wait for a disk.
//!
//! Not here: what has to be persisted (`crate::core`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::desk::Waited;
use super::fatal::Fatal;
use super::mailbox::Mailbox;
use super::raft_thread::Inbox;
use crate::core::{Input, Persist};
use crate::metrics::NodeMetrics;
use crate::raft_log::{GroupWrite, RaftLog, RaftLogError};
use crate::votes::Votes;

/// What waits for the disk. The core bounds the bytes of entries that are not durable.
pub(super) type WriterBox = Mailbox<WriterInput>;

/// Something to make durable.
pub(super) enum WriterInput {
    /// What the core asks for.
    Persist(Persist),
    /// What the runtime notes about a group that has no running replica here: behind all that was asked for before.
    Note(GroupWrite, oneshot::Sender<()>),
}

/// Pause before a write to a full disk is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// What the log writer works with.
pub(super) struct Writer {
    pub(super) mailbox: Arc<WriterBox>,
    pub(super) raft_log: Arc<dyn RaftLog>,
    pub(super) votes: Votes,
    pub(super) raft: Arc<Inbox>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) fatal: Fatal,
}

impl Writer {
    /// Works until the mailbox is closed and empty, or the disk fails.
    pub(super) fn run(mut self) {
        let mut waiting = Vec::new();
        while self.mailbox.take_all(&mut waiting, None) == Waited::Open {
            if let Err(message) = self.write(&mut waiting) {
                self.fatal.end(&message);
                return;
            }
        }
    }

    fn write(&mut self, waiting: &mut Vec<WriterInput>) -> Result<(), String> {
        let (mut writes, mut votes, mut noted) = (Vec::new(), Vec::new(), Vec::new());
        let (mut sync, mut number) = (false, None);
        for input in waiting.drain(..) {
            match input {
                WriterInput::Persist(persist) => {
                    sync |= persist.sync || !persist.votes.is_empty();
                    number = Some(persist.number);
                    writes.extend(persist.writes);
                    votes.extend(persist.votes);
                }
                WriterInput::Note(write, done) => {
                    sync = true;
                    writes.push(write);
                    noted.push(done);
                }
            }
        }
        if number.is_none() && noted.is_empty() {
            return Ok(());
        }
        self.write_once_there_is_room(&writes, sync)?;
        self.metrics.raft_log_writes.add(1);
        self.votes.record(&votes).map_err(|error| error.to_string())?;
        if let Some(number) = number {
            self.raft.push_input(Input::Persisted { number });
        }
        // Whoever asked may have gone.
        noted.into_iter().for_each(|done| done.send(()).unwrap_or_default());
        Ok(())
    }

    /// Nothing is acknowledged while the disk is full, but the node goes on, and so does this write once
    /// there is room. A node that is ended meanwhile leaves it unwritten, as a kill would.
    fn write_once_there_is_room(&self, writes: &[GroupWrite], sync: bool) -> Result<(), String> {
        let mut told = false;
        loop {
            match self.raft_log.write(writes, sync) {
                Ok(()) => return Ok(()),
                Err(error @ RaftLogError::Full { .. }) => {
                    if !told {
                        tracing::error!("{error}");
                        told = true;
                    }
                    if self.mailbox.closed_within(FULL_PAUSE) {
                        return Err(error.to_string());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}
