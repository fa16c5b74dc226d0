//! What the node's threads make known to everybody else: watched, never waited for.
//!
//! Replicas come and go at run time, and there may be hundreds of them, most of them idle. So the raft thread shows only
//! those that something happened to, and whoever looks shares each status with everybody else.
//!
//! Not here: who decides what stands on it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidelog_wire::ids::{GroupId, NodeId, RaftIndex};
use tokio::sync::watch;

use crate::apply::Catalogue;
use crate::core::GroupStatus;

/// The replicas of a node, by group.
pub(super) type Statuses = Arc<Vec<Arc<GroupStatus>>>;

/// Statuses, applied indexes and catalogue, each as a value to watch.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) statuses: watch::Sender<Statuses>,
    pub(super) catalogue: watch::Sender<Arc<Catalogue>>,
    applied: Mutex<BTreeMap<GroupId, watch::Sender<RaftIndex>>>,
    /// Whether appends are refused, because the disk is full.
    pub(super) disk_full: AtomicBool,
    /// Set once the node begins to stop.
    pub(super) stopping: watch::Sender<bool>,
}

impl Board {
    /// `absent` are replicas that did not start; the core does not know them.
    pub(super) fn new(catalogue: Arc<Catalogue>, absent: Vec<GroupStatus>) -> Self {
        let board = Self {
            disk_full: AtomicBool::new(false),
            statuses: watch::Sender::default(),
            catalogue: watch::Sender::new(catalogue),
            applied: Mutex::default(),
            stopping: watch::Sender::new(false),
        };
        board.show(absent);
        board
    }

    /// Shows replicas as they are now, in place of what was shown of their groups.
    pub(super) fn show(&self, now: impl IntoIterator<Item = GroupStatus>) {
        self.change(now.into_iter().map(|status| (status.group, Some(status))));
    }

    /// Shows what became of groups; of `None` there is no replica any more.
    pub(super) fn change(&self, now: impl Iterator<Item = (GroupId, Option<GroupStatus>)>) {
        self.statuses.send_modify(|shown| {
            let shown = Arc::make_mut(shown);
            for (group, status) in now {
                let status = status.map(Arc::new);
                match (shown.binary_search_by_key(&group, |shown| shown.group), status) {
                    (Ok(at), Some(status)) => {
                        if let Some(place) = shown.get_mut(at) {
                            *place = status;
                        }
                    }
                    (Err(at), Some(status)) => shown.insert(at, status),
                    (Ok(at), None) => drop(shown.remove(at)),
                    (Err(_), None) => {}
                }
            }
        });
    }

    fn applied(&self) -> MutexGuard<'_, BTreeMap<GroupId, watch::Sender<RaftIndex>>> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the group has applied this much here. Its first time, it appears.
    pub(super) fn set_applied(&self, group: GroupId, index: RaftIndex) {
        self.applied().entry(group).or_default().send_replace(index);
    }

    /// The group is gone from here: whoever waits for it is told by the end of the watch.
    pub(super) fn forget(&self, group: GroupId) {
        self.applied().remove(&group);
    }

    pub(super) fn watch_applied(&self, group: GroupId) -> Option<watch::Receiver<RaftIndex>> {
        self.applied().get(&group).map(watch::Sender::subscribe)
    }

    pub(super) fn status(&self, group: GroupId) -> Option<Arc<GroupStatus>> {
        let shown = self.statuses.borrow();
        let at = shown.binary_search_by_key(&group, |status| status.group).ok()?;
        shown.get(at).cloned()
    }

    pub(super) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.status(group)?.leader
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
