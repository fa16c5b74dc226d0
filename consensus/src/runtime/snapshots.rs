//! Snapshots at the edge of the runtime: offered, fetched and switched to, off the raft thread.
//!
//! - **Offering.** The newest checkpoint's manifest is listed on a blocking thread; a pin keeps its files
//!   until nobody fetches them any more, which the keeper looks after.
//! - **Fetching.** One fetch a group, on a blocking thread of its own, which waits for the network and
//!   writes to staging. A newer offer ends an older fetch. Files that are used where they lie stay pinned
//!   until the switch.
//! - **Switching.** On the apply thread, with the group's machine closed; or at a start that finds a mark.
//!
//! When the node ends, fetches end first, so that nothing touches the directory any more.
//!
//! Not here: manifests, staging and the switch itself (`crate::snapshot`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidelog_engine::checkpoint::Checkpoint;
use tidelog_engine::{Engine, Pin};
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::apply_thread::Installer;
use super::fatal::Fatal;
use super::peers::Snapshots;
use super::raft_thread::Inbox;
use crate::apply::Machines;
use crate::core::{FetchSnapshot, Input, InstallSnapshot, Staged};
use crate::raft_log::RaftLog;
use crate::snapshot::{
    Ended, ExportLimits, Exports, FetchLimits, Fetcher, Next, SnapshotError, StagedSnapshot, Switch,
    build_manifest, install,
};
use crate::transport::{BulkObject, BulkSource, Transport};

/// Pause before the next attempt of a fetch, times the attempts that brought nothing.
const PAUSE: Duration = Duration::from_millis(200);

/// Where snapshots come in and go out.
pub(super) struct SnapshotDoor {
    inbox: Arc<Inbox>,
    runtime: Handle,
    fatal: Fatal,
    /// None once the node has ended.
    open: Mutex<Option<Open>>,
    fetches: Mutex<BTreeMap<GroupId, Fetch>>,
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
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SnapshotDoor {
    pub(super) fn new(
        engine: Arc<Engine>,
        raft_log: Arc<dyn RaftLog>,
        inbox: Arc<Inbox>,
        runtime: Handle,
        fatal: Fatal,
    ) -> Arc<Self> {
        let exports = Exports::new(Arc::clone(engine.storage()), engine.dir(), ExportLimits::default());
        let open = Open { engine, raft_log, exports: Arc::new(exports), transport: None };
        Arc::new(Self {
            inbox,
            runtime,
            fatal,
            open: Mutex::new(Some(open)),
            fetches: Mutex::default(),
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

    /// Ends offers that nobody uses; called about every second.
    pub(super) fn expire(&self, now: Duration) {
        let Some(open) = self.files() else { return };
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        for (group, snapshot) in open.exports.expire(now_ms) {
            self.inbox.push_input(Input::SnapshotWithdrawn { group, snapshot });
        }
        locked(&self.tasks).retain(|task| !task.is_finished());
    }

    pub(super) fn installer(self: &Arc<Self>) -> Box<dyn Installer> {
        Box::new(DoorInstaller { door: Arc::clone(self) })
    }

    /// Runs `work` on a blocking thread that a close waits for.
    fn spawn(self: &Arc<Self>, work: impl FnOnce(&Self) + Send + 'static) {
        let door = Arc::clone(self);
        let task = self.runtime.spawn_blocking(move || work(&door));
        locked(&self.tasks).push(task);
    }

    fn offer(&self, group: GroupId) -> Result<(), String> {
        let Some(Open { engine, exports, .. }) = self.files() else { return Ok(()) };
        let loaded = engine.load_checkpoint(group).map_err(|error| error.to_string())?;
        let checkpoint = loaded.ok_or("there is no checkpoint")?.newest;
        let cluster = engine.identity().cluster;
        let manifest = build_manifest(engine.storage().as_ref(), engine.dir(), cluster, &checkpoint)
            .map_err(|error| error.to_string())?;
        let pin = engine.pin(manifest.files().map(|(log, file)| (log, file.base)).collect());
        let offer = exports.offer(manifest, Arc::new(pin)).ok_or("it would exceed the limits of exports")?;
        tracing::info!(%group, snapshot = %offer.snapshot, "offering a snapshot");
        self.inbox.push_input(Input::SnapshotExported { group, offer });
        Ok(())
    }

    /// Whether `offer` is still the one to be fetched.
    fn is_wanted(&self, offer: &FetchSnapshot) -> bool {
        let fetches = locked(&self.fetches);
        fetches.get(&offer.group).is_some_and(|fetch| fetch.wanted.as_ref() == Some(offer))
    }

    fn fetch_now(&self, offer: FetchSnapshot) {
        let turn = locked(&self.fetches).get(&offer.group).map(|fetch| Arc::clone(&fetch.turn));
        let Some(turn) = turn else { return };
        let _turn = locked(&turn);
        let result = match self.is_wanted(&offer) {
            true => self.fetch_all(offer),
            false => return,
        };
        let FetchSnapshot { group, snapshot, .. } = offer;
        let staged = match result {
            Ok(Some(staged)) => {
                tracing::info!(%group, %snapshot, bytes = staged.fetched_bytes, "a snapshot is staged");
                self.pin(&staged);
                Staged::Ready
            }
            Ok(None) => return,
            Err(reason) => {
                tracing::warn!(%group, %snapshot, "a snapshot was not fetched: {reason}");
                Staged::Failed
            }
        };
        self.inbox.push_input(Input::SnapshotStaged { group, snapshot, result: staged });
    }

    /// What `error` says, after the end of the process if it makes that necessary.
    fn told(&self, error: &SnapshotError) -> String {
        let message = error.to_string();
        if error.leaves_disk_unknown() {
            self.fatal.end(&message);
        }
        message
    }

    fn pin(&self, staged: &StagedSnapshot) {
        let Some(open) = self.files() else { return };
        let pin = open.engine.pin(staged.reused.clone());
        if let Some(fetch) = locked(&self.fetches).get_mut(&staged.offer.group) {
            fetch.pinned = Some(pin);
        }
    }

    /// Fetches until all is staged; `None` if it is not wanted any more.
    fn fetch_all(&self, offer: FetchSnapshot) -> Result<Option<StagedSnapshot>, String> {
        let Some(Open { engine, transport: Some(transport), .. }) = self.files() else {
            return Ok(None);
        };
        let cluster = engine.identity().cluster;
        let storage = Arc::clone(engine.storage());
        let mut fetcher = Fetcher::new(storage, engine.dir(), cluster, offer, FetchLimits::default())
            .map_err(|error| self.told(&error))?;
        fetcher.distrust(damage_known(&engine, offer.group));
        drop(engine);
        loop {
            if !self.is_wanted(&offer) || self.files().is_none() {
                return Ok(None);
            }
            match fetcher.next_step().map_err(|error| self.told(&error))? {
                Next::Staged(staged) => return Ok(Some(staged)),
                Next::Ask { from, request, position, attempt } => {
                    self.runtime.block_on(tokio::time::sleep(PAUSE.saturating_mul(attempt)));
                    let how = self.transfer(&mut fetcher, &transport, from, request, position)?;
                    fetcher.ended(how).map_err(|error| self.told(&error))?;
                }
            }
        }
    }

    /// One transfer, to its end however it ends.
    fn transfer(
        &self,
        fetcher: &mut Fetcher,
        transport: &Transport,
        from: NodeId,
        request: Bytes,
        position: u64,
    ) -> Result<Ended, String> {
        let mut reader = match self.runtime.block_on(transport.fetch(from, request, position)) {
            Ok(reader) => reader,
            Err(error) => return Ok(Ended::Broken(error.to_string())),
        };
        loop {
            match self.runtime.block_on(reader.next()) {
                Ok(Some(bytes)) => fetcher.arrived(&bytes).map_err(|error| self.told(&error))?,
                Ok(None) => return Ok(Ended::Complete),
                Err(error) => return Ok(Ended::Broken(error.to_string())),
            }
        }
    }
}

/// The door as the raft thread sees it.
pub(super) struct DoorSnapshots(pub(super) Arc<SnapshotDoor>);

impl Snapshots for DoorSnapshots {
    fn fetch(&self, offer: FetchSnapshot) {
        locked(&self.0.fetches).entry(offer.group).or_default().wanted = Some(offer);
        self.0.spawn(move |door| door.fetch_now(offer));
    }

    fn export(&self, group: GroupId) {
        self.0.spawn(move |door| {
            if let Err(reason) = door.offer(group) {
                tracing::warn!(%group, "a follower needs a snapshot, but none can be offered: {reason}");
            }
        });
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
        if let Some(fetch) = locked(&self.door.fetches).get_mut(&group) {
            fetch.pinned = None;
            fetch.wanted = None;
        }
        tracing::info!(%group, index = %mark.index, "switched to a snapshot");
        Ok(())
    }
}

/// Ranges of the group's logs that the newest checkpoint knows to be damaged here.
fn damage_known(engine: &Engine, group: GroupId) -> Vec<(LogId, Range<Offset>)> {
    let loaded = engine.load_checkpoint(group).ok().flatten();
    let logs = loaded.into_iter().flat_map(|loaded| loaded.newest.logs);
    logs.flat_map(|log| log.damage.into_iter().map(move |range| (log.log, range))).collect()
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
        match switch(engine, raft_log, &request, &before) {
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
