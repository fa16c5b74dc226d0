//! Keeps this node in the catalogue: who it is, where it is, in which life.
//!
//! A task compares the catalogue with the node's own record. While they differ it proposes the record
//! if it leads the meta group, and else asks the leader to. It ends when the node stops.
//!
//! Not here: what the catalogue makes of the record (`crate::apply`).

use std::time::Duration;

use super::asks::{Asked, ask_leader};
use super::handle::NodeHandle;
use crate::entry::{MetaCommand, NodeRecord};

/// Pause after an attempt that did not succeed.
const PAUSE: Duration = Duration::from_millis(100);

/// Registers `record` until the node stops.
pub(super) async fn keep_registered(node: NodeHandle, record: NodeRecord) {
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
                let asked = ask_leader(&node, MetaCommand::RegisterNode(record.clone())).await;
                let reason = match asked {
                    Asked::Done => String::new(),
                    Asked::NotLeader(_) => "no leader of the meta group can be reached".to_owned(),
                    Asked::Refused(reason) | Asked::Stale(reason) | Asked::NotNow(reason) => reason,
                };
                if !reason.is_empty() && reason != told {
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
