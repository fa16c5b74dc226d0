//! `tidelog cluster`: the cluster's members, and what a person may want of them.
//!
//! What is asked for is agreed on by the meta group and then goes on by itself, step by step, whoever crashes meanwhile. So a
//! command that waits may be interrupted and called again: it takes up where things are. What is unsafe is refused by the nodes,
//! with the reason, before anything is changed.
//!
//! | file | does |
//! |---|---|
//! | `status` | shows nodes, groups, and what is under way |
//! | `members` | adds, removes and replaces nodes; for nodes of this machine, their processes too |
//! | `balance` | hands leadership over, spreads replicas |
//! | `compare` | proves replicas equal |
//! | `recover` | a node alone whose raft log is lost |
//! | `settle` | waits until what was agreed on is so |

pub(crate) mod arguments;
mod balance;
mod compare;
mod members;
mod recover;
mod settle;
mod status;

use std::path::Path;

use arguments::Cluster;

use crate::error::CliError;
use crate::online::{self, Patience};
use crate::output::Output;

/// Does what is asked for.
pub(crate) async fn run(cluster: Cluster, profile: Option<&Path>, output: &Output) -> Result<(), CliError> {
    let online = |patience| online::connect(profile, patience);
    match cluster {
        Cluster::Status => status::run(&online(Patience::Look)?, output).await,
        Cluster::AddNode(add) => Box::pin(members::add(add, profile, output)).await,
        Cluster::RemoveNode(remove) => Box::pin(members::remove(remove, profile, output)).await,
        Cluster::ReplaceNode(replace) => Box::pin(members::replace(replace, profile, output)).await,
        Cluster::TransferLeader(transfer) => {
            balance::transfer(&transfer, &online(Patience::Work)?, output).await
        }
        Cluster::Rebalance { dry_run } => balance::rebalance(dry_run, &online(Patience::Work)?, output).await,
        Cluster::Recover(recover) => recover::run(&recover, output),
        Cluster::Compare(compare) if !compare.data_dirs.is_empty() => {
            compare::offline(&compare.data_dirs, output)
        }
        Cluster::Compare(compare) => {
            let channel = compare.channel.as_ref().map(crate::values::ChannelName::as_str);
            compare::online(&online(Patience::Look)?, channel, output).await
        }
    }
}
