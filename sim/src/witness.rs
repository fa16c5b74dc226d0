//! What the checkers are told: taken from messages as they leave, from raft logs as the disk has them, and from segment
//! files byte by byte.
//!
//! Called by whatever carries effects out, at the moment when the thing happens. Nothing here changes the world.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tidelog_consensus::core::{Committed, Effects, EntryId, LeaderChange, Outgoing};
use tidelog_consensus::raft_log::{GroupWrite, RaftLog};
use tidelog_engine::segment::parse_file_name;
use tidelog_engine::storage::read_whole;
use tidelog_wire::ids::{Generation, GroupId, LogId, NodeId, Offset, Partition, RaftIndex};

use crate::coverage::Seen;
use crate::node::{CLUSTER, DATA};
use crate::oracle::acknowledged_durability::Quorum;
use crate::oracle::chain_agreement::ChainAgreement;
use crate::oracle::raft_logs::Reopened;
use crate::oracle::segments::{Segment, is_sealed, walk};
use crate::oracle::{Violation, offset_density};
use crate::world::World;

/// Largest file that a simulated node makes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Where the simulated raft log lies.
const RAFT_LOG: &str = "/data/raft/sim.log";

impl World {
    /// A node has started: what did its disk give back?
    pub(crate) fn witness_start(&mut self, node: NodeId) -> Result<(), Violation> {
        self.oracles.log_matching.begins(node);
        let Some(life) = self.nodes.get(&node).and_then(|state| state.life.as_ref()) else { return Ok(()) };
        for status in life.core.statuses() {
            let empty = life.log.load(status.group).is_ok_and(|log| log.span.is_none());
            self.coverage.note(if empty { Seen::StartEmpty } else { Seen::StartWhole });
        }
        let groups: Vec<GroupId> = life
            .core
            .statuses()
            .into_iter()
            .filter(|status| status.halted.is_none())
            .map(|status| status.group)
            .collect();
        for group in groups {
            self.witness_replica(node, group)?;
        }
        self.witness_synced(node)?;
        self.cover_recovery(node);
        Ok(())
    }

    /// A replica begins: what does the node's raft log hold of it?
    pub(crate) fn witness_replica(&mut self, node: NodeId, group: GroupId) -> Result<(), Violation> {
        let Some(life) = self.nodes.get(&node).and_then(|state| state.life.as_ref()) else { return Ok(()) };
        let Some(status) = life.core.status(group) else { return Ok(()) };
        let unreadable = |error: &dyn std::fmt::Display| {
            Violation::of("a raft log that was recovered can be read", format!("node {node}: {error}"))
        };
        let log = life.log.load(group).map_err(|error| unreadable(&error))?;
        let entries = match log.span {
            None => Vec::new(),
            Some(span) => life
                .log
                .entries(group, span.first, RaftIndex(span.last.get().saturating_add(1)), u64::MAX)
                .map_err(|error| unreadable(&error))?,
        };
        let base = life.machines.applied(group).map_or(0, |at| at.index.get());
        let (replica, hard_state) = (status.replica, &log.hard_state);
        self.oracles.log_matching.lie(node, group, None, &entries)?;
        let found = Reopened { replica, entries: &entries, hard_state, base };
        self.oracles.raft_logs.reopened(node, group, found)?;
        let last = self.oracles.raft_logs.of(node, group).map_or(base, |held| held.last());
        self.oracles.leader_append_only.begins(node, group, last);
        if !status.members.voters.is_empty() {
            self.oracles.acknowledged_durability.begins(group, Quorum::from(&status.members));
        }
        Ok(())
    }

    fn cover_recovery(&mut self, node: NodeId) {
        let Some(life) = self.nodes.get(&node).and_then(|state| state.life.as_ref()) else { return };
        let report = life.engine.report();
        let counts = report.counts;
        for (seen, count) in [
            (Seen::RecoveryKept, counts.kept_frames),
            (Seen::RecoveryCut, counts.cut_bytes.min(1)),
            (Seen::RecoverySealedAgain, counts.sealed_again),
            (Seen::CheckpointUnfinished, report.rows.get("checkpoint_unfinished").copied().unwrap_or(0)),
        ] {
            self.coverage.add(seen, count);
        }
    }

    /// A core wants these things done.
    pub(crate) fn witness_effects(&mut self, node: NodeId, effects: &Effects) -> Result<(), Violation> {
        for change in effects.leadership.iter().filter(|change| !change.here) {
            self.oracles.leader_append_only.leads(node, change.group, None);
        }
        for change in effects.leadership.iter().filter(|change| change.here) {
            self.witness_election(node, change, effects)?;
        }
        for write in effects.persists.iter().flat_map(|persist| &persist.writes) {
            self.oracles.leader_append_only.writes(node, write)?;
        }
        for task in &effects.applies {
            let term = self.nodes.get(&node).and_then(|state| state.life.as_ref()?.core.status(task.group));
            let Some(term) = term.map(|status| status.term) else { continue };
            for entry in &task.entries {
                let (index, of) = (entry.index.get(), entry.term.get());
                self.oracles.leader_completeness.committed(task.group, index, of, term);
            }
        }
        if !effects.refusals.is_empty() {
            self.coverage.note(Seen::MessageRefused);
        }
        Ok(())
    }

    fn witness_election(
        &mut self,
        node: NodeId,
        change: &LeaderChange,
        effects: &Effects,
    ) -> Result<(), Violation> {
        self.coverage.note(Seen::Elected);
        self.oracles.election_safety.leads(change.group, change.term, node)?;
        self.oracles.leader_append_only.leads(node, change.group, Some(change.term));
        // One that needs nobody else's vote leads before its log is written.
        let mut log = self.oracles.raft_logs.of(node, change.group).cloned().unwrap_or_default();
        let queued = self.nodes.get(&node).and_then(|state| state.life.as_ref());
        let queued = queued.into_iter().flat_map(|life| &life.persists).chain(&effects.persists);
        for write in queued.flat_map(|persist| &persist.writes).filter(|write| write.group == change.group) {
            log.take(write);
        }
        self.oracles.leader_completeness.elected(change.group, node, change.term, Some(&log))
    }

    /// A node's raft log took these writes.
    pub(crate) fn witness_written(&mut self, node: NodeId, writes: &[GroupWrite]) -> Result<(), Violation> {
        for write in writes {
            let status =
                self.nodes.get(&node).and_then(|state| state.life.as_ref()?.core.status(write.group));
            let Some(replica) = status.map(|status| status.replica) else { continue };
            let held = self.oracles.raft_logs.of(node, write.group);
            let first = write.entries.first().map_or(0, |entry| entry.index);
            let before = held.and_then(|held| held.term(first.saturating_sub(1)));
            if held.is_some_and(|held| first > 0 && held.entries.contains_key(&first)) {
                self.coverage.note(Seen::LogTruncated);
            }
            self.oracles.log_matching.wrote(node, write.group, before, &write.entries);
            self.oracles.raft_logs.wrote(node, replica, write);
        }
        Ok(())
    }

    /// A node's raft log says that it is synced: is it?
    pub(crate) fn witness_synced(&mut self, node: NodeId) -> Result<(), Violation> {
        let disk = self.nodes.get(&node).map(|state| state.disk.unsynced(Path::new(RAFT_LOG)));
        if disk.is_some_and(|unsynced| unsynced.is_ok_and(|unsynced| unsynced == 0)) {
            self.oracles.raft_logs.synced(node);
            self.oracles.log_matching.synced(node)?;
        }
        Ok(())
    }

    /// A message leaves.
    pub(crate) fn witness_sent(&mut self, node: NodeId, outgoing: &Outgoing) -> Result<(), Violation> {
        let log = self.oracles.raft_logs.of(node, outgoing.group);
        self.oracles.amnesia.sent(node, outgoing.group, &outgoing.message, log)?;
        self.oracles.acknowledged_durability.sent(node, outgoing.group, &outgoing.message, log)
    }

    /// A machine applied an entry, which came to this (hashes).
    pub(crate) fn witness_applied(
        &mut self,
        node: NodeId,
        group: GroupId,
        committed: &Committed,
        outcome: u64,
    ) -> Result<(), Violation> {
        let hash = crate::oracle::raft_logs::lies(&committed.entry).hash ^ committed.term.get();
        let index = committed.index;
        let first = self.oracles.state_machine_safety.applied(node, group, index, hash, outcome)?;
        if first {
            if let Some(members) = &committed.members {
                self.coverage.add(Seen::JointEntered, u64::from(members.is_joint()));
                self.oracles.acknowledged_durability.members(group, Quorum::from(members));
            }
            let entry = EntryId { index, term: committed.term };
            self.oracles.acknowledged_durability.committed(group, entry, &self.oracles.raft_logs)?;
            self.oracles.raft_logs.forget_witnesses(group, index.get());
        }
        Ok(())
    }

    /// Looks at the segments on a node's disk that were sealed since it was looked at last.
    pub(crate) fn witness_segments(&mut self, node: NodeId) -> Result<(), Violation> {
        for (log, base, path) in self.segment_files(node) {
            let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
            if state.looked_at.contains(&(log, base)) {
                continue;
            }
            let Ok(bytes) = read_whole(state.disk.storage().as_ref(), &path, FILE_BYTES_MAX) else {
                continue;
            };
            if !is_sealed(CLUSTER, &bytes) {
                continue;
            }
            state.looked_at.insert((log, base));
            self.coverage.note(Seen::SegmentSealed);
            self.witness_segment(node, log, base, &bytes.into())?;
        }
        Ok(())
    }

    /// Looks at one segment.
    pub(crate) fn witness_segment(
        &mut self,
        node: NodeId,
        log: LogId,
        base: Offset,
        bytes: &Bytes,
    ) -> Result<Segment, Violation> {
        let place = || format!("segment {base} of log {log} on node {node}");
        let segment = walk(CLUSTER, bytes)
            .map_err(|why| Violation::of("what is stored verifies", format!("{}: {why}", place())))?;
        self.oracles.generation_isolation.lies(node, log.generation, segment.header.log)?;
        let mut next = base;
        for frame in &segment.frames {
            offset_density::follows(node, log, next, Some(next), &frame.read)?;
            next = frame.read.last.plus(1);
            ChainAgreement::computes(log, next, frame.said, frame.computed, &place())?;
            self.oracles.chain_agreement.is(log, next, frame.computed, place)?;
            self.oracles.generation_isolation.read(node, log, &frame.read)?;
            self.oracles.exactly_once.stands(log, &frame.read)?;
        }
        if segment.sealed {
            self.oracles.sealed_segments.lies(node, log, base, bytes)?;
        }
        Ok(segment)
    }

    /// All segment files on a node's disk.
    pub(crate) fn segment_files(&self, node: NodeId) -> Vec<(LogId, Offset, PathBuf)> {
        let Some(state) = self.nodes.get(&node) else { return Vec::new() };
        state
            .disk
            .files()
            .into_iter()
            .filter_map(|path| segment_of(&path).map(|(log, base)| (log, base, path)))
            .collect()
    }
}

/// The log and base offset that a segment file's place says.
fn segment_of(path: &Path) -> Option<(LogId, Offset)> {
    let mut parts = path.strip_prefix(DATA).ok()?.strip_prefix("logs").ok()?.iter().map(|part| part.to_str());
    let generation = Generation(parts.next()??.parse().ok()?);
    let partition = Partition(parts.next()??.parse().ok()?);
    let base = parse_file_name(parts.next()??)?;
    Some((LogId { generation, partition }, base))
}
