//! The keeper: what the node does on the disk beside the way of a record.
//!
//! It syncs the segments that a checkpoint names and then writes it, off the apply thread; it compacts
//! the raft log as far as the core allows, which is what the older of the two kept checkpoints covers;
//! it gives raft log files back; and it watches the room on the disk. Groups whose old entries are in the way are checkpointed soon.
//!
//! A failed sync of a segment is fatal: what is durable is unknown, and a retried sync may lie. Any
//! other failure costs this checkpoint; the older ones stand, and the raft log keeps what they lack.
//!
//! Not here: when to checkpoint (`super::apply_thread`), how far to compact (`crate::core`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidelog_engine::Engine;
use tokio::sync::oneshot;

use super::apply_desk::ApplyBox;
use super::apply_thread::ApplyInput;
use super::board::Board;
use super::clock::Clock;
use super::desk::Waited;
use super::disk_use::bytes_below;
use super::fatal::Fatal;
use super::mailbox::Mailbox;
use super::snapshots::SnapshotDoor;
use crate::apply::CheckpointJob;
use crate::core::Compaction;
use crate::metrics::NodeMetrics;
use crate::raft_log::{RaftLog, RaftLogError};

#[cfg(test)]
mod tests;

/// What waits for the keeper: at most one checkpoint a group, and one compaction for each.
pub(super) type KeeperBox = Mailbox<KeeperInput>;

/// How often room and sizes are looked at when nothing happens.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// How often the segments' sizes are added up.
const WALK_EVERY: Duration = Duration::from_secs(30);

/// Something for the keeper to do.
pub(super) enum KeeperInput {
    /// Make a checkpoint durable.
    Checkpoint(Box<CheckpointJob>),
    /// Forget a prefix of a group's entries.
    Compact(Compaction),
    /// Say so once all that was asked for before is done.
    Barrier(oneshot::Sender<()>),
}

/// The keeper's belongings.
pub(super) struct Keeper {
    pub(super) mailbox: Arc<KeeperBox>,
    pub(super) apply: Arc<ApplyBox>,
    pub(super) raft_log: Arc<dyn RaftLog>,
    pub(super) engine: Arc<Engine>,
    pub(super) board: Arc<Board>,
    pub(super) door: Arc<SnapshotDoor>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fatal: Fatal,
}

impl Keeper {
    /// Works until the mailbox is closed and empty, or a sync fails.
    pub(super) fn run(self) {
        let mut inputs = Vec::new();
        let mut walked = self.measure(None);
        while self.mailbox.take_all(&mut inputs, Some(MEASURE_EVERY)) == Waited::Open {
            let mut compacted = false;
            for input in inputs.drain(..) {
                let result = match input {
                    KeeperInput::Checkpoint(job) => self.checkpoint(*job),
                    KeeperInput::Compact(compaction) => {
                        compacted = true;
                        self.compact(compaction)
                    }
                    KeeperInput::Barrier(done) => {
                        // Whoever asked may have gone.
                        done.send(()).unwrap_or_default();
                        Ok(())
                    }
                };
                if let Err(message) = result {
                    self.fatal.end(&message);
                    return;
                }
            }
            if compacted && let Err(message) = self.purge() {
                self.fatal.end(&message);
                return;
            }
            walked = self.measure(Some(walked));
        }
    }

    fn checkpoint(&self, job: CheckpointJob) -> Result<(), String> {
        let group = job.checkpoint().group;
        let begun = self.clock.now();
        self.metrics.checkpoints_running.set(1);
        self.apply.set_checkpointing(true);
        let written = job.run();
        self.apply.set_checkpointing(false);
        self.metrics.checkpoints_running.set(0);
        match written {
            Ok(done) => {
                self.metrics.checkpoint_time.observe(self.clock.now().saturating_sub(begun));
                self.apply.push(ApplyInput::Checkpointed(done));
                self.door.checkpointed(group);
                Ok(())
            }
            Err(error) if error.leaves_disk_unknown() => Err(error.to_string()),
            Err(error) => {
                tracing::error!("{error}");
                self.apply.push(ApplyInput::CheckpointFailed(group));
                Ok(())
            }
        }
    }

    fn compact(&self, compaction: Compaction) -> Result<(), String> {
        unless_full(self.raft_log.compact(compaction.group, compaction.first_kept))
    }

    fn purge(&self) -> Result<(), String> {
        unless_full(self.raft_log.purge().map(|groups| {
            if !groups.is_empty() {
                self.apply.push(ApplyInput::CheckpointSoon(groups));
            }
        }))
    }

    /// Looks at room and sizes; says when it last walked through the directory of segments.
    fn measure(&self, walked: Option<Duration>) -> Duration {
        let room = self.engine.room();
        self.metrics.raft_log_bytes.set(self.raft_log.disk_bytes());
        self.metrics.free_bytes.set(room.free_bytes);
        self.metrics.set_recovered(self.engine.recovery_counts());
        self.metrics.open_files.set(u64::try_from(self.engine.open_files()).unwrap_or(u64::MAX));
        if self.board.disk_full.swap(room.refuses_writes, Ordering::Relaxed) != room.refuses_writes {
            tracing::warn!(refused = room.refuses_writes, free = room.free_bytes, "appends and the disk");
        }
        let now = self.clock.now();
        self.door.expire(now);
        match walked {
            Some(walked) if now.saturating_sub(walked) < WALK_EVERY => walked,
            Some(_) | None => {
                let logs = self.engine.dir().join("logs");
                self.metrics.segment_bytes.set(bytes_below(self.engine.storage().as_ref(), &logs));
                now
            }
        }
    }
}

/// A full disk only puts it off: the next compaction forgets what this one did not.
fn unless_full(result: Result<(), RaftLogError>) -> Result<(), String> {
    match result {
        Ok(()) => Ok(()),
        Err(error @ RaftLogError::Full { .. }) => {
            tracing::warn!("{error}");
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}
