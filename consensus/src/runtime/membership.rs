//! Membership: what this node does, again and again, so that facts become what the catalogue intends.
//!
//! A task looks at the catalogue and at the node's replicas, and carries out what [`crate::placement`] says:
//! 1. Peers: who is where, and in which life (the transport's directory).
//! 2. Replicas that this node should have begin, others end.
//! 3. A replica that cannot vouch for its log asks for a successor.
//! 4. For each group that this node leads: the next change of members, a report, a hand-over; and at last the
//!    preferred leader, once that one has caught up for a while.
//! 5. If it leads the meta group: what the catalogue should intend next.
//!
//! Each step may be repeated, and is, as long as it is needed: so nothing is waited for, no answer is kept, and it does not
//! matter who did the step before. What has not changed since it was found settled is not looked at again.
//!
//! Not here: being known at all (`super::register`), and how replicas begin and end (`super::replicas`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidelog_wire::ids::{GroupId, NodeId, RaftIndex, ReplicaId};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::asks::ask_leader;
use super::handle::NodeHandle;
use super::replicas::{Begin, Replicas};
use crate::apply::Catalogue;
use crate::apply::group_placement::UNBOUND;
use crate::apply::node_state::NodeState;
use crate::core::{GroupStatus, HaltReason, Input, Role};
use crate::entry::{Command, MetaCommand};
use crate::placement::{self, StartAs, Step};
use crate::transport::{Directory, KnownLife, KnownNode, Seen, Transport};

/// Between two looks, however much changes.
const PACE: Duration = Duration::from_millis(50);
/// A look that nothing called for.
const IDLE: Duration = Duration::from_secs(1);
/// The same thing is not done again for the same group before.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a preferred leader must have kept up before it is handed the group.
const KEPT_UP: Duration = Duration::from_secs(5);
/// Groups that are handed to their preferred leader in one look.
const HANDED_MAX: usize = 4;
/// Asks under way at once.
const ASKS_MAX: usize = 32;
/// How long what the meta group should intend may take to be applied.
const PLAN_PATIENCE: Duration = Duration::from_secs(2);

/// The task's belongings.
pub(super) struct Membership {
    pub(super) node: NodeHandle,
    pub(super) replicas: Arc<Mutex<Replicas>>,
    pub(super) transport: Option<Transport>,
    /// Reports of the apply thread for the meta group, which another node leads.
    pub(super) reports: mpsc::Receiver<MetaCommand>,
    pub(super) state: State,
}

/// What the task remembers between two looks.
#[derive(Default)]
pub(super) struct State {
    /// The directory that the transport was given last.
    known: Option<Directory>,
    /// Led groups that had nothing to do, as they were then.
    settled: BTreeMap<GroupId, Arc<GroupStatus>>,
    /// The catalogue by which they were settled.
    settled_by: Option<Arc<Catalogue>>,
    /// When something was last done for a group.
    acted: BTreeMap<GroupId, Duration>,
    /// Since when a group's preferred leader, another node, has kept up.
    kept_up: BTreeMap<GroupId, (NodeId, Duration)>,
    asks: JoinSet<()>,
}

impl Membership {
    /// Works until the node stops.
    pub(super) async fn keep(mut self) {
        let mut catalogue = self.node.watch_catalogue();
        let mut statuses = self.node.watch_statuses();
        let mut stopping = self.node.watch_stopping();
        loop {
            tokio::select! {
                () = self.look() => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            // What comes meanwhile is seen by the next look.
            tokio::select! {
                () = tokio::time::sleep(PACE) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
            while self.state.asks.try_join_next().is_some() {}
            tokio::select! {
                changed = catalogue.changed() => if changed.is_err() { return },
                changed = statuses.changed() => if changed.is_err() { return },
                Some(report) = self.reports.recv() => self.ask(report),
                () = tokio::time::sleep(IDLE) => {}
                _ = stopping.wait_for(|stopping| *stopping) => return,
            }
        }
    }

    async fn look(&mut self) {
        let (catalogue, statuses) = (self.node.catalogue(), self.node.group_status());
        self.tell_transport(&catalogue);
        if self.node.is_forgetful() {
            return;
        }
        self.change_replicas(&catalogue, &statuses).await;
        self.replace_lost(&catalogue, &statuses);
        self.lead(&catalogue, &statuses);
        self.plan(&catalogue).await;
    }

    fn tell_transport(&mut self, catalogue: &Catalogue) {
        let Some(transport) = &self.transport else { return };
        let directory = directory(&self.node, catalogue);
        let Some(before) = self.state.known.replace(directory.clone()) else {
            transport.know(directory);
            return;
        };
        let first_named = before.named_at == RaftIndex::ZERO && directory.named_at > RaftIndex::ZERO;
        // The index moves with every entry; it counts only with what it is the index of.
        let same = before.nodes == directory.nodes && before.founding == directory.founding;
        if !same || first_named || before.index == RaftIndex::ZERO {
            transport.know(directory);
        } else {
            self.state.known = Some(before);
        }
        if first_named && self.node.has_joined() {
            transport.introduce_anew();
        }
    }

    async fn change_replicas(&mut self, catalogue: &Catalogue, statuses: &[Arc<GroupStatus>]) {
        let identity = self.node.identity();
        let running: BTreeMap<GroupId, ReplicaId> =
            statuses.iter().map(|status| (status.group, status.replica)).collect();
        let changes = placement::local(catalogue, identity.node, identity.incarnation, &running);
        let replicas = self.replicas.lock().await;
        for (group, replica, start_as) in changes.start {
            let placement = catalogue.group(group);
            let begin = match (start_as, placement) {
                (StartAs::Genesis, Some(placement)) => Begin::Genesis(placement),
                (StartAs::Genesis, None) | (StartAs::Blank, _) => Begin::Blank,
            };
            if let Err(reason) = replicas.begin(group, replica, begin).await {
                tracing::warn!(%group, %replica, "a replica did not begin yet: {reason}");
            }
        }
        for group in changes.stop {
            if let Err(reason) = replicas.end(group).await {
                tracing::warn!(%group, "a replica did not end yet: {reason}");
            }
        }
    }

    /// Replicas with evidence against them ask for successors; that of the meta group does so elsewhere (`super::register`).
    fn replace_lost(&mut self, catalogue: &Catalogue, statuses: &[Arc<GroupStatus>]) {
        for status in statuses.iter().filter(|status| status.group != GroupId::META) {
            let Some(reason) = status.halted.as_ref().filter(|reason| is_forgetful(reason)) else { continue };
            let (group, lost) = (status.group, status.replica);
            let wanted = catalogue.group(group).is_some_and(|placement| {
                placement.wanted().any(|(id, replica)| id == lost && replica.incarnation != UNBOUND)
            });
            if wanted && self.acts(group) {
                tracing::info!(%group, replica = %lost, "asks for a successor: {reason}");
                self.ask(MetaCommand::ReplaceReplica { group, lost });
            }
        }
    }

    /// Whether it is time to do something for the group; then it counts as done.
    fn acts(&mut self, group: GroupId) -> bool {
        let now = self.node.clock().now();
        let due = self.state.acted.get(&group).is_none_or(|at| now.saturating_sub(*at) >= AGAIN);
        if due {
            self.state.acted.insert(group, now);
        }
        due
    }

    fn ask(&mut self, command: MetaCommand) {
        if self.state.asks.len() >= ASKS_MAX {
            return;
        }
        let node = self.node.clone();
        self.state.asks.spawn(async move {
            let asked = ask_leader(&node, command).await;
            tracing::debug!(?asked, "asked the leader of the meta group");
        });
    }

    fn lead(&mut self, catalogue: &Arc<Catalogue>, statuses: &[Arc<GroupStatus>]) {
        if self.state.settled_by.as_ref().is_none_or(|by| !Arc::ptr_eq(by, catalogue)) {
            self.state.settled.clear();
            self.state.settled_by = Some(Arc::clone(catalogue));
        }
        let mut handed = 0;
        for status in statuses.iter().filter(|status| status.role == Role::Leader && status.serves) {
            let group = status.group;
            if self.state.settled.get(&group).is_some_and(|then| Arc::ptr_eq(then, status)) {
                continue;
            }
            match placement::next_step(catalogue, status) {
                Step::Change(change) if self.acts(group) => {
                    let token = self.node.token();
                    self.node.push_input(Input::ChangeMembers { group, token, change });
                }
                Step::HandOver(to) if self.acts(group) => {
                    self.node.push_input(Input::TransferLeader { group, to: Some(to) });
                }
                Step::Report(report) if self.acts(group) => self.ask(report),
                Step::Change(_) | Step::HandOver(_) | Step::Report(_) | Step::Wait => {}
                Step::Settled => {
                    if !self.prefers_another(catalogue, status, &mut handed) {
                        self.state.settled.insert(group, Arc::clone(status));
                    }
                }
            }
        }
    }

    /// Whether another node should lead the group; it is handed over once that one has kept up for a while.
    fn prefers_another(&mut self, catalogue: &Catalogue, status: &GroupStatus, handed: &mut usize) -> bool {
        let (group, here) = (status.group, self.node.identity().node);
        let preferred = placement::preferred_leader(catalogue, group).filter(|node| *node != here);
        let keeps_up = preferred.filter(|node| {
            let mut peers = status.peers.iter();
            peers.any(|peer| peer.node == *node && peer.active && peer.caught_up && !peer.learner)
        });
        let Some(node) = keeps_up else {
            self.state.kept_up.remove(&group);
            return preferred.is_some();
        };
        let now = self.node.clock().now();
        let since = self.state.kept_up.entry(group).or_insert((node, now));
        if since.0 != node {
            *since = (node, now);
        }
        if now.saturating_sub(since.1) >= KEPT_UP && *handed < HANDED_MAX && self.acts(group) {
            *handed = handed.saturating_add(1);
            self.state.kept_up.remove(&group);
            tracing::info!(%group, to = %node, "the group is handed to the node that should lead it");
            self.node.push_input(Input::TransferLeader { group, to: Some(node) });
        }
        true
    }

    /// The meta group's leader says what should be intended next.
    async fn plan(&self, catalogue: &Catalogue) {
        let leads = self.node.status(GroupId::META).is_some_and(|meta| meta.serves);
        if !leads {
            return;
        }
        let connected = self.transport.iter().flat_map(Transport::connected).map(|hello| hello.node);
        let alive: BTreeSet<NodeId> = connected.chain([self.node.identity().node]).collect();
        let mut proposed = JoinSet::new();
        for command in placement::plan(catalogue, &alive) {
            tracing::info!(?command, "the meta group should intend");
            proposed.spawn(self.node.submit(GroupId::META, Command::Meta(command), PLAN_PATIENCE));
        }
        while let Some(outcome) = proposed.join_next().await {
            tracing::debug!(?outcome, "the meta group was told what to intend");
        }
    }
}

/// Whether the replica may have forgotten what it promised, so that only a successor can go on.
pub(super) fn is_forgetful(reason: &HaltReason) -> bool {
    match reason {
        HaltReason::VotesAhead { .. }
        | HaltReason::DurableEntryMissing { .. }
        | HaltReason::LogBeginsLate { .. }
        | HaltReason::HardStateMismatch { .. }
        | HaltReason::LeaderKnowsMore { .. }
        | HaltReason::LogUnreadable { .. }
        | HaltReason::OthersLog { .. }
        | HaltReason::BadMembers { .. } => true,
        // A disk that refused may give tomorrow what it refuses today; and which of two histories is to go on, a person
        // decides.
        HaltReason::InstallUnfinished { .. } | HaltReason::CommittedConflict { .. } => false,
        // Of a start only: what stops a running replica comes from its disk.
        HaltReason::Outside { message, .. } => REFILLED.iter().any(|code| message.starts_with(code)),
    }
}

/// Codes of what a start finds and a snapshot mends: checkpoints that are gone or bad, a group's entries that are damaged.
const REFILLED: [&str; 4] = ["E0221", "E1102", "E1264", "E1267"];

/// What the transport is to know.
pub(super) fn directory(node: &NodeHandle, catalogue: &Catalogue) -> Directory {
    let identity = node.identity();
    let index = node.applied(GroupId::META);
    let named =
        catalogue.member(identity.node).is_some_and(|known| known.incarnation == identity.incarnation);
    let known = |(id, known): (NodeId, &crate::apply::catalogue::Node)| {
        let life = match (known.state, known.incarnation, &known.record) {
            (NodeState::Removed, incarnation, _) => KnownLife::Removed(incarnation),
            (_, UNBOUND, _) | (_, _, None) => KnownLife::Unbound,
            (_, incarnation, Some(record)) => {
                let (boot_epoch, session) = (record.boot_epoch, record.session);
                KnownLife::Bound(Seen { incarnation, boot_epoch, session })
            }
        };
        let address = known.record.as_ref().and_then(|record| record.peer.parse().ok());
        (id, KnownNode { address, life })
    };
    Directory {
        founding: catalogue.founding(),
        index,
        named_at: if named { index } else { RaftIndex::ZERO },
        nodes: catalogue.members().map(known).collect(),
    }
}
