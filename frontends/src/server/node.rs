//! The running node as the broker wants it: [`Consensus`] over [`NodeHandle`], [`LogView`] over [`LogReader`].
//!
//! Translation only: what is decided is decided on either side of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::apply::channel::{Channel, ChannelState};
use tidelog_consensus::core::GroupStatus;
use tidelog_consensus::entry::{Command, NodeRecord};
use tidelog_consensus::outcome::Outcome;
use tidelog_consensus::runtime::{NodeHandle, ProposeError};
use tidelog_consensus::transport::Transport;
use tidelog_engine::log::{LogReader, ReadError};
use tidelog_wire::ids::{Chain, Generation, GroupId, LogId, NodeId, Offset, TimestampMs};
use tokio::sync::oneshot;

use crate::broker::{
    ChannelStage, ChannelView, Consensus, Later, LogView, NodeIdentity, Place, ReadBatches, ReadFailure,
    SubmitError,
};

/// A node that runs.
#[derive(Debug)]
pub(super) struct RunningNode {
    handle: NodeHandle,
}

impl RunningNode {
    pub(super) const fn new(handle: NodeHandle) -> Self {
        Self { handle }
    }
}

fn gone(catalogue: &Catalogue, generation: Generation) -> Place {
    Place::Gone { current: catalogue.successor(generation) }
}

fn submit_error(error: ProposeError) -> SubmitError {
    match error {
        ProposeError::NotLeader { leader } => SubmitError::NotLeader { leader },
        ProposeError::Superseded => SubmitError::Superseded,
        ProposeError::Busy { retry_after_ms } => SubmitError::Busy { retry_after_ms },
        // Nothing that clients submit changes members.
        ProposeError::NotReady | ProposeError::Members(_) => SubmitError::NotReady,
        ProposeError::TooLarge => SubmitError::TooLarge,
        ProposeError::DiskFull => SubmitError::DiskFull,
        ProposeError::Stopping => SubmitError::Stopping,
        ProposeError::MayHaveCommitted => SubmitError::MayHaveCommitted,
    }
}

fn channel_view(catalogue: &Catalogue, channel: &Channel) -> Option<ChannelView> {
    let stage = match channel.state {
        ChannelState::Creating => ChannelStage::Creating,
        ChannelState::Active => ChannelStage::Active,
        ChannelState::Deleting => ChannelStage::Deleting,
        ChannelState::Deleted => return None,
    };
    Some(ChannelView {
        name: channel.name.clone(),
        generation: channel.generation,
        uuid: channel.uuid,
        stage,
        replicas: catalogue.copies(channel),
        segment_bytes: channel.segment_bytes,
        groups: channel.groups.clone(),
    })
}

fn place(channel: &Channel, log: LogId) -> Place {
    let Some(group) = channel.group(log.partition) else {
        let partitions = u32::try_from(channel.groups.len()).unwrap_or(u32::MAX);
        return Place::NoPartition { partitions };
    };
    match channel.state {
        ChannelState::Creating => Place::Opening(group),
        ChannelState::Active => Place::Group(group),
        ChannelState::Deleting | ChannelState::Deleted => Place::Closing,
    }
}

impl Consensus for RunningNode {
    fn identity(&self) -> NodeIdentity {
        let identity = self.handle.identity();
        NodeIdentity {
            cluster: identity.cluster,
            node: identity.node,
            incarnation: identity.incarnation,
            boot_epoch: identity.boot_epoch,
        }
    }

    fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.handle.leader(group)
    }

    fn leader_change(&self, group: GroupId) -> Later<()> {
        let mut statuses = self.handle.watch_statuses();
        let before = self.handle.leader(group);
        Box::pin(async move {
            let led = statuses.wait_for(|statuses| {
                let found = statuses.iter().find(|status| status.group == group);
                found.and_then(|status| status.leader).is_some_and(|leader| Some(leader) != before)
            });
            // The statuses live as long as the node; after it, nobody leads any more.
            if led.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn serves(&self, group: GroupId) -> bool {
        self.handle.group_status().iter().any(|status| status.group == group && status.serves)
    }

    /// Where the fact is known, by it; elsewhere by what the group's leader last reported.
    fn members(&self, group: GroupId) -> Vec<NodeId> {
        if let Some(status) = self.handle.status(group).filter(|status| !status.members.is_empty()) {
            return status.members.replicas.iter().map(|(_, node)| *node).collect();
        }
        let catalogue = self.handle.catalogue();
        let placement = catalogue.group(group);
        placement
            .into_iter()
            .flat_map(|placement| placement.wanted())
            .map(|(_, replica)| replica.node)
            .collect()
    }

    fn submit(
        &self,
        group: GroupId,
        command: Command,
        within: Duration,
    ) -> Later<Result<Outcome, SubmitError>> {
        // Proposed by this call; only the answer is awaited later.
        let submitted = self.handle.submit(group, command, within);
        Box::pin(async move { submitted.await.map_err(submit_error) })
    }

    fn read_barrier(&self, group: GroupId, within: Duration) -> Later<Result<(), SubmitError>> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let index = handle.read_index(group, within).await.map_err(submit_error)?;
            handle.wait_applied(group, index, within).await.map_err(submit_error)
        })
    }

    fn place(&self, log: LogId) -> Place {
        let catalogue = self.handle.catalogue();
        let channel = catalogue.channel_of(log.generation);
        channel.map_or_else(|| gone(&catalogue, log.generation), |channel| place(channel, log))
    }

    fn channel(&self, name: &str) -> Option<ChannelView> {
        {
            let catalogue = self.handle.catalogue();
            catalogue.channel(name).and_then(|channel| channel_view(&catalogue, channel))
        }
    }

    fn channels(&self) -> Vec<ChannelView> {
        let catalogue = self.handle.catalogue();
        let mut channels: Vec<_> =
            catalogue.channels().filter_map(|channel| channel_view(&catalogue, channel)).collect();
        channels.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        channels
    }

    fn nodes(&self) -> Vec<NodeRecord> {
        self.handle.catalogue().nodes().cloned().collect()
    }

    fn alive(&self) -> BTreeSet<NodeId> {
        let connected = self.handle.transport().into_iter().flat_map(Transport::connected);
        connected.map(|hello| hello.node).chain([self.handle.identity().node]).collect()
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        self.handle.catalogue()
    }

    fn catalogue_change(&self) -> Later<()> {
        let mut catalogue = self.handle.watch_catalogue();
        catalogue.mark_unchanged();
        // The catalogue lives as long as the node; after it, nothing changes any more.
        Box::pin(async move {
            if catalogue.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }

    fn log(&self, log: LogId) -> Option<Arc<dyn LogView>> {
        self.handle.reader(log).map(|reader| -> Arc<dyn LogView> { Arc::new(RunningLog(reader)) })
    }

    fn cursors(&self, log: LogId) -> Option<BTreeMap<String, Offset>> {
        self.handle.cursors(log)
    }

    fn groups(&self) -> Vec<GroupStatus> {
        self.handle.group_status().iter().map(|status| status.as_ref().clone()).collect()
    }

    fn transfer(&self, group: GroupId, to: NodeId, within: Duration) -> Later<Result<(), SubmitError>> {
        let handle = self.handle.clone();
        Box::pin(async move { handle.transfer(group, Some(to), within).await.map_err(submit_error) })
    }

    fn echo(&self, peer: NodeId, payload: Bytes, within: Duration) -> Later<Result<Duration, String>> {
        let handle = self.handle.clone();
        Box::pin(async move { handle.echo(peer, &payload, within).await.map_err(|error| error.to_string()) })
    }

    fn recovery_notes(&self) -> Vec<String> {
        self.handle.recovery_notes().to_vec()
    }
}

/// A log of this node. Under consensus everything that was appended is committed.
struct RunningLog(LogReader);

fn read_failure(error: ReadError) -> ReadFailure {
    match error {
        ReadError::OutOfRange { start, end, .. } => ReadFailure::OutOfRange { start, end },
        ReadError::Damaged { range, .. } => ReadFailure::Damaged { range },
        ReadError::Unreadable { range, path, said, .. } => {
            ReadFailure::Unreadable { range, said: format!("{}: {said}", path.display()) }
        }
        ReadError::Reopened { .. } => ReadFailure::Reopened,
        ReadError::InsideBatch { batch, .. } => ReadFailure::InsideBatch { batch },
        ReadError::Removed { .. } => ReadFailure::Closed,
        // The engine may find more reasons to fail: each has its own words.
        error @ (ReadError::Io { .. } | _) => ReadFailure::Failed(error.to_string()),
    }
}

impl LogView for RunningLog {
    fn start(&self) -> Offset {
        self.0.start()
    }

    fn high_watermark(&self) -> Offset {
        self.0.end()
    }

    fn read(&self, from: Offset, bytes_max: usize) -> Result<ReadBatches, ReadFailure> {
        let read = self.0.read(from, bytes_max).map_err(read_failure)?;
        Ok(ReadBatches { batches: read.batches, next: read.next })
    }

    fn offset_at(&self, time: TimestampMs) -> Result<Offset, ReadFailure> {
        let found = self.0.offset_at_time(time).map_err(read_failure)?;
        Ok(found.map_or_else(|| self.0.end(), |(offset, _)| offset))
    }

    fn chain_at(&self, offset: Offset) -> Result<Chain, ReadFailure> {
        self.0.chain_at(offset).map_err(read_failure)
    }

    fn end_and_chain(&self) -> (Offset, Chain) {
        self.0.end_and_chain()
    }

    fn damaged(&self) -> Vec<Range<Offset>> {
        self.0.damage()
    }

    fn past(&self, offset: Offset) -> Later<()> {
        let (wake, woken) = oneshot::channel();
        let callback = Box::new(move || {
            // Whoever waited may have gone.
            wake.send(()).unwrap_or_default();
        });
        let subscription = self.0.on_advance(offset, callback);
        Box::pin(async move {
            drop(woken.await);
            drop(subscription);
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use tidelog_wire::ids::Partition;

    use super::*;

    /// Story: what the disk refused in one range, and a reader whose log had been opened again, were both "reading failed"
    /// to a client. It asked no other replica for the one, and gave up over the other, which passes by itself.
    #[test]
    fn each_reason_why_a_read_fails_stays_itself() {
        let log = LogId { generation: Generation(1), partition: Partition(0) };
        let range = Offset(3)..Offset(7);
        let path = std::path::PathBuf::from("/data/logs/1/0/0.seg");
        let said = "input/output error".to_owned();
        let unreadable = ReadError::Unreadable { log, range: range.clone(), path: path.clone(), said };
        let said = "/data/logs/1/0/0.seg: input/output error".to_owned();
        assert_eq!(read_failure(unreadable), ReadFailure::Unreadable { range: range.clone(), said });
        assert_eq!(read_failure(ReadError::Reopened { log }), ReadFailure::Reopened);
        assert_eq!(read_failure(ReadError::Removed { log }), ReadFailure::Closed);
        let damaged = ReadError::Damaged { log, range: range.clone() };
        assert_eq!(read_failure(damaged), ReadFailure::Damaged { range });
        let refused = ReadError::Io { path, action: "open", source: ErrorKind::PermissionDenied.into() };
        assert!(matches!(read_failure(refused), ReadFailure::Failed(said) if said.starts_with("E0111")));
    }
}
