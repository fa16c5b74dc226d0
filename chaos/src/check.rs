//! What the cluster holds in the end, against what was acknowledged.
//!
//! 1. Every life of a channel that nobody ended is there.
//! 2. From every node that has a replica everything is read back, up to what the leader says is committed, and held to the
//!    ledger ([`Judge`]).
//! 3. The replicas' chains are equal at that offset, and no replica names a damaged range.
//! 4. With all nodes stopped, the segment files of those logs are equal, byte by byte.
//!
//! The load must have ended before: what is still being written belongs to nobody's count.

#![expect(clippy::disallowed_methods, reason = "compares the files of nodes that are stopped")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tidelog_client::{Client, ClientError, ConsumerOptions, Start};
use tidelog_wire::ids::{LogId, NodeId, Offset};
use tidelog_wire::protocol::{ChannelInfo, OffsetSpec};
use tokio::time::Instant;

use crate::error::ChaosError;
use crate::judge::Judge;
use crate::ledger::Ledger;

/// How long the replicas may take to have everything that is committed.
const CATCH_UP: Duration = Duration::from_secs(90);
/// Names of files that are shown of each side.
const NAMES_SHOWN: usize = 3;
/// Between two questions.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What was looked at, and what was wrong.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Checked {
    /// Logs.
    pub logs: u64,
    /// Replicas of logs.
    pub replicas: u64,
    /// Records read back, from all replicas together.
    pub records: u64,
    /// Segment files compared with another replica's.
    pub files: u64,
    /// Broken promises.
    pub violations: Vec<String>,
}

/// A log to be looked at.
#[derive(Clone, Debug)]
pub struct Kept {
    channel: String,
    log: LogId,
    nodes: Vec<NodeId>,
}

/// How far a replica is read, until when, and who looks at it.
struct Reading<'a, 'b> {
    end: Offset,
    deadline: Instant,
    judge: &'a mut Judge<'b>,
}

impl Checked {
    /// Adds what another phase looked at.
    pub fn add(&mut self, other: Self) {
        self.logs += other.logs;
        self.replicas += other.replicas;
        self.records += other.records;
        self.files += other.files;
        self.violations.extend(other.violations);
    }

    /// Reads everything back. Returns the logs that there are, for [`Checked::files`].
    ///
    /// # Errors
    /// [`ChaosError::Client`] if nobody says which channels there are.
    pub async fn read_back(&mut self, client: &Client, ledger: &Ledger) -> Result<Vec<Kept>, ChaosError> {
        let channels = client.metadata(None).await?.channels;
        self.demand_lives(&channels, ledger);
        let mut kept = Vec::new();
        for channel in channels.iter().filter(|channel| !ledger.is_deleted(channel.generation)) {
            for partition in &channel.partitions {
                let (channel, log) = (channel.name.clone(), partition.log);
                kept.push(Kept { channel, log, nodes: partition.replicas.clone() });
            }
        }
        let deadline = Instant::now() + CATCH_UP;
        for kept in &kept {
            self.logs += 1;
            if let Err(error) = self.read_log(client, kept, ledger, deadline).await {
                self.violations.push(format!("log {} of `{}`: {error}", kept.log, kept.channel));
            }
        }
        Ok(kept)
    }

    /// The logs that there are.
    ///
    /// # Errors
    /// [`ChaosError::Client`] if nobody says which channels there are.
    pub async fn kept(client: &Client) -> Result<Vec<Kept>, ChaosError> {
        let channels = client.metadata(None).await?.channels;
        let logs = channels.iter().flat_map(|channel| {
            channel.partitions.iter().map(|partition| Kept {
                channel: channel.name.clone(),
                log: partition.log,
                nodes: partition.replicas.clone(),
            })
        });
        Ok(logs.collect())
    }

    fn demand_lives(&mut self, channels: &[ChannelInfo], ledger: &Ledger) {
        let there: BTreeSet<_> = channels.iter().map(|channel| channel.generation).collect();
        for log in ledger.logs() {
            if !ledger.is_deleted(log.generation) && !there.contains(&log.generation) {
                let count = ledger.count_in(log);
                self.violations.push(format!("log {log}: lost whole, with {count} acknowledged records"));
            }
        }
    }

    async fn read_log(
        &mut self,
        client: &Client,
        kept: &Kept,
        ledger: &Ledger,
        deadline: Instant,
    ) -> Result<(), ClientError> {
        let end = client.offset_at(&kept.channel, kept.log, OffsetSpec::Latest).await?;
        let mut chains = BTreeMap::new();
        for node in &kept.nodes {
            self.replicas += 1;
            let named = |what: &str| format!("log {}, replica of node {node}: {what}", kept.log);
            let mut judge = Judge::new(kept.log, ledger);
            let mut reading = Reading { end, deadline, judge: &mut judge };
            if let Err(error) = self.read_replica(client, kept, *node, &mut reading).await {
                self.violations.push(named(&error.to_string()));
                continue;
            }
            for finding in judge.finish() {
                let (count, kind) = (finding.count, finding.kind);
                self.violations.push(named(&format!("{count} {kind}: {}", finding.examples.join("; "))));
            }
            chains.insert(*node, client.chain_at(*node, kept.log, end).await?);
        }
        if chains.values().collect::<BTreeSet<_>>().len() > 1 {
            self.violations.push(format!("log {}: chains differ at offset {end}: {chains:?}", kept.log));
        }
        Ok(())
    }

    /// Reads a replica from its first offset to the end, and waits for what it does not have yet.
    async fn read_replica(
        &mut self,
        client: &Client,
        kept: &Kept,
        node: NodeId,
        reading: &mut Reading<'_, '_>,
    ) -> Result<(), ClientError> {
        let Reading { end, deadline, .. } = *reading;
        let options = ConsumerOptions { node: Some(node.get()), ..ConsumerOptions::default() };
        let (start, partition) = (Start::Offset(Offset::ZERO), kept.log.partition.get());
        let mut consumer = client.consumer(&kept.channel, partition, start, options).await?;
        while consumer.position() < end {
            let fetched = match consumer.poll().await {
                Ok(fetched) => fetched.records,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(
                    ClientError::Timeout { .. }
                    | ClientError::Unreachable { .. }
                    | ClientError::Refused { .. },
                ) => {
                    tokio::time::sleep(ASK_EVERY).await;
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            let came_nothing = fetched.is_empty();
            for record in fetched {
                self.records += 1;
                reading.judge.record(record.offset, record.value.as_deref().unwrap_or_default());
            }
            if came_nothing && Instant::now() > deadline {
                let (position, seconds) = (consumer.position(), CATCH_UP.as_secs());
                let what = format!("it has {position} of {end} records, {seconds} s after the load ended");
                self.violations.push(format!("log {}, replica of node {node}: {what}", kept.log));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Compares the segment files of `kept`, below the data directories of nodes that are stopped.
    ///
    /// # Errors
    /// [`ChaosError::File`].
    pub fn files(&mut self, kept: &[Kept], data: impl Fn(u64) -> PathBuf) -> Result<(), ChaosError> {
        for Kept { log, nodes, .. } in kept {
            let mut first: Option<(NodeId, BTreeMap<String, PathBuf>)> = None;
            for node in nodes {
                let place = format!("logs/{}/{}", log.generation, log.partition);
                let found = segments(&data(node.get()).join(place))?;
                match &first {
                    None => first = Some((*node, found)),
                    Some((other, expected)) => self.compare(*log, (*other, expected), (*node, &found))?,
                }
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        log: LogId,
        (first, expected): (NodeId, &BTreeMap<String, PathBuf>),
        (second, found): (NodeId, &BTreeMap<String, PathBuf>),
    ) -> Result<(), ChaosError> {
        if !expected.keys().eq(found.keys()) {
            let odd = |names: &BTreeMap<_, _>, other: &BTreeMap<String, PathBuf>| {
                names
                    .keys()
                    .filter(|name| !other.contains_key(*name))
                    .take(NAMES_SHOWN)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let (left, right) = (odd(expected, found), odd(found, expected));
            let names = format!("only node {first} has {left:?}, only node {second} has {right:?}");
            self.violations.push(format!("log {log}: other segments: {names}"));
            return Ok(());
        }
        for (left, right) in expected.values().zip(found.values()) {
            self.files += 1;
            if let Some(position) = first_difference(left, right)? {
                let (left, right) = (left.display(), right.display());
                self.violations.push(format!("log {log}: {left} and {right} differ at byte {position}"));
            }
        }
        Ok(())
    }
}

/// The segments in `folder`, which need not be there: a log without records has none.
fn segments(folder: &Path) -> Result<BTreeMap<String, PathBuf>, ChaosError> {
    let failed = |source| ChaosError::File { path: folder.to_owned(), action: "listed", source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "seg")
            && let Some(name) = path.file_name()
        {
            found.insert(name.to_string_lossy().into_owned(), path.clone());
        }
    }
    Ok(found)
}

/// The first byte at which two files differ; the shorter one's end counts as a difference.
fn first_difference(left: &Path, right: &Path) -> Result<Option<usize>, ChaosError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| ChaosError::File { path: path.to_owned(), action: "read", source })
    };
    let (left, right) = (read(left)?, read(right)?);
    if left == right {
        return Ok(None);
    }
    let same = left.iter().zip(&right).take_while(|(left, right)| left == right).count();
    Ok(Some(same))
}

#[cfg(test)]
mod tests {
    use tidelog_wire::ids::{Generation, Partition};

    use super::*;

    const LOG: LogId = LogId { generation: Generation(3), partition: Partition(1) };

    fn compare(files: &[(u64, &str, &[u8])]) -> Checked {
        let folder = tempfile::tempdir().unwrap();
        for (node, name, bytes) in files {
            let path = folder.path().join(format!("{node}/logs/3/1"));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join(name), bytes).unwrap();
        }
        let nodes = vec![NodeId(0), NodeId(1), NodeId(2)];
        let kept = [Kept { channel: "steady".to_owned(), log: LOG, nodes }];
        let mut checked = Checked::default();
        checked.files(&kept, |node| folder.path().join(node.to_string())).unwrap();
        checked
    }

    #[test]
    fn equal_files_are_equal_and_whatever_else_lies_there_does_not_count() {
        let files: [(u64, &str, &[u8]); 4] =
            [(0, "0.seg", b"same"), (1, "0.seg", b"same"), (2, "0.seg", b"same"), (1, "note.txt", b"x")];
        let checked = compare(&files);
        assert_eq!((checked.files, checked.violations.len()), (2, 0));
        assert!(compare(&[]).violations.is_empty(), "a log without records has no file");
    }

    #[test]
    fn a_byte_a_tail_and_a_missing_file_are_found() {
        let same: (u64, &str, &[u8]) = (0, "0.seg", b"same");
        for (other, expected) in [(&b"sane"[..], "at byte 2"), (&b"same and more"[..], "at byte 4")] {
            let checked = compare(&[same, (1, "0.seg", other), (2, "0.seg", b"same")]);
            assert_eq!(checked.violations.len(), 1);
            assert!(checked.violations[0].contains(expected), "{:?}", checked.violations);
        }
        let checked = compare(&[same, (1, "0.seg", b"same")]);
        assert!(checked.violations[0].contains("other segments"), "{:?}", checked.violations);
    }

    /// A life that nobody ended and that is not in the metadata is lost with all its records.
    #[test]
    fn a_life_that_is_gone_is_found_unless_somebody_ended_it() {
        let mut ledger = Ledger::default();
        let writer = ledger.add_writer(LOG.generation);
        let written = ledger.send(writer);
        ledger.acknowledged(written, LOG, Offset::ZERO);
        let mut checked = Checked::default();
        checked.demand_lives(&[], &ledger);
        assert!(checked.violations[0].contains("lost whole, with 1"), "{:?}", checked.violations);
        ledger.deleted(LOG.generation);
        let mut checked = Checked::default();
        checked.demand_lives(&[], &ledger);
        assert!(checked.violations.is_empty());
    }
}
