//! Keeps this node in the catalogue: who it is, where it is, in which life. And notices when it is not wanted as it is.
//!
//! A task compares the catalogue with the node's own record. While they differ it has the record entered:
//! - A node that the catalogue knows in this life, or waits for since the beginning, **registers**.
//! - Any other, and one that has no catalogue, **joins**. It is told its replica of the meta group, which it begins blank;
//!   the rest follows from the catalogue that comes with it (`super::membership`).
//!
//! What the leader answers is also evidence. If a newer start of this node is known, or another data directory, this one
//! is an old copy or was wiped: it must give up what it promised and begin a **new life**. The same goes for one that has
//! forgotten its replicas, as soon as any answer shows that a quorum lives. The task says so, and whoever runs the
//! node starts it again as [`Start::Rejoin`](super::Start::Rejoin). A life that was ended for ever is not begun again without a word of a person.
//!
//! Not here: what the catalogue makes of the record (`crate::apply`).

use std::sync::Arc;
use std::time::Duration;

use tidelog_wire::ids::{GroupId, Incarnation, NodeId, ReplicaId};
use tokio::sync::Mutex;

use super::asks::{Asked, ask_leader};
use super::config::GivenUp;
use super::handle::NodeHandle;
use super::membership::is_forgetful;
use super::replicas::{Begin, Replicas};
use crate::apply::Catalogue;
use crate::apply::group_placement::UNBOUND;
use crate::entry::{MetaCommand, NodeRecord};

/// How often this node's replica of the meta group is looked at when nothing happens.
const IDLE: Duration = Duration::from_secs(1);
/// First and longest pause after an attempt.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Why a node should be started anew, and what it gives up then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLife {
    /// What is given up.
    pub given_up: GivenUp,
    /// The evidence.
    pub why: String,
}

/// A node that wants to be known.
pub(super) struct Registration {
    pub(super) node: NodeHandle,
    pub(super) replicas: Arc<Mutex<Replicas>>,
    pub(super) record: NodeRecord,
    /// Why it must begin a new life, once somebody is there to take it in.
    pub(super) forgotten: Option<String>,
}

impl Registration {
    /// Works until the node stops, or must begin a new life.
    pub(super) async fn keep(self) {
        let mut catalogue = self.node.watch_catalogue();
        let mut stopping = self.node.watch_stopping();
        let mut told = String::new();
        let mut pause = PAUSE.0;
        loop {
            let known = catalogue.borrow_and_update().node(self.record.node) == Some(&self.record);
            let step = async {
                if known && self.forgotten.is_none() && self.lost_meta().is_none() {
                    tokio::select! {
                        // The catalogue lives as long as the node.
                        changed = catalogue.changed() => if changed.is_err() {
                            std::future::pending::<()>().await;
                        },
                        () = tokio::time::sleep(IDLE) => {}
                    }
                    return None;
                }
                let outcome = self.attempt().await;
                if let Err(reason) = &outcome
                    && *reason != told
                {
                    tracing::warn!("this node is not in the catalogue yet: {reason}; it goes on trying");
                    told.clone_from(reason);
                }
                // What was entered has to arrive here as an applied entry, too.
                tokio::time::sleep(pause).await;
                Some(outcome.is_ok())
            };
            let entered = tokio::select! {
                entered = step => entered,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            pause = match entered {
                Some(false) => pause.saturating_mul(2).min(PAUSE.1),
                Some(true) | None => PAUSE.0,
            };
            if self.node.new_life().is_some() {
                return;
            }
        }
    }

    /// One attempt; why it did not succeed.
    async fn attempt(&self) -> Result<(), String> {
        let record = self.record.clone();
        let joins = joins(&self.node.catalogue(), &record);
        let command = if joins { MetaCommand::JoinNode(record) } else { MetaCommand::RegisterNode(record) };
        if let Some(why) = &self.forgotten {
            return self.begin_anew(command, why).await;
        }
        if let Some(lost) = self.lost_meta() {
            return self.replace_meta(lost).await;
        }
        match ask_leader(&self.node, command).await {
            Asked::Done(Some(replica)) if joins => self.begin_meta(replica).await,
            Asked::Done(_) => Ok(()),
            Asked::Stale(why) => {
                let why = format!(
                    "E1126 what this directory holds is not what the cluster knows of this node: {why}"
                );
                self.node.demand(NewLife { given_up: GivenUp::Promises, why });
                Ok(())
            }
            Asked::NotLeader(_) => Err("no leader of the meta group can be reached".to_owned()),
            Asked::Retired(reason) => Err(format!(
                "E1127 {reason}: this data directory was given up for ever; stop the node, or start it once with `tidelogd \
                 --rejoin`, which sets aside what it holds and lets it join anew"
            )),
            Asked::Refused(reason) | Asked::NotNow(reason) => Err(reason),
        }
    }

    /// Any answer of a leader shows that the others can take this node in again.
    async fn begin_anew(&self, command: MetaCommand, why: &str) -> Result<(), String> {
        match ask_leader(&self.node, command).await {
            Asked::Done(_) | Asked::Stale(_) | Asked::Retired(_) | Asked::Refused(_) => {
                self.node.demand(NewLife { given_up: GivenUp::Promises, why: why.to_owned() });
                Ok(())
            }
            Asked::NotLeader(_) => Err("no leader of the meta group can be reached".to_owned()),
            Asked::NotNow(reason) => Err(reason),
        }
    }

    /// This node's replica of the meta group, if it cannot vouch for its log. Without it the node does not learn what the
    /// catalogue gives it, so its successor is begun here.
    fn lost_meta(&self) -> Option<ReplicaId> {
        let shown = self.node.status(GroupId::META)?;
        shown.halted.as_ref().is_some_and(is_forgetful).then_some(shown.replica)
    }

    async fn replace_meta(&self, lost: ReplicaId) -> Result<(), String> {
        let command = MetaCommand::ReplaceReplica { group: GroupId::META, lost };
        let asked = ask_leader(&self.node, command).await;
        if let Asked::Done(Some(successor)) = asked
            && successor > lost
        {
            return self.begin_meta(successor).await;
        }
        Err(format!("its replica of the meta group has no successor yet: {asked:?}"))
    }

    /// Begins this node's replica of the meta group, unless it is there.
    async fn begin_meta(&self, replica: ReplicaId) -> Result<(), String> {
        match self.node.status(GroupId::META) {
            Some(shown) if shown.replica >= replica => Ok(()),
            Some(_) | None => self.replicas.lock().await.begin(GroupId::META, replica, Begin::Blank).await,
        }
    }
}

/// Whether the node has to join: nobody, as far as is known here, waits for it in this life.
fn joins(catalogue: &Catalogue, record: &NodeRecord) -> bool {
    let known = catalogue.member(record.node).map(|known| known.incarnation);
    known.is_none_or(|known| known != record.incarnation && known != UNBOUND)
}

/// The replica of the meta group that a node has just been given, as soon as it shows here.
pub(super) async fn seat_of(
    node: &NodeHandle,
    asking: NodeId,
    incarnation: Incarnation,
) -> Option<ReplicaId> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let mut catalogue = node.watch_catalogue();
    let seat = |catalogue: &Catalogue| catalogue.replica_on(GroupId::META, asking, incarnation);
    let there = catalogue.wait_for(|catalogue| seat(catalogue).is_some());
    let there = tokio::time::timeout(PATIENCE, there).await.ok()?.ok()?;
    seat(&there)
}
