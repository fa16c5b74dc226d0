//! Keeps this node in the catalogue: who it is, where it is, in which life.
//!
//! A task compares the catalogue with the node's own record. While they differ it proposes the record
//! if it leads the meta group, and else asks the leader to. It ends when the node stops.
//!
//! Not here: what the catalogue makes of the record (`crate::apply`).

use std::time::Duration;

use tidelog_wire::ids::GroupId;

use super::handle::NodeHandle;
use super::peers::register_request;
use crate::entry::{Command, MetaCommand, NodeRecord};
use crate::outcome::Outcome;
use crate::transport::Transport;

/// Pause after an attempt that did not succeed.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Registers `record` until the node stops.
pub(super) async fn keep_registered(node: NodeHandle, transport: Option<Transport>, record: NodeRecord) {
    let mut catalogue = node.watch_catalogue();
    let mut stopping = node.watch_stopping();
    let mut told = String::new();
    loop {
        let known = catalogue.borrow_and_update().node(record.node) == Some(&record);
        let step = async {
            if known {
                // The catalogue lives as long as the node.
                if catalogue.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            } else {
                if let Err(reason) = attempt(&node, transport.as_ref(), &record).await
                    && reason != told
                {
                    tracing::warn!("this node is not in the catalogue yet: {reason}; it goes on trying");
                    told = reason;
                }
                // What was entered has to arrive here as an applied entry, too.
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = step => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
    }
}

async fn attempt(
    node: &NodeHandle,
    transport: Option<&Transport>,
    record: &NodeRecord,
) -> Result<(), String> {
    match (node.leader(GroupId::META), transport) {
        (Some(leader), _) if leader == node.identity().node => {
            let command = Command::Meta(MetaCommand::RegisterNode(record.clone()));
            match node.submit(GroupId::META, command, PATIENCE).await {
                Ok(Outcome::Refused(refusal)) => Err(refusal.to_string()),
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        }
        (Some(leader), Some(transport)) => {
            let request = register_request(record.clone());
            match tokio::time::timeout(PATIENCE, transport.ask(leader, request)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            }
        }
        (Some(_), None) | (None, _) => Err("no leader of the meta group can be reached".to_owned()),
    }
}
