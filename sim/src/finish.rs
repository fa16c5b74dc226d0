//! The end of a run: everything is healed, and the cluster must go on, and agree, in bounded time.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tidelog_consensus::apply::Catalogue;
use tidelog_consensus::apply::group_placement::Replica;
use tidelog_consensus::apply::node_state::NodeState;
use tidelog_consensus::entry::Want;
use tidelog_consensus::placement::{Step, next_step, plan};
use tidelog_engine::checkpoint::{Checkpoint, EntryId};
use tidelog_engine::sim_disk::Crash;
use tidelog_engine::storage::read_whole;
use tidelog_wire::ids::{GroupId, LogId, NodeId};
use xxhash_rust::xxh3::xxh3_64;

use crate::node::Life;
use crate::oracle::full_redundancy::{Comparison, Intent, Look, Wanted, missing};
use crate::oracle::{Violation, offset_density};
use crate::schedule::Micros;
use crate::world::{Event, World};

/// Time between looks at whether the cluster agrees.
const LOOK_MICROS: u64 = 100_000;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;
/// Largest file that a simulated node makes.
const FILE_BYTES_MAX: u64 = 64 << 20;

impl World {
    /// Faults are over: links are joined, disks are fast, and whoever is down starts.
    pub(crate) fn storm_ends(&mut self) -> Result<(), Violation> {
        self.trace.note(self.schedule.now(), "calm", &[]);
        self.calm = true;
        self.calm_since = self.schedule.now();
        self.network.heal();
        self.settings.disk_micros = self.settings.disk_micros.min(500);
        for node in self.node_ids() {
            if let Some(state) = self.nodes.get_mut(&node) {
                state.slow_until = Micros(0);
                state.paused_until = Micros(0);
            }
            if self.doomed.contains_key(&node) {
                self.crash(node, Crash::LoseUnsynced);
            }
            self.restart(node)?;
        }
        self.schedule.after(LOOK_MICROS, Event::CheckConvergence);
        Ok(())
    }

    /// Looks whether the cluster has gone on and agrees; if so, compares everything.
    pub(crate) fn check_convergence(&mut self) -> Result<(), Violation> {
        self.switch_off_removed();
        let waiting = self.unsettled_node().or_else(|| missing(&self.intent(), &self.looks()));
        let waiting = waiting.or_else(|| self.clients.waiting());
        let Some(waiting) = waiting else {
            self.compare()?;
            self.trace.note(self.schedule.now(), "converged", &[]);
            self.converged = true;
            return Ok(());
        };
        if self.schedule.now() > self.calm_since.after(self.settings.calm_micros) {
            let steps = self.next_steps();
            return Err(Violation::of(
                "eventual full redundancy",
                format!("{waiting}; {}", steps.join("; ")),
            ));
        }
        self.schedule.after(LOOK_MICROS, Event::CheckConvergence);
        Ok(())
    }

    /// The catalogue of the node that has applied most of it.
    fn newest_catalogue(&self) -> Option<Arc<Catalogue>> {
        let lives = self.nodes.values().filter_map(|state| state.life.as_ref());
        let newest = lives.max_by_key(|life| life.machines.applied(GroupId::META).map(|at| at.index))?;
        Some(newest.machines.catalogue())
    }

    /// A node that is on its way, if there is one.
    fn unsettled_node(&self) -> Option<String> {
        let catalogue = self.newest_catalogue()?;
        let mut members = catalogue.members().map(|(node, member)| (node, member.state));
        members.find_map(|(node, state)| match state {
            NodeState::Active if self.nodes.get(&node).is_some_and(|state| state.life.is_some()) => None,
            NodeState::Active => Some(format!("node {node} is active, and is not there")),
            NodeState::Removed => None,
            NodeState::Joining | NodeState::Draining => Some(format!("node {node} is {state:?}")),
        })
    }

    /// What the leaders would do next, to say why nothing goes on.
    fn next_steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        for (node, life) in self.nodes.iter().filter_map(|(id, state)| Some((*id, state.life.as_ref()?))) {
            let catalogue = life.machines.catalogue();
            for status in life.core.statuses().iter().filter(|status| status.serves) {
                let step = next_step(&catalogue, status);
                if step != Step::Settled {
                    steps.push(format!("node {node}, group {}: {step:?}, {:?}", status.group, status.peers));
                }
                if status.group == GroupId::META {
                    steps.push(format!("plan: {:?}", plan(&catalogue, &self.heard_by(node))));
                }
            }
        }
        steps
    }

    fn intent(&self) -> Intent {
        let Some(catalogue) = self.newest_catalogue() else { return Intent::new() };
        let wanted = |replica: &Replica| Wanted { node: replica.node, voter: replica.want == Want::Voter };
        catalogue
            .groups()
            .map(|(group, placement)| {
                (group, placement.wanted().map(|(id, replica)| (id, wanted(replica))).collect())
            })
            .collect()
    }

    fn looks(&self) -> Vec<Look> {
        let lives = self.nodes.iter().filter_map(|(id, node)| Some((*id, node.life.as_ref()?)));
        let looks = lives.flat_map(|(node, life)| {
            life.core.statuses().into_iter().map(move |status| Look {
                group: status.group,
                node,
                replica: status.replica,
                voter: status.members.voters.contains(&status.replica) && !status.members.is_joint(),
                leader: status.leader,
                term: status.term,
                last: status.last,
                applied: life.machines.applied(status.group).map(|at| at.index).unwrap_or_default(),
                halted: status.halted.map(|reason| reason.to_string()),
            })
        });
        looks.collect()
    }

    /// Everything is compared, and read from end to end, on every node.
    fn compare(&mut self) -> Result<(), Violation> {
        let mut comparison = Comparison::default();
        for node in self.node_ids() {
            if let Some(life) = self.nodes.get(&node).and_then(|state| state.life.as_ref()) {
                for status in life.core.statuses() {
                    if let Some(hash) = machine_hash(life, status.group) {
                        comparison.machine(node, status.group, hash)?;
                    }
                }
            }
            self.compare_files(node, &mut comparison)?;
            self.compare_logs(node, &mut comparison)?;
        }
        Ok(())
    }

    fn compare_files(&mut self, node: NodeId, comparison: &mut Comparison) -> Result<(), Violation> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let catalogue = life.machines.catalogue();
        let here: BTreeSet<LogId> = catalogue
            .channels()
            .flat_map(|channel| channel.logs())
            .filter(|(_, group)| life.machines.applied(*group).is_some())
            .map(|(log, _)| log)
            .collect();
        // What a deleted channel leaves is not promised to anybody.
        let files: Vec<_> =
            self.segment_files(node).into_iter().filter(|(log, ..)| here.contains(log)).collect();
        for (log, base, path) in files {
            let Some(storage) = self.nodes.get(&node).map(|state| state.disk.storage()) else { continue };
            let bytes = read_whole(storage.as_ref(), Path::new(&path), FILE_BYTES_MAX).map_err(|error| {
                Violation::of("what is stored verifies", format!("node {node}, {}: {error}", path.display()))
            })?;
            comparison.file(node, log, base, &bytes)?;
            self.witness_segment(node, log, base, &bytes.into())?;
        }
        Ok(())
    }

    fn compare_logs(&mut self, node: NodeId, comparison: &mut Comparison) -> Result<(), Violation> {
        let Some(life) = self.life(node) else { return Ok(()) };
        let (catalogue, readers) = (life.machines.catalogue(), life.machines.readers());
        for channel in catalogue.channels() {
            for (log, group) in channel.logs() {
                if self.life(node).is_none_or(|life| life.machines.applied(group).is_none()) {
                    continue;
                }
                let reader = readers.reader(log).ok_or_else(|| {
                    Violation::of(
                        "eventual full redundancy",
                        format!("node {node} has no log {log}, whose channel is in use"),
                    )
                })?;
                let start = reader.start();
                let (end, chain) = reader.end_and_chain();
                comparison.log(node, log, start, end)?;
                self.oracles.log_start.is(node, log, start)?;
                self.oracles.chain_agreement.is(log, end, chain, || format!("node {node} at the end"))?;
                let mut at = start;
                while at < end {
                    let read = reader.read(at, READ_BYTES).map_err(|error| {
                        Violation::of(
                            "what is committed can be read",
                            format!("node {node}, log {log}: {error}"),
                        )
                    })?;
                    let next = self.oracles.read(node, log, at, &read.batches)?;
                    if next <= at {
                        offset_density::nothing(node, log, at, end)?;
                    }
                    at = next;
                }
                let oracles = &self.oracles;
                oracles.acknowledged_durability.all_read(log, start, end, &oracles.history)?;
            }
        }
        Ok(())
    }
}

/// Of the checkpoint that the machine would write now, less what may differ: how far the raft log is durable, and
/// what a disk has damaged.
fn machine_hash(life: &Life, group: GroupId) -> Option<u64> {
    let newest = || life.engine.load_checkpoint(group).ok().flatten().map(|loaded| loaded.newest);
    let job = life.machines.checkpoint_job(group, EntryId::default());
    let mut checkpoint: Checkpoint = job.map(|job| job.checkpoint().clone()).or_else(newest)?;
    checkpoint.last_durable = EntryId::default();
    for log in &mut checkpoint.logs {
        log.damage.clear();
    }
    Some(xxh3_64(&checkpoint.encode()))
}
