//! Snapshots at the edge of the runtime: fetched, exported and installed off the raft thread.
//!
//! Not here: manifests, staging and the switch itself.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tidelog_engine::Engine;
use tidelog_wire::ids::{GroupId, NodeId};
use tokio::runtime::Handle;

use super::apply_thread::Installer;
use super::peers::Snapshots;
use super::raft_thread::Inbox;
use crate::apply::Machines;
use crate::core::{FetchSnapshot, Input, InstallSnapshot, Staged};
use crate::raft_log::RaftLog;
use crate::transport::{BulkObject, BulkSource, Transport};

/// Where snapshots come in and go out.
pub(super) struct SnapshotDoor {
    /// None once the node has ended.
    files: Mutex<Option<Files>>,
    inbox: Arc<Inbox>,
    #[expect(dead_code, reason = "fetches run on it")]
    runtime: Handle,
    /// Given once the connections are there, taken when the node ends: the transport holds this door.
    transport: Mutex<Option<Transport>>,
}

/// What snapshots are made of.
#[derive(Clone)]
#[expect(dead_code, reason = "exports and installations use them")]
struct Files {
    engine: Arc<Engine>,
    raft_log: Arc<dyn RaftLog>,
}

impl SnapshotDoor {
    pub(super) fn new(
        engine: Arc<Engine>,
        raft_log: Arc<dyn RaftLog>,
        inbox: Arc<Inbox>,
        runtime: Handle,
    ) -> Arc<Self> {
        let files = Mutex::new(Some(Files { engine, raft_log }));
        Arc::new(Self { files, inbox, runtime, transport: Mutex::new(None) })
    }

    /// Gives it the connections, once they are there.
    pub(super) fn connect(&self, transport: Transport) {
        *self.transport.lock().unwrap_or_else(PoisonError::into_inner) = Some(transport);
    }

    /// Lets go of all files.
    pub(super) async fn close(&self) {
        drop(self.files.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.transport.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn installer(self: &Arc<Self>) -> Box<dyn Installer> {
        Box::new(NoInstaller)
    }
}

impl Snapshots for SnapshotDoor {
    fn fetch(&self, fetch: FetchSnapshot) {
        let FetchSnapshot { group, snapshot, .. } = fetch;
        self.inbox.push_input(Input::SnapshotStaged { group, snapshot, result: Staged::Failed });
    }

    fn export(&self, group: GroupId) {
        tracing::warn!(%group, "a follower needs a snapshot, which this build cannot export");
    }
}

impl BulkSource for SnapshotDoor {
    fn open(&self, _peer: NodeId, _request: Bytes) -> Result<Box<dyn BulkObject>, String> {
        Err("this build exports no snapshots".to_owned())
    }
}

struct NoInstaller;

impl Installer for NoInstaller {
    fn install(&mut self, _machines: &mut Machines, _install: &InstallSnapshot) -> Result<(), String> {
        Err("this build installs no snapshots".to_owned())
    }
}

/// Finishes installations that a crash interrupted.
pub(super) fn finish_installs(
    _engine: &Arc<Engine>,
    _raft_log: &dyn RaftLog,
    _groups: &[GroupId],
    _notes: &mut Vec<String>,
) {
}
