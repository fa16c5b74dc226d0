//! Readiness, and the views of node and cluster that operators and clients ask for.

use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use tidelog_consensus::core::{GroupStatus, Role};
use tidelog_consensus::entry::NodeRecord;
use tidelog_consensus::metrics::RecoveryProgress;
use tidelog_wire::ids::{
    Chain, ClusterId, Generation, GroupId, LogId, NodeId, Offset, RaftIndex, ReplicaId, Term,
};

use super::{Broker, BrokerError, ChannelStage, ChannelView, Consensus, NodeIdentity};

/// How far a node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It opens its data directory and recovers its files.
    Recovering,
    /// It recovered, and some group has no leader yet, some replica does not run, or the others do not know of it.
    Joining,
    /// It serves.
    Serving,
    /// It was told to stop.
    Stopping,
}

/// Whether a node serves, and what is missing if not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether it serves.
    pub ready: bool,
    /// How far it has come.
    pub stage: Stage,
    /// Replicas of this node.
    pub groups: usize,
    /// Groups of which it knows the leader.
    pub groups_with_leader: usize,
    /// Groups of which it knows no leader.
    pub waiting_for_leader: Vec<GroupId>,
    /// Replicas that do not take part, and why.
    pub halted: Vec<HaltedReplica>,
    /// Whether the catalogue knows this start of the node, so that clients can find it.
    pub registered: bool,
    /// Entries that are committed and not yet applied here, of all groups together.
    pub entries_to_apply: u64,
    /// How far the recovery of this node's own files has come.
    pub recovery: Recovery,
    /// What recovery found and did.
    pub recovery_notes: Vec<String>,
}

/// How far the recovery of a node's own files has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Groups whose log and state are back.
    pub groups_done: u64,
    /// Groups of this node; 0 until that is known.
    pub groups: u64,
    /// Logs opened, or that could not be.
    pub logs_done: u64,
    /// Logs to open, of the groups begun so far.
    pub logs: u64,
    /// Segments of the logs opened.
    pub segments: u64,
    /// Bytes of tails that were verified.
    pub bytes_walked: u64,
}

impl From<RecoveryProgress> for Recovery {
    fn from(progress: RecoveryProgress) -> Self {
        let RecoveryProgress { groups_done, groups, opening } = progress;
        Self {
            groups_done,
            groups,
            logs_done: opening.logs_done,
            logs: opening.logs,
            segments: opening.segments,
            bytes_walked: opening.bytes_walked,
        }
    }
}

/// A replica that does not take part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HaltedReplica {
    /// Its group.
    pub group: GroupId,
    /// Itself.
    pub replica: ReplicaId,
    /// Why: begins with an error code.
    pub reason: String,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterView {
    /// Which cluster.
    pub cluster_id: ClusterId,
    /// Who answers.
    pub node: NodeId,
    /// All nodes.
    pub nodes: Vec<NodeView>,
    /// The groups that this node has a replica of.
    pub groups: Vec<GroupView>,
    /// All channels.
    pub channels: Vec<ChannelSummary>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its number.
    pub id: NodeId,
    /// Where it serves native clients.
    pub native: String,
    /// Where it serves Kafka clients.
    pub kafka: Option<String>,
    /// Where it serves admin HTTP.
    pub admin: String,
    /// Its release.
    pub version: String,
}

/// A replica of this node, and what it knows of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// The group.
    pub id: GroupId,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// The replica.
    pub replica: ReplicaId,
    /// What it does.
    pub role: &'static str,
    /// Its term.
    pub term: Term,
    /// Known committed.
    pub committed: RaftIndex,
    /// Applied here.
    pub applied: RaftIndex,
    /// Newest entry here.
    pub last: RaftIndex,
    /// The other members, if this one leads.
    pub peers: Vec<PeerView>,
}

/// Another member of a group, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerView {
    /// Its node.
    pub node: NodeId,
    /// Itself.
    pub replica_id: ReplicaId,
    /// Durable there up to here.
    pub match_index: RaftIndex,
    /// Whether it was heard of lately.
    pub active: bool,
}

/// A channel in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelSummary {
    /// Its name.
    pub name: String,
    /// Its generation.
    pub generation: Generation,
    /// How far its life has come.
    pub state: &'static str,
    /// Its partitions.
    pub partitions: Vec<PartitionView>,
}

/// A partition as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionView {
    /// Its number.
    pub partition: u32,
    /// The group that carries it.
    pub group: GroupId,
    /// Who leads it.
    pub leader: Option<NodeId>,
    /// Oldest offset kept here.
    pub log_start: Option<Offset>,
    /// First offset not committed and applied here.
    pub high_watermark: Option<Offset>,
}

/// A log of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStanding {
    /// The log.
    pub log: LogId,
    /// The group that carries it.
    pub group: GroupId,
    /// Oldest offset kept.
    pub start: Offset,
    /// First offset not committed and applied here.
    pub end: Offset,
    /// The chain of everything before `end`.
    pub chain: Chain,
    /// Ranges that cannot be served here.
    pub damaged: Vec<Range<Offset>>,
}

/// The name of a role, as people and tools read it.
#[must_use]
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre_candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
        Role::Removed => "removed",
        Role::Halted => "halted",
    }
}

impl Broker {
    /// Whether this node serves: it knows the leader of every group, each of its replicas runs, and clients can find it.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let consensus = self.consensus.get();
        let groups = consensus.map(|consensus| consensus.groups()).unwrap_or_default();
        let waiting_for_leader: Vec<_> =
            groups.iter().filter(|status| status.leader.is_none()).map(|status| status.group).collect();
        let halted: Vec<_> = groups.iter().filter_map(halted).collect();
        let registered = consensus.is_some_and(|consensus| is_registered(consensus.as_ref()));
        let stage = if self.is_stopping() {
            Stage::Stopping
        } else if groups.is_empty() {
            Stage::Recovering
        } else if waiting_for_leader.is_empty() && halted.is_empty() && registered {
            Stage::Serving
        } else {
            Stage::Joining
        };
        Readiness {
            ready: stage == Stage::Serving,
            stage,
            groups: groups.len(),
            groups_with_leader: groups.len() - waiting_for_leader.len(),
            waiting_for_leader,
            halted,
            registered,
            entries_to_apply: groups.iter().map(lag).sum(),
            recovery: self.metrics.recovery().into(),
            recovery_notes: consensus.map(|consensus| consensus.recovery_notes()).unwrap_or_default(),
        }
    }

    /// Every replica of this node; none before consensus has started.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        self.consensus.get().map(|consensus| consensus.groups()).unwrap_or_default()
    }

    /// The nodes and channels of the catalogue, and who leads each group.
    ///
    /// # Errors
    /// [`BrokerError::NotReady`] before consensus has started.
    pub fn catalogue(&self) -> Result<(Vec<NodeRecord>, Vec<ChannelView>, Leaders), BrokerError> {
        let consensus = self.open()?;
        let (nodes, channels) = (consensus.nodes(), consensus.channels());
        Ok((nodes, channels, Leaders { consensus: Arc::clone(consensus) }))
    }

    /// Every log of this node. Reads the disk.
    ///
    /// # Errors
    /// [`BrokerError::NotReady`] before consensus has started.
    pub async fn log_standings(&self) -> Result<Vec<LogStanding>, BrokerError> {
        let consensus = Arc::clone(self.open()?);
        let read = tokio::task::spawn_blocking(move || standings(consensus.as_ref())).await;
        read.map_err(|error| BrokerError::NotReady { what: format!("the view of the logs ({error})") })
    }

    /// The cluster as this node sees it; `None` before consensus has started.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterView> {
        let consensus = self.consensus.get()?;
        Some(ClusterView {
            cluster_id: consensus.identity().cluster,
            node: self.node,
            nodes: consensus.nodes().into_iter().map(node_view).collect(),
            groups: consensus.groups().iter().map(group_view).collect(),
            channels: consensus
                .channels()
                .iter()
                .map(|channel| summary(consensus.as_ref(), channel))
                .collect(),
        })
    }
}

/// Who leads each group, and who belongs to it.
pub struct Leaders {
    consensus: Arc<dyn Consensus>,
}

impl Leaders {
    /// The node that leads `group`, if known.
    #[must_use]
    pub fn of(&self, group: GroupId) -> Option<NodeId> {
        self.consensus.leader(group)
    }

    /// The nodes that have a replica of `group`.
    #[must_use]
    pub fn members(&self, group: GroupId) -> Vec<NodeId> {
        self.consensus.members(group)
    }
}

impl std::fmt::Debug for Leaders {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Leaders")
    }
}

/// Whether the catalogue knows this start of this node.
fn is_registered(consensus: &dyn Consensus) -> bool {
    let NodeIdentity { node, incarnation, boot_epoch, .. } = consensus.identity();
    consensus.nodes().iter().any(|record| {
        record.node == node && record.incarnation == incarnation && record.boot_epoch == boot_epoch
    })
}

fn lag(status: &GroupStatus) -> u64 {
    status.committed.get().saturating_sub(status.applied.get())
}

fn halted(status: &GroupStatus) -> Option<HaltedReplica> {
    let reason = status.halted.as_ref()?.to_string();
    Some(HaltedReplica { group: status.group, replica: status.replica, reason })
}

fn node_view(record: NodeRecord) -> NodeView {
    NodeView {
        id: record.node,
        native: record.native,
        kafka: record.kafka,
        admin: record.admin,
        version: record.version,
    }
}

fn group_view(status: &GroupStatus) -> GroupView {
    let peers = status.peers.iter().map(|peer| PeerView {
        node: peer.node,
        replica_id: peer.replica,
        match_index: peer.matched,
        active: peer.active,
    });
    GroupView {
        id: status.group,
        leader: status.leader,
        replica: status.replica,
        role: role_name(status.role),
        term: status.term,
        committed: status.committed,
        applied: status.applied,
        last: status.last,
        peers: peers.collect(),
    }
}

fn summary(consensus: &dyn Consensus, channel: &ChannelView) -> ChannelSummary {
    let partitions = channel.partitions().map(|(log, group)| {
        let view = consensus.log(log);
        PartitionView {
            partition: log.partition.get(),
            group,
            leader: consensus.leader(group),
            log_start: view.as_ref().map(|view| view.start()),
            high_watermark: view.as_ref().map(|view| view.high_watermark()),
        }
    });
    ChannelSummary {
        name: channel.name.clone(),
        generation: channel.generation,
        state: match channel.stage {
            ChannelStage::Creating => "creating",
            ChannelStage::Active => "active",
            ChannelStage::Deleting => "deleting",
        },
        partitions: partitions.collect(),
    }
}

fn standings(consensus: &dyn Consensus) -> Vec<LogStanding> {
    let channels = consensus.channels();
    let logs = channels.iter().flat_map(ChannelView::partitions);
    logs.filter_map(|(log, group)| {
        let view = consensus.log(log)?;
        let (end, chain) = view.end_and_chain();
        Some(LogStanding { log, group, start: view.start(), end, chain, damaged: view.damaged() })
    })
    .collect()
}
