//! What the broker needs of consensus: one trait, small enough to be played by a few lines in a test.
//!
//! [`Consensus::submit`] takes a command **before it returns**, so that commands submitted one after the other are
//! proposed in that order, however late their answers are awaited. [`LogView::past`] and
//! [`Consensus::catalogue_change`] watch from the moment they are called, not from when they are first polled: call
//! them, look, then wait, and no change is missed.
//!
//! Not here: how it is done (`crate::server`).

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::core::GroupStatus;
use tidelog_consensus::entry::{Command, NodeRecord};
use tidelog_consensus::outcome::Outcome;
use tidelog_wire::ids::{
    BootEpoch, Chain, ChannelUuid, ClusterId, Generation, GroupId, Incarnation, LogId, NodeId, Offset,
    Partition, TimestampMs,
};

/// A result that comes later.
pub type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Consensus, as the broker sees it.
pub trait Consensus: Send + Sync + 'static {
    /// Who this node is.
    fn identity(&self) -> NodeIdentity;
    /// The node that leads `group`, if known.
    fn leader(&self, group: GroupId) -> Option<NodeId>;
    /// Ends once another node leads `group` than is known at the call, as far as is known here.
    fn leader_change(&self, group: GroupId) -> Later<()>;
    /// Whether this node leads `group` **and** has applied all that was acknowledged before it led.
    fn serves(&self, group: GroupId) -> bool;
    /// The nodes that have a replica of `group`.
    fn members(&self, group: GroupId) -> Vec<NodeId>;
    /// Proposes `command` to `group`, in the order of calls, and gives its outcome once it is applied here. Answers
    /// within `within`.
    fn submit(
        &self,
        group: GroupId,
        command: Command,
        within: Duration,
    ) -> Later<Result<Outcome, SubmitError>>;
    /// Ends once everything that was acknowledged in `group` before the call is applied here.
    fn read_barrier(&self, group: GroupId, within: Duration) -> Later<Result<(), SubmitError>>;
    /// Where the catalogue, as applied here, places a log.
    fn place(&self, log: LogId) -> Place;
    /// The channel of this name that is being created, active or being deleted.
    fn channel(&self, name: &str) -> Option<ChannelView>;
    /// All channels, by name.
    fn channels(&self) -> Vec<ChannelView>;
    /// All nodes that ever registered.
    fn nodes(&self) -> Vec<NodeRecord>;
    /// The nodes that this one has a connection to, and itself.
    fn alive(&self) -> BTreeSet<NodeId>;
    /// The catalogue, as applied here.
    fn catalogue(&self) -> Arc<Catalogue>;
    /// Ends at the next change of the catalogue after this call.
    fn catalogue_change(&self) -> Later<()>;
    /// The committed part of a log, if this node carries it.
    fn log(&self, log: LogId) -> Option<Arc<dyn LogView>>;
    /// The cursors of a log, as applied here, if this node carries it.
    fn cursors(&self, log: LogId) -> Option<BTreeMap<String, Offset>>;
    /// Every replica of this node.
    fn groups(&self) -> Vec<GroupStatus>;
    /// Asks the leader of `group`, if it is this node, to hand over to `to`.
    fn transfer(&self, group: GroupId, to: NodeId, within: Duration) -> Later<Result<(), SubmitError>>;
    /// Sends `payload` to another node and back; how long that took, or why it did not come back.
    fn echo(&self, peer: NodeId, payload: Bytes, within: Duration) -> Later<Result<Duration, String>>;
    /// What recovery found and did, one line each.
    fn recovery_notes(&self) -> Vec<String>;
}

/// The committed batches of one log.
pub trait LogView: Send + Sync + 'static {
    /// Oldest offset kept.
    fn start(&self) -> Offset;
    /// First offset that is not committed and applied here.
    fn high_watermark(&self) -> Offset;
    /// Whole batches from the one that holds `from`, below the high watermark: at most `bytes_max`, but at least one
    /// if there is one. May read the disk: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`ReadFailure`]; nothing was read.
    fn read(&self, from: Offset, bytes_max: usize) -> Result<ReadBatches, ReadFailure>;
    /// The first offset of a batch with a record of `time` or later; the high watermark if there is none. May read
    /// the disk.
    ///
    /// # Errors
    /// [`ReadFailure`].
    fn offset_at(&self, time: TimestampMs) -> Result<Offset, ReadFailure>;
    /// The chain of everything before `offset`, which must be the end of a batch. May read the disk.
    ///
    /// # Errors
    /// [`ReadFailure`].
    fn chain_at(&self, offset: Offset) -> Result<Chain, ReadFailure>;
    /// The high watermark and the chain of everything before it, taken at one moment.
    fn end_and_chain(&self) -> (Offset, Chain);
    /// Ranges that this replica cannot serve.
    fn damaged(&self) -> Vec<Range<Offset>>;
    /// Ends once the high watermark is above `offset`, or the log is closed.
    fn past(&self, offset: Offset) -> Later<()>;
}

/// What a read gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadBatches {
    /// In order.
    pub batches: Vec<Bytes>,
    /// Where to go on.
    pub next: Offset,
}

/// Why a log could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    /// Outside of what is kept.
    OutOfRange {
        /// Oldest offset kept.
        start: Offset,
        /// The high watermark.
        end: Offset,
    },
    /// In a range that this replica cannot serve.
    Damaged {
        /// The range.
        range: Range<Offset>,
    },
    /// In a range that the disk refuses to give. It may give it again.
    Unreadable {
        /// The range.
        range: Range<Offset>,
        /// What the engine says: file, and the system's words.
        said: String,
    },
    /// The log was opened again behind this view, as when the replica switched to a snapshot: the next view reads on.
    Reopened,
    /// Inside of a batch, where only its ends have a chain.
    InsideBatch {
        /// The batch.
        batch: Range<Offset>,
    },
    /// The log is closed.
    Closed,
    /// The disk failed, in its words.
    Failed(String),
}

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// The formatting of its data directory.
    pub incarnation: Incarnation,
    /// Its start.
    pub boot_epoch: BootEpoch,
}

/// Where the catalogue places a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this group.
    Group(GroupId),
    /// Its channel is being created: shortly in this group.
    Opening(GroupId),
    /// Its channel is being deleted.
    Closing,
    /// The channel has no such partition.
    NoPartition {
        /// How many it has.
        partitions: u32,
    },
    /// No channel has, or no longer has, this generation.
    Gone {
        /// The generation that now bears the name it had, if that is known.
        current: Option<Generation>,
    },
}

/// A life of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// Its name.
    pub name: String,
    /// Its number.
    pub generation: Generation,
    /// Its other name.
    pub uuid: ChannelUuid,
    /// How far its life has come.
    pub stage: ChannelStage,
    /// Copies of each log.
    pub replicas: u32,
    /// Size at which segments are sealed.
    pub segment_bytes: u64,
    /// The group of each partition, in order.
    pub groups: Vec<GroupId>,
}

impl ChannelView {
    /// Its partitions, with the log and group of each.
    pub fn partitions(&self) -> impl Iterator<Item = (LogId, GroupId)> + '_ {
        (0..).zip(&self.groups).map(|(partition, group)| {
            (LogId { generation: self.generation, partition: Partition(partition) }, *group)
        })
    }
}

/// How far a channel's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelStage {
    /// Its logs are being opened.
    Creating,
    /// In use.
    Active,
    /// Its logs are being closed.
    Deleting,
}

/// Why a command was not applied, as far as is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// Another node leads, or none does. It will never be applied.
    NotLeader {
        /// Where to try.
        leader: Option<NodeId>,
    },
    /// Another entry took its place. It will never be applied.
    Superseded,
    /// A limit is reached. It will never be applied.
    Busy {
        /// Worth trying again after this time.
        retry_after_ms: u32,
    },
    /// The group is not here or does not run, or its leader is new. It will never be applied.
    NotReady,
    /// Larger than any entry may be.
    TooLarge,
    /// A quorum has no room. It will never be applied.
    DiskFull,
    /// The node is stopping. It will never be applied.
    Stopping,
    /// Its time is over, or its fate can no longer be seen: it may or may not be applied.
    MayHaveCommitted,
}
