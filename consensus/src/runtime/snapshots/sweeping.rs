//! What an abandoned fetch has staged: kept for the next offer, which goes on from it, and removed after a while.
//!
//! A restart keeps it too. Never touched: what a switch needs, which is pinned until it is done, and what one needs that
//! a crash interrupted, which the mark in the raft log says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_engine::Engine;
use tidelog_wire::ids::GroupId;

use super::{Fetch, Open, SnapshotDoor, locked};
use crate::snapshot::{discard_staged, staged_groups};

/// How long staged files are kept that nothing wants.
const KEPT: Duration = Duration::from_secs(600);

/// Groups of which an earlier life of this node has left something in staging.
pub(super) fn left_behind(engine: &Engine) -> BTreeMap<GroupId, Fetch> {
    let groups = staged_groups(engine.storage().as_ref(), engine.dir());
    groups.into_iter().map(|group| (group, Fetch::default())).collect()
}

impl SnapshotDoor {
    /// Removes what has lain unwanted for long.
    pub(super) fn sweep(self: &Arc<Self>, now: Duration) {
        let mut due = Vec::new();
        for (group, fetch) in locked(&self.fetches).iter_mut() {
            if fetch.wanted.is_some() || fetch.pinned.is_some() {
                fetch.idle_since = None;
            } else if now.saturating_sub(*fetch.idle_since.get_or_insert(now)) >= KEPT {
                fetch.idle_since = None;
                due.push(*group);
            }
        }
        for group in due {
            self.spawn(move |door| door.discard(group));
        }
    }

    fn discard(&self, group: GroupId) {
        let turn = locked(&self.fetches).get(&group).map(|fetch| Arc::clone(&fetch.turn));
        let Some(turn) = turn else { return };
        // Held to the end: a fetch that begins now waits.
        let _turn = locked(&turn);
        let Some(Open { engine, raft_log, .. }) = self.files() else { return };
        if !staged_groups(engine.storage().as_ref(), engine.dir()).contains(&group) {
            return;
        }
        let unmarked = raft_log.load(group).is_ok_and(|log| log.install.is_none());
        let is_idle = |fetch: &Fetch| fetch.wanted.is_none() && fetch.pinned.is_none();
        if !unmarked || !locked(&self.fetches).get(&group).is_some_and(is_idle) {
            return;
        }
        match discard_staged(engine.storage(), engine.dir(), group) {
            Ok(()) => tracing::info!(%group, "removed what an abandoned fetch of a snapshot had staged"),
            Err(error) => tracing::warn!(%group, "cannot remove what a fetch had staged: {error}"),
        }
    }
}
