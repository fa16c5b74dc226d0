//! Offers to followers: the newest checkpoint, or a newer one if that is too old for whoever needs it.
//!
//! A snapshot must contain its receiver as a member. So the core names the least entry that an offer must have. If the
//! newest checkpoint is older, one is asked for, and offered as soon as it is durable. Whoever waits is reminded of
//! about every second, and forgotten after half a minute: the core asks again if it is still needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidelog_wire::ids::{GroupId, RaftIndex};

use super::{Open, SnapshotDoor, locked};
use crate::core::{ExportRequest, Input};
use crate::runtime::apply_thread::ApplyInput;
use crate::snapshot::build_manifest;

/// How long a checkpoint is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Groups whose next checkpoint is to be offered: from which entry on, and since when that was noticed.
pub(super) type WantedExports = BTreeMap<GroupId, (RaftIndex, Option<Duration>)>;

impl SnapshotDoor {
    /// Offers the group's newest checkpoint, or sees to it that there is one to offer.
    pub(super) fn export(self: &Arc<Self>, request: ExportRequest) {
        let ExportRequest { group, at_least } = request;
        match self.offer(group, at_least) {
            Ok(true) => drop(locked(&self.wanted_exports).remove(&group)),
            Ok(false) => {
                locked(&self.wanted_exports).insert(group, (at_least, None));
                self.apply.push(ApplyInput::CheckpointSoon(vec![group]));
            }
            Err(reason) => {
                tracing::warn!(%group, "a follower needs a snapshot, but none can be offered: {reason}");
            }
        }
    }

    /// A checkpoint of the group is durable: offers it if that is waited for.
    pub(in crate::runtime) fn checkpointed(self: &Arc<Self>, group: GroupId) {
        let wanted = locked(&self.wanted_exports).remove(&group);
        if let Some((at_least, _)) = wanted {
            self.spawn(move |door| door.export(ExportRequest { group, at_least }));
        }
    }

    /// Asks again for checkpoints that are waited for, and gives up on those waited for too long.
    pub(super) fn remind(&self, now: Duration) {
        let mut wanted = locked(&self.wanted_exports);
        wanted.retain(|_, (_, since)| now.saturating_sub(*since.get_or_insert(now)) < PATIENCE);
        if !wanted.is_empty() {
            self.apply.push(ApplyInput::CheckpointSoon(wanted.keys().copied().collect()));
        }
    }

    /// Whether the newest checkpoint is as new as that, and is offered now.
    fn offer(&self, group: GroupId, at_least: RaftIndex) -> Result<bool, String> {
        let Some(Open { engine, exports, .. }) = self.files() else { return Ok(true) };
        let loaded = engine.load_checkpoint(group).map_err(|error| error.to_string())?;
        let checkpoint = loaded.ok_or("there is no checkpoint")?.newest;
        if checkpoint.applied.index < at_least {
            return Ok(false);
        }
        let cluster = engine.identity().cluster;
        let manifest = build_manifest(engine.storage().as_ref(), engine.dir(), cluster, &checkpoint)
            .map_err(|error| error.to_string())?;
        let pin = engine.pin(manifest.files().map(|(log, file)| (log, file.base)).collect());
        let offer = exports.offer(manifest, Arc::new(pin)).ok_or("it would exceed the limits of exports")?;
        tracing::info!(%group, snapshot = %offer.snapshot, "offering a snapshot");
        self.metrics.snapshots_offered.add(1);
        self.inbox.push_input(Input::SnapshotExported { group, offer });
        Ok(true)
    }
}
