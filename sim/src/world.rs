//! The world: nodes, network, clients and faults on one schedule, in one thread.
//!
//! [`World::run`] plays a storm of faults, then heals everything and demands that the cluster goes on
//! and agrees. Everything that happens is noted in the trace; the first broken promise ends the run.

use std::collections::BTreeMap;

use raft::eraftpb::Message;
use tidelog_consensus::apply::group_placement::UNBOUND;
use tidelog_consensus::core::Input;
use tidelog_consensus::entry::MetaCommand;
use tidelog_engine::sim_disk::{Crash, SimDisk};
use tidelog_wire::ids::{BootEpoch, GroupId, Incarnation, NodeId};

use crate::chance::Chance;
use crate::clients::Clients;
use crate::coverage::{Coverage, Seen};
use crate::faults::FaultEnd;
use crate::network::Network;
use crate::node::{Life, NodeError, SimNode};
use crate::oracle::{Oracles, Violation};
use crate::protocol::{ClientId, Request, Response};
use crate::schedule::{Micros, Schedule};
use crate::settings::Settings;
use crate::trace::Trace;

/// A run that schedules more than this is stuck in a loop.
const EVENTS_MAX: u64 = 5_000_000;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Event {
    Tick { node: NodeId, life: u64 },
    Message { to: NodeId, from: NodeId, life: Identity, group: GroupId, message: Box<Message> },
    Asked { from: NodeId, to: NodeId, passed_on: bool, command: MetaCommand },
    Operate,
    Persisted { node: NodeId, life: u64 },
    Apply { node: NodeId, life: u64 },
    Checkpoint { node: NodeId, life: u64, group: GroupId },
    Snapshot { node: NodeId, life: u64, group: GroupId },
    Reconcile { node: NodeId, life: u64 },
    Request { node: NodeId, client: ClientId, number: u64, request: Request },
    Response { client: ClientId, number: u64, response: Response },
    Wake { client: ClientId },
    Fault,
    FaultEnd(FaultEnd),
    Restart { node: NodeId },
    StormEnds,
    CheckConvergence,
}

/// Which life of a node a message comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) incarnation: Incarnation,
    pub(crate) boot: BootEpoch,
}

/// What was counted in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What happened, of all that should.
    pub coverage: Coverage,
    /// Crashes of nodes, planned by whatever fault.
    pub crashes: u64,
    /// Events.
    pub events: u64,
}

/// The world of one seed.
#[derive(Debug)]
pub struct World {
    pub(crate) settings: Settings,
    pub(crate) schedule: Schedule<Event>,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<NodeId, SimNode>,
    pub(crate) clients: Clients,
    pub(crate) oracles: Oracles,
    pub(crate) trace: Trace,
    pub(crate) chance: Chance,
    pub(crate) coverage: Coverage,
    crashes: u64,
    events: u64,
    /// The number of the next node that joins.
    pub(crate) next_node: u64,
    /// The last incarnation that was drawn.
    pub(crate) incarnations: u128,
    /// Whom a leader was asked to hand over to.
    pub(crate) asked_to_lead: BTreeMap<GroupId, NodeId>,
    /// Nodes that die in some operation of their disk.
    pub(crate) doomed: BTreeMap<NodeId, Crash>,
    pub(crate) calm: bool,
    pub(crate) calm_since: Micros,
    pub(crate) converged: bool,
}

impl World {
    /// The world of `settings`, with all nodes formatted and started.
    ///
    /// # Errors
    /// A node does not start on a new disk.
    pub fn new(settings: Settings, lines: bool) -> Result<Self, NodeError> {
        let mut chance = Chance::new(settings.seed);
        let mut nodes = BTreeMap::new();
        for number in 0..settings.nodes {
            let id = NodeId(number);
            let mut node = SimNode::format(id, &settings, SimDisk::new(chance.draw()))?;
            node.clock_ahead_ms = i64::try_from(chance.below(20_000)).unwrap_or(0).saturating_sub(10_000);
            node.tick_micros = chance.between(22_500, 27_500);
            nodes.insert(id, node);
        }
        let network = Network::new(chance.fork(2), settings.network);
        let clients = Clients::new(&settings, &mut chance);
        let mut world = Self {
            schedule: Schedule::default(),
            network,
            nodes,
            clients,
            oracles: Oracles::default(),
            trace: Trace::new(lines),
            chance,
            coverage: Coverage::default(),
            crashes: 0,
            events: 0,
            next_node: 0,
            incarnations: 1_000,
            asked_to_lead: BTreeMap::new(),
            doomed: BTreeMap::new(),
            calm: false,
            calm_since: Micros(0),
            converged: false,
            settings,
        };
        for id in world.node_ids() {
            if let Some(node) = world.nodes.get_mut(&id) {
                node.start(&world.settings, Micros(0))?;
            }
            world.begin_life(id);
        }
        for client in world.clients.ids() {
            let delay = world.chance.between(1_000, 500_000);
            world.schedule.after(delay, Event::Wake { client });
        }
        world.schedule.after(world.settings.fault_micros, Event::Fault);
        if world.settings.operator_micros > 0 && !world.settings.operator.is_empty() {
            world.schedule.after(world.settings.operator_micros, Event::Operate);
        }
        world.schedule.after(world.settings.storm_micros, Event::StormEnds);
        Ok(world)
    }

    /// Plays the whole run.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(&mut self) -> Result<(), Violation> {
        for id in self.node_ids() {
            self.witness_start(id)?;
        }
        while let Some(event) = self.schedule.pop() {
            self.events = self.events.saturating_add(1);
            if self.events > EVENTS_MAX {
                return Err(Violation::of("a run ends", format!("{} events and no end", self.events)));
            }
            self.happen(event)?;
            if self.converged {
                return Ok(());
            }
        }
        Err(Violation::of("a run ends", "nothing is left to happen".to_owned()))
    }

    /// When the node that an event is for goes on, if its process is stopped.
    fn paused(&self, event: &Event) -> Option<u64> {
        let node = match event {
            Event::Tick { node, .. }
            | Event::Persisted { node, .. }
            | Event::Apply { node, .. }
            | Event::Checkpoint { node, .. }
            | Event::Snapshot { node, .. }
            | Event::Reconcile { node, .. }
            | Event::Request { node, .. }
            | Event::Message { to: node, .. }
            | Event::Asked { to: node, .. } => node,
            Event::Response { .. }
            | Event::Wake { .. }
            | Event::Operate
            | Event::Fault
            | Event::FaultEnd(_)
            | Event::Restart { .. }
            | Event::StormEnds
            | Event::CheckConvergence => return None,
        };
        let until = self.nodes.get(node)?.paused_until;
        until.0.checked_sub(self.schedule.now().0).filter(|left| *left > 0)
    }

    /// Whether the catalogue at `to` knows another life of `from` than this, or none. A node that has no catalogue yet
    /// knows nobody and listens to all who have the cluster's certificate.
    fn is_stranger(&self, to: NodeId, from: NodeId, life: Identity) -> bool {
        let Some(machines) =
            self.nodes.get(&to).and_then(|state| state.life.as_ref()).map(|life| &life.machines)
        else {
            return false;
        };
        if machines.applied(GroupId::META).is_none() {
            return false;
        }
        let catalogue = machines.catalogue();
        let Some(member) = catalogue.member(from) else { return true };
        let other = member.incarnation != UNBOUND && member.incarnation != life.incarnation;
        other || member.record.as_ref().is_some_and(|record| record.boot_epoch > life.boot)
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        if let Some(left) = self.paused(&event) {
            self.schedule.after(left, event);
            return Ok(());
        }
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::Message { to, from, life, group, message } => {
                if self.is_stranger(to, from, life) {
                    self.coverage.note(Seen::StrangerIgnored);
                    return Ok(());
                }
                let fields = [
                    ("to", to.get()),
                    ("from", from.get()),
                    ("group", group.get()),
                    (
                        "kind",
                        u64::try_from(protobuf::ProtobufEnum::value(&message.get_msg_type())).unwrap_or(0),
                    ),
                    ("term", message.get_term()),
                    ("index", message.get_index()),
                ];
                self.trace.note(self.schedule.now(), "message", &fields);
                self.step(to, Input::Message { from, group, message })
            }
            Event::Persisted { node, life } => self.persisted(node, life),
            Event::Apply { node, life } => self.apply_next(node, life),
            Event::Checkpoint { node, life, group } => self.checkpoint(node, life, group),
            Event::Snapshot { node, life, group } => self.snapshot_step(node, life, group),
            Event::Reconcile { node, life } => self.reconcile(node, life),
            Event::Request { node, client, number, request } => self.serve(node, client, number, request),
            Event::Response { client, number, response } => self.client_hears(client, number, response),
            Event::Wake { client } => self.client_wakes(client),
            Event::Asked { from, to, passed_on, command } => self.asked(from, to, passed_on, command),
            Event::Operate => self.operate(),
            Event::Fault => self.fault(),
            Event::FaultEnd(end) => self.fault_ends(end),
            Event::Restart { node } => self.restart(node),
            Event::StormEnds => self.storm_ends(),
            Event::CheckConvergence => self.check_convergence(),
        }
    }

    fn tick(&mut self, node: NodeId, number: u64) -> Result<(), Violation> {
        if self.life_numbered(node, number).is_none() {
            return Ok(());
        }
        self.schedule_tick(node, number);
        self.step(node, Input::Tick)
    }

    fn schedule_tick(&mut self, node: NodeId, life: u64) {
        if let Some(state) = self.nodes.get(&node) {
            self.schedule.after(state.tick_micros, Event::Tick { node, life });
        }
    }

    /// What a node does when it has just started.
    pub(crate) fn begin_life(&mut self, node: NodeId) {
        let Some(number) = self.life(node).map(|life| life.number) else { return };
        self.trace.note(self.schedule.now(), "start", &[("node", node.get()), ("life", number)]);
        self.schedule_tick(node, number);
        let delay = self.chance.between(10_000, 300_000);
        self.schedule.after(delay, Event::Reconcile { node, life: number });
    }

    /// A disk did not do what it was asked. If its machine was to die there, it dies now.
    pub(crate) fn disk_failed(&mut self, node: NodeId, error: &NodeError) {
        self.trace.words(self.schedule.now(), "disk_failed", &format!("node {node}: {error}"));
        match self.doomed.remove(&node) {
            Some(crash) => self.crash(node, crash),
            None => self
                .clients
                .blame(Violation::of("only a dying disk refuses", format!("node {node}: {error}"))),
        }
    }

    /// Ends a node's life.
    pub(crate) fn crash(&mut self, node: NodeId, crash: Crash) {
        self.doomed.remove(&node);
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let alive = state.life.take().is_some();
        state.paused_until = Micros(0);
        state.disk.crash(crash);
        if alive {
            self.crashes = self.crashes.saturating_add(1);
            self.trace.words(self.schedule.now(), "crash", &format!("node {node}: {crash:?}"));
        }
        // Long enough, now and then, for the others to forget what this node needs.
        let usual = if self.chance.one_in(3) { 2_000_000 } else { 200_000 };
        let down = self.chance.duration(usual).min(4_000_000);
        self.schedule.after(down, Event::Restart { node });
    }

    /// Starts a node that is down.
    pub(crate) fn restart(&mut self, node: NodeId) -> Result<(), Violation> {
        let Some(state) = self.nodes.get_mut(&node) else { return Ok(()) };
        if state.life.is_some() {
            return Ok(());
        }
        match state.start(&self.settings, self.schedule.now()) {
            Ok(()) => {
                self.begin_life(node);
                let finished = self.nodes.get(&node).map_or(0, |state| state.finished_installs);
                self.coverage.add(Seen::SnapshotFinished, finished);
                self.witness_start(node)
            }
            Err(error) => match self.doomed.remove(&node) {
                Some(crash) => {
                    self.crash(node, crash);
                    Ok(())
                }
                None => Err(Violation::of(
                    "a node starts again after every crash",
                    format!("node {node}: {error}"),
                )),
            },
        }
    }

    /// A node's life, if it has one.
    pub(crate) fn life(&mut self, node: NodeId) -> Option<&mut Life> {
        self.nodes.get_mut(&node)?.life.as_mut()
    }

    /// A node's life, if it is still that one.
    pub(crate) fn life_numbered(&mut self, node: NodeId, number: u64) -> Option<&mut Life> {
        self.nodes.get_mut(&node)?.life(number)
    }

    /// All nodes.
    pub(crate) fn node_ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// The settings of this run.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (lost, repeated) = self.network.counts();
        let mut coverage = self.coverage.clone();
        coverage.add(Seen::MessageLost, lost);
        coverage.add(Seen::MessageRepeated, repeated);
        coverage.add(Seen::Acknowledged, self.oracles.acknowledged_durability.count());
        Counts { coverage, crashes: self.crashes, events: self.events }
    }

    /// The trace so far.
    #[must_use]
    pub fn into_trace(self) -> Trace {
        self.trace
    }
}
