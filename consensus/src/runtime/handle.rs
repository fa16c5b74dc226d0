//! What everybody else holds of a running node.
//!
//! - [`NodeHandle::submit`] takes a command before it returns, so commands of one caller are proposed
//!   in the order of its calls; the outcome comes later, or a reason that says whether it may still come.
//! - Catalogue, statuses and applied indexes are values to watch.
//! - [`NodeHandle::stop`] hands leadership over, checkpoints and joins the threads;
//!   [`NodeHandle::abandon`] leaves what a killed process would leave.
//!
//! Not here: how a node comes to run (`super::start`).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use tidelog_engine::identity::Identity;
use tidelog_engine::log::LogReader;
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset, RaftIndex};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::apply_desk::ApplyBox;
use super::board::Board;
use super::clock::Clock;
use super::desk::NotTaken;
use super::keeper::KeeperBox;
use super::raft_thread::Inbox;
use super::register::NewLife;
use super::snapshots::SnapshotDoor;
use super::waiters::{ProposeError, Told, Waiters};
use super::writer::WriterBox;
use crate::apply::{Catalogue, LogReaders};
use crate::core::{GroupStatus, Input, Proposal, Token};
use crate::entry::{self, Command};
use crate::metrics::NodeMetrics;
use crate::outcome::Outcome;
use crate::transport::Transport;

/// A read round without an answer is asked for again after this time.
const READ_ROUND: Duration = Duration::from_millis(150);
/// Pause before a read or a hand-over is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// A running node. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    pub(super) shared: Arc<Shared>,
}

/// What all handles share.
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) board: Arc<Board>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) apply: Arc<ApplyBox>,
    pub(super) keeper: Arc<KeeperBox>,
    pub(super) writer: Arc<WriterBox>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) readers: LogReaders,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) transport: Option<Transport>,
    pub(super) notes: Vec<String>,
    /// Whether replicas of this node are forgotten, so that it begins none before its new life.
    pub(super) forgetful: bool,
    /// Whether it was let into a running cluster, or is to be.
    pub(super) joined: bool,
    pub(super) new_life: watch::Sender<Option<NewLife>>,
    /// Threads and tasks; taken by whoever ends the node.
    pub(super) running: Mutex<Option<Running>>,
}

/// What ends with the node.
pub(super) struct Running {
    pub(super) raft: JoinHandle<()>,
    pub(super) writer: JoinHandle<()>,
    pub(super) apply: JoinHandle<()>,
    pub(super) keeper: JoinHandle<()>,
    /// Keep the node in the catalogue, and its replicas as they should be; end by themselves once the node stops.
    pub(super) tasks: [tokio::task::JoinHandle<()>; 2],
    pub(super) door: Arc<SnapshotDoor>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Node").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// A handle that does not keep the node.
#[derive(Clone, Debug)]
pub(super) struct WeakHandle(Weak<Shared>);

impl WeakHandle {
    pub(super) fn upgrade(&self) -> Option<NodeHandle> {
        self.0.upgrade().map(|shared| NodeHandle { shared })
    }
}

/// Whether a node serves, and what it waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// All groups that take part have a leader, and the catalogue knows this start of the node.
    pub ready: bool,
    /// Groups of this node.
    pub groups: usize,
    /// Those that know a leader.
    pub with_leader: usize,
    /// Why groups do not take part, each with its code and the next step.
    pub halted: Vec<(GroupId, String)>,
    /// Whether the catalogue knows this start of the node.
    pub registered: bool,
}

impl NodeHandle {
    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.identity
    }

    pub(super) fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.shared))
    }

    /// The groups of which this node has a replica now.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        self.shared.board.statuses.borrow().iter().map(|status| status.group).collect()
    }

    /// Proposes `command` to `group`, before returning, and gives its outcome once it is applied here.
    ///
    /// # Errors
    /// [`ProposeError`] says whether it may still be applied. After `within` it is [`ProposeError::MayHaveCommitted`].
    pub fn submit(
        &self,
        group: GroupId,
        command: Command,
        within: Duration,
    ) -> impl Future<Output = Result<Outcome, ProposeError>> + Send + 'static {
        let append_bytes = match &command {
            Command::Append { batch, .. } => u64::try_from(batch.len()).ok(),
            Command::OpenLogs { .. }
            | Command::CloseLogs { .. }
            | Command::SetLogStart { .. }
            | Command::ExpireProducers { .. }
            | Command::SetCursor { .. }
            | Command::DeleteCursor { .. }
            | Command::RaiseApplyVersion { .. }
            | Command::Meta(_) => None,
        };
        let shared = Arc::clone(&self.shared);
        let begun = shared.clock.now();
        let admitted = match append_bytes {
            Some(_) if shared.board.disk_full.load(Ordering::Relaxed) => Err(ProposeError::DiskFull),
            Some(_) => shared.waiters.admit(begun),
            None => Ok(()),
        };
        let (context, data) = entry::encode(command);
        let bytes = data.len();
        let proposal = Proposal { context: context.into(), data };
        let entered = admitted.and_then(|()| {
            self.enter(group, bytes, |token| Input::Propose { group, token, entry: proposal })
        });
        async move {
            let told = match entered {
                Ok(waiting) => waiting.told(within).await,
                Err(error) => Told::Failed(error),
            };
            let result = match told {
                Told::Outcome(outcome) => Ok(outcome),
                Told::Failed(error) => Err(error),
                Told::ReadIndex(_) => Err(ProposeError::MayHaveCommitted),
            };
            match (&result, append_bytes) {
                (Ok(Outcome::Appended { duplicate: false, .. }), Some(bytes)) => {
                    shared.metrics.appends.add(1);
                    shared.metrics.append_bytes.add(bytes);
                    shared.metrics.append_time.observe(shared.clock.now().saturating_sub(begun));
                }
                (Ok(_), _) => {}
                (Err(_), _) => shared.metrics.proposals_failed.add(1),
            }
            result
        }
    }

    /// Enters a waiter and hands its input to the raft thread.
    fn enter(
        &self,
        group: GroupId,
        bytes: usize,
        input: impl FnOnce(Token) -> Input,
    ) -> Result<Waiting, ProposeError> {
        let shared = &self.shared;
        if shared.board.is_stopping() {
            return Err(ProposeError::Stopping);
        }
        let (token, told) = shared.waiters.enter();
        shared.inbox.offer_input(input(token), bytes).map_err(|not_taken| {
            shared.waiters.leave(token);
            match not_taken {
                NotTaken::Full => {
                    shared.metrics.inputs_dropped.add(1);
                    ProposeError::busy()
                }
                NotTaken::Closed => ProposeError::Stopping,
            }
        })?;
        Ok(Waiting { shared: Arc::clone(shared), group, token, told })
    }

    /// The index that a read must have seen so that it misses nothing acknowledged before the call.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was changed in any case.
    pub async fn read_index(&self, group: GroupId, within: Duration) -> Result<RaftIndex, ProposeError> {
        let attempts = async {
            loop {
                let waiting = self.enter(group, 0, |token| Input::ReadIndex { group, token })?;
                match waiting.told(READ_ROUND).await {
                    Told::ReadIndex(index) => return Ok(index),
                    // The round may have been lost, or the leader is new: ask again.
                    Told::Failed(
                        ProposeError::MayHaveCommitted
                        | ProposeError::NotReady
                        | ProposeError::Busy { .. }
                        | ProposeError::Superseded
                        | ProposeError::NotLeader { leader: None },
                    )
                    | Told::Outcome(_) => sleep(PAUSE).await,
                    Told::Failed(
                        error @ (ProposeError::NotLeader { leader: Some(_) }
                        | ProposeError::TooLarge
                        | ProposeError::Members(_)
                        | ProposeError::DiskFull
                        | ProposeError::Stopping),
                    ) => return Err(error),
                }
            }
        };
        timeout(within, attempts).await.unwrap_or(Err(ProposeError::NotReady))
    }

    /// Ends once `group` has applied `index` here.
    ///
    /// # Errors
    /// [`ProposeError::NotReady`] if it has not within `within`, or the group is not here.
    pub async fn wait_applied(
        &self,
        group: GroupId,
        index: RaftIndex,
        within: Duration,
    ) -> Result<(), ProposeError> {
        let mut applied = self.shared.board.watch_applied(group).ok_or(ProposeError::NotReady)?;
        match timeout(within, applied.wait_for(|applied| *applied >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ProposeError::Stopping),
            Err(_) => Err(ProposeError::NotReady),
        }
    }

    /// The catalogue as applied here.
    #[must_use]
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.shared.board.catalogue.borrow())
    }

    /// The catalogue, to be watched.
    #[must_use]
    pub fn watch_catalogue(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.shared.board.catalogue.subscribe()
    }

    /// The reader of a log that is open here.
    #[must_use]
    pub fn reader(&self, log: LogId) -> Option<LogReader> {
        self.shared.readers.reader(log)
    }

    /// The cursors of a log, as applied here; `None` if it is not open here.
    #[must_use]
    pub fn cursors(&self, log: LogId) -> Option<BTreeMap<String, Offset>> {
        self.shared.readers.cursors(log)
    }

    /// The logs that are open here.
    #[must_use]
    pub fn logs(&self) -> Vec<LogId> {
        self.shared.readers.logs()
    }

    /// This node's replica of a group, as it was a moment ago.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        self.shared.board.status(group)
    }

    /// Turns to something when the node cannot go on as it is: stop it, and start it again as
    /// [`Start::Rejoin`](super::Start::Rejoin).
    #[must_use]
    pub fn watch_new_life(&self) -> watch::Receiver<Option<NewLife>> {
        self.shared.new_life.subscribe()
    }

    pub(super) fn new_life(&self) -> Option<NewLife> {
        self.shared.new_life.borrow().clone()
    }

    pub(super) fn demand(&self, new_life: NewLife) {
        tracing::error!("this node begins a new life: {}", new_life.why);
        self.shared.new_life.send_replace(Some(new_life));
    }

    pub(super) fn is_forgetful(&self) -> bool {
        self.shared.forgetful
    }

    pub(super) fn has_joined(&self) -> bool {
        self.shared.joined
    }

    /// The last entry that a group has applied here; 0 if it is not here.
    pub(super) fn applied(&self, group: GroupId) -> RaftIndex {
        self.shared.board.watch_applied(group).map_or(RaftIndex::ZERO, |applied| *applied.borrow())
    }

    /// A token that nobody waits for.
    pub(super) fn token(&self) -> Token {
        self.shared.waiters.token()
    }

    pub(super) fn push_input(&self, input: Input) {
        self.shared.inbox.push_input(input);
    }

    /// The node that leads `group`, if known.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.shared.board.leader(group)
    }

    /// Every replica of this node, as it was a moment ago.
    #[must_use]
    pub fn group_status(&self) -> Arc<Vec<Arc<GroupStatus>>> {
        Arc::clone(&self.shared.board.statuses.borrow())
    }

    /// Every replica of this node, to be watched.
    #[must_use]
    pub fn watch_statuses(&self) -> watch::Receiver<Arc<Vec<Arc<GroupStatus>>>> {
        self.shared.board.statuses.subscribe()
    }

    /// Turns true when the node begins to stop.
    #[must_use]
    pub fn watch_stopping(&self) -> watch::Receiver<bool> {
        self.shared.board.stopping.subscribe()
    }

    /// Proposals and reads that wait for an answer here.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiters.len()
    }

    /// What the node measures.
    #[must_use]
    pub fn metrics(&self) -> Arc<NodeMetrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// The clock that the node was started with.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    /// The connections to other nodes; none for a node without peers.
    #[must_use]
    pub fn transport(&self) -> Option<&Transport> {
        self.shared.transport.as_ref()
    }

    /// What recovery found and did, one line each.
    #[must_use]
    pub fn recovery_notes(&self) -> &[String] {
        &self.shared.notes
    }

    /// Whether the node serves, and what it waits for.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let statuses = self.group_status();
        let identity = self.identity();
        let registered = self.catalogue().node(identity.node).is_some_and(|record| {
            record.incarnation == identity.incarnation && record.boot_epoch == identity.boot_epoch
        });
        let with_leader = statuses.iter().filter(|status| status.leader.is_some()).count();
        let halted: Vec<_> = statuses
            .iter()
            .filter_map(|status| Some((status.group, status.halted.as_ref()?.to_string())))
            .collect();
        let groups = statuses.len();
        let settled = with_leader.saturating_add(halted.len()) >= groups && with_leader > 0;
        Readiness {
            ready: settled && registered && !self.shared.board.is_stopping(),
            groups,
            with_leader,
            halted,
            registered,
        }
    }
}

/// Somebody who waits for an answer. Dropped without one, the core forgets it too.
struct Waiting {
    shared: Arc<Shared>,
    group: GroupId,
    token: Token,
    told: oneshot::Receiver<Told>,
}

impl Waiting {
    /// The answer, or [`ProposeError::MayHaveCommitted`] after `within`.
    async fn told(mut self, within: Duration) -> Told {
        match timeout(within, &mut self.told).await {
            Ok(Ok(told)) => told,
            Ok(Err(_)) | Err(_) => Told::Failed(ProposeError::MayHaveCommitted),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.shared.waiters.leave(self.token) {
            self.shared.inbox.push_input(Input::Forget { group: self.group, tokens: vec![self.token] });
        }
    }
}
