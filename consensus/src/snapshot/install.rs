//! The switch: from the old state of a group to a staged snapshot, over any crash.
//!
//! The core has written the install mark into the raft log, together with the hard state, in one synced
//! batch. From then on there is no way back, only forward, and each step can be repeated:
//! 1. each staged file is renamed to its place in its log, which is synced; one that is gone from staging
//!    must be in place already, and its name is synced again: a killed process may have renamed it in the
//!    cache only;
//! 2. the snapshot's checkpoint is written, durably;
//! 3. in one synced batch the raft log forgets the group's entries and the mark, and keeps the hard state.
//!
//! A crash before the mark leaves the old state, and staging to go on from. A crash after it is followed
//! by the same steps at the next start, before the replica is built. Staging is removed last, and what is
//! left of it by a crash is swept by the next fetch.
//!
//! The group's writers must be closed before, and be opened again from the checkpoint that is returned.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use raft::eraftpb::HardState;
use tidelog_engine::Engine;
use tidelog_engine::checkpoint::Checkpoint;
use tidelog_engine::storage::{OpenMode, Storage, parent};
use tidelog_wire::ids::{GroupId, LogId, Offset};

use super::error::SnapshotError;
use super::manifest::Manifest;
use super::staging::{Kind, Staging};
use super::verify::{Owner, is_same_sealed};
use crate::raft_log::{GroupWrite, InstallMark, RaftLog};

/// What the switch does to the data directory. The engine does it; a test may count and fail it.
pub trait Adopter {
    /// Puts the file `from` into its place, durably. A file of other bytes that stands there is set aside first.
    ///
    /// # Errors
    /// The system's.
    fn adopt(&self, log: LogId, base: Offset, from: &Path) -> std::io::Result<()>;

    /// Writes a checkpoint, durably.
    ///
    /// # Errors
    /// For people.
    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), String>;
}

impl Adopter for Engine {
    fn adopt(&self, log: LogId, base: Offset, from: &Path) -> std::io::Result<()> {
        self.adopt_segment(log, base, from)
    }

    fn write_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        Self::write_checkpoint(self, checkpoint).map_err(|error| error.to_string())
    }
}

/// What a switch needs to know.
#[derive(Clone, Debug)]
pub struct Switch {
    /// The group.
    pub group: GroupId,
    /// The mark that stands in the raft log.
    pub mark: InstallMark,
    /// What the raft log keeps.
    pub hard_state: HardState,
}

/// Carries out the switch, or finishes one that a crash interrupted. Durable on return.
///
/// Returns the checkpoint from which the group is to be opened again. Logs of the group that it does not
/// name were deleted: the caller removes them.
///
/// # Errors
/// The mark stays, and the switch is to be tried again, at the latest at the next start. Only
/// [`SnapshotError::StagingLost`] will not get better by itself.
pub fn install(
    storage: &Arc<dyn Storage>,
    data_dir: &Path,
    adopter: &dyn Adopter,
    raft_log: &dyn RaftLog,
    switch: &Switch,
) -> Result<Checkpoint, SnapshotError> {
    let staging = Staging::new(Arc::clone(storage), data_dir, switch.group);
    let lost = |missing: String| SnapshotError::StagingLost {
        group: switch.group,
        digest: switch.mark.digest,
        missing,
    };
    let Some((manifest, _)) = staging.manifest(switch.mark.digest)? else {
        return Err(lost("its manifest".to_owned()));
    };
    let checkpoint = manifest.checkpoint().map_err(|fault| SnapshotError::Manifest {
        group: switch.group,
        digest: switch.mark.digest,
        fault,
    })?;
    if manifest.snapshot.index != switch.mark.index || manifest.snapshot.term != switch.mark.term {
        return Err(lost("the manifest of that entry".to_owned()));
    }
    let failed = |message: String| SnapshotError::Adopt { group: switch.group, message };
    for (log, file) in manifest.files() {
        let staged = staging.path(log, file.base, Kind::Whole);
        if staging.open(&staged, OpenMode::Read)?.is_some() {
            adopter
                .adopt(log, file.base, &staged)
                .map_err(|error| failed(format!("segment {} of log {log}: {error}", file.base)))?;
        } else if lies_in_place(&staging, &manifest, log, &file)? {
            // Perhaps by a rename of a process that was killed before it synced the directory.
            let dir = parent(&staging.place(log, file.base)).to_path_buf();
            storage.sync_dir(&dir).map_err(super::error::io(&dir, "sync the directory of the log"))?;
        } else {
            return Err(lost(format!("segment {} of log {log}", file.base)));
        }
    }
    adopter.write_checkpoint(&checkpoint).map_err(failed)?;
    let write = GroupWrite {
        clear: true,
        hard_state: Some(switch.hard_state.clone()),
        ..GroupWrite::new(switch.group)
    };
    raft_log.write(&[write], true)?;
    if let Err(error) = staging.discard()
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(group = switch.group.get(), %error, "cannot remove the staging directory");
    }
    Ok(checkpoint)
}

/// Whether a file that is not in staging is in its log, as long as it must be.
fn lies_in_place(
    staging: &Staging,
    manifest: &Manifest,
    log: LogId,
    file: &super::manifest::SegmentFile,
) -> Result<bool, SnapshotError> {
    let path = staging.place(log, file.base);
    let Some(held) = staging.open(&path, OpenMode::Read)? else { return Ok(false) };
    let owner = Owner { cluster: manifest.cluster, log };
    let length = held.len().map_err(super::error::io(&path, "ask for the length"))?;
    // The beginning of an active segment was verified before it was staged, and adopted since: no
    // writer has touched it, because the replica has not run.
    Ok(is_same_sealed(&*held, owner, file)
        || (!file.sealed && length >= file.length && super::verify::begins_as(&*held, owner, file)))
}
