//! Promise: once everything is healed the cluster agrees. Every replica has applied the same, and
//! machines, logs and files are the same, byte for byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tidelog_consensus::core::GroupStatus;
use tidelog_engine::checkpoint::EntryId;
use tidelog_engine::storage::read_whole;
use tidelog_wire::ids::{GroupId, LogId, NodeId, Offset};
use xxhash_rust::xxh3::xxh3_64;

use super::{Oracles, Violation};
use crate::node::{DATA, SimNode};

const SAME: &str = "replicas that have applied the same have the same bytes";
/// Largest file that a simulated node makes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// What still differs, or is still to be done: `None` once the cluster agrees.
#[must_use]
pub fn unfinished(nodes: &BTreeMap<NodeId, SimNode>) -> Option<String> {
    let mut first: BTreeMap<GroupId, GroupStatus> = BTreeMap::new();
    for (id, node) in nodes {
        let Some(life) = &node.life else { return Some(format!("node {id} is down")) };
        for status in life.core.statuses() {
            if status.leader.is_none() {
                return Some(format!("group {} has no leader on node {id}", status.group));
            }
            if status.applied != status.last
                || life.machines.applied(status.group).map(|at| at.index) != Some(status.last)
            {
                return Some(format!("node {id} has not applied all of group {}: {status:?}", status.group));
            }
            let other = first.entry(status.group).or_insert_with(|| status.clone());
            if other.last != status.last || other.term != status.term {
                return Some(format!("nodes differ in group {}: {other:?}, {status:?}", status.group));
            }
        }
    }
    None
}

/// Everything is compared, and read from end to end, on every node.
///
/// # Errors
/// Something differs, or an acknowledged batch is missing.
pub fn check(nodes: &BTreeMap<NodeId, SimNode>, oracles: &mut Oracles) -> Result<(), Violation> {
    let mut first: BTreeMap<GroupId, u64> = BTreeMap::new();
    for (id, node) in nodes {
        for group in node.groups() {
            let Some(hash) = machine_hash(node, *group) else { continue };
            if *first.entry(*group).or_insert(hash) != hash {
                return Err(Violation::of(SAME, format!("group {group}: the machine of node {id} differs")));
            }
        }
    }
    let mut files: BTreeMap<PathBuf, (NodeId, u64)> = BTreeMap::new();
    for (id, node) in nodes {
        check_files(*id, node, &mut files)?;
        check_logs(*id, node, oracles)?;
    }
    Ok(())
}

/// Of the checkpoint that the machine would write now, less what may differ: how far the raft log is durable.
fn machine_hash(node: &SimNode, group: GroupId) -> Option<u64> {
    let life = node.life.as_ref()?;
    let job = life.machines.checkpoint_job(group, EntryId::default())?;
    let mut checkpoint = job.checkpoint().clone();
    for log in &mut checkpoint.logs {
        log.damage.clear();
    }
    Some(xxh3_64(&checkpoint.encode()))
}

/// Files of one name must be the same on all nodes. That a trimmed one is gone on one node and not yet on
/// another is legal.
fn check_files(
    id: NodeId,
    node: &SimNode,
    files: &mut BTreeMap<PathBuf, (NodeId, u64)>,
) -> Result<(), Violation> {
    let storage = node.disk.storage();
    let Some(life) = &node.life else { return Ok(()) };
    let logs = Path::new(DATA).join("logs");
    let in_use: Vec<PathBuf> = life
        .machines
        .catalogue()
        .channels()
        .map(|channel| logs.join(channel.generation.to_string()))
        .collect();
    for path in node.disk.files() {
        // What a deleted channel leaves is not promised to anybody.
        if !in_use.iter().any(|dir| path.starts_with(dir)) {
            continue;
        }
        let bytes = read_whole(storage.as_ref(), &path, FILE_BYTES_MAX)
            .map_err(|error| Violation::of(SAME, format!("node {id}, {}: {error}", path.display())))?;
        let hash = xxh3_64(&bytes);
        let (other, first) = *files.entry(path.clone()).or_insert((id, hash));
        if first != hash {
            return Err(Violation::of(SAME, format!("{} differs on nodes {other} and {id}", path.display())));
        }
    }
    Ok(())
}

fn check_logs(id: NodeId, node: &SimNode, oracles: &mut Oracles) -> Result<(), Violation> {
    let Some(life) = &node.life else { return Ok(()) };
    let catalogue = life.machines.catalogue();
    for channel in catalogue.channels() {
        for (log, _) in channel.logs() {
            let Some(reader) = life.machines.reader(log) else {
                return Err(Violation::of(
                    SAME,
                    format!("node {id} has no log {log}, whose channel is in use"),
                ));
            };
            let (start, end) = (reader.start(), reader.end());
            oracles.trims.check(id, log, start)?;
            read_all(
                id,
                log,
                start,
                end,
                |from| reader.read(from, READ_BYTES).map(|read| read.batches),
                oracles,
            )?;
            oracles.acknowledged.check_read(log, start, end, &oracles.history)?;
        }
    }
    Ok(())
}

fn read_all<E: std::fmt::Display>(
    id: NodeId,
    log: LogId,
    start: Offset,
    end: Offset,
    read: impl Fn(Offset) -> Result<Vec<bytes::Bytes>, E>,
    oracles: &mut Oracles,
) -> Result<(), Violation> {
    let mut at = start;
    while at < end {
        let batches = read(at).map_err(|error| {
            Violation::of("what is committed can be read", format!("node {id}, log {log}: {error}"))
        })?;
        let next = oracles.history.read(id, log, at, &batches)?;
        if next <= at {
            return Err(Violation::of(
                "offsets have no gaps",
                format!("node {id}, log {log}: nothing at {at} of {end}"),
            ));
        }
        at = next;
    }
    Ok(())
}
