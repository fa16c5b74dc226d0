//! Replicas at run time: how one begins on this node, and how one ends.
//!
//! **A beginning.** What ran of the group before is stopped and its machine closed. Then the raft log is cleared and it is
//! noted whose it is now, durably and behind all that was on its way to the disk. Only then the replica takes part: blank,
//! or from its group's first checkpoint. A crash anywhere leaves either nothing, or a replica that the next start finds.
//! One that the raft log names already is taken up from where it is; it is never cleared.
//!
//! **An end.** The caller has seen that the group goes on without the replica. It is stopped and its machine closed, its
//! checkpoints go, then its logs, then what the raft log has of it. A crash in between leaves a replica that nobody
//! counts, and that is ended again.
//!
//! Not here: which replicas this node should have (`crate::placement`), and when (`super::membership`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_engine::Engine;
use tidelog_engine::checkpoint::Checkpoint;
use tidelog_wire::ids::{GroupId, LogId, ReplicaId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::apply_desk::ApplyBox;
use super::apply_thread::ApplyInput;
use super::board::Board;
use super::keeper::{KeeperBox, KeeperInput};
use super::raft_thread::Inbox;
use super::snapshots::SnapshotDoor;
use super::start::facts;
use super::writer::{WriterBox, WriterInput};
use crate::apply::group_genesis;
use crate::apply::group_placement::GroupPlacement;
use crate::core::{CheckpointFacts, Input, ReplicaStart};
use crate::raft_log::{GroupLog, GroupWrite, RaftLog};
use crate::votes::Vote;

/// How long a thread of the node may take to answer; on a full disk the log writer waits for room.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a new replica begins with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin<'a> {
    /// Nothing: it gets a snapshot.
    Blank,
    /// The first checkpoint of a group that was made so.
    Genesis(&'a GroupPlacement),
}

/// What replicas are made of.
pub(super) struct Replicas {
    pub(super) engine: Arc<Engine>,
    pub(super) raft_log: Arc<dyn RaftLog>,
    /// As found at the start.
    pub(super) votes: BTreeMap<GroupId, Vote>,
    pub(super) board: Arc<Board>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) writer: Arc<WriterBox>,
    pub(super) apply: Arc<ApplyBox>,
    pub(super) keeper: Arc<KeeperBox>,
    pub(super) door: Arc<SnapshotDoor>,
}

impl Replicas {
    /// Has this node play `replica` in `group` from now on.
    ///
    /// # Errors
    /// Why it does not; it may be tried again.
    pub(super) async fn begin(
        &self,
        group: GroupId,
        replica: ReplicaId,
        begin: Begin<'_>,
    ) -> Result<(), String> {
        self.halt(group).await?;
        let (log, known) = self.load(group).await?;
        let start = if log.replica == Some(replica) {
            let vote = self.votes.get(&group).copied().filter(|vote| vote.replica == replica);
            let checkpoint = known.filter(|checkpoint| {
                // One that was removed and has its log still votes, for those who do not know it yet.
                checkpoint.members.contains(replica) || log.span.is_some()
            });
            ReplicaStart { group, replica, checkpoint: checkpoint.unwrap_or_default(), log, vote }
        } else {
            let named = GroupWrite { clear: true, replica: Some(replica), ..GroupWrite::new(group) };
            self.note(named).await?;
            let mut start = ReplicaStart::blank(group, replica);
            if let Begin::Genesis(placement) = begin {
                start.checkpoint = self.write_first_checkpoint(group_genesis(group, placement)).await?;
            }
            start
        };
        if !start.is_blank() {
            self.ask_apply(|done| ApplyInput::Open(group, done)).await??;
        }
        tracing::info!(%group, %replica, blank = start.is_blank(), "a replica begins here");
        self.inbox.push_input(Input::Start(Box::new(start)));
        Ok(())
    }

    /// Ends this node's replica of `group`, and removes all that it had.
    ///
    /// # Errors
    /// Why it is not done yet; it may be tried again.
    pub(super) async fn end(&self, group: GroupId) -> Result<(), String> {
        let logs = self.halt(group).await?;
        // A checkpoint that was being written must not come after its removal.
        let (done, written) = oneshot::channel();
        self.keeper.push(KeeperInput::Barrier(done));
        answered(written).await?;
        let engine = Arc::clone(&self.engine);
        let removed = tokio::task::spawn_blocking(move || {
            engine.forget_group(group).map_err(|error| error.to_string())?;
            for log in logs {
                engine.remove_log(log).map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(())
        });
        removed.await.map_err(|error| error.to_string())??;
        self.note(GroupWrite { clear: true, ..GroupWrite::new(group) }).await?;
        tracing::info!(%group, "the replica here has ended");
        Ok(())
    }

    /// Stops what runs of the group, and closes its machine. The logs that this had.
    async fn halt(&self, group: GroupId) -> Result<Vec<LogId>, String> {
        let mut statuses = self.board.statuses.subscribe();
        self.inbox.push_input(Input::Stop { group });
        let gone = statuses.wait_for(|shown| shown.iter().all(|status| status.group != group));
        timeout(PATIENCE, gone)
            .await
            .map_err(|_| "the raft thread did not stop it in time".to_owned())?
            .map_err(|error| error.to_string())?;
        self.door.forget(group);
        self.ask_apply(|done| ApplyInput::Close(group, done)).await
    }

    async fn load(&self, group: GroupId) -> Result<(GroupLog, Option<CheckpointFacts>), String> {
        let (engine, raft_log) = (Arc::clone(&self.engine), Arc::clone(&self.raft_log));
        let loaded = tokio::task::spawn_blocking(move || {
            let log = raft_log.load(group).map_err(|error| error.to_string())?;
            // A checkpoint that cannot be read is of no use to a replica that begins.
            let checkpoint = engine.load_checkpoint(group).ok().flatten();
            Ok((log, checkpoint.map(|loaded| facts(loaded.newest))))
        });
        loaded.await.map_err(|error| error.to_string())?
    }

    async fn write_first_checkpoint(&self, checkpoint: Checkpoint) -> Result<CheckpointFacts, String> {
        let engine = Arc::clone(&self.engine);
        let written = tokio::task::spawn_blocking(move || {
            engine
                .write_checkpoint(&checkpoint)
                .map(|()| facts(checkpoint))
                .map_err(|error| error.to_string())
        });
        written.await.map_err(|error| error.to_string())?
    }

    /// Durable on return, behind all that was asked for before.
    async fn note(&self, write: GroupWrite) -> Result<(), String> {
        let (done, noted) = oneshot::channel();
        self.writer.push(WriterInput::Note(write, done));
        answered(noted).await
    }

    async fn ask_apply<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> ApplyInput) -> Result<T, String> {
        let (done, told) = oneshot::channel();
        self.apply.push(input(done));
        answered(told).await
    }
}

async fn answered<T>(answer: oneshot::Receiver<T>) -> Result<T, String> {
    match timeout(PATIENCE, answer).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(_)) => Err("the node is stopping".to_owned()),
        Err(_) => {
            Err("a thread of the node did not answer in time; on a full disk it waits for room".to_owned())
        }
    }
}
