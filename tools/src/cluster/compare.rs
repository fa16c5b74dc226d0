//! `tidelog cluster compare`: proves that replicas hold the same, channel by channel.
//!
//! Equal chains at an equal offset mean equal histories. So for each log every replica is asked for its chain at one common
//! offset, the least of their ends; nothing is read from the disks, and nothing travels but numbers. Only histories can differ
//! in this: a replica that is behind lowers the offset, one that does not answer is named, and neither is a difference.
//!
//! Offline, the same is done over data directories, running nodes' or copies: where histories part, the place is found and named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tidelog_client::{Client, NodeStatus};
use tidelog_engine::offline::{self, LogFiles};
use tidelog_engine::os::OsStorage;
use tidelog_wire::ids::{Chain, LogId, NodeId, Offset};
use tidelog_wire::protocol::{ChannelInfo, PartitionInfo};
use tokio::task::JoinSet;

use crate::error::CliError;
use crate::output::{Answer, Output};
use crate::progress;
use crate::status::view::shown;

/// Questions for chains under way at a time.
const ASKED_MAX: usize = 64;

/// What was compared.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Compared {
    /// Logs of which all replicas hold the same.
    equal: usize,
    /// Histories that part.
    differ: Vec<Difference>,
    /// What could not be compared, and why.
    missing: Vec<Missing>,
}

/// A log whose replicas do not hold the same.
#[derive(Debug, Serialize)]
struct Difference {
    log: String,
    /// The offset at which chains were taken; offline, up to where the histories are equal.
    offset: Option<u64>,
    /// Each side with its chain; offline, with the place where it parts.
    sides: Vec<(String, String)>,
}

/// A replica that could not be compared.
#[derive(Debug, Serialize)]
struct Missing {
    log: String,
    side: String,
    why: String,
}

impl Answer for Compared {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        for difference in &self.differ {
            let at = difference.offset.map_or_else(|| "the first record".to_owned(), |at| at.to_string());
            lines.push(format!("log {}: DIFFERS at {at}", difference.log));
            lines.extend(difference.sides.iter().map(|(side, what)| format!("  {side}: {what}")));
        }
        for missing in &self.missing {
            lines.push(format!("log {}: not compared on {}: {}", missing.log, missing.side, missing.why));
        }
        lines.push(format!(
            "{} logs are equal on all their replicas, {} differ, {} replicas were not compared",
            self.equal,
            self.differ.len(),
            self.missing.len()
        ));
        lines.join("\n")
    }
}

impl Compared {
    /// Prints it; an error if anything differs, or if anything was not compared.
    fn verdict(self, output: &Output) -> Result<(), CliError> {
        output.print(&self);
        match (self.differ.len(), self.missing.len()) {
            (0, 0) => Ok(()),
            (0, logs) => Err(CliError::NotCompared { logs }),
            (logs, _) => Err(CliError::Differ { logs }),
        }
    }
}

/// Compares the replicas of a running cluster; of one channel, if named.
pub(crate) async fn online(client: &Client, channel: Option<&str>, output: &Output) -> Result<(), CliError> {
    let metadata = match channel {
        Some(name) => {
            client.channel(name).await?;
            client.metadata(Some(vec![name.to_owned()])).await?
        }
        None => client.metadata(None).await?,
    };
    let mut nodes = BTreeMap::new();
    for node in &metadata.nodes {
        nodes.insert(node.node, client.node_status(node.node, true).await);
    }
    let logs: usize = metadata.channels.iter().map(|channel| channel.partitions.len()).sum();
    let bar = progress::steps(logs, "comparing logs");
    let (mut compared, mut asked) = (Compared::default(), JoinSet::new());
    for (channel, partition) in partitions(&metadata.channels) {
        let name = format!("{}/{}", channel.name, partition.log.partition);
        let common = common(&name, partition, &nodes, &mut compared.missing);
        asked.spawn(chains(client.clone(), name, partition.log, common));
        if asked.len() >= ASKED_MAX
            && let Some(found) = asked.join_next().await
        {
            compared.add(found);
            bar.inc(1);
        }
    }
    while let Some(found) = asked.join_next().await {
        compared.add(found);
        bar.inc(1);
    }
    bar.finish_and_clear();
    compared.verdict(output)
}

fn partitions(channels: &[ChannelInfo]) -> impl Iterator<Item = (&ChannelInfo, &PartitionInfo)> {
    channels.iter().flat_map(|channel| channel.partitions.iter().map(move |partition| (channel, partition)))
}

/// The replicas that hold the log, and the least of their ends. Those that should hold it and do not say so go to `missing`.
fn common(
    name: &str,
    partition: &PartitionInfo,
    nodes: &BTreeMap<NodeId, Result<NodeStatus, tidelog_client::ClientError>>,
    missing: &mut Vec<Missing>,
) -> Vec<(NodeId, Offset)> {
    let mut ends = Vec::new();
    let mut sides: BTreeSet<NodeId> = partition.replicas.iter().copied().collect();
    sides.extend(nodes.keys().filter(|node| {
        let status = nodes.get(node).and_then(|status| status.as_ref().ok());
        status.is_some_and(|status| status.logs.iter().any(|info| info.log == partition.log))
    }));
    for node in sides {
        let why = match nodes.get(&node) {
            None => "the node is not known".to_owned(),
            Some(Err(error)) => error.to_string(),
            Some(Ok(status)) => match status.logs.iter().find(|info| info.log == partition.log) {
                Some(info) => {
                    ends.push((node, info.end));
                    continue;
                }
                None => "it does not hold the log (yet)".to_owned(),
            },
        };
        missing.push(Missing { log: name.to_owned(), side: format!("node {node}"), why });
    }
    let least = ends.iter().map(|(_, end)| *end).min().unwrap_or(Offset::ZERO);
    ends.into_iter().map(|(node, _)| (node, least)).collect()
}

/// What the replicas of one log answered.
struct Chains {
    name: String,
    offset: Option<Offset>,
    chains: Vec<(NodeId, Result<Chain, String>)>,
}

async fn chains(client: Client, name: String, log: LogId, replicas: Vec<(NodeId, Offset)>) -> Chains {
    let offset = replicas.first().map(|(_, offset)| *offset);
    let mut chains = Vec::with_capacity(replicas.len());
    for (node, offset) in replicas {
        let chain = client.chain_at(node, log, offset).await;
        chains.push((node, chain.map_err(|error| error.to_string())));
    }
    Chains { name, offset, chains }
}

impl Compared {
    fn add(&mut self, found: Result<Chains, tokio::task::JoinError>) {
        let Chains { name, offset, chains } = match found {
            Ok(chains) => chains,
            Err(error) => {
                let (log, side) = ("?".to_owned(), "?".to_owned());
                self.missing.push(Missing { log, side, why: error.to_string() });
                return;
            }
        };
        let told: Vec<_> = chains.iter().filter_map(|(_, chain)| chain.as_ref().ok()).collect();
        let differs = told.windows(2).any(|pair| matches!(pair, [one, other] if one != other));
        let all_told = told.len() == chains.len() && !told.is_empty();
        for (node, chain) in &chains {
            if let Err(why) = chain {
                let side = format!("node {node}");
                self.missing.push(Missing { log: name.clone(), side, why: why.clone() });
            }
        }
        if differs {
            let side = |(node, chain): &(NodeId, Result<Chain, String>)| {
                Some((format!("node {node}"), shown(*chain.as_ref().ok()?)))
            };
            let sides = chains.iter().filter_map(side).collect();
            self.differ.push(Difference { log: name, offset: offset.map(Offset::get), sides });
        } else if all_told {
            self.equal += 1;
        }
    }
}

/// Compares data directories, or copies of them. A log that only one of them holds is equal to itself: where replica
/// sets are smaller than the cluster, no directory has to hold all.
pub(crate) fn offline(dirs: &[PathBuf], output: &Output) -> Result<(), CliError> {
    let mut logs: BTreeMap<LogId, Vec<(&Path, LogFiles)>> = BTreeMap::new();
    for dir in dirs {
        for files in offline::find(&OsStorage, dir)?.logs {
            if let Some(log) = files.log {
                logs.entry(log).or_default().push((dir, files));
            }
        }
    }
    let bar = progress::steps(logs.len(), "comparing logs");
    let mut compared = Compared::default();
    for (log, copies) in &logs {
        let mut differs = false;
        // Every two: a short copy may be the beginning of two that part behind its end.
        let pairs = copies
            .iter()
            .enumerate()
            .flat_map(|(at, one)| copies.iter().skip(at + 1).map(move |other| (one, other)));
        for ((one_dir, one), (other_dir, other)) in pairs {
            let found = offline::compare(&OsStorage, one, other)?;
            let [a, b] = &found.ranges;
            if found.difference.is_none() && found.equal_to.is_none() && !a.is_empty() && !b.is_empty() {
                let why =
                    format!("no offsets in common with {} that are intact in both", other_dir.display());
                let side = one_dir.display().to_string();
                compared.missing.push(Missing { log: log.to_string(), side, why });
                differs = true;
            }
            if let Some([a, b]) = &found.difference {
                differs = true;
                let side = |dir: &Path, frame: &offline::FrameAt| {
                    let place = format!("byte {} of {}", frame.position.get(), frame.path.display());
                    (dir.display().to_string(), format!("{place}, chain {}", shown(frame.chain)))
                };
                let sides = vec![side(one_dir, a), side(other_dir, b)];
                let offset = found.equal_to.map(Offset::get);
                compared.differ.push(Difference { log: log.to_string(), offset, sides });
            }
        }
        compared.equal += usize::from(!differs);
        bar.inc(1);
    }
    bar.finish_and_clear();
    compared.verdict(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chains(chains: &[Option<u64>]) -> Result<Chains, tokio::task::JoinError> {
        let told = |(node, chain): (u64, &Option<u64>)| {
            (NodeId(node), chain.map(Chain).ok_or_else(|| "silent".to_owned()))
        };
        let chains = (0..).zip(chains).map(told).collect();
        Ok(Chains { name: "flights/0".to_owned(), offset: Some(Offset(7)), chains })
    }

    #[test]
    fn unequal_chains_are_a_difference_and_silence_is_none() {
        let counts = |found: &[Option<u64>]| {
            let mut compared = Compared::default();
            compared.add(chains(found));
            (compared.equal, compared.differ.len(), compared.missing.len())
        };
        assert_eq!(counts(&[Some(1), Some(1), Some(1)]), (1, 0, 0));
        assert_eq!(counts(&[Some(1), Some(2), Some(1)]), (0, 1, 0));
        assert_eq!(counts(&[Some(1), None, Some(1)]), (0, 0, 1));
        assert_eq!(counts(&[Some(1), None, Some(2)]), (0, 1, 1));
        assert_eq!(counts(&[]), (0, 0, 0));
    }
}
