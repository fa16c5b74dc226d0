//! A cluster of one that goes on from its checkpoint, because what came after it is lost: every counter is put beyond all
//! that can have been used.

use std::collections::BTreeMap;

use tidelog_wire::ids::{Generation, GroupId, Incarnation, NodeId, ProducerId, ReplicaId};

use super::Catalogue;
use crate::apply::group_placement::Replica;
use crate::entry::Want;

/// How far counters are put ahead: more than is minted between two checkpoints.
const JUMP: u32 = 1 << 30;

impl Catalogue {
    /// Gives each group one replica, a voter on `node`, under an id that nobody had, and jumps all counters; generations
    /// also beyond `newest`, the newest that anything was found of. Which replica each group has.
    pub fn go_on_alone(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        newest: Option<Generation>,
    ) -> BTreeMap<GroupId, ReplicaId> {
        let jumped = |number: u64| number.saturating_add(JUMP.into());
        let generation = self.next_generation.max(newest.unwrap_or_default());
        self.next_generation = Generation(jumped(generation.get()));
        self.next_producer = ProducerId(self.next_producer.get().saturating_add(JUMP.into()));
        self.next_group = GroupId(jumped(self.next_group.get()));
        let mut next = jumped(self.next_replica.get());
        let mut replicas = BTreeMap::new();
        for (group, placement) in &mut self.groups {
            let id = ReplicaId(next);
            next = next.saturating_add(1);
            placement.replicas = BTreeMap::from([(id, Replica { node, incarnation, want: Want::Voter })]);
            placement.reported = None;
            replicas.insert(*group, id);
        }
        self.next_replica = ReplicaId(next);
        replicas
    }
}
