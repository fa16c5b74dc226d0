//! Members of the cluster: nodes that are to leave, and how replicas and leaders are spread.
//!
//! The broker says what is wanted, by one entry in the meta group, and answers when that is agreed on. The rest goes on by
//! itself. What is unsafe is refused before anything is proposed, since only here it is known which nodes can be heard.
#![expect(clippy::wildcard_enum_match_arm, reason = "an outcome of another kind of request is one case")]

use std::sync::Arc;
use std::time::Duration;

use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::entry::MetaCommand;
use tidelog_consensus::outcome::Outcome;
use tidelog_consensus::placement;
use tidelog_wire::ids::{GroupId, NodeId};

use super::channels::unexpected;
use super::{Broker, BrokerError};

/// How long a question about the cluster waits for a majority of the meta group.
const CURRENT_PATIENCE: Duration = Duration::from_secs(1);

/// Who leads a group, and who should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderMove {
    /// The group.
    pub group: GroupId,
    /// The node that leads it.
    pub from: NodeId,
    /// The node that should.
    pub to: NodeId,
}

/// What would spread replicas and leaders evenly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The moves of replicas that the cluster makes by itself, in words.
    pub replicas: Vec<String>,
    /// Groups that this node has a replica of and another node should lead.
    pub leaders: Vec<LeaderMove>,
}

impl Broker {
    /// What the cluster should look like, and whether that is all that was agreed on before the call: without a majority
    /// of the meta group, and on a node that is no member any more, it is what was applied here last.
    ///
    /// # Errors
    /// [`BrokerError::NotReady`] before consensus has started.
    pub async fn placement(&self) -> Result<(Arc<Catalogue>, bool), BrokerError> {
        let consensus = Arc::clone(self.open()?);
        let within = CURRENT_PATIENCE.min(self.limits.request);
        let current = consensus.read_barrier(GroupId::META, within).await.is_ok();
        Ok((consensus.catalogue(), current))
    }

    /// Makes `node` hand on all that it holds. Answered when that is agreed on.
    ///
    /// # Errors
    /// [`BrokerError::Unsafe`] with the reason; all others as any request to the meta group.
    pub async fn drain_node(&self, node: NodeId) -> Result<(), BrokerError> {
        let consensus = Arc::clone(self.open()?);
        self.lead(consensus.as_ref(), GroupId::META)?;
        let catalogue = consensus.catalogue();
        if let Some(reason) = placement::refuse_removal(&catalogue, node, &consensus.alive()) {
            return Err(BrokerError::Unsafe { node, reason: reason.to_string() });
        }
        self.noted(node, MetaCommand::DrainNode { node }).await
    }

    /// Ends the membership of `node`, which must hold nothing any more.
    ///
    /// # Errors
    /// As [`Broker::drain_node`].
    pub async fn forget_node(&self, node: NodeId) -> Result<(), BrokerError> {
        self.noted(node, MetaCommand::ForgetNode { node }).await
    }

    /// What would spread replicas and leaders evenly, as far as this node, which must lead the meta group, can tell.
    ///
    /// # Errors
    /// [`BrokerError::NotLeader`], [`BrokerError::NoQuorum`], [`BrokerError::NotReady`].
    pub fn balance(&self) -> Result<Balance, BrokerError> {
        let consensus = self.open()?;
        self.lead(consensus.as_ref(), GroupId::META)?;
        let (catalogue, groups) = (consensus.catalogue(), consensus.groups());
        let alive = consensus.alive();
        let leaders = groups.iter().filter_map(|status| {
            let (from, to) = (status.leader?, placement::preferred_leader(&catalogue, status.group)?);
            (from != to && alive.contains(&to)).then_some(LeaderMove { group: status.group, from, to })
        });
        Ok(Balance { leaders: leaders.collect(), replicas: placement::rebalance(&catalogue, &alive) })
    }

    /// Hands over at once what this node leads and should not. Replicas move by themselves, and other leaders hand over in
    /// their own time.
    ///
    /// # Errors
    /// [`BrokerError`] of the first hand-over that failed; those before it are done.
    pub async fn rebalance(&self, balance: &Balance) -> Result<(), BrokerError> {
        let consensus = Arc::clone(self.open()?);
        for moved in balance.leaders.iter().filter(|moved| moved.from == self.node) {
            let transferred = consensus.transfer(moved.group, moved.to, self.limits.request);
            transferred.await.map_err(|error| BrokerError::of_submit(moved.group, error))?;
        }
        Ok(())
    }

    async fn noted(&self, node: NodeId, command: MetaCommand) -> Result<(), BrokerError> {
        match self.meta(command).await? {
            Outcome::Noted => Ok(()),
            Outcome::Refused(refusal) => Err(BrokerError::Unsafe { node, reason: refusal.to_string() }),
            other => Err(unexpected(&other)),
        }
    }
}
