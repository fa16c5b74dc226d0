//! What the node's threads make known to everybody else: watched, never waited for.
//!
//! Not here: who decides what stands on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tidelog_wire::ids::{GroupId, NodeId, RaftIndex};
use tokio::sync::watch;

use crate::apply::Catalogue;
use crate::core::GroupStatus;

/// Statuses, applied indexes and catalogue, each as a value to watch.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) statuses: watch::Sender<Arc<Vec<GroupStatus>>>,
    pub(super) catalogue: watch::Sender<Arc<Catalogue>>,
    applied: BTreeMap<GroupId, watch::Sender<RaftIndex>>,
    /// Replicas that did not start; the core does not know them.
    absent: Vec<GroupStatus>,
    /// Whether appends are refused, because the disk is full.
    pub(super) disk_full: AtomicBool,
    /// Set once the node begins to stop.
    pub(super) stopping: watch::Sender<bool>,
}

impl Board {
    pub(super) fn new(groups: &[GroupId], catalogue: Arc<Catalogue>, absent: Vec<GroupStatus>) -> Self {
        Self {
            absent,
            disk_full: AtomicBool::new(false),
            statuses: watch::Sender::new(Arc::new(Vec::new())),
            catalogue: watch::Sender::new(catalogue),
            applied: groups.iter().map(|group| (*group, watch::Sender::new(RaftIndex::ZERO))).collect(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Shows the replicas as the core sees them, and those that it does not know.
    pub(super) fn set_statuses(&self, mut statuses: Vec<GroupStatus>) {
        statuses.extend(self.absent.iter().cloned());
        statuses.sort_by_key(|status| status.group);
        self.statuses.send_replace(Arc::new(statuses));
    }

    pub(super) fn set_applied(&self, group: GroupId, index: RaftIndex) {
        if let Some(applied) = self.applied.get(&group) {
            applied.send_replace(index);
        }
    }

    pub(super) fn watch_applied(&self, group: GroupId) -> Option<watch::Receiver<RaftIndex>> {
        self.applied.get(&group).map(watch::Sender::subscribe)
    }

    pub(super) fn status(&self, group: GroupId) -> Option<GroupStatus> {
        self.statuses.borrow().iter().find(|status| status.group == group).cloned()
    }

    pub(super) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.statuses.borrow().iter().find(|status| status.group == group)?.leader
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
