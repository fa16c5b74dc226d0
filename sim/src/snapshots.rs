//! Snapshots between simulated nodes: how a follower catches up whose entries are gone from every log.
//!
//! A transfer goes chunk by chunk over links that may be cut, from a node that may die; each chunk may
//! be the last of its transfer, so fetches are resumed all the time.

use std::path::Path;
use std::sync::Arc;

use tidelog_consensus::core::{ExportRequest, FetchSnapshot, Input, InstallSnapshot, Staged};
use tidelog_consensus::raft_log::RaftLog;
use tidelog_consensus::snapshot::{Ended, FetchLimits, Fetcher, Next, Switch, build_manifest, install};
use tidelog_consensus::transport::BulkSource;
use tidelog_engine::checkpoint::EntryId;
use tidelog_wire::ids::{GroupId, NodeId};

use crate::coverage::Seen;
use crate::node::{CLUSTER, DATA, NodeError, Work};
use crate::oracle::Violation;
use crate::world::{Event, World};

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 16 << 10;

impl World {
    /// A follower needs what this node's raft log has no more: offers the newest checkpoint.
    /// One that does not name the follower yet is of no use to it: then a newer one is taken first, and this asked again.
    pub(crate) fn export(&mut self, node: NodeId, wanted: ExportRequest) -> Result<(), Violation> {
        let group = wanted.group;
        let Some(storage) = self.nodes.get(&node).map(|state| state.disk.storage()) else { return Ok(()) };
        let Some(life) = self.life(node) else { return Ok(()) };
        let offer = match life.engine.load_checkpoint(group) {
            Ok(Some(loaded)) if loaded.newest.applied.index < wanted.at_least => {
                self.coverage.note(Seen::SnapshotTooOld);
                self.begin_checkpoint(node, group);
                return Ok(());
            }
            Ok(Some(loaded)) => {
                match build_manifest(storage.as_ref(), Path::new(DATA), CLUSTER, &loaded.newest) {
                    Ok(manifest) => {
                        let files = manifest.files().map(|(log, file)| (log, file.base)).collect();
                        let pin = Arc::new(life.engine.pin(files));
                        life.exports.offer(manifest, pin)
                    }
                    Err(error) => {
                        self.disk_failed(node, &error.into());
                        return Ok(());
                    }
                }
            }
            Ok(None) => None,
            Err(error) => {
                self.disk_failed(node, &error.into());
                return Ok(());
            }
        };
        let Some(offer) = offer else { return Ok(()) };
        let fields = [("node", node.get()), ("group", group.get()), ("index", offer.snapshot.index.get())];
        self.trace.note(self.schedule.now(), "export", &fields);
        self.coverage.note(Seen::SnapshotExported);
        self.step(node, Input::SnapshotExported { group, offer })
    }

    /// Begins to fetch an offered snapshot.
    pub(crate) fn begin_fetch(&mut self, node: NodeId, fetch: FetchSnapshot) -> Result<(), Violation> {
        let Some(storage) = self.nodes.get(&node).map(|state| state.disk.storage()) else { return Ok(()) };
        let limits = FetchLimits { reserve_bytes: 0, attempts_max: 8 };
        let fetcher = Fetcher::new(storage, Path::new(DATA), CLUSTER, fetch, limits);
        let group = fetch.group;
        let others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != node).collect();
        let Some(life) = self.life(node) else { return Ok(()) };
        let number = life.number;
        match fetcher {
            Ok(mut fetcher) => {
                fetcher.ask_also(&others);
                life.fetchers.insert(group, (fetch, fetcher));
                let fields =
                    [("node", node.get()), ("group", group.get()), ("index", fetch.snapshot.index.get())];
                self.trace.note(self.schedule.now(), "fetch", &fields);
                self.coverage.note(Seen::SnapshotFetched);
                self.schedule.after(1_000, Event::Snapshot { node, life: number, group });
            }
            Err(error) => self.disk_failed(node, &error.into()),
        }
        Ok(())
    }

    /// Fetches the next chunk, or hands over what is staged.
    pub(crate) fn snapshot_step(
        &mut self,
        node: NodeId,
        number: u64,
        group: GroupId,
    ) -> Result<(), Violation> {
        let doomed = self.doomed.contains_key(&node);
        let Some(life) = self.life_numbered(node, number) else { return Ok(()) };
        let Some((FetchSnapshot { snapshot, from: offered_by, .. }, fetcher)) = life.fetchers.get_mut(&group)
        else {
            return Ok(());
        };
        match fetcher.next_step() {
            Ok(Next::Ask { from, request, position, attempt }) => {
                let other = *offered_by != from;
                let answer = self.chunk(node, from, request, position);
                let broken = answer.as_ref().err().cloned();
                let fetched = self
                    .life_numbered(node, number)
                    .and_then(|life| life.fetchers.get_mut(&group))
                    .map(|(_, fetcher)| match answer {
                        Ok((bytes, ended)) => fetcher.arrived(&bytes).and_then(|()| fetcher.ended(ended)),
                        Err(why) => fetcher.ended(Ended::Broken(why)),
                    });
                if let Some(Err(error)) = fetched {
                    self.disk_failed(node, &error.into());
                    return Ok(());
                }
                let pause =
                    if broken.is_some() { 50_000_u64.saturating_mul(u64::from(attempt) + 1) } else { 0 };
                if broken.is_some() {
                    self.coverage.note(Seen::SnapshotInterrupted);
                } else if other {
                    self.coverage.note(Seen::SnapshotFromOther);
                }
                let delay = self.chance.duration(1_000).saturating_add(pause);
                self.schedule.after(delay, Event::Snapshot { node, life: number, group });
                Ok(())
            }
            Ok(Next::Staged(staged)) => {
                life.fetchers.remove(&group);
                let reused = u64::try_from(staged.reused.len()).unwrap_or(0);
                let pin = life.engine.pin(staged.reused);
                life.pins.insert(group, pin);
                self.coverage.note(Seen::SnapshotStaged);
                self.coverage.add(Seen::SnapshotReused, reused);
                self.trace.note(
                    self.schedule.now(),
                    "staged",
                    &[("node", node.get()), ("group", group.get())],
                );
                let snapshot = staged.offer.snapshot;
                self.step(node, Input::SnapshotStaged { group, snapshot, result: Staged::Ready })
            }
            Err(error) if doomed => {
                self.disk_failed(node, &error.into());
                Ok(())
            }
            Err(error) => {
                let snapshot = *snapshot;
                life.fetchers.remove(&group);
                self.trace.words(self.schedule.now(), "fetch_failed", &error.to_string());
                self.coverage.note(Seen::SnapshotGivenUp);
                self.step(node, Input::SnapshotStaged { group, snapshot, result: Staged::Failed })
            }
        }
    }

    /// Bytes of a snapshot from another node, and whether they were the last.
    fn chunk(
        &mut self,
        node: NodeId,
        from: NodeId,
        request: bytes::Bytes,
        position: u64,
    ) -> Result<(bytes::Bytes, Ended), String> {
        if self.network.arrivals(node, from).is_empty() || self.network.arrivals(from, node).is_empty() {
            return Err("the link is cut".to_owned());
        }
        let now = self.schedule.now();
        if self.nodes.get(&from).is_some_and(|state| state.paused_until > now) {
            return Err("the node is silent".to_owned());
        }
        let life = self.life(from).ok_or_else(|| "the node is down".to_owned())?;
        let mut object = life.exports.open(node, request)?;
        let total = object.total();
        if position >= total {
            return Ok((bytes::Bytes::new(), Ended::Complete));
        }
        let bytes = object.read(position, CHUNK_BYTES).map_err(|error| error.to_string())?;
        let end = position.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        let ended = if end >= total { Ended::Complete } else { Ended::Broken("interrupted".to_owned()) };
        Ok((bytes, ended))
    }

    /// Marks up to this persist are durable: their switches may be made, behind what is still to be applied.
    pub(crate) fn ripen_installs(&mut self, node: NodeId, number: u64) {
        let Some(life) = self.life(node) else { return };
        while life.installs.front().is_some_and(|(mark, _)| *mark <= number) {
            if let Some((_, install)) = life.installs.pop_front() {
                life.applies.push_back(Work::Install(install));
            }
        }
        self.begin_apply(node);
    }

    /// Switches a group to a staged snapshot.
    pub(crate) fn install(
        &mut self,
        node: NodeId,
        number: u64,
        snapshot: &InstallSnapshot,
    ) -> Result<(), Violation> {
        let Some(storage) = self.nodes.get(&node).map(|state| state.disk.storage()) else { return Ok(()) };
        let group = snapshot.group;
        let Some(life) = self.life_numbered(node, number) else { return Ok(()) };
        life.jobs.remove(&group);
        life.machines.close(group);
        let raft_log: &dyn RaftLog = life.log.as_ref();
        let switch = Switch { group, mark: snapshot.mark, hard_state: snapshot.hard_state.clone() };
        let done = install(&storage, Path::new(DATA), life.engine.as_ref(), raft_log, &switch)
            .map_err(NodeError::from)
            .and_then(|_| life.machines.reopen(group).map_err(NodeError::from));
        life.pins.remove(&group);
        if let Err(error) = done {
            self.disk_failed(node, &error);
            return Ok(());
        }
        life.uncheckpointed.insert(group, 0);
        let entry = EntryId { index: snapshot.mark.index, term: snapshot.mark.term };
        let fields = [("node", node.get()), ("group", group.get()), ("index", entry.index.get())];
        self.trace.note(self.schedule.now(), "install", &fields);
        self.coverage.note(Seen::SnapshotInstalled);
        self.oracles.raft_logs.installed(node, group, entry.index.get());
        self.step(node, Input::SnapshotInstalled { group, snapshot: entry })
    }
}
