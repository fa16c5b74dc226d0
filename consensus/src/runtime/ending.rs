//! Ends: of leaderships, and of the node.
//!
//! A stop takes no more proposals, hands leadership over, checkpoints, and joins the threads in the order of the work's
//! way. It waits for others a bounded time only. An abandonment leaves what a killed process would leave.
//!
//! Not here: what a running node does for its holders (`super::handle`).

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidelog_wire::ids::{GroupId, NodeId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::apply_thread::ApplyInput;
use super::board::Statuses;
use super::handle::{NodeHandle, Running};
use super::waiters::ProposeError;
use crate::core::{GroupStatus, Input, Role};

/// How long a stop waits for others to take leadership over, and for the last checkpoints.
const HAND_OVER: Duration = Duration::from_secs(2);
const LAST_CHECKPOINTS: Duration = Duration::from_secs(10);

impl NodeHandle {
    /// Asks this node, if it leads `group`, to hand over to `to`; ends once another node leads.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] if it does not lead, [`ProposeError::NotReady`] if nobody took over
    /// within `within`: then this node goes on leading.
    pub async fn transfer(
        &self,
        group: GroupId,
        to: Option<NodeId>,
        within: Duration,
    ) -> Result<(), ProposeError> {
        let here = self.identity().node;
        let leader = self.leader(group);
        if leader != Some(here) {
            return Err(ProposeError::NotLeader { leader });
        }
        let mut statuses = self.watch_statuses();
        let handed_over = |statuses: &Statuses| {
            let status = statuses.iter().find(|status| status.group == group);
            status.is_none_or(|status| status.leader.is_some_and(|leader| leader != here))
        };
        let attempts = async {
            loop {
                self.shared.inbox.push_input(Input::TransferLeader { group, to });
                if timeout(HAND_OVER, statuses.wait_for(handed_over)).await.is_ok() {
                    return;
                }
            }
        };
        timeout(within, attempts).await.map_err(|_| ProposeError::NotReady)
    }

    /// Stops: takes no more proposals, hands leadership over, checkpoints, and joins the threads.
    /// Waits for others a bounded time only. A second call does nothing.
    pub async fn stop(&self) {
        if self.shared.board.stopping.send_replace(true) {
            return;
        }
        self.hand_over().await;
        let (done, finished) = oneshot::channel();
        self.shared.apply.push(ApplyInput::Finish(done));
        if timeout(LAST_CHECKPOINTS, finished).await.is_err() {
            tracing::warn!("the last checkpoints took too long; the raft log keeps what they lack");
        }
        if let Some(transport) = self.transport() {
            transport.stop().await;
        }
        self.end().await;
    }

    async fn hand_over(&self) {
        let here = self.identity().node;
        let mut statuses = self.watch_statuses();
        let led: Vec<_> = self
            .group_status()
            .iter()
            .filter(|status| status.role == Role::Leader)
            // A group of one has nobody to take over.
            .filter(|status| status.peers.iter().any(|peer| peer.node != here))
            .map(|status| status.group)
            .collect();
        for group in &led {
            self.shared.inbox.push_input(Input::TransferLeader { group: *group, to: None });
        }
        let handed = |statuses: &Statuses| {
            let led = |status: &&Arc<GroupStatus>| led.contains(&status.group);
            statuses.iter().filter(led).all(|status| status.leader.is_some_and(|leader| leader != here))
        };
        if timeout(HAND_OVER, statuses.wait_for(handed)).await.is_err() {
            tracing::warn!("not every group was taken over; the others elect a leader by themselves");
        }
    }

    /// Ends at once: nothing is handed over or checkpointed, and what is on its way is lost, as if the
    /// process had been killed. The data directory can be opened again once all handles and readers are
    /// dropped.
    pub async fn abandon(&self) {
        self.shared.board.stopping.send_replace(true);
        if let Some(transport) = self.transport() {
            transport.stop().await;
        }
        self.end().await;
    }

    /// Closes the mailboxes in the order of the work's way and joins the threads.
    async fn end(&self) {
        let running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Running { raft, writer, apply, keeper, tasks, door }) = running else { return };
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task of the node had panicked");
            }
        }
        door.close().await;
        let shared = Arc::clone(&self.shared);
        let ended = tokio::task::spawn_blocking(move || {
            shared.inbox.close();
            let raft = raft.join();
            shared.writer.close();
            let writer = writer.join();
            shared.apply.close();
            let apply = apply.join();
            shared.keeper.close();
            let keeper = keeper.join();
            [raft, writer, apply, keeper].into_iter().all(|thread| thread.is_ok())
        });
        if !ended.await.unwrap_or(false) {
            tracing::error!("a thread of the node had panicked");
        }
        self.shared.waiters.tell_all(ProposeError::MayHaveCommitted);
    }
}
