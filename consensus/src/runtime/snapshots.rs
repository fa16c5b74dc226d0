//! Snapshots at the edge of the runtime: offered, fetched and switched to, off the raft thread.
//!
//! - **Offering** (`exporting`). The newest checkpoint's manifest is listed on a blocking thread, after a newer
//!   checkpoint where that one is too old; a pin keeps its files until nobody fetches them any more.
//! - **Fetching** (`fetching`). One fetch a group, on a blocking thread of its own, which waits for the network and
//!   writes to staging, from whichever connected node delivers. A newer offer ends an older fetch. Files that are
//!   used where they lie stay pinned until the switch, or until the core says that there will be none.
//! - **Switching**. On the apply thread, with the group's machine closed; or at a start that finds a mark.
//! - **Sweeping** (`sweeping`). What an abandoned fetch has staged goes after a while.
//!
//! When the node ends, fetches end first, so that nothing touches the directory any more.
//!
//! Not here: manifests, staging and the switch itself (`crate::snapshot`).

mod exporting;
mod fetching;
mod sweeping;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidelog_engine::checkpoint::Checkpoint;
use tidelog_engine::{Engine, Pin};
use tidelog_wire::ids::{GroupId, LogId, NodeId};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use self::exporting::WantedExports;
use super::apply_desk::ApplyBox;
use super::apply_thread::Installer;
use super::fatal::Fatal;
use super::peers::Snapshots;
use super::raft_thread::Inbox;
use crate::apply::Machines;
use crate::core::{ExportRequest, FetchSnapshot, Input, InstallSnapshot};
use crate::metrics::NodeMetrics;
use crate::raft_log::{RaftLog, RaftLogError};
use crate::snapshot::{ExportLimits, Exports, SnapshotError, Switch, install};
use crate::transport::{BulkObject, BulkSource, Transport};

/// Where snapshots come in and go out.
pub(super) struct SnapshotDoor {
    inbox: Arc<Inbox>,
    apply: Arc<ApplyBox>,
    metrics: Arc<NodeMetrics>,
    runtime: Handle,
    fatal: Fatal,
    /// None once the node has ended.
    open: Mutex<Option<Open>>,
    fetches: Mutex<BTreeMap<GroupId, Fetch>>,
    wanted_exports: Mutex<WantedExports>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What snapshots are made of.
#[derive(Clone)]
struct Open {
    engine: Arc<Engine>,
    raft_log: Arc<dyn RaftLog>,
    exports: Arc<Exports>,
    /// None before the connections are there, and for a node without peers.
    transport: Option<Transport>,
}

/// The fetches of one group.
#[derive(Default)]
struct Fetch {
    /// The newest offer; a fetch of another one ends.
    wanted: Option<FetchSnapshot>,
    /// Held by the fetch that runs, so that two never write the same staging files.
    turn: Arc<Mutex<()>>,
    /// Keeps the files that the staged snapshot uses where they lie.
    pinned: Option<Pin>,
    /// Since when nothing of it is wanted, as far as was noticed.
    idle_since: Option<Duration>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whom the door tells, and what it counts.
pub(super) struct DoorWiring {
    pub(super) inbox: Arc<Inbox>,
    pub(super) apply: Arc<ApplyBox>,
    pub(super) metrics: Arc<NodeMetrics>,
    pub(super) runtime: Handle,
    pub(super) fatal: Fatal,
}

impl SnapshotDoor {
    pub(super) fn new(engine: Arc<Engine>, raft_log: Arc<dyn RaftLog>, wiring: DoorWiring) -> Arc<Self> {
        let DoorWiring { inbox, apply, metrics, runtime, fatal } = wiring;
        let exports = Exports::new(Arc::clone(engine.storage()), engine.dir(), ExportLimits::default());
        let fetches = sweeping::left_behind(&engine);
        let open = Open { engine, raft_log, exports: Arc::new(exports), transport: None };
        Arc::new(Self {
            inbox,
            apply,
            metrics,
            runtime,
            fatal,
            open: Mutex::new(Some(open)),
            fetches: Mutex::new(fetches),
            wanted_exports: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Gives it the connections, once they are there.
    pub(super) fn connect(&self, transport: Transport) {
        if let Some(open) = &mut *locked(&self.open) {
            open.transport = Some(transport);
        }
    }

    fn files(&self) -> Option<Open> {
        locked(&self.open).clone()
    }

    /// Ends all fetches, then lets go of all files and connections.
    pub(super) async fn close(&self) {
        drop(locked(&self.open).take());
        let tasks = std::mem::take(&mut *locked(&self.tasks));
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task of a snapshot had panicked");
            }
        }
        locked(&self.fetches).clear();
    }

    /// Ends offers that nobody uses, asks again for checkpoints that are waited for, and sweeps what was abandoned;
    /// called about every second.
    pub(super) fn expire(self: &Arc<Self>, now: Duration) {
        let Some(open) = self.files() else { return };
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        for (group, snapshot) in open.exports.expire(now_ms) {
            self.inbox.push_input(Input::SnapshotWithdrawn { group, snapshot });
        }
        locked(&self.tasks).retain(|task| !task.is_finished());
        self.remind(now);
        self.sweep(now);
    }

    /// The group's replica here ends, or another one begins: what is being fetched for it is given up.
    pub(super) fn forget(&self, group: GroupId) {
        locked(&self.fetches).remove(&group);
    }

    pub(super) fn installer(self: &Arc<Self>) -> Box<dyn Installer> {
        Box::new(DoorInstaller { door: Arc::clone(self) })
    }

    /// Runs `work` on a blocking thread that a close waits for.
    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let door = Arc::clone(self);
        let task = self.runtime.spawn_blocking(move || work(&door));
        locked(&self.tasks).push(task);
    }

    /// What `error` says, after the end of the process if it makes that necessary.
    fn told(&self, error: &SnapshotError) -> String {
        let message = error.to_string();
        if error.leaves_disk_unknown() {
            self.fatal.end(&message);
        }
        message
    }
}

/// The door as the raft thread sees it.
pub(super) struct DoorSnapshots(pub(super) Arc<SnapshotDoor>);

impl Snapshots for DoorSnapshots {
    fn fetch(&self, offer: FetchSnapshot) {
        let mut fetches = locked(&self.0.fetches);
        let fetch = fetches.entry(offer.group).or_default();
        fetch.wanted = Some(offer);
        fetch.idle_since = None;
        drop(fetches);
        self.0.spawn(move |door| door.fetch_now(offer));
    }

    fn abandon(&self, group: GroupId) {
        self.0.let_go(group);
    }

    fn export(&self, request: ExportRequest) {
        self.0.spawn(move |door| door.export(request));
    }
}

impl BulkSource for SnapshotDoor {
    fn open(&self, peer: NodeId, request: Bytes) -> Result<Box<dyn BulkObject>, String> {
        self.files().ok_or("this node is stopping")?.exports.open(peer, request)
    }
}

struct DoorInstaller {
    door: Arc<SnapshotDoor>,
}

impl Installer for DoorInstaller {
    fn install(&mut self, machines: &mut Machines, request: &InstallSnapshot) -> Result<(), String> {
        let InstallSnapshot { group, mark, hard_state } = request.clone();
        let Some(Open { engine, raft_log, .. }) = self.door.files() else {
            return Err("this node is stopping".to_owned());
        };
        let before = logs_named(&engine, group);
        machines.close(group);
        switch(&engine, raft_log.as_ref(), &Switch { group, mark, hard_state }, &before)
            .map_err(|error| self.door.told(&error))?;
        machines.reopen(group).map_err(|error| error.to_string())?;
        self.door.let_go(group);
        self.door.metrics.snapshots_installed.add(1);
        tracing::info!(%group, index = %mark.index, "switched to a snapshot");
        Ok(())
    }
}

/// Logs that the group's newest checkpoint names.
fn logs_named(engine: &Engine, group: GroupId) -> Vec<LogId> {
    let loaded = engine.load_checkpoint(group).ok().flatten();
    loaded.map(|loaded| loaded.newest.logs.iter().map(|log| log.log).collect()).unwrap_or_default()
}

/// Switches, and removes the logs that the snapshot no longer has.
fn switch(
    engine: &Arc<Engine>,
    raft_log: &dyn RaftLog,
    request: &Switch,
    before: &[LogId],
) -> Result<Checkpoint, SnapshotError> {
    let data_dir: PathBuf = engine.dir().to_path_buf();
    let checkpoint = install(engine.storage(), &data_dir, engine.as_ref(), raft_log, request)?;
    let stays = |log: &LogId| checkpoint.logs.iter().any(|kept| kept.log == *log);
    for log in before.iter().filter(|log| !stays(log)) {
        if let Err(error) = engine.remove_log(*log) {
            tracing::warn!(%log, "a deleted log was not removed: {error}");
        }
    }
    Ok(checkpoint)
}

/// Finishes installations that a crash interrupted. What cannot be finished is noted, and its replica
/// does not start.
///
/// Files that one of them has put in place are named by no checkpoint yet, and the checkpoint of another
/// group would have them removed. So they are held until all are finished, or for as long as one is not.
pub(super) fn finish_installs(
    engine: &Arc<Engine>,
    raft_log: &dyn RaftLog,
    groups: &[GroupId],
    notes: &mut Vec<String>,
) {
    engine.hold_unopened(true);
    let mut unfinished = false;
    for group in groups {
        let Ok(log) = raft_log.load(*group) else {
            unfinished = true;
            continue;
        };
        let Some(mark) = log.install else { continue };
        let before = logs_named(engine, *group);
        let request = Switch { group: *group, mark, hard_state: log.hard_state };
        let is_full =
            |error: &SnapshotError| matches!(error, SnapshotError::RaftLog(RaftLogError::Full { .. }));
        match engine.with_reserve(|| switch(engine, raft_log, &request, &before), is_full) {
            Ok(_) => notes.push(format!("group {group}: the switch to a snapshot was finished")),
            Err(error) => {
                unfinished = true;
                notes.push(error.to_string());
            }
        }
    }
    engine.hold_unopened(unfinished);
}

#[cfg(test)]
mod tests;
